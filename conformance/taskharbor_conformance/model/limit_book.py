"""The book of limits: what rules 24 and 25 say, in a second and deliberately naive reading.

A rate is a bucket here, which time fills, and not an arrival time; what runs is counted anew each time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from taskharbor.driver import JobReserve
from taskharbor.job import JobState, NewJob
from taskharbor.limit import LimitTerms, RateTerms, Scope, ScopeKind

START = datetime(2026, 1, 1, tzinfo=UTC)
ZERO = timedelta(0)
_ENDLESS = 1_000_000


@dataclass
class LimitedJob:
    """One job as the rules see it."""

    new: NewJob
    due: datetime
    front: bool = False
    attempt: int = 0
    token: int | None = None
    final: JobState | None = None

    @property
    def pending(self) -> bool:
        """Return whether it waits to be reserved."""
        return self.final is None and self.token is None

    @property
    def order(self) -> tuple[bool, datetime, str]:
        """Return its place in its line, or among the plain jobs of its priority."""
        return not self.front, self.due, self.new.id

    @property
    def line(self) -> tuple[str, str]:
        """Return its place among the lines of its queue and priority."""
        return self.new.task, self.new.partition or ""


@dataclass
class LimitedLease:
    """A lease, with the jobs that are under it still."""

    worker: str
    expires_at: datetime
    ids: list[str]


class Gate(NamedTuple):
    """A scope that a job needs room in, with what is in force there."""

    scope: Scope
    terms: LimitTerms


@dataclass
class Bucket:
    """How much of a rate is used up: the time until all of its burst is there again."""

    missing: timedelta = ZERO
    at: datetime = START

    def look(self, now: datetime) -> timedelta:
        """Return what is missing by now."""
        self.missing, self.at = max(self.missing - (now - self.at), ZERO), now
        return self.missing


@dataclass
class _Left:
    """What a reserve may still take."""

    limit: int
    queues: dict[str, int]
    partitioned: int


@dataclass
class Limited:
    """What a reserve should take: ids by line, and plain ones; and when it has to be asked again at the latest."""

    ids: list[str] = field(default_factory=list[str])
    again: timedelta | None = None


class LimitBook:
    """All jobs, leases, limits and holds, and what each verb does to them."""

    def __init__(self) -> None:
        self.now = START
        self.jobs: dict[str, LimitedJob] = {}
        self.leases: dict[int, LimitedLease] = {}
        self.paused: set[str] = set()
        self.declared: dict[Scope, LimitTerms] = {}
        self.overrides: dict[Scope, LimitTerms] = {}
        self.held: set[Scope] = set()
        self.turns: dict[tuple[str, int], tuple[str, str]] = {}
        self.buckets: dict[Scope, Bucket] = {}

    # limits

    def terms(self, scope: Scope) -> LimitTerms:
        """Return what is in force."""
        return self.overrides.get(scope, self.declared.get(scope, LimitTerms()))

    def rules_changed(self) -> None:
        """Forget the rates that are no more: one that comes later begins with its whole burst."""
        for scope in list(self.buckets):
            key = scope.key if scope.kind is ScopeKind.KEY else ""
            queue = scope.name if scope.kind is ScopeKind.QUEUE else ""
            task = "" if queue else scope.name
            if not any(gate.scope == scope and gate.terms.rate for gate in self.gates(queue, task, key)):
                del self.buckets[scope]

    def gates(self, queue: str, task: str | None, partition: str) -> Iterator[Gate]:
        """Return what a job has to pass; a plain one of no task that is known here, its queue's only."""
        yield Gate(own := Scope(ScopeKind.QUEUE, queue), self.terms(own))
        if task is None:
            return
        yield Gate(whole := Scope(ScopeKind.TASK, task), self.terms(whole))
        each, one = self.terms(Scope(ScopeKind.KEYS, task)), self.terms(Scope(ScopeKind.KEY, task, partition))
        yield Gate(
            Scope(ScopeKind.KEY, task, partition),
            LimitTerms(
                each.max_running if one.max_running is None else one.max_running,
                each.rate if one.rate is None else one.rate,
            ),
        )

    def running(self, scope: Scope) -> int:
        """Return how many jobs of a scope are leased."""
        return sum(job.token is not None and _concerns(scope, job.new) for job in self.jobs.values())

    def is_held(self, task: str, partition: str) -> bool:
        """Return whether a line is held back."""
        return not self.held.isdisjoint({Scope(ScopeKind.TASK, task), Scope(ScopeKind.KEY, task, partition)})

    def _gates_of(self, new: NewJob) -> list[Gate]:
        return list(self.gates(new.queue, None if new.partition is None else new.task, new.partition or ""))

    def _room(self, gates: Iterable[Gate]) -> int:
        return min((self._room_of(gate) for gate in gates), default=_ENDLESS)

    def _room_of(self, gate: Gate) -> int:
        room = _ENDLESS
        if gate.terms.max_running is not None:
            room = gate.terms.max_running - self.running(gate.scope)
        if gate.terms.rate is not None:
            rate = gate.terms.rate
            room = min(room, (rate.burst * step(rate) - self._missing(gate.scope)) // step(rate))
        return max(room, 0)

    def _missing(self, scope: Scope) -> timedelta:
        bucket = self.buckets.get(scope)
        return ZERO if bucket is None else bucket.look(self.now)

    def _take(self, job: LimitedJob, token: int) -> None:
        job.token = token
        for gate in self._gates_of(job.new):
            if gate.terms.rate is not None:
                bucket = self.buckets.setdefault(gate.scope, Bucket(ZERO, self.now))
                bucket.missing = bucket.look(self.now) + step(gate.terms.rate)

    # what a reader sees

    def state(self, job: LimitedJob) -> JobState:
        """Return the state a user sees now."""
        state = self.state_told(job)
        return JobState.PARKED if state is JobState.READY and self._shut(job.new) else state

    def state_told(self, job: LimitedJob) -> JobState:
        """Return the state as a settlement's answer tells it, which does not look at limits."""
        if job.final is not None:
            return job.final
        if job.token is not None:
            return JobState.RUNNING
        if job.due > self.now:
            return JobState.RETRYING if job.attempt else JobState.SCHEDULED
        return JobState.READY

    def _shut(self, new: NewJob) -> bool:
        if new.partition is None:
            return False
        own = [gate for gate in self._gates_of(new) if gate.scope.kind is not ScopeKind.QUEUE]
        return self.is_held(new.task, new.partition) or self._room(own) == 0

    # reserve

    def reserve(self, request: JobReserve) -> Limited:
        """Lease the next jobs and return what the answer should be."""
        names = [take.name for take in request.queues if take.name not in self.paused]
        first = (request.token >> 1) % len(names) if names else 0
        names = names[first:] + names[:first]
        whole = request.limit if request.partitioned_limit is None else request.partitioned_limit
        left = _Left(request.limit, {take.name: take.limit for take in request.queues}, whole)
        taken: list[str] = []
        for priority in range(10):
            steps = [self._take_lines, self._take_plain]
            for take in steps if request.token & 1 else reversed(steps):
                taken += take(names, priority, left, request.token)
        if taken:
            self.leases[request.token] = LimitedLease(request.worker, self.now + request.lease, list(taken))
        return Limited(taken, self._again(names))

    def _due(self, queue: str, priority: int, *, plain: bool) -> list[LimitedJob]:
        found = [
            job
            for job in self.jobs.values()
            if job.pending
            and job.due <= self.now
            and (job.new.queue, job.new.priority) == (queue, priority)
            and (job.new.partition is None) == plain
        ]
        return sorted(found, key=lambda job: job.order)

    def _take_lines(self, names: Sequence[str], priority: int, left: _Left, token: int) -> list[str]:
        lines: list[tuple[str, tuple[str, str], list[LimitedJob]]] = []
        for queue in names:
            due = self._due(queue, priority, plain=False)
            last = self.turns.get((queue, priority), ("", ""))
            places = sorted({job.line for job in due})
            had = (queue, priority) in self.turns
            beyond = [place for place in places if not had or place > last]
            in_turn = [*beyond, *(place for place in places if place not in beyond)]
            lines += [(queue, place, [job for job in due if job.line == place]) for place in in_turn]
        taken: list[str] = []
        while True:
            before = len(taken)
            for queue, place, jobs in lines:
                if not jobs or min(left.limit, left.queues[queue], left.partitioned) <= 0:
                    continue
                if self.is_held(*place) or self._room(self._gates_of(jobs[0].new)) <= 0:
                    continue
                job = jobs.pop(0)
                self._take(job, token)
                self.turns[queue, priority] = place
                left.limit -= 1
                left.queues[queue] -= 1
                left.partitioned -= 1
                taken.append(job.new.id)
            if len(taken) == before:
                return taken

    def _take_plain(self, names: Sequence[str], priority: int, left: _Left, token: int) -> list[str]:
        taken: list[str] = []
        due = [job for queue in names for job in self._due(queue, priority, plain=True)]
        for job in sorted(due, key=lambda job: job.order):
            queue = job.new.queue
            limited = bool(self.terms(Scope(ScopeKind.QUEUE, queue)))
            if min(left.limit, left.queues[queue]) <= 0 or (limited and left.partitioned <= 0):
                continue
            if self._room(self._gates_of(job.new)) <= 0:
                continue
            self._take(job, token)
            left.limit -= 1
            left.queues[queue] -= 1
            left.partitioned -= limited
            taken.append(job.new.id)
        return taken

    def _again(self, names: Sequence[str]) -> timedelta | None:
        """Return in how long some job may be taken that may not now, if nothing but time passes."""
        waits: list[timedelta] = []
        for job in self.jobs.values():
            if not job.pending or job.new.queue not in names:
                continue
            if job.new.partition is not None and self.is_held(*job.line):
                continue
            wait = max(job.due - self.now, ZERO)
            gates = self._gates_of(job.new)
            if any(
                gate.terms.max_running is not None and gate.terms.max_running <= self.running(gate.scope)
                for gate in gates
            ):
                continue
            for gate in gates:
                rate = gate.terms.rate
                if rate is not None:
                    wait = max(wait, self._missing(gate.scope) - (rate.burst - 1) * step(rate))
            waits.append(wait)
        return min(waits, default=None)

    # the ends of leases

    def leave(self, job: LimitedJob) -> None:
        """Take a job out of its lease."""
        assert job.token is not None
        lease = self.leases[job.token]
        lease.ids.remove(job.new.id)
        if not lease.ids:
            del self.leases[job.token]
        job.token = None

    def wait(self, job: LimitedJob, after: timedelta = ZERO, *, front: bool = False) -> None:
        """Let a job wait to be reserved."""
        job.due, job.front = self.now + after, front


def step(rate: RateTerms) -> timedelta:
    """Return the time from one job to the next: whole microseconds, rounded up."""
    return timedelta(microseconds=-(-(rate.per // timedelta(microseconds=1)) // rate.limit))


def _concerns(scope: Scope, new: NewJob) -> bool:
    match scope.kind:
        case ScopeKind.QUEUE:
            return new.queue == scope.name
        case ScopeKind.TASK | ScopeKind.KEYS:
            return new.task == scope.name
        case _:
            return (new.task, new.partition or "") == (scope.name, scope.key)
