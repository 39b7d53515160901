"""The tables, as numbered migrations. Drawn and explained in `docs/postgres.md`.

Live jobs, leases, history and idempotency keys stand apart, so that reserve and settle touch small tables whatever has
been kept. ADR 0011 tells why they are as they are, with figures.
"""

from __future__ import annotations

import re
from datetime import timedelta
from functools import lru_cache

from taskharbor.driver import Migration, SchemaVersion
from taskharbor.drivers.postgres.migrations_later import LATER
from taskharbor.drivers.postgres.routine import Query, Routine, quoted

SCHEMA = "taskharbor"
"""The name that statements are written with; `renamed` puts another one there."""
SLOTS = 36
"""Partitions of the history that each hold what expires on one day."""
LONGEST_SLOTTED = timedelta(days=SLOTS - 4)
"""What is retained longer stands in a partition without a day, and goes row by row."""

_COMMON = """
    id uuid NOT NULL,
    run_at timestamptz NOT NULL,
    enqueued_at timestamptz NOT NULL,
    settled bigint,
    timeout bigint,
    retain bigint NOT NULL,
    stray integer NOT NULL DEFAULT 0,
    attempt integer NOT NULL DEFAULT 0,
    deliveries integer NOT NULL DEFAULT 0,
    crashes integer NOT NULL DEFAULT 0,
    priority smallint NOT NULL,
    guarded boolean NOT NULL DEFAULT false,
    queue text NOT NULL,
    task text NOT NULL,
    options text NOT NULL,
    key text,
    digest text,
    meta json,
    payload bytea NOT NULL,
    stray_reason text,
    errors json,
    operations json
"""

_STEP_COLUMNS = """ADD COLUMN flow uuid, ADD COLUMN waits integer, ADD COLUMN edges jsonb,
    ADD COLUMN absorbers json, ADD COLUMN holes json, ADD COLUMN delay bigint"""

