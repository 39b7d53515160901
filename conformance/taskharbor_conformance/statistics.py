"""Rolled-up counters: written by each worker as whole numbers, read as sums."""

from __future__ import annotations

from datetime import datetime, timedelta

from taskharbor.driver import (
    STATISTICS_RETAIN,
    Capability,
    HistoryPrune,
    StatisticsRead,
    StatisticsWrite,
)
from taskharbor.event import Ending, Tally
from taskharbor_conformance.bench import HOUR, SECOND, TASK, WORKER, Bench
from taskharbor_conformance.case import case

MINUTE = timedelta(minutes=1)
MICROSECOND = timedelta(microseconds=1)


def _minute(bench: Bench) -> datetime:
    return bench.now.replace(second=0, microsecond=0)


def _tally(
    minute: datetime,
    count: int,
    *,
    queue: str = "mail",
    task: str = TASK,
    ending: Ending = Ending.SUCCEEDED,
    ran: timedelta = SECOND,
) -> Tally:
    return Tally(minute=minute, queue=queue, task=task, ending=ending, count=count, ran=ran)


async def _write(bench: Bench, *tallies: Tally, worker: str = WORKER) -> None:
    await bench.store.statistics_write(StatisticsWrite(worker=worker, tallies=tallies, now=bench.now))


async def _read(
    bench: Bench,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    queues: frozenset[str] = frozenset(),
    tasks: frozenset[str] = frozenset(),
) -> list[Tally]:
    request = StatisticsRead(since=since, until=until, queues=queues, tasks=tasks, now=bench.now)
    return list(await bench.store.statistics_read(request))


@case()
async def what_a_worker_counted_is_read_back(bench: Bench) -> None:
    tally = _tally(_minute(bench), 7, queue="größe \"'%", task="日本.task", ran=3 * HOUR + MICROSECOND)

    await _write(bench, tally)

    assert [tally] == await _read(bench)


@case()
async def where_nothing_was_counted_nothing_is_read(bench: Bench) -> None:
    await _write(bench)

    assert [] == await _read(bench)


@case()
async def what_is_written_again_takes_the_place_of_what_was(bench: Bench) -> None:
    minute = _minute(bench)
    other = _tally(minute, 5, ending=Ending.DEAD)
    await _write(bench, _tally(minute, 3, ran=SECOND), other)

    for _ in range(2):
        await _write(bench, _tally(minute, 1, ran=9 * SECOND), _tally(minute, 4, ran=2 * SECOND))

    assert [other, _tally(minute, 4, ran=2 * SECOND)] == await _read(bench)


@case()
async def workers_are_added_up(bench: Bench) -> None:
    minute = _minute(bench)
    for worker, count in (("a", 3), ("b", 4), ("c", 5)):
        await _write(bench, _tally(minute, count, ran=count * MICROSECOND), worker=worker)

    await _write(bench, _tally(minute, 10, ran=HOUR), worker="b")

    assert [_tally(minute, 18, ran=HOUR + 8 * MICROSECOND)] == await _read(bench)


@case()
async def counters_are_told_apart_and_sorted(bench: Bench) -> None:
    minute = _minute(bench)
    sorted_by_all = [
        _tally(when, number + 1, queue=queue, task=task, ending=ending)
        for number, (when, queue, task, ending) in enumerate(
            (when, queue, task, ending)
            for when in (minute, minute + MINUTE)
            for queue in ("a", "b")
            for task in ("t.a", "t.b")
            for ending in sorted(Ending)
        )
    ]

    await _write(bench, *sorted_by_all[::-1])

    assert sorted_by_all == await _read(bench)


@case()
async def what_adds_up_to_none_is_not_told(bench: Bench) -> None:
    minute = _minute(bench)
    await _write(bench, _tally(minute, 2), _tally(minute, 3, queue="other"))

    await _write(bench, _tally(minute, 0, ran=timedelta(0)))

    assert [_tally(minute, 3, queue="other")] == await _read(bench)


@case()
async def a_span_has_its_first_minute_and_not_its_last(bench: Bench) -> None:
    minute = _minute(bench)
    first, second, third = (_tally(minute + number * MINUTE, number + 1) for number in range(3))
    await _write(bench, first, second, third)

    assert [second, third] == await _read(bench, since=second.minute)
    assert [first, second] == await _read(bench, until=third.minute)
    assert [second] == await _read(bench, since=second.minute, until=third.minute)
    assert [third] == await _read(bench, since=second.minute + MICROSECOND)
    assert [] == await _read(bench, since=third.minute, until=second.minute)


@case()
async def queues_and_tasks_narrow_it_down_together(bench: Bench) -> None:
    minute = _minute(bench)
    tallies = {
        (queue, task): _tally(minute, 1, queue=queue, task=task)
        for queue in ("a", "b", "c")
        for task in ("x", "y")
    }
    await _write(bench, *tallies.values())

    assert [tallies["a", "x"], tallies["a", "y"]] == await _read(bench, queues=frozenset({"a"}))
    assert [tallies["a", "y"], tallies["c", "y"]] == await _read(
        bench, queues=frozenset({"a", "c", "none"}), tasks=frozenset({"y"})
    )
    assert [] == await _read(bench, tasks=frozenset({"%"}))


@case("4.17", "4.18")
async def minutes_of_long_ago_are_pruned(bench: Bench) -> None:
    minute = _minute(bench)
    old, young = _tally(minute, 1), _tally(minute + 2 * MINUTE, 2)
    await _write(bench, old, young)

    await bench.store.history_prune(HistoryPrune(now=minute + STATISTICS_RETAIN - MINUTE))
    before = await _read(bench)
    await bench.store.history_prune(HistoryPrune(now=minute + STATISTICS_RETAIN + MINUTE))

    assert ([old, young], [young]) == (before, await _read(bench))


@case("4.1", needs=Capability.DURABLE)
async def counters_survive_the_end_of_the_process(bench: Bench) -> None:
    tally = _tally(_minute(bench), 3)
    await _write(bench, tally)

    await bench.restart()

    assert [tally] == await _read(bench)
