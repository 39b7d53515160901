"""What can be done to many jobs: retry, cancel, delete. How each is asked for, done, and told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum

import msgspec

from taskharbor.audit import Act
from taskharbor.cli.acting import TOLD, Status
from taskharbor.driver import CancelStatus, DeleteStatus, RequeueStatus
from taskharbor.harbor import Harbor
from taskharbor.job import TERMINAL, JobState

Do = Callable[[Harbor, Sequence[str], frozenset[JobState], Act], Sequence[Status]]
"""Takes ids, the states of which one must still hold (none: any may), and whose act it is, and why.

Returns one answer each, in order.
"""

_LIVE = tuple(state for state in JobState if state not in TERMINAL)


class Verb(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that can be done to jobs."""

    asked: str
    """As it begins a question: `Requeue`."""
    done: str
    """As it ends a count: `requeued`."""
    runs: bool = False
    """Jobs run after it: a dry run is red if one could not."""
    for_good: bool = False
    """It cannot be taken back."""
    action: str
    """The word that the audit trail has for it."""
    do: Do
    states: Sequence[JobState]
    """In which it is done with `--all`, if nobody says in which."""
    only: frozenset[JobState] = frozenset()
    """It is done to jobs in these alone, to those that are named too; empty for any."""
    needs_filter: bool
    """`--all` by itself would be too much."""
    fine: frozenset[Status]
    """Answers after which nothing is left to do: it was done, or somebody else was quicker."""
    otherwise: Mapping[JobState, str] = {}
    """What becomes of jobs in the states in which it is not simply done."""
    otherwise_step: str = ""
    """What becomes of a step that was cancelled, or whose flow has ended, where it is not simply done."""
    ends_flows: frozenset[JobState] = frozenset()
    """The flow of a step in one of these states ends with it, unless it takes that step's failure as a value."""
    words: Mapping[StrEnum, str] = msgspec.field(default_factory=lambda: TOLD)
    """What became of a job, as people are told."""


RETRY = Verb(
    asked="Requeue",
    done="requeued",
    runs=True,
    action="jobs.requeue",
    do=lambda harbor, ids, states, act: harbor.jobs.requeue(
        ids, states=states, reason=act.reason, by=act.by, act=act
    ),
    states=(JobState.DEAD,),
    needs_filter=False,
    fine=frozenset({RequeueStatus.REQUEUED, RequeueStatus.NOT_DEAD, RequeueStatus.MISSING}),
    otherwise=dict.fromkeys((*_LIVE, JobState.SUCCEEDED), "not requeued: it is neither dead nor cancelled"),
    otherwise_step="not requeued: it is a cancelled step, or one of a flow that has ended",
)
CANCEL = Verb(
    asked="Cancel",
    done="cancelled",
    for_good=True,
    action="jobs.cancel",
    do=lambda harbor, ids, _states, act: harbor.jobs.cancel(ids, reason=act.reason, by=act.by, act=act),
    states=_LIVE,
    needs_filter=True,
    fine=frozenset(CancelStatus),
    otherwise={
        JobState.RUNNING: "its worker is told to stop it",
        **dict.fromkeys(TERMINAL, "not cancelled: it has ended"),
    },
    ends_flows=frozenset(_LIVE),
)
DELETE = Verb(
    asked="Delete",
    done="deleted",
    for_good=True,
    action="jobs.delete",
    do=lambda harbor, ids, states, act: harbor.jobs.delete(ids, states=states, act=act),
    states=tuple(state for state in JobState if state is not JobState.RUNNING),
    needs_filter=True,
    fine=frozenset({DeleteStatus.DELETED, DeleteStatus.OTHER_STATE, DeleteStatus.MISSING}),
    otherwise={JobState.RUNNING: "not deleted: it is running; cancel it first"},
    ends_flows=frozenset(JobState) - {JobState.RUNNING, JobState.SUCCEEDED},
)

_DEAD = frozenset({JobState.DEAD})
_ALIVE = tuple(state for state in JobState if state not in _DEAD)

REQUEUE = msgspec.structs.replace(
    RETRY,
    only=_DEAD,
    otherwise=dict.fromkeys(_ALIVE, "not requeued: it is no dead letter"),
    words={
        **TOLD,
        RequeueStatus.NOT_DEAD: "not requeued: it is no dead letter; or it is a step of a flow that has ended",
    },
)
"""Retry, for dead letters alone."""
PURGE = msgspec.structs.replace(
    DELETE,
    states=(JobState.DEAD,),
    only=_DEAD,
    needs_filter=False,
    otherwise=dict.fromkeys(_ALIVE, "not deleted: it is no dead letter"),
    ends_flows=_DEAD,
    words={**TOLD, DeleteStatus.OTHER_STATE: "not deleted: it is no dead letter"},
)
"""Delete, for dead letters alone."""
