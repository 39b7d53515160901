"""job_enqueue: jobs without a key by one statement; jobs with one by one more only if some key is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import accumulate
from operator import attrgetter

from taskharbor.clock import EPOCH, duration_micros
from taskharbor.driver import Enqueued, EnqueueStatus, Holder, JobEnqueue, admit
from taskharbor.drivers.postgres.routine import (
    Cell,
    Query,
    Routine,
    nullable_array,
    plain_array,
    text_array,
)
from taskharbor.drivers.postgres.rows import (
    BATCH_BYTES,
    CLOCK,
    DEAD,
    LONG,
    NORMAL,
    OptionsBook,
    interval_of,
    json_text,
)
from taskharbor.drivers.postgres.step import Step
from taskharbor.job import NewJob

_ROWS = 2000
"""Jobs in one statement, at most."""
_CREATED = EnqueueStatus.CREATED  # looking up the member of an enum costs as much as making an answer

# Ids begin with the time, so that those of one request stand close together in the index, and few others between them:
# which of them are stored already is read in one go, and costs nothing where none is. Jobs that ended are looked for
# only in those partitions of the history in which they can be; their numbers are written into the statement, so that
# the others have no part in its plan. (ON CONFLICT would write each row twice to be sure. Two requests that store the
# same id at once end in an error of the one, which is then repeated.)
_SPAN = "id BETWEEN $19::text::uuid AND $20::text::uuid"
_KNOWN = f"""known AS MATERIALIZED (SELECT id FROM taskharbor.job WHERE {_SPAN}
    UNION ALL SELECT id FROM taskharbor.history WHERE slot IN ({{slots}}) AND {_SPAN})"""
_WIDE = timedelta(seconds=5)
"""Ids made farther apart, as where an old request is repeated, are looked up one by one."""
# Jobs of one task, queue, priority and so on are of one *batch*, whose words are sent once.
_SAID = f"""WITH {CLOCK},
batch AS MATERIALIZED (SELECT $2::text::text[] AS task, $3::text::text[] AS queue, $4::text::text[] AS options,
    $5::text::smallint[] AS priority, $6::text::bigint[] AS retain, $7::text::bigint[] AS timeout,
    $8::text::boolean[] AS guarded),
said AS MATERIALIZED (SELECT s.*, b.task[s.batch], b.queue[s.batch], b.options[s.batch], b.priority[s.batch],
        b.retain[s.batch], b.timeout[s.batch], b.guarded[s.batch]
    FROM batch b, unnest($9::text::uuid[], $10::text::integer[], $11::text::integer[],
    $12::text::integer[], $16::text::timestamptz[], $17::text::bigint[], $13::text::text[], $14::text::text[],
    $18::text::json[]) s(id, batch, start, size, run_at, run_in, key, digest, meta)),
{_KNOWN}"""
_ADD = f"""added AS (INSERT INTO taskharbor.job (id, task, queue, options, priority, retain, timeout, guarded, lane,
    key, digest, meta, payload, enqueued_at, run_at, due)
SELECT s.id, s.task, s.queue, s.options, s.priority, s.retain, s.timeout, s.guarded, {NORMAL}, s.key, s.digest, s.meta,
    substring($15::bytea FROM s.start FOR s.size), c.now, w.run_at, greatest(w.run_at, c.now)
FROM clock c, {{said}} s,
    LATERAL (SELECT coalesce(c.now + {interval_of("s.run_in")}, s.run_at, c.now) AS run_at) w
RETURNING id)
SELECT id::text FROM added"""
_PLAIN = f"""{_SAID},
fresh AS (SELECT * FROM said WHERE id NOT IN (SELECT id FROM known)),
{_ADD.format(said="fresh")}"""
_KEYED = f"""{_SAID},
lasts AS MATERIALIZED (SELECT $21::text::bigint[] AS ttl),
fresh AS MATERIALIZED (SELECT * FROM said WHERE id NOT IN (SELECT id FROM known)),
taken AS (INSERT INTO taskharbor.key AS k (task, name, job_id, digest, ttl)
    SELECT s.task, s.key, s.id, s.digest, t.ttl[s.batch] FROM fresh s, lasts t
    WHERE s.key IS NOT NULL{{untaken}} ORDER BY s.task, s.key
    ON CONFLICT (task, name) DO UPDATE SET job_id = excluded.job_id, digest = excluded.digest, ttl = excluded.ttl,
        expires_at = NULL WHERE k.expires_at <= (SELECT now FROM clock)
    RETURNING k.job_id),
