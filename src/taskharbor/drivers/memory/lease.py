"""lease_extend and lease_reclaim: keeping leases, and taking them back from the dead."""

from __future__ import annotations

from collections.abc import Sequence

from taskharbor.clock import duration_micros, from_micros
from taskharbor.driver import CancelRequest, LeaseExtend, LeaseExtended, LeaseReclaim, Reclaimed
from taskharbor.drivers.memory.advance import step_ended
from taskharbor.drivers.memory.event import is_watched
from taskharbor.drivers.memory.rows import FRONT, NORMAL, Lease, Row
from taskharbor.drivers.memory.settle import add_error
from taskharbor.drivers.memory.tables import Tables
from taskharbor.job import JobState
from taskharbor.settlement import SettleKind, after_crash


def lease_extend(tables: Tables, request: LeaseExtend, now: int) -> LeaseExtended:
    """Keep a worker's leases, write its starts, tell it of cancels."""
    duration = duration_micros(request.lease)
    lost: list[int] = []
    cancels: list[CancelRequest] = []
    for hold in request.leases:
        lease = tables.leases.get(hold.token)
        if lease is None:
            lost.append(hold.token)
            continue
        lease.expires = now + duration
        lease.duration = duration
        lease.started.update(job_id for job_id in hold.started if job_id in lease.rows)
        cancels.extend(
            CancelRequest(row.job.id, row.cancel) for row in lease.rows.values() if row.cancel is not None
        )
    worker = tables.workers.get(request.worker)
    if worker is not None:
        worker.seen = now
    return LeaseExtended(
        expires_at=from_micros(now + duration),
        lost=lost,
        cancels=cancels,
        known_worker=worker is not None,
        watched=is_watched(tables, now),
        order=None if worker is None else worker.order,
    )


def lease_reclaim(tables: Tables, request: LeaseReclaim, now: int) -> Sequence[Reclaimed]:
    """Take back the jobs of workers that are gone."""
    observed = duration_micros(request.observed)
    expired = sorted(
        (lease for lease in tables.leases.values() if lease.expires <= now and lease.duration <= observed),
        key=lambda lease: lease.expires,
    )
    reclaimed: list[Reclaimed] = []
    for lease in expired:
        if len(reclaimed) >= request.limit:
            break
        for row in list(lease.rows.values()):
            fate = _reclaim(tables, row, lease, now)
            reclaimed.append(
                Reclaimed(
                    job_id=row.job.id, task=row.job.task, queue=row.job.queue, worker=lease.worker, fate=fate
                )
            )
    return reclaimed


def _reclaim(tables: Tables, row: Row, lease: Lease, now: int) -> SettleKind:
    started = row.job.id in lease.started
    crash = after_crash(
        started=started,
        attempt=row.attempt,
        crashes=row.crashes,
        lost=row.lost,
        numbers=row.job.retry,
        worker=lease.worker,
    )
    tables.leave_lease(row)
    row.attempt += started
    row.crashes = crash.crashes
    row.lost = crash.lost
    row.guarded = True
    if crash.error is not None:
        add_error(row, crash.error, now)
    if row.cancel is not None:
        tables.finish(row, JobState.CANCELLED, now, row.cancel)
        step_ended(tables, row, now)
        return SettleKind.CANCEL
    if crash.kind is SettleKind.BURY:
        tables.finish(row, JobState.DEAD, now, crash.reason)
        step_ended(tables, row, now)
    elif crash.after is not None:
        tables.make_due(row, now + duration_micros(crash.after), NORMAL)
    else:
        tables.make_due(row, now, FRONT)
    return crash.kind
