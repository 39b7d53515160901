"""Several that fire the same schedules at once, in one process and in several: one job a tick."""

from __future__ import annotations

from taskharbor.driver import Capability, Firing
from taskharbor_conformance.bench import HOUR, SECOND, Bench
from taskharbor_conformance.case import case
from taskharbor_conformance.concurrency import in_threads
from taskharbor_conformance.timetables import (
    MINUTE,
    create,
    due,
    due_names,
    find,
    fire,
    firing,
    job_of,
    moved,
    new_schedule,
    record_of,
    tick,
)


@case("4.22")
async def of_many_that_fire_the_same_at_once_one_moves_it(bench: Bench) -> None:
    await create(bench, *(new_schedule(f"{number:02}") for number in range(20)))
    records = await find(bench)

    async def fire_all(store: Bench, number: int) -> list[str]:
        ids: list[str] = []
        order = records[number:] + records[:number]
        for begin in range(0, len(order), 5):
            moves = [
                firing(each, job_of(each), after=store.now, next_at=store.now + HOUR)
                for each in order[begin : begin + 5]
            ]
            ids += [each.job_id for answer in await fire(store, *moves) for each in answer.jobs]
        return ids

    told = await in_threads(bench, fire_all)

    ids = sorted(job_id for of_one in told for job_id in of_one)
    after = await find(bench)
    assert ids == await bench.find_ids(), "each is told of the jobs that it made"
    assert ids == sorted(record.last_job or "" for record in after)
    assert [1] * 20 == [record.fired for record in after]


@case("4.22")
async def schedulers_side_by_side_make_one_job_a_tick(bench: Bench) -> None:
    ticks, names = 10, [f"{number}" for number in range(5)]
    await create(bench, *map(new_schedule, names))
    bench.advance(MINUTE)

    async def run(store: Bench, number: int) -> list[str]:
        """Fire whatever is due until all ticks are over, one a second, and return which were fired here."""
        fired: list[str] = []
        while looked := (await due(store, 3)).due:
            moves: list[Firing] = []
            for one in looked:
                record = one.record
                next_at = (record.next_at or record.created_at) + SECOND
                ended = next_at >= record.created_at + ticks * SECOND
                moves.append(
                    firing(record, job_of(record), after=next_at, next_at=next_at, ended=ended, missed=1)
                )
            answers = await fire(store, *moves)
            done = zip(moves, answers, strict=True)
            fired += [f"{move.name} {move.next_at}" for move, answer in done if answer.moved]
        return fired

    told = [each for of_one in await in_threads(bench, run) for each in of_one]

    assert len(told) == len(set(told)) == len(names) * ticks, "no tick is fired twice, and none is lost"
    assert len(told) == len(await bench.find_ids())
    assert {(ticks, ticks, True)} == {(one.fired, one.missed, one.ended) for one in await find(bench)}


@case("4.22", needs=Capability.SHARED)
async def what_one_process_fires_is_seen_by_the_others(bench: Bench) -> None:
    await create(bench, new_schedule())
    record = await record_of(bench)

    async with bench.beside(bench.open_driver()) as other:
        told = moved(await fire(other, firing(record, job_of(record), after=bench.now)))
        told += moved(await fire(bench, firing(record, job_of(record), after=bench.now)))
        assert await find(other) == await find(bench)

    assert [True, False] == told
    assert 1 == len(await bench.find_ids())


@case("4.22", needs=Capability.DURABLE)
async def a_fired_schedule_survives_a_restart(bench: Bench) -> None:
    await create(bench, new_schedule("a"), new_schedule("b"))
    await tick(bench, "a")
    record = await record_of(bench, "b")
    await fire(
        bench,
        firing(record, after=bench.now, next_at=bench.now + MINUTE, waiting_tick=bench.now, overlapped=1),
    )
    before = await find(bench)

    await bench.restart()

    assert before == await find(bench)
    assert ["b"] == await due_names(bench)
