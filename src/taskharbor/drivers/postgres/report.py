"""job_report: what running jobs tell of themselves; and how that is told again, and goes with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta

from taskharbor.clock import duration_micros, from_micros
from taskharbor.driver import JobReport
from taskharbor.drivers.postgres.routine import (
    Query,
    Routine,
    nullable_array,
    plain_array,
    text_array,
)
from taskharbor.drivers.postgres.rows import interval_of, micros_of, real_ids
from taskharbor.drivers.postgres.step import Step
from taskharbor.report import LOG_LIMIT, LogLine, Progress

_SOON, _LATE = duration_micros(timedelta(hours=1)), duration_micros(timedelta(days=30))
_ROOM = 50
"""How many lines more are stored than are kept, at most, and one report's."""
# Of a job with this token, as the statement begins; nobody's lock is waited for, and none is left. Should the job have
# gone to another worker meanwhile, who has told more: his fence is greater.
_REPORT = f"""WITH clock AS MATERIALIZED (SELECT coalesce($1::text::timestamptz, clock_timestamp()) AS now),
said AS MATERIALIZED (SELECT s.*, j.id AS held, j.deliveries, j.retain
    FROM unnest($2::text::uuid[], $3::text::bigint[], $4::text::float8[], $5::text::float8[], $6::text::text[],
        $7::text::timestamptz[]) WITH ORDINALITY s(id, token, done, total, note, at, n)
    LEFT JOIN LATERAL (SELECT j.id, j.deliveries, j.retain FROM taskharbor.job j
        WHERE j.id = s.id AND j.token = s.token LIMIT 1) j ON true),
latest AS (SELECT DISTINCT ON (held) * FROM said WHERE held IS NOT NULL ORDER BY held, at IS NULL, n DESC),
stored AS (INSERT INTO taskharbor.report AS r (job_id, fence, done, total, note, at, look_at)
    SELECT l.held, l.deliveries, l.done, l.total, l.note, l.at,
        c.now + {interval_of(f"greatest(least(l.retain, {_LATE}), {_SOON})")} FROM latest l, clock c ORDER BY l.held
    ON CONFLICT (job_id) DO UPDATE SET fence = excluded.fence, done = excluded.done, total = excluded.total,
        note = excluded.note, at = excluded.at WHERE excluded.at IS NOT NULL AND r.fence <= excluded.fence),
jobs AS MATERIALIZED (SELECT array_agg(held ORDER BY n) AS ids FROM said),
lines AS MATERIALIZED (SELECT j.ids[l.n] AS job_id, l.fence, l.number, l.attempt, l.at, l.text
    FROM jobs j, unnest($8::text::integer[], $9::text::integer[], $10::text::integer[], $11::text::integer[],
        $12::text::timestamptz[], $13::text::text[]) l(n, fence, number, attempt, at, text)
    WHERE j.ids[l.n] IS NOT NULL),
written AS (INSERT INTO taskharbor.line (job_id, fence, number, attempt, at, text)
    SELECT job_id, fence, number, attempt, at, text FROM lines ORDER BY job_id, fence, number ON CONFLICT DO NOTHING),
edge AS MATERIALIZED (SELECT j.job_id, e.fence, e.number FROM pg_catalog.unnest($14::text::uuid[]) j(job_id)
    CROSS JOIN LATERAL (SELECT x.fence, x.number FROM taskharbor.line x WHERE x.job_id = j.job_id
        ORDER BY x.fence DESC, x.number DESC OFFSET {LOG_LIMIT - 1} LIMIT 1) e),
gone AS (DELETE FROM taskharbor.line l USING edge e
    WHERE l.job_id = ANY (ARRAY[e.job_id]) AND (l.fence, l.number) < (e.fence, e.number))
SELECT held IS NOT NULL FROM said ORDER BY n"""
# What `told` reads, of jobs `j` that are looked up by id.
TOLD = f"""r.done, r.total, r.note, {micros_of("r.at")}, (SELECT array_agg(l.fence::text || ' ' || l.number::text
        || ' ' || l.attempt::text || ' ' || ({micros_of("l.at")})::text || ' ' || l.text ORDER BY l.fence, l.number)
    FROM (SELECT * FROM taskharbor.line x WHERE x.job_id = r.job_id
        ORDER BY x.fence DESC, x.number DESC LIMIT {LOG_LIMIT}) l)"""
