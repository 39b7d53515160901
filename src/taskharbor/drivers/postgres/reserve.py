"""job_reserve: by one statement (`scan`), or where jobs stand in lines by several in a transaction (`serving`)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta

from taskharbor.clock import duration_micros, from_micros
from taskharbor.driver import JobReserve, Reservation
from taskharbor.driver.limiting import as_wait
from taskharbor.drivers.postgres.delivering import delivered_steps
from taskharbor.drivers.postgres.knowledge import Knowledge, read_knowledge
from taskharbor.drivers.postgres.lines import lock_rules, read_context
from taskharbor.drivers.postgres.marks import Lane, Marks
from taskharbor.drivers.postgres.plain import PlainLanes
from taskharbor.drivers.postgres.routine import Query, Routine, Row
from taskharbor.drivers.postgres.rows import SOLO, TAKEN, TAKEN_COLUMNS, as_duration, deliveries
from taskharbor.drivers.postgres.scan import (
    LOCKED_MICROS,
    PRIORITIES,
    SCANS,
    Left,
    Mode,
    Told,
    Walk,
    lanes_of,
    note,
    scan,
)
from taskharbor.drivers.postgres.serving import Serving
from taskharbor.drivers.postgres.step import Step

_HELD = f"""SELECT {TAKEN_COLUMNS}
    FROM taskharbor.lease l CROSS JOIN pg_catalog.unnest(l.jobs) WITH ORDINALITY e(id, number)
    JOIN taskharbor.job j ON j.id = e.id AND j.token = l.token WHERE l.token = $1::text::bigint
    ORDER BY j.priority, j.lane, j.due, j.id"""


_PAST_SECONDS = 0.05
"""For so long lines that could give nothing are passed by, as long as there are plain jobs to take."""
_PAST_TIMES = 4
"""For so many times as long as the look at them took, if that is longer: where thousands of keys are full, plain jobs
have most of the time all the same."""


class Walker:
    """What one worker's reserves know from those before: its marks, kinds of strays, rules, where jobs are in lines."""

    def __init__(self) -> None:
        self.marks = Marks()
        self._marks_of: dict[range, Marks] = {}
        """Of reserves from lines, which scan the plain lanes of some priorities at a time."""
        self._known = Knowledge()
        self._lined: frozenset[str] = frozenset()
        """Of the queues last reserved from those where jobs stand in lines, as far as was told."""

        self._past_until = 0.0
        """Until when lines are passed by: those of these queues could give nothing when they were looked at last."""

    def restart(self) -> None:
        """Have the next scans read all there is: a connection was lost."""
        self._past_until = 0.0
        self.marks.restart()
        self._marks_of.clear()

    def has_lines(self, request: JobReserve) -> bool:
        """Return whether a reserve is to be asked of `walk_lines`, as far as is known."""
        names = {take.name for take in request.queues}
        if not self._known.rules.queues.isdisjoint(names):
            return True
        return not self._lined.isdisjoint(names) and time.monotonic() >= self._past_until

    def walk(self, step: Step, request: JobReserve) -> Routine[Reservation]:
        """Lease the next jobs that may run. Where `has_lines` says so afterwards, none were, and it is to be asked."""
        marks = self.marks if request.now is None else Marks()  # a test's present is not the server's
        rooms = {take.name: take.limit for take in request.queues}
        scans = 0
        while True:
            lanes = lanes_of(rooms, self._known.open_to(request), PRIORITIES, solo=request.solo)
            marks.begin(lanes)
            passes = not self._lined.isdisjoint(rooms)
            mode = Mode.PAST if passes else Mode.COUNTED if self._known.rules.counts else Mode.PLAIN
            limits = request.limit, rooms, request.guarded_limit
            told, rows = yield from scan(
                step, request, Walk(lanes, marks, *limits, self._known, mode, request.aged)
            )
            if told.held_until is not None:  # the answer to the first asking was lost
                return (yield from _held(step, request, told.held_until))
            if told.known != self._known.words:
                self._known = yield from read_knowledge()
                self._past_until = 0.0
                if not self.has_lines(request):
                    continue
                return _nothing(told, request)
            if told.lined:
                self._lined = frozenset(rooms)
                return _nothing(told, request)
            walked = {number: lane for number, lane in enumerate(lanes, 1) if lane.queue not in told.paused}
            left = None if _is_full(request, rows) else told.left
            again = note(marks, told.seen, walked, left, rows, told.workers or 1)
            scans += 1
            if told.moved:
                self._lined = frozenset(rooms)
                self._past_until = 0.0
                return _nothing(told, request)
            if passes and not rows:
                self._past_until = 0.0
                return _nothing(told, request)
            if rows or not again or scans == SCANS:
                again = again or passes  # lines were not looked at
                steps = yield from delivered_steps(rows)
                return Reservation(
                    deliveries=deliveries(step.book, request.token, rows, steps),
                    expires_at=from_micros(told.seen.now + duration_micros(request.lease)),
                    held_back=told.held_back,
                    next_due_in=as_duration(0) if again else _next_due_in(told.seen.now, walked, left, rows),
                )

    def walk_lines(self, step: Step, request: JobReserve) -> Routine[Reservation]:
        """Lease the next jobs that may run, of lines and plain lanes; in a transaction."""
        revision, began = yield from lock_rules()
        looked_at = time.monotonic()
        if revision != self._known.revision:
            self._known = yield from read_knowledge()
        context = yield from read_context(step, request, self._known.rules)
        if context.held_until is not None:
            return (yield from _held(step, request, context.held_until))
        if context.kinds != self._known.kinds:
            self._known = yield from read_knowledge()
        plain = PlainLanes(step, request, self._known, began, self._marks_for)
        serving = Serving(step, request, self._known, context, plain)
        rows = yield from serving.serve()
        names = {take.name for take in request.queues}
        self._lined = frozenset(names if context.rings or plain.moved else ())
        if request.now is None and rows and serving.lines_gave_nothing:  # a test's present stands still
            now = time.monotonic()
            self._past_until = now + max(_PAST_SECONDS, _PAST_TIMES * (now - looked_at))
        steps = yield from delivered_steps(rows)
        return Reservation(
            deliveries=deliveries(step.book, request.token, rows, steps),
            expires_at=from_micros(context.now + duration_micros(request.lease)),
            held_back=serving.quota.held_back,
            next_due_in=as_wait(serving.wait),
        )

    def _marks_for(self, priorities: range) -> Marks:
        return self._marks_of.setdefault(priorities, Marks())


