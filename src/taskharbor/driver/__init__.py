"""The driver contract: what a store promises, verb by verb. `docs/driver-contract.md` shows how to write one.

    store.py       a job's life: job_enqueue, job_reserve, lease_extend, lease_reclaim, job_settle
    control.py     acts by hand: job_get, job_find, job_count, job_cancel, job_requeue, job_delete
    flow.py        flow_get, flow_find, flow_cancel; and how flows advance
    queue.py       queue_pause, queue_resume, queue_list
    worker.py      the register of live workers: worker_announce, worker_forget, worker_list; worker_order
    retention.py   history_prune, retention_set, retention_list
    limit.py       limit_declare, limit_set, limit_clear, limit_list; hold_place, hold_lift, hold_list
    audit.py       audit_write, audit_find, audit_count: what people did
    report.py      job_report: what running jobs tell of themselves
    event.py       event_watch, event_unwatch, event_append, event_read: the feed
    cursor.py      cursors of a feed whose events are numbered
    schedule.py    schedule_declare, schedule_create, ..._delete, ..._pause, ..._resume, ..._find, ..._due, ..._fire
    leader.py      leader_take, leader_release, leader_list
    statistics.py  statistics_write, statistics_read: counters by the minute
    admission.py   what job_enqueue answers: the one decision that every driver shares
    declaring.py   what schedule_declare changes, and what a schedule keeps: shared in the same way
    timetable.py   what becomes of schedules that are paused, resumed, fired: shared, too
    limiting.py    which jobs with limits, or that take turns, a reserve takes: shared, too
    auditing.py    what an act in the audit trail is counted as: shared, too
    listen.py      wake-ups
    driver.py      the whole: connecting, capabilities

The rules behind the verbs are numbered in `docs/semantics.md`; `taskharbor_conformance` tests a driver against them.

Leases. A reserve puts its jobs under one lease: a random token, an expiry, the jobs, and which of them are known to
have started. The token, compared for equality only, fences every later write: whoever lost the lease changes nothing.
Expiry by itself does nothing either; it permits `lease_reclaim`, which alone takes jobs away.

Lanes. Jobs of one queue and priority stand in three lanes, taken in this order: one for solo jobs, of which a worker
takes one at a time and passes over the rest; the front, for what was handed back unstarted; and one for all others.
*Stray* lanes, three again, stand beside them: a job that a worker met and could not run (an unknown task, a payload it
cannot decode) moves into the lane named by its task and by the builds that refused it, which only workers that know
the task, and are of none of those builds, scan. So it blocks nobody, is met by each build once, and whoever can run it
finds it.
"""

from taskharbor.driver.admission import Admission, Holder, admit, looks_at_holder, replacement_times
from taskharbor.driver.audit import AUDIT_RETAIN, Audit, AuditCount, AuditFilter, AuditFind, AuditWrite
from taskharbor.driver.auditing import AUDITED, Audited, counted
from taskharbor.driver.control import (
    CancelStatus,
    Counted,
    DeleteStatus,
    JobCancel,
    JobControl,
    JobCount,
    JobDelete,
    JobFilter,
    JobFind,
    JobGet,
    JobRequeue,
    RequeueStatus,
)
from taskharbor.driver.cursor import FeedCursor
from taskharbor.driver.driver import (
    BlockingDriver,
    Capability,
    Driver,
    Joined,
    MigratingDriver,
    Migration,
    ProducerStore,
    SchemaVersion,
    Store,
    TransactionalDriver,
    require,
)
from taskharbor.driver.event import (
    EVENT_RETAIN,
    EventAppend,
    EventFeed,
    EventPage,
    EventRead,
    EventUnwatch,
    EventWatch,
    EventWatched,
)
from taskharbor.driver.flow import FlowCancel, FlowControl, FlowFind, FlowGet
from taskharbor.driver.leader import (
    AHEAD,
    UPKEEP,
    LeaderList,
    LeaderRelease,
    Leaders,
    Leadership,
    LeaderTake,
)
from taskharbor.driver.limit import (
    HoldLift,
    HoldList,
    HoldPlace,
    LimitClear,
    LimitDeclare,
    LimitList,
    Limits,
    LimitSet,
    LimitSetAnswer,
)
from taskharbor.driver.limiting import (
    Allotted,
    Candidate,
    Gates,
    Line,
    Quota,
    Rules,
    Waiting,
    allot,
    in_turn,
    line_of,
    lines_first,
    queues_in_turn,
)
from taskharbor.driver.listen import Listen, Subscription, Wake
from taskharbor.driver.queue import QueueControl, QueueInfo, QueueList, QueuePause, QueueResume
from taskharbor.driver.report import JobReport, JobReports
from taskharbor.driver.request import Request
from taskharbor.driver.retention import (
    HistoryPrune,
    Pruned,
    Retention,
    RetentionList,
    RetentionRecord,
    RetentionRule,
    RetentionSet,
)
from taskharbor.driver.schedule import (
    CreateStatus,
    Declared,
    DeclareStatus,
    DueSchedule,
    DueSchedules,
    Fired,
    Firing,
    ScheduleCreate,
    ScheduleDeclare,
    ScheduleDelete,
    ScheduleDue,
    ScheduleFind,
    ScheduleFire,
    SchedulePause,
    ScheduleResume,
    Schedules,
)
from taskharbor.driver.statistics import STATISTICS_RETAIN, Statistics, StatisticsRead, StatisticsWrite
from taskharbor.driver.store import (
    AgedTake,
    CancelRequest,
    Enqueued,
    EnqueueStatus,
    JobEnqueue,
    JobReserve,
    JobSettle,
    JobStore,
    LeaseExtend,
    LeaseExtended,
    LeaseHold,
    LeaseReclaim,
    QueueTake,
    Reclaimed,
    Reservation,
)
from taskharbor.driver.worker import (
    Order,
    WorkerAnnounce,
    WorkerForget,
    WorkerInfo,
    WorkerList,
    WorkerOrder,
    WorkerRegister,
)

