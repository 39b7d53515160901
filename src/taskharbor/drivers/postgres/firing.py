"""schedule_fire: the jobs of many ticks, and the steps past them, in one transaction of three statements.

Schedules are locked first, in order of name; then come jobs and keys, as in any enqueue. The fence is held, not only
read: nobody leads anew until this is committed, and so nothing is written by a leader of old.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from time import monotonic as _monotonic
from typing import NamedTuple

from msgspec.structs import replace

from taskharbor.driver import UPKEEP, Enqueued, EnqueueStatus, Fired, Firing, JobEnqueue, ScheduleFire
from taskharbor.driver.timetable import made
from taskharbor.drivers.postgres.enqueue import job_enqueue
from taskharbor.drivers.postgres.routine import Query, Routine, nullable_array, plain_array, text_array
from taskharbor.drivers.postgres.step import Step

FIRINGS = 500
"""In one transaction, at most."""
_JOBS = 5000
"""Of one transaction's firings, unless it is one firing's."""
# A leader that is stopped within this holds the fence: not for longer than it takes another to notice that he leads no
# more.
_LOCK = f"""WITH brief AS MATERIALIZED (SELECT set_config('idle_in_transaction_session_timeout', '5s', true)),
leads AS MATERIALIZED (SELECT l.fence FROM taskharbor.leader l
    WHERE $2::text::bigint IS NOT NULL AND l.role = '{UPKEEP}' FOR KEY SHARE)
SELECT s.name, s.revision, s.last_job::text FROM taskharbor.schedule s WHERE s.name = ANY ($1::text::text[])
    AND EXISTS (SELECT FROM brief)
    AND ($2::text::bigint IS NULL OR coalesce((SELECT fence FROM leads), 0) <= $2::text::bigint)
    ORDER BY s.name FOR UPDATE OF s"""
_MOVE = """WITH said AS MATERIALIZED (SELECT * FROM unnest($1::text::text[], $2::text::timestamptz[], $3::text::uuid[],
    $4::text::integer[], $5::text::bigint[], $6::text::bigint[], $7::text::timestamptz[], $8::text::timestamptz[],
    $9::text::boolean[], $10::text::timestamptz[], $11::text::integer[])
    f(name, last_tick, last_job, fired, missed, overlapped, after, next_at, ended, waiting_tick, kept_out))
