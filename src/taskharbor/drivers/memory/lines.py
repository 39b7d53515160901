"""Lines: jobs that take turns, or whose task has limits, one line for each task, partition and kind of stray.

A line is three heaps, as the lanes are. The lines of one queue and priority are kept in the order of their turns; one
that has become empty is dropped when it is met.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from itertools import islice

from taskharbor.driver import Candidate, Gates, Line, Quota, Waiting, allot
from taskharbor.drivers.memory.rows import LANES, SOLO, Row, Stray

Turn = tuple[str, str, int]
"""(task, partition, number of the kind of stray): a line's place among those of its queue and priority."""
Entry = tuple[int, str, int, Row]
"""As in a lane: (due, id, sequence number, row)."""


class Ring:
    """The lines of one queue and priority."""

    __slots__ = ("after", "heaps", "order")

    def __init__(self) -> None:
        self.order: list[Turn] = []
        self.heaps: dict[Turn, list[list[Entry]]] = {}
        self.after: Turn | None = None
        """The line that was served last."""

    def push(self, turn: Turn, lane: int, entry: Entry) -> None:
        """Put a job into its line."""
        heaps = self.heaps.get(turn)
        if heaps is None:
            heaps = self.heaps[turn] = [[] for _ in range(LANES)]
            insort(self.order, turn)
        heapq.heappush(heaps[lane], entry)

    def in_turn(self, closed: Callable[[str], bool] | None = None) -> Iterator[tuple[Turn, int]]:
        """Yield the lines in the order in which they are served, each with when its first job is due.

        Those that are empty are dropped, and those of tasks that are closed passed over, all of a task at once.
        """
        place = 0 if self.after is None else bisect_right(self.order, self.after)
        for turns in (self.order[place:], self.order[:place]):
            task, number = None, 0
            while number < len(turns):
                turn = turns[number]
                if turn[0] != task:
                    task = turn[0]
                    if closed is not None and closed(task):
                        number = bisect_left(turns, (f"{task}\0",), number)
                        continue
                number += 1
                due = self.due(turn)
                if due is None:
                    del self.heaps[turn]
                    del self.order[bisect_left(self.order, turn)]
                else:
                    yield turn, due

    def candidates(self, turn: Turn, now: int, count: int) -> tuple[list[Row], bool]:
        """Return the first jobs of a line that are due, and whether there are others behind them, due or not."""
        found: list[Row] = []
        more = False
        for heap in self.heaps[turn]:
            head = _head(heap) if heap else None
            if head is None:
                continue
            wanted = count - len(found)
            if wanted <= 0 or head[0] > now:
                more = True
            elif wanted == 1 or len(heap) == 1:
                found.append(head[3])
                more = more or len(heap) > 1
            else:
                popped: list[Entry] = []
                while len(popped) < wanted and (entry := _head(heap)) is not None and entry[0] <= now:
                    popped.append(heapq.heappop(heap))
                more = more or bool(heap)
                for entry in popped:
                    found.append(entry[3])
                    heapq.heappush(heap, entry)
        return found, more

    def due(self, turn: Turn) -> int | None:
        """Return when the first job of a line is due; None if it is empty."""
        first: int | None = None
        for heap in self.heaps[turn]:
            if heap and (head := _head(heap)) is not None and (first is None or head[0] < first):
                first = head[0]
        return first

    def elder(self, turn: Turn, before: int, now: int) -> Row | None:
        """Return the next job of a line if it has been due since before then, and does not stand alone."""
        for lane, heap in enumerate(self.heaps[turn]):
            head = _head(heap)
            if head is not None and head[0] <= now:
                return head[3] if lane != SOLO and head[0] < before else None
        return None


def _head(heap: list[Entry]) -> Entry | None:
    while heap:
        if heap[0][3].entry == heap[0][2]:
            return heap[0]
        heapq.heappop(heap)
    return None


class Lines:
    """The lines of all queues."""

    def __init__(self) -> None:
        self.rings: dict[str, dict[int, Ring]] = {}
        self.queues: dict[str, set[str]] = {}
        """In which queues jobs of a task have stood in lines."""
        self._strays: list[Stray] = []
        self._numbers: dict[Stray, int] = {}

    def push(self, row: Row, partition: str, entry: Entry) -> None:
        """Put a job into its line."""
        job = row.job
        rings = self.rings.get(job.queue)
        if rings is None:
            rings = self.rings[job.queue] = {}
        ring = rings.get(job.priority)
        if ring is None:
            ring = rings[job.priority] = Ring()
        number = 0 if row.stray is None else self._number(row.stray)
        ring.push((job.task, partition, number), row.lane, entry)
        queues = self.queues.get(job.task)
        if queues is None:
            queues = self.queues[job.task] = set()
        queues.add(job.queue)

    def _number(self, stray: Stray) -> int:
        number = self._numbers.get(stray)
        if number is None:
            self._strays.append(stray)
            number = self._numbers[stray] = len(self._strays)
        return number

    def open_to(self, turn: Turn, tasks: frozenset[str], build: str) -> bool:
        """Return whether a worker of that build, knowing those tasks, may look at a line."""
        return turn[2] == 0 or self._strays[turn[2] - 1].open_to(tasks, build)


