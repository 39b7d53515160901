"""Marking jobs as awaited: the statement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

# Waits for nobody: rows that somebody holds are passed over, and told apart from those that are not there. One held row
# then stops no other, and no two of these statements can lock each other out. If the mark is lost in a crash, so is the
# listening connection, and all marks are set anew; so its commit need not wait for the disk.
#
# A job that has only just become due is about to be taken by some worker that was woken for it, and a reserve passes
# over rows that are locked. So it is left alone for a moment, as if it were held.
_MARK = sql.SQL("""
WITH free AS MATERIALIZED (
    SELECT id FROM {job} WHERE id = ANY (%(ids)s::text::uuid[]) AND NOT awaited AND (token IS NOT NULL
        OR due NOT BETWEEN statement_timestamp() - interval '0.2 seconds' AND statement_timestamp())
    ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
), marked AS (
    UPDATE {job} job SET awaited = true FROM free WHERE job.id = free.id RETURNING job.id
)
SELECT job.id::text, job.awaited OR marked.id IS NOT NULL, set_config('synchronous_commit', 'off', true)
FROM {job} job LEFT JOIN marked USING (id) WHERE job.id = ANY (%(ids)s::text::uuid[])
""")


class Marked(NamedTuple):
    """What came of it; the rest are marked."""

    gone: list[str]
    """Not in the table: ended, deleted, or never there."""
    held: list[str]
    """Locked by somebody, or to be locked by a worker at any moment."""


def mark(connection: psycopg.Connection[TupleRow], schema: str, ids: Sequence[str]) -> Marked:
    """Mark jobs as awaited, so that whoever ends them rings.

    Args:
        connection: in autocommit mode.
        schema: where the table is.
        ids: UUIDs, in the spelling that PostgreSQL writes.
    """
    statement = _MARK.format(job=sql.Identifier(schema, "job"))
    rows = connection.execute(statement, {"ids": "{" + ",".join(ids) + "}"}).fetchall()
    done: dict[str, bool] = {job_id: marked for job_id, marked, _ in rows}
    return Marked(
        gone=[job_id for job_id in ids if job_id not in done],
        held=[job_id for job_id, marked in done.items() if not marked],
    )
