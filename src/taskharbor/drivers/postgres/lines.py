"""Lines: jobs that take turns, or whose task has limits. Their statements; `serving` decides with what they tell.

They are read by an index of their own, whose order is that of turns, by loose scans: from each line's first job to that
of the next. Nothing is locked by that. Whoever reserves from lines has the rules' lock, and so is the only one who
leases any; what others do to such a job meanwhile, as to cancel or to replace it, is seen when it is taken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from taskharbor.clock import duration_micros, from_micros
from taskharbor.driver import JobReserve
from taskharbor.driver.limiting import Candidate, Line, Rules
from taskharbor.drivers.postgres.gates import RUNNING
from taskharbor.drivers.postgres.routine import Query, Routine, Row, plain_array, text_array
from taskharbor.drivers.postgres.rows import (
    LINES,
    NORMAL,
    SOLO,
    TAKEN_COLUMNS,
    TAKEN_NAMES,
    WAITING,
    interval_of,
    micros_of,
)
from taskharbor.drivers.postgres.rules import scope_cells
from taskharbor.drivers.postgres.step import Step
from taskharbor.limit import Scope, ScopeKind

Turn = tuple[str, str, int]
"""(task, partition, kind of stray): a line's place among those of its queue and priority."""

FIRST: Turn = ("", "", -1)
"""Before every line."""
LAST_PART = "\U0010ffff" * 201
"""After every partition, in the order of bytes."""
_LAST_KIND = 2**31 - 1
_IN_LINE = f"j.lane > {WAITING}"
_QUEUE_OF = 'j.queue COLLATE "C"'
"""The collation is that of the index, and of no other one, which the planner might take for it."""
_ORDER = f'{_QUEUE_OF}, j.priority, j.task COLLATE "C", j.part'
ANY_IN_LINES = f"""SELECT FROM taskharbor.job j WHERE {_QUEUE_OF} = q.queue AND {_IN_LINE}{{and}}
        ORDER BY {_ORDER} LIMIT 1"""
"""Whether there are such jobs in a queue `q`, be they leased."""

# From here on every statement sees what those have written who had the lock before. A worker that is stopped while it
# has it is not waited for long.
_LOCK = f"""WITH brief AS MATERIALIZED (SELECT set_config('idle_in_transaction_session_timeout', '5s', true))
SELECT r.revision, {micros_of("statement_timestamp()")} FROM taskharbor.rules r
    WHERE EXISTS (SELECT FROM brief) FOR UPDATE OF r"""
# $1 the present, $2 the token, $3 the queues.
_CONTEXT = f"""WITH clock AS MATERIALIZED (SELECT coalesce($1::text::timestamptz, clock_timestamp()) AS now),
asked AS MATERIALIZED (SELECT u.queue FROM pg_catalog.unnest($3::text::text[]) u(queue)
    WHERE u.queue NOT IN (SELECT queue FROM taskharbor.pause))
SELECT json_build_array((SELECT {micros_of("now")} FROM clock),
    (SELECT {micros_of("expires_at")} FROM taskharbor.lease WHERE token = $2::text::bigint),
    (SELECT coalesce(json_agg(queue), '[]') FROM asked),
    (SELECT coalesce(string_agg(id::text, ',' ORDER BY id), '') FROM taskharbor.stray),
    (SELECT coalesce(json_agg(json_build_array(q.queue, p.priority, t.task, t.part, t.stray)), '[]')
        FROM asked q CROSS JOIN generate_series(0, 9) p(priority)
        CROSS JOIN LATERAL ({ANY_IN_LINES.replace("{and}", " AND j.priority = p.priority")}) j
        LEFT JOIN LATERAL (SELECT * FROM taskharbor.turn n
            WHERE n.queue = q.queue AND n.priority = p.priority LIMIT 1) t ON true),
    (SELECT coalesce(json_agg(DISTINCT p.priority), '[]')
        FROM asked q CROSS JOIN generate_series(0, 9) p(priority) CROSS JOIN generate_series({SOLO}, {NORMAL}) n(lane)
        CROSS JOIN LATERAL (SELECT FROM taskharbor.job j WHERE j.queue = q.queue AND j.stray = 0
            AND j.priority = p.priority AND j.lane = n.lane ORDER BY j.due, j.id LIMIT 1) j),
    (SELECT coalesce(json_agg(json_build_array(kind, name, at)), '[]') FROM taskharbor.arrival
        WHERE kind IN ('queue', 'task')),
    {{running}})::text"""
