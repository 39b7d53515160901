"""The scan: one statement walks the plain lanes in order, takes what may be taken, and leases it.

It locks rows that nobody else holds, lane by lane, until it has enough; then it writes the token into them, which no
index has a part in. Where each lane is entered is told by `marks`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from operator import itemgetter
from typing import NamedTuple, TypeAlias

import msgspec
from psycopg.errors import SerializationFailure

from taskharbor.clock import duration_micros, from_micros
from taskharbor.driver import AgedTake, JobReserve
from taskharbor.drivers.postgres.aging import ELDERS, ELDERS_OF_QUEUE, IS_NO_ELDER, aged_cells, with_elders
from taskharbor.drivers.postgres.knowledge import Knowledge
from taskharbor.drivers.postgres.lines import ANY_IN_LINES
from taskharbor.drivers.postgres.marks import BEGINNING, Lane, Marks, Position, Seen
from taskharbor.drivers.postgres.routine import Query, Routine, Row, plain_array, text_array
from taskharbor.drivers.postgres.rows import (
    LINES,
    NORMAL,
    SOLO,
    TAKEN,
    TAKEN_COLUMNS,
    TAKEN_NAMES,
    interval_of,
    micros_of,
)
from taskharbor.drivers.postgres.step import Step
from taskharbor.limit import KEYLESS

_STRAY, _PLACE, _WORDS = range(19, 22)
"""Columns of a scan's rows, after those of `TAKEN_NAMES`."""
LANES = range(SOLO, NORMAL + 1)
"""Those of one priority that a scan walks."""
PRIORITIES = range(10)
_NO_ID = "00000000-0000-0000-0000-000000000000"
SCANS = 5
"""In one reserve, at most."""
LOCKED_MICROS = 250_000
"""When to look again where others hold what is due."""
_DEEP = 2000
_STALE = ";stale"
"""After what is known, where a scan may see the store as it was before it had its locks."""

Left: TypeAlias = tuple[tuple[int, int, str], ...]
"""Numbers of lanes, each with due and id of a job."""


class Told(msgspec.Struct, array_like=True, frozen=True):
    """What a scan tells beside the jobs it took."""

    seen: Seen
    held_until: int | None
    """Until when the token is held already, in microseconds since 1970."""
    paused: frozenset[str]
    known: str
    """What `Knowledge.words` would be at that instant."""
    held_back: bool
    left: Left | None
    """Where it came to the end of all lanes, or to a quota: the first free job left in each that has one."""
    workers: int | None
    lined: bool | None
    """Whether there are jobs in lines in these queues. Then nothing was taken, unless it was to be."""
    moved: int
    """How many jobs were met that belong into lines, and stand there now. Then nothing was taken, but at `LAST`."""


_told = msgspec.json.Decoder(Told)

# $1 the present; of each lane $2 queue, $3 stray, $4 priority, $5 lane, $6 its place in the order, $7 and $8 where it
# is entered, $9 how many jobs of it at most; $10 token, $11 how many jobs, $12 how many guarded, $13 worker, $14 lease,
# $15 how many to look at, $16 whether workers are to be counted, $17 and $18 quotas of queues, $19 the kinds
# of strays that are known, and the revision of the rules: with others the lanes are not all, and nothing is taken;
# $20 the tasks whose jobs belong into lines, $21 the `Mode`.
# Whoever sets a limit has the table of leases locked. A scan that waits for that sees it, and that the rules are
# others, only where its snapshot is taken afterwards, as in READ COMMITTED; in other transactions it takes nothing.
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
    return f"""found AS MATERIALIZED (SELECT m.* FROM generate_series(0, {len(PRIORITIES) * len(LANES) - 1}) g(line)
    CROSS JOIN LATERAL (SELECT l.line, l.queue, l.lane, j.* FROM way l CROSS JOIN LATERAL {free} j
        WHERE l.line = g.line ORDER BY j.due, j.id) m LIMIT $15::text::integer{elders and f" - {elders}"}),
{candidate} AS MATERIALIZED (SELECT {_COUNTED}, f.spot, f.lane FROM (
        SELECT *, row_number() OVER (PARTITION BY queue ORDER BY line, due, id) AS nth FROM found) f
    LEFT JOIN unnest($17::text::text[], $18::text::integer[]) q(queue, room) ON q.queue = f.queue
    WHERE f.nth <= coalesce(q.room{used}, f.nth) WINDOW w AS (ORDER BY f.line, f.due, f.id)),
walked AS (SELECT count(*){elders and f" + {elders}"} AS jobs FROM found),"""


