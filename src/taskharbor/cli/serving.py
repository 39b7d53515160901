"""One worker in a process that exists for it: signals, the supervisor's lifeline, recycling, and leaving.

                    alone               under a supervisor
SIGTERM             drain, then halt    drain, however often it comes (see `taskharbor.supervisor`)
SIGHUP              drain               drain: the terminal is gone; a supervisor rolls, and sends it to nobody
SIGINT              drain, then halt    halt
SIGUSR1             the stacks of all threads go to standard error
the parent's death                      drain
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NoReturn, cast

import msgspec

from taskharbor.cli.closing import tell_closing
from taskharbor.cli.signals import heard_by, signals_restored, stacks_on_request
from taskharbor.cli.values import told_size
from taskharbor.errors import LifespanError, StoreUnavailable
from taskharbor.supervisor import Exit, Lifeline
from taskharbor.supervisor.memory import resident_bytes
from taskharbor.worker import Worker, WorkerSettings, run_in_own_loop

if TYPE_CHECKING:
    from taskharbor import Harbor
    from taskharbor.working import WorkerOptions

logger = logging.getLogger("taskharbor.worker")

_LOOK_SECONDS: Final = 0.25
_LEAVE_SECONDS: Final = 5.0


def serve(
    harbor: Harbor,
    settings: WorkerSettings,
    *,
    until_idle: timedelta | None,
    max_jobs: int | None,
    max_memory: int | None,
) -> int:
    """Run one worker in this process until it is told to stop, and return an exit code. Closes the harbor.

    Follow it by `leave(code)`: what handlers have left running may keep an interpreter from ending by itself.

    Args:
        harbor: whose jobs to run.
        settings: the worker's; `owns_process` is set, so a blocked event loop ends the process with `Exit.STALLED`.
        until_idle: stop when nothing is running here and nothing is due within so long; None works on.
        max_jobs: recycle once so many deliveries were settled. A worker looks each quarter of a second.
        max_memory: recycle once the process holds so many bytes of memory, after at least one job. Where /proc does not
            tell, the most that it has ever held counts.

    Returns:
        `Exit.OK` after a drain, `Exit.RECYCLE` to be started afresh, `Exit.UNFINISHED` if handlers would not end. Under
        a supervisor `Exit.ORDERED` instead of any of these, if a person has told the worker to end from afar.
        `Exit.FAILED` if the application's deps could not be closed: outcomes are written and the store is closed all
        the same, and the application's error is in the log.

    Raises:
        DeploymentError: the worker cannot start as things are, and could not on another try.
        StoreUnavailable: with `until_idle`, the store could not be reached when it started. Otherwise it is waited for.
    """
    if max_memory is not None:
        resident_bytes()  # refused now rather than after the first job
    own = msgspec.structs.replace(settings, owns_process=True)
    worker = harbor.worker(**cast("WorkerOptions", cast("object", msgspec.structs.asdict(own))))
    if until_idle is None:
        worker.wait_for_store()
    else:
        worker.leave_schedules()
    serving = _Serving(worker, until_idle, max_jobs, max_memory)

    async def main() -> Exit:
        code = await serving.main()
        ordered = serving.ordered and code in (Exit.OK, Exit.RECYCLE, Exit.UNFINISHED, Exit.FAILED)
        if until_idle is not None:
            await tell_closing(harbor, settings, worker)
        if code is not Exit.UNFINISHED:  # else the keeper still needs the store
            await harbor.aclose()
        return Exit.ORDERED if ordered else code

    try:
        with signals_restored(), stacks_on_request():
            return run_in_own_loop(main)
    finally:
        worker.loop_closed()
        serving.close()


def leave(code: int) -> NoReturn:
    """End this process with a code, whatever handlers have left running in threads.

    A thread that does not end would keep the interpreter from ending. So after `Exit.UNFINISHED` nothing is waited
    for, and otherwise exit handlers and threads get five seconds.
    """

    def burn() -> None:
        if not ended.wait(_LEAVE_SECONDS):
            os._exit(code)

    # A fuse first: even a flush may wait for a lock that a stuck thread holds.
    ended = threading.Event()
    threading.Thread(target=burn, name="taskharbor-leave", daemon=True).start()
    if code == Exit.UNFINISHED:
        with suppress(Exception):
            logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # closed, or none at all
                stream.flush()
        os._exit(code)
    sys.exit(code)


class _Serving:
    """A worker's life in its process."""

    def __init__(
        self, worker: Worker, until_idle: timedelta | None, max_jobs: int | None, max_memory: int | None
    ) -> None:
        self._worker = worker
        self._until_idle = until_idle
        self._max_jobs = max_jobs
        self._max_memory = max_memory
        self._lifeline = Lifeline.taken()
        self._started = False
        self._told = False
        """Somebody wants it to end."""
        self._recycles = False

    async def main(self) -> Exit:
        """Start the worker, work, and stop."""
        loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        unfinished: list[str] = []
        closed = True
        with ExitStack() as heard:
            for number, react in self._reactions():
                heard.enter_context(heard_by(loop, number, react))
            if self._lifeline is not None:
                loop.add_reader(self._lifeline, self._on_lifeline)
                heard.callback(loop.remove_reader, self._lifeline)
            try:
                async with self._worker as worker:
                    self._started = True
                    if self._lifeline is not None:
                        self._lifeline.say_ready()
                    await self._work()
                    unfinished = await worker.stop()
            except asyncio.CancelledError:
                if self._started or not self._told:
                    raise
                logger.info("halted before the worker had started")
                return Exit.OK
            except StoreUnavailable:
                if self._started or not self._told:
                    raise
                logger.info("told to end before the store could be reached")
                return Exit.OK
            except LifespanError as error:
                if not self._started:
                    raise
                # The application's own error: its traceback, and none of ours.
                logger.error("%s", error, exc_info=error.__cause__)
                closed = False
        if unfinished:
            return Exit.UNFINISHED
        if not closed:
            return Exit.FAILED
        return Exit.RECYCLE if self._recycles else Exit.OK

    def _reactions(self) -> list[tuple[signal.Signals, Callable[[], None]]]:
        reactions = [(signal.SIGTERM, self._on_sigterm), (signal.SIGINT, self._on_sigint)]
        if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup's wish
            reactions.append((signal.SIGHUP, lambda: self._drain("SIGHUP")))
        return reactions

    def close(self) -> None:
        """Let go of the lifeline."""
        if self._lifeline is not None:
            self._lifeline.close()

    async def _work(self) -> None:
        watching = asyncio.ensure_future(self._watch())
        try:
            if self._until_idle is not None:
                await self._worker.idle(self._until_idle)
                self._worker.drain()
            await self._worker.run()
        finally:
            watching.cancel()

    @property
    def ordered(self) -> bool:
        """Return whether the supervisor is to know that a person has told the worker to end, from afar."""
        return self._worker.ordered and self._lifeline is not None

    # --- recycling

    async def _watch(self) -> None:
        """Recycle the process when a limit is passed."""
        if self._max_jobs is None and self._max_memory is None:
            return
        seen = 0
        while not self._worker.draining:
            await asyncio.sleep(_LOOK_SECONDS)
            counts = self._worker.counts
            jobs = sum(counts.settled.values()) + counts.stale
            if (
                jobs == seen
            ):  # an idle worker does not grow, and one without a job behind it would recycle for ever
                continue
            seen = jobs
            why = self._limit_passed(jobs)
            if why is not None and not self._worker.draining:
                logger.info("worker %s drains to be started afresh: %s", self._worker.name, why)
                self._recycles = True
                self._worker.drain()

    def _limit_passed(self, jobs: int) -> str | None:
        if self._max_jobs is not None and jobs >= self._max_jobs:
            return f"it has settled {jobs} deliveries (--max-jobs {self._max_jobs})"
        held = 0 if self._max_memory is None else resident_bytes()
        if self._max_memory is not None and held > self._max_memory:
            limit = told_size(self._max_memory)
            return f"it holds {told_size(held)} of memory after {jobs} deliveries (--max-memory {limit})"
        return None

    # --- being told to end

    def _on_sigterm(self) -> None:
        # The supervisor's, and beside it perhaps the service manager's: under a supervisor two mean what one means.
        if self._told and self._lifeline is None:
            self._halt("SIGTERM")
        else:
            self._drain("SIGTERM")

    def _on_sigint(self) -> None:
        if self._told or self._lifeline is not None:
            self._halt("SIGINT")
        else:
            self._drain("SIGINT")

    def _on_lifeline(self) -> None:
        if self._lifeline is not None and self._lifeline.is_cut():
            asyncio.get_running_loop().remove_reader(self._lifeline)
            self._drain("the supervisor is gone")

    def _drain(self, why: str) -> None:
        if not self._told:
            logger.info("%s: worker %s drains", why, self._worker.name)
        self._told, self._recycles = True, False
        self._worker.drain()

    def _halt(self, why: str) -> None:
        logger.warning("%s: worker %s cancels what runs", why, self._worker.name)
        self._told, self._recycles = True, False
        self._worker.halt()
        if (
            not self._started and self._task is not None
        ):  # no job is in hand yet: a start that hangs is given up
            self._task.cancel()