free AS (SELECT * FROM fresh WHERE key IS NULL OR id IN (SELECT job_id FROM taken)),
{_ADD.format(said="free")}"""
# ON CONFLICT locks what it meets, changed or not, and no worker could settle the job that has the key while a caller's
# transaction lasts. So what can be seen to be taken is left alone there. Not in one that is SERIALIZABLE: whatever is
# read in it may bring another to an end.
_UNTAKEN = """ AND NOT (current_setting('transaction_isolation') <> 'serializable' AND EXISTS (
        SELECT FROM taskharbor.key h WHERE h.task = s.task AND h.name = s.key
        AND (h.expires_at IS NULL OR h.expires_at > (SELECT now FROM clock))))"""
_HOLDERS = """SELECT k.task, k.name, k.job_id::text, k.digest
    FROM unnest($2::text::text[], $3::text::text[]) w(task, name) JOIN taskharbor.key k USING (task, name)
    WHERE k.expires_at IS NULL OR k.expires_at > coalesce($1::text::timestamptz, clock_timestamp())"""
_STORED = """SELECT id::text FROM taskharbor.job WHERE id = ANY ($1::text::uuid[])
    UNION ALL SELECT id::text FROM taskharbor.history WHERE id = ANY ($1::text::uuid[])"""
_TAKE_BACK_KEYS = """DELETE FROM taskharbor.key k USING unnest($2::text::text[], $3::text::text[]) w(task, name)
    WHERE k.task = w.task AND k.name = w.name AND k.job_id = ANY ($1::text::uuid[])"""
_TAKE_BACK = "DELETE FROM taskharbor.job WHERE id = ANY ($1::text::uuid[])"


def needs_transaction(request: JobEnqueue) -> bool:
    """Return whether it may come to more than one statement that have to be written together."""
    jobs = request.jobs
    if len(jobs) == 1:
        return False
    return any(job.key is not None for job in jobs) or _bulky(jobs)


def job_enqueue(step: Step, request: JobEnqueue) -> Routine[Sequence[Enqueued]]:
    """Store jobs and return one answer each, in order."""
    jobs = request.jobs
    if any(job.key is not None for job in jobs):
        answers = yield from _with_keys(step, request)
    else:
        created = yield from _add(step, jobs, keyed=False)
        if len(created) == len(jobs):  # as a rule
            answers = [Enqueued(_CREATED, job.id) for job in jobs]
        else:
            known = {job.id for job in jobs}.difference(created)
            answers = admit(jobs, known=known, holders={}, all_or_none=request.all_or_none).answers
    if step.repeated:
        # An id is made for one call: what is stored under it was written by the first asking, whose answer was lost.
        answers = [
            Enqueued(_CREATED, job.id)
            if answer.status is EnqueueStatus.EXISTING and answer.job_id == job.id
            else answer
            for job, answer in zip(jobs, answers, strict=True)
        ]
    step.wakes.queues.update(
        {job.queue for job, answer in zip(jobs, answers, strict=True) if answer.status is _CREATED}
    )
    return answers


def _with_keys(step: Step, request: JobEnqueue) -> Routine[list[Enqueued]]:
    """Take the keys and store the jobs; where some were taken before, look who has them, and decide again."""
    jobs = request.jobs
    first: dict[tuple[str, str], NewJob] = {}
    for job in jobs:
        if job.key is not None:
            first.setdefault((job.task, job.key), job)
    # Two of a batch that want one key cannot both be asked for it at once.
    sent = [job for job in jobs if job.key is None or first[job.task, job.key] is job]
    created = yield from _add(step, sent, keyed=True)
    while True:
        if len(created) == len(jobs):  # as a rule
            return [Enqueued(_CREATED, job.id) for job in jobs]
        rest = {job.id for job in jobs} - created
        ids = plain_array(sorted(rest))
        known = {row[0] for row in (yield Query(_STORED, (ids,)))}
        wanted = [(job.task, job.key) for job in jobs if job.key is not None and job.id in rest]
        holders: dict[tuple[str, str], Holder] = {}
        if wanted:
            tasks, names = zip(*wanted, strict=True)
            found = yield Query(_HOLDERS, (step.now, text_array(tasks), text_array(names)))
            holders = {
                (task, name): Holder(job_id, bytes.fromhex(digest))
                for task, name, job_id, digest in found
                # Taken a moment ago by this very batch: those come to it as `taken` in `admit`.
                if job_id not in created
            }
        answers, new, _ = admit(jobs, known=known, holders=holders, all_or_none=request.all_or_none)
        missing = [job for job in new if job.id not in created]
        if not new and created:
            ids = plain_array(sorted(created))
            tasks, names = zip(*first, strict=True)
            yield Query(_TAKE_BACK_KEYS, (ids, text_array(tasks), text_array(names)))
            yield Query(_TAKE_BACK, (ids,))
        if not missing:
            return answers
        # Whoever had their keys has given them up meanwhile.
        created |= yield from _add(step, missing, keyed=True)


def _add(step: Step, jobs: Sequence[NewJob], *, keyed: bool) -> Routine[set[str]]:
    """Store what can be stored, and return its ids."""
    created: set[str] = set()
    unique = {job.id: job for job in reversed(jobs)}
    if len(unique) < len(jobs):
        jobs = list(reversed(unique.values()))
    made_at = _made_at(min(unique)) if unique else EPOCH
    now = None if step.now is None else datetime.fromisoformat(step.now)
    slots: tuple[int, ...] = (DEAD, LONG)
    if not step.joined:
        slots = yield from step.slots.may_hold(made_at, {job.retain for job in jobs}, now)
    wide = bool(unique) and _made_at(max(unique)) - made_at > _WIDE
    sql = _statement(slots, keyed=keyed, joined=step.joined, wide=wide)
    for part in _parts(jobs):
        rows = yield Query(sql, _parameters(step, part, keyed=keyed))
        created.update([row[0] for row in rows])
    return created


def _bulky(jobs: Sequence[NewJob]) -> bool:
    return len(jobs) > _ROWS or sum([len(job.payload) for job in jobs]) > BATCH_BYTES


def _parts(jobs: Sequence[NewJob]) -> Iterator[Sequence[NewJob]]:
    """Yield jobs in parts that one statement can take."""
    if not _bulky(jobs):
        if jobs:
            yield jobs
        return
    part: list[NewJob] = []
    size = 0
    for job in jobs:
        if part and (len(part) >= _ROWS or size + len(job.payload) > BATCH_BYTES):
            yield part
            part, size = [], 0
        part.append(job)
        size += len(job.payload)
    yield part


def _parameters(step: Step, jobs: Sequence[NewJob], *, keyed: bool) -> list[Cell]:
    batches = _Batches(step.book)
    numbers = [batches.number(job) for job in jobs]
    ids = [job.id for job in jobs]
    payloads = [job.payload for job in jobs]
    sizes = [len(payload) for payload in payloads]
    cells: list[Cell] = [
        step.now,
        *batches.cells(),
        "{" + ",".join(ids) + "}",
        plain_array(numbers),
        plain_array(accumulate(sizes[:-1], initial=1)),
        plain_array(sizes),
        text_array([job.key for job in jobs]) if keyed else None,
        nullable_array([None if job.key is None else _digest(job) for job in jobs]) if keyed else None,
        b"".join(payloads),
        None,
        None,
        None,
        # In a caller's transaction nothing is asked again, and so the ids are new.
        None if step.joined else min(ids),
        None if step.joined else max(ids),
    ]
    if any(job.run_at is not None for job in jobs):
        cells[15] = nullable_array([None if job.run_at is None else job.run_at.isoformat() for job in jobs])
    if any(job.run_in is not None for job in jobs):
        cells[16] = nullable_array(
            [None if job.run_in is None else duration_micros(job.run_in) for job in jobs]
        )
    if any(job.meta for job in jobs):
        cells[17] = text_array([json_text(job.meta) if job.meta else None for job in jobs])
    if keyed:
        cells.append(batches.key_ttls())
    return cells


def _digest(job: NewJob) -> str:
    return job.digest.hex() or '""'


def _made_at(job_id: str) -> datetime:
    """Return the instant at which an id was made: a UUIDv7 begins with its milliseconds."""
    return EPOCH + timedelta(milliseconds=int(job_id[:8] + job_id[9:13], 16))


@lru_cache(maxsize=100)
def _statement(slots: tuple[int, ...], *, keyed: bool, joined: bool, wide: bool) -> str:
    sql = (_KEYED if keyed else _PLAIN).replace("{slots}", ", ".join(map(str, slots)))
    if wide:
        sql = sql.replace(_SPAN, f"{_SPAN} AND id = ANY (SELECT id FROM said)")
    return sql.replace("{untaken}", _UNTAKEN if joined else "")


_words: Callable[[NewJob], tuple[object, ...]] = attrgetter(
    "task",
    "queue",
    "codec",
    "fingerprint",
    "retry",
    "key_ttl",
    "keep_result",
    "priority",
    "retain",
    "timeout",
)
"""Return what jobs of one batch have in common."""


class _Batches:
    """The words that jobs of one statement have in common, each kind of them once."""

    def __init__(self, book: OptionsBook) -> None:
        self._book = book
        self._numbers: dict[tuple[object, ...], int] = {}
        self._jobs: list[NewJob] = []
        self._last: tuple[tuple[object, ...] | None, int] = None, 0

    def number(self, job: NewJob) -> int:
        """Return the number of the batch that a job is of, from 1."""
        words = _words(job)
        last, number = self._last
        if words == last:  # comparing is quicker than hashing
            return number
        number = self._numbers.setdefault(words, len(self._jobs) + 1)
        if number > len(self._jobs):
            self._jobs.append(job)
        self._last = words, number
        return number

    def cells(self) -> list[Cell]:
        """Return the parameters `$2` to `$8`."""
        jobs = self._jobs
        return [
            text_array([job.task for job in jobs]),
            text_array([job.queue for job in jobs]),
            text_array([self._book.text(job) for job in jobs]),
            plain_array([job.priority for job in jobs]),
            plain_array([duration_micros(job.retain) for job in jobs]),
            nullable_array([None if job.timeout is None else duration_micros(job.timeout) for job in jobs]),
            # Its one attempt must not be spent unseen (rule 4).
            plain_array([job.retry.max_attempts == 1 for job in jobs]),
        ]

    def key_ttls(self) -> str:
        """Return how long each batch's keys stay taken after the job has ended."""
        return plain_array([duration_micros(job.key_ttl) for job in self._jobs])