MIGRATIONS = (
    Migration(
        1,
        "jobs, leases, history, keys, queues, workers",
        (
            # fillfactor: a reserve changes every row of a page, and finds room there for each one's next version, so
            # that no index is touched (HOT). At 70, half the updates spilled to other pages and cost twice as much.
            f"""CREATE TABLE taskharbor.job ({_COMMON.rstrip()},
    due timestamptz NOT NULL,
    token bigint,
    lost smallint NOT NULL DEFAULT 0,
    lane smallint NOT NULL,
    awaited boolean NOT NULL DEFAULT false,
    cancel text,
    PRIMARY KEY (id)
) WITH (fillfactor = 45, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000,
    autovacuum_analyze_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 1)""",
            # What a reserve changes may stand in no index, and in no WHERE of one, or its update is not HOT any more.
            "CREATE INDEX job_ready ON taskharbor.job (queue, stray, priority, lane, due, id)",
            # An expression of which the planner always expects few; of `IS NOT NULL` it expects all where it knows no
            # statistics, and would read the whole table at each heartbeat.
            "CREATE INDEX job_cancel ON taskharbor.job (((cancel IS NOT NULL)::integer)) WHERE cancel IS NOT NULL",
            "CREATE INDEX job_stray ON taskharbor.job (stray) WHERE stray <> 0",
            """CREATE TABLE taskharbor.lease (
    token bigint PRIMARY KEY,
    worker text NOT NULL,
    expires_at timestamptz NOT NULL,
    duration bigint NOT NULL,
    jobs uuid[] NOT NULL,
    started uuid[] NOT NULL DEFAULT '{}',
    remaining integer NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000)""",
            # Compressing ids, which are random, costs time and gains nothing.
            "ALTER TABLE taskharbor.lease ALTER jobs SET STORAGE EXTERNAL",
            # Which day's expiries a partition of the history holds at present.
            "CREATE TABLE taskharbor.slot (slot smallint PRIMARY KEY, day date UNIQUE NOT NULL)",
            f"""INSERT INTO taskharbor.slot (slot, day)
    SELECT n, (current_timestamp AT TIME ZONE 'UTC')::date - 1 + n FROM generate_series(1, {SLOTS}) n""",
            f"""CREATE TABLE taskharbor.history (slot smallint NOT NULL,{_COMMON.rstrip()},
    finished_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    state text NOT NULL,
    reason text,
    result_codec text,
    result bytea,
    PRIMARY KEY (id, slot)
) PARTITION BY LIST (slot)""",
            "CREATE INDEX history_stray ON taskharbor.history (stray) WHERE stray <> 0",
            "CREATE TABLE taskharbor.history_dead PARTITION OF taskharbor.history FOR VALUES IN (-1)",
            "CREATE TABLE taskharbor.history_long PARTITION OF taskharbor.history FOR VALUES IN (0)",
            "CREATE INDEX history_long_expires ON taskharbor.history_long (expires_at)",
            *(
                f"CREATE TABLE taskharbor.history_{slot:02} PARTITION OF taskharbor.history FOR VALUES IN ({slot})"
                for slot in range(1, SLOTS + 1)
            ),
            """CREATE TABLE taskharbor.key (
    task text NOT NULL,
    name text NOT NULL,
    job_id uuid NOT NULL,
    digest text NOT NULL,
    ttl bigint NOT NULL,
    expires_at timestamptz,
    PRIMARY KEY (task, name)
) WITH (fillfactor = 80)""",
            "CREATE INDEX key_expires ON taskharbor.key (expires_at) WHERE expires_at IS NOT NULL",
            # Which workers may take a job that some could not: those that know the task and are of none of the builds.
            """CREATE TABLE taskharbor.stray (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task text NOT NULL,
    refused_by text NOT NULL,
    UNIQUE (task, refused_by)
)""",
            """CREATE TABLE taskharbor.pause (
    queue text PRIMARY KEY,
    paused_at timestamptz NOT NULL,
    paused_by text NOT NULL,
    reason text NOT NULL
)""",
            """CREATE TABLE taskharbor.worker (
    worker text PRIMARY KEY,
    queues json NOT NULL,
    tasks json NOT NULL,
    build text NOT NULL,
    ttl bigint NOT NULL,
    host text NOT NULL,
    pid integer NOT NULL,
    started_at timestamptz,
    seen_at timestamptz NOT NULL
) WITH (fillfactor = 50)""",
        ),
    ),
    # Columns are added in no time, and lock all others out until the commit. So the indexes, which take as long as it
    # takes to read the tables, are made by the next one.
    Migration(
        2,
        "flows: steps, their inputs",
        (
            # `waits` tells a step from a plain job, which has NULL in all of them.
            f"ALTER TABLE taskharbor.job {_STEP_COLUMNS}",
            f"ALTER TABLE taskharbor.history {_STEP_COLUMNS}",
            # Written once, read once, and deleted with what came in for the same step, which mostly stands beside it.
            """CREATE TABLE taskharbor.input (
    job_id uuid NOT NULL,
    slot smallint NOT NULL,
    idx integer NOT NULL,
    codec text NOT NULL,
    value bytea,
    failed boolean NOT NULL DEFAULT false,
    PRIMARY KEY (job_id, slot, idx)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_insert_scale_factor = 0.5, autovacuum_vacuum_cost_delay = 1)""",
            # Compressing what is read once, and soon, costs more than it gains.
            "ALTER TABLE taskharbor.input ALTER value SET STORAGE EXTERNAL",
            """CREATE TABLE taskharbor.flow (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    meta json,
    state text NOT NULL,
    reason text,
    retain bigint NOT NULL,
    absorbing boolean NOT NULL,
    on_failure bytea,
    enqueued_at timestamptz NOT NULL,
    finished_at timestamptz,
    expires_at timestamptz
) WITH (fillfactor = 80)""",
            "CREATE INDEX flow_expires ON taskharbor.flow (expires_at) WHERE expires_at IS NOT NULL",
        ),
    ),
    Migration(
        3,
        "steps are found by their flow",
        (
            "CREATE INDEX job_flow ON taskharbor.job (flow, id) WHERE flow IS NOT NULL",
            "CREATE INDEX history_flow ON taskharbor.history (flow, id) WHERE flow IS NOT NULL",
        ),
    ),
    Migration(
        4,
        "reports of running jobs, the feed of events, counters",
        (
            # `look_at`: not before then can its job be gone. Rewritten often, and by no index but the one for that.
            """CREATE TABLE taskharbor.report (
    job_id uuid PRIMARY KEY,
    fence integer NOT NULL,
    done float8,
    total float8,
    note text,
    at timestamptz,
    look_at timestamptz NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000)""",
            "CREATE INDEX report_look ON taskharbor.report (look_at)",
            """CREATE TABLE taskharbor.line (
    job_id uuid NOT NULL,
    fence integer NOT NULL,
    number integer NOT NULL,
    attempt integer NOT NULL,
    at timestamptz NOT NULL,
    text text NOT NULL,
    PRIMARY KEY (job_id, fence, number)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000)""",
            "CREATE TABLE taskharbor.watcher (reader text PRIMARY KEY, until timestamptz NOT NULL)",
            "CREATE INDEX watcher_until ON taskharbor.watcher (until)",
            # One row: where the feed ends. Whoever appends has it locked until he has committed, so that events become
            # visible in the order of their numbers. And one that tells up to where it was pruned.
            """CREATE TABLE taskharbor.feed (
    store uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    last bigint NOT NULL DEFAULT 0,
    last_id uuid
) WITH (fillfactor = 10)""",
            "INSERT INTO taskharbor.feed DEFAULT VALUES",
            "CREATE TABLE taskharbor.feed_start (pruned bigint PRIMARY KEY)",
            "INSERT INTO taskharbor.feed_start VALUES (0)",
            """CREATE TABLE taskharbor.event (
    seq bigint PRIMARY KEY,
    id uuid NOT NULL,
    kept_at timestamptz NOT NULL,
    body bytea NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000)""",
            "CREATE UNIQUE INDEX event_id ON taskharbor.event (id)",
            """CREATE TABLE taskharbor.tally (
    minute timestamptz NOT NULL,
    queue text NOT NULL,
    task text NOT NULL,
    ending text NOT NULL,
    worker text NOT NULL,
    count bigint NOT NULL,
    ran bigint NOT NULL,
    PRIMARY KEY (minute, queue, task, ending, worker)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000)""",
        ),
    ),
    Migration(
        5,
        "schedules, who leads",
        (
            # Names are sorted as every store sorts them. `due` says in one word what the scheduler asks of `next_at`,
            # of pauses and of ends: so it enters one index, and neither reads what is paused nor what is to be computed
            # twice. Firing changes it, and so every index; what is done by hand beside that is HOT.
            """CREATE TABLE taskharbor.schedule (
    name text COLLATE "C" PRIMARY KEY,
    application text COLLATE "C",
    schedule json NOT NULL,
    job json NOT NULL,
    payload bytea NOT NULL,
    description text NOT NULL,
    revision bigint NOT NULL,
    created_at timestamptz NOT NULL,
    after timestamptz NOT NULL,
    next_at timestamptz,
    ended boolean NOT NULL DEFAULT false,
    waiting_tick timestamptz,
    paused_at timestamptz,
    paused_by text NOT NULL DEFAULT '',
    reason text NOT NULL DEFAULT '',
    last_tick timestamptz,
    last_job uuid,
    fired bigint NOT NULL DEFAULT 0,
    missed bigint NOT NULL DEFAULT 0,
    overlapped bigint NOT NULL DEFAULT 0,
    kept_out bigint NOT NULL DEFAULT 0,
    due timestamptz NOT NULL GENERATED ALWAYS AS (CASE WHEN ended OR paused_at IS NOT NULL THEN timestamptz 'infinity'
        ELSE coalesce(next_at, timestamptz '-infinity') END) STORED
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000)""",
            "CREATE INDEX schedule_due ON taskharbor.schedule (due, name)",
            # As of `job_cancel`: an expression of which the planner always expects few.
            """CREATE INDEX schedule_waiting ON taskharbor.schedule (((waiting_tick IS NOT NULL)::integer))
    WHERE waiting_tick IS NOT NULL""",
            """CREATE INDEX schedule_application ON taskharbor.schedule (application, name)
    WHERE application IS NOT NULL""",
            # The one with the greatest number is what its application has declared last.
            """CREATE TABLE taskharbor.declaration (
    application text COLLATE "C" NOT NULL,
    digest text NOT NULL,
    generation bigint NOT NULL,
    number bigint NOT NULL,
    declared_at timestamptz NOT NULL,
    PRIMARY KEY (application, digest)
)""",
            "CREATE INDEX declaration_number ON taskharbor.declaration (application, number)",
            # The fence is part of a key, so that `FOR KEY SHARE` keeps another from leading, and not the leader from
            # going on.
            """CREATE TABLE taskharbor.leader (
    role text COLLATE "C" PRIMARY KEY,
    worker text NOT NULL,
    fence bigint NOT NULL,
    since timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    UNIQUE (role, fence)
) WITH (fillfactor = 10)""",
        ),
    ),
    *LATER,
)

