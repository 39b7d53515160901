"""The verbs' two faces over the same routines: by a thread of its own for event loops, and blocking for producers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
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
from taskharbor.drivers.sqlite import (
    acts,
    control,
    declaring,
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
from taskharbor.drivers.sqlite import queue as queues
from taskharbor.drivers.sqlite.desk import Desk, OpenTransactions
from taskharbor.drivers.sqlite.transaction import AnyAsk, Ask, Transactions
from taskharbor.errors import StoreUnavailable
from taskharbor.event import Tally
from taskharbor.flow import FlowRecord
from taskharbor.job import JobRecord
from taskharbor.limit import HoldRecord, LimitRecord
from taskharbor.schedule import ScheduleRecord
from taskharbor.settlement import Settled

Q = TypeVar("Q", bound=Request)
T = TypeVar("T")


class SqliteStore:
    """Every verb, on one event loop. A thread of its own does the waiting for the disk."""

    def __init__(self, open_transactions: OpenTransactions) -> None:
        """Prepare it; `open` connects."""
        self._desk = Desk(open_transactions)
        self._found_some = False

    async def open(self) -> None:
        """Connect.

        Raises:
            StoreUnavailable: the file is locked.
            DeploymentError: it cannot be used.
        """
        await self._desk.open()

    async def close(self) -> None:
        """Close the connection, after what has been asked. Idempotent."""
        await self._desk.close()

    async def job_enqueue(self, request: JobEnqueue) -> Sequence[Enqueued]:
        return await self._desk.ask(
            Ask(enqueue.job_enqueue, request, writes=bool(request.jobs or request.flows))
        )

    async def job_reserve(self, request: JobReserve) -> Reservation:
        # Who found jobs the last time will, as a rule, find more, and need not look before.
        looks = None if self._found_some else reserve.nothing_due
        answer = await self._desk.ask(Ask(reserve.job_reserve, request, writes=True, looks=looks))
        self._found_some = bool(answer.deliveries)
        return answer

    async def lease_extend(self, request: LeaseExtend) -> LeaseExtended:
        return await self._desk.ask(
            Ask(lease.lease_extend, request, writes=True, urgent=bool(request.leases))
        )

    async def lease_reclaim(self, request: LeaseReclaim) -> Sequence[Reclaimed]:
        return await self._desk.ask(Ask(lease.lease_reclaim, request, writes=True, looks=lease.none_expired))

    async def job_settle(self, request: JobSettle) -> Sequence[Settled]:
        return await self._desk.ask(Ask(settle.job_settle, request, writes=bool(request.settlements)))

    async def job_get(self, request: JobGet) -> Sequence[JobRecord | None]:
        return await self._desk.ask(Ask(look.job_get, request, writes=False))

    async def job_find(self, request: JobFind) -> Sequence[JobRecord]:
        return await self._desk.ask(Ask(find.job_find, request, writes=False))

    async def job_count(self, request: JobCount) -> Sequence[Counted]:
        return await self._desk.ask(Ask(find.job_count, request, writes=False))

    async def job_cancel(self, request: JobCancel) -> Sequence[CancelStatus]:
        return await self._desk.ask(Ask(control.job_cancel, request, writes=True))

    async def job_requeue(self, request: JobRequeue) -> Sequence[RequeueStatus]:
        return await self._desk.ask(Ask(control.job_requeue, request, writes=True))

    async def job_delete(self, request: JobDelete) -> Sequence[DeleteStatus]:
        return await self._desk.ask(Ask(control.job_delete, request, writes=True))

    async def flow_get(self, request: FlowGet) -> Sequence[FlowRecord | None]:
        return await self._desk.ask(Ask(flow.flow_get, request, writes=False))

    async def flow_find(self, request: FlowFind) -> Sequence[FlowRecord]:
        return await self._desk.ask(Ask(flow.flow_find, request, writes=False))

    async def flow_cancel(self, request: FlowCancel) -> Sequence[CancelStatus]:
        return await self._desk.ask(Ask(flow.flow_cancel, request, writes=True))

    async def queue_pause(self, request: QueuePause) -> Sequence[bool]:
        return await self._desk.ask(Ask(queues.queue_pause, request, writes=True))

    async def queue_resume(self, request: QueueResume) -> Sequence[bool]:
        return await self._desk.ask(Ask(queues.queue_resume, request, writes=True))

    async def queue_list(self, request: QueueList) -> Sequence[QueueInfo]:
        return await self._desk.ask(Ask(queues.queue_list, request, writes=False))

    async def worker_announce(self, request: WorkerAnnounce) -> None:
        await self._desk.ask(Ask(upkeep.worker_announce, request, writes=True))

    async def worker_forget(self, request: WorkerForget) -> None:
        await self._desk.ask(Ask(upkeep.worker_forget, request, writes=True))

    async def worker_list(self, request: WorkerList) -> Sequence[WorkerInfo]:
        return await self._desk.ask(Ask(upkeep.worker_list, request, writes=False))

    async def history_prune(self, request: HistoryPrune) -> Pruned:
        return await self._desk.ask(
            Ask(upkeep.history_prune, request, writes=True, looks=upkeep.nothing_to_prune)
        )

    async def job_report(self, request: JobReport) -> Sequence[bool]:
        return await self._desk.ask(Ask(report.job_report, request, writes=bool(request.reports)))

    async def event_watch(self, request: EventWatch) -> EventWatched:
        return await self._desk.ask(Ask(event.event_watch, request, writes=True))

    async def event_unwatch(self, request: EventUnwatch) -> None:
        await self._desk.ask(Ask(event.event_unwatch, request, writes=True))

    async def event_append(self, request: EventAppend) -> bool:
        return await self._desk.ask(Ask(event.event_append, request, writes=True, looks=event.nobody_watches))

    async def event_read(self, request: EventRead) -> EventPage:
        return await self._desk.ask(Ask(event.event_read, request, writes=False))

    async def statistics_write(self, request: StatisticsWrite) -> None:
        await self._desk.ask(Ask(statistics.statistics_write, request, writes=bool(request.tallies)))

    async def statistics_read(self, request: StatisticsRead) -> Sequence[Tally]:
        return await self._desk.ask(Ask(statistics.statistics_read, request, writes=False))

    async def schedule_declare(self, request: ScheduleDeclare) -> Declared:
        return await self._desk.ask(
            Ask(declaring.schedule_declare, request, writes=True, looks=declaring.nothing_declared)
        )

    async def schedule_create(self, request: ScheduleCreate) -> Sequence[CreateStatus]:
        return await self._desk.ask(Ask(declaring.schedule_create, request, writes=bool(request.schedules)))

    async def schedule_delete(self, request: ScheduleDelete) -> Sequence[bool]:
        return await self._desk.ask(Ask(schedule.schedule_delete, request, writes=bool(request.names)))

    async def schedule_pause(self, request: SchedulePause) -> Sequence[bool]:
        return await self._desk.ask(Ask(schedule.schedule_pause, request, writes=bool(request.names)))

    async def schedule_resume(self, request: ScheduleResume) -> Sequence[bool]:
        return await self._desk.ask(Ask(schedule.schedule_resume, request, writes=bool(request.names)))

    async def schedule_find(self, request: ScheduleFind) -> Sequence[ScheduleRecord]:
        return await self._desk.ask(Ask(schedule.schedule_find, request, writes=False))

    async def schedule_due(self, request: ScheduleDue) -> DueSchedules:
        return await self._desk.ask(Ask(schedule.schedule_due, request, writes=False))

    async def schedule_fire(self, request: ScheduleFire) -> Sequence[Fired]:
        return await self._desk.ask(Ask(schedule.schedule_fire, request, writes=bool(request.firings)))

    async def leader_take(self, request: LeaderTake) -> Leadership:
        return await self._desk.ask(Ask(leader.leader_take, request, writes=True, looks=leader.another_leads))

    async def leader_release(self, request: LeaderRelease) -> bool:
        return await self._desk.ask(Ask(leader.leader_release, request, writes=True))

    async def leader_list(self, request: LeaderList) -> Sequence[Leadership]:
        return await self._desk.ask(Ask(leader.leader_list, request, writes=False))

    async def limit_declare(self, request: LimitDeclare) -> None:
        await self._desk.ask(
            Ask(limits.limit_declare, request, writes=True, looks=limits.declares_nothing_new)
        )

    async def worker_order(self, request: WorkerOrder) -> Sequence[bool]:
        return await self._desk.ask(Ask(upkeep.worker_order, request, writes=True))

    async def retention_set(self, request: RetentionSet) -> Sequence[bool]:
        return await self._desk.ask(Ask(retention.retention_set, request, writes=True))

    async def retention_list(self, request: RetentionList) -> Sequence[RetentionRecord]:
        return await self._desk.ask(Ask(retention.retention_list, request, writes=False))

    async def limit_set(self, request: LimitSet) -> LimitSetAnswer:
        return await self._desk.ask(Ask(limits.limit_set, request, writes=True))

    async def limit_clear(self, request: LimitClear) -> Sequence[bool]:
        return await self._desk.ask(Ask(limits.limit_clear, request, writes=True))

    async def limit_list(self, request: LimitList) -> Sequence[LimitRecord]:
        return await self._desk.ask(Ask(limits.limit_list, request, writes=False))

    async def hold_place(self, request: HoldPlace) -> Sequence[bool]:
        return await self._desk.ask(Ask(limits.hold_place, request, writes=True))

    async def hold_lift(self, request: HoldLift) -> Sequence[bool]:
        return await self._desk.ask(Ask(limits.hold_lift, request, writes=True))

    async def hold_list(self, request: HoldList) -> Sequence[HoldRecord]:
        return await self._desk.ask(Ask(limits.hold_list, request, writes=False))

    async def audit_write(self, request: AuditWrite) -> None:
        await self._desk.ask(Ask(acts.audit_write, request, writes=True))

    async def audit_find(self, request: AuditFind) -> Sequence[AuditEntry]:
        return await self._desk.ask(Ask(acts.audit_find, request, writes=False))

    async def audit_count(self, request: AuditCount) -> Sequence[AuditTally]:
        return await self._desk.ask(Ask(acts.audit_count, request, writes=False))


class BlockingSqliteStore:
    """The verbs of a producer, for any thread. Threads that ask at once share a transaction, and so a sync."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._turn = threading.Lock()
        self._line_lock = threading.Lock()
        self._line: list[AnyAsk] = []

    def job_enqueue(self, request: JobEnqueue) -> Sequence[Enqueued]:
        return self._ask(Ask(enqueue.job_enqueue, request, writes=bool(request.jobs or request.flows)))

    def job_get(self, request: JobGet) -> Sequence[JobRecord | None]:
        return self._ask(Ask(look.job_get, request, writes=False))

    def job_cancel(self, request: JobCancel) -> Sequence[CancelStatus]:
        return self._ask(Ask(control.job_cancel, request, writes=True))

    def flow_get(self, request: FlowGet) -> Sequence[FlowRecord | None]:
        return self._ask(Ask(flow.flow_get, request, writes=False))

    def flow_cancel(self, request: FlowCancel) -> Sequence[CancelStatus]:
        return self._ask(Ask(flow.flow_cancel, request, writes=True))

    def _ask(self, ask: Ask[Q, T]) -> T:
        with self._line_lock:
            self._line.append(ask)
        with self._turn:
            if not ask.ended:  # who had the turn before did not see it: this one carries out all there are
                line: list[AnyAsk] = []
                try:
                    with self._line_lock:
                        line, self._line = self._line, []
                    self._transactions.run(line)
                except BaseException:
                    # Ctrl-C, as a rule: what the others asked may or may not have been written.
                    for other in line:
                        if not other.ended:
                            other.fail(StoreUnavailable("it was interrupted while it was written; ask again"))
                    raise
                self._transactions.tidy()
        return ask.result()