class LineWalk:
    """What one reserve takes of lines."""

    def __init__(
        self,
        lines: Lines,
        gates: Gates,
        quota: Quota,
        now: int,
        *,
        opens: Callable[[Turn], bool],
        take: Callable[[Row], None],
    ) -> None:
        """Begin.

        Args:
            lines: of the store.
            gates: at this instant.
            quota: what may be taken.
            now: this instant.
            opens: which lines this worker may look at.
            take: called with each row that is taken.
        """
        self._lines = lines
        self._gates = gates
        self._quota = quota
        self._now = now
        self._opens = opens
        self._take = take
        self.wait: int | None = None
        """When something that was left may be taken, in microseconds from now."""

    def serve(self, queues: Collection[str], priority: int) -> None:
        """Take what may be taken of one priority."""
        lines = self._open(queues, priority)
        again: list[tuple[Ring, Line]] = []
        while chunk := list(islice(lines, max(self._quota.limit, 1))):  # one of each line, before any has two
            again += self._give(chunk, 1)
            if self._quota.limit <= 0 or (self._quota.partitioned <= 0 and self._quota.held_back):
                self._note(0)
                return
        while again:
            again = self._give(again, max(2 * self._quota.limit // len(again), 1))

    def _open(self, queues: Collection[str], priority: int) -> Iterator[tuple[Ring, Line]]:
        for queue in queues:
            ring = self._lines.rings.get(queue, {}).get(priority)
            if ring is None:
                continue
            for turn, due in ring.in_turn(partial(self._is_closed, queue)):
                if turn[2] and not self._opens(turn):
                    continue
                if due > self._now:
                    self._note(due - self._now)
                else:
                    yield ring, Line(queue, priority, *turn)

    def _is_closed(self, queue: str, task: str) -> bool:
        if not self._gates.closed(queue, task):
            return False
        self._note(self._gates.closed_wait(queue, task))
        return True

    def _give(self, lines: Sequence[tuple[Ring, Line]], count: int) -> list[tuple[Ring, Line]]:
        """Give lines their turns, with so many jobs of each; return those that gave all of them, and have more."""
        found = [(ring, line, *ring.candidates(line.turn, self._now, count)) for ring, line in lines]
        waiting = [
            Waiting(line, [Candidate(row.job.id, row.guarded, row.solo) for row in rows], more)
            for _, line, rows, more in found
        ]
        given = allot(waiting, self._gates, self._quota)
        again: list[tuple[Ring, Line]] = []
        for (ring, line, rows, more), job_ids in zip(found, given.jobs, strict=True):
            for row in rows[: len(job_ids)]:
                self._take(row)
            if not more or len(job_ids) < len(rows):
                continue
            if rows:
                again.append((ring, line))
            elif (due := ring.due(line.turn)) is not None:
                self._note(due - self._now)
        for (queue, priority), turn in given.last.items():
            self._lines.rings[queue][priority].after = turn
        self._note(given.wait)
        return again

    def serve_aged(self, queues: Collection[str], before: int, limit: int) -> int:
        """Take those of a lower priority that have been due since before then, and return how many."""
        room = min(limit, self._quota.limit)
        count = 0
        while count < room and (more := self._give_elders(queues, before, room - count)):
            count += more
        return count

    def _give_elders(self, queues: Collection[str], before: int, room: int) -> int:
        """Take at most one elder of each line, the longest due first, and return how many."""
        quota = self._quota
        elders = Quota(room, quota.queues, quota.guarded, 0, min(room, quota.partitioned))
        waiting: list[tuple[int, Waiting, Row]] = []
        for queue in queues:
            for priority, ring in sorted(self._lines.rings.get(queue, {}).items()):
                for turn, due in ring.in_turn(partial(self._is_closed, queue)) if priority else ():
                    row = ring.elder(turn, before, self._now) if due < before else None
                    if row is not None and self._opens(turn) and row.guarded <= elders.guarded:
                        line = Line(queue, priority, *turn)
                        waiting.append((row.due, Waiting(line, [Candidate(row.job.id, row.guarded)]), row))
        waiting.sort(key=lambda one: (one[0], one[2].job.id))
        given = allot([one[1] for one in waiting], self._gates, elders)
        count = 0
        for (_, _, row), job_ids in zip(waiting, given.jobs, strict=True):
            if job_ids:
                self._take(row)
                count += 1
        quota.limit -= count
        quota.partitioned -= count
        quota.guarded = elders.guarded
        return count

    def _note(self, wait: int | None) -> None:
        if wait is not None and (self.wait is None or wait < self.wait):
            self.wait = wait
