"""job_enqueue where the answer depends on who holds a key: in which state, since when (rule 20, ADR 0022).

Jobs that such a request replaces, or takes keys from, are locked, in order of id, before any key is; then it is looked
again who holds the keys, and decided. Keys are then taken by one statement, in order of their names, whichever way they
come to their new holders, and only if they are as they were seen. Where anything is not, all locks are let go, and it
begins anew: so whoever locks jobs before keys, as every verb does, never waits for one who waits for him.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from taskharbor.clock import duration_micros
from taskharbor.driver import Admission, Enqueued, EnqueueStatus, JobEnqueue, admit, looks_at_holder
from taskharbor.drivers.postgres.admitting import keys_of, known_ids, store
from taskharbor.drivers.postgres.batches import digest_text
from taskharbor.drivers.postgres.cancelling import LOCK_ORDER
from taskharbor.drivers.postgres.holding import Held, Name, held
from taskharbor.drivers.postgres.replacing import replace
from taskharbor.drivers.postgres.routine import Query, Routine, nullable_array, plain_array, text_array
from taskharbor.drivers.postgres.rows import CLOCK, micros_of
from taskharbor.drivers.postgres.step import Step
from taskharbor.drivers.postgres.storing import add, stored
from taskharbor.job import NewJob

_BEGIN = "SAVEPOINT admission"
_BEGIN_ANEW = "ROLLBACK TO SAVEPOINT admission"
_LOCK = (
    f"SELECT id::text FROM taskharbor.job WHERE id = ANY ($1::text::uuid[]) ORDER BY {LOCK_ORDER} FOR UPDATE"
)
# A key that is held is taken from the one who was seen to hold it, be he alive or have ended; and from no other.
_CLAIM = f"""WITH {CLOCK},
said AS MATERIALIZED (SELECT * FROM unnest($2::text::text[], $3::text::text[], $4::text::uuid[], $5::text::text[],
    $6::text::bigint[], $7::text::uuid[], $8::text::bigint[]) s(task, key, id, digest, ttl, was, until))
INSERT INTO taskharbor.key AS k (task, name, job_id, digest, ttl)
    SELECT s.task, s.key, s.id, s.digest, s.ttl FROM said s, clock c WHERE c.now IS NOT NULL ORDER BY s.task, s.key
    ON CONFLICT (task, name) DO UPDATE SET job_id = excluded.job_id, digest = excluded.digest, ttl = excluded.ttl,
        expires_at = NULL WHERE k.expires_at <= (SELECT now FROM clock)
            OR (k.job_id, coalesce({micros_of("k.expires_at")}, -1)) IN (
                SELECT was, coalesce(until, -1) FROM said WHERE was IS NOT NULL)
    RETURNING k.task, k.name"""


def is_ruled(request: JobEnqueue) -> bool:
    """Return whether an answer may depend on more than who holds a key."""
    return any(looks_at_holder(job) for job in request.jobs)


def worth_a_try(request: JobEnqueue) -> bool:
    """Return whether `try_enqueue` may do."""
    jobs = request.jobs
    return len(jobs) == 1 and not request.flows and jobs[0].step is None and is_ruled(request)


def try_enqueue(step: Step, request: JobEnqueue) -> Routine[list[Enqueued]]:
    """Return the answer for one job, where that takes no transaction; none where it does.

    It takes none if it is kept out, or if nobody has its key.
    """
    (job,) = request.jobs
    seen = yield from held(step, [_name(job)])
    found = admit([job], known=(), holders=seen.holders, all_or_none=request.all_or_none, now=seen.now)
    if found.handed_over or found.replaced:
        return []
    if not found.new:
        # Asked again, it is known, whoever has its key by now, and with whichever arguments.
        (answer,) = found.answers
        if job.id in (yield from stored(step, [job])):
            answer = Enqueued(EnqueueStatus.EXISTING, job.id)
        # It may have been stored by the first asking, whose answer was lost.
        own = step.repeated and answer == Enqueued(EnqueueStatus.EXISTING, job.id)
        return [Enqueued(EnqueueStatus.CREATED, job.id)] if own else [answer]
    if not (yield from add(step, [job], keyed=True)):
        return []
    step.wakes.queues.add(job.queue)
    return found.answers


class Unforeseen(Exception):
    """A job would have to be locked after others: what has been locked is to be let go first."""


def enqueue_ruled(
    step: Step, request: JobEnqueue, foreseen: Collection[str] | None = None
) -> Routine[list[Enqueued]]:
    """Store jobs and flows, replace others, and return one answer each. Within a transaction.

    Args:
        step: what a verb works with.
        request: what is asked.
        foreseen: jobs that this transaction has locked: no others are locked after them. None if it has locked none.

    Raises:
        Unforeseen: another one would have to be.
    """
    yield Query(_BEGIN)
    found, seen = yield from _admit(step, request, foreseen)
    if found.replaced:
        holders = {holder.job_id: holder for holder in seen.holders.values()}
        yield from replace(step, found.replaced, holders, seen.now)
    yield from store(step, found)
    return found.answers


def holders_of(step: Step, jobs: Collection[NewJob]) -> Routine[set[str]]:
    """Return the jobs that an enqueue of these may lock, as things are now."""
    names = {_name(job) for job in jobs if looks_at_holder(job)}
    if not names:
        return set()
    found = yield from held(step, names)
    return {holder.job_id for holder in found.holders.values()}


def _admit(
    step: Step, request: JobEnqueue, foreseen: Collection[str] | None
) -> Routine[tuple[Admission, Held]]:
    """Decide for a request, and have its jobs hold their keys."""
    jobs, flows = request.jobs, request.flows
    asked = [*(job for job in jobs if job.key is not None), *(job for flow in flows for job in flow.keyed)]
    names = sorted({_name(job) for job in asked})
    known = yield from stored(step, jobs)
    known |= yield from known_ids((), flows)
    concerned: set[str] = set()
    while True:
        seen = yield from held(step, names)
        found = admit(
            jobs,
            known=known,
            holders=seen.holders,
            all_or_none=request.all_or_none,
            flows=flows,
            now=seen.now,
        )
        locked, concerned = concerned, {*found.replaced, *found.handed_over.values()}
        if foreseen is not None and not concerned.issubset(foreseen):
            raise Unforeseen
        if concerned != locked:  # as at first, if there are any
            if locked:
                yield Query(_BEGIN_ANEW)
            if concerned:
                yield Query(_LOCK, (plain_array(concerned),))
                continue
        wanted = keys_of(found)
        for name, holder in seen.holders.items():
            if holder.job_id in found.replaced and name not in wanted:
                wanted[name] = found.replaced[holder.job_id]
        if not wanted or (yield from _claim(step, wanted, seen)):
            return found, seen
        yield Query(_BEGIN_ANEW)
        concerned = set()


def _claim(step: Step, wanted: Mapping[Name, NewJob], seen: Held) -> Routine[bool]:
    """Have jobs hold keys, and return whether they do, all of them."""
    tasks, keys = zip(*wanted, strict=True)
    jobs = wanted.values()
    before = [seen.holders.get(name) for name in wanted]
    rows = yield Query(
        _CLAIM,
        (
            step.now,
            text_array(tasks),
            text_array(keys),
            plain_array([job.id for job in jobs]),
            plain_array([digest_text(job) for job in jobs]),
            plain_array([duration_micros(job.key_ttl) for job in jobs]),
            nullable_array([holder and holder.job_id for holder in before]),
            nullable_array([seen.until.get(name) for name in wanted]),
        ),
    )
    return len(rows) == len(wanted)


def _name(job: NewJob) -> Name:
    return job.task, job.key or ""