__all__ = [  # noqa: RUF022 - plainly sorted, as everywhere; ruff would put constants first
    "AHEAD",
    "AUDITED",
    "AUDIT_RETAIN",
    "Admission",
    "AgedTake",
    "Allotted",
    "Audit",
    "AuditCount",
    "AuditFilter",
    "AuditFind",
    "AuditWrite",
    "Audited",
    "BlockingDriver",
    "CancelRequest",
    "CancelStatus",
    "Candidate",
    "Capability",
    "Counted",
    "CreateStatus",
    "DeclareStatus",
    "Declared",
    "DeleteStatus",
    "Driver",
    "DueSchedule",
    "DueSchedules",
    "EVENT_RETAIN",
    "EnqueueStatus",
    "Enqueued",
    "EventAppend",
    "EventFeed",
    "EventPage",
    "EventRead",
    "EventUnwatch",
    "EventWatch",
    "EventWatched",
    "FeedCursor",
    "Fired",
    "Firing",
    "FlowCancel",
    "FlowControl",
    "FlowFind",
    "FlowGet",
    "Gates",
    "HistoryPrune",
    "HoldLift",
    "HoldList",
    "HoldPlace",
    "Holder",
    "JobCancel",
    "JobControl",
    "JobCount",
    "JobDelete",
    "JobEnqueue",
    "JobFilter",
    "JobFind",
    "JobGet",
    "JobReport",
    "JobReports",
    "JobRequeue",
    "JobReserve",
    "JobSettle",
    "JobStore",
    "Joined",
    "LeaderList",
    "LeaderRelease",
    "LeaderTake",
    "Leaders",
    "Leadership",
    "LeaseExtend",
    "LeaseExtended",
    "LeaseHold",
    "LeaseReclaim",
    "LimitClear",
    "LimitDeclare",
    "LimitList",
    "LimitSet",
    "LimitSetAnswer",
    "Limits",
    "Line",
    "Listen",
    "MigratingDriver",
    "Migration",
    "Order",
    "ProducerStore",
    "Pruned",
    "QueueControl",
    "QueueInfo",
    "QueueList",
    "QueuePause",
    "QueueResume",
    "QueueTake",
    "Quota",
    "Reclaimed",
    "Request",
    "RequeueStatus",
    "Reservation",
    "Retention",
    "RetentionList",
    "RetentionRecord",
    "RetentionRule",
    "RetentionSet",
    "Rules",
    "STATISTICS_RETAIN",
    "ScheduleCreate",
    "ScheduleDeclare",
    "ScheduleDelete",
    "ScheduleDue",
    "ScheduleFind",
    "ScheduleFire",
    "SchedulePause",
    "ScheduleResume",
    "Schedules",
    "SchemaVersion",
    "Statistics",
    "StatisticsRead",
    "StatisticsWrite",
    "Store",
    "Subscription",
    "TransactionalDriver",
    "UPKEEP",
    "Waiting",
    "Wake",
    "WorkerAnnounce",
    "WorkerForget",
    "WorkerInfo",
    "WorkerList",
    "WorkerOrder",
    "WorkerRegister",
    "admit",
    "allot",
    "counted",
    "in_turn",
    "line_of",
    "lines_first",
    "looks_at_holder",
    "queues_in_turn",
    "replacement_times",
    "require",
]
