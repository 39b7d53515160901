"""Which jobs of lines a reserve takes: one decision for every driver (rules 24 and 25).

Jobs with a partition, and jobs of a *governed* task (one that has a limit, or is held back, whole or by key), stand in
*lines*: one for each queue, priority, task and partition, in the order of lane, due time and id as the plain lanes are.
(Each kind of stray stands in lines of its own, which only workers that may take it look at. Plain jobs of a task that
comes to be governed are moved into the line of `KEYLESS` when they are met, or before.)

A reserve goes through the priorities in order. Within one, the lines of all queues named take turns, job by job, in
the order of task and partition, going on after the line that was served last in their queue and priority (the *turn*,
kept in the store). Which queue comes first, and whether the lines or the plain lanes of that priority do, changes from
reserve to reserve, by its token. Within a line nothing is passed over: a job that may not be taken now (guarded, or
solo, and no slot for it) holds up its line, and no other.

What a line may give is the least room of its *gates*: its queue's, its task's, and its partition's. A gate counts the
jobs that are leased now, and lets them through at its rate (GCRA: one theoretical arrival time a gate, in whole
microseconds, by the store's clock). A queue's gate counts its plain jobs as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

import msgspec

from taskharbor.clock import duration_micros
from taskharbor.limit import KEYLESS, LimitTerms, RateTerms, Scope, ScopeKind

LOOK_AGAIN_MICROS = 1_000_000
"""When to look again where a gate is full. As a rule one is woken before: by the end of a job of the same queue."""
_ENDLESS = 1 << 62


class Line(NamedTuple):
    """One line, and its place among those of its queue and priority: by task, partition, kind of stray."""

    queue: str
    priority: int
    task: str
    partition: str
    stray: int = 0
    """Which kind, as the driver numbers them; 0 for none."""

    @property
    def turn(self) -> tuple[str, str, int]:
        """Return its place among the lines of its queue and priority."""
        return (self.task, self.partition, self.stray)


class Candidate(NamedTuple):
    """A job at the head of a line, or behind those before it, that is due."""

    id: str
    guarded: bool = False
    solo: bool = False


class Waiting(NamedTuple):
    """A line, and the first of its jobs that are due."""

    line: Line
    jobs: Sequence[Candidate]
    more: bool = False
    """There are more of them that are due than `jobs`."""


class Rules:
    """What limits and holds are in force: read from the store, and kept as long as they do not change there."""

    def __init__(self, terms: Mapping[Scope, LimitTerms], held: Mapping[Scope, str]) -> None:
        """Take what is in force.

        Args:
            terms: of each scope that has limits.
            held: what is held back, each with the reason.
        """
        self.terms = {scope: terms[scope] for scope in terms if terms[scope]}
        self.held = dict(held)
        self.governed = frozenset(
            scope.name for scope in (*self.terms, *self.held) if scope.kind is not ScopeKind.QUEUE
        )
        """Names of tasks whose jobs stand in lines, whether or not they have a partition."""
        self.queues = frozenset(scope.name for scope in self.terms if scope.kind is ScopeKind.QUEUE)
        """Queues with limits."""
        self.counts = any(terms.max_running is not None for terms in self.terms.values())
        """Whether it matters how many jobs are leased."""
        self._gates: dict[tuple[str, str, str], tuple[tuple[Scope, LimitTerms], ...]] = {}

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self.terms or self.held)

    def gates(self, queue: str, task: str, partition: str) -> tuple[tuple[Scope, LimitTerms], ...]:
        """Return the gates that a line's jobs pass, with their terms."""
        name = (queue, task, partition)
        found = self._gates.get(name)
        if found is None:
            if len(self._gates) >= 20_000:
                self._gates.clear()
            found = self._gates[name] = tuple(self._made(queue, task, partition))
        return found

    def queue_gate(self, queue: str) -> tuple[tuple[Scope, LimitTerms], ...]:
        """Return the gate of a queue's plain jobs."""
        scope = Scope(ScopeKind.QUEUE, queue)
        terms = self.terms.get(scope)
        return () if terms is None else ((scope, terms),)

    def hold(self, task: str, partition: str) -> str | None:
        """Return why a line is held back, as people read it; None if it is not."""
        if not self.held:  # as a rule; it is asked for each job of each line
            return None
        for scope in (Scope(ScopeKind.TASK, task), Scope(ScopeKind.KEY, task, partition)):
            if scope in self.held:
                reason = self.held[scope]
                return f"{scope} is held back" + (f": {reason}" if reason else "")
        return None

    def shared_gates(self, queue: str, task: str) -> tuple[tuple[Scope, LimitTerms], ...]:
        """Return the gates that all lines of a task in a queue have in common."""
        scope = Scope(ScopeKind.TASK, task)
        terms = self.terms.get(scope)
        return self.queue_gate(queue) + (() if terms is None else ((scope, terms),))

    def _made(self, queue: str, task: str, partition: str) -> Iterable[tuple[Scope, LimitTerms]]:
        yield from self.shared_gates(queue, task)
        own = Scope(ScopeKind.KEY, task, partition)
        each = self.terms.get(Scope(ScopeKind.KEYS, task), LimitTerms())
        one = self.terms.get(own, LimitTerms())
        terms = LimitTerms(
            max_running=each.max_running if one.max_running is None else one.max_running,
            rate=each.rate if one.rate is None else one.rate,
        )
        if terms:
            yield own, terms