_SCAN = f"""WITH clock AS MATERIALIZED (SELECT coalesce($1::text::timestamptz, statement_timestamp()) AS now),
kind AS MATERIALIZED (SELECT coalesce(string_agg(id::text, ',' ORDER BY id), '') AS ids FROM taskharbor.stray),
known AS MATERIALIZED (SELECT (SELECT ids FROM kind) || ';' || revision
    || CASE current_setting('transaction_isolation') WHEN 'read committed' THEN '' ELSE '{_STALE}' END AS words
    FROM taskharbor.rules),
lined AS MATERIALIZED (SELECT EXISTS (SELECT FROM (SELECT DISTINCT u.queue FROM pg_catalog.unnest($2::text::text[])
    u(queue)) q CROSS JOIN LATERAL ({ANY_IN_LINES.replace("{and}", "")}) j) AS there),
held AS MATERIALIZED (SELECT expires_at FROM taskharbor.lease WHERE token = $10::text::bigint),
lane AS MATERIALIZED (SELECT l.* FROM unnest($2::text::text[], $3::text::integer[], $4::text::smallint[],
    $5::text::smallint[], $6::text::integer[], $7::text::timestamptz[], $8::text::uuid[], $9::text::integer[])
    WITH ORDINALITY l(queue, stray, priority, lane, line, due, id, room, number)
    WHERE NOT EXISTS (SELECT FROM held) AND l.queue NOT IN (SELECT queue FROM taskharbor.pause)
    AND $19::text = (SELECT words FROM known)
    AND ($21::text IN ('lines', 'last', 'past') OR NOT (SELECT there FROM lined))),
{_WAY}
{{candidates}}
{{governed}}
taken AS (UPDATE taskharbor.job j SET token = $10::text::bigint, settled = NULL, deliveries = j.deliveries + 1
    FROM (SELECT n, spot FROM candidate WHERE guards + solos <= $12::text::integer{{ungoverned}}
        ORDER BY n LIMIT $11::text::integer) c
    WHERE j.ctid = c.spot RETURNING {TAKEN_COLUMNS}, j.stray, c.n, j.id AS uid),
leased AS (INSERT INTO taskharbor.lease (token, worker, expires_at, duration, jobs, remaining, counted)
    SELECT $10::text::bigint, $13::text, (SELECT now FROM clock) + {interval_of("$14::text::bigint")},
        $14::text::bigint, array_agg(uid), count(*), $21::text IN ('counted', 'past') FROM taken
    HAVING count(*) > 0 AND $21::text NOT IN ('lines', 'last')),
told AS MATERIALIZED (SELECT json_build_array(
    json_build_array({micros_of("(SELECT now FROM clock)")}, {micros_of("pg_postmaster_start_time()")},
        pg_current_xact_id()::text::bigint, pg_snapshot_xmax(pg_current_snapshot())::text::bigint,
        (SELECT coalesce(json_agg(x::text::bigint), '[]') FROM pg_snapshot_xip(pg_current_snapshot()) x)),
    (SELECT {micros_of("expires_at")} FROM held),
    (SELECT coalesce(json_agg(queue), '[]') FROM taskharbor.pause WHERE queue = ANY ($2::text::text[])),
    (SELECT words FROM known),
    stopped,
    CASE WHEN NOT stopped AND (SELECT jobs FROM walked) < $15::text::integer THEN (
        SELECT coalesce(json_agg(json_build_array(l.number, {micros_of("f.due")}, f.id)), '[]')
        FROM lane l CROSS JOIN LATERAL (SELECT j.due, j.id FROM taskharbor.job j
            WHERE {_LANE} AND j.id NOT IN (SELECT uid FROM taken) ORDER BY j.due, j.id LIMIT 1) f) END,
    CASE WHEN $16::text::boolean THEN (SELECT count(*) FROM taskharbor.worker) END,
    CASE WHEN $21::text NOT IN ('lines', 'last', 'past') THEN (SELECT there FROM lined) END, {{moved}})::text AS words
    FROM (SELECT count(*) < $11::text::integer AND EXISTS (SELECT FROM candidate
        WHERE guards + solos > $12::text::integer) AS stopped FROM taken) s)
SELECT {TAKEN_NAMES}, stray, n, CASE WHEN n IS NOT DISTINCT FROM (SELECT min(n) FROM taken) THEN words END
FROM told LEFT JOIN taken ON true"""
# Every parameter is used in all of them, if only to have a type.
_YOUNGER = _merged("younger", _FREE.replace("ORDER BY", f"{IS_NO_ELDER} ORDER BY"), ELDERS_OF_QUEUE, ELDERS)
# Where some tasks are governed, jobs of theirs that are met in plain lanes are put into the line they belong into.
_GOVERNED = f"""governed AS MATERIALIZED (SELECT c.n, c.spot FROM candidate c CROSS JOIN LATERAL (
    SELECT FROM taskharbor.job g WHERE g.ctid = c.spot AND g.task = ANY ($20::text::text[])) g),
moved AS (UPDATE taskharbor.job j SET part = '{KEYLESS}', lane = j.lane + {LINES} FROM governed g WHERE j.ctid = g.spot
    RETURNING j.id),
"""


# And nothing is taken, as they may go first; at last what is none of them is.
_UNGOVERNED = """ AND n NOT IN (SELECT n FROM governed)
        AND ($21::text = 'last' OR NOT EXISTS (SELECT FROM governed))"""