WANTED = MIGRATIONS[-1].number


# Wherever a caller's connection, or a database whose `public` is everybody's, looks for names: what is asked of the
# server's own functions is not to be answered by another's of the same name and closer types. So the runners name them
# in full. (Of operators we use those that the server has for exactly these types. `unnest` of several arrays is syntax,
# as `coalesce` is.)
_FUNCTIONS = re.compile(
    r"(?<![\w.$\"])(array_agg|array_cat|ceil|clock_timestamp|count|current_setting|date_part|date_trunc|"
    r"gen_random_uuid|generate_series|"
    r"has_table_privilege|hashtextextended|json_agg|json_build_array|json_build_object|jsonb_array_elements|jsonb_set|"
    r"left|lower|max|min|pg_\w+|row_number|set_config|"
    r"statement_timestamp|string_agg|strpos|sum|to_char|to_jsonb|to_regclass|to_regnamespace)\("
)


@lru_cache(maxsize=1000)
def renamed(sql: str, schema: str) -> str:
    """Return a statement for another schema's name, with the server's functions named in full."""
    sql = _FUNCTIONS.sub(r"pg_catalog.\1(", sql)
    return sql if schema == SCHEMA else sql.replace(f"{SCHEMA}.", f"{quoted(schema)}.")


def version() -> Routine[SchemaVersion]:
    """Return where the tables stand."""
    ((there,),) = yield Query("SELECT to_regclass('taskharbor.migration') IS NOT NULL")
    if not there:
        return SchemaVersion(0, WANTED)
    ((present,),) = yield Query("SELECT coalesce(max(number), 0) FROM taskharbor.migration")
    return SchemaVersion(int(present), WANTED)
