"""An event loop of a worker's own: uvloop where it is installed, and an end that always comes.

`asyncio.run` waits for ever for tasks that swallow their cancellation. A handler may have left such a task behind, so
here leftovers are cancelled, waited for a little, named in the log, and left.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

logger = logging.getLogger("taskharbor.worker")

T = TypeVar("T")

_LEFTOVERS_SECONDS = 1.0


def new_loop() -> asyncio.AbstractEventLoop:
    """Return a new event loop, uvloop's if it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def run_in_own_loop(
    main: Callable[[], Coroutine[Any, Any, T]], on_interrupt: Callable[[], None] | None = None
) -> T:
    """Run `main()` on a new loop in this thread and return its result.

    In the main thread Ctrl-C calls `on_interrupt` instead of raising wherever the program happens to be, which would
    be inside somebody's handler as often as not; `KeyboardInterrupt` is raised once `main` has returned.
    """
    loop = new_loop()
    interrupted = False

    def on_sigint() -> None:
        nonlocal interrupted
        interrupted = True
        if on_interrupt is not None:
            on_interrupt()

    in_main = on_interrupt is not None and threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if in_main else None
    if in_main:
        with contextlib.suppress(NotImplementedError):  # Windows has no signal handlers on loops
            loop.add_signal_handler(signal.SIGINT, on_sigint)
    try:
        asyncio.set_event_loop(loop)
        result = _run(loop, loop.create_task(main()))
        if interrupted:
            raise KeyboardInterrupt
        return result
    finally:
        try:
            _end_leftovers(loop)
        finally:
            asyncio.set_event_loop(None)
            loop.close()
            if before is not None:  # closing the loop puts Python's own handler there
                signal.signal(signal.SIGINT, before)


async def in_own_thread(work: Callable[[], object]) -> None:
    """Run blocking work in a thread of its own and wait for it.

    Not in the loop's default executor: handlers may have filled that with work that does not end.
    """
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def run() -> None:
        try:
            work()
        finally:
            with contextlib.suppress(RuntimeError):  # the loop has closed
                loop.call_soon_threadsafe(done.set)

    threading.Thread(target=run, name="taskharbor-beside", daemon=True).start()
    await done.wait()


def _run(loop: asyncio.AbstractEventLoop, task: asyncio.Task[T]) -> T:
    while True:
        try:
            return loop.run_until_complete(task)
        except (SystemExit, KeyboardInterrupt) as error:
            if task.done():
                raise
            # Out of a task that a handler started: loops let these two through wherever they are raised.
            logger.error("a task started by a handler raised %s, which is ignored", type(error).__name__)


def _end_leftovers(loop: asyncio.AbstractEventLoop) -> None:
    leftovers = asyncio.all_tasks(loop)
    for task in leftovers:
        task.cancel()
    if leftovers:
        logger.warning(
            "handlers left %d asyncio tasks behind, which are cancelled: %s",
            len(leftovers),
            ", ".join(sorted(task.get_name() for task in leftovers)[:10]),
        )
        ended, stuck = _run(loop, loop.create_task(asyncio.wait(leftovers, timeout=_LEFTOVERS_SECONDS)))
        for task in ended:
            error = None if task.cancelled() else task.exception()
            if error is not None:
                logger.warning("the task %s ended with %s", task.get_name(), type(error).__name__)
        for task in stuck:
            logger.error("the task %s swallowed its cancellation and is left as it is", task.get_name())
            # Its destruction would be reported once more.
            task._log_destroy_pending = False  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]
    _run(loop, loop.create_task(loop.shutdown_asyncgens()))
    # Only what a handler sent there itself can be running in it; nobody else waits for that.
    with contextlib.suppress(TimeoutError):
        _run(loop, loop.create_task(asyncio.wait_for(loop.shutdown_default_executor(), _LEFTOVERS_SECONDS)))