UPDATE taskharbor.schedule s SET revision = s.revision + 1, last_tick = coalesce(f.last_tick, s.last_tick),
    last_job = coalesce(f.last_job, s.last_job), fired = s.fired + f.fired, missed = s.missed + f.missed,
    overlapped = s.overlapped + f.overlapped, kept_out = s.kept_out + f.kept_out, after = coalesce(f.after, s.after),
    next_at = CASE WHEN f.after IS NULL THEN s.next_at ELSE f.next_at END,
    ended = CASE WHEN f.after IS NULL THEN s.ended ELSE f.ended END,
    waiting_tick = CASE WHEN f.after IS NULL THEN s.waiting_tick ELSE f.waiting_tick END
    FROM said f WHERE s.name = f.name"""

LEFT = Fired(moved=False)
_BRIEFLY = "SELECT set_config('lock_timeout', '50ms', true)"
_VAIN = 5
"""Keys that are waited for in vain in one request; then others have their turn."""
_FIRST_SECONDS = 0.2
_LONGEST_SECONDS = 5.0


class _Move(NamedTuple):
    """A firing whose jobs are stored."""

    firing: Firing
    answers: Sequence[Enqueued]


class Part(NamedTuple):
    """Firings that are written together."""

    places: Sequence[int]
    """Where in the whole request they stand."""
    request: ScheduleFire
    keyed: bool
    """Some key may be held by somebody's open transaction, and is waited for then, in vain perhaps: a leader hardly
    waits, and others as long as for any lock."""

    @property
    def verb(self) -> Callable[[Step, ScheduleFire], Routine[Sequence[Fired]]]:
        """What is asked."""
        return schedule_fire_briefly if self.keyed and self.request.fence is not None else schedule_fire


def parts(request: ScheduleFire) -> Iterator[Part]:
    """Yield a request in parts, each a transaction of its own.

    Firings with idempotency keys come last, each alone: no other schedule is to be late for a key that is waited for.
    """
    keyed: list[int] = []
    places: list[int] = []
    jobs = 0
    for place, firing in enumerate(request.firings):
        if any(job.key is not None for job in firing.jobs):
            keyed.append(place)
            continue
        if places and (len(places) >= FIRINGS or jobs + len(firing.jobs) > _JOBS):
            yield _part(request, places)
            places, jobs = [], 0
        places.append(place)
        jobs += len(firing.jobs)
    if places:
        yield _part(request, places)
    for place in keyed:
        yield _part(request, [place], keyed=True)


def _part(request: ScheduleFire, places: Sequence[int], *, keyed: bool = False) -> Part:
    return Part(places, replace(request, firings=[request.firings[place] for place in places]), keyed)


class Pauses:
    """Schedules whose keys were held: each is left alone for a while, a longer one each time.

    They are due all that time. They are not to take the time of others, though, however many they are.
    """

    def __init__(self, monotonic: Callable[[], float] = _monotonic) -> None:
        """Prepare it; `monotonic` is the clock, in seconds."""
        self._monotonic = monotonic
        self._until: dict[str, tuple[float, float]] = {}
        self._vain = 0

    def begin(self) -> None:
        """Begin a request."""
        self._vain = 0
        over = self._monotonic() - 2 * _LONGEST_SECONDS
        self._until = {name: pause for name, pause in self._until.items() if pause[0] > over}

    def keeps(self, part: Part) -> bool:
        """Return whether a part is not asked now."""
        if not part.keyed or part.request.fence is None:
            return False
        until, _ = self._until.get(part.request.firings[0].name, (0.0, 0.0))
        return self._vain >= _VAIN or self._monotonic() < until

    def held(self, part: Part) -> None:
        """Note that its key was held."""
        self._vain += 1
        name = part.request.firings[0].name
        _, before = self._until.get(name, (0.0, 0.0))
        seconds = min(before * 2, _LONGEST_SECONDS) or _FIRST_SECONDS
        self._until[name] = (self._monotonic() + seconds, seconds)

    def fired(self, part: Part) -> None:
        """Note that it was asked."""
        if part.keyed:
            self._until.pop(part.request.firings[0].name, None)


def schedule_fire_briefly(step: Step, request: ScheduleFire) -> Routine[Sequence[Fired]]:
    """Do the same, but hardly wait for any lock: it is an error if that is not enough."""
    yield Query(_BRIEFLY)
    return (yield from schedule_fire(step, request))


def schedule_fire(step: Step, request: ScheduleFire) -> Routine[Sequence[Fired]]:
    """Store the jobs of ticks, move schedules on, and return one answer each, in order."""
    names = text_array(sorted({firing.name for firing in request.firings}))
    fence = None if request.fence is None else str(request.fence)
    rows = yield Query(_LOCK, (names, fence))
    there = {name: revision for name, revision, _ in rows}
    answers = [LEFT] * len(request.firings)
    moving: dict[int, Firing] = {}
    for place, firing in enumerate(request.firings):
        if there.get(firing.name) == firing.revision:
            moving[place] = firing
            del there[firing.name]  # moved once, should it be named twice
    moves = yield from _store(step, list(moving.values()))
    if moves:
        yield _moved(moves)
    for place, move in zip(moving, moves, strict=True):
        answers[place] = Fired(moved=True, jobs=move.answers)
    if step.repeated:
        last = {name: (revision, last_job) for name, revision, last_job in rows}
        for place, firing in enumerate(request.firings):
            if place not in moving and _done_before(firing, last):
                jobs = [Enqueued(EnqueueStatus.CREATED, job.id) for job in firing.jobs]
                answers[place] = Fired(moved=True, jobs=jobs)
    return answers


def _store(step: Step, firings: Sequence[Firing]) -> Routine[list[_Move]]:
    """Store the jobs of firings; return each with its answers."""
    jobs = [job for firing in firings for job in firing.jobs]
    answers: Sequence[Enqueued] = []
    if jobs:
        answers = yield from job_enqueue(step, JobEnqueue(jobs=jobs))
    moves: list[_Move] = []
    begin = 0
    for firing in firings:
        end = begin + len(firing.jobs)
        moves.append(_Move(firing, answers[begin:end]))
        begin = end
    return moves


def _moved(moves: Sequence[_Move]) -> Query:
    firings = [move.firing for move in moves]
    came = [made(move.firing, move.answers) for move in moves]
    return Query(
        _MOVE,
        (
            text_array([firing.name for firing in firings]),
            nullable_array([_text(each.last_tick) for each in came]),
            nullable_array([each.last_job for each in came]),
            plain_array([each.fired for each in came]),
            plain_array([firing.missed for firing in firings]),
            plain_array([firing.overlapped for firing in firings]),
            nullable_array([_text(firing.after) for firing in firings]),
            nullable_array([_text(firing.next_at) for firing in firings]),
            plain_array([firing.ended for firing in firings]),
            nullable_array([_text(firing.waiting_tick) for firing in firings]),
            plain_array([each.kept_out for each in came]),
        ),
    )


def _done_before(firing: Firing, there: Mapping[str, tuple[int, str | None]]) -> bool:
    """Return whether the first asking has done it, whose answer was lost: the next revision has its last job. (Of a
    firing without jobs, or with keys, it cannot be told.)
    """
    jobs = firing.jobs
    if not jobs or any(job.key is not None for job in jobs):
        return False
    return there.get(firing.name) == (firing.revision + 1, jobs[-1].id)


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
