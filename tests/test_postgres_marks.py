"""Marks by themselves: where scans begin, and that no order of events makes them miss a job.

`Simulated` stands for the server; `test_postgres_reserve.py` tries the same with a real one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from random import Random
from typing import TypeAlias

import pytest

from taskharbor.drivers.postgres.marks import BEGINNING, Lane, Marks, Position, Seen
from taskharbor.drivers.postgres.rows import FRONT, SOLO
from tests.support.postgres_simulated import LANES, Row, Scanner, Simulated, Writer

LANE, OTHER = LANES[:2]


class Clock:
    """Seconds that only the test turns."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def seen(now: int, *, own: int | None = None, xmax: int | None = None, running: tuple[int, ...] = ()) -> Seen:
    """Return what a scan says that met nobody, unless told otherwise."""
    own = now if own is None else own
    return Seen(now, 1, own, own if xmax is None else xmax, running)


def scanned(
    marks: Marks,
    scan: Seen,
    *,
    lanes: tuple[Lane, ...] = (LANE, OTHER),
    taken: dict[Lane, Position] | None = None,
    left: dict[Lane, Position] | None = None,
    cut: bool = False,
) -> bool:
    """Begin a scan and note it; it comes to the end unless it was cut."""
    marks.begin(lanes)
    return marks.note(scan, lanes, taken or {}, None if cut else left or {})


def next_start(marks: Marks, lane: Lane = LANE) -> Position:
    """Return where the next scan enters a lane."""
    marks.begin([lane])
    return marks.start(lane)


# --- where the next scan begins


def test_the_first_scan_begins_at_the_beginning() -> None:
    marks = Marks(Clock())
    marks.begin([LANE])

    assert (True, BEGINNING) == (marks.whole, marks.start(LANE))


def test_after_a_scan_to_the_end_the_next_one_begins_at_its_instant() -> None:
    marks = Marks(Clock())
    assert not scanned(marks, seen(100), taken={LANE: (50, "a")})

    assert ((100, ""), (100, "")) == (next_start(marks), next_start(marks, OTHER))
    assert not marks.whole


def test_after_a_scan_cut_short_the_next_one_begins_at_the_last_job_taken() -> None:
    marks = Marks(Clock())
    scanned(marks, seen(100), taken={LANE: (50, "a")}, cut=True)

    assert ((50, "a"), BEGINNING) == (next_start(marks), next_start(marks, OTHER))


def test_solo_lanes_are_always_entered_at_the_beginning() -> None:
    solo = Lane(0, SOLO, "here", 0)
    marks = Marks(Clock())
    scanned(marks, seen(100), lanes=(LANE,), taken={solo: (50, "a")}, cut=True)
    marks.begin([solo, LANE])

    assert (False, BEGINNING) == (marks.whole, marks.start(solo))


def test_a_lane_not_walked_keeps_its_place() -> None:
    marks = Marks(Clock())
    scanned(marks, seen(100))
    scanned(marks, seen(200), lanes=(LANE,))

    assert ((200, ""), (100, "")) == (next_start(marks), next_start(marks, OTHER))


def test_a_lane_met_for_the_first_time_is_entered_at_the_beginning() -> None:
    marks = Marks(Clock())
    scanned(marks, seen(100))

    assert next_start(marks, Lane(0, FRONT, "here", 7)) == BEGINNING


def test_jobs_due_at_the_very_instant_of_a_scan_are_after_its_mark() -> None:
    marks = Marks(Clock())
    scanned(marks, seen(100), taken={LANE: (100, "a")}, cut=True)

    assert next_start(marks) < (100, "0")


# --- late commits


def test_transactions_listed_as_under_way_set_marks_back_when_they_have_ended() -> None:
    marks = Marks(Clock())
    scanned(marks, seen(100, own=10))
    scanned(marks, seen(200, own=20, running=(15,)))  # 15 came after the scan at 100
    assert not scanned(marks, seen(300, own=30, running=(15,)))
    assert next_start(marks) == (300, "")

    assert scanned(marks, seen(400, own=40))
    assert ((100, ""), (100, "")) == (next_start(marks), next_start(marks, OTHER))


