"""job_reserve: walk priorities, lines, lanes and due times in order over the queues, and lease what is found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from taskharbor.clock import duration_micros, from_micros
from taskharbor.driver import AgedTake, Gates, JobReserve, Quota, Reservation, lines_first, queues_in_turn
from taskharbor.drivers.memory.lines import LineWalk
from taskharbor.drivers.memory.rows import Lease, Row
from taskharbor.drivers.memory.tables import PRIORITIES, Tables, as_duration
from taskharbor.drivers.memory.walk import Source, Walk
from taskharbor.job import Delivery

T = TypeVar("T")


def job_reserve(tables: Tables, request: JobReserve, now: int) -> Reservation:
    """Lease the next jobs that may run."""
    held = tables.leases.get(request.token)
    if held is not None:  # the answer to the first asking was lost
        return Reservation(
            deliveries=[_delivery(row, held.token) for row in held.rows.values()],
            expires_at=from_micros(held.expires),
            next_due_in=as_duration(0),
        )
    walk = Walk(request, now)
    sources = _sources(tables, request)
    if _has_lines(tables, request):
        rows = _take_with_lines(tables, request, now, walk, sources)
    else:
        if request.aged is not None:
            walk.take_aged(sources, request.aged)
        rows = walk.take(sources)
    expires = now + duration_micros(request.lease)
    if rows:
        lease = Lease(request.token, request.worker, expires, duration_micros(request.lease), {}, set())
        tables.leases[request.token] = lease
        for row in rows:
            row.token = request.token
            row.settled_token = None
            row.deliveries += 1
            lease.rows[row.job.id] = row
            if tables.counts:
                tables.count(row.job, 1)
    return Reservation(
        deliveries=[_delivery(row, request.token) for row in rows],
        expires_at=from_micros(expires),
        held_back=walk.held_back,
        next_due_in=None if walk.next_due is None else as_duration(walk.next_due - now),
    )


def _sources(tables: Tables, request: JobReserve) -> list[Source]:
    left = {take.name: take.limit for take in request.queues}
    return [
        Source(queue, heaps, left)
        for queue in left
        if queue not in tables.paused
        for stray, heaps in tables.lanes.get(queue, {}).items()
        if stray is None or stray.open_to(request.tasks, request.build)
    ]


def _has_lines(tables: Tables, request: JobReserve) -> bool:
    """Return whether jobs stand in lines in these queues, or the queues themselves have limits."""
    rings, limited = tables.lines.rings, tables.rules.queues
    return any(
        take.name in limited or (take.name in rings and any(ring.order for ring in rings[take.name].values()))
        for take in request.queues
    )


def _take_with_lines(
    tables: Tables, request: JobReserve, now: int, walk: Walk, sources: Sequence[Source]
) -> list[Row]:
    """Take from lines and plain lanes, priority by priority (`taskharbor.driver.limiting`)."""
    queues = queues_in_turn(
        [take.name for take in request.queues if take.name not in tables.paused], request.token
    )
    left = sources[0].left if sources else {take.name: take.limit for take in request.queues}
    room = request.limit if request.partitioned_limit is None else request.partitioned_limit
    quota = Quota(request.limit, left, request.guarded_limit, int(request.solo), room)
    gates = Gates(tables.rules, tables.running, tables.arrivals, now)

    def take(row: Row) -> None:
        row.entry = 0
        walk.rows.append(row)

    lines = LineWalk(
        tables.lines,
        gates,
        quota,
        now,
        opens=lambda turn: tables.lines.open_to(turn, request.tasks, request.build),
        take=take,
    )
    plain = _PlainLanes(walk, sources, gates, quota)
    if request.aged is not None:
        taken = plain.take_aged(request.aged)
        lines.serve_aged(queues, now - duration_micros(request.aged.after), request.aged.limit - taken)
    first = lines_first(request.token)
    for priority in range(PRIORITIES):
        if first:
            lines.serve(queues, priority)
        if not plain.take(priority):
            break
        if not first:
            lines.serve(queues, priority)
    tables.arrivals.update(gates.changed)
    walk.held_back = walk.held_back or quota.held_back
    if lines.wait is not None:
        walk.note_due(now + lines.wait)
    return walk.rows


class _PlainLanes:
    """The plain lanes of queues among which some have limits, or lines: they draw on the same quota as lines do."""

    def __init__(self, walk: Walk, sources: Sequence[Source], gates: Gates, quota: Quota) -> None:
        self._walk = walk
        self._sources = sources
        self._gates = gates
        self._quota = quota
        walk.limited = gates.rules.queues & {source.queue for source in sources}

    def take(self, priority: int) -> bool:
        """Take from one priority's lanes; return whether to go on."""
        return self._within(lambda: self._walk.take_lanes(self._sources, priority))

    def take_aged(self, aged: AgedTake) -> int:
        """Take what has been due for too long, and return how many."""
        before = len(self._walk.rows)
        self._within(lambda: self._walk.take_aged(self._sources, aged))
        return len(self._walk.rows) - before

    def _within(self, take: Callable[[], T]) -> T:
        """Take within the rooms that queues with limits have, and note what was taken."""
        walk, quota, gates = self._walk, self._quota, self._gates
        kept = {queue: max(quota.queues[queue] - gates.queue_room(queue), 0) for queue in walk.limited}
        for queue in walk.limited:
            quota.queues[queue] -= kept[queue]
        walk.limit = len(walk.rows) + quota.limit
        walk.guarded_left, walk.solo_left, walk.limited_left = quota.guarded, quota.solo, quota.partitioned
        before = len(walk.rows)
        answer = take()
        taken = Counter([row.job.queue for row in walk.rows[before:]])
        for queue in walk.limited:
            gates.take_plain(queue, taken[queue])
            quota.queues[queue] += kept[queue]
        quota.limit -= taken.total()
        quota.guarded, quota.solo, quota.partitioned = walk.guarded_left, walk.solo_left, walk.limited_left
        for queue in walk.left_due:
            wait = gates.queue_wait(queue)
            if gates.queue_room(queue) > 0 and quota.queues[queue] > 0 and quota.partitioned <= 0:
                quota.held_back = True
            if wait is not None:
                walk.note_due(walk.now + wait)
        walk.left_due.clear()
        return answer


def _delivery(row: Row, token: int) -> Delivery:
    job = row.job
    return Delivery(
        job.id,
        token,
        job.task,
        job.queue,
        job.payload,
        job.codec,
        job.fingerprint,
        row.attempt + 1,
        row.deliveries,  # the fence
        job.retry,
        job.timeout,
        job.priority,
        row.run_at,
        row.enqueued_at,
        job.key,
        job.meta,
        job.keep_result,
        row.guarded,
        row.solo,
        row.cancel is not None,
        None if job.step is None else row.delivered,
    )
