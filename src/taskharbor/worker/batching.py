"""Gathering jobs of batch tasks: one slot for all of a batch, until it is full or the first has waited long enough.

A job runs alone, at once, if it has been tried before, or may have killed its worker: so it drags no neighbour along
a second time. (Jobs of `max_attempts=1` are guarded, too, and none of them comes twice: those are gathered, apart from
others, and the starts of all are written before their handler is called.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TypeAlias

from taskharbor.job import Delivery
from taskharbor.outcome import Cancelled, Outcome, Released
from taskharbor.task import Batch
from taskharbor.worker.batch_plan import BatchPlan
from taskharbor.worker.batch_run import BatchRun
from taskharbor.worker.execution import Execution
from taskharbor.worker.guard import Guard
from taskharbor.worker.run import Run

_Kind: TypeAlias = tuple[str, timedelta | None, bool]
"""What jobs of one batch have in common: the task's name, the timeout of its call, whether they are guarded."""


class _Gathering:
    """A batch that is not full yet."""

    __slots__ = ("kind", "lined", "room", "timer", "work")

    def __init__(self, kind: _Kind, batch: Batch, work: BatchRun) -> None:
        self.kind = kind
        self.room = batch.size - 1
        """How many more it takes."""
        self.work = work
        self.lined = work.plan.definition.partitioned is not None
        """Its task has limits, or takes turns, as far as the code says."""
        self.timer: asyncio.TimerHandle | None = None


class Batching:
    """The batches of one worker that gather, one of each kind at a time. Each has taken its slot."""

    def __init__(
        self,
        execution: Execution,
        guard: Guard,
        *,
        finish: Callable[[Delivery, Outcome], None],
        slot_left: Callable[[bool], None],
    ) -> None:
        """Make it for the running loop.

        Args:
            execution: whose slots the batches take, and where they start.
            guard: starts those of guarded jobs.
            finish: takes the outcome of a job that was not started.
            slot_left: told of each slot that a batch has left unstarted; False, since none of them is a solo job's.
        """
        self._execution = execution
        self._guard = guard
        self._finish = finish
        self._slot_left = slot_left
        self._loop = asyncio.get_running_loop()
        self._open: dict[_Kind, _Gathering] = {}

    @property
    def idle(self) -> bool:
        """Return whether nothing gathers."""
        return not self._open

    def joins(self, delivery: Delivery) -> bool:
        """Return whether there is a batch for it to join, so that it needs no slot."""
        return self._gathering_for(delivery) is not None

    def _gathering_for(self, delivery: Delivery) -> _Gathering | None:
        gathering = self._open.get((delivery.task, delivery.timeout, delivery.guarded))
        return None if gathering is None or _comes_alone(delivery) else gathering

    def take(self, run: Run, plan: BatchPlan, batch: Batch) -> None:
        """Put a run into the batch of its kind, or begin one in a slot."""
        gathering = self._gathering_for(run.delivery)
        if gathering is None:
            self._execution.take_slot(solo=run.solo, queue=run.queue)
            self._begin(run, BatchRun(plan, run), batch)
            self._count()
            return
        gathering.work.add(run)
        gathering.room -= 1
        if gathering.room:  # counted here, since it is done for every job there is
            self._execution.joining -= 1
            self._execution.joining_guarded -= gathering.kind[2]
            self._execution.joining_lined -= gathering.lined
        else:
            self._start(gathering)
            self._count()

    def _begin(self, run: Run, work: BatchRun, batch: Batch) -> None:
        delivery = run.delivery
        gathering = _Gathering((delivery.task, delivery.timeout, delivery.guarded), batch, work)
        if batch.size == 1 or _comes_alone(delivery):
            self._launch(work)
            return
        self._open[gathering.kind] = gathering
        gathering.timer = self._loop.call_later(batch.wait.total_seconds(), self._wait_is_over, gathering)

    def start_all(self, *, guarded_alone: bool = False) -> None:
        """Start all that gather, or those of guarded jobs alone, as they are."""
        if not self._open:
            return
        for gathering in list(self._open.values()):
            if gathering.kind[2] or not guarded_alone:
                self._start(gathering)
        self._count()

    def _wait_is_over(self, gathering: _Gathering) -> None:
        self._start(gathering)
        self._count()

    def _start(self, gathering: _Gathering) -> None:
        if self._close(gathering):
            self._launch(gathering.work)

    def _launch(self, work: BatchRun) -> None:
        if work.parts[0].delivery.guarded:
            self._guard.start(work)
        else:
            self._execution.start_batch(work)

    # --- jobs that do not start after all

    def release(self) -> None:
        """Hand back all that gathers."""
        for gathering in list(self._open.values()):
            for run in gathering.work.parts:
                self._finish(run.delivery, Released())
            self._leave(gathering)
        self._count()

    def cancel(self, job_id: str, reason: str) -> None:
        """Settle a job that gathers as cancelled, if it is here."""
        for run in self._without(lambda run: run.job_id == job_id):
            self._finish(run.delivery, Cancelled(reason))

    def forget_lease(self, token: int) -> None:
        """Drop the jobs of a lease that is lost."""
        for _ in self._without(lambda run: run.delivery.token == token):
            pass

    def _without(self, goes: Callable[[Run], bool]) -> Iterator[Run]:
        """Take runs out of what gathers, and yield them."""
        for gathering in list(self._open.values()):
            runs = gathering.work.parts
            gone = [run for run in runs if goes(run)]
            if not gone:
                continue
            if len(gone) < len(runs):
                gathering.work.keep([run for run in runs if not goes(run)])
                gathering.room += len(gone)
            else:
                self._leave(gathering)
            self._count()
            yield from gone

    def _leave(self, gathering: _Gathering) -> None:
        if self._close(gathering):
            self._execution.leave_slot(solo=False, queue=gathering.work.queue)
            self._slot_left(False)

    def _close(self, gathering: _Gathering) -> bool:
        """Gather no more; return False if it has been closed before."""
        if gathering.timer is not None:
            gathering.timer.cancel()
        if self._open.get(gathering.kind) is not gathering:
            return False
        del self._open[gathering.kind]
        return True

    def _count(self) -> None:
        open_ = self._open.values()
        self._execution.joining = sum(one.room for one in open_)
        self._execution.joined_queues = frozenset(one.work.queue for one in open_)
        self._execution.joining_guarded = sum(one.room for one in open_ if one.kind[2])
        self._execution.joining_lined = sum(one.room for one in open_ if one.lined)


def _comes_alone(delivery: Delivery) -> bool:
    suspect = delivery.guarded and delivery.retry.max_attempts > 1
    return delivery.attempt > 1 or delivery.solo or suspect