def _held(step: Step, request: JobReserve, until: int) -> Routine[Reservation]:
    """Return what is leased under the token already."""
    held = yield Query(_HELD, (str(request.token),))
    steps = yield from delivered_steps(held)
    return Reservation(
        deliveries=deliveries(step.book, request.token, held, steps),
        expires_at=from_micros(until),
        next_due_in=as_duration(0),
    )


def _nothing(told: Told, request: JobReserve) -> Reservation:
    return Reservation(
        deliveries=[],
        expires_at=from_micros(told.seen.now + duration_micros(request.lease)),
        next_due_in=as_duration(0),
    )


def _is_full(request: JobReserve, rows: Sequence[Row]) -> bool:
    """Return whether a limit was reached, or the quota of a queue: then a lane may hold more that is due."""
    if len(rows) >= request.limit:
        return True
    taken = Counter([row[TAKEN.queue] for row in rows])
    return any(taken[take.name] >= take.limit for take in request.queues)


def _next_due_in(
    now: int, walked: Mapping[int, Lane], left: Left | None, rows: Sequence[Row]
) -> timedelta | None:
    if left is None:
        return as_duration(0)
    took_solo = any(row[TAKEN.lane] == SOLO for row in rows)
    # What is due and was not taken is held by others, who are about to take it, or to let it go.
    waits = [
        due - now if due > now else LOCKED_MICROS
        for number, due, _ in left
        if not (took_solo and walked[number].lane == SOLO)
    ]
    return as_duration(min(waits)) if waits else None
