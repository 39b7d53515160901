"""job_reserve: one statement walks the lanes in order, takes what may be taken, and leases it.

It locks rows that nobody else holds, lane by lane, until it has enough; then it writes the token into them, which no
index has a part in. Where each lane is entered is told by `marks`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from operator import itemgetter
from typing import TypeAlias

import msgspec

from taskharbor.clock import duration_micros, from_micros
from taskharbor.driver import JobReserve, Reservation
from taskharbor.drivers.postgres.aging import ELDERS, ELDERS_OF_QUEUE, IS_NO_ELDER, aged_cells, with_elders
from taskharbor.drivers.postgres.delivering import delivered_steps
from taskharbor.drivers.postgres.marks import BEGINNING, Lane, Marks, Position, Seen
from taskharbor.drivers.postgres.routine import Query, Routine, Row, plain_array, text_array
from taskharbor.drivers.postgres.rows import (
    NORMAL,
    SOLO,
    TAKEN,
    TAKEN_COLUMNS,
    TAKEN_NAMES,
    as_duration,
    deliveries,
    interval_of,
    micros_of,
)
from taskharbor.drivers.postgres.step import Step
from taskharbor.drivers.postgres.stray import Stray, strays

_STRAY, _PLACE, _WORDS = range(19, 22)
"""Columns of a scan's rows, after those of `TAKEN_NAMES`."""
_LANES = range(SOLO, NORMAL + 1)
_PRIORITIES = range(10)
_NO_ID = "00000000-0000-0000-0000-000000000000"
_SCANS = 5
"""In one reserve, at most."""
_LOCKED_MICROS = 250_000
"""When to look again where others hold what is due."""


_Left: TypeAlias = tuple[tuple[int, int, str], ...]
"""Numbers of lanes, each with due and id of a job."""


class _Told(msgspec.Struct, array_like=True, frozen=True):
    """What a scan tells beside the jobs it took."""

    seen: Seen
    held_until: int | None
    """Until when the token is held already, in microseconds since 1970."""
    paused: frozenset[str]
    strays: str
    """The kinds of strays there are."""
    held_back: bool
    left: _Left | None
    """Where it came to the end of all lanes, or to a quota: the first free job left in each that has one."""
    workers: int | None


_told = msgspec.json.Decoder(_Told)

# $1 the present; of each lane $2 queue, $3 stray, $4 priority, $5 lane, $6 its place in the order, $7 and $8 where it
# is entered, $9 how many jobs of it at most; $10 token, $11 how many jobs, $12 how many guarded, $13 worker, $14 lease,
# $15 how many to look at, $16 whether workers are to be counted, $17 and $18 quotas of queues, $19 the kinds
# of strays that are known: with others the lanes are not all, and nothing is taken.
# Asked again under one token while the first asking is still being written (its connection was cut), the lease's INSERT
# waits for the first one's, fails, and the next asking finds what is held.
_LANE = """j.queue = l.queue AND j.stray = l.stray AND j.priority = l.priority AND j.lane = l.lane
            AND (j.due, j.id) > (l.due, l.id) AND j.token IS NULL"""
_FREE = f"""(SELECT j.ctid AS spot, j.due, j.id, j.guarded FROM taskharbor.job j
            WHERE {_LANE} AND j.due <= (SELECT now FROM clock)
            ORDER BY j.due, j.id LIMIT l.room FOR UPDATE SKIP LOCKED)"""
# A solo job is always guarded, and one is taken at most. So of their lanes only that is walked which has the first: a
# second one would take up room that is another's. The lanes come in order, and LIMIT asks for no more of them than it
# needs.
_WAY = f"""solo AS MATERIALIZED (SELECT l.number FROM lane l
    CROSS JOIN LATERAL (SELECT j.due, j.id FROM taskharbor.job j
        WHERE {_LANE} AND j.due <= (SELECT now FROM clock) ORDER BY j.due, j.id LIMIT 1) j
    WHERE l.lane = {SOLO} ORDER BY l.line, j.due, j.id LIMIT 1),
way AS MATERIALIZED (SELECT * FROM lane WHERE lane <> {SOLO} OR number = (SELECT number FROM solo)),"""
_COUNTED = f"""row_number() OVER w AS n, count(*) FILTER (WHERE lane = {SOLO}) OVER w AS solos,
        count(*) FILTER (WHERE guarded AND lane <> {SOLO}) OVER w AS guards"""
