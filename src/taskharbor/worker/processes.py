"""Handlers with `run="process"`: children that run one job at a time, and can be killed for it.

A child is told a module, a task's name and the arguments in MessagePack, over a pipe; it answers with the result in
MessagePack or with why there is none. Nothing is pickled. A thread of the worker's pool waits for each child, so for
the rest of the worker these runs are like those of other sync handlers.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from taskharbor.errors import TaskHarborError
from taskharbor.outcome import (
    REASON_LIMIT,
    Failed,
    Outcome,
    Rejected,
    Released,
    Snooze,
    Snoozed,
    bounded,
)
from taskharbor.task.wire import WIRE
from taskharbor.worker.child import (
    Answer,
    Pipe,
    Request,
    Returned,
    Words,
    child_main,
    decode_answer,
    encode_request,
    kind_name,
)
from taskharbor.worker.layered import LayeredPlan
from taskharbor.worker.layered_child import ask_within_layers
from taskharbor.worker.run import Run
from taskharbor.worker.work import Work

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

_LOOK_SECONDS = 0.05


class ChildLost(TaskHarborError):
    """The child process ended in the middle of the job: killed, out of memory, or by `os._exit`."""


class _Child:
    """One child process."""

    def __init__(self) -> None:
        import multiprocessing  # slow to import, and most workers have no such task

        # spawn: a fork would copy this process's threads' locks in whatever state they are.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self.pipe: Pipe = ours
        self.process: BaseProcess = context.Process(
            target=child_main, args=(theirs,), name="taskharbor-child", daemon=True
        )
        self.process.start()
        theirs.close()
        self._run: Run | None = None
        self._killed = False
        self._lock = threading.Lock()

    def take(self, run: Run | None) -> None:
        """Note which run it is at; None for none."""
        with self._lock:
            self._run = run

    def interrupt(self, run: Work) -> None:
        """Kill the child if it is still at this run: there is no gentler way that always ends."""
        with self._lock:
            if self._run is run:
                self._killed = True
                self.process.kill()

    def shelter(self) -> AbstractContextManager[None]:
        """Return a block like any other: nothing is raised in the thread that waits for a child."""
        return nullcontext()

    def ask(self, request: bytes, on_words: Callable[[Words], None]) -> Answer | None:
        """Return the answer; None if the child ends before it gives one. `on_words` hears what its handler tells."""
        try:
            self.pipe.send_bytes(request)
            # Not the pipe alone: a process that the handler has started may hold its other end open.
            from multiprocessing.connection import wait

            while True:
                wait([self.pipe, self.process.sentinel])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]
                if not self.pipe.poll():
                    return None
                message = decode_answer.decode(self.pipe.recv_bytes())
                if not isinstance(message, Words):
                    return message
                on_words(message)
        except (EOFError, OSError):
            return None

    @property
    def usable(self) -> bool:
        """Return whether it can take another run."""
        return not self._killed and self.process.is_alive()

    def close(self) -> None:
        """End the process: at once if it is idle, else when its job has ended."""
        self.pipe.close()
        self.process.join(timeout=1)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


class Children:
    """Up to `limit` child processes, started when first needed and used again."""

    def __init__(self, limit: int) -> None:
        self._free = threading.Semaphore(limit)
        self._idle: list[_Child] = []
        self._closed = False
        self._draining = False

    def drain(self) -> None:
        """Give up the runs that wait for a child: they have not started."""
        self._draining = True

    def call(self, run: Run, worker: str, begin: Callable[[Run], None]) -> Outcome:
        """Run the handler in a child and return the outcome. Blocks; called in a thread of the pool.

        `begin` is told when a child is there for it.
        """
        while not self._free.acquire(timeout=_LOOK_SECONDS):
            if run.stop is not None or self._draining:
                return run.stopped(worker) if run.stop is not None else Released()
        try:
            return self._call(run, worker, begin)
        finally:
            self._free.release()

    def _call(self, run: Run, worker: str, begin: Callable[[Run], None]) -> Outcome:
        if self._draining and run.stop is None:
            return Released()
        child = self._take()
        child.take(run)
        run.interrupt = child
        try:
            if run.stop is not None:
                return run.stopped(worker)
            begin(run)
            ask = partial(
                child.ask,
                encode_request(_request(run, worker)),
                lambda words: run.context.told.take_over(words.report),
            )
            if isinstance(run.plan, LayeredPlan):
                return ask_within_layers(run.plan, run, ask, partial(_lost, child), partial(_outcome, run))
            answer = ask()
        finally:
            run.interrupt = None
            child.take(None)
            self._put_back(child)
        if answer is not None:
            return _outcome(run, answer)
        return run.stopped(worker) if run.stop is not None else run.failed(_lost(child), worker)

    def _take(self) -> _Child:
        while self._idle:
            child = self._idle.pop()
            if child.usable:
                return child
            child.close()  # killed while it was idle, by whomever
        return _Child()

    def close(self) -> None:
        """End the idle children, and each other one when its job ends."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _put_back(self, child: _Child) -> None:
        if child.usable and not self._closed:
            self._idle.append(child)
        else:
            child.close()


def _lost(child: _Child) -> ChildLost:
    child.process.join(timeout=1)
    code = child.process.exitcode
    how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
    return ChildLost(f"the child process running this job {how}")


def _request(run: Run, worker: str) -> Request:
    fn = run.plan.definition.fn
    return Request(
        module=_importable(str(fn.__module__)),
        qualname=str(getattr(fn, "__qualname__", "")),
        arguments=WIRE.encoder()(run.arguments),
        worker=worker,
        delivery=msgspec.structs.replace(run.delivery, payload=b""),
        conceals=run.plan.conceals,
    )


def _importable(module: str) -> str:
    """Return under which name a child can import a module: `python -m package` runs one under a name of its own."""
    spec = getattr(sys.modules.get(module), "__spec__", None)
    return str(spec.name) if module == "__main__" and spec is not None else module


def _outcome(run: Run, answer: Answer) -> Outcome:
    if isinstance(answer, Returned):
        decode = run.plan.definition.coder(WIRE).decode_result
        return run.succeeded(decode(answer.value))
    if answer.snooze_seconds is not None:
        return Snoozed(Snooze(_seconds(answer.snooze_seconds)).for_)
    if answer.reject is not None:
        return Rejected(answer.error, bounded(answer.reject, REASON_LIMIT))
    on = run.plan.definition.options.retry.on
    by_name = {kind_name(kind): policy for kind, policy in on.items()}
    policy = next((by_name[kind] for kind in answer.kinds if kind in by_name), None)
    return Failed(
        answer.error, policy, None if answer.after_seconds is None else _seconds(answer.after_seconds)
    )


def _seconds(value: float) -> timedelta:
    return timedelta(seconds=value)
