"""schedule_fire: a tick's job and the step past it are one, and only for who has read the schedule as it is."""

from __future__ import annotations

from msgspec.structs import replace

from taskharbor.driver import UPKEEP, EnqueueStatus, Firing
from taskharbor.job import JobState, KeyRule, OnConflict, new_job_id
from taskharbor_conformance.bench import DAY, HOUR, SECOND, Bench, Doorbell, new_job
from taskharbor_conformance.case import case
from taskharbor_conformance.leader import release, take
from taskharbor_conformance.timetables import (
    MINUTE,
    create,
    due,
    find,
    fire,
    firing,
    job_of,
    moved,
    new_schedule,
    record_of,
    tick,
)

CREATED, EXISTING, CONFLICT = EnqueueStatus.CREATED, EnqueueStatus.EXISTING, EnqueueStatus.CONFLICT
MANY = 500


@case("4.22", "4.1")
async def a_firing_stores_its_jobs_and_moves_its_schedule_on(bench: Bench) -> None:
    await create(bench, new_schedule(job=new_job(queue="mail", priority=2, payload=b"[1]")))
    record = await record_of(bench)
    jobs = [job_of(record) for _ in range(3)]
    bell = Doorbell()
    watching = bench.driver.watch_queues(["mail"], bell)
    bench.advance(MINUTE)

    (answer,) = await fire(
        bench,
        firing(
            record,
            *jobs,
            last_tick=bench.now - SECOND,
            after=bench.now - SECOND,
            next_at=bench.now + HOUR,
            missed=4,
            overlapped=5,
        ),
    )

    await bell.wait()
    watching.close()
    assert (True, [(CREATED, job.id) for job in jobs]) == (
        answer.moved,
        [(each.status, each.job_id) for each in answer.jobs],
    )
    after = await record_of(bench)
    assert (bench.now - SECOND, bench.now + HOUR, False, None) == (
        after.after,
        after.next_at,
        after.ended,
        after.waiting_tick,
    )
    assert (3, 4, 5, bench.now - SECOND, jobs[-1].id) == (
        after.fired,
        after.missed,
        after.overlapped,
        after.last_tick,
        after.last_job,
    )
    assert record.revision < after.revision
    assert [job.id for job in jobs] == await bench.take_ids(queues=["mail"])
    assert [(2, b"[1]", bench.now)] * 3 == [
        (each.priority, each.payload, each.enqueued_at)
        for each in [await bench.record(job.id) for job in jobs]
    ]


@case("4.22")
async def asked_twice_the_second_changes_nothing(bench: Bench) -> None:
    await create(bench, new_schedule())
    record = await record_of(bench)
    first = firing(record, job_of(record), after=bench.now, next_at=bench.now + HOUR, missed=1)
    other = firing(record, job_of(record), after=bench.now, next_at=bench.now + MINUTE, missed=1)

    answers = [*await fire(bench, first), *await fire(bench, first), *await fire(bench, other, other)]

    assert [True, False, False, False] == moved(answers)
    assert [1, 0, 0, 0] == [len(answer.jobs) for answer in answers]
    assert [first.jobs[0].id] == await bench.find_ids()
    after = await record_of(bench)
    assert (1, 1, bench.now + HOUR) == (after.fired, after.missed, after.next_at)


@case("4.22")
async def one_schedule_in_a_batch_twice_moves_once(bench: Bench) -> None:
    await create(bench, new_schedule())
    record = await record_of(bench)
    one, other = [firing(record, job_of(record), after=bench.now, next_at=bench.now + HOUR) for _ in range(2)]
    stale = Firing(name="tick", revision=record.revision - 1, jobs=[job_of(record)], after=bench.now)

    answers = await fire(bench, stale, one, one, other)

    assert [False, True, False, False] == moved(answers)
    assert [one.jobs[0].id] == await bench.find_ids()
    assert 1 == (await record_of(bench)).fired


@case("4.22")
async def counts_add_up_over_firings_and_a_firing_without_jobs_keeps_the_last(bench: Bench) -> None:
    await create(bench, new_schedule())
    job_id, at = await tick(bench), bench.now
    for _ in range(2):
        bench.advance(HOUR)
        await fire(
            bench,
            firing(await record_of(bench), after=bench.now, next_at=bench.now + HOUR, missed=2, overlapped=3),
        )

    record = await record_of(bench)

    assert (1, 4, 6, at, job_id) == (
        record.fired,
        record.missed,
        record.overlapped,
        record.last_tick,
        record.last_job,
    )


@case("4.22")
async def a_tick_that_is_kept_is_let_go_by_the_next_firing_that_says_so(bench: Bench) -> None:
    await create(bench, new_schedule())
    kept = bench.now - MINUTE
    await fire(
        bench,
        firing(await record_of(bench), after=bench.now, next_at=bench.now + HOUR, waiting_tick=kept),
    )
    before = await record_of(bench)
    await fire(bench, firing(before, after=bench.now, next_at=bench.now + HOUR))

    assert (kept, None) == (before.waiting_tick, (await record_of(bench)).waiting_tick)


