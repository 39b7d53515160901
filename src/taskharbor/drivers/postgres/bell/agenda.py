"""What waits to be sent, and when it is due: decisions alone, with no clock, thread or connection.

The first ring for a queue is due at once; what follows within a window is gathered, and due once when it ends. An echo
is due a little after it was asked for. Times are seconds of any one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from math import inf
from typing import NamedTuple

RING_WINDOW = 0.02
ASK_WINDOW = 0.005
ECHO_WINDOW = 0.1
MOST_NAMES = 10_000
"""How many names wait while nothing can be sent. When there are more, everybody is to be woken instead."""
MOST_ASKED = 1000
"""Jobs marked by one statement."""
_HELD_FIRST = 0.005
_HELD_GROWTH = 1.5
"""Most jobs that somebody waits for are short, and end unmarked between two looks: no wait is much of their life."""
_HELD_LONGEST = 0.5


class Work(NamedTuple):
    """What is due at one time."""

    queues: list[str]
    jobs: list[str]
    everybody: bool
    asked: list[str]
    """Jobs to be marked as awaited."""
    echoes: list[str]
    """Queues for which callers' transactions were not told to ring."""


class Agenda:
    """What one process has to send. For one thread at a time."""

    def __init__(self) -> None:
        self._queues: dict[str, float] = {}
        """When each is due."""
        self._queues_due = inf
        self._quiet: dict[str, float] = {}
        """Until when a queue that was rung is not rung again."""
        self._jobs = _Batch(RING_WINDOW)
        self._everybody = False
        self._no_ring_before = -inf
        self._echoes = _Batch(0.0)
        self._asked = _Batch(ASK_WINDOW)
        self._held: dict[str, float] = {}
        """When to ask again for a job whose row was locked."""
        self._held_due = inf
        self._held_waits: dict[str, float] = {}

    def ring(self, queues: Iterable[str], jobs: Iterable[str], now: float) -> None:
        """Note that these are to be rung."""
        for queue in queues:
            if queue not in self._queues:
                self._queues[queue] = due = max(now, self._quiet.get(queue, now))
                self._queues_due = min(self._queues_due, due)
        self._jobs.add(jobs)
        self._bound()

    def echo(self, queues: Iterable[str], now: float) -> None:
        """Note that these are to be rung a little later."""
        if not self._echoes.names:
            self._echoes.free_at = now + ECHO_WINDOW
        self._echoes.add(queues)
        self._bound()

    def _bound(self) -> None:
        if len(self._queues) + len(self._jobs.names) + len(self._echoes.names) > MOST_NAMES:
            self._queues.clear()
            self._queues_due = inf
            self._jobs.names.clear()
            self._echoes.names.clear()
            self._everybody = True

    def ring_again(self, work: Work, at: float) -> None:
        """Note that these rings could not be sent, and that nothing can before `at`."""
        self._echoes.add(work.echoes)
        self._everybody |= work.everybody
        self._no_ring_before = at
        self.ring(work.queues, work.jobs, at)

    def ask(self, ids: Iterable[str]) -> None:
        """Note that these jobs are to be marked as awaited."""
        self._asked.add(ids)

    def ask_again(self, ids: Iterable[str], at: float) -> None:
        """Note that these could not be asked for, and that none can before `at`."""
        self._asked.add(ids)
        self._asked.free_at = at

    def answered(self, asked: Iterable[str], held: Iterable[str], now: float) -> None:
        """Note which of the jobs asked for were locked by somebody: they are asked for again, soon and then later."""
        held = set(held)
        for job_id in asked:
            if job_id in held:
                before = self._held_waits.get(job_id)
                wait = _HELD_FIRST if before is None else min(_HELD_GROWTH * before, _HELD_LONGEST)
                self._held_waits[job_id] = wait
                self._held[job_id] = now + wait
                self._held_due = min(self._held_due, now + wait)
            else:
                self._held_waits.pop(job_id, None)

    def due_at(self) -> float:
        """Return when something is due; infinity if there is nothing."""
        rings = -inf if self._everybody else min(self._queues_due, self._jobs.due_at(), self._echoes.due_at())
        return min(max(rings, self._no_ring_before), self._asked.due_at(), self._held_due)

    def take(self, now: float) -> Work | None:
        """Remove and return what is due, or return None."""
        if now < self.due_at():
            return None
        if self._held_due <= now:
            self._ask_held(now)
        asked = self._asked.take(now, MOST_ASKED)
        if now < self._no_ring_before:
            return _work([], [], asked, [])
        queues = [queue for queue, due in self._queues.items() if due <= now]
        return self._rings(queues, self._jobs.take(now), asked, self._echoes.take(now), now)

    def take_rings(self, now: float) -> Work | None:
        """Remove and return all that is to be rung, due or not, or return None."""
        jobs, echoes = list(self._jobs.names), list(self._echoes.names)
        self._jobs.names.clear()
        self._echoes.names.clear()
        return self._rings(list(self._queues), jobs, [], echoes, now)

    def _rings(
        self, queues: list[str], jobs: list[str], asked: list[str], echoes: list[str], now: float
    ) -> Work | None:
        everybody, self._everybody = self._everybody, False
        self._quiet = {queue: until for queue, until in self._quiet.items() if until > now}
        for queue in queues:
            del self._queues[queue]
            self._quiet[queue] = now + RING_WINDOW
        self._queues_due = min(self._queues.values(), default=inf)
        return _work(queues, jobs, asked, echoes, everybody=everybody)

    def _ask_held(self, now: float) -> None:
        due = [job_id for job_id, at in self._held.items() if at <= now]
        for job_id in due:
            del self._held[job_id]
        self._held_due = min(self._held.values(), default=inf)
        self._asked.add(due)


def _work(
    queues: list[str], jobs: list[str], asked: list[str], echoes: list[str], *, everybody: bool = False
) -> Work | None:
    work = Work(queues, jobs, everybody, asked, echoes)
    return work if any(work) else None


class _Batch:
    """Names that go together: at once, or when a window after the last ones has ended."""

    def __init__(self, window: float) -> None:
        self._window = window
        self.names: dict[str, None] = {}
        self.free_at = -inf

    def add(self, names: Iterable[str]) -> None:
        self.names.update(dict.fromkeys(names))

    def due_at(self) -> float:
        return self.free_at if self.names else inf

    def take(self, now: float, most: int | None = None) -> list[str]:
        if now < self.due_at():
            return []
        taken = list(islice(self.names, most))
        for name in taken:
            del self.names[name]
        self.free_at = now if self.names else now + self._window
        return taken
