"""What a reserve takes before it walks in order: the *elders*, jobs that have been due for too long (rule 21).

They stand at the beginnings of the lanes, and these are entered where the walk enters them, at the marks: so what is
read is what is taken, and a little more. First it is read which have been due for longest, over all lanes; then they
are locked one after the other, until there are enough. None is locked that is not taken, but those after a guarded one
that ends it. What is taken of a lane are the first of those that are free, as by the walk, and marks move likewise.
"""

from __future__ import annotations

from taskharbor.clock import duration_micros
from taskharbor.driver import AgedTake
from taskharbor.drivers.postgres.routine import Cell
from taskharbor.drivers.postgres.rows import SOLO, interval_of

_MORE = 4
"""So many times as many are looked at as are to be taken: others may have locked some of them."""
# $11 how many jobs of all, $12 how many guarded, $17 and $18 quotas of queues, $22 for how long they have been due, $23
# how many. `lane` and `clock` are the scan's. A quota counts those that others have locked, too.
_ELDERS = f"""old AS MATERIALIZED (SELECT l.queue, l.stray, l.priority, l.lane, j.due, j.id FROM lane l
    CROSS JOIN LATERAL (SELECT j.due, j.id FROM taskharbor.job j WHERE {{lane}}
        AND j.due < (SELECT now FROM clock) - {interval_of("$22::text::bigint")}
        ORDER BY j.due, j.id LIMIT {_MORE} * $23::text::integer) j
    WHERE l.priority > 0 AND l.lane <> {SOLO}),
eldest AS MATERIALIZED (SELECT o.* FROM (
        SELECT *, row_number() OVER (PARTITION BY queue ORDER BY due, id) AS nth FROM old) o
    LEFT JOIN unnest($17::text::text[], $18::text::integer[]) q(queue, room) ON q.queue = o.queue
    WHERE o.nth <= coalesce(q.room, o.nth) ORDER BY o.due, o.id),
locked AS MATERIALIZED (SELECT e.queue, e.lane, e.due, e.id, j.spot, j.guarded FROM (
        SELECT * FROM eldest ORDER BY due, id) e
    CROSS JOIN LATERAL (SELECT j.ctid AS spot, j.guarded FROM taskharbor.job j WHERE j.id = e.id AND j.due = e.due
        AND j.queue = e.queue AND j.stray = e.stray AND j.priority = e.priority AND j.lane = e.lane
        AND j.token IS NULL LIMIT 1 FOR UPDATE SKIP LOCKED) j
    LIMIT least($23::text::integer, $11::text::integer)),
elder AS MATERIALIZED (SELECT * FROM (SELECT *, row_number() OVER w AS n,
            count(*) FILTER (WHERE guarded) OVER w AS guards
        FROM locked WINDOW w AS (ORDER BY due, id)) e WHERE guards <= $12::text::integer),
elders AS MATERIALIZED (SELECT count(*) AS jobs, count(*) FILTER (WHERE guarded) AS guards FROM elder)"""
IS_NO_ELDER = "AND NOT (j.id = ANY (ARRAY(SELECT id FROM elder)))"
"""Of a job `j` that the walk comes to."""
ELDERS = "(SELECT jobs FROM elders)"
"""How many there are: as many fewer the walk looks at."""
ELDERS_OF_QUEUE = " - (SELECT count(*) FROM elder x WHERE x.queue = f.queue)"
"""What is left of a quota."""


def with_elders(candidates: str, lane: str) -> str:
    """Return the candidates of a scan, after its elders.

    Args:
        candidates: those of the walk, which has passed over the elders, as `younger`.
        lane: which jobs `j` are of a lane `l`, and after where it is entered.
    """
    return f"""{_ELDERS.replace("{lane}", lane)},
{candidates}
candidate AS MATERIALIZED (SELECT n, 0 AS solos, guards, spot, lane FROM elder UNION ALL
    SELECT y.n + e.jobs, y.solos, y.guards + e.guards, y.spot, y.lane FROM younger y, elders e),"""


def aged_cells(aged: AgedTake) -> list[Cell]:
    """Return the parameters `$22` and `$23`."""
    return [str(duration_micros(aged.after)), str(aged.limit)]