class Gates:
    """The gates at one instant: how many jobs are leased behind each, and when its rate lets the next one through."""

    def __init__(
        self,
        rules: Rules,
        running: Mapping[tuple[str, str, str], int],
        arrivals: Mapping[Scope, int],
        now: int,
    ) -> None:
        """Look at them.

        Args:
            rules: what is in force.
            running: how many jobs are leased of each queue, task and partition (`KEYLESS` for none), of those that
                rules speak of. Not read where `rules.counts` is not set.
            arrivals: the theoretical arrival times, in microseconds, of gates with a rate; none for one that was not
                used yet. Those of QUEUE, TASK and KEY scopes.
            now: the store's time, in microseconds.
        """
        self.rules = rules
        self.now = now
        self._arrivals = arrivals
        self.changed: dict[Scope, int] = {}
        """Arrival times that are to be written back."""
        self._running: dict[Scope, int] = {}
        self.count(running)

    def count(self, running: Mapping[tuple[str, str, str], int]) -> None:
        """Note how many jobs are leased, where that was not known at first."""
        for (queue, task, partition), count in running.items():
            for scope, _ in self.rules.gates(queue, task, partition):
                self._running[scope] = self._running.get(scope, 0) + count

    def room(self, line: Line) -> int:
        """Return how many jobs a line may give now; zero if it is held back."""
        if self.rules.hold(line.task, line.partition) is not None:
            return 0
        return self._room(self.rules.gates(line.queue, line.task, line.partition))

    def queue_room(self, queue: str) -> int:
        """Return how many plain jobs a queue may give now."""
        return self._room(self.rules.queue_gate(queue))

    def closed(self, queue: str, task: str) -> bool:
        """Return whether no line of a task in a queue may give anything now, whatever its partition."""
        if Scope(ScopeKind.TASK, task) in self.rules.held:
            return True
        return self._room(self.rules.shared_gates(queue, task)) <= 0

    def closed_wait(self, queue: str, task: str) -> int | None:
        """Return when to look again where all lines of a task are closed, as `wait` does for one."""
        if Scope(ScopeKind.TASK, task) in self.rules.held:
            return None
        return self._wait(self.rules.shared_gates(queue, task))

    def take(self, line: Line, count: int = 1) -> None:
        """Let jobs of a line through."""
        self._take(self.rules.gates(line.queue, line.task, line.partition), count)

    def take_plain(self, queue: str, count: int) -> None:
        """Let plain jobs of a queue through."""
        self._take(self.rules.queue_gate(queue), count)

    def wait(self, line: Line) -> int | None:
        """Return when to look at a line again whose room is zero, in microseconds from now; None: when one is woken."""
        if self.rules.hold(line.task, line.partition) is not None:
            return None
        return self._wait(self.rules.gates(line.queue, line.task, line.partition))

    def queue_wait(self, queue: str) -> int | None:
        """Return the same of a queue's plain jobs."""
        return self._wait(self.rules.queue_gate(queue))

    def shut(self, task: str, partition: str) -> str | None:
        """Return why no job of a task and partition may be taken now, of any queue; None if some may.

        A queue's own gate has no part in this: as with a paused queue, its jobs are ready.
        """
        held = self.rules.hold(task, partition)
        if held is not None:
            return held
        for scope, terms in self.rules.gates("", task, partition):
            if scope.kind is ScopeKind.QUEUE:
                continue
            if terms.max_running is not None and self._running.get(scope, 0) >= terms.max_running:
                return f"{scope} has {terms.max_running} running, its limit"
            if terms.rate is not None and self._tokens(scope, terms.rate) <= 0:
                return f"{scope} is at its rate"
        return None

    def scopes(self) -> set[Scope]:
        """Return every scope that something is known of: limited, held back, with jobs leased, a rate in use."""
        return {*self.rules.terms, *self.rules.held, *self._running, *self._arrivals}

    def running(self, scope: Scope) -> int:
        """Return how many jobs are leased behind a gate."""
        return self._running.get(scope, 0)

    def _room(self, gates: Sequence[tuple[Scope, LimitTerms]]) -> int:
        room = _ENDLESS
        for scope, terms in gates:
            if terms.max_running is not None:
                room = min(room, terms.max_running - self._running.get(scope, 0))
            if terms.rate is not None:
                room = min(room, self._tokens(scope, terms.rate))
        return max(room, 0)

    def _take(self, gates: Sequence[tuple[Scope, LimitTerms]], count: int) -> None:
        for scope, terms in gates:
            self._running[scope] = self._running.get(scope, 0) + count
            if terms.rate is not None:
                self.changed[scope] = self._arrival(scope, terms.rate) + count * interval(terms.rate)

    def _wait(self, gates: Sequence[tuple[Scope, LimitTerms]]) -> int | None:
        wait = 0
        for scope, terms in gates:
            if terms.max_running is not None and self._running.get(scope, 0) >= terms.max_running:
                if terms.max_running == 0:
                    return None
                wait = max(wait, LOOK_AGAIN_MICROS)
            if terms.rate is not None and self._tokens(scope, terms.rate) <= 0:
                earliest = self._arrival(scope, terms.rate) - (terms.rate.burst - 1) * interval(terms.rate)
                wait = max(wait, earliest - self.now)
        return wait

    def _arrival(self, scope: Scope, rate: RateTerms) -> int:
        known = self.changed.get(scope)
        if known is None:
            known = self._arrivals.get(scope, 0)
        # A clock that was set back, or terms that were made quicker, must not keep it shut for longer than its burst:
        # written back, or it would be put off again with each look.
        latest = self.now + rate.burst * interval(rate)
        if known > latest:
            known = self.changed[scope] = latest
        return max(known, self.now)

    def _tokens(self, scope: Scope, rate: RateTerms) -> int:
        step = interval(rate)
        return (self.now + rate.burst * step - self._arrival(scope, rate)) // step


