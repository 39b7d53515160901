"""The bare worker's tables and statements, after the prototypes behind DESIGN section 9."""

from __future__ import annotations

TABLES = """CREATE SCHEMA {schema};
CREATE TABLE {schema}.live (
    id uuid PRIMARY KEY,
    queue text NOT NULL,
    task text NOT NULL,
    priority smallint NOT NULL DEFAULT 0,
    lane smallint NOT NULL DEFAULT 1,
    due_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    run_at timestamptz,
    attempt smallint NOT NULL DEFAULT 0,
    deliveries smallint NOT NULL DEFAULT 0,
    max_attempts smallint NOT NULL DEFAULT 5,
    token bigint,
    state smallint NOT NULL DEFAULT 0,
    codec text NOT NULL DEFAULT 'json',
    fingerprint integer NOT NULL DEFAULT 0,
    meta jsonb,
    payload bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 70);
CREATE INDEX ON {schema}.live (queue, priority, lane, due_at, id);
CREATE TABLE {schema}.lease (
    token bigint PRIMARY KEY,
    worker uuid,
    expires_at timestamptz NOT NULL,
    job_ids uuid[] NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX ON {schema}.lease (expires_at);
CREATE TABLE {schema}.arch (
    id uuid NOT NULL,
    queue text,
    task text,
    priority smallint,
    state smallint,
    attempt smallint,
    codec text,
    payload bytea,
    result bytea,
    created_at timestamptz,
    finished_at timestamptz,
    expires_on date NOT NULL
) PARTITION BY RANGE (expires_on);
CREATE TABLE {schema}.arch1 PARTITION OF {schema}.arch FOR VALUES FROM ('2020-01-01') TO ('2100-01-01');
CREATE INDEX ON {schema}.arch1 (id)"""
# Rows are found again by where they are, and ids come as text: so no plan reads the whole table.
RESERVE = """WITH p AS MATERIALIZED (SELECT ctid AS spot FROM {schema}.live
    WHERE queue = 'default' AND priority = 0 AND lane = 1 AND due_at <= clock_timestamp()
    AND (due_at, id) > ($1::timestamptz, $2::uuid) AND token IS NULL
    ORDER BY due_at, id LIMIT $3::integer FOR UPDATE SKIP LOCKED),
u AS (UPDATE {schema}.live l SET token = $4::bigint, deliveries = deliveries + 1
    WHERE l.ctid = ANY (ARRAY(SELECT spot FROM p))
    RETURNING l.id, l.task, l.payload, l.attempt, l.codec, l.fingerprint, l.meta, l.due_at),
k AS (INSERT INTO {schema}.lease SELECT $4::bigint, $5::uuid, now() + interval '30s', array_agg(id)
    FROM u HAVING count(*) > 0)
SELECT * FROM u"""
SETTLE = """WITH s AS (SELECT * FROM unnest($1::text::uuid[], $2::bytea[]) s(id, res)),
d AS (DELETE FROM {schema}.live l USING s WHERE l.id = s.id AND l.token = $3::bigint RETURNING l.*, s.res),
x AS (DELETE FROM {schema}.lease WHERE token = $3::bigint)
INSERT INTO {schema}.arch SELECT id, queue, task, priority, 2, attempt + 1, codec, payload, res, created_at, now(),
    (now() + interval '7d')::date FROM d RETURNING id"""
INSERT = """INSERT INTO {schema}.live (id, queue, task, payload)
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[])"""
COPY = "COPY {schema}.live (id, queue, task, payload) FROM STDIN (FORMAT BINARY)"
LONE = """WITH added AS (
    INSERT INTO {schema}.live (id, queue, task, payload) VALUES (%s, 'default', 'arrived', %s))
SELECT pg_notify(%s, '')"""
