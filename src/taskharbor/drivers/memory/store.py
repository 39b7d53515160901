"""The memory driver's two faces, async and blocking, over one set of verbs."""

from __future__ import annotations

import types
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

from taskharbor.clock import micros
from taskharbor.driver import (
    CancelStatus,
    Counted,
    DeleteStatus,
    Enqueued,
    EventAppend,
    EventPage,
    EventRead,
    EventUnwatch,
    EventWatch,
    EventWatched,
    FlowCancel,
    FlowFind,
    FlowGet,
    HistoryPrune,
    JobCancel,
    JobCount,
    JobDelete,
    JobEnqueue,
    JobFind,
    JobGet,
    JobReport,
    JobRequeue,
    JobReserve,
    JobSettle,
    LeaseExtend,
    LeaseExtended,
    LeaseReclaim,
    Pruned,
    QueueInfo,
    QueueList,
    QueuePause,
    QueueResume,
    Reclaimed,
    Request,
    RequeueStatus,
    Reservation,
    StatisticsRead,
    StatisticsWrite,
    WorkerAnnounce,
    WorkerForget,
    WorkerInfo,
    WorkerList,
)
from taskharbor.drivers.memory import (
    control,
    enqueue,
    event,
    find,
    flow,
    lease,
    look,
    report,
    reserve,
    settle,
    statistics,
    upkeep,
)
from taskharbor.drivers.memory.tables import Tables
from taskharbor.event import Tally
from taskharbor.flow import FlowRecord
from taskharbor.job import JobRecord
from taskharbor.settlement import Settled

Q = TypeVar("Q", bound=Request)
A = TypeVar("A")


def _run(tables: Tables, verb: Callable[[Tables, Q, int], A], request: Q) -> A:
    """Carry out one verb under the lock, and wake whom it concerns once the lock is free."""
    with tables.lock:
        now = micros(tables.clock.now() if request.now is None else request.now)
        answer = verb(tables, request, now)
        wakes = tables.take_wakes()
    for wake in wakes:
        wake()
    return answer