@case("4.22")
async def a_schedule_triggered_by_hand_keeps_its_ticks(bench: Bench) -> None:
    await create(bench, new_schedule())
    await tick(bench)
    record = await record_of(bench)
    await fire(
        bench,
        firing(record, after=bench.now, next_at=bench.now + HOUR, waiting_tick=bench.now),
    )
    before = await record_of(bench)
    bench.advance(MINUTE)
    job = job_of(before)

    (answer,) = await fire(bench, Firing(name="tick", revision=before.revision, jobs=[job]))

    after = await record_of(bench)
    assert [CREATED] == [each.status for each in answer.jobs]
    assert (before.after, before.next_at, before.waiting_tick, before.last_tick, before.ended) == (
        after.after,
        after.next_at,
        after.waiting_tick,
        after.last_tick,
        after.ended,
    )
    assert (2, job.id) == (after.fired, after.last_job)
    assert before.revision < after.revision


@case("4.22")
async def a_paused_schedule_may_be_triggered_by_hand(bench: Bench) -> None:
    await create(bench, new_schedule())
    await bench.pause("default")
    record = await record_of(bench)

    await fire(bench, Firing(name="tick", revision=record.revision, jobs=[job_of(record)]))

    assert 1 == (await record_of(bench)).fired
    assert 1 == len(await bench.find_ids())


@case("4.22")
async def a_firing_that_is_refused_leaves_the_others(bench: Bench) -> None:
    await create(bench, *map(new_schedule, "abc"))
    records = await find(bench)
    await tick(bench, "b")
    moves = [firing(record, job_of(record), after=bench.now) for record in records]
    gone = Firing(name="unknown", revision=1, jobs=[new_job()], after=bench.now)

    answers = await fire(bench, moves[0], gone, *moves[1:])

    assert [True, False, False, True] == moved(answers)
    assert [1, 1, 1] == [record.fired for record in await find(bench)]
    assert 3 == len(await bench.find_ids())


@case("4.22")
async def many_schedules_are_fired_at_once(bench: Bench) -> None:
    await create(bench, *(new_schedule(f"{number:03}") for number in range(MANY)))
    records = [one.record for one in (await due(bench)).due]
    assert MANY == len(records)
    jobs = [job_of(record) for record in records]

    answers = await fire(
        bench,
        *(
            firing(record, job, last_tick=bench.now, after=bench.now, next_at=bench.now + HOUR)
            for record, job in zip(records, jobs, strict=True)
        ),
    )

    assert {True} == set(moved(answers))
    assert [job.id for job in jobs] == [each.job_id for answer in answers for each in answer.jobs]
    assert [job.id for job in jobs] == [record.last_job for record in await find(bench)]
    assert [job.id for job in jobs] == await bench.take_ids()
    assert ([], HOUR) == (list((answer := await due(bench)).due), answer.next_in)


# --- keys


@case("4.22", "4.9")
async def a_firing_whose_key_is_taken_moves_on_without_a_job(bench: Bench) -> None:
    taken = await bench.enqueue(key="k")
    other = await bench.enqueue(key="other", digest=b"other arguments")
    await create(bench, new_schedule("a", job=new_job(key="k")), new_schedule("b", job=new_job(key="other")))
    records = await find(bench)

    answers = await fire(
        bench,
        *(firing(each, job_of(each), last_tick=bench.now, after=bench.now) for each in records),
    )

    assert [True, True] == moved(answers)
    assert [[(EXISTING, taken)], [(CONFLICT, other)]] == [
        [(each.status, each.job_id) for each in answer.jobs] for answer in answers
    ]
    assert [taken, other] == await bench.find_ids()
    for record in await find(bench):
        assert (0, 1, None, None, bench.now) == (
            record.fired,
            record.kept_out,
            record.last_job,
            record.last_tick,
            record.after,
        ), "the last tick is one that had a job"


@case("4.22", "4.9")
async def the_last_tick_is_that_of_the_last_job_not_kept_out(bench: Bench) -> None:
    await create(bench, new_schedule(job=new_job(key="k")))
    record = await record_of(bench)
    ticks = [bench.now - 2 * SECOND, bench.now - SECOND]
    jobs = [replace(job_of(record), run_at=tick) for tick in ticks]

    await fire(bench, firing(record, *jobs, last_tick=ticks[-1], after=bench.now))
    first = await record_of(bench)
    await fire(bench, firing(first, job_of(record), last_tick=bench.now, after=bench.now))

    assert (1, 1, jobs[0].id, ticks[0]) == (first.fired, first.kept_out, first.last_job, first.last_tick)
    after = await record_of(bench)
    assert (1, 2, jobs[0].id, ticks[0]) == (after.fired, after.kept_out, after.last_job, after.last_tick)


