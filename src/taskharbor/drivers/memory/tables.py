"""The memory driver's tables: plain structures under one lock.

    rows      every job by id, live and finished
    flows     every flow by id
    steps     the ids of the jobs that are steps, by flow
    lanes     per queue and stray lane, the jobs that may be reserved, in heaps
    leases    by token
    keys      idempotency keys by (task, key)
    paused    queues
    lines     jobs that take turns, or whose task has limits: see `lines`
    limits    by scope; and the holds, and when each rate lets the next job through
    workers   the register
    reports   what jobs have told of themselves, by id
    watches   until when each reader of the feed looks
    feed      its events
    tallies   what workers counted, by minute, queue, task, ending and worker
    schedules the timetable, by name
    declared  the generations of what applications declared, by digest, the last one last
    leaders   who leads, or led last, by role

A job that may be reserved, now or later, has exactly one valid entry in a lane; one that waits for earlier steps, is
leased or has finished has none. Entries are never searched for: moving a row gives it a new sequence number, which
makes its old entry void.

Instants and durations in here are whole microseconds.
"""

from __future__ import annotations

import heapq
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from taskharbor.audit import AuditEntry
from taskharbor.clock import Clock, duration_micros
from taskharbor.driver import Gates, RetentionRecord, Rules, Wake
from taskharbor.drivers.memory.lines import Lines
from taskharbor.drivers.memory.rows import (
    LANES,
    SOLO,
    Flow,
    Kept,
    Key,
    Leader,
    Lease,
    Pause,
    Row,
    Stray,
    Told,
    Worker,
)
from taskharbor.event import Ending, Tally
from taskharbor.job import JobState, NewJob
from taskharbor.limit import KEYLESS, HoldRecord, LimitRecord, Scope
from taskharbor.schedule import ScheduleRecord

PRIORITIES = 10
_KNOWN_MICROS = 1000

Entry = tuple[int, str, int, Row]
"""(due, id, sequence number, row): the order of a lane, and the check that the entry is still valid."""


class Heaps:
    """The lanes of one queue, or of one queue's stray jobs of one kind: a heap for each priority and lane."""

    __slots__ = ("heaps",)

    def __init__(self) -> None:
        self.heaps: list[list[Entry]] = [[] for _ in range(PRIORITIES * LANES)]

    def head(self, slot: int) -> Entry | None:
        """Return the first valid entry of a heap, dropping void ones before it."""
        heap = self.heaps[slot]
        while heap:
            entry = heap[0]
            if entry[3].entry == entry[2]:
                return entry
            heapq.heappop(heap)
        return None


Counter = tuple[datetime, str, str, Ending, str]
"""(minute, queue, task, ending, worker)"""


class Feed:
    """The events that are kept, in order, and what has to be known of those that are not."""

    def __init__(self) -> None:
        self.number = int.from_bytes(os.urandom(8)) >> 1
        self.events: deque[Kept] = deque()
        self.ids: set[str] = set()
        self.last = 0
        """The number of the last event that ever was kept."""
        self.removed = 0
        """The greatest number of those removed."""