_RUNNING = (
    f"""(SELECT coalesce(json_agg(json_build_array(queue, task, part, running)), '[]') FROM ({RUNNING}) r)"""
)
_CONTEXTS = {
    counts: _CONTEXT.replace("{running}", _RUNNING if counts else "'[]'::json") for counts in (False, True)
}

# Of a line `l`, so many jobs of each lane, from that of its first free job on; those that are due later, too.
_OF_LINE = f"""SELECT j.id, j.lane, j.due, j.guarded FROM generate_series(l.lane, {{last}}) k(lane)
    CROSS JOIN LATERAL (SELECT j.id, j.lane, j.due, j.guarded FROM taskharbor.job j
        WHERE {_QUEUE_OF} = {{queue}} AND j.priority = {{priority}} AND j.task COLLATE "C" = l.task AND j.part = l.part
        AND j.stray = l.stray AND j.lane = k.lane AND {_IN_LINE} AND j.token IS NULL
        ORDER BY j.due, j.id LIMIT {{room}}) j"""
_ARRIVAL = """(SELECT a.at FROM taskharbor.arrival a
    WHERE a.kind = 'key' AND a.name = l.task AND a.key = l.part LIMIT 1)"""
_QUEUE, _PRIORITY = "$1::text::text", "$2::text::smallint"


def _next(after: str) -> str:
    return f"""(SELECT {{lap}} AS lap, j.task, j.part, j.stray, j.lane, j.id, j.due, j.guarded FROM taskharbor.job j
        WHERE {_QUEUE_OF} = {_QUEUE} AND j.priority = {_PRIORITY} AND {_IN_LINE} AND j.token IS NULL
        AND (j.task COLLATE "C", j.part, j.stray) > {after}
        ORDER BY j.task COLLATE "C", j.part, j.stray, j.lane LIMIT 1)"""


# $1 queue, $2 priority, $3 lap, $4 to $6 after which line it begins, $7 how many lines, $8 to $10 where the second lap
# ends, $11 the tasks whose lines are all passed over, $12 the kinds of strays that are read, $13 how many jobs of each
# line, or NULL; $14 what stands for the partitions of a task that is passed over. The first lap goes from there to the
# end, and the second one from the beginning. Where there are enough lines their first jobs will do, as a rule.
# (As a bound of the series the condition keeps the index from being read; as one of a join it would come after.)
_IF_ASKED = f"""CASE WHEN l.stray = ANY ($12::text::integer[]) AND ((SELECT room FROM size) > 1
        OR l.lane < {LINES + NORMAL}) THEN {LINES + NORMAL} ELSE 0 END"""
