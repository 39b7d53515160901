"""The tables, as numbered migrations. Drawn and explained in `docs/sqlite.md`.

Live jobs, leases, history, dead letters and idempotency keys stand apart, so that reserve and settle touch small tables
whatever has been kept. Instants and durations are whole microseconds, instants since 1970.
"""

from __future__ import annotations

from taskharbor.driver import Migration

_ARCHIVED = """
    id TEXT PRIMARY KEY,
    task TEXT NOT NULL,
    queue TEXT NOT NULL,
    options INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    run_at INTEGER NOT NULL,
    enqueued_at INTEGER NOT NULL,
    finished_at INTEGER NOT NULL,
    timeout INTEGER,
    attempt INTEGER NOT NULL,
    deliveries INTEGER NOT NULL,
    crashes INTEGER NOT NULL,
    guarded INTEGER NOT NULL,
    stray INTEGER NOT NULL,
    stray_reason TEXT,
    reason TEXT,
    settled INTEGER,
    payload BLOB NOT NULL,
    key TEXT,
    digest BLOB,
    meta TEXT,
    errors TEXT,
    operations TEXT
"""
_LAST_ERROR = "error = errors ->> '$[#-1].type', message = errors ->> '$[#-1].message'"

MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        1,
        "jobs, leases, history, dead letters, keys, queues, workers",
        (
            # What jobs of one task have in common, named by its own digest: codec, fingerprint, retry, retention.
            """CREATE TABLE taskharbor_options (
    id INTEGER PRIMARY KEY,
    retain INTEGER NOT NULL,
    text TEXT NOT NULL
)""",
            # Which workers may take a job that some could not: those that know the task and are of none of the builds.
            """CREATE TABLE taskharbor_stray (
    id INTEGER PRIMARY KEY,
    task TEXT NOT NULL,
    refused_by TEXT NOT NULL,
    UNIQUE (task, refused_by)
)""",
            """CREATE TABLE taskharbor_job (
    id TEXT PRIMARY KEY,
    task TEXT NOT NULL,
    queue TEXT NOT NULL,
    options INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    lane INTEGER NOT NULL,
    due INTEGER NOT NULL,
    guarded INTEGER NOT NULL,
    stray INTEGER NOT NULL DEFAULT 0,
    stray_reason TEXT,
    token INTEGER,
    started INTEGER NOT NULL DEFAULT 0,
    cancel TEXT,
    settled INTEGER,
    attempt INTEGER NOT NULL DEFAULT 0,
    deliveries INTEGER NOT NULL DEFAULT 0,
    lost INTEGER NOT NULL DEFAULT 0,
    crashes INTEGER NOT NULL DEFAULT 0,
    run_at INTEGER NOT NULL,
    enqueued_at INTEGER NOT NULL,
    timeout INTEGER,
    payload BLOB NOT NULL,
    key TEXT,
    digest BLOB,
    meta TEXT,
    errors TEXT,
    operations TEXT
) WITHOUT ROWID""",
            # What reserve walks. A leased job has no entry, so nothing that cannot be taken is ever read.
            """CREATE INDEX taskharbor_job_ready
    ON taskharbor_job (queue, stray, priority, lane, due, id, guarded) WHERE token IS NULL""",
            "CREATE INDEX taskharbor_job_cancel ON taskharbor_job (token) WHERE cancel IS NOT NULL",
            "CREATE INDEX taskharbor_job_stray ON taskharbor_job (stray) WHERE stray <> 0",
            """CREATE TABLE taskharbor_lease (
    token INTEGER PRIMARY KEY,
    worker TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    duration INTEGER NOT NULL,
    jobs TEXT NOT NULL,
    remaining INTEGER NOT NULL
)""",
            f"""CREATE TABLE taskharbor_history ({_ARCHIVED.rstrip()},
    state TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    result BLOB,
    result_codec TEXT
) WITHOUT ROWID""",
            "CREATE INDEX taskharbor_history_expires ON taskharbor_history (expires_at)",
            "CREATE INDEX taskharbor_history_stray ON taskharbor_history (stray) WHERE stray <> 0",
            f"CREATE TABLE taskharbor_dead ({_ARCHIVED.rstrip()}\n) WITHOUT ROWID",
            "CREATE INDEX taskharbor_dead_stray ON taskharbor_dead (stray) WHERE stray <> 0",
            """CREATE TABLE taskharbor_key (
    task TEXT NOT NULL,
    name TEXT NOT NULL,
    job_id TEXT NOT NULL,
    digest BLOB NOT NULL,
    ttl INTEGER NOT NULL,
    expires_at INTEGER,
    PRIMARY KEY (task, name)
) WITHOUT ROWID""",
            "CREATE INDEX taskharbor_key_expires ON taskharbor_key (expires_at) WHERE expires_at IS NOT NULL",
            """CREATE TABLE taskharbor_pause (
    queue TEXT PRIMARY KEY,
    paused_at INTEGER NOT NULL,
    paused_by TEXT NOT NULL,
    reason TEXT NOT NULL
) WITHOUT ROWID""",
            """CREATE TABLE taskharbor_worker (
    worker TEXT PRIMARY KEY,
    queues TEXT NOT NULL,
    tasks TEXT NOT NULL,
    build TEXT NOT NULL,
    ttl INTEGER NOT NULL,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    started_at INTEGER,
    seen_at INTEGER NOT NULL
) WITHOUT ROWID""",
        ),
    ),
    Migration(
        2,
        "flows: steps, what came in for them, and flows as a whole",
        (
            # What only steps have beside other jobs: [edges, absorbers, holes, its run_in], as JSON.
            *(
                f"ALTER TABLE taskharbor_{table} ADD COLUMN {column}"
                for table in ("job", "history", "dead")
                for column in ("flow TEXT", "step TEXT")
            ),
            "ALTER TABLE taskharbor_job ADD COLUMN waits INTEGER NOT NULL DEFAULT 0",
            "CREATE INDEX taskharbor_job_flow ON taskharbor_job (flow) WHERE flow IS NOT NULL",
            "CREATE INDEX taskharbor_history_flow ON taskharbor_history (flow, id, state) WHERE flow IS NOT NULL",
            "CREATE INDEX taskharbor_dead_flow ON taskharbor_dead (flow) WHERE flow IS NOT NULL",
            """CREATE TABLE taskharbor_input (
    job_id TEXT NOT NULL,
    slot INTEGER NOT NULL,
    idx INTEGER NOT NULL,
    codec TEXT NOT NULL,
    value BLOB,
    failed INTEGER NOT NULL,
    PRIMARY KEY (job_id, slot, idx)
) WITHOUT ROWID""",
            """CREATE TABLE taskharbor_flow (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    meta TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    enqueued_at INTEGER NOT NULL,
    finished_at INTEGER,
    expires_at INTEGER,
    retain INTEGER NOT NULL,
    absorbing INTEGER NOT NULL,
    on_failure BLOB
) WITHOUT ROWID""",
            "CREATE INDEX taskharbor_flow_expires ON taskharbor_flow (expires_at) WHERE expires_at IS NOT NULL",
        ),
    ),
    Migration(
        3,
        "what jobs report, the feed of events, counters by the minute, dead letters by their errors",
        (
            # Beside the jobs, whose rows no report touches.
            """CREATE TABLE taskharbor_progress (
    job_id TEXT PRIMARY KEY,
    progress TEXT NOT NULL
) WITHOUT ROWID""",
            """CREATE TABLE taskharbor_log (
    job_id TEXT NOT NULL,
    fence INTEGER NOT NULL,
    number INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    at INTEGER NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (job_id, fence, number)
) WITHOUT ROWID""",
            """CREATE TABLE taskharbor_watch (
    reader TEXT PRIMARY KEY,
    until INTEGER NOT NULL
) WITHOUT ROWID""",
            """CREATE TABLE taskharbor_event (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    at INTEGER NOT NULL,
    event TEXT NOT NULL
)""",
            "CREATE INDEX taskharbor_event_at ON taskharbor_event (at)",
            # One row: which feed this is, the last number given (none is given twice, as cursors are made of them), and
            # the greatest of the events that were removed.
            "CREATE TABLE taskharbor_feed (feed INTEGER NOT NULL, last INTEGER NOT NULL, removed INTEGER NOT NULL)",
            "INSERT INTO taskharbor_feed (feed, last, removed) VALUES (random() & 9223372036854775807, 0, 0)",
            """CREATE TABLE taskharbor_tally (
    minute INTEGER NOT NULL,
    queue TEXT NOT NULL,
    task TEXT NOT NULL,
    ending TEXT NOT NULL,
    worker TEXT NOT NULL,
    count INTEGER NOT NULL,
    ran INTEGER NOT NULL,
    PRIMARY KEY (minute, queue, task, ending, worker)
) WITHOUT ROWID""",
            # The last error's, so that dead letters are filtered by an index, and no payload is read. By a trigger: a
            # process of the release before, which still has the file open, buries jobs as well. (Indexes of expressions
            # and of generated columns have SQLite read the row all the same.)
            "ALTER TABLE taskharbor_dead ADD COLUMN error TEXT",
            "ALTER TABLE taskharbor_dead ADD COLUMN message TEXT",
            f"UPDATE taskharbor_dead SET {_LAST_ERROR} WHERE errors IS NOT NULL",  # noqa: S608 - our own constants
            f"""CREATE TRIGGER taskharbor_dead_error AFTER INSERT ON taskharbor_dead WHEN new.errors IS NOT NULL BEGIN
    UPDATE taskharbor_dead SET {_LAST_ERROR} WHERE id = new.id;
END""",  # noqa: S608 - our own constants
            """CREATE INDEX taskharbor_dead_look
    ON taskharbor_dead (id, queue, task, enqueued_at, finished_at, reason, error, message)""",
            # The few others that an error or a reason can be said of.
            """CREATE INDEX taskharbor_job_look
    ON taskharbor_job (id) WHERE errors IS NOT NULL OR stray_reason IS NOT NULL""",
            """CREATE INDEX taskharbor_history_look
    ON taskharbor_history (id) WHERE errors IS NOT NULL OR reason IS NOT NULL""",
        ),
    ),
    Migration(
        4,
        "schedules, what applications declared, who leads",
        (
            # `due` is the next tick; before all of them stands what is to be computed (`schedule_rows.TO_COMPUTE`).
            """CREATE TABLE taskharbor_schedule (
    name TEXT PRIMARY KEY,
    application TEXT,
    task TEXT NOT NULL,
    queue TEXT NOT NULL,
    schedule TEXT NOT NULL,
    description TEXT NOT NULL,
    revision INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    after_at INTEGER NOT NULL,
    due INTEGER NOT NULL,
    ended INTEGER NOT NULL,
    waiting_tick INTEGER,
    paused_at INTEGER,
    paused_by TEXT NOT NULL,
    reason TEXT NOT NULL,
    last_tick INTEGER,
    last_job TEXT,
    fired INTEGER NOT NULL,
    missed INTEGER NOT NULL,
    overlapped INTEGER NOT NULL,
    kept_out INTEGER NOT NULL,
    job BLOB NOT NULL
)""",
            """CREATE INDEX taskharbor_schedule_due
    ON taskharbor_schedule (due, name) WHERE paused_at IS NULL AND ended = 0""",
            """CREATE INDEX taskharbor_schedule_waiting
    ON taskharbor_schedule (waiting_tick, name) WHERE paused_at IS NULL AND waiting_tick IS NOT NULL""",
            """CREATE INDEX taskharbor_schedule_application
    ON taskharbor_schedule (application, name) WHERE application IS NOT NULL""",
            # Numbered in the order in which they were declared: the last one of an application is its present one.
            """CREATE TABLE taskharbor_declaration (
    number INTEGER PRIMARY KEY,
    application TEXT NOT NULL,
    digest BLOB NOT NULL,
    generation INTEGER NOT NULL,
    UNIQUE (application, digest)
)""",
            """CREATE INDEX taskharbor_declaration_last
    ON taskharbor_declaration (application, number)""",
            """CREATE TABLE taskharbor_leader (
    role TEXT PRIMARY KEY,
    worker TEXT NOT NULL,
    fence INTEGER NOT NULL,
    since INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) WITHOUT ROWID""",
        ),
    ),
)
