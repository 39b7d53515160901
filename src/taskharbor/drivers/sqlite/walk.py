"""The plain lanes as a reserve walks them: in order of lane, due time and id, over the queues."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import msgspec

from taskharbor.clock import duration_micros
from taskharbor.driver import AgedTake, JobReserve, Rules
from taskharbor.drivers.sqlite.routine import Query, Routine
from taskharbor.drivers.sqlite.rows import SOLO


class Head(msgspec.Struct, array_like=True, frozen=True):
    """A lane that holds jobs, and when its first one is due."""

    queue: str
    stray: int
    priority: int
    lane: int
    due: int


class Due(NamedTuple):
    """One job that is due, as it stands in its lane: by due time, then id."""

    due: int
    id: str
    guarded: int
    task: str = ""
    """Told only where some tasks are governed."""


class Context(NamedTuple):
    """What is to be known before lanes are looked at."""

    held_until: int | None
    """Until when the token is held already."""
    paused: set[str]
    open_strays: list[int]
    """The kinds of strays that this worker may look at."""
    rules: Rules
    governed: bool
    """Whether limits or holds have a part in this."""


_all_due = msgspec.json.Decoder(list[Due])

_LANE = """FROM taskharbor_job INDEXED BY taskharbor_job_ready
    WHERE queue = ? AND stray = ? AND token IS NULL AND priority = ? AND lane = ?"""
_DUE = f"""SELECT json_group_array(json_array(due, id, guarded))
    FROM (SELECT due, id, guarded {_LANE} AND due <= ? ORDER BY due, id LIMIT ?)"""  # noqa: S608 - our own constants
_DUE_AND_TASK = f"""SELECT json_group_array(json_array(due, id, guarded, task))
    FROM (SELECT due, id, guarded, task {_LANE} AND due <= ? ORDER BY due, id LIMIT ?)"""  # noqa: S608 - our own constants
_LATER = f"SELECT due {_LANE} AND due > ? ORDER BY due LIMIT 1"


class Walk:
    """One walk over the lanes, in order, and what it met on its way."""

    def __init__(self, request: JobReserve, now: int) -> None:
        self.limit = request.limit
        self.left = {take.name: take.limit for take in request.queues}
        self.guarded_left = request.guarded_limit
        self.solo_left = 1 if request.solo else 0
        self._now = now
        self.held_back = False
        self.next_due: int | None = None
        self.taken: list[str] = []
        self._aged: frozenset[str] = frozenset()
        self.left_due: set[str] = set()
        """Queues with limits in which something was left that is due."""
        self.divert: Callable[[list[Due]], Routine[bool]] | None = None
        """Where some tasks are governed: has their jobs moved into lines; False where they are to be left."""
        self.governed: Collection[str] = frozenset()
        self.limited: Collection[str] = frozenset()
        """Queues with limits, which draw together on `limited_left`."""
        self.limited_left = 0

    def pass_over(self, heads: Sequence[Head]) -> None:
        """Note when the first job of each lane is due, where none is due now."""
        for head in heads:
            if head.lane != SOLO or self.solo_left:
                self.note_due(head.due)

    def take_aged(self, heads: Sequence[Head], aged: AgedTake) -> Routine[None]:
        """Take those that have been due for too long, the longest first, whatever their priority but the first."""
        last = self._now - duration_micros(aged.after) - 1
        limit = min(aged.limit, self.limit)
        lines: list[list[tuple[int, str, int, str]]] = []
        for head in heads:
            room = min(limit, self._room(head.queue))
            if head.due <= last and head.priority > 0 and head.lane != SOLO and room > 0:
                ((found,),) = yield Query(
                    _DUE_AND_TASK if self.governed else _DUE, (*_lane_of(head), last, room)
                )
                jobs = [job for job in _all_due.decode(found) if job.task not in self.governed]
                lines.append([(job.due, job.id, job.guarded, head.queue) for job in jobs])
        for _, job_id, guarded, queue in heapq.merge(*lines):
            if len(self.taken) >= limit or (guarded and self.guarded_left <= 0):
                break  # what this leaves is met again, and told of, in order of priority
            if self._room(queue) > 0:
                self.guarded_left -= guarded
                self._note_taken(queue, 1)
                self.taken.append(job_id)
        self._aged = frozenset(self.taken)

    def run(self, heads: Sequence[Head]) -> Routine[bool]:
        """Take what may be taken, lane by lane; return whether to go on with what comes after these."""
        lanes: dict[tuple[int, int], list[Head]] = {}
        for head in heads:
            lanes.setdefault((head.priority, head.lane), []).append(head)
        for (_, lane), sources in lanes.items():
            if lane == SOLO and not self.solo_left:
                continue
            if not (yield from self._take_lane(sources, solo=lane == SOLO)):
                return False
        return True

    def _take_lane(self, sources: Sequence[Head], *, solo: bool) -> Routine[bool]:
        """Take from one priority and lane of all queues; return whether to go on with the next."""
        found: list[tuple[str, list[Due]]] = []
        for source in sources:
            if source.due > self._now:
                self.note_due(source.due)
            else:
                found.append((source.queue, (yield from self._all_due(source, solo=solo))))
        if len(found) == 1 and not solo and not any(job.guarded for job in found[0][1]):
            return self._take_plain(*found[0])
        # Ids differ, so queues are never compared.
        lines = ([(job.due, job.id, job.guarded, queue) for job in jobs] for queue, jobs in found)
        for due, job_id, guarded, queue in heapq.merge(*lines):
            if self._room(queue) <= 0:
                if queue in self.limited:
                    self.left_due.add(queue)
                else:
                    self.note_due(due)
            elif len(self.taken) >= self.limit:
                self.note_due(due)
                return False
            elif guarded and self.guarded_left <= 0:
                self.held_back = True
                self.note_due(due)
                return False
            else:
                self.guarded_left -= guarded
                self._note_taken(queue, 1)
                self.taken.append(job_id)
                if solo:
                    self.solo_left -= 1
                    return True
        return True

    def _take_plain(self, queue: str, jobs: Sequence[Due]) -> bool:
        """Take jobs that need no choosing, all of one queue: what the loop of `_take_lane` comes to for them."""
        room = max(min(self.limit - len(self.taken), self._room(queue)), 0)
        taken = [job.id for job in jobs[:room]]
        self.taken += taken
        self._note_taken(queue, len(taken))
        if len(jobs) == len(taken):
            return True
        if self._room(queue) <= 0 and queue in self.limited:
            self.left_due.add(queue)
        else:
            self.note_due(jobs[room].due)
        return self._room(queue) <= 0

    def _room(self, queue: str) -> int:
        left = self.left[queue]
        return min(left, self.limited_left) if queue in self.limited else left

    def _note_taken(self, queue: str, count: int) -> None:
        self.left[queue] -= count
        if queue in self.limited:
            self.limited_left -= count

    def _all_due(self, source: Head, *, solo: bool) -> Routine[list[Due]]:
        # One more than can be taken tells whether any is left; those of a queue that gives no more are not read.
        room = 1 + max(min(self.limit - len(self.taken), self._room(source.queue)), 0)
        lane = _lane_of(source)
        jobs = yield from self._look(lane, room + len(self._aged))
        if self._aged:  # those are in their lanes still
            jobs = [job for job in jobs if job.id not in self._aged][:room]
        if len(jobs) < room and not solo:  # the next solo job comes once this one has ended
            later = yield Query(_LATER, (*lane, self._now))
            if later:
                self.note_due(later[0][0])
        return jobs

    def _look(self, lane: tuple[str, int, int, int], room: int) -> Routine[list[Due]]:
        """Return the first jobs of a lane that are due; those of governed tasks go into their lines."""
        while True:
            sql = _DUE if self.divert is None else _DUE_AND_TASK
            ((found,),) = yield Query(sql, (*lane, self._now, room))
            jobs = _all_due.decode(found)
            strangers = [job for job in jobs if job.task in self.governed] if self.divert is not None else []
            if not strangers:
                return jobs
            if self.divert is None or not (yield from self.divert(strangers)):
                return [job for job in jobs if job.task not in self.governed]

    def note_due(self, due: int) -> None:
        if self.next_due is None or due < self.next_due:
            self.next_due = due


def _lane_of(head: Head) -> tuple[str, int, int, int]:
    return head.queue, head.stray, head.priority, head.lane