TOLD_COLUMNS = 5
OF_JOB = """LEFT JOIN LATERAL (SELECT * FROM taskharbor.report r WHERE r.job_id = j.id LIMIT 1) r ON true"""
DROP = """reports AS (DELETE FROM taskharbor.report WHERE job_id = ANY ({ids})),
lines AS (DELETE FROM taskharbor.line WHERE job_id = ANY ({ids}))"""
"""What was told of these jobs goes: parts of a statement."""

# A report says when to look for its job, of which there may be none left then; so not all are looked for each time.
_AT_ONCE = 1000
_PRUNE = f"""WITH clock AS MATERIALIZED (SELECT coalesce($1::text::timestamptz, clock_timestamp()) AS now),
due AS MATERIALIZED (SELECT r.job_id FROM taskharbor.report r WHERE r.look_at <= (SELECT now FROM clock)
    ORDER BY r.look_at LIMIT $2::text::bigint FOR UPDATE SKIP LOCKED),
seen AS MATERIALIZED (SELECT d.job_id, j.until FROM clock c CROSS JOIN due d LEFT JOIN LATERAL (
    SELECT c.now + interval '1 day' AS until FROM taskharbor.job WHERE id = d.job_id
    UNION ALL SELECT least(greatest(expires_at, c.now + interval '1 hour'), c.now + interval '1 day')
        FROM taskharbor.history WHERE id = d.job_id LIMIT 1) j ON true),
later AS (UPDATE taskharbor.report r SET look_at = s.until FROM seen s
    WHERE r.job_id = ANY (ARRAY[s.job_id]) AND s.until IS NOT NULL),
{DROP.format(ids="ARRAY(SELECT job_id FROM seen WHERE until IS NULL)")}
SELECT count(*) FROM due"""


def job_report(step: Step, request: JobReport) -> Routine[Sequence[bool]]:
    """Store what each tells, and return whether it was."""
    real = set(real_ids(report.job_id for report in request.reports))
    reports = [(n, report) for n, report in enumerate(request.reports) if report.job_id in real]
    if not reports:
        return [False] * len(request.reports)
    told = [report.progress for _, report in reports]
    lines = [(n, line) for n, (_, report) in enumerate(reports, 1) for line in _last(report.lines)]
    rows = yield Query(
        _REPORT,
        (
            step.now,
            plain_array([report.job_id for _, report in reports]),
            plain_array([report.token for _, report in reports]),
            nullable_array([None if one is None else one.done for one in told]),
            nullable_array([None if one is None else one.total for one in told]),
            text_array([None if one is None else one.note for one in told]),
            nullable_array([None if one is None else one.at.isoformat() for one in told]),
            plain_array([n for n, _ in lines]),
            plain_array([line.fence for _, line in lines]),
            plain_array([line.number for _, line in lines]),
            plain_array([line.attempt for _, line in lines]),
            plain_array([line.at.isoformat() for _, line in lines]),
            text_array([line.text for _, line in lines]),
            plain_array({reports[n - 1][1].job_id for n, line in lines if _makes_room(line)}),
        ),
    )
    answers = [False] * len(request.reports)
    for (n, _), (held,) in zip(reports, rows, strict=True):
        answers[n] = held
    return answers


def _last(lines: Sequence[LogLine]) -> Iterable[LogLine]:
    """Return what of one report can be among the last lines of its job."""
    if len(lines) <= LOG_LIMIT:
        return lines
    return sorted(lines, key=lambda line: (line.fence, line.number))[-LOG_LIMIT:]


def _makes_room(line: LogLine) -> bool:
    """Return whether to look for lines beyond the last ones: not each time, as that is to read all that are kept."""
    return line.number % _ROOM == 0 or (line.number == 1 and line.fence > 1)


def read_told(
    done: float | None, total: float | None, note: str | None, at: int | None, lines: Sequence[str] | None
) -> tuple[Progress | None, tuple[LogLine, ...]]:
    """Return progress and log of a job, from the columns `TOLD`."""
    progress = None
    if done is not None and at is not None:
        progress = Progress(done=done, total=total, note=note or "", at=from_micros(at))
    return progress, tuple(map(_line, lines or ()))


def _line(told: str) -> LogLine:
    fence, number, attempt, at, text = told.split(" ", 4)
    return LogLine(
        fence=int(fence), number=int(number), attempt=int(attempt), at=from_micros(int(at)), text=text
    )


def prune_reports(step: Step, limit: int) -> Routine[bool]:
    """Remove what was told of jobs that are no more, a number of them, and return whether there may be more."""
    limit = min(limit, _AT_ONCE)
    ((seen,),) = yield Query(_PRUNE, (step.now, str(limit)))
    return bool(seen >= limit)