def test_transactions_from_xmax_to_the_scans_own_may_have_been_under_way_too() -> None:
    # `xmax` is not the next number to be given out: 12 had its own, and nobody after it had ended.
    marks = Marks(Clock())
    scanned(marks, seen(100, own=10))
    scanned(marks, seen(200, own=13, xmax=12))

    assert next_start(marks) == (100, "")  # 12 may end before the next scan, which is to find what it wrote
    scanned(marks, seen(300, own=30))
    assert next_start(marks) == (300, "")


def test_marks_move_only_to_the_scan_before_where_new_transactions_are_met() -> None:
    marks = Marks(Clock())
    scanned(marks, seen(100, own=10))
    scanned(marks, seen(200, own=13, xmax=12))
    assert next_start(marks) == (100, "")
    scanned(marks, seen(300, own=30, running=(25,)))
    assert next_start(marks) == (200, "")


def test_a_scan_cut_short_moves_its_marks_no_further_than_others() -> None:
    marks = Marks(Clock())
    scanned(marks, seen(100, own=10))
    scanned(marks, seen(200, own=13, xmax=12), taken={LANE: (150, "a")}, cut=True)

    assert next_start(marks) == (100, "")


def test_marks_move_on_however_many_transactions_come_and_go() -> None:
    marks = Marks(Clock())
    for number in range(1, 100):
        now = 100 * number
        scanned(marks, seen(now, own=now, xmax=now - 7, running=(now - 20, now - 10)))
        assert next_start(marks) == ((now - 100, "") if number > 1 else BEGINNING)


def test_one_unlisted_that_goes_on_is_kept_with_its_instant() -> None:
    marks = Marks(Clock())
    scanned(marks, seen(100, own=10))
    scanned(marks, seen(200, own=14, xmax=12))
    scanned(marks, seen(300, own=30, running=(12,)))  # 13 has ended, 12 has not
    scanned(marks, seen(400, own=40, running=(12,)))
    assert next_start(marks) == (400, "")

    assert scanned(marks, seen(500, own=50))
    assert next_start(marks) == (100, "")


def test_the_end_of_one_who_was_there_before_the_first_scan_sets_marks_back_to_the_beginning() -> None:
    marks = Marks(Clock())
    scanned(marks, seen(100, own=10, running=(5,)))
    scanned(marks, seen(200, own=20, running=(5,)))
    assert next_start(marks) == (200, "")

    assert scanned(marks, seen(300, own=30))
    assert next_start(marks) == BEGINNING


def test_a_mark_in_a_backlog_is_not_set_back() -> None:
    marks = Marks(Clock())
    scanned(marks, seen(1000, own=10))
    scanned(marks, seen(1100, own=20, running=(15,)), lanes=(OTHER,))
    backlog = Marks(Clock())
    scanned(backlog, seen(1000, own=10), taken={LANE: (50, "a")}, cut=True)
    scanned(backlog, seen(1100, own=20, running=(15,)), taken={LANE: (60, "a")}, cut=True)
    scanned(backlog, seen(1200, own=30), taken={LANE: (70, "a")}, cut=True)

    assert next_start(backlog) == (70, "a")


def test_a_scan_that_began_before_them_need_not_be_repeated() -> None:
    clock = Clock()
    marks = Marks(clock)
    scanned(marks, seen(100, own=10))
    scanned(marks, seen(200, own=20, running=(15,)))
    scanned(marks, seen(300, own=30, running=(15,)))
    clock.seconds = 11

    assert not scanned(marks, seen(400, own=40))
    assert next_start(marks) == (400, "")


def test_a_scan_from_the_beginning_that_was_cut_short_has_not_seen_them() -> None:
    # There was enough in the first lane, and the second was never entered.
    clock = Clock()
    marks = Marks(clock)
    scanned(marks, seen(100, own=10))
    scanned(marks, seen(200, own=20, running=(15,)))
    scanned(marks, seen(300, own=30, running=(15,)))
    clock.seconds = 11
    scanned(marks, seen(400, own=40), taken={LANE: (90, "a")}, cut=True)
    assert marks.whole

    assert next_start(marks, OTHER) == (100, "")


