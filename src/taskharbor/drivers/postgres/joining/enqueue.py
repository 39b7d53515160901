"""What is asked within the caller's transaction: an enqueue, whole or not at all, and its wake-up at the commit."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from taskharbor.driver import Enqueued, JobEnqueue
from taskharbor.drivers.postgres.bell.notice import payloads
from taskharbor.drivers.postgres.enqueue import job_enqueue, needs_transaction
from taskharbor.drivers.postgres.routine import Query, Routine
from taskharbor.drivers.postgres.step import Step

SENDER = "using"
"""Who rings: no bell in particular, so every one hears it, the one in this process, too."""

_SAVEPOINT = Query("SAVEPOINT taskharbor")
_ROLLBACK = Query("ROLLBACK TO SAVEPOINT taskharbor")
_RELEASE = Query("RELEASE SAVEPOINT taskharbor")
_NOTIFY = "SELECT pg_notify($1::text, $2::text)"


def enqueue(step: Step, request: JobEnqueue, channel: str) -> Routine[Sequence[Enqueued]]:
    """Store jobs, and have the server wake workers when the caller's transaction is committed, and only then.

    The server sends a notice once, however often it was asked for in one transaction. So each enqueue asks: what was
    asked before may have gone with a savepoint, and the block may hold several transactions.
    """
    together = needs_transaction(request)
    answers = yield from _whole(job_enqueue(step, request)) if together else job_enqueue(step, request)
    for payload in payloads(SENDER, sorted(step.wakes.queues), ()) if step.wakes.queues else ():
        yield Query(_NOTIFY, (channel, payload))
    return answers


def _whole(routine: Routine[Sequence[Enqueued]]) -> Routine[Sequence[Enqueued]]:
    """Carry out several statements as one: who gives up in the middle may still commit what came before."""
    yield _SAVEPOINT
    try:
        answers = yield from routine
    except BaseException:
        with suppress(Exception):  # where that fails, too, the whole transaction is lost
            yield _ROLLBACK
            yield _RELEASE
        raise
    yield _RELEASE
    return answers
