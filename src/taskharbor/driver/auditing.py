"""How many things a request named, and how many it changed: one count for every driver's audit trail (rule 26)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, cast

from taskharbor.driver.audit import AuditWrite
from taskharbor.driver.control import (
    CancelStatus,
    DeleteStatus,
    JobCancel,
    JobDelete,
    JobRequeue,
    RequeueStatus,
)
from taskharbor.driver.flow import FlowCancel
from taskharbor.driver.limit import HoldLift, HoldPlace, LimitClear, LimitSet, LimitSetAnswer
from taskharbor.driver.queue import QueuePause, QueueResume
from taskharbor.driver.request import Request
from taskharbor.driver.retention import HistoryPrune, Pruned, RetentionSet
from taskharbor.driver.schedule import (
    CreateStatus,
    Declared,
    ScheduleCreate,
    ScheduleDeclare,
    ScheduleDelete,
    SchedulePause,
    ScheduleResume,
)
from taskharbor.driver.worker import WorkerOrder

Audited: TypeAlias = (
    JobCancel
    | JobRequeue
    | JobDelete
    | FlowCancel
    | QueuePause
    | QueueResume
    | ScheduleCreate
    | ScheduleDelete
    | SchedulePause
    | ScheduleResume
    | ScheduleDeclare
    | LimitSet
    | LimitClear
    | HoldPlace
    | HoldLift
    | WorkerOrder
    | RetentionSet
    | HistoryPrune
    | AuditWrite
)
"""The requests whose `act` is written down. A driver does so in the same step as what they do."""
AUDITED: tuple[type[Request], ...] = (
    JobCancel,
    JobRequeue,
    JobDelete,
    FlowCancel,
    QueuePause,
    QueueResume,
    ScheduleCreate,
    ScheduleDelete,
    SchedulePause,
    ScheduleResume,
    ScheduleDeclare,
    LimitSet,
    LimitClear,
    HoldPlace,
    HoldLift,
    WorkerOrder,
    RetentionSet,
    HistoryPrune,
    AuditWrite,
)
_CHANGED: frozenset[object] = frozenset(
    {
        CancelStatus.CANCELLED,
        CancelStatus.REQUESTED,
        RequeueStatus.REQUEUED,
        DeleteStatus.DELETED,
        CreateStatus.CREATED,
        CreateStatus.REPLACED,
    }
)


def counted(request: Request, answer: object) -> tuple[int, int]:
    """Return how many things a request named, and how many of them it changed, by its answer."""
    if isinstance(request, AuditWrite):
        return request.named, request.changed
    if isinstance(answer, LimitSetAnswer):
        return 1, int(answer.changed)
    if isinstance(answer, Pruned):
        return answer.jobs, answer.jobs
    if isinstance(answer, Declared):
        changed = len(answer.added) + len(answer.changed) + len(answer.removed)
        return changed, changed
    answers = cast("Sequence[object]", answer)
    return len(answers), sum(one is True or one in _CHANGED for one in answers)
