"""A reserve where jobs stand in lines, or limits have a part: lines and plain lanes, priority by priority.

What is taken is decided by `taskharbor.driver.limiting`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from taskharbor.clock import duration_micros
from taskharbor.driver import Gates, JobReserve, Quota, lines_first, queues_in_turn
from taskharbor.drivers.sqlite.lines import DIVERT, LineWalk
from taskharbor.drivers.sqlite.routine import Query, Routine
from taskharbor.drivers.sqlite.rows import Step, json_text
from taskharbor.drivers.sqlite.rules import arrivals_of, keep_arrivals, running_now
from taskharbor.drivers.sqlite.walk import Context, Due, Head, Walk
from taskharbor.limit import Scope

T = TypeVar("T")

_DIVERTED = 2000
"""Jobs that one reserve moves into lines, at most: the file's lock is everybody's."""
_PRIORITIES = range(10)


class GovernedWalk:
    """One walk over lines and plain lanes, priority by priority (`taskharbor.driver.limiting`)."""

    def __init__(
        self, step: Step, request: JobReserve, context: Context, heads: Sequence[Head], *, writes: bool
    ) -> None:
        """Begin; without `writes` it only finds out what could be taken."""
        self.walk = Walk(request, step.now)
        self.diverted = 0
        """How many plain jobs were moved into lines, or would have to be."""
        self._step = step
        self._request = request
        self._context = context
        self._heads = heads
        self._writes = writes
        self._queues = queues_in_turn(
            [take.name for take in request.queues if take.name not in context.paused], request.token
        )
        room = request.limit if request.partitioned_limit is None else request.partitioned_limit
        self._quota = Quota(request.limit, self.walk.left, request.guarded_limit, int(request.solo), room)
        self._limited = sorted(context.rules.queues.intersection(self._queues))
        self._counted = False
        self._arrivals: dict[Scope, int] = {}
        self._gates = Gates(context.rules, {}, self._arrivals, step.now)
        self._lines = LineWalk(self._gates, self._arrivals, self._quota, step.now, (0, *context.open_strays))

    def run(self) -> Routine[None]:
        """Take what may be taken."""
        rules, request = self._context.rules, self._request
        limited = [scope for queue in self._limited for scope, _ in rules.queue_gate(queue)]
        self._arrivals.update((yield from arrivals_of(limited)))
        if rules.governed:
            self.walk.governed, self.walk.divert = rules.governed, self._divert
        yield from self._find()
        if request.aged is not None:
            aged, before = request.aged, len(self.walk.taken)
            yield from self._within(self.walk.take_aged(self._heads, aged))
            last = self._step.now - duration_micros(aged.after)
            yield from self._lines.serve_aged(last, aged.limit - len(self.walk.taken) + before)
            self._take_over()
        first = lines_first(request.token)
        for priority in _PRIORITIES:
            if first:
                yield from self._serve(priority)
            heads = [head for head in self._heads if head.priority == priority]
            diverted = self.diverted
            if heads and not (yield from self._within(self.walk.run(heads))):
                break
            if self.diverted > diverted and self._writes:
                yield from self._find()
            if not first or self.diverted > diverted:
                yield from self._serve(priority)
        self.walk.held_back = self.walk.held_back or self._quota.held_back
        if self._lines.wait is not None:
            self.walk.note_due(self._step.now + self._lines.wait)
        if self.diverted >= _DIVERTED:
            self.walk.note_due(self._step.now)

    @property
    def puts_right(self) -> bool:
        """Whether arrivals are to be written though nothing is taken: terms became quicker, or the clock went back.

        Left unwritten, they would be put off again with each look, until the time that was said before.
        """
        return bool(self._gates.changed)

    def keep(self) -> Routine[None]:
        """Write down whose turn it was, and what was taken of rates."""
        yield from self._lines.keep_turns()
        yield from keep_arrivals(list(self._gates.changed.items()))

    def _find(self) -> Routine[None]:
        """Look where lines are; and what is leased, where that matters: plain queues pay for no limits of others."""
        yield from self._lines.find(self._queues)
        if not self._counted and (self._limited or self._lines.priorities):
            self._counted = True
            self._gates.count((yield from running_now(self._context.rules)))

    def _serve(self, priority: int) -> Routine[None]:
        yield from self._lines.serve(priority)
        self._take_over()

    def _take_over(self) -> None:
        self.walk.taken += self._lines.taken
        self._lines.taken = []

    def _divert(self, jobs: list[Due]) -> Routine[bool]:
        """Move plain jobs of governed tasks into their lines; return whether to look again at what is there now."""
        if not self._writes or self.diverted >= _DIVERTED:
            self.diverted += len(jobs)
            return False
        self.diverted += len(jobs)
        yield Query(DIVERT, (json_text([job.id for job in jobs]),))
        return True

    def _within(self, routine: Routine[T]) -> Routine[T]:
        """Take plain jobs within the rooms that queues with limits have, and note what was taken."""
        walk, quota, gates = self.walk, self._quota, self._gates
        kept: dict[str, int] = {}
        for queue in self._limited:
            room = gates.queue_room(queue)
            if room < quota.queues[queue]:
                kept[queue] = quota.queues[queue] - room
                quota.queues[queue] = room
        before = len(walk.taken)
        walk.limit, walk.guarded_left, walk.solo_left = before + quota.limit, quota.guarded, quota.solo
        walk.limited, walk.limited_left = frozenset(self._limited), quota.partitioned
        left = dict(quota.queues)
        answer = yield from routine
        for queue in self._limited:
            count = left[queue] - quota.queues[queue]
            gates.take_plain(queue, count)
            quota.partitioned -= count
            quota.queues[queue] += kept.get(queue, 0)
        quota.limit -= len(walk.taken) - before
        quota.guarded, quota.solo = walk.guarded_left, walk.solo_left
        for queue in walk.left_due:
            wait = gates.queue_wait(queue)
            if gates.queue_room(queue) > 0 and quota.queues[queue] > 0 and quota.partitioned <= 0:
                quota.held_back = True
            if wait is not None:
                walk.note_due(self._step.now + wait)
        walk.left_due.clear()
        return answer
