"""The feed: kept while somebody watches, read from cursors, in one order for all."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from typing import get_args

from taskharbor.driver import (
    EVENT_RETAIN,
    Capability,
    EventAppend,
    EventPage,
    EventRead,
    EventUnwatch,
    EventWatch,
    HistoryPrune,
)
from taskharbor.errors import OptionError
from taskharbor.event import (
    JobCancelled,
    JobDead,
    JobEnqueued,
    JobEvent,
    JobParked,
    JobProgressed,
    JobReleased,
    JobRequeued,
    JobRetrying,
    JobSnoozed,
    JobStarted,
    JobSucceeded,
)
from taskharbor.job import new_job_id
from taskharbor.report import Progress
from taskharbor_conformance.bench import DAY, HOUR, SECOND, TASK, WORKER, Bench
from taskharbor_conformance.case import case

MICROSECOND = timedelta(microseconds=1)


def _event(at: datetime) -> JobEvent:
    return JobStarted(
        id=new_job_id(),
        at=at,
        job_id=new_job_id(),
        task=TASK,
        queue="mail",
        worker=WORKER,
        attempt=1,
        waited=SECOND,
    )


def _events(bench: Bench, count: int) -> list[JobEvent]:
    return [_event(bench.now) for _ in range(count)]


async def _watch(bench: Bench, reader: str = "reader", ttl: timedelta = HOUR) -> str:
    return (await bench.store.event_watch(EventWatch(reader=reader, ttl=ttl, now=bench.now))).cursor


async def _lapsed(bench: Bench, reader: str = "reader", ttl: timedelta = HOUR) -> bool:
    return (await bench.store.event_watch(EventWatch(reader=reader, ttl=ttl, now=bench.now))).lapsed


async def _unwatch(bench: Bench, *readers: str) -> None:
    await bench.store.event_unwatch(EventUnwatch(readers=readers, now=bench.now))


async def _append(bench: Bench, events: Sequence[JobEvent]) -> bool:
    return await bench.store.event_append(EventAppend(events=events, now=bench.now))


async def _read(bench: Bench, after: str = "", limit: int = 500) -> EventPage:
    return await bench.store.event_read(EventRead(after=after, limit=limit, now=bench.now))


async def _all(bench: Bench, after: str = "", limit: int = 500) -> list[JobEvent]:
    """Return all events from a cursor on, read in pages; none may have been missed."""
    read: list[JobEvent] = []
    while True:
        page = await _read(bench, after, limit)
        assert len(page.events) <= limit, "event_read: at most `limit` events"
        assert not page.missed, "event_read: nothing was removed"
        if not page.events:
            return read
        assert page.cursor != after, "event_read: the cursor goes on with what was read"
        read += page.events
        after = page.cursor


async def _prune(bench: Bench) -> None:
    more = True
    while more:
        more = (await bench.store.history_prune(HistoryPrune(now=bench.now))).more


# --- what is kept


@case()
async def nothing_is_kept_while_nobody_watches(bench: Bench) -> None:
    kept = await _append(bench, _events(bench, 3))
    await _watch(bench)

    assert (False, []) == (kept, await _all(bench))


@case()
async def what_is_appended_while_somebody_watches_is_read_in_order(bench: Bench) -> None:
    events = _events(bench, 5)
    cursor = await _watch(bench)

    kept = [await _append(bench, events[:2]), await _append(bench, events[2:]), await _append(bench, [])]

    assert [True, True, True] == kept
    assert events == await _all(bench, cursor)


@case()
async def every_kind_of_event_comes_back_whole(bench: Bench) -> None:
    at = bench.now + MICROSECOND
    said = "größe 日本 🚢 \"'\\ \n%_"
    ran = 26 * HOUR + MICROSECOND
    job_id, flow = new_job_id(), new_job_id()
    progress = Progress(done=0.1, total=None, note=said, at=at)

    events: list[JobEvent] = [
        JobEnqueued(id=new_job_id(), at=at, job_id=job_id, task=said, queue=said, flow=flow),
        JobStarted(
            id=new_job_id(), at=at, job_id=job_id, task="t", queue="q", worker=said, attempt=3, waited=ran
        ),
        JobProgressed(
            id=new_job_id(),
            at=at,
            job_id=job_id,
            task="t",
            queue="q",
            worker="w",
            attempt=1,
            progress=progress,
        ),
        JobSucceeded(
            id=new_job_id(), at=at, job_id=job_id, task="t", queue="q", worker="w", attempt=1, ran=ran
        ),
        JobRetrying(
            id=new_job_id(),
            at=at,
            job_id=job_id,
            task="t",
            queue="q",
            worker="w",
            attempt=1,
            error="a.B",
            next_in=-ran,
        ),
        JobDead(
            id=new_job_id(),
            at=at,
            job_id=job_id,
            task="t",
            queue="q",
            worker="",
            attempt=0,
            error="",
            reason=said,
        ),
        JobCancelled(id=new_job_id(), at=at, job_id=job_id, task="t", queue="q", worker="w", attempt=1),
        JobSnoozed(
            id=new_job_id(),
            at=at,
            job_id=job_id,
            task="t",
            queue="q",
            worker="w",
            attempt=1,
            next_in=timedelta(0),
        ),
        JobReleased(id=new_job_id(), at=at, job_id=job_id, task="t", queue="q", worker="w", attempt=1),
        JobParked(id=new_job_id(), at=at, job_id=job_id, task="t", queue="q", worker="w", attempt=1),
        JobRequeued(id=new_job_id(), at=at, job_id=job_id, task="t", queue="q"),
    ]
    assert set(get_args(JobEvent)) == {type(event) for event in events}, "the suite tries every kind"
    await _watch(bench)

    await _append(bench, events)

    assert events == await _all(bench)


@case()
async def an_event_is_kept_once(bench: Bench) -> None:
    events = _events(bench, 4)
    await _watch(bench)
    await _append(bench, events[:2])

    again = [await _append(bench, events[:3]), await _append(bench, [events[3], events[3]])]

    assert ([True, True], events) == (again, await _all(bench))


# --- who watches


@case("4.18")
async def a_watch_ends_with_its_time(bench: Bench) -> None:
    first, last = _events(bench, 2)
    await _watch(bench, ttl=60 * SECOND)
    bench.advance(59 * SECOND)
    within = await _append(bench, [first])
    bench.advance(2 * SECOND)

    after = await _append(bench, [last])

    assert (True, False) == (within, after)
    assert [first] == await _all(bench), "what was kept stays"


@case("4.18")
async def asked_again_the_later_end_of_a_watch_stands(bench: Bench) -> None:
    await _watch(bench, ttl=60 * SECOND)
    await _watch(bench, ttl=10 * SECOND)
    bench.advance(59 * SECOND)
    not_shortened = await _append(bench, [])
    await _watch(bench, ttl=60 * SECOND)
    bench.advance(59 * SECOND)
    prolonged = await _append(bench, [])
    bench.advance(HOUR)
    ended = await _append(bench, [])
    await _watch(bench)

    assert (True, True, False, True) == (not_shortened, prolonged, ended, await _append(bench, []))


@case()
async def events_are_kept_until_the_last_reader_looks_no_more(bench: Bench) -> None:
    first, second, third = _events(bench, 3)
    for reader in ("a", "b", "größe '%"):
        await _watch(bench, reader)

    await _unwatch(bench, "a", "unknown", "größe '%")
    kept = [await _append(bench, [first])]
    await _unwatch(bench)
    kept.append(await _append(bench, [second]))
    await _unwatch(bench, "a", "b")
    kept.append(await _append(bench, [third]))

    assert [True, True, False] == kept
    assert [first, second] == await _all(bench)


@case("4.5", "4.18")
async def a_heartbeat_tells_whether_somebody_watches(bench: Bench) -> None:
    await bench.announce()
    await bench.enqueue()
    delivery = await bench.take_one()
    told = [(await bench.extend(delivery)).watched]

    await _watch(bench, ttl=60 * SECOND)
    told += [(await bench.extend(delivery)).watched, (await bench.extend()).watched]
    told.append((await bench.extend(worker="unknown")).watched)
    bench.advance(61 * SECOND)
    told.append((await bench.extend(delivery)).watched)
    await _watch(bench)
    await _unwatch(bench, "reader")
    told.append((await bench.extend()).watched)

    assert [False, True, True, True, False, False] == told


@case(needs=Capability.SHARED)
async def a_watch_of_one_process_is_seen_by_the_others(bench: Bench) -> None:
    async with bench.beside(bench.open_driver()) as other:
        cursor = await _watch(other)
        events = _events(bench, 3)

        told = (await bench.extend()).watched, await _append(bench, events)

        assert (True, True) == told
        assert events == await _all(other, cursor)


@case()
async def a_reader_has_a_name(bench: Bench) -> None:
    try:
        await _watch(bench, "")
    except OptionError:
        assert not await _append(bench, [])
    else:
        raise AssertionError("event_watch: a reader without a name was taken")


@case()
async def a_reader_whose_time_is_over_is_told_when_it_comes_back(bench: Bench) -> None:
    new = await _lapsed(bench, ttl=60 * SECOND)
    in_time = await _lapsed(bench, ttl=60 * SECOND)
    another = await _lapsed(bench, "another")
    bench.advance(61 * SECOND)
    late = await _lapsed(bench)
    await _unwatch(bench, "reader")
    after_leaving = await _lapsed(bench)

    assert (True, False, True, True, True) == (new, in_time, another, late, after_leaving)


@case()
async def a_reader_is_told_when_nobody_watched_until_it_came(bench: Bench) -> None:
    async def unwatched(reader: str, ttl: timedelta) -> bool:
        return (await bench.store.event_watch(EventWatch(reader=reader, ttl=ttl, now=bench.now))).unwatched

    first = await unwatched("first", 30 * SECOND)
    again = await unwatched("first", 30 * SECOND)
    second = await unwatched("second", 60 * SECOND)
    bench.advance(59 * SECOND)
    back = await unwatched("first", SECOND)
    bench.advance(SECOND)
    late = await unwatched("first", 30 * SECOND)
    await _unwatch(bench, "first")
    after_all = await unwatched("third", 30 * SECOND)

    assert (True, False, False, False, True, True) == (first, again, second, back, late, after_all)


# --- cursors


@case()
async def a_watch_begins_at_its_own_instant(bench: Bench) -> None:
    before, after = _events(bench, 2)
    first = await _watch(bench, "early")
    await _append(bench, [before])

    second = await _watch(bench, "late")
    again = await _watch(bench, "early")
    await _append(bench, [after])

    assert [before, after] == await _all(bench, first)
    assert [after] == await _all(bench, second)
    assert [after] == await _all(bench, again)


@case()
async def a_cursor_that_found_nothing_is_as_good_as_before(bench: Bench) -> None:
    events = _events(bench, 3)
    cursor = await _watch(bench)
    empty = [await _read(bench), await _read(bench, cursor)]
    await _append(bench, events)
    end = (await _read(bench, cursor)).cursor
    at_end = await _read(bench, end)
    more = _events(bench, 2)
    await _append(bench, more)

    assert [[], [], []] == [list(page.events) for page in (*empty, at_end)]
    assert [events + more] * 3 == [
        await _all(bench, each) for each in (cursor, *(page.cursor for page in empty))
    ]
    assert [more, more] == [await _all(bench, end), await _all(bench, at_end.cursor)]


@case()
async def readers_of_five_thousand_events_see_each_once_and_alike(bench: Bench) -> None:
    events = _events(bench, 5000)
    cursor = await _watch(bench)
    for begin in range(0, 5000, 1000):
        await _append(bench, events[begin : begin + 1000])

    large, small = await asyncio.gather(_all(bench, cursor, 999), _all(bench, "", 400))

    assert [event.id for event in events] == [event.id for event in large]
    assert large == small


@case()
async def a_page_may_be_read_again(bench: Bench) -> None:
    events = _events(bench, 6)
    await _watch(bench)
    await _append(bench, events)
    first = await _read(bench, limit=2)

    pages = [await _read(bench, first.cursor, limit=3) for _ in range(2)]

    assert [events[2:5], events[2:5]] == [list(page.events) for page in pages]
    assert [events[5:], events[5:]] == [await _all(bench, page.cursor) for page in pages]


@case()
async def what_is_no_cursor_is_refused(bench: Bench) -> None:
    cursor = await _watch(bench)
    await _append(bench, _events(bench, 1))
    taken: list[str] = []

    for garbage in (
        "x",
        "0",
        "-1",
        " ",
        "null",
        "../..",
        "' OR 1=1 --",
        "größe",
        "\x00",
        f" {cursor}",
        f"{cursor}\n",
        f"{cursor}x!",
        cursor[1:],
        cursor * 2,
        "other:1:1",
        "1" * 10_000,
    ):
        try:
            await _read(bench, garbage)
        except OptionError:
            continue
        taken.append(garbage)

    assert [] == taken
    assert 1 == len(await _all(bench, cursor))


@case("4.13")
async def nobody_who_appends_beside_others_is_passed_over(bench: Bench) -> None:
    cursor = await _watch(bench)
    writers, rounds = 4, 15
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(bench.beside()) for _ in range(writers + 1)]
        *writing, reading = stores
        written: list[list[JobEvent]] = [[] for _ in writing]

        async def write(number: int) -> None:
            for _ in range(rounds):
                events = _events(bench, 3)
                written[number] += events
                assert await _append(writing[number], events)

        async def follow() -> list[JobEvent]:
            after, seen = cursor, list[JobEvent]()
            while len(seen) < writers * rounds * 3:
                page = await _read(reading, after, limit=7)
                seen += page.events
                after = page.cursor
            return seen

        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            following = tasks.create_task(follow())
            for number in range(writers):
                tasks.create_task(write(number))
        seen = following.result()

        assert [] == list((await _read(reading, "", 1000)).events)[len(seen) :]
        for events in written:
            ids = {event.id for event in events}
            assert [event.id for event in events] == [event.id for event in seen if event.id in ids]
        assert [event.id for event in seen] == [event.id for event in await _all(bench, cursor)]


@case("4.1", needs=Capability.DURABLE)
async def feed_and_cursors_survive_the_end_of_the_process(bench: Bench) -> None:
    before, after = _events(bench, 2)
    cursor = await _watch(bench)
    await _append(bench, [before])
    read = (await _read(bench, cursor)).cursor

    await bench.restart()

    assert await _append(bench, [after])
    assert [before, after] == await _all(bench, cursor)
    assert [after] == await _all(bench, read)


# --- what is removed


@case("4.17", "4.18")
async def events_of_long_ago_are_pruned_and_whoever_missed_them_is_told(bench: Bench) -> None:
    first, second, young = _events(bench, 3)
    begin = await _watch(bench, ttl=30 * DAY)
    await _append(bench, [first])
    between = (await _read(bench, begin)).cursor
    await _append(bench, [second])
    end = (await _read(bench, between)).cursor
    bench.advance(EVENT_RETAIN - SECOND)
    await _prune(bench)
    early = await _all(bench, begin)
    await _append(bench, [young])
    bench.advance(2 * SECOND)

    await _prune(bench)

    assert [first, second] == early
    pages = [await _read(bench, cursor) for cursor in ("", end, between, begin)]
    assert [[young]] * 4 == [list(page.events) for page in pages]
    assert [False, False, True, True] == [page.missed for page in pages]
    assert [(0, False)] * 4 == [
        (len(page.events), page.missed) for page in [await _read(bench, page.cursor) for page in pages]
    ]


@case("4.17")
async def a_reader_of_a_feed_that_was_pruned_empty_is_told_once(bench: Bench) -> None:
    late = _event(bench.now)
    begin = await _watch(bench, ttl=30 * DAY)
    await _append(bench, _events(bench, 3))
    bench.advance(EVENT_RETAIN + SECOND)
    await _prune(bench)

    fresh, page = await _read(bench), await _read(bench, begin)
    again = await _read(bench, page.cursor)
    await _append(bench, [late])

    assert [(0, False), (0, True), (0, False)] == [
        (len(one.events), one.missed) for one in (fresh, page, again)
    ]
    assert [[late]] * 3 == [await _all(bench, one.cursor) for one in (fresh, page, again)]


@case("4.17", "4.18")
async def an_event_is_kept_from_when_it_was_appended(bench: Bench) -> None:
    old = _event(bench.now - 10 * DAY)
    cursor = await _watch(bench)
    await _append(bench, [old])

    await _prune(bench)

    assert [old] == await _all(bench, cursor)


@case("4.17")
async def a_prune_takes_watches_that_have_ended_and_no_others(bench: Bench) -> None:
    event = _event(bench.now)
    await _watch(bench, "short", ttl=SECOND)
    await _watch(bench, "long", ttl=HOUR)
    bench.advance(2 * SECOND)

    await _prune(bench)

    assert await _append(bench, [event])
    await _unwatch(bench, "long")
    assert not await _append(bench, [event])
