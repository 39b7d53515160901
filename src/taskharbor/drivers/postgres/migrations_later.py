"""The migrations from the sixth on: lines, limits, holds, the audit trail, rules of retention."""

from __future__ import annotations

from taskharbor.driver import Migration

LATER = (
    # As ever, columns first, which lock all others out until the commit, and the index by itself.
    Migration(
        6,
        "lines of jobs, limits, holds, the audit trail, rules of retention",
        (
            # Both kinds of terms are JSON of `LimitTerms`; NULL where there are none.
            """CREATE TABLE taskharbor.limit (
    kind text NOT NULL,
    name text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    declared text,
    override text,
    set_at timestamptz,
    set_by text NOT NULL DEFAULT '',
    reason text NOT NULL DEFAULT '',
    PRIMARY KEY (kind, name, key)
)""",
            """CREATE TABLE taskharbor.hold (
    kind text NOT NULL,
    name text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    at timestamptz NOT NULL,
    held_by text NOT NULL,
    reason text NOT NULL,
    PRIMARY KEY (kind, name, key)
)""",
            # One row: which limits and holds are in force, as a number by which reserves see that they know them. Who
            # reserves from lines has it locked until he has committed, so that two never give the same room away.
            """CREATE TABLE taskharbor.rules (
    id smallint PRIMARY KEY DEFAULT 1,
    revision bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 10)""",
            "INSERT INTO taskharbor.rules DEFAULT VALUES",
            # After which line the next reserve goes on.
            """CREATE TABLE taskharbor.turn (
    queue text NOT NULL,
    priority smallint NOT NULL,
    task text COLLATE "C" NOT NULL,
    part text COLLATE "C" NOT NULL,
    stray integer NOT NULL,
    PRIMARY KEY (queue, priority)
) WITH (fillfactor = 10)""",
            # When the next job would come behind a gate with a rate if they came evenly, in microseconds since 1970.
            """CREATE TABLE taskharbor.arrival (
    kind text NOT NULL,
    name text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    at bigint NOT NULL,
    PRIMARY KEY (kind, name, key)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 5000)""",
            """CREATE TABLE taskharbor.audit (
    id uuid PRIMARY KEY,
    at timestamptz NOT NULL,
    action text NOT NULL,
    target text NOT NULL,
    by_whom text NOT NULL,
    reason text NOT NULL,
    details json,
    named bigint NOT NULL,
    changed bigint NOT NULL
)""",
            "CREATE INDEX audit_at ON taskharbor.audit (at)",
            """CREATE TABLE taskharbor.retention (
    task text COLLATE "C" NOT NULL,
    state text NOT NULL,
    keep_for bigint,
    keep_last bigint,
    set_at timestamptz NOT NULL,
    set_by text NOT NULL,
    reason text NOT NULL,
    PRIMARY KEY (task, state)
)""",
            "ALTER TABLE taskharbor.worker ADD COLUMN ordered text, ADD COLUMN ordered_by text",
            # Leases taken while no limit on running was in force are told apart from the others by a look at no job.
            "ALTER TABLE taskharbor.lease ADD COLUMN counted boolean NOT NULL DEFAULT false",
            # NULL: not in a line.
            'ALTER TABLE taskharbor.job ADD COLUMN part text COLLATE "C"',
            'ALTER TABLE taskharbor.history ADD COLUMN part text COLLATE "C"',
        ),
    ),
    Migration(
        7,
        "lines are walked in order",
        (
            # Nothing in it that a reserve changes; and plain jobs have no part in it. The queue's collation is another
            # than in `job_ready`, so that no planner can take the one index for the other.
            """CREATE INDEX job_line
    ON taskharbor.job (queue COLLATE "C", priority, task COLLATE "C", part, stray, lane, due, id) WHERE lane > 3""",
        ),
    ),
)
