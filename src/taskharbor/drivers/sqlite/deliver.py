"""Reserved jobs as the table holds them, read as deliveries; and what came in for those that are steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

import msgspec

from taskharbor.clock import EPOCH, from_micros
from taskharbor.drivers.sqlite.inputs import delivered_steps
from taskharbor.drivers.sqlite.routine import Query, Routine
from taskharbor.drivers.sqlite.rows import INLINE_BYTES, Options, OptionsBook, read_meta
from taskharbor.job import Delivery
from taskharbor.settlement import SOLO_CRASHES
from taskharbor.step import DeliveredStep

TAKEN_COLUMNS = (
    "json_array(j.id, j.task, j.queue, j.options, length(j.payload), j.attempt, j.deliveries, j.priority, j.run_at, "
    "j.enqueued_at, j.timeout, j.key, j.meta, j.guarded, j.crashes, j.cancel IS NOT NULL)"
)


class Taken(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A job as `TAKEN_COLUMNS` gives it."""

    id: str
    task: str
    queue: str
    options: int
    size: int
    attempt: int
    deliveries: int
    priority: int
    run_at: int
    enqueued_at: int
    timeout: int | None
    key: str | None
    meta: str | None
    guarded: int
    crashes: int
    cancel: int


_taken = msgspec.json.Decoder(list[Taken])


def deliveries(
    book: OptionsBook, token: int, source: str, params: Sequence[str | int]
) -> Routine[list[Delivery]]:
    """Return the jobs that `source`, a FROM clause with the jobs as `j`, gives, in its order."""
    ((found, blob, steps),) = yield Query(
        f"SELECT json_group_array({TAKEN_COLUMNS}), CAST(group_concat("  # noqa: S608 - our own constants
        f"CASE WHEN length(j.payload) <= {INLINE_BYTES} THEN j.payload ELSE '' END, '') AS BLOB), count(j.step) "
        f"FROM {source}",
        params,
    )
    rows = _taken.decode(found)
    options = yield from book.fetch({row.options for row in rows})
    large: dict[str, bytes] = {}
    for row in rows:
        if row.size > INLINE_BYTES:
            ((large[row.id],),) = yield Query("SELECT payload FROM taskharbor_job WHERE id = ?", (row.id,))
    told: dict[str, DeliveredStep] = {}
    if steps:
        told = yield from delivered_steps([row.id for row in rows])
    return list(_deliveries(rows, blob or b"", large, options, token, told))


def _deliveries(
    rows: list[Taken],
    blob: bytes,
    large: dict[str, bytes],
    options: dict[int, Options],
    token: int,
    steps: dict[str, DeliveredStep],
) -> Iterator[Delivery]:
    begin = 0
    last, run_at = 0, EPOCH
    for row in rows:
        if row.size > INLINE_BYTES:
            payload = large[row.id]
        else:
            payload = blob[begin : begin + row.size]
            begin += row.size
        shared = options[row.options]
        if row.run_at != last:  # jobs of one batch have it in common
            last, run_at = row.run_at, from_micros(row.run_at)
        yield Delivery(
            row.id,
            token,
            row.task,
            row.queue,
            payload,
            shared.codec,
            shared.fingerprint,
            row.attempt + 1,
            row.deliveries,  # the fence
            shared.retry,
            None if row.timeout is None else timedelta(microseconds=row.timeout),
            row.priority,
            run_at,
            run_at if row.enqueued_at == row.run_at else from_micros(row.enqueued_at),
            row.key,
            read_meta(row.meta),
            shared.keep_result,
            bool(row.guarded),
            row.crashes >= SOLO_CRASHES,
            bool(row.cancel),
            steps.get(row.id),
        )