def _made(candidates: str, *, watchful: bool, alone: bool = False) -> str:
    made = _SCAN.replace("{candidates}", candidates)
    made = made.replace("{governed}", _GOVERNED if watchful else "")
    made = made.replace("{ungoverned}", _UNGOVERNED if watchful else "")
    made = made.replace("{moved}", "(SELECT count(*) FROM moved)" if watchful else "0")
    unused = [*(["$17", "$18"] if alone else []), *([] if watchful else ["$20"])]
    return made + "".join(
        [
            f" {word} {name}::text IS NOT NULL"
            for word, name in zip(("WHERE", "AND", "AND"), unused, strict=False)
        ]
    )


_ALONES = {watchful: _made(_ALONE, watchful=watchful, alone=True) for watchful in (False, True)}
_MERGED = {watchful: _made(_merged("candidate"), watchful=watchful) for watchful in (False, True)}
_AGED = {watchful: _made(with_elders(_YOUNGER, _LANE), watchful=watchful) for watchful in (False, True)}


def lanes_of(
    queues: Iterable[str], kinds: Sequence[int], priorities: Iterable[int], *, solo: bool
) -> list[Lane]:
    """Return the lanes of these priorities that a worker may look at, in order."""
    queues = list(queues)
    return [
        Lane(priority, lane, queue, kind)
        for priority in priorities
        for lane in LANES
        if lane != SOLO or solo
        for queue in queues
        for kind in kinds
    ]


class Mode(StrEnum):
    """What becomes of what a scan takes."""

    PLAIN = "plain"
    """It is leased; nothing is taken where jobs stand in lines."""
    COUNTED = "counted"
    """The same, and the lease is one of those by which limits count what runs."""
    PAST = "past"
    """It is leased so, whether or not jobs stand in lines: a moment ago those could give nothing."""
    LINES = "lines"
    """It is taken together with jobs of lines, whose statement makes the lease."""
    LAST = "last"
    """The same; jobs are taken even where others are met that belong into lines."""


class Walk(NamedTuple):
    """What one scan is to walk, and how much it may take."""

    lanes: Sequence[Lane]
    marks: Marks
    limit: int
    rooms: Mapping[str, int]
    """How many jobs of each queue."""
    guarded: int
    known: Knowledge
    mode: Mode
    aged: AgedTake | None = None
    elders_only: bool = False
    deep: bool = False
    """Look at many more jobs than are to be taken, since many of them belong into lines."""


def scan(step: Step, request: JobReserve, walk: Walk) -> Routine[tuple[Told, list[Row]]]:
    """Take jobs from plain lanes; return what was met, and the rows, of `TAKEN_COLUMNS`, in order."""
    lanes, marks, aged = walk.lanes, walk.marks, walk.aged
    rooms = {name: min(room, walk.limit) for name, room in walk.rooms.items()}
    alone = aged is None and len(rooms) == 1 and all(lane.stray == 0 for lane in lanes)
    limit = min(rooms.values()) if alone else walk.limit
    short = {} if alone else {name: room for name, room in rooms.items() if room < walk.limit}
    more = _DEEP if walk.deep else 0
    # Beyond the jobs it can take it looks at those that a quota may pass over.
    looked_at = max(limit, 1) + len(PRIORITIES) * len(LANES) * sum(short.values()) + more
    starts = [marks.start(lane) for lane in lanes]
    governed = walk.known.rules.governed
    statements = _ALONES if alone else _MERGED if aged is None else _AGED
    rows = yield Query(
        statements[bool(governed)],
        (
            step.now,
            text_array([lane.queue for lane in lanes]),
            plain_array([lane.stray for lane in lanes]),
            plain_array([lane.priority for lane in lanes]),
            plain_array([lane.lane for lane in lanes]),
            plain_array([lane.priority * len(LANES) + lane.lane for lane in lanes]),
            _instants(starts),
            plain_array([job_id or _NO_ID for _, job_id in starts]),
            plain_array(
                [
                    0 if walk.elders_only else 1 if lane.lane == SOLO else rooms[lane.queue] + more
                    for lane in lanes
                ]
            ),
            str(request.token),
            str(limit),
            str(walk.guarded),
            request.worker,
            str(duration_micros(request.lease)),
            str(looked_at),
            "true" if marks.whole else "false",
            text_array(short),
            plain_array(short.values()),
            walk.known.words,
            text_array(sorted(governed)) if governed else "{}",
            walk.mode.value,
            *(() if aged is None else aged_cells(aged)),
        ),
    )
    told = next(_told.decode(row[_WORDS]) for row in rows if row[_WORDS] is not None)
    if told.known.endswith(_STALE) and told.held_until is None:
        raise SerializationFailure("not READ COMMITTED")  # asked again, it is
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


def note(
    marks: Marks, seen: Seen, walked: Mapping[int, Lane], left: Left | None, rows: Sequence[Row], workers: int
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
    return marks.note(seen, lanes, taken, firsts, workers=workers)
