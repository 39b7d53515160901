"""What is told when the store does not take it: news are dropped, counts are written later, readers go on."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from taskharbor import Harbor, Registry
from taskharbor.clock import ManualClock
from taskharbor.control import Feed
from taskharbor.driver import EventAppend, EventUnwatch, StatisticsWrite, Store
from taskharbor.drivers.memory import MemoryDriver
from taskharbor.errors import StoreUnavailable
from taskharbor.event import Ending, JobRequeued
from taskharbor.job import new_job_id
from taskharbor.telemetry import Tallies, tallies
from taskharbor.worker.journal import Journal
from taskharbor.worker.recording import Recording
from tests.support.work import ENOUGH, SECOND, TroubledDriver, aeventually, eventually, fails, within

NOW = timedelta(0)


def an_event() -> JobRequeued:
    return JobRequeued(id=new_job_id(), at=datetime.now(UTC), job_id="j", task="t", queue="q")


class Paper:
    """A store that notes what is written, refuses it while told to, and says whether anybody watches."""

    def __init__(self) -> None:
        self.refuses = False
        self.watched = True
        self.appended = list[int]()
        self.written = list[dict[tuple[str, Ending], int]]()

    async def event_append(self, request: EventAppend) -> bool:
        self._refuse()
        self.appended.append(len(request.events))
        return self.watched

    async def statistics_write(self, request: StatisticsWrite) -> None:
        self._refuse()
        self.written.append({(tally.task, tally.ending): tally.count for tally in request.tallies})

    def _refuse(self) -> None:
        if self.refuses:
            raise StoreUnavailable("away")

    def store(self) -> Store:
        return cast("Store", cast("object", self))


# --- the journal


def test_events_are_appended_together_until_nobody_watches_any_more() -> None:
    paper = Paper()

    async def main() -> tuple[bool, bool]:
        turned = asyncio.Event()

        async def pause(seconds: float) -> None:
            await turned.wait()

        journal = Journal(paper.store(), worker="me", pause=pause)
        journal.watch(True)
        writing = asyncio.ensure_future(journal.run())
        for _ in range(1500):
            journal.add([an_event()])
        turned.set()
        await aeventually(lambda: sum(paper.appended) == 1500)
        before, paper.watched = journal.watched, False
        journal.add([an_event()])
        await aeventually(lambda: not journal.watched)
        writing.cancel()
        return before, journal.watched

    assert (True, False) == asyncio.run(main())
    assert [1000, 500, 1] == paper.appended


def test_events_that_cannot_be_written_are_dropped_and_that_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    paper = Paper()
    paper.refuses = True

    async def main() -> None:
        journal = Journal(paper.store(), worker="me")
        journal.watch(True)
        for _ in range(3):
            journal.add([an_event()])
            await journal.flush()
        paper.refuses = False
        journal.add([an_event()])
        await journal.flush()

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())

    assert [1] == paper.appended
    assert 1 == len(caplog.messages)
    assert "1 events of worker me are dropped" in caplog.messages[0]


# --- counting


def test_counts_that_could_not_be_written_are_written_later_whole() -> None:
    paper, counted = Paper(), Tallies(lambda: 60.0)

    async def main() -> None:
        recording = Recording(paper.store(), counted, worker="me")
        counted.note(counted.minute(), "q", "t", "succeeded", 1.5)
        await recording.write()
        paper.refuses = True
        counted.note(counted.minute(), "q", "t", "succeeded", 1.5)
        await recording.write()
        paper.refuses = False
        counted.note(counted.minute(), "q", "other", "dead", 0.0)
        await recording.write()
        await recording.write()  # nothing has changed

    asyncio.run(main())

    assert [
        {("t", Ending.SUCCEEDED): 1},
        {("t", Ending.SUCCEEDED): 2, ("other", Ending.DEAD): 1},
    ] == paper.written


def written(counted: Tallies, stored: dict[tuple[datetime, str], int]) -> int:
    """Write what was counted, as stores do, and return how much they have of it all."""
    stored.update({(tally.minute, tally.queue): tally.count for tally in counted.take()})
    counted.written()
    return sum(stored.values())


@pytest.mark.parametrize("remembered", [2_000, 0])
def test_a_clock_that_steps_back_takes_no_counts_away(
    monkeypatch: pytest.MonkeyPatch, remembered: int
) -> None:
    monkeypatch.setattr(tallies, "_MOST_REMEMBERED", remembered)
    now, stored = 36_000.0, dict[tuple[datetime, str], int]()
    counted = Tallies(lambda: now)
    totals = list[int]()

    for later in (0, 0, 86_400, -86_400, 60):
        now += later
        counted.note(counted.minute(), "q", "t", "succeeded", 2.0, 100)
        totals.append(written(counted, stored))

    assert [100, 200, 300, 400, 500] == totals
    # Nor is all that came after the step back counted a day later.
    assert 400 == sum(count for (minute, _), count in stored.items() if minute.timestamp() < 40_000)


def test_minutes_that_are_over_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tallies, "_MOST_REMEMBERED", 3)
    now, stored = 0.0, dict[tuple[datetime, str], int]()
    counted = Tallies(lambda: now)
    for minute in range(10):
        now = minute * 60.0
        counted.note(counted.minute(), "q", "t", "succeeded", 2.0)
        written(counted, stored)

    now = 6 * 60.0
    forgotten = counted.minute()
    now = 7 * 60.0
    counted.note(counted.minute(), "q", "t", "succeeded", 2.0)
    (remembered,) = counted.take()

    assert 7 == forgotten
    assert (7 * 60, 2, 4 * SECOND) == (remembered.minute.timestamp(), remembered.count, remembered.ran)


def test_counts_do_not_fill_the_memory_while_the_store_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tallies, "_MOST_KEPT", 3)
    counted = Tallies(lambda: 0.0)
    for minute in range(5):
        counted.note(minute, "q", "t", "dead", 0.0)

    lost = counted.give_back(counted.take())

    assert 2 == lost
    assert [120, 180, 240] == [tally.minute.timestamp() for tally in counted.take()]


# --- the feed


def test_a_reader_goes_on_when_the_store_is_there_again() -> None:
    driver = TroubledDriver()
    with Harbor(driver, registry=Registry()) as harbor, harbor.feed() as feed:
        harbor.ask(lambda store: store.event_append(EventAppend(events=[an_event()])))
        driver.before = fails(1, "event_read")

        with pytest.raises(StoreUnavailable):
            feed.get(NOW)
        event = feed.get(NOW)

    assert isinstance(event, JobRequeued)


def test_closing_wakes_a_reader_of_the_feed() -> None:
    with Harbor(MemoryDriver(), registry=Registry()) as harbor:
        feed, heard = harbor.feed(), list[object]()
        reader = threading.Thread(target=lambda: heard.extend(feed))
        reader.start()
        eventually(lambda: feed.cursor is not None)
        feed.close()
        reader.join(20)

        async def main() -> Sequence[object]:
            async with harbor.feed() as other:

                async def read() -> list[object]:
                    return [event async for event in other]

                reading = asyncio.ensure_future(read())
                await asyncio.sleep(0)
                await other.aclose()
                return await within(reading)

        assert [] == asyncio.run(main())
        assert not reader.is_alive()
        assert [] == heard


def test_a_reader_that_did_not_look_for_too_long_is_told_that_it_may_have_missed_some() -> None:
    clock, seconds = ManualClock(), 0.0
    with Harbor(MemoryDriver(clock), registry=Registry()) as harbor:
        feed = Feed(harbor, reader="", after=None, keep=timedelta(seconds=30), monotonic=lambda: seconds)
        missed = list[bool]()
        for later in (0, 29, 31):
            seconds += later
            clock.advance(timedelta(seconds=later))
            assert feed.get(NOW) is None
            missed.append(feed.missed)

        assert [False, False, True] == missed


def test_who_asks_for_the_oldest_event_kept_misses_nothing() -> None:
    with Harbor(MemoryDriver(), registry=Registry()) as harbor, harbor.feed(after="") as feed:
        assert feed.get(NOW) is None
        assert not feed.missed


def test_a_reader_without_a_name_misses_nothing_while_others_read() -> None:
    def missed(harbor: Harbor, reader: str, after: str | None) -> bool:
        with harbor.feed(reader=reader, after=after) as feed:
            assert feed.get(NOW) is None
            return feed.missed

    with Harbor(MemoryDriver(), registry=Registry()) as harbor:
        with harbor.feed() as other:
            assert other.get(NOW) is None
            cursor = other.cursor
            beside = missed(harbor, "", cursor), missed(harbor, "named", cursor)
        harbor.ask(lambda store: store.event_unwatch(EventUnwatch(readers=["named"])))
        alone = missed(harbor, "", cursor)

    assert ((False, True), True) == (beside, alone)


def test_a_reader_without_a_name_ends_its_watch_and_one_with_a_name_does_not() -> None:
    with Harbor(MemoryDriver(), registry=Registry()) as harbor:

        def watched() -> bool:
            return harbor.ask(lambda store: store.event_append(EventAppend(events=[])))

        with harbor.feed():
            during = watched()
        after = watched()
        with harbor.feed(reader="dashboard"):
            pass

        assert (True, False, True) == (during, after, watched())


def test_the_cursor_moves_on_when_the_next_page_is_asked_for() -> None:
    with Harbor(MemoryDriver(), registry=Registry()) as harbor, harbor.feed() as feed:
        begin = feed.cursor
        events = [an_event(), an_event()]
        harbor.ask(lambda store: store.event_append(EventAppend(events=events)))

        first = feed.get(ENOUGH)
        second = feed.get(ENOUGH)
        within_page = feed.cursor
        nothing = feed.get(NOW)
        with harbor.feed(after=within_page) as again, harbor.feed(after=feed.cursor) as on:
            assert events == [again.get(NOW), again.get(NOW)]
            assert on.get(NOW) is None

        assert (events[0], events[1], None) == (first, second, nothing)
        assert begin == within_page
