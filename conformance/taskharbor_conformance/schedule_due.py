"""schedule_due: which schedules are to be looked at, in what order, and which of them are busy."""

from __future__ import annotations

from datetime import timedelta

from taskharbor_conformance.bench import DAY, HOUR, SECOND, Bench
from taskharbor_conformance.case import case
from taskharbor_conformance.timetables import (
    MINUTE,
    create,
    due,
    due_names,
    find,
    fire,
    firing,
    foresee,
    new_schedule,
    record_of,
    tick,
)


@case("4.22")
async def what_is_to_be_computed_comes_first_and_then_the_longest_due(bench: Bench) -> None:
    names = ["d", "b", "a", "new 2", "c", "later", "new 1"]
    await create(bench, *map(new_schedule, names))
    for name, minutes in (("d", 1), ("b", 3), ("a", 3), ("c", 2), ("later", 9)):
        await foresee(bench, name, next_in=minutes * MINUTE)
    bench.advance(5 * MINUTE)

    answer = await due(bench)

    assert ["new 1", "new 2", "d", "c", "a", "b"] == [one.record.name for one in answer.due]
    assert (bench.now, 4 * MINUTE) == (answer.now, answer.next_in)
    assert await find(bench) == sorted(
        [*(one.record for one in answer.due), await record_of(bench, "later")], key=lambda one: one.name
    ), "whole records"
    assert {False} == {one.busy for one in answer.due}


@case("4.22")
async def a_limit_leaves_the_others_for_another_look(bench: Bench) -> None:
    await create(bench, *map(new_schedule, "abcde"))
    await foresee(bench, *"abc", next_in=MINUTE)
    bench.advance(MINUTE)

    first, second, none = [await due(bench, limit) for limit in (3, 4, 0)]

    assert ["d", "e", "a"] == [one.record.name for one in first.due]
    assert ["d", "e", "a", "b"] == [one.record.name for one in second.due]
    assert (0, [timedelta(0)] * 3) == (len(none.due), [first.next_in, second.next_in, none.next_in])


@case("4.22", "4.18")
async def a_tick_is_due_from_its_very_instant(bench: Bench) -> None:
    await create(bench, new_schedule())
    await foresee(bench, "tick", next_in=MINUTE)
    bench.advance(MINUTE - timedelta(microseconds=1))
    before = await due(bench)
    bench.advance(timedelta(microseconds=1))

    assert ([], timedelta(microseconds=1)) == (list(before.due), before.next_in)
    assert ["tick"] == await due_names(bench)


@case("4.22")
async def what_has_ended_is_not_due(bench: Bench) -> None:
    await create(bench, new_schedule("a"), new_schedule("b"))
    await fire(
        bench, *[firing(record, after=bench.now, ended=record.name == "a") for record in await find(bench)]
    )
    bench.advance(DAY)

    answer = await due(bench)

    assert (["b"], None) == ([one.record.name for one in answer.due], answer.next_in)
    assert [(True, None), (False, None)] == [(record.ended, record.next_at) for record in await find(bench)]


@case("4.22")
async def a_schedule_is_busy_until_its_last_job_has_ended(bench: Bench) -> None:
    await create(bench, new_schedule())
    first = await tick(bench, next_in=timedelta(0))
    last = await tick(bench, next_in=timedelta(0))

    async def busy() -> bool:
        (one,) = (await due(bench)).due
        return one.busy

    told = [await busy()]
    await bench.finish(first)
    told.append(await busy())
    delivery = await bench.pick(last)
    told.append(await busy())
    await bench.start(delivery)
    await bench.lose_workers()
    told.append(await busy())
    await bench.cancel(last)
    told.append(await busy())
    await bench.requeue(last)
    told.append(await busy())
    await bench.delete(last)
    told.append(await busy())

    assert [True, True, True, True, False, True, False] == told


@case("4.22")
async def schedules_are_idle_whatever_end_their_jobs_came_to(bench: Bench) -> None:
    names = ("buried", "cancelled", "succeeded")
    await create(bench, *map(new_schedule, names))
    buried, cancelled, succeeded = [await tick(bench, name, next_in=timedelta(0)) for name in names]
    busy = [one.busy for one in (await due(bench)).due]

    await bench.bury(buried)
    await bench.cancel(cancelled)
    await bench.finish(succeeded)

    assert [True] * 3 == busy
    assert [False] * 3 == [one.busy for one in (await due(bench)).due]


@case("4.22")
async def a_tick_that_waits_is_due_when_the_last_job_has_ended(bench: Bench) -> None:
    await create(bench, new_schedule("a"), new_schedule("b"), new_schedule("ended"))
    for name, minutes in (("a", 2), ("b", 1), ("ended", 3)):
        await tick(bench, name)
        move = firing(
            await record_of(bench, name),
            after=bench.now,
            next_at=None if name == "ended" else bench.now + HOUR,
            ended=name == "ended",
            waiting_tick=bench.now - minutes * MINUTE,
            overlapped=1,
        )
        await fire(bench, move)
    jobs = {record.name: record.last_job or "" for record in await find(bench)}
    waiting = await due(bench)

    await bench.finish(jobs["a"])
    one = await due(bench)
    for name in ("b", "ended"):
        await bench.cancel(jobs[name])

    assert ([], HOUR) == (list(waiting.due), waiting.next_in), "what waits for a job's end is not foreseen"
    assert ([("a", False)], HOUR) == ([(each.record.name, each.busy) for each in one.due], one.next_in)
    assert ["ended", "a", "b"] == await due_names(bench), "the longest due first; what has ended, too"
    assert ["ended", "a"] == await due_names(bench, limit=2)


@case("4.22")
async def a_tick_that_waits_and_another_that_is_due_are_one_look(bench: Bench) -> None:
    await create(bench, new_schedule("a"), new_schedule("b"))
    await foresee(bench, "b", next_in=30 * SECOND)
    await fire(
        bench,
        firing(
            await record_of(bench, "a"), after=bench.now, next_at=bench.now + MINUTE, waiting_tick=bench.now
        ),
    )
    bench.advance(HOUR)

    assert ["a", "b"] == await due_names(bench), "it has been due since the tick that waits"
