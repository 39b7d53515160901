"""job_settle: fence, then write what the settlement says; a pending cancel has the last word over all but a success."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import msgspec

from taskharbor.clock import duration_micros, from_micros
from taskharbor.driver import JobSettle
from taskharbor.drivers.memory.advance import step_ended, write_sequel
from taskharbor.drivers.memory.rows import FRONT, NORMAL, Row, Stray
from taskharbor.drivers.memory.tables import Tables
from taskharbor.job import AttemptError, JobState
from taskharbor.settlement import Settled, SettleKind, Settlement, SettleStatus

_ALREADY = Settled(SettleStatus.ALREADY)
_STALE = Settled(SettleStatus.STALE)
_SETTLED = {state: Settled(SettleStatus.SETTLED, state) for state in JobState}
_SUCCEEDED = _SETTLED[JobState.SUCCEEDED]


def job_settle(tables: Tables, request: JobSettle, now: int) -> Sequence[Settled]:
    """Write down how deliveries ended and return one answer each, in order."""
    return [_settle(tables, settlement, now) for settlement in request.settlements]


def _settle(tables: Tables, settlement: Settlement, now: int) -> Settled:
    row = tables.rows.get(settlement.job_id)
    if row is None:
        return _STALE
    if row.token != settlement.token:
        return _ALREADY if row.settled_token == settlement.token else _STALE
    # Computed first: what raises must not leave the row between two places.
    wait = 0 if settlement.after is None else duration_micros(settlement.after)
    tables.leave_lease(row)
    row.settled_token = settlement.token
    if settlement.charge:
        row.attempt += 1
    if settlement.kind is SettleKind.SUCCEED:
        row.lost = 0
        row.result = settlement.result
        row.result_codec = settlement.codec
        tables.finish(row, JobState.SUCCEEDED, now)
        if settlement.sequel is not None:
            write_sequel(tables, row, settlement.sequel, now)
        if row.job.step is not None:
            step_ended(tables, row, now)
        return _SUCCEEDED
    if settlement.error is not None:
        add_error(row, settlement.error, now)
    if row.cancel is not None:
        tables.finish(row, JobState.CANCELLED, now, row.cancel)
        step_ended(tables, row, now)
        return _SETTLED[JobState.CANCELLED]
    _write(tables, row, settlement, now, wait)
    return _SETTLED[tables.state_of(row, now)]


def _write(tables: Tables, row: Row, settlement: Settlement, now: int, wait: int) -> None:
    match settlement.kind:
        case SettleKind.RETRY | SettleKind.SNOOZE:
            row.lost = 0
            tables.make_due(row, now + wait, NORMAL)
        case SettleKind.RELEASE:
            tables.make_due(row, now, FRONT)
        case SettleKind.BURY:
            tables.finish(row, JobState.DEAD, now, settlement.reason)
            step_ended(tables, row, now)
        case SettleKind.CANCEL:
            tables.finish(row, JobState.CANCELLED, now, settlement.reason)
            step_ended(tables, row, now)
        case SettleKind.STRAY:
            refused: frozenset[str] = frozenset() if row.stray is None else row.stray.refused_by
            if settlement.refused_by is not None:
                refused |= {settlement.refused_by}
            row.stray = Stray(row.job.task, refused)
            row.stray_reason = row.reason = settlement.reason
            tables.make_due(row, now, NORMAL)
        case SettleKind.SUCCEED:
            raise AssertionError("written by the caller")
        case _:
            assert_never(settlement.kind)


def add_error(row: Row, error: AttemptError, now: int) -> None:
    """Keep why an attempt failed, stamped with the store's time."""
    row.errors = (*row.errors, msgspec.structs.replace(error, at=from_micros(now)))
