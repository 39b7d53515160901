"""What can be done to many jobs: retry, cancel, delete. How each is asked for, done, and told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from taskharbor.cli.acting import Status
from taskharbor.driver import CancelStatus, DeleteStatus, RequeueStatus
from taskharbor.harbor import Harbor
from taskharbor.job import TERMINAL, JobState

Do = Callable[[Harbor, Sequence[str], str, str], Sequence[Status]]
"""Takes ids, the reason, and who does it; returns one answer each, in order."""

_LIVE = tuple(state for state in JobState if state not in TERMINAL)


class Verb(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that can be done to jobs."""

    asked: str
    """As it begins a question: `Requeue`."""
    done: str
    """As it ends a count: `requeued`."""
    for_good: bool = False
    """It cannot be taken back."""
    do: Do
    states: Sequence[JobState]
    """In which it is done with `--all`, if nobody says in which."""
    needs_filter: bool
    """`--all` by itself would be too much."""
    fine: frozenset[Status]
    """Answers after which nothing is left to do: it was done, or somebody else was quicker."""
    otherwise: Mapping[JobState, str] = {}
    """What becomes of jobs in the states in which it is not simply done."""


RETRY = Verb(
    asked="Requeue",
    done="requeued",
    do=lambda harbor, ids, reason, by: harbor.jobs.requeue(ids, reason=reason, by=by),
    states=(JobState.DEAD,),
    needs_filter=False,
    fine=frozenset({RequeueStatus.REQUEUED, RequeueStatus.NOT_DEAD, RequeueStatus.MISSING}),
    otherwise=dict.fromkeys((*_LIVE, JobState.SUCCEEDED), "not requeued: it is neither dead nor cancelled"),
)
CANCEL = Verb(
    asked="Cancel",
    done="cancelled",
    for_good=True,
    do=lambda harbor, ids, reason, by: harbor.jobs.cancel(ids, reason=reason, by=by),
    states=_LIVE,
    needs_filter=True,
    fine=frozenset(CancelStatus),
    otherwise={
        JobState.RUNNING: "its worker is told to stop it",
        **dict.fromkeys(TERMINAL, "not cancelled: it has ended"),
    },
)
DELETE = Verb(
    asked="Delete",
    done="deleted",
    for_good=True,
    do=lambda harbor, ids, _reason, _by: harbor.jobs.delete(ids),
    states=tuple(state for state in JobState if state is not JobState.RUNNING),
    needs_filter=True,
    fine=frozenset({DeleteStatus.DELETED, DeleteStatus.MISSING}),
    otherwise={JobState.RUNNING: "not deleted: it is running; cancel it first"},
)
PURGE = msgspec.structs.replace(DELETE, states=(JobState.DEAD,), needs_filter=False)
