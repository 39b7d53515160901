"""Every verb of the memory driver, in async form. `blocking` has those of producers."""

from __future__ import annotations

import types
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

from taskharbor.audit import AuditEntry, AuditTally
from taskharbor.driver import (
    AuditCount,
    AuditFind,
    AuditWrite,
    CancelStatus,
    Counted,
    CreateStatus,
    Declared,
    DeleteStatus,
    DueSchedules,
    Enqueued,
    EventAppend,
    EventPage,
    EventRead,
    EventUnwatch,
    EventWatch,
    EventWatched,
    Fired,
    FlowCancel,
    FlowFind,
    FlowGet,
    HistoryPrune,
    HoldLift,
    HoldList,
    HoldPlace,
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
    LeaderList,
    LeaderRelease,
    Leadership,
    LeaderTake,
    LeaseExtend,
    LeaseExtended,
    LeaseReclaim,
    LimitClear,
    LimitDeclare,
    LimitList,
    LimitSet,
    LimitSetAnswer,
    Pruned,
    QueueInfo,
    QueueList,
    QueuePause,
    QueueResume,
    Reclaimed,
    Request,
    RequeueStatus,
    Reservation,
    RetentionList,
    RetentionRecord,
    RetentionSet,
    ScheduleCreate,
    ScheduleDeclare,
    ScheduleDelete,
    ScheduleDue,
    ScheduleFind,
    ScheduleFire,
    SchedulePause,
    ScheduleResume,
    StatisticsRead,
    StatisticsWrite,
    WorkerAnnounce,
    WorkerForget,
    WorkerInfo,
    WorkerList,
    WorkerOrder,
)
from taskharbor.drivers.memory import (
    acts,
    control,
    enqueue,
    event,
    find,
    flow,
    leader,
    lease,
    limits,
    look,
    report,
    reserve,
    retention,
    schedule,
    settle,
    statistics,
    upkeep,
)
from taskharbor.drivers.memory.blocking import run
from taskharbor.drivers.memory.tables import Tables
from taskharbor.event import Tally
from taskharbor.flow import FlowRecord
from taskharbor.job import JobRecord
from taskharbor.limit import HoldRecord, LimitRecord
from taskharbor.schedule import ScheduleRecord
from taskharbor.settlement import Settled

Q = TypeVar("Q", bound=Request)
A = TypeVar("A")


@types.coroutine
def _turn() -> Generator[None]:
    """Give the event loop a turn; what `asyncio.sleep(0)` does, without the import."""
    yield


class MemoryStore:
    """Every verb, in async form. Each gives the event loop a turn, as one that really waits would."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def _run(self, verb: Callable[[Tables, Q, int], A], request: Q) -> A:
        answer = run(self._tables, verb, request)
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

    async def queue_pause(self, request: QueuePause) -> Sequence[bool]:
        """Pause queues; return of each whether it was not paused before."""
        return await self._run(control.queue_pause, request)

    async def queue_resume(self, request: QueueResume) -> Sequence[bool]:
        """Resume queues; return of each whether it was paused."""
        return await self._run(control.queue_resume, request)

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

    async def schedule_declare(self, request: ScheduleDeclare) -> Declared:
        """Make an application's schedules those declared here."""
        return await self._run(schedule.schedule_declare, request)

    async def schedule_create(self, request: ScheduleCreate) -> Sequence[CreateStatus]:
        """Create schedules and return one answer each, in order."""
        return await self._run(schedule.schedule_create, request)

    async def schedule_delete(self, request: ScheduleDelete) -> Sequence[bool]:
        """Delete schedules and return, for each, whether it was there."""
        return await self._run(schedule.schedule_delete, request)

    async def schedule_pause(self, request: SchedulePause) -> Sequence[bool]:
        """Pause schedules and return, for each, whether it is there."""
        return await self._run(schedule.schedule_pause, request)

    async def schedule_resume(self, request: ScheduleResume) -> Sequence[bool]:
        """Resume schedules and return, for each, whether it is there."""
        return await self._run(schedule.schedule_resume, request)

    async def schedule_find(self, request: ScheduleFind) -> Sequence[ScheduleRecord]:
        """Return the matching schedules in order of name."""
        return await self._run(schedule.schedule_find, request)

    async def schedule_due(self, request: ScheduleDue) -> DueSchedules:
        """Return the schedules to be looked at now."""
        return await self._run(schedule.schedule_due, request)

    async def schedule_fire(self, request: ScheduleFire) -> Sequence[Fired]:
        """Store the jobs of ticks, move schedules on, and return one answer each, in order."""
        return await self._run(schedule.schedule_fire, request)

    async def leader_take(self, request: LeaderTake) -> Leadership:
        """Lead if nobody else does, and return who leads."""
        return await self._run(leader.leader_take, request)

    async def leader_release(self, request: LeaderRelease) -> bool:
        """Lead no more, and return whether the caller did."""
        return await self._run(leader.leader_release, request)

    async def leader_list(self, request: LeaderList) -> Sequence[Leadership]:
        """Return the roles that are led, sorted by role."""
        return await self._run(leader.leader_list, request)

    async def worker_order(self, request: WorkerOrder) -> Sequence[bool]:
        """Give an order; return of each whether it is news."""
        return await self._run(upkeep.worker_order, request)

    async def retention_set(self, request: RetentionSet) -> Sequence[bool]:
        """Set rules; return of each whether it changed anything."""
        return await self._run(retention.retention_set, request)

    async def retention_list(self, request: RetentionList) -> Sequence[RetentionRecord]:
        """Return the rules, sorted by task and state."""
        return await self._run(retention.retention_list, request)

    async def limit_declare(self, request: LimitDeclare) -> None:
        """Write down what code declares."""
        await self._run(limits.limit_declare, request)

    async def limit_set(self, request: LimitSet) -> LimitSetAnswer:
        """Set limits by hand."""
        return await self._run(limits.limit_set, request)

    async def limit_clear(self, request: LimitClear) -> Sequence[bool]:
        """Take back what was set by hand."""
        return await self._run(limits.limit_clear, request)

    async def limit_list(self, request: LimitList) -> Sequence[LimitRecord]:
        """Return the limits, sorted by scope."""
        return await self._run(limits.limit_list, request)

    async def hold_place(self, request: HoldPlace) -> Sequence[bool]:
        """Hold back; return of each whether it was not held before."""
        return await self._run(limits.hold_place, request)

    async def hold_lift(self, request: HoldLift) -> Sequence[bool]:
        """Let go; return of each whether it was held."""
        return await self._run(limits.hold_lift, request)

    async def hold_list(self, request: HoldList) -> Sequence[HoldRecord]:
        """Return what is held back, sorted by scope."""
        return await self._run(limits.hold_list, request)

    async def audit_write(self, request: AuditWrite) -> None:
        """Write down an act by itself."""
        await self._run(acts.audit_write, request)

    async def audit_find(self, request: AuditFind) -> Sequence[AuditEntry]:
        """Return entries from the greatest id down."""
        return await self._run(acts.audit_find, request)

    async def audit_count(self, request: AuditCount) -> Sequence[AuditTally]:
        """Return counts sorted by action and person."""
        return await self._run(acts.audit_count, request)