_WALK = f"""WITH RECURSIVE line(number, lap, task, part, stray, lane, id, due, guarded) AS (
    SELECT 0, $3::text::integer, $4::text COLLATE "C", $5::text COLLATE "C", $6::text::integer, 0::smallint,
        NULL::uuid, NULL::timestamptz, NULL::boolean
    UNION ALL
    SELECT l.number + 1, f.lap, f.task, CASE WHEN f.shut THEN $14::text ELSE f.part END COLLATE "C",
        CASE WHEN f.shut THEN {_LAST_KIND} ELSE f.stray END, f.lane, f.id, f.due,
        f.guarded
    FROM line l CROSS JOIN LATERAL (SELECT n.*, n.task = ANY ($11::text::text[]) AS shut FROM (
        {_next("(l.task, l.part, l.stray)").replace("{lap}", "l.lap")}
        UNION ALL (SELECT b.* FROM (SELECT WHERE l.lap = 0) w CROSS JOIN LATERAL
            {_next("('', '', -1)").replace("{lap}", "1")} b)
        LIMIT 1) n) f
    WHERE l.number < $7::text::integer
    AND (f.lap = 0 OR $8::text IS NULL
        OR (f.task COLLATE "C", f.part, f.stray) <= ($8::text, $9::text, $10::text::integer))),
size AS MATERIALIZED (SELECT coalesce($13::text::integer, CASE WHEN count(*) > $7::text::integer THEN 1
    ELSE 2 * $7::text::integer / greatest(count(*)::integer - 1, 1) END) AS room FROM line)
SELECT l.number, l.lap, l.task, l.part, l.stray, {{arrival}}, (SELECT room FROM size),
    coalesce(f.id, l.id)::text, coalesce(f.lane, l.lane), {micros_of("coalesce(f.due, l.due)")},
    coalesce(f.guarded, l.guarded)
FROM line l LEFT JOIN LATERAL (
    {_OF_LINE.format(queue=_QUEUE, priority=_PRIORITY, room="(SELECT room FROM size)", last=_IF_ASKED)}) f
    ON true WHERE l.number > 0"""
_WALKS = {rated: _WALK.replace("{arrival}", _ARRIVAL if rated else "NULL::bigint") for rated in (False, True)}
_EACH = {"queue": "l.queue", "priority": "l.priority", "room": "$6::text::integer", "last": LINES + NORMAL}
_MORE = f"""SELECT l.number, f.id::text, f.lane, {micros_of("f.due")}, f.guarded
    FROM unnest($1::text::text[], $2::text::smallint[], $3::text::text[], $4::text::text[], $5::text::integer[])
    WITH ORDINALITY w(queue, priority, task, part, stray, number)
    CROSS JOIN LATERAL (SELECT w.*, {LINES + SOLO} AS lane) l
    CROSS JOIN LATERAL ({_OF_LINE.format(**_EACH)}) f"""
# Jobs are taken as they were found: not what is of another line by now, or locked by who cancels it.
_TAKE = f"""WITH said AS MATERIALIZED (SELECT * FROM unnest($1::text::uuid[], $2::text::integer[]) s(id, line)),
words AS MATERIALIZED (SELECT $3::text::text[] AS queue, $4::text::text[] AS task, $5::text::text[] AS part),
found AS MATERIALIZED (SELECT f.spot FROM said s CROSS JOIN words w CROSS JOIN LATERAL (
    SELECT j.ctid AS spot FROM taskharbor.job j WHERE j.id = s.id AND j.token IS NULL AND j.lane <> {WAITING}
    AND (j.queue, j.task, j.part) IS NOT DISTINCT FROM (w.queue[s.line], w.task[s.line], w.part[s.line])
    LIMIT 1 FOR UPDATE SKIP LOCKED) f),
taken AS (UPDATE taskharbor.job j SET token = $6::text::bigint, settled = NULL, deliveries = j.deliveries + 1
    FROM found f WHERE j.ctid = f.spot RETURNING {TAKEN_COLUMNS}, j.id AS uid),
leased AS (INSERT INTO taskharbor.lease (token, worker, expires_at, duration, jobs, remaining, counted)
    SELECT $6::text::bigint, $7::text, $8::text::timestamptz + {interval_of("$9::text::bigint")}, $9::text::bigint,
        array_cat($10::text::uuid[], array_agg(uid)), count(*) + $11::text::integer, $12::text::boolean FROM taken
    HAVING count(*) + $11::text::integer > 0),
turned AS (INSERT INTO taskharbor.turn AS t (queue, priority, task, part, stray)
    SELECT * FROM unnest($13::text::text[], $14::text::smallint[], $15::text::text[], $16::text::text[],
        $17::text::integer[])
    ON CONFLICT (queue, priority) DO UPDATE SET task = excluded.task, part = excluded.part, stray = excluded.stray),
arrived AS (INSERT INTO taskharbor.arrival AS a (kind, name, key, at)
    SELECT * FROM unnest($18::text::text[], $19::text::text[], $20::text::text[], $21::text::bigint[])
    ON CONFLICT (kind, name, key) DO UPDATE SET at = excluded.at)
SELECT {TAKEN_NAMES} FROM taken"""


