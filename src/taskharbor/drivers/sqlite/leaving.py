"""How jobs leave a lease: back into a lane, or into the history or the dead letters. Gathered, then written at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple, TypeVar

import msgspec

from taskharbor.clock import from_micros
from taskharbor.drivers.sqlite.lines import QUEUES_WAITING
from taskharbor.drivers.sqlite.routine import Cell, Query, Routine
from taskharbor.drivers.sqlite.rows import BATCH_BYTES, LINES, SOLO, Packed, Step, json_text
from taskharbor.drivers.sqlite.rules import rules_now
from taskharbor.job import AttemptError, JobState
from taskharbor.limit import ScopeKind
from taskharbor.settlement import SOLO_CRASHES, Settlement

T = TypeVar("T")

_ROWS = 5000

_COMMON = (
    "id, task, queue, options, priority, run_at, enqueued_at, timeout, deliveries, stray, stray_reason, payload, key, "
    "digest, meta, operations, part"
)
_FROM_JOB = ", ".join(f"j.{name}" for name in _COMMON.split(", "))
_STEPPED, _STEP_FROM_JOB = f"{_COMMON}, flow, step", f"{_FROM_JOB}, j.flow, j.step"
_JOINED = """FROM json_each(?1) e CROSS JOIN taskharbor_job j ON j.id = e.value ->> 0
    CROSS JOIN taskharbor_options o ON o.id = j.options"""
_WITH_ERROR = """CASE WHEN e.value ->> {0} IS NULL THEN {1}errors
    ELSE json_insert(coalesce({1}errors, '[]'), '$[#]', json(e.value ->> {0})) END"""

# The way of nearly all jobs, by itself: [id, where the result begins, its size].
_SUCCEED = f"""INSERT INTO taskharbor_history ({_COMMON},
    state, finished_at, expires_at, settled, attempt, crashes, guarded, errors, result, result_codec)
    SELECT {_FROM_JOB}, 'succeeded', ?2, ?2 + o.retain, j.token, j.attempt + ?3, j.crashes, j.guarded, j.errors,
        substr(?5, e.value ->> 1, e.value ->> 2), ?4 {_JOINED}"""
# The same where steps are among them.
_SUCCEED_STEPS = _SUCCEED.replace(_COMMON, _STEPPED).replace(_FROM_JOB, _STEP_FROM_JOB)
# [id, state, reason, attempts, crashes, guarded, error, settled]
_CANCELLED = f"""INSERT INTO taskharbor_history ({_STEPPED},
    state, finished_at, expires_at, reason, attempt, crashes, guarded, errors, settled)
    SELECT {_STEP_FROM_JOB}, 'cancelled', ?2, ?2 + o.retain, e.value ->> 1, e.value ->> 2, e.value ->> 3, e.value ->> 4,
        {_WITH_ERROR.format(5, "j.")}, e.value ->> 6 {_JOINED}"""
_BURY = f"""INSERT INTO taskharbor_dead ({_STEPPED},
    finished_at, reason, attempt, crashes, guarded, errors, settled)
    SELECT {_STEP_FROM_JOB}, ?2, e.value ->> 1, e.value ->> 2, e.value ->> 3, e.value ->> 4,
        {_WITH_ERROR.format(5, "j.")}, e.value ->> 6 {_JOINED}"""
_END_KEYS = """UPDATE taskharbor_key SET expires_at = ?2 + ttl WHERE (task, name, job_id) IN (
    SELECT j.task, j.key, j.id FROM json_each(?1) e CROSS JOIN taskharbor_job j ON j.id = e.value)"""
_REMOVE = "DELETE FROM taskharbor_job WHERE id IN (SELECT value FROM json_each(?))"
# [id, due, lane, attempts, crashes, lost, guarded, stray, its reason, error, settled]
_BACK = f"""UPDATE taskharbor_job SET token = NULL, started = 0, due = e.value ->> 1,
    lane = (e.value ->> 2) + iif(part IS NULL, 0, {LINES}),
    attempt = e.value ->> 3, crashes = e.value ->> 4, lost = e.value ->> 5, guarded = e.value ->> 6,
    stray = e.value ->> 7, stray_reason = e.value ->> 8, errors = {_WITH_ERROR.format(9, "")},
    settled = e.value ->> 10
    FROM json_each(?) e WHERE taskharbor_job.id = e.value ->> 0"""  # noqa: S608 - our own constants
_ENDS_OF = (
    """SELECT DISTINCT j.queue, j.task FROM json_each(?) e CROSS JOIN taskharbor_job j ON j.id = e.value"""
)
_LEAVE = """UPDATE taskharbor_lease SET remaining = remaining - (e.value ->> 1)
    FROM json_each(?) e WHERE taskharbor_lease.token = e.value ->> 0"""


class Held(msgspec.Struct, array_like=True, gc=False):
    """What has to be known of a leased job that does not simply succeed. See `HELD_COLUMNS`."""

    id: str
    token: int
    task: str
    queue: str
    options: int
    started: int
    cancel: str | None
    attempt: int
    crashes: int
    lost: int
    guarded: int
    stray: int
    stray_reason: str | None
    key: str | None
    step: int
    """Whether it is one."""


HELD_COLUMNS = """json_array(j.id, j.token, j.task, j.queue, j.options, j.started, j.cancel, j.attempt, j.crashes,
    j.lost, j.guarded, j.stray, j.stray_reason, j.key, j.step IS NOT NULL)"""
HELD = msgspec.json.Decoder(list[Held])


class Fall(NamedTuple):
    """The end of a step that is no success."""

    job_id: str
    task: str
    state: JobState
    reason: str
    error: AttemptError | None
    attempts: int


class Leaving:
    """Jobs on their way out of their leases, within one transaction."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self._now = step.now
        self._wakes = step.wakes
        self._leases: Counter[int] = Counter()
        self._succeeded: dict[tuple[str, int], list[tuple[str, bytes | None]]] = {}
        self._cancelled: list[tuple[Cell, ...]] = []
        self._buried: list[tuple[Cell, ...]] = []
        self._back: list[tuple[Cell, ...]] = []
        self._keyed: list[str] = []
        self._ended: list[str] = []
        self.falls: list[Fall] = []
        self.steps_succeeded = False
        """Whether there may be steps among those that succeeded."""

    def succeed(
        self, job_id: str, token: int, result: bytes | None, codec: str, *, charge: bool, keyed: bool
    ) -> None:
        """Have a job end in success."""
        self._leases[token] += 1
        self._succeeded.setdefault((codec, int(charge)), []).append((job_id, result))
        self._ended.append(job_id)
        if keyed:
            self._keyed.append(job_id)

    def succeed_all(self, settlements: Sequence[Settlement]) -> None:
        """Have jobs without keys end in success."""
        self._leases.update([settlement.token for settlement in settlements])
        groups = self._succeeded
        for settlement in settlements:
            name = (settlement.codec, int(settlement.charge))
            group = groups.get(name)
            if group is None:
                group = groups[name] = []
            group.append((settlement.job_id, settlement.result))
        self._ended.extend([settlement.job_id for settlement in settlements])

    def finish(
        self,
        job: Held,
        state: JobState,
        reason: str,
        *,
        error: AttemptError | None = None,
        settled: int | None = None,
    ) -> None:
        """Have a job end as dead or cancelled."""
        self._leases[job.token] += 1
        row = (job.id, reason, job.attempt, job.crashes, job.guarded, self._stamped(error), settled)
        (self._buried if state is JobState.DEAD else self._cancelled).append(row)
        self._ended.append(job.id)
        if job.key is not None:
            self._keyed.append(job.id)
        if job.step:
            self.falls.append(Fall(job.id, job.task, state, reason, error, job.attempt))

    def back(
        self,
        job: Held,
        due: int,
        lane: int,
        *,
        error: AttemptError | None = None,
        settled: int | None = None,
    ) -> None:
        """Have a job wait again, in its lane from `due` on."""
        self._leases[job.token] += 1
        lane = SOLO if job.crashes >= SOLO_CRASHES else lane
        self._back.append(
            (
                job.id,
                due,
                lane,
                job.attempt,
                job.crashes,
                job.lost,
                job.guarded,
                job.stray,
                job.stray_reason,
                self._stamped(error),
                settled,
            )
        )
        self._wakes.queues.add(job.queue)

    def _stamped(self, error: AttemptError | None) -> str | None:
        """Return an error as it is kept: with the store's time."""
        if error is None:
            return None
        return json_text(msgspec.structs.replace(error, at=from_micros(self._now)))

    def write(self) -> Routine[None]:
        """Write it all down."""
        yield from self._make_room()
        if self._keyed:
            yield Query(_END_KEYS, (json_text(self._keyed), self._now))
        for (codec, charge), jobs in self._succeeded.items():
            for rows, blob in _packed(jobs):
                succeed = _SUCCEED_STEPS if self.steps_succeeded else _SUCCEED
                yield Query(succeed, (json_text(rows), self._now, charge, codec, blob))
        for statement, finished in ((_CANCELLED, self._cancelled), (_BURY, self._buried)):
            for chunk in chunks(finished):
                yield Query(statement, (json_text(chunk), self._now))
        for ended in chunks(self._ended):
            yield Query(_REMOVE, (json_text(ended),))
        for chunk in chunks(self._back):
            yield Query(_BACK, (json_text(chunk),))
        if self._leases:
            yield Query(_LEAVE, (json_text(list(self._leases.items())),))
            yield Query("DELETE FROM taskharbor_lease WHERE remaining <= 0")
        self._wakes.jobs.extend(self._ended)

    def _make_room(self) -> Routine[None]:
        """Wake those who may wait for room behind a limit that these jobs leave."""
        rules = yield from rules_now(self._step)
        if not rules.counts:
            return
        counted = {scope for scope, terms in rules.terms.items() if terms.max_running is not None}
        queues = {scope.name for scope in counted if scope.kind is ScopeKind.QUEUE}
        tasks = {scope.name for scope in counted if scope.kind is not ScopeKind.QUEUE}
        ids = [*self._ended, *(str(row[0]) for row in self._back)]
        left = yield Query(_ENDS_OF, (json_text(ids),))
        self._wakes.queues.update(queue for queue, _ in left if queue in queues)
        if any(task in tasks for _, task in left):
            self._wakes.queues.update([queue for (queue,) in (yield Query(QUEUES_WAITING))])


