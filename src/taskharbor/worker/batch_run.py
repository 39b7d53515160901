"""Several runs of one task on their way through a worker as one: one slot, one call of the handler, an outcome each.

A cancel, a lost lease or a shutdown asks single jobs to stop. The call is interrupted once all of its jobs are asked
to: until then a job is only told (`ctx.jobs[i].cancelled`), since its neighbours have done nothing to be ended for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from typing import TypeAlias, cast

from taskharbor.errors import JobInterrupt
from taskharbor.task import BatchContext
from taskharbor.worker.batch_passes import Passes, passes_of
from taskharbor.worker.batch_plan import BatchPlan, Raised, Share
from taskharbor.worker.run import Run
from taskharbor.worker.work import Interrupt, Work


class BatchRun(Work):
    """Runs of one batch task that are called together."""

    __slots__ = (
        "_called",
        "_context",
        "_error",
        "_inside",
        "_parts",
        "_passes",
        "_plan",
        "_queue",
        "_shares",
        "_solo",
    )

    def __init__(self, plan: BatchPlan, first: Run) -> None:
        """Make one of a single run, for which it has its slot."""
        self.plan = plan
        self.started = False
        self.interrupt = None
        self.task = None
        self.timer = None
        self.ended = 0.0
        self._plan = plan
        self._parts: list[Run] = [first]
        self._queue = first.queue
        self._solo = first.solo
        self._called: Sequence[Run] = ()
        self._inside: Sequence[Run] = ()
        self._context: BatchContext[object] | None = None
        self._passes: Passes | None = None
        self._shares: Mapping[Run, Share] | None = None
        self._error: BaseException | None = None

    def add(self, run: Run) -> None:
        """Take a run in, before it starts."""
        self._parts.append(run)

    def keep(self, runs: Sequence[Run]) -> None:
        """Go on with some of its parts alone, before it has started."""
        self._parts = list(runs)

    @property
    def parts(self) -> Sequence[Run]:
        """Return the runs that it stands for."""
        return self._parts

    @property
    def called(self) -> Sequence[Run]:
        """Return those that were not asked to stop before it was their turn."""
        return self._called

    def begin(self, now: float) -> None:
        """Note that the handler begins, for those that it is called for."""
        self.started = True
        for run in self._called:
            run.started = True
            run.began = now

    def end(self) -> None:
        """Note of each run that it ended when the call did, and what it needs no more. On the loop."""
        ended = self.ended
        for run in self._parts:
            run.ended = ended
            run.let_go()

    @property
    def queue(self) -> str:
        """Return the queue for which it has its slot."""
        return self._queue

    @property
    def solo(self) -> bool:
        """Return whether it is of one job that runs beside no other of its kind."""
        return self._solo

    @property
    def job_id(self) -> str:
        """Return the id of the first job."""
        return self._parts[0].job_id

    @property
    def context(self) -> BatchContext[object]:
        """Return what its handler sees of it."""
        if self._context is None:
            jobs = tuple(run.context for run in self._inside)
            self._context = BatchContext(jobs[0].deps, jobs, self._plan.worker)
        return self._context

    # --- in a thread

    def call(self, begin: Begin) -> None:
        """Run the handler here, and give each job its outcome. `JobInterrupt` may land anywhere."""
        try:
            self._call(begin)
        except JobInterrupt:  # between the handler's end and the taking up of what it returned
            self._leave()

    def _call(self, begin: Begin) -> None:
        if not self._take_up():
            return
        self._passes = passes_of(self._plan, self._called)
        try:
            begin(self)
            self._inside = self._passes.enter()
            if self._inside:
                self._shares = self._shared_out(self._handler())
        except BaseException as error:  # noqa: BLE001 - nothing a handler raises may end the worker
            self._error = error
        self._leave()

    def _leave(self) -> None:
        """Leave the layers, and give each job its outcome; no interrupt lands in between, or it comes too late."""
        while self._passes is not None and not self._passes.left:
            with suppress(JobInterrupt), self.shelter():
                self._passes.leave(self._ends())

    # --- on the loop

    async def acall(self, begin: Begin) -> None:
        """Run the async handler, and give each job its outcome."""
        if not self._take_up():
            return
        plan = self._plan
        passes = passes_of(plan, self._called)
        try:
            begin(self)
            self._inside = await passes.aenter()
            if self._inside:
                self._shares = self._shared_out(await self._coroutine())
        except BaseException as error:  # noqa: BLE001
            self._error = error
        await passes.aleave(self._ends())

    # --- both

    def _take_up(self) -> Sequence[Run]:
        share = _ForAll(self)
        for run in self._parts:
            run.interrupt = share
        self._called = [run for run in self._parts if run.stop is None]
        return self._called

    def _handler(self) -> object:
        context = self.context if self._plan.takes_context else None
        return self._plan.call_many([run.arguments for run in self._inside], context)

    def _coroutine(self) -> Awaitable[object]:
        return cast("Awaitable[object]", self._handler())  # its signature says that it is async

    def _shared_out(self, returned: object) -> Mapping[Run, Share]:
        return dict(zip(self._inside, self._plan.shares(returned, len(self._inside)), strict=True))

    def _ends(self) -> Callable[[Run], Share]:
        """Return how to look up what the handler's part of a run came to."""
        if self._shares is not None:
            return self._shares.__getitem__
        error = Raised(self._error or JobInterrupt("the batch was interrupted"))
        return lambda _: error


Begin = Callable[[BatchRun], None]
"""Notes that the handler begins."""

AnyRun: TypeAlias = "Run | BatchRun"
"""What has a slot."""


class _ForAll(Interrupt):
    """How one part of a batch is stopped: when it is the last that is asked to."""

    def __init__(self, batch: BatchRun) -> None:
        self._batch = batch
        self._sent = False

    def interrupt(self, run: Work) -> None:
        """Interrupt the call if all of it is to stop; a shutdown, which insists, does so once a round."""
        batch = self._batch
        # From the end: they are asked in order, as a rule, so that one look is enough for all but the last.
        whole = all(part.stop is not None for part in reversed(batch.parts))
        if whole and batch.interrupt is not None and (not self._sent or run is batch.parts[-1]):
            self._sent = True
            batch.interrupt.interrupt(batch)

    def shelter(self) -> AbstractContextManager[None]:
        """Return a block in which the call is not interrupted."""
        return self._batch.shelter()