class Ring(msgspec.Struct, array_like=True, frozen=True):
    """The lines of one queue and priority, and which of them was served last."""

    queue: str
    priority: int
    task: str | None
    part: str | None
    stray: int | None

    @property
    def after(self) -> Turn | None:
        """Return the line that was served last."""
        return None if self.task is None else (self.task, self.part or "", self.stray or 0)


class Context(msgspec.Struct, array_like=True, frozen=True):
    """What a reserve from lines begins with."""

    now: int
    held_until: int | None
    """Until when the token is held already."""
    queues: tuple[str, ...]
    """Those that are not paused."""
    kinds: str
    """The kinds of strays there are."""
    rings: tuple[Ring, ...]
    plain: frozenset[int]
    """Priorities of which there may be jobs in plain lanes."""
    arrivals: tuple[tuple[str, str, int], ...]
    """Of gates of queues and tasks."""
    running: tuple[tuple[str, str, str, int], ...]


_context = msgspec.json.Decoder(Context)


class Found(NamedTuple):
    """A line, and its first free jobs."""

    number: int
    """Of those of one walk, from 1."""
    lap: int
    line: Line
    arrival: int | None
    jobs: list[Candidate]
    """Those that are due."""
    dues: list[int]
    """Since when."""
    more: bool
    """There may be more of them."""
    later: int | None
    """When the next one is due."""


class Place(NamedTuple):
    """How far a walk over the lines of one ring has come."""

    lap: int
    turn: Turn
    end: Turn | None


def begin(ring: Ring) -> Place:
    """Return where a walk begins: after the line that was served last."""
    return Place(1, FIRST, None) if ring.after is None else Place(0, ring.after, ring.after)


def lock_rules() -> Routine[tuple[int, int]]:
    """Become the only one who reserves from lines; return the rules' revision, and when this was asked."""
    ((revision, asked),) = yield Query(_LOCK)
    return int(revision), int(asked)


def read_context(step: Step, request: JobReserve, rules: Rules) -> Routine[Context]:
    """Return what there is to begin with."""
    queues = text_array([take.name for take in request.queues])
    ((words,),) = yield Query(_CONTEXTS[rules.counts], (step.now, str(request.token), queues))
    return _context.decode(words)


def is_rated(rules: Rules) -> bool:
    """Return whether single keys have rates."""
    kinds = {ScopeKind.KEYS, ScopeKind.KEY}
    return any(scope.kind in kinds and terms.rate is not None for scope, terms in rules.terms.items())


def walk_lines(
    ring: Ring,
    place: Place,
    count: int,
    *,
    now: int,
    shut: Iterable[str],
    kinds: Collection[int],
    rated: bool,
    room: int | None = None,
) -> Routine[tuple[list[Found], Place | None]]:
    """Return so many lines of a ring, and where the next walk goes on; None where it has come round.

    Of tasks that are shut it returns one for all of their lines, without jobs, with the partition `LAST_PART`.
    """
    rows = yield Query(
        _WALKS[rated],
        (
            ring.queue,
            str(ring.priority),
            str(place.lap),
            *_cells(place.turn),
            str(count),
            *(_cells(place.end) if place.end is not None else (None, None, None)),
            text_array(shut),
            plain_array(kinds),
            None if room is None else str(room),
            LAST_PART,
        ),
    )
    grouped: dict[int, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row[0], []).append(row)
    found: list[Found] = []
    for number in sorted(grouped):
        lines = grouped[number]
        _, lap, task, part, stray, arrival, most = lines[0][:7]
        read = _read([row[7:] for row in lines if stray in kinds], most, now)
        line = Line(ring.queue, ring.priority, task, part, stray)
        found.append(Found(number, lap, line, arrival, *read))
    if len(found) < count:
        return found, None
    return found, Place(found[-1].lap, found[-1].line.turn, place.end)