def chunks(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield rows in batches that one statement can take."""
    for begin in range(0, len(rows), _ROWS):
        yield rows[begin : begin + _ROWS]


def _packed(jobs: Sequence[tuple[str, bytes | None]]) -> Iterator[tuple[list[tuple[Cell, ...]], bytes]]:
    """Yield rows of id, and where in a blob the result begins and how long it is; each with that blob."""
    for chunk in chunks(jobs):
        results = [result for _, result in chunk if result is not None]
        sizes = [len(result) for result in results]
        if len(results) == len(chunk) and sum(sizes) <= BATCH_BYTES:
            # As a rule: SQLite counts from 1, and takes a part of no bytes at all for NULL, hence the first byte.
            begins = accumulate(sizes, initial=2)
            yield (
                list(zip([job_id for job_id, _ in chunk], begins, sizes, strict=False)),
                b"\x00" + b"".join(results),
            )
        else:
            yield from _packed_one_by_one(chunk)


def _packed_one_by_one(
    jobs: Sequence[tuple[str, bytes | None]],
) -> Iterator[tuple[list[tuple[Cell, ...]], bytes]]:
    rows: list[tuple[Cell, ...]] = []
    packed = Packed()
    for job_id, result in jobs:
        if rows and packed.size + len(result or b"") > BATCH_BYTES:
            yield rows, packed.blob()
            rows, packed = [], Packed()
        rows.append((job_id, None, None) if result is None else (job_id, *packed.add(result)))
    if rows:
        yield rows, packed.blob()