_ALONE = f"""candidate AS MATERIALIZED (SELECT {_COUNTED}, f.spot, f.lane FROM (
        SELECT l.lane, j.* FROM way l CROSS JOIN LATERAL {_FREE} j LIMIT $15::text::integer) f
    WINDOW w AS (ROWS UNBOUNDED PRECEDING)),
walked AS (SELECT count(*) AS jobs FROM candidate),"""


# Of several queues, jobs of one priority and lane are merged by due time; and some queues give only so many.
def _merged(candidate: str, free: str = _FREE, used: str = "", elders: str = "") -> str:
    return f"""found AS MATERIALIZED (SELECT m.* FROM generate_series(0, {len(_PRIORITIES) * len(_LANES) - 1}) g(line)
    CROSS JOIN LATERAL (SELECT l.line, l.queue, l.lane, j.* FROM way l CROSS JOIN LATERAL {free} j
        WHERE l.line = g.line ORDER BY j.due, j.id) m LIMIT $15::text::integer{elders and f" - {elders}"}),
{candidate} AS MATERIALIZED (SELECT {_COUNTED}, f.spot, f.lane FROM (
        SELECT *, row_number() OVER (PARTITION BY queue ORDER BY line, due, id) AS nth FROM found) f
    LEFT JOIN unnest($17::text::text[], $18::text::integer[]) q(queue, room) ON q.queue = f.queue
    WHERE f.nth <= coalesce(q.room{used}, f.nth) WINDOW w AS (ORDER BY f.line, f.due, f.id)),
walked AS (SELECT count(*){elders and f" + {elders}"} AS jobs FROM found),"""


_SCAN = f"""WITH clock AS MATERIALIZED (SELECT coalesce($1::text::timestamptz, statement_timestamp()) AS now),
kind AS MATERIALIZED (SELECT coalesce(string_agg(id::text, ',' ORDER BY id), '') AS ids FROM taskharbor.stray),
held AS MATERIALIZED (SELECT expires_at FROM taskharbor.lease WHERE token = $10::text::bigint),
lane AS MATERIALIZED (SELECT l.* FROM unnest($2::text::text[], $3::text::integer[], $4::text::smallint[],
    $5::text::smallint[], $6::text::integer[], $7::text::timestamptz[], $8::text::uuid[], $9::text::integer[])
    WITH ORDINALITY l(queue, stray, priority, lane, line, due, id, room, number)
    WHERE NOT EXISTS (SELECT FROM held) AND l.queue NOT IN (SELECT queue FROM taskharbor.pause)
    AND $19::text = (SELECT ids FROM kind)),
{_WAY}
{{candidates}}
taken AS (UPDATE taskharbor.job j SET token = $10::text::bigint, settled = NULL, deliveries = j.deliveries + 1
    FROM (SELECT n, spot FROM candidate WHERE guards + solos <= $12::text::integer
        ORDER BY n LIMIT $11::text::integer) c
    WHERE j.ctid = c.spot RETURNING {TAKEN_COLUMNS}, j.stray, c.n, j.id AS uid),
leased AS (INSERT INTO taskharbor.lease (token, worker, expires_at, duration, jobs, remaining)
    SELECT $10::text::bigint, $13::text, (SELECT now FROM clock) + {interval_of("$14::text::bigint")},
        $14::text::bigint, array_agg(uid), count(*) FROM taken HAVING count(*) > 0),
told AS MATERIALIZED (SELECT json_build_array(
    json_build_array({micros_of("(SELECT now FROM clock)")}, {micros_of("pg_postmaster_start_time()")},
        pg_current_xact_id()::text::bigint, pg_snapshot_xmax(pg_current_snapshot())::text::bigint,
        (SELECT coalesce(json_agg(x::text::bigint), '[]') FROM pg_snapshot_xip(pg_current_snapshot()) x)),
    (SELECT {micros_of("expires_at")} FROM held),
    (SELECT coalesce(json_agg(queue), '[]') FROM taskharbor.pause WHERE queue = ANY ($2::text::text[])),
    (SELECT ids FROM kind),
    stopped,
    CASE WHEN NOT stopped AND (SELECT jobs FROM walked) < $15::text::integer THEN (
        SELECT coalesce(json_agg(json_build_array(l.number, {micros_of("f.due")}, f.id)), '[]')
        FROM lane l CROSS JOIN LATERAL (SELECT j.due, j.id FROM taskharbor.job j
            WHERE {_LANE} AND j.id NOT IN (SELECT uid FROM taken) ORDER BY j.due, j.id LIMIT 1) f) END,
    CASE WHEN $16::text::boolean THEN (SELECT count(*) FROM taskharbor.worker) END)::text AS words
    FROM (SELECT count(*) < $11::text::integer AND EXISTS (SELECT FROM candidate
        WHERE guards + solos > $12::text::integer) AS stopped FROM taken) s)
SELECT {TAKEN_NAMES}, stray, n, CASE WHEN n IS NOT DISTINCT FROM (SELECT min(n) FROM taken) THEN words END
FROM told LEFT JOIN taken ON true"""
# Every parameter is used in both, if only to have a type.
_SCAN_ALONE = _SCAN.replace("{candidates}", _ALONE) + " WHERE $17::text IS NOT NULL AND $18::text IS NOT NULL"
_SCAN_MERGED = _SCAN.replace("{candidates}", _merged("candidate"))
_YOUNGER = _merged("younger", _FREE.replace("ORDER BY", f"{IS_NO_ELDER} ORDER BY"), ELDERS_OF_QUEUE, ELDERS)
_SCAN_AGED = _SCAN.replace("{candidates}", with_elders(_YOUNGER, _LANE))
_HELD = f"""SELECT {TAKEN_COLUMNS}
    FROM taskharbor.lease l CROSS JOIN pg_catalog.unnest(l.jobs) WITH ORDINALITY e(id, number)
    JOIN taskharbor.job j ON j.id = e.id AND j.token = l.token WHERE l.token = $1::text::bigint
    ORDER BY j.priority, j.lane, j.due, j.id"""


