"""What is asked within the caller's transaction: an enqueue, whole or not at all, and its wake-up at the commit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from taskharbor.driver import Enqueued, JobEnqueue
from taskharbor.drivers.postgres.enqueue import job_enqueue, needs_transaction
from taskharbor.drivers.postgres.routine import Query, Routine
from taskharbor.drivers.postgres.step import Step

_SAVEPOINT = Query("SAVEPOINT taskharbor")
_ROLLBACK = Query("ROLLBACK TO SAVEPOINT taskharbor")
_RELEASE = Query("RELEASE SAVEPOINT taskharbor")
_NOTIFY = "SELECT pg_notify($1::text, $2::text)"


def enqueue(
    step: Step, request: JobEnqueue, channel: str, announce: Callable[[Iterable[str]], list[str]]
) -> Routine[Sequence[Enqueued]]:
    """Store jobs, and have the server wake workers when the caller's transaction is committed.

    Where many transactions do so at once, some are not told to: each would hold up the others.

    Args:
        step: what a verb works with.
        request: what is to be stored.
        channel: what a NOTIFY names.
        announce: returns what to NOTIFY of these queues.
    """
    together = needs_transaction(request)
    answers = yield from _whole(job_enqueue(step, request)) if together else job_enqueue(step, request)
    for payload in announce(step.wakes.queues):
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
