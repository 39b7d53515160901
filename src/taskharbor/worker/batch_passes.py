"""The layers of middleware around each job of a batch: gone into job by job, left in reverse, with its own end each.

A layer is written for one job, and sees one here, too: each of its generators waits at its `yield` while the handler
is called for all of them. Each job's layers have context variables of their own, so what one sets neither reaches
another job's, nor the handler, which is called for many jobs and has none of theirs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Generator, Sequence
from contextvars import copy_context

from taskharbor.call import running_job
from taskharbor.errors import JobInterrupt
from taskharbor.task.layer import Attempt
from taskharbor.worker.batch_plan import BatchPlan, Raised, Share
from taskharbor.worker.run import Run
from taskharbor.worker.surrounding import ASurrounded

Ends = Callable[[Run], Share]
"""What the handler's part of a run came to."""


class Passes:
    """No layers at all."""

    def __init__(self, plan: BatchPlan, runs: Sequence[Run]) -> None:
        """Prepare them around some runs."""
        self._plan = plan
        self._runs = runs
        self.left = False
        """Each run has its outcome."""

    def enter(self) -> Sequence[Run]:
        """Go into the layers; return the runs for which the handler is to be called."""
        return self._runs

    def leave(self, ends: Ends) -> None:
        """Leave the layers, and give each run its outcome. Where `enter` was cut short, too."""
        for run in self._runs:
            if run.outcome is None:
                end(run, ends(run), self._plan.worker)
        self.left = True

    async def aenter(self) -> Sequence[Run]:
        """Go into the layers of an async handler."""
        return self.enter()

    async def aleave(self, ends: Ends) -> None:
        """Leave the layers of an async handler. Raises nothing: a cancel ends a layer that is still at work."""
        self.leave(ends)


class HandPasses(Passes):
    """Those that never await: carried on by hand."""

    def __init__(self, plan: BatchPlan, runs: Sequence[Run]) -> None:
        super().__init__(plan, runs)
        self._passes: list[_HandPass] = []

    def enter(self) -> Sequence[Run]:
        """Go into the layers; return the runs for which the handler is to be called."""
        for run in self._runs:
            one = _HandPass(self._plan, run)
            self._passes.append(one)
            one.enter()
        return [one.run for one in self._passes if one.waits]

    def leave(self, ends: Ends) -> None:
        """Leave the layers, and give each run its outcome. Where `enter` was cut short, too."""
        for one in reversed(self._passes):
            if one.waits:
                one.leave(ends(one.run))
        super().leave(ends)


class TaskPasses(Passes):
    """Those of an async handler that may await: a task each."""

    def __init__(self, plan: BatchPlan, runs: Sequence[Run]) -> None:
        super().__init__(plan, runs)
        self._passes: list[_TaskPass] = []

    async def aenter(self) -> Sequence[Run]:
        """Go into the layers; return the runs for which the handler is to be called."""
        for run in self._runs:
            one = _TaskPass(self._plan, run)
            self._passes.append(one)
            await one.enter()
        return [one.run for one in self._passes if one.waits]

    async def aleave(self, ends: Ends) -> None:
        """Leave the layers. Raises nothing: a cancel ends a layer that is still at work."""
        for one in reversed(self._passes):
            await one.leave(ends)
        self.leave(ends)


def passes_of(plan: BatchPlan, runs: Sequence[Run]) -> Passes:
    """Return the layers of a task around some runs, not gone into yet."""
    if plan.surrounded is None:
        return Passes(plan, runs)
    return TaskPasses(plan, runs) if plan.layers_await else HandPasses(plan, runs)


class _Call:
    """Stands for the handler, in the middle of one job's layers that are carried on by hand."""

    def __await__(self) -> Generator[None, Share, object]:
        share = yield
        return _taken(share)