class Tables:
    """All of one memory store. Whoever touches it holds `lock`."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.lock = threading.Lock()
        self.rows: dict[str, Row] = {}
        self.lanes: dict[str, dict[Stray | None, Heaps]] = {}
        self.flows: dict[str, Flow] = {}
        self.steps: dict[str, set[str]] = {}
        self.leases: dict[int, Lease] = {}
        self.keys: dict[tuple[str, str], Key] = {}
        self.paused: dict[str, Pause] = {}
        self.lines = Lines()
        self.limits: dict[Scope, LimitRecord] = {}
        self.holds: dict[Scope, HoldRecord] = {}
        self.enforce(Rules({}, {}))
        self.arrivals: dict[Scope, int] = {}
        self.running: dict[tuple[str, str, str], int] = {}
        """How many jobs are leased of each queue, task and partition; kept as long as any limit asks."""
        self.acts: dict[str, AuditEntry] = {}
        self.retention: dict[tuple[str, JobState], RetentionRecord] = {}
        self.workers: dict[str, Worker] = {}
        self.reports: dict[str, Told] = {}
        self.watches: dict[str, int] = {}
        self.feed = Feed()
        self.tallies: dict[Counter, Tally] = {}
        self.schedules: dict[str, ScheduleRecord] = {}
        self.declared: dict[str, dict[bytes, int]] = {}
        self.leaders: dict[str, Leader] = {}
        self.order: list[str] | None = None
        """The ids of `rows` in order, and of some that are gone; None where it has to be made anew."""
        # Ends of retention, in order: jobs that are kept equally long end in the order they finished.
        self.expiring: dict[int, deque[tuple[int, str]]] = {}
        self.expiring_keys: dict[int, deque[tuple[int, tuple[str, str]]]] = {}
        self.expiring_flows: dict[int, deque[tuple[int, str]]] = {}
        self.queue_watchers: dict[str, list[Wake]] = {}
        self.job_watchers: dict[str, list[Wake]] = {}
        # Who is to be woken once the lock is released.
        self.woken_queues: set[str] = set()
        self.woken_jobs: set[str] = set()
        self._sequence = 0
        self._known_micros: dict[timedelta, int] = {}

    def make_due(self, row: Row, due: int, lane: int) -> None:
        """Put a row where reserve finds it from `due` on, and void the entry it had."""
        row.due = due
        row.lane = SOLO if row.solo else lane
        row.token = None
        self._sequence += 1
        row.entry = self._sequence
        partition = row.job.partition
        if partition is None and row.job.task in self._governed:
            partition = KEYLESS
        if partition is not None:
            self.lines.push(row, partition, (due, row.job.id, row.entry, row))
            self.woken_queues.add(row.job.queue)
            return
        strays = self.lanes.get(row.job.queue)
        if strays is None:
            strays = self.lanes[row.job.queue] = {}
        heaps = strays.get(row.stray)
        if heaps is None:
            heaps = strays[row.stray] = Heaps()
        heapq.heappush(heaps.heaps[row.job.priority * LANES + row.lane], (due, row.job.id, row.entry, row))
        self.woken_queues.add(row.job.queue)

    def enforce(self, rules: Rules) -> None:
        """Have these in force from now on."""
        self.rules = rules
        # Asked for each job: told by an attribute, and not by a call.
        self.counts = rules.counts
        self._ruled = bool(rules)
        self._governed = rules.governed

    def finish(self, row: Row, state: JobState, now: int, reason: str = "") -> None:
        """Bring a row to a terminal state: free its lane entry, start its key's and its retention's time."""
        job = row.job
        row.final = state
        row.finished = now
        row.reason = reason
        row.token = None
        row.entry = 0
        row.cancel = None
        if job.key is not None:
            self._let_key_expire(job, now)
        if state is not JobState.DEAD:  # dead letters stay until a person purges them
            retain = self.micros_of(job.retain)
            row.expires = now + retain
            queue = self.expiring.get(retain)
            if queue is None:
                queue = self.expiring[retain] = deque()
            queue.append((row.expires, job.id))
        if self.job_watchers:
            self.woken_jobs.add(job.id)

    def micros_of(self, duration: timedelta) -> int:
        """Return a duration in microseconds."""
        # There are a few distinct ones, each told by thousands of jobs.
        value = self._known_micros.get(duration)
        if value is None:
            if len(self._known_micros) >= _KNOWN_MICROS:
                self._known_micros.clear()
            value = self._known_micros[duration] = duration_micros(duration)
        return value

    def _let_key_expire(self, job: NewJob, now: int) -> None:
        name = (job.task, job.key or "")
        key = self.keys.get(name)
        if key is not None and key.job_id == job.id:
            ttl = duration_micros(job.key_ttl)
            key.expires = now + ttl
            self.expiring_keys.setdefault(ttl, deque()).append((key.expires, name))

    def held_key(self, task: str, name: str, now: int) -> Key | None:
        """Return who holds a key at this instant, or None."""
        key = self.keys.get((task, name))
        if key is None or (key.expires is not None and key.expires <= now):
            return None
        return key

    def leave_lease(self, row: Row) -> None:
        """Take a row out of the lease it is held under, and drop the lease when it was the last."""
        lease = self.leases[row.token]  # type: ignore[index] # pyright: ignore[reportArgumentType] - only called for held rows
        job = row.job
        if self.counts:
            self.count(job, -1)
        if self._ruled or job.partition is not None:
            self._wake_waiting(job)
        del lease.rows[job.id]
        lease.started.discard(job.id)
        if not lease.rows:
            del self.leases[lease.token]

    def state_of(self, row: Row, now: int) -> JobState:
        """Return the state a user sees at this instant."""
        if row.final is not None:
            return row.final
        if row.token is not None:
            return JobState.RUNNING
        if row.waits > 0:
            return JobState.WAITING
        if row.stray is not None and not any(
            row.stray.open_to(w.tasks, w.build) for w in self.live_workers(now)
        ):
            return JobState.PARKED
        if row.due > now:
            return JobState.RETRYING if row.attempt else JobState.SCHEDULED
        return JobState.READY

    def shown_state(self, row: Row, now: int, gates: Gates | None) -> tuple[JobState, str]:
        """Return the state a user sees at this instant, limits and holds considered, and the reason.

        `gates` are those of this instant (`gates_at`).
        """
        state = self.state_of(row, now)
        if gates is not None and state is JobState.READY:
            shut = gates.shut(row.job.task, row.job.partition or KEYLESS)
            if shut is not None:
                return JobState.PARKED, shut
        return state, row.reason

    def gates_at(self, now: int) -> Gates | None:
        """Return the gates of limits at this instant; None if there are no rules."""
        return Gates(self.rules, self.running, self.arrivals, now) if self._ruled else None

    def count(self, job: NewJob, more: int) -> None:
        """Note that so many more jobs of its kind are leased."""
        name = (job.queue, job.task, job.partition or KEYLESS)
        count = self.running.get(name, 0) + more
        if count:
            self.running[name] = count
        else:
            self.running.pop(name, None)

    def _wake_waiting(self, job: NewJob) -> None:
        """Wake who may wait for the room that a job leaves: in the queues with lines of its task, and in its own."""
        self.woken_queues.update(self.lines.queues.get(job.task, ()))
        if job.queue in self.rules.queues:
            self.woken_queues.add(job.queue)

    def live_workers(self, now: int) -> Iterator[Worker]:
        """Yield the workers heard within their ttl."""
        return (worker for worker in self.workers.values() if worker.seen + worker.ttl > now)

    def take_wakes(self) -> list[Wake]:
        """Return the callbacks to call once the lock is released, and forget who they were for."""
        wakes: list[Wake] = []
        for queue in self.woken_queues:
            wakes.extend(self.queue_watchers.get(queue, ()))
        for job_id in self.woken_jobs:
            wakes.extend(self.job_watchers.get(job_id, ()))
        self.woken_queues.clear()
        self.woken_jobs.clear()
        return wakes


def subscribe(
    tables: Tables, watchers: dict[str, list[Wake]], names: list[str], wake: Wake
) -> Callable[[], None]:
    """Add a watcher under each name, and return what removes it again."""
    with tables.lock:
        for name in names:
            watchers.setdefault(name, []).append(wake)

    def remove() -> None:
        with tables.lock:
            for name in names:
                left = watchers.get(name, [])
                if wake in left:
                    left.remove(wake)
                if not left:
                    watchers.pop(name, None)

    return remove


def as_duration(value: int) -> timedelta:
    """Return microseconds as a timedelta, never negative."""
    return timedelta(microseconds=max(value, 0))
