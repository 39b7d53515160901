"""A PostgreSQL of a few lines, as far as marks can tell: numbers, snapshots, locks, and rows that appear at commit.

What takes no time on a real server is taken apart here: a producer's number, its clock, its commit; a scan's clock, its
snapshot, its own number. So everything may happen in between, and a test tries all orders in milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from taskharbor.drivers.postgres.marks import Lane, Marks, Position, Seen
from taskharbor.drivers.postgres.rows import NORMAL

LANES = tuple(Lane(priority, NORMAL, queue, 0) for priority in (0, 1) for queue in ("here", "there"))
SCANS = 5
SECOND = 1_000_000


@dataclass(eq=False)
class Row:
    """One job."""

    lane: Lane
    due: int
    id: str
    committed: bool = False
    locked: bool = False
    taken_by: str = ""

    @property
    def position(self) -> Position:
        return self.due, self.id


@dataclass(eq=False)
class Writer:
    """One transaction of a producer, or of whoever settles."""

    xid: int
    now: int | None = None
    rows: list[Row] = field(default_factory=list)


class Simulated:
    """The server."""

    def __init__(self) -> None:
        self.now = 1000 * SECOND
        self.started = self.now
        self.rows: list[Row] = []
        self.writers: list[Writer] = []
        self.reserving: set[int] = set()
        """Numbers of reserves that go on after a scan."""
        self.paused: set[str] = set()
        self._next = 100
        self._ended = 99

    def number(self) -> int:
        """Give out a transaction number."""
        self._next += 1
        return self._next - 1

    def end(self, xid: int) -> None:
        """Let the transaction of a number end."""
        self._ended = max(self._ended, xid)

    def snapshot(self) -> tuple[int, tuple[int, ...]]:
        """Return `xmax`, and who is under way before it."""
        xmax = self._ended + 1
        under_way = {writer.xid for writer in self.writers} | self.reserving
        return xmax, tuple(xid for xid in under_way if xid < xmax)

    def begin(self) -> Writer:
        """Begin a transaction that writes."""
        writer = Writer(self.number())
        self.writers.append(writer)
        return writer

    def write(self, writer: Writer, lane: Lane, *, after: int = 0) -> Row:
        """Write a row, due so long after the clock was read for the statement, which is now if it was not before."""
        due = (self.now if writer.now is None else writer.now) + after
        writer.now = None
        row = Row(lane, due, f"{len(self.rows):03}")
        self.rows.append(row)
        writer.rows.append(row)
        return row

    def finish(self, writer: Writer, *, commit: bool = True) -> None:
        """Commit, or roll back."""
        self.writers.remove(writer)
        self.end(writer.xid)
        for row in writer.rows:
            row.committed = commit
            if not commit:
                self.rows.remove(row)

    def restart(self) -> None:
        """Stop and start: who was under way is rolled back, and numbers that left no trace are given out again."""
        for writer in list(self.writers):
            self.finish(writer, commit=False)
        for row in self.rows:
            row.locked = False
        self.reserving.clear()
        self._next = self._ended + 1
        self.now += 1
        self.started = self.now

    def ready(self) -> list[Row]:
        """Return the rows that a worker should get."""
        return [row for row in self.rows if row.committed and not row.taken_by and row.due <= self.now]


class Scanner:
    """A worker: its marks, and where its reserve stands."""

    def __init__(self, server: Simulated, name: str) -> None:
        self.name = name
        self.seconds = 0.0
        self.marks = Marks(lambda: self.seconds)
        self._server = server
        self._stage = 0
        self._scans = 0
        self._limit = 0
        self._own: int | None = None
        """The number of its transaction, from the first of several scans in one."""
        self.took: list[Row] = []
        self.again = False
        """Whether its last reserve said that there may be more at once."""

    @property
    def between(self) -> bool:
        """Return whether it is in the middle of a reserve."""
        return self._stage != 0

    def step(self, limit: int) -> None:
        """Go on by one step with a reserve of up to so many jobs: read the clock, take the snapshot, do the rest."""
        server = self._server
        if self._stage == 0:
            self._limit = limit
            self._scans = 0
            self._begin()
        elif self._stage == 1:
            self._xmax, running = server.snapshot()
            self._running = tuple(xid for xid in running if xid != self._own)
            self._free = [row for row in server.rows if row.committed and not row.taken_by]
            self._lanes = [lane for lane in LANES if lane.queue not in server.paused]
            self._stage = 2
        else:
            self.again = self._finish()
            self._scans += 1
            self._stage = 0
            if self.again and not self.took and self._scans < SCANS:
                self._begin()
            else:
                self._end_transaction()

    def walk(self, limit: int = 1000) -> list[Row]:
        """Carry out one reserve whole."""
        self._go_on(limit)
        self.step(limit)
        self._go_on(limit)
        return self.took

    def _go_on(self, limit: int) -> None:
        while self.between:
            self.step(limit)

    def lose_connection(self) -> None:
        """End a reserve in the middle: nothing of it was written."""
        self._stage = 0
        self._end_transaction()
        self.marks.restart()

    def cancel(self, *, written: bool) -> None:
        """End a reserve in the middle: its answer is not waited for; it may be written all the same."""
        if self._stage == 2 and written:
            xid = self._server.number()
            for row in self._take():
                row.taken_by = self.name
            self._server.end(xid)
        self._stage = 0
        self._end_transaction()

    def _end_transaction(self) -> None:
        if self._own in self._server.reserving:
            self._server.reserving.remove(self._own)
            self._server.end(self._own)
        self._own = None

    def _begin(self) -> None:
        self.marks.begin(LANES)
        self._starts = {lane: self.marks.start(lane) for lane in LANES}
        self._server.now += 1
        self._now, self._started = self._server.now, self._server.started
        self._stage = 1

    def _take(self) -> list[Row]:
        """Return the rows to be taken; other reserves may have come first since the snapshot."""
        walked = [
            row
            for lane in self._lanes
            for row in sorted((row for row in self._free if row.lane == lane), key=lambda row: row.position)
            if row.position > self._starts[lane]
        ]
        return [row for row in walked if row.due <= self._now and not row.locked and not row.taken_by][
            : self._limit
        ]

    def _finish(self) -> bool:
        server = self._server
        if server.started != self._started:  # the connection was lost
            self.took = []
            self.lose_connection()
            return False
        own = server.number() if self._own is None else self._own
        self.took = self._take()
        for row in self.took:
            assert not row.taken_by, "reserved twice"
            row.taken_by = self.name
        if self._limit % 2:  # all its scans in one transaction
            self._own = own
            server.reserving.add(own)
        else:
            server.end(own)
        taken = {row.lane: row.position for row in self.took}
        left: dict[Lane, Position] | None = None
        if len(self.took) < self._limit:
            left = {lane: min(self._rest(lane)) for lane in self._lanes if any(self._rest(lane))}
        seen = Seen(self._now, self._started, own, self._xmax, self._running)
        return self.marks.note(seen, self._lanes, taken, left)

    def _rest(self, lane: Lane) -> Sequence[Position]:
        return [
            row.position
            for row in self._free
            if row.lane == lane and row not in self.took and row.position > self._starts[lane]
        ]
