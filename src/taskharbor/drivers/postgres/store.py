"""The verbs' two faces over the same routines: for event loops, and blocking for producers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from psycopg.errors import LockNotAvailable

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
from taskharbor.drivers.postgres import (
    apart,
    audit,
    control,
    declaring,
    enqueue,
    event,
    firing,
    flow,
    hold,
    leader,
    lease,
    limit,
    look,
    report,
    retention,
    schedule,
    uniqueness,
    upkeep,
)
from taskharbor.drivers.postgres import queue as queues
from taskharbor.drivers.postgres import statistics as counters
from taskharbor.drivers.postgres.desk import AsyncDesk, BlockingDesk
from taskharbor.drivers.postgres.gathering import Gathering
from taskharbor.drivers.postgres.reserve import Walker
from taskharbor.errors import StoreUnavailable
from taskharbor.event import Tally
from taskharbor.flow import FlowRecord
from taskharbor.job import JobRecord
from taskharbor.limit import HoldRecord, LimitRecord
from taskharbor.schedule import ScheduleRecord
from taskharbor.settlement import Settled


class PostgresStore:
    """Every verb, on one event loop."""

    def __init__(self, desk: AsyncDesk) -> None:
        self._desk = desk
        self._pauses = firing.Pauses()
        self._walker = Walker()
        self._walking = asyncio.Lock()
        self._gathering = Gathering(self._enqueue)

    async def close(self) -> None:
        """Wait for the answers to what was asked."""
        await self._gathering.close()

    async def job_enqueue(self, request: JobEnqueue) -> Sequence[Enqueued]:
        return await self._gathering.enqueue(request) if request.jobs or request.flows else []

    async def _enqueue(self, request: JobEnqueue) -> Sequence[Enqueued]:
        if uniqueness.worth_a_try(request):
            answers = await self._desk.ask(uniqueness.try_enqueue, request)
            if answers:
                return answers
        together = enqueue.needs_transaction(request)
        return await self._desk.ask(enqueue.job_enqueue, request, together=together)

    async def job_reserve(self, request: JobReserve) -> Reservation:
        async with self._walking:  # what one reserve learns, the next one begins with
            walker = self._walker
            if not walker.has_lines(request):
                answer = await self._desk.ask(walker.walk, request, lost=walker.restart)
                if answer.deliveries or not walker.has_lines(request):
                    return answer
            return await self._desk.ask(walker.walk_lines, request, together=True, lost=walker.restart)

    async def lease_extend(self, request: LeaseExtend) -> LeaseExtended:
        return await self._desk.ask(lease.lease_extend, request)

    async def lease_reclaim(self, request: LeaseReclaim) -> Sequence[Reclaimed]:
        return await self._desk.ask(lease.lease_reclaim, request, together=True)

    async def job_settle(self, request: JobSettle) -> Sequence[Settled]:
        if not request.settlements:
            return []
        return await apart.job_settle(self._desk, request)

    async def job_get(self, request: JobGet) -> Sequence[JobRecord | None]:
        return await self._desk.ask(look.job_get, request)

    async def job_find(self, request: JobFind) -> Sequence[JobRecord]:
        return await self._desk.ask(look.job_find, request)

    async def job_count(self, request: JobCount) -> Sequence[Counted]:
        return await self._desk.ask(look.job_count, request)

    async def job_cancel(self, request: JobCancel) -> Sequence[CancelStatus]:
        return await self._desk.ask(control.job_cancel, request, together=True)

    async def job_requeue(self, request: JobRequeue) -> Sequence[RequeueStatus]:
        return await self._desk.ask(control.job_requeue, request, together=True)

    async def job_delete(self, request: JobDelete) -> Sequence[DeleteStatus]:
        return await self._desk.ask(control.job_delete, request, together=True)

    async def flow_get(self, request: FlowGet) -> Sequence[FlowRecord | None]:
        return await self._desk.ask(flow.flow_get, request)

    async def flow_find(self, request: FlowFind) -> Sequence[FlowRecord]:
        return await self._desk.ask(flow.flow_find, request)

    async def flow_cancel(self, request: FlowCancel) -> Sequence[CancelStatus]:
        return await self._desk.ask(flow.flow_cancel, request, together=True)

    async def queue_pause(self, request: QueuePause) -> Sequence[bool]:
        return await self._desk.ask(queues.queue_pause, request)

    async def queue_resume(self, request: QueueResume) -> Sequence[bool]:
        return await self._desk.ask(queues.queue_resume, request)

    async def queue_list(self, request: QueueList) -> Sequence[QueueInfo]:
        return await self._desk.ask(queues.queue_list, request)

    async def worker_announce(self, request: WorkerAnnounce) -> None:
        await self._desk.ask(upkeep.worker_announce, request)

    async def worker_forget(self, request: WorkerForget) -> None:
        await self._desk.ask(upkeep.worker_forget, request)

    async def worker_order(self, request: WorkerOrder) -> Sequence[bool]:
        return await self._desk.ask(upkeep.worker_order, request)

    async def worker_list(self, request: WorkerList) -> Sequence[WorkerInfo]:
        return await self._desk.ask(upkeep.worker_list, request)

    async def history_prune(self, request: HistoryPrune) -> Pruned:
        return await self._desk.ask(upkeep.history_prune, request, together=True)

    async def retention_set(self, request: RetentionSet) -> Sequence[bool]:
        return await self._desk.ask(retention.retention_set, request, together=True)

    async def retention_list(self, request: RetentionList) -> Sequence[RetentionRecord]:
        return await self._desk.ask(retention.retention_list, request)

    async def limit_declare(self, request: LimitDeclare) -> None:
        await self._desk.ask(limit.limit_declare, request, together=True)

    async def limit_set(self, request: LimitSet) -> LimitSetAnswer:
        return await self._desk.ask(limit.limit_set, request, together=True)

    async def limit_clear(self, request: LimitClear) -> Sequence[bool]:
        return await self._desk.ask(limit.limit_clear, request, together=True)

    async def limit_list(self, request: LimitList) -> Sequence[LimitRecord]:
        return await self._desk.ask(limit.limit_list, request)

    async def hold_place(self, request: HoldPlace) -> Sequence[bool]:
        return await self._desk.ask(hold.hold_place, request, together=True)

    async def hold_lift(self, request: HoldLift) -> Sequence[bool]:
        return await self._desk.ask(hold.hold_lift, request, together=True)

    async def hold_list(self, request: HoldList) -> Sequence[HoldRecord]:
        return await self._desk.ask(hold.hold_list, request)

    async def audit_write(self, request: AuditWrite) -> None:
        await self._desk.ask(audit.audit_write, request)

    async def audit_find(self, request: AuditFind) -> Sequence[AuditEntry]:
        return await self._desk.ask(audit.audit_find, request)

    async def audit_count(self, request: AuditCount) -> Sequence[AuditTally]:
        return await self._desk.ask(audit.audit_count, request)

    async def job_report(self, request: JobReport) -> Sequence[bool]:
        return await self._desk.ask(report.job_report, request)

    async def event_watch(self, request: EventWatch) -> EventWatched:
        return await self._desk.ask(event.event_watch, request)

    async def event_unwatch(self, request: EventUnwatch) -> None:
        await self._desk.ask(event.event_unwatch, request)

    async def event_append(self, request: EventAppend) -> bool:
        return await self._desk.ask(event.event_append, request)

    async def event_read(self, request: EventRead) -> EventPage:
        return await self._desk.ask(event.event_read, request)

    async def statistics_write(self, request: StatisticsWrite) -> None:
        await self._desk.ask(counters.statistics_write, request)

    async def statistics_read(self, request: StatisticsRead) -> Sequence[Tally]:
        return await self._desk.ask(counters.statistics_read, request)

    async def schedule_declare(self, request: ScheduleDeclare) -> Declared:
        return await self._desk.ask(declaring.schedule_declare, request, together=True)

    async def schedule_create(self, request: ScheduleCreate) -> Sequence[CreateStatus]:
        return await self._desk.ask(declaring.schedule_create, request, together=True)

    async def schedule_delete(self, request: ScheduleDelete) -> Sequence[bool]:
        return await self._desk.ask(schedule.schedule_delete, request)

    async def schedule_pause(self, request: SchedulePause) -> Sequence[bool]:
        return await self._desk.ask(schedule.schedule_pause, request)

    async def schedule_resume(self, request: ScheduleResume) -> Sequence[bool]:
        return await self._desk.ask(schedule.schedule_resume, request)

    async def schedule_find(self, request: ScheduleFind) -> Sequence[ScheduleRecord]:
        return await self._desk.ask(schedule.schedule_find, request)

    async def schedule_due(self, request: ScheduleDue) -> DueSchedules:
        return await self._desk.ask(schedule.schedule_due, request)

    async def schedule_fire(self, request: ScheduleFire) -> Sequence[Fired]:
        answers = [firing.LEFT] * len(request.firings)
        self._pauses.begin()
        for part in firing.parts(request):
            if self._pauses.keeps(part):
                continue
            try:
                fired = await self._desk.ask(part.verb, part.request, together=True)
            except StoreUnavailable as error:
                if part.keyed and isinstance(error.__cause__, LockNotAvailable):
                    self._pauses.held(
                        part
                    )  # by somebody's open transaction: looked at again, as it is still due
                    continue
                raise
            self._pauses.fired(part)
            for place, answer in zip(part.places, fired, strict=True):
                answers[place] = answer
        return answers

    async def leader_take(self, request: LeaderTake) -> Leadership:
        return await self._desk.ask(leader.leader_take, request)

    async def leader_release(self, request: LeaderRelease) -> bool:
        return await self._desk.ask(leader.leader_release, request)

    async def leader_list(self, request: LeaderList) -> Sequence[Leadership]:
        return await self._desk.ask(leader.leader_list, request)


class BlockingPostgresStore:
    """The verbs of a producer, for any thread."""

    def __init__(self, desk: BlockingDesk) -> None:
        self._desk = desk

    def job_enqueue(self, request: JobEnqueue) -> Sequence[Enqueued]:
        if not (request.jobs or request.flows):
            return []
        if uniqueness.worth_a_try(request):
            answers = self._desk.ask(uniqueness.try_enqueue, request)
            if answers:
                return answers
        together = enqueue.needs_transaction(request)
        return self._desk.ask(enqueue.job_enqueue, request, together=together)

    def job_get(self, request: JobGet) -> Sequence[JobRecord | None]:
        return self._desk.ask(look.job_get, request)

    def job_cancel(self, request: JobCancel) -> Sequence[CancelStatus]:
        return self._desk.ask(control.job_cancel, request, together=True)

    def flow_get(self, request: FlowGet) -> Sequence[FlowRecord | None]:
        return self._desk.ask(flow.flow_get, request)

    def flow_cancel(self, request: FlowCancel) -> Sequence[CancelStatus]:
        return self._desk.ask(flow.flow_cancel, request, together=True)