def test_lanes_not_walked_are_set_back_as_well() -> None:
    marks = Marks(Clock())
    scanned(marks, seen(100, own=10))
    scanned(marks, seen(200, own=20, running=(15,)))
    scanned(marks, seen(300, own=30, running=(15,)))

    assert scanned(marks, seen(400, own=40), lanes=(LANE,))
    assert next_start(marks, OTHER) == (100, "")


def test_millions_of_numbers_between_two_scans_cost_nothing() -> None:
    # Each savepoint has one.
    marks = Marks(Clock())
    scanned(marks, seen(100, own=10))
    scanned(marks, seen(200, own=10**12, xmax=11))

    scanned(marks, seen(300, own=10**12 + 5, running=(11,)))
    scanned(marks, seen(400, own=10**12 + 9))
    assert next_start(marks) == (100, "")


def test_scans_of_one_transaction_share_a_number_and_the_instant_it_was_given_at() -> None:
    # As where the server's default isolation makes a reserve begin a transaction. 21 came after 20, and perhaps
    # before the second scan read the clock; 15 had no need to end before that.
    marks = Marks(Clock())
    scanned(marks, seen(100, own=10))
    scanned(marks, seen(200, own=20, xmax=15))
    scanned(marks, seen(300, own=20, xmax=15))
    assert next_start(marks) == (100, "")
    scanned(marks, seen(400, own=40, running=(15, 21)))
    scanned(marks, seen(500, own=50, running=(15, 21)))
    assert next_start(marks) == (500, "")

    twin = copy.deepcopy(marks)
    scanned(marks, seen(600, own=60, running=(15,)))
    assert next_start(marks) == (200, "")
    scanned(twin, seen(600, own=60, running=(21,)))
    assert next_start(twin) == (100, "")


# --- rows that others lock


def test_what_others_lock_is_looked_at_again_a_quarter_of_a_second_later() -> None:
    clock = Clock()
    marks = Marks(clock)
    scanned(marks, seen(100), left={LANE: (50, "a")})
    assert next_start(marks) == (100, "")

    clock.seconds = 0.25
    assert next_start(marks) == (50, "")


def test_a_scan_that_finds_nothing_says_that_it_is_time_to_look_back() -> None:
    clock = Clock()
    marks = Marks(clock)
    scanned(marks, seen(100), left={LANE: (50, "a")})
    marks.begin([LANE])
    clock.seconds = 0.25

    assert marks.note(seen(200), [LANE], {}, {})


def test_looking_back_at_what_is_still_locked_goes_on() -> None:
    clock = Clock()
    marks = Marks(clock)
    for turn in range(1, 5):
        scanned(marks, seen(100 * turn), left={LANE: (50, "a")})
        clock.seconds += 0.25
        assert next_start(marks) == (50, "")
    scanned(marks, seen(900))
    clock.seconds += 0.25
    assert next_start(marks) == (900, "")


def test_what_was_locked_when_a_scan_was_cut_short_is_looked_at_again() -> None:
    clock = Clock()
    marks = Marks(clock)
    scanned(marks, seen(100))
    scanned(marks, seen(200), taken={LANE: (150, "b")}, cut=True)
    scanned(marks, seen(300))
    assert next_start(marks) == (300, "")

    clock.seconds = 0.25
    assert next_start(marks) == (100, "")


def test_what_was_late_and_then_locked_when_a_scan_was_cut_short_is_looked_at_again() -> None:
    clock = Clock()
    marks = Marks(clock)
    scanned(marks, seen(100, own=10))
    scanned(marks, seen(200, own=20, running=(15,)))
    scanned(marks, seen(300, own=30, running=(15,)))
    scanned(marks, seen(400, own=40))  # 15 has ended
    scanned(marks, seen(500, own=50), taken={LANE: (450, "b")}, cut=True)  # its job was locked
    clock.seconds = 0.25

    assert next_start(marks) == (100, "")


def test_looking_back_in_one_lane_passes_over_nothing_in_another_that_was_set_back() -> None:
    clock = Clock()
    marks = Marks(clock)
    scanned(marks, seen(100, own=10))
    scanned(marks, seen(200, own=20, running=(15,)))
    scanned(marks, seen(300, own=30, running=(15,)), left={OTHER: (50, "a")})
    clock.seconds = 0.25
    scanned(marks, seen(400, own=40), lanes=(OTHER,), left={OTHER: (50, "a")})
    clock.seconds = 0.5
    marks.begin([LANE, OTHER])

    assert ((100, ""), (50, "")) == (marks.start(LANE), marks.start(OTHER))


