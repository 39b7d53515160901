"""The later migrations: limits, lines, holds, the audit trail, rules of retention. Drawn in `docs/sqlite.md`."""

from __future__ import annotations

from taskharbor.driver import Migration

LATER = (
    Migration(
        5,
        "limits, lines, holds, the audit trail, rules of retention",
        (
            # The partition of a job that stands in a line, or did; '' for one without a key.
            "ALTER TABLE taskharbor_job ADD COLUMN part TEXT",
            "ALTER TABLE taskharbor_history ADD COLUMN part TEXT",
            "ALTER TABLE taskharbor_dead ADD COLUMN part TEXT",
            # Of a store without lines it is empty.
            """CREATE INDEX taskharbor_job_line
    ON taskharbor_job (queue, priority, task, part, stray, lane, due, id, guarded) WHERE +lane > 3 AND token IS NULL""",
            # `declared` and `override` are terms as JSON; NULL where there are none.
            """CREATE TABLE taskharbor_limit (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    key TEXT NOT NULL,
    declared TEXT,
    override TEXT,
    set_at INTEGER,
    set_by TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (kind, name, key)
) WITHOUT ROWID""",
            """CREATE TABLE taskharbor_hold (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    key TEXT NOT NULL,
    at INTEGER NOT NULL,
    held_by TEXT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (kind, name, key)
) WITHOUT ROWID""",
            # One row: moved on by each change of limits and holds, so that what was read of them is known to be old.
            "CREATE TABLE taskharbor_rules (revision INTEGER NOT NULL)",
            "INSERT INTO taskharbor_rules (revision) VALUES (0)",
            """CREATE TABLE taskharbor_turn (
    queue TEXT NOT NULL,
    priority INTEGER NOT NULL,
    task TEXT NOT NULL,
    part TEXT NOT NULL,
    stray INTEGER NOT NULL,
    PRIMARY KEY (queue, priority)
) WITHOUT ROWID""",
            """CREATE TABLE taskharbor_arrival (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    key TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (kind, name, key)
) WITHOUT ROWID""",
            """CREATE TABLE taskharbor_audit (
    id TEXT PRIMARY KEY,
    at INTEGER NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    by_whom TEXT NOT NULL,
    reason TEXT NOT NULL,
    details TEXT NOT NULL,
    named INTEGER NOT NULL,
    changed INTEGER NOT NULL
) WITHOUT ROWID""",
            "CREATE INDEX taskharbor_audit_at ON taskharbor_audit (at)",
            """CREATE TABLE taskharbor_retention (
    task TEXT NOT NULL,
    state TEXT NOT NULL,
    keep_for INTEGER,
    keep_last INTEGER,
    set_at INTEGER NOT NULL,
    set_by TEXT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (task, state)
) WITHOUT ROWID""",
            "ALTER TABLE taskharbor_worker ADD COLUMN ordered TEXT",
            "ALTER TABLE taskharbor_worker ADD COLUMN ordered_by TEXT NOT NULL DEFAULT ''",
        ),
    ),
)