class _HandPass:
    """One job's way through its layers."""

    def __init__(self, plan: BatchPlan, run: Run) -> None:
        self.run = run
        self.waits = False
        """It has come as far as the handler."""
        self._worker = plan.worker
        self._attempt = run.attempt = Attempt(run.context, run.arguments, plan.worker)
        self._context = copy_context()
        self._context.run(running_job.set, run)
        self._steps = _layers(plan)(self._attempt, _Call)

    def enter(self) -> None:
        """Go in, as far as the handler; a layer may end it before."""
        self._go(None)

    def leave(self, share: Share) -> None:
        """Go out again."""
        before = share.error.__traceback__ if isinstance(share, Raised) else None
        self._go(share)
        if isinstance(share, Raised):  # the others' too, as a rule: without what was added on this way
            share.error.__traceback__ = before

    def _go(self, share: Share) -> None:
        try:
            self._context.run(self._steps.send, share)
            self.waits = True
        except StopIteration:
            self.waits = False
            end(self.run, self._attempt.result, self._worker)
        except BaseException as error:
            self.waits = False
            end(self.run, Raised(error), self._worker)
            if isinstance(error, JobInterrupt) and share is None:  # on the way in, it is for all of them
                raise


class _TaskPass:
    """One job's way through its layers, in a task of its own."""

    def __init__(self, plan: BatchPlan, run: Run) -> None:
        self.run = run
        self._plan = plan
        self._loop = asyncio.get_running_loop()
        self._entered: asyncio.Future[bool] = self._loop.create_future()
        """Whether it has come as far as the handler; False if it ended before."""
        self._share: asyncio.Future[Share] = self._loop.create_future()
        self._task: asyncio.Task[None] | None = None

    @property
    def waits(self) -> bool:
        """Return whether it has come as far as the handler."""
        return self._entered.done() and not self._entered.cancelled() and self._entered.result()

    async def enter(self) -> None:
        """Go in, as far as the handler; a layer may end it before."""
        context = copy_context()
        context.run(running_job.set, self.run)
        self._task = self._loop.create_task(self._pass(), name=self.run.delivery.task, context=context)
        try:
            await self._entered
        except asyncio.CancelledError:  # the whole batch: what awaits in a layer ends, as the handler would
            self._task.cancel()
            raise

    async def leave(self, ends: Ends) -> None:
        """Go out again."""
        if self._task is None:
            return
        share = None if self._task.done() else ends(self.run)
        before = share.error.__traceback__ if isinstance(share, Raised) else None
        if not self._share.done():
            self._share.set_result(share)
        while not self._task.done():
            # A cancel of the batch goes on to the layer that is at work, and ends there.
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if isinstance(share, Raised):
            share.error.__traceback__ = before

    async def _pass(self) -> None:
        attempt = Attempt(self.run.context, self.run.arguments, self._plan.worker)
        share: Share
        try:
            await _layers(self._plan)(attempt, self._call)
            share = attempt.result
        except BaseException as error:  # noqa: BLE001 - nothing a layer raises may end the worker
            share = Raised(error)
        end(self.run, share, self._plan.worker)
        self._come(as_far_as_the_handler=False)

    async def _call(self) -> object:
        self._come(as_far_as_the_handler=True)
        return _taken(await self._share)

    def _come(self, *, as_far_as_the_handler: bool) -> None:
        if not self._entered.done():
            self._entered.set_result(as_far_as_the_handler)


def end(run: Run, share: Share, worker: str) -> None:
    """Give a run its outcome."""
    try:
        run.outcome = run.failed(share.error, worker) if isinstance(share, Raised) else run.succeeded(share)
    except BaseException as error:  # noqa: BLE001 - a result that does not fit
        run.outcome = run.failed(error, worker)


def _taken(share: Share) -> object:
    if isinstance(share, Raised):
        raise share.error
    return share


def _layers(plan: BatchPlan) -> ASurrounded:
    assert plan.surrounded is not None  # noqa: S101 - there are passes because there are layers
    return plan.surrounded