def test_jobs_due_later_do_not_make_a_lane_unsure() -> None:
    clock = Clock()
    marks = Marks(clock)
    scanned(marks, seen(100), left={LANE: (5000, "a")})
    clock.seconds = 1

    assert next_start(marks) == (100, "")


def test_looking_back_takes_a_fortieth_of_the_time_at_most() -> None:
    clock = Clock()
    marks = Marks(clock)
    scanned(marks, seen(100), left={LANE: (50, "a")})
    clock.seconds = 0.25
    marks.begin([LANE])
    assert marks.start(LANE) == (50, "")
    clock.seconds = 0.35  # it took a tenth of a second
    marks.note(seen(200), [LANE], {}, {LANE: (50, "a")})

    clock.seconds = 4.34
    assert next_start(marks) == (200, "")
    clock.seconds = 4.36
    assert next_start(marks) == (50, "")


# --- from the beginning


@pytest.mark.parametrize(("took", "workers", "due"), [(0, 1, 10), (0, 9, 10), (1, 1, 41), (0.5, 4, 80.5)])
def test_everything_is_scanned_again_now_and_then(took: float, workers: int, due: float) -> None:
    clock = Clock()
    marks = Marks(clock)
    marks.begin([LANE])
    clock.seconds = took
    marks.note(seen(100), [LANE], {}, {}, workers=workers)

    clock.seconds = due - 0.01
    marks.begin([LANE])
    assert not marks.whole
    clock.seconds = due
    marks.begin([LANE])
    assert marks.whole


def test_a_clock_that_shows_less_is_noticed() -> None:
    marks = Marks(Clock())
    scanned(marks, seen(100))

    assert scanned(marks, seen(99))
    assert (BEGINNING, True) == (next_start(marks), marks.whole)


def test_a_server_that_was_started_anew_is_noticed() -> None:
    # Or another one: its clock may be behind, and yet show more than at the last scan.
    marks = Marks(Clock())
    scanned(marks, seen(100))

    assert scanned(marks, Seen(300, 2, 300, 300, ()))
    assert (BEGINNING, True) == (next_start(marks), marks.whole)


def test_everything_is_scanned_anew_after_a_restart() -> None:
    marks = Marks(Clock())
    scanned(marks, seen(100, own=10, running=(5,)))
    scanned(marks, seen(200, own=20, running=(5,)))
    marks.restart()
    assert next_start(marks) == BEGINNING

    scanned(marks, seen(50, own=3), taken={LANE: (40, "a")}, cut=True)
    assert ((40, "a"), BEGINNING) == (next_start(marks), next_start(marks, OTHER))


# --- any order of events

_WRITING = ("begin", "clock", "write", "write", "commit", "commit", "abort", "time")
_SCANNING = ("scan", "scan", "scan", "scan", "walk", "seconds", "cancel", "pause")
_LOCKING = ("lock", "unlock")
_TROUBLE = ("restart", "lose")
_AFTER = (0, 0, 0, 3, 20)
_SECONDS = (0.1, 0.3, 2.0, 11.0)