class BlockingMemoryStore:
    """The verbs of a producer, in blocking form."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def job_enqueue(self, request: JobEnqueue) -> Sequence[Enqueued]:
        """Store jobs and flows and return one answer each: for the jobs in order, then for the flows."""
        return _run(self._tables, enqueue.job_enqueue, request)

    def job_get(self, request: JobGet) -> Sequence[JobRecord | None]:
        """Return one record an id, in order."""
        return _run(self._tables, look.job_get, request)

    def job_cancel(self, request: JobCancel) -> Sequence[CancelStatus]:
        """Cancel jobs and return one answer each, in order."""
        return _run(self._tables, control.job_cancel, request)

    def flow_get(self, request: FlowGet) -> Sequence[FlowRecord | None]:
        """Return one record an id, in order."""
        return _run(self._tables, flow.flow_get, request)

    def flow_cancel(self, request: FlowCancel) -> Sequence[CancelStatus]:
        """End flows and return one answer each, in order."""
        return _run(self._tables, flow.flow_cancel, request)


@types.coroutine
def _turn() -> Generator[None]:
    """Give the event loop a turn; what `asyncio.sleep(0)` does, without the import."""
    yield


class MemoryStore:
    """Every verb, in async form. Each gives the event loop a turn, as one that really waits would."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def _run(self, verb: Callable[[Tables, Q, int], A], request: Q) -> A:
        answer = _run(self._tables, verb, request)
        await _turn()
        return answer

    async def job_enqueue(self, request: JobEnqueue) -> Sequence[Enqueued]:
        """Store jobs and flows and return one answer each: for the jobs in order, then for the flows."""
        return await self._run(enqueue.job_enqueue, request)

    async def job_reserve(self, request: JobReserve) -> Reservation:
        """Lease the next jobs that may run."""
        return await self._run(reserve.job_reserve, request)

    async def lease_extend(self, request: LeaseExtend) -> LeaseExtended:
        """Keep a worker's leases, write its starts, tell it of cancels."""
        return await self._run(lease.lease_extend, request)

    async def lease_reclaim(self, request: LeaseReclaim) -> Sequence[Reclaimed]:
        """Take back the jobs of workers that are gone."""
        return await self._run(lease.lease_reclaim, request)

    async def job_settle(self, request: JobSettle) -> Sequence[Settled]:
        """Write down how deliveries ended and return one answer each, in order."""
        return await self._run(settle.job_settle, request)

    async def job_get(self, request: JobGet) -> Sequence[JobRecord | None]:
        """Return one record an id, in order."""
        return await self._run(look.job_get, request)

    async def job_find(self, request: JobFind) -> Sequence[JobRecord]:
        """Return the matching jobs in order of id."""
        return await self._run(find.job_find, request)

    async def job_count(self, request: JobCount) -> Sequence[Counted]:
        """Return counts sorted by queue, task and state."""
        return await self._run(find.job_count, request)

    async def job_cancel(self, request: JobCancel) -> Sequence[CancelStatus]:
        """Cancel jobs and return one answer each, in order."""
        return await self._run(control.job_cancel, request)

    async def job_requeue(self, request: JobRequeue) -> Sequence[RequeueStatus]:
        """Requeue jobs and return one answer each, in order."""
        return await self._run(control.job_requeue, request)

    async def job_delete(self, request: JobDelete) -> Sequence[DeleteStatus]:
        """Delete jobs and return one answer each, in order."""
        return await self._run(control.job_delete, request)

    async def flow_get(self, request: FlowGet) -> Sequence[FlowRecord | None]:
        """Return one record an id, in order."""
        return await self._run(flow.flow_get, request)

    async def flow_find(self, request: FlowFind) -> Sequence[FlowRecord]:
        """Return the matching flows in order of id."""
        return await self._run(flow.flow_find, request)

    async def flow_cancel(self, request: FlowCancel) -> Sequence[CancelStatus]:
        """End flows and return one answer each, in order."""
        return await self._run(flow.flow_cancel, request)

    async def queue_pause(self, request: QueuePause) -> None:
        """Pause queues."""
        await self._run(control.queue_pause, request)

    async def queue_resume(self, request: QueueResume) -> None:
        """Resume queues."""
        await self._run(control.queue_resume, request)

    async def queue_list(self, request: QueueList) -> Sequence[QueueInfo]:
        """Return the queues sorted by name."""
        return await self._run(control.queue_list, request)

    async def worker_announce(self, request: WorkerAnnounce) -> None:
        """Put a worker on the register."""
        await self._run(upkeep.worker_announce, request)

    async def worker_forget(self, request: WorkerForget) -> None:
        """Take workers off the register."""
        await self._run(upkeep.worker_forget, request)

    async def worker_list(self, request: WorkerList) -> Sequence[WorkerInfo]:
        """Return the live workers sorted by name."""
        return await self._run(upkeep.worker_list, request)

    async def history_prune(self, request: HistoryPrune) -> Pruned:
        """Remove what has outlived its retention."""
        return await self._run(upkeep.history_prune, request)

    async def job_report(self, request: JobReport) -> Sequence[bool]:
        """Store what running jobs tell of themselves, and return whether each was."""
        return await self._run(report.job_report, request)

    async def event_watch(self, request: EventWatch) -> EventWatched:
        """Have events kept, and return the cursor of this instant."""
        return await self._run(event.event_watch, request)

    async def event_unwatch(self, request: EventUnwatch) -> None:
        """Say that readers look no more."""
        await self._run(event.event_unwatch, request)

    async def event_append(self, request: EventAppend) -> bool:
        """Keep events, if anybody watches."""
        return await self._run(event.event_append, request)

    async def event_read(self, request: EventRead) -> EventPage:
        """Return events after a cursor."""
        return await self._run(event.event_read, request)

    async def statistics_write(self, request: StatisticsWrite) -> None:
        """Write down what one worker has counted."""
        await self._run(statistics.statistics_write, request)

    async def statistics_read(self, request: StatisticsRead) -> Sequence[Tally]:
        """Return the sums over all workers."""
        return await self._run(statistics.statistics_read, request)