def interval(rate: RateTerms) -> int:
    """Return the microseconds from one job to the next at a rate; rounded up, so that it is never above."""
    return max(-(-duration_micros(rate.per) // rate.limit), 1)


class Quota(msgspec.Struct):
    """What a reserve may still take. The driver's walk over the plain lanes draws on the same."""

    limit: int
    queues: dict[str, int]
    """Of each queue named."""
    guarded: int
    solo: int
    partitioned: int
    """Of jobs in lines, and of plain jobs of queues with limits."""
    held_back: bool = False
    """A job was met that may be taken once a slot is free: a guarded one, or one of a line beyond `partitioned`."""

    def room(self, queue: str) -> int:
        """Return how many jobs of lines may still be taken of a queue."""
        return min(self.limit, self.queues.get(queue, 0), self.partitioned)


class Allotted(NamedTuple):
    """What is to be taken of lines."""

    jobs: list[list[str]]
    """Ids, of each line that was given, in order."""
    last: dict[tuple[str, int], tuple[str, str, int]]
    """The turn of each queue and priority: after which line to go on the next time. Only those that change."""
    hungry: bool
    """Some line came to the end of the jobs given, has more, and could still give them: ask again with those."""
    wait: int | None
    """When something of what was left may be taken, in microseconds from now: zero at once, as where the quota has come
    to its end; None: when one is woken."""


def in_turn(lines: Iterable[Line], after: tuple[str, str, int] | None) -> list[Line]:
    """Return the lines of one queue and priority in the order in which they are served."""
    ordered = sorted(lines, key=_turn)
    if after is None:
        return ordered
    return [line for line in ordered if line.turn > after] + [line for line in ordered if line.turn <= after]


def _turn(line: Line) -> tuple[str, str, int]:
    return line.turn


def queues_in_turn(queues: Sequence[str], token: int) -> list[str]:
    """Return the queues in the order in which this reserve looks at their lines."""
    start = (token >> 1) % len(queues) if queues else 0
    return [*queues[start:], *queues[:start]]


def lines_first(token: int) -> bool:
    """Return whether this reserve looks at the lines of a priority before its plain lanes, or after them."""
    return token & 1 == 1


def allot(waiting: Sequence[Waiting], gates: Gates, quota: Quota) -> Allotted:
    """Give each line its turn, job by job, until the quota, the room of the gates, or the jobs come to an end.

    Args:
        waiting: the lines of one priority that have jobs that are due, in the order in which they are served.
        gates: the gates; what is taken is taken from their room.
        quota: what may still be taken; what is taken is taken from it.
    """
    jobs: list[list[str]] = [[] for _ in waiting]
    last: dict[tuple[str, int], tuple[str, str, int]] = {}
    waits: list[int] = []
    hungry = False
    open_lines = [number for number, one in enumerate(waiting) if one.jobs]
    while open_lines:
        still: list[int] = []
        for number in open_lines:
            line, candidates, more = waiting[number]
            if quota.limit <= 0 or quota.queues.get(line.queue, 0) <= 0:
                waits.append(0)
                continue
            if gates.room(line) <= 0:
                wait = gates.wait(line)
                if wait is not None:
                    waits.append(wait)
                continue
            if quota.partitioned <= 0:
                quota.held_back = True
                waits.append(0)
                continue
            job = candidates[len(jobs[number])]
            if (job.guarded and quota.guarded <= 0) or (job.solo and quota.solo <= 0):
                quota.held_back = quota.held_back or not job.solo or quota.solo > 0
                if not job.solo or quota.solo > 0:
                    waits.append(0)
                continue
            quota.limit -= 1
            quota.partitioned -= 1
            quota.queues[line.queue] -= 1
            quota.guarded -= job.guarded
            quota.solo -= job.solo
            gates.take(line)
            jobs[number].append(job.id)
            last[line.queue, line.priority] = line.turn
            if len(jobs[number]) < len(candidates):
                still.append(number)
            elif more:
                hungry = True
        open_lines = still
    return Allotted(
        jobs, last, hungry and quota.limit > 0 and quota.partitioned > 0, min(waits, default=None)
    )


def line_of(queue: str, priority: int, task: str, partition: str | None, stray: int = 0) -> Line:
    """Return the line of a job; one without a partition stands in its task's keyless one."""
    return Line(queue, priority, task, KEYLESS if partition is None else partition, stray)


def as_wait(micros: int | None) -> timedelta | None:
    """Return a wait as an answer tells it."""
    return None if micros is None else timedelta(microseconds=max(micros, 0))