@case("4.22", "4.9")
async def ticks_of_one_batch_share_a_key_as_jobs_of_one_enqueue_do(bench: Bench) -> None:
    await create(bench, *(new_schedule(name, job=new_job(key="k")) for name in "ab"))
    records = await find(bench)

    first, second = await fire(
        bench, *(firing(each, job_of(each), job_of(each), after=bench.now) for each in records)
    )

    assert [[CREATED, EXISTING], [EXISTING, EXISTING]] == [
        [each.status for each in answer.jobs] for answer in (first, second)
    ]
    (job_id,) = await bench.find_ids()
    assert [(1, 1, job_id), (0, 2, None)] == [
        (each.fired, each.kept_out, each.last_job) for each in await find(bench)
    ]


@case("4.22", "4.20")
async def a_template_with_a_rule_for_its_key_is_unique_by_that_rule(bench: Bench) -> None:
    rule = KeyRule(states=(JobState.READY, JobState.SCHEDULED))
    job = new_job(key="k", digest=b"", key_rule=rule)
    await create(bench, new_schedule(job=job))

    async def answered() -> list[EnqueueStatus]:
        record = await record_of(bench)
        (answer,) = await fire(bench, firing(record, job_of(record), after=bench.now))
        return [each.status for each in answer.jobs]

    told = [await answered(), await answered()]
    first = await bench.take_one()
    told.append(await answered())

    assert [[CREATED], [EXISTING], [CREATED]] == told
    record = await record_of(bench)
    assert (2, 1) == (record.fired, record.kept_out)
    assert record.last_job not in (None, first.id)


@case("4.22", "4.20")
async def a_template_that_replaces_keeps_one_job(bench: Bench) -> None:
    job = new_job(key="k", on_conflict=OnConflict.REPLACE)
    await create(bench, new_schedule(job=job))
    job_id = await tick(bench)
    record = await record_of(bench)

    (answer,) = await fire(bench, firing(record, job_of(record), after=bench.now))

    assert [(EnqueueStatus.REPLACED, job_id)] == [(each.status, each.job_id) for each in answer.jobs]
    after = await record_of(bench)
    assert ([job_id], 1, 0, job_id) == (
        await bench.find_ids(),
        after.fired,
        after.kept_out,
        after.last_job,
    )


@case("4.22", "4.1")
async def a_job_that_is_stored_already_is_not_made_again(bench: Bench) -> None:
    job_id = await bench.enqueue()
    await create(bench, new_schedule())
    record = await record_of(bench)
    ids = [job_id, new_job_id()]

    (answer,) = await fire(bench, firing(record, *(new_job(id=one) for one in ids), after=bench.now))

    assert [EXISTING, CREATED] == [each.status for each in answer.jobs]
    after = await record_of(bench)
    assert (1, 0, ids[1]) == (after.fired, after.kept_out, after.last_job)
    assert ids == await bench.find_ids()


# --- leaders of old


@case("4.22", "4.23")
async def a_leader_of_old_fires_nothing(bench: Bench) -> None:
    await create(bench, new_schedule("a"), new_schedule("b"))
    old = await take(bench, "old", UPKEEP)
    await release(bench, "old", UPKEEP)
    records = await find(bench)
    new = await take(bench, "new", UPKEEP)
    moves = [firing(each, job_of(each), after=bench.now, next_at=bench.now + HOUR) for each in records]

    told = [moved(await fire(bench, *moves, fence=leader.fence)) for leader in (old, new)]

    assert [[False, False], [True, True]] == told
    assert 2 == len(await bench.find_ids())


@case("4.22", "4.23")
async def who_led_last_may_fire_until_another_leads(bench: Bench) -> None:
    await create(bench, new_schedule("a"), new_schedule("b"), new_schedule("c"))
    leader = await take(bench, "worker", UPKEEP)
    await take(bench, "other", "another role")
    records = await find(bench)
    told: list[bool] = []

    async def fires(number: int) -> None:
        move = firing(records[number], job_of(records[number]), after=bench.now)
        told.extend(moved(await fire(bench, move, fence=leader.fence)))

    await fires(0)
    bench.advance(DAY)
    await fires(1)
    await take(bench, "later", UPKEEP)
    await fires(2)

    assert [True, True, False] == told


@case("4.22", "4.23")
async def a_person_fires_whoever_leads(bench: Bench) -> None:
    await create(bench, new_schedule())
    await take(bench, "worker", UPKEEP)
    record = await record_of(bench)

    told = await fire(bench, Firing(name="tick", revision=record.revision, jobs=[job_of(record)]))

    assert [True] == moved(told)