class Walker:
    """What one worker's reserves know from those before: its marks, and the kinds of strays there are."""

    def __init__(self) -> None:
        self.marks = Marks()
        self._strays: dict[int, Stray] = {}
        self._known_strays = ""

    def walk(self, step: Step, request: JobReserve) -> Routine[Reservation]:
        """Lease the next jobs that may run."""
        marks = self.marks if request.now is None else Marks()  # a test's present is not the server's
        scans = 0
        while True:
            lanes = self._lanes(request)
            marks.begin(lanes)
            told, rows = yield from _scan(step, request, lanes, marks, self._known_strays)
            if told.held_until is not None:  # the answer to the first asking was lost
                held = yield Query(_HELD, (str(request.token),))
                steps = yield from delivered_steps(held)
                return Reservation(
                    deliveries=deliveries(step.book, request.token, held, steps),
                    expires_at=from_micros(told.held_until),
                    next_due_in=as_duration(0),
                )
            if told.strays != self._known_strays:
                self._strays = yield from strays()
                self._known_strays = ",".join(map(str, sorted(self._strays)))
                continue
            walked = {number: lane for number, lane in enumerate(lanes, 1) if lane.queue not in told.paused}
            left = None if _is_full(request, rows) else told.left
            again = _note(marks, told, walked, left, rows)
            scans += 1
            if rows or not again or scans == _SCANS:
                steps = yield from delivered_steps(rows)
                return Reservation(
                    deliveries=deliveries(step.book, request.token, rows, steps),
                    expires_at=from_micros(told.seen.now + duration_micros(request.lease)),
                    held_back=told.held_back,
                    next_due_in=as_duration(0) if again else _next_due_in(told.seen.now, walked, left, rows),
                )

    def _lanes(self, request: JobReserve) -> list[Lane]:
        """Return the lanes that this worker may look at, in order."""
        kinds = [0, *(s.number for s in self._strays.values() if s.open_to(request.tasks, request.build))]
        return [
            Lane(priority, lane, take.name, kind)
            for priority in _PRIORITIES
            for lane in _LANES
            if lane != SOLO or request.solo
            for take in request.queues
            for kind in kinds
        ]