class History:
    """A server with two workers, to which events happen."""

    def __init__(self) -> None:
        self.server = Simulated()
        self.workers = [Scanner(self.server, "one"), Scanner(self.server, "two")]

    def happen(self, kind: str, which: int, how: int) -> None:
        """Let something happen to one of those there are; without effect where there is none."""
        server = self.server
        worker = self.workers[which % 2]
        match kind:
            case "begin":
                server.begin()
            case "clock" | "write" | "commit" | "abort":
                if server.writers:
                    self._go_on(kind, server.writers[which % len(server.writers)], how)
            case "scan":
                worker.step(1 + how % 3)
            case "walk":
                worker.walk(1 + how % 4)
            case "cancel":
                worker.cancel(written=how % 2 == 0)
            case "lose":
                worker.lose_connection()
            case "seconds":
                if not worker.between:  # what took long is not done again soon
                    worker.seconds += _SECONDS[how % len(_SECONDS)]
            case "time":
                server.now += 1 + how % 10
            case "step back":
                server.now -= 1 + how % 50
            case "pause":
                server.paused ^= {LANES[how % len(LANES)].queue}
            case "lock" | "unlock":
                free = [row for row in server.rows if row.committed and not row.taken_by]
                if free:
                    free[which % len(free)].locked = kind == "lock"
            case "restart":
                server.restart()
            case _:
                raise AssertionError(kind)

    def _go_on(self, kind: str, writer: Writer, how: int) -> None:
        if kind == "clock":
            writer.now = self.server.now
        elif kind == "write":
            self.server.write(writer, LANES[how % len(LANES)], after=_AFTER[how % len(_AFTER)])
        else:
            self.server.finish(writer, commit=kind == "commit")

    def end(self) -> None:
        """Let everything come to its end: all transactions, all locks, all reserves, all pauses."""
        server = self.server
        server.paused.clear()
        for worker in self.workers:
            while worker.between:
                worker.step(1)
        for row in server.rows:
            row.locked = False
        for writer in list(server.writers):
            server.finish(writer)
        server.now += 100


Event: TypeAlias = tuple[str, int, int]


def any_events(seed: int, kinds: Sequence[str]) -> list[Event]:
    """Return some events of these kinds, the same for the same seed."""
    chance = Random(seed)
    chosen = chance.sample(kinds, chance.randint(len(set(kinds)) // 2, len(kinds)))
    return [
        (chance.choice(chosen), chance.randrange(12), chance.randrange(60))
        for _ in range(chance.randint(4, 60))
    ]


def missed(happened: Sequence[Event], last: int, seconds: float) -> list[Row]:
    """Return what one worker alone does not find, so many seconds after everything has come to its end."""
    history = History()
    for kind, which, how in happened:
        history.happen(kind, which, how)
    history.end()
    worker = history.workers[last]
    worker.seconds += seconds
    for _ in range(4):  # its reserve says whether to ask again at once
        if not worker.walk() and not worker.again:
            break
    return history.server.ready()


def shortened(happened: Sequence[Event], last: int, seconds: float) -> Sequence[Event]:
    """Return the events without those that nothing hangs on."""
    for number in reversed(range(len(happened))):
        fewer = [*happened[:number], *happened[number + 1 :]]
        if missed(fewer, last, seconds):
            return shortened(fewer, last, seconds)
    return happened


def property_test(tries: int, *kinds: str, seconds: float) -> Callable[[], None]:
    """Return a test: whatever has happened, either worker finds all that is ready so many seconds later.

    Chance of our own, and not Hypothesis, which in the same time tries a fiftieth of it.
    """

    def test() -> None:
        for seed in range(tries):
            happened = any_events(seed, kinds)
            for last in (0, 1):
                if missed(happened, last, seconds):
                    least = shortened(happened, last, seconds)
                    pytest.fail(f"seed {seed}: {missed(least, last, seconds)} missed by {last} after {least}")

    return test


SHORT, LONG = 700, 50_000
LATE = (*_WRITING, *_SCANNING)
LOCKED = (*LATE, *_LOCKING)
TROUBLED = (*LOCKED, *_TROUBLE)
slow = pytest.mark.slow
at_length = pytest.mark.timeout(1800)

test_what_commits_late_is_found_by_the_next_reserve = property_test(SHORT, *LATE, seconds=0)
test_what_others_had_locked_is_found_within_two_seconds = property_test(SHORT, *LOCKED, seconds=2)
test_restarts_hide_nothing_for_more_than_two_seconds = property_test(SHORT, *TROUBLED, seconds=2)
test_a_clock_that_steps_back_hides_nothing_for_more_than_ten_seconds = property_test(
    SHORT, *TROUBLED, "step back", seconds=10
)
test_what_commits_late_is_found_by_the_next_reserve_at_length = slow(
    at_length(property_test(LONG, *LATE, seconds=0))
)
test_nothing_is_hidden_for_more_than_two_seconds_at_length = slow(
    at_length(property_test(LONG, *TROUBLED, seconds=2))
)
test_a_clock_that_steps_back_at_length = slow(
    at_length(property_test(LONG, *TROUBLED, "step back", seconds=10))
)
