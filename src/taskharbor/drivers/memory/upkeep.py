"""history_prune and the register of workers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TypeVar

from taskharbor.clock import duration_micros, from_micros
from taskharbor.driver import (
    HistoryPrune,
    Order,
    Pruned,
    WorkerAnnounce,
    WorkerForget,
    WorkerInfo,
    WorkerList,
    WorkerOrder,
)
from taskharbor.drivers.memory.acts import prune_acts
from taskharbor.drivers.memory.control import remove
from taskharbor.drivers.memory.event import prune_feed
from taskharbor.drivers.memory.limits import forget_arrivals
from taskharbor.drivers.memory.retention import beyond_rules
from taskharbor.drivers.memory.rows import Worker
from taskharbor.drivers.memory.statistics import prune_statistics
from taskharbor.drivers.memory.tables import Tables

T = TypeVar("T")


def history_prune(tables: Tables, request: HistoryPrune, now: int) -> Pruned:
    """Remove what has outlived its retention."""

    def drop_job(job_id: str, expires: int) -> bool:
        row = tables.rows.get(job_id)
        if row is None or row.expires != expires:  # deleted or requeued since
            return False
        remove(tables, row)
        return True

    def drop_key(name: tuple[str, str], expires: int) -> bool:
        key = tables.keys.get(name)
        if key is None or key.expires != expires:  # taken anew since
            return False
        del tables.keys[name]
        return True

    def drop_flow(flow_id: str, expires: int) -> bool:
        flow = tables.flows.get(flow_id)
        if flow is None or flow.expires != expires:  # deleted since
            return False
        del tables.flows[flow_id]
        return True

    jobs = _drop(tables.expiring, now, request.limit, drop_job)
    if request.rules:
        for row in list(islice(beyond_rules(tables, now), max(request.limit - jobs, 0))):
            remove(tables, row)
            jobs += 1
    keys = _drop(tables.expiring_keys, now, request.limit, drop_key)
    flows = _drop(tables.expiring_flows, now, request.limit, drop_flow)
    for name, worker in list(tables.workers.items()):
        if worker.seen + worker.ttl <= now:
            del tables.workers[name]
    prune_feed(tables, now)
    prune_statistics(tables, now)
    prune_acts(tables, now)
    forget_arrivals(tables, now)
    more = jobs >= request.limit or keys >= request.limit or flows >= request.limit
    return Pruned(jobs=jobs, keys=keys, more=more)


def _drop(
    expiring: dict[int, deque[tuple[int, T]]], now: int, limit: int, drop: Callable[[T, int], bool]
) -> int:
    dropped = 0
    for queue in expiring.values():
        while queue and queue[0][0] <= now and dropped < limit:
            expires, name = queue.popleft()
            dropped += drop(name, expires)
    return dropped


def worker_announce(tables: Tables, request: WorkerAnnounce, now: int) -> None:
    """Put a worker on the register."""
    before = tables.workers.get(request.worker)
    tables.workers[request.worker] = Worker(
        queues=tuple(request.queues),
        tasks=request.tasks,
        build=request.build,
        ttl=duration_micros(request.ttl),
        host=request.host,
        pid=request.pid,
        started_at=request.started_at,
        seen=now,
        order=None if before is None else before.order,
        ordered_by="" if before is None else before.ordered_by,
    )


def worker_forget(tables: Tables, request: WorkerForget, now: int) -> None:
    """Take workers off the register."""
    for name in request.workers:
        tables.workers.pop(name, None)


def worker_order(tables: Tables, request: WorkerOrder, now: int) -> Sequence[bool]:
    """Give an order; return of each whether it is a live worker and the order is news, in order."""
    return [_order(tables.workers.get(name), request, now) for name in request.workers]


def _order(worker: Worker | None, request: WorkerOrder, now: int) -> bool:
    if worker is None or worker.seen + worker.ttl <= now:
        return False
    if worker.order in (request.order, Order.STOP):
        return False
    worker.order = request.order
    worker.ordered_by = request.by
    return True


def worker_list(tables: Tables, request: WorkerList, now: int) -> Sequence[WorkerInfo]:
    """Return the live workers sorted by name."""
    running: dict[str, int] = {}
    for lease in tables.leases.values():
        running[lease.worker] = running.get(lease.worker, 0) + len(lease.rows)
    return [
        WorkerInfo(
            worker=name,
            queues=worker.queues,
            tasks=worker.tasks,
            build=worker.build,
            host=worker.host,
            pid=worker.pid,
            started_at=worker.started_at,
            seen_at=from_micros(worker.seen),
            running=running.get(name, 0),
            order=worker.order,
            ordered_by=worker.ordered_by,
        )
        for name, worker in sorted(tables.workers.items())
        if worker.seen + worker.ttl > now
    ]