def more_of(lines: Sequence[Line], room: int, now: int) -> Routine[list[tuple[list[Candidate], bool]]]:
    """Return so many jobs of each of these lines, and whether there may be more."""
    rows = yield Query(
        _MORE,
        (
            text_array([line.queue for line in lines]),
            plain_array([line.priority for line in lines]),
            text_array([line.task for line in lines]),
            text_array([line.partition for line in lines]),
            plain_array([line.stray for line in lines]),
            str(room),
        ),
    )
    grouped = [list[Row]() for _ in lines]
    for row in rows:
        number: int = row[0]
        grouped[number - 1].append(row[1:])
    return [(read.jobs, read.more) for read in (_read(found, room, now) for found in grouped)]


class _Read(NamedTuple):
    jobs: list[Candidate]
    dues: list[int]
    more: bool
    later: int | None


def _read(rows: list[Row], room: int, now: int) -> _Read:
    """Read the jobs of one line: id, lane, due, whether it is guarded; so many of each lane at most."""
    if len(rows) == 1 and room == 1:  # as a rule where there are many lines
        (row,) = rows
        return (
            _Read([_candidate(row)], [row[2]], True, None) if row[2] <= now else _Read([], [], False, row[2])
        )
    rows.sort(key=_place)
    due = [row for row in rows if row[2] <= now]
    later = min((row[2] for row in rows if row[2] > now), default=None)
    lanes = Counter([row[1] for row in due])
    more = any(count >= room for count in lanes.values())
    if more:  # what comes after those of a full lane is not known
        due = due[:room]
    return _Read([_candidate(row) for row in due], [row[2] for row in due], more, later)


def _place(row: Row) -> tuple[int, int, str]:
    return row[1], row[2], row[0]


def _candidate(row: Row) -> Candidate:
    return Candidate(row[0], row[3], row[1] == LINES + SOLO)


def _cells(turn: Turn) -> tuple[str, str, str]:
    return turn[0], turn[1], str(turn[2])


def take_jobs(
    request: JobReserve,
    now: int,
    jobs: Mapping[Line, Sequence[str]],
    plain: Sequence[str],
    *,
    counted: bool,
    turns: Mapping[tuple[str, int], Turn],
    arrivals: Mapping[Scope, int],
) -> Routine[list[Row]]:
    """Lease jobs of lines, together with those of plain lanes; return what was had of lines, as `TAKEN_COLUMNS`."""
    lines = list(jobs)
    return (
        yield Query(
            _TAKE,
            (
                plain_array([job_id for line in lines for job_id in jobs[line]]),
                plain_array([number for number, line in enumerate(lines, 1) for _ in jobs[line]]),
                text_array([line.queue for line in lines]),
                text_array([line.task for line in lines]),
                text_array([line.partition for line in lines]),
                str(request.token),
                request.worker,
                from_micros(now).isoformat(),
                str(duration_micros(request.lease)),
                plain_array(plain),
                str(len(plain)),
                "true" if counted else "false",
                text_array([queue for queue, _ in turns]),
                plain_array([priority for _, priority in turns]),
                text_array([task for task, _, _ in turns.values()]),
                text_array([part for _, part, _ in turns.values()]),
                plain_array([stray for _, _, stray in turns.values()]),
                *scope_cells(arrivals),
                plain_array(arrivals.values()),
            ),
        )
    )