def _scan(
    step: Step, request: JobReserve, lanes: Sequence[Lane], marks: Marks, known_strays: str
) -> Routine[tuple[_Told, list[Row]]]:
    rooms = {take.name: min(take.limit, request.limit) for take in request.queues}
    aged = request.aged
    alone = aged is None and len(request.queues) == 1 and all(lane.stray == 0 for lane in lanes)
    limit = min(request.limit, rooms[request.queues[0].name]) if alone else request.limit
    short = {} if alone else {name: room for name, room in rooms.items() if room < request.limit}
    # Beyond the jobs it can take it looks at those that a quota may pass over.
    looked_at = limit + len(_PRIORITIES) * len(_LANES) * sum(short.values())
    starts = [marks.start(lane) for lane in lanes]
    duration = duration_micros(request.lease)
    rows = yield Query(
        _SCAN_ALONE if alone else _SCAN_MERGED if aged is None else _SCAN_AGED,
        (
            step.now,
            text_array([lane.queue for lane in lanes]),
            plain_array([lane.stray for lane in lanes]),
            plain_array([lane.priority for lane in lanes]),
            plain_array([lane.lane for lane in lanes]),
            plain_array([lane.priority * len(_LANES) + lane.lane for lane in lanes]),
            _instants(starts),
            plain_array([job_id or _NO_ID for _, job_id in starts]),
            plain_array([1 if lane.lane == SOLO else rooms[lane.queue] for lane in lanes]),
            str(request.token),
            str(limit),
            str(request.guarded_limit),
            request.worker,
            str(duration),
            str(looked_at),
            "true" if marks.whole else "false",
            text_array(short),
            plain_array(short.values()),
            known_strays,
            *(() if aged is None else aged_cells(aged)),
        ),
    )
    told = next(_told.decode(row[_WORDS]) for row in rows if row[_WORDS] is not None)
    found = [row for row in rows if row[TAKEN.id] is not None]
    found.sort(key=itemgetter(_PLACE))
    return told, found


def _instants(starts: Iterable[Position]) -> str:
    return (
        "{"
        + ",".join(
            [
                "-infinity" if start == BEGINNING else f'"{from_micros(start[0]).isoformat()}"'
                for start in starts
            ]
        )
        + "}"
    )


def _is_full(request: JobReserve, rows: Sequence[Row]) -> bool:
    """Return whether a limit was reached, or the quota of a queue: then a lane may hold more that is due."""
    if len(rows) >= request.limit:
        return True
    taken = Counter([row[TAKEN.queue] for row in rows])
    return any(taken[take.name] >= take.limit for take in request.queues)


def _note(
    marks: Marks, told: _Told, walked: Mapping[int, Lane], left: _Left | None, rows: Sequence[Row]
) -> bool:
    """Give the marks what the scan found, and return whether another scan may find more."""
    taken: dict[Lane, Position] = {}
    last = None
    for row in reversed(rows):  # jobs of one lane stand together, as a rule; the last one of each counts
        lane = (row[TAKEN.priority], row[TAKEN.lane], row[TAKEN.queue], row[_STRAY])
        if lane != last:
            last = lane
            due = row[TAKEN.due]
            taken.setdefault(Lane(*lane), (row[TAKEN.run_at] if due is None else due, row[TAKEN.id]))
    # Solo jobs are passed over on purpose, and their lanes always entered at the beginning.
    lanes = {lane for lane in walked.values() if lane.lane != SOLO}
    firsts = None if left is None else {walked[number]: (due, job_id) for number, due, job_id in left}
    return marks.note(told.seen, lanes, taken, firsts, workers=told.workers or 1)


def _next_due_in(
    now: int, walked: Mapping[int, Lane], left: _Left | None, rows: Sequence[Row]
) -> timedelta | None:
    if left is None:
        return as_duration(0)
    took_solo = any(row[TAKEN.lane] == SOLO for row in rows)
    # What is due and was not taken is held by others, who are about to take it, or to let it go.
    waits = [
        due - now if due > now else _LOCKED_MICROS
        for number, due, _ in left
        if not (took_solo and walked[number].lane == SOLO)
    ]
    return as_duration(min(waits)) if waits else None
