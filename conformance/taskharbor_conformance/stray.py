"""What a worker met and could not run: an unknown task, a payload it cannot decode. It is lost to nobody who can."""

from __future__ import annotations

from datetime import timedelta

from taskharbor.driver import JobCount, WorkerForget
from taskharbor.job import JobState
from taskharbor.retry import RetryNumbers
from taskharbor_conformance.bench import (
    DAY,
    HOUR,
    SECOND,
    TASK,
    Bench,
    failure,
    release,
    snooze,
    stray,
    success,
)
from taskharbor_conformance.case import case

NEW_TASK = "video.cut"
OLD = frozenset({TASK})
"""What workers of the old deploy know."""
NEW = frozenset({TASK, NEW_TASK})


async def _unknown(bench: Bench) -> str:
    """Return a job of `NEW_TASK` that a worker of the old deploy met."""
    job_id = await bench.enqueue(task=NEW_TASK)
    await bench.settle(stray(await bench.take_one(tasks=OLD)))
    return job_id


async def _refused(bench: Bench, *builds: str) -> str:
    """Return a job that workers of these builds met, and whose payload they could not decode."""
    job_id = await bench.enqueue()
    for build in builds:
        await bench.settle(
            stray(await bench.take_one(build=build), refused_by=build, reason="foreign payload")
        )
    return job_id


@case("4.16")
async def a_job_of_an_unknown_task_is_met_once_by_those_who_do_not_know_it(bench: Bench) -> None:
    job_id = await _unknown(bench)

    old = await bench.take_ids(tasks=OLD, worker="old")
    new = await bench.take_ids(tasks=NEW, worker="new")

    assert ([], [job_id]) == (old, new)


@case("4.16")
async def meeting_a_job_of_an_unknown_task_costs_it_nothing(bench: Bench) -> None:
    job_id = await bench.enqueue(task=NEW_TASK, payload=b"kept")
    met = await bench.take_one(tasks=OLD)

    await bench.settle(stray(met, reason="unknown here"))

    record = await bench.record(job_id)
    delivery = await bench.take_one(tasks=NEW)
    assert (0, (), "unknown here", ()) == (record.attempt, record.errors, record.reason, record.refused_by)
    assert (1, b"kept", False) == (delivery.attempt, delivery.payload, delivery.guarded)


@case("4.16")
async def an_unknown_task_holds_up_nobody(bench: Bench) -> None:
    ids = [await bench.enqueue(task=NEW_TASK, priority=0) for _ in range(20)]
    await bench.settle(*map(stray, await bench.take(tasks=OLD)))
    waiting = await bench.enqueue(priority=9)

    assert [waiting] == await bench.take_ids(1, tasks=OLD)
    assert ids == await bench.take_ids(tasks=NEW)


@case("4.16")
async def a_job_that_nobody_alive_knows_is_parked(bench: Bench) -> None:
    await bench.announce("old", tasks=[TASK])
    job_id = await bench.enqueue(task=NEW_TASK)
    met = await bench.take_one(tasks=OLD)

    states = await bench.settle(stray(met))

    assert [JobState.PARKED] == states
    assert JobState.PARKED == await bench.state(job_id)
    assert [job_id] == await bench.find_ids(JobState.PARKED)
    (counted,) = await bench.store.job_count(JobCount(now=bench.now))
    assert (JobState.PARKED, 1) == (counted.state, counted.count)


@case("4.16")
async def a_parked_job_is_ready_as_soon_as_a_worker_that_knows_it_lives(bench: Bench) -> None:
    job_id = await _unknown(bench)
    states = [await bench.state(job_id)]

    await bench.announce("new", tasks=[NEW_TASK], ttl=60 * SECOND)
    states.append(await bench.state(job_id))
    bench.advance(61 * SECOND)
    states.append(await bench.state(job_id))
    await bench.announce("new", tasks=[NEW_TASK])
    states.append(await bench.state(job_id))
    await bench.store.worker_forget(WorkerForget(workers=["new"], now=bench.now))
    states.append(await bench.state(job_id))

    parked, ready = JobState.PARKED, JobState.READY
    assert [parked, ready, parked, ready, parked] == states


@case("4.16")
async def a_stray_needs_no_register_to_be_taken(bench: Bench) -> None:
    job_id = await _unknown(bench)

    assert [job_id] == await bench.take_ids(tasks=NEW), (
        "the register decides what is shown, not what is taken"
    )


@case("4.16")
async def a_later_deploy_of_the_same_build_may_come_to_know_a_task(bench: Bench) -> None:
    job_id = await bench.enqueue(task=NEW_TASK)
    await bench.settle(stray(await bench.take_one(tasks=OLD, build="same")))

    assert [job_id] == await bench.take_ids(tasks=NEW, build="same"), "it refused no payload"


@case("4.16")
async def a_build_meets_a_payload_it_cannot_decode_once(bench: Bench) -> None:
    job_id = await _refused(bench, "build-1")

    again = await bench.take_ids(build="build-1", worker="another of it")
    other = await bench.take_ids(build="build-2")

    assert ([], [job_id]) == (again, other)


@case("4.16")
async def each_build_meets_a_foreign_payload_once(bench: Bench) -> None:
    builds = ["build-3", "build-1", "build-2"]
    job_id = await _refused(bench, *builds)

    refused = [await bench.take_ids(build=build) for build in builds]
    record = await bench.record(job_id)
    other = await bench.take_ids(build="build-4")

    assert [[], [], []] == refused
    assert (sorted(builds), "foreign payload") == (sorted(record.refused_by), record.reason)
    assert [job_id] == other


@case("4.16")
async def another_build_needs_to_know_the_task_of_a_refused_job(bench: Bench) -> None:
    job_id = await _refused(bench, "build-1")

    without = await bench.take_ids(build="build-2", tasks=frozenset({NEW_TASK}))
    knowing = await bench.take_ids(build="build-2")

    assert ([], [job_id]) == (without, knowing)


@case("4.16")
async def an_unknown_task_may_turn_out_to_be_a_foreign_payload_too(bench: Bench) -> None:
    job_id = await _unknown(bench)
    await bench.settle(stray(await bench.take_one(tasks=NEW, build="build-2"), refused_by="build-2"))

    refusing = await bench.take_ids(tasks=NEW, build="build-2")
    other = await bench.take_ids(tasks=NEW, build="build-3")

    assert ([], [job_id]) == (refusing, other)


@case("4.16")
async def a_refused_job_is_parked_until_another_build_that_knows_it_lives(bench: Bench) -> None:
    await bench.announce("old", build="build-1")
    job_id = await _refused(bench, "build-1")
    states = [await bench.state(job_id)]

    await bench.announce("stranger", build="build-2", tasks=[NEW_TASK])
    states.append(await bench.state(job_id))
    await bench.announce("new", build="build-2")
    states.append(await bench.state(job_id))

    assert [JobState.PARKED, JobState.PARKED, JobState.READY] == states


@case("4.16")
async def the_payload_of_a_refused_job_is_kept_and_runs_elsewhere(bench: Bench) -> None:
    job_id = await bench.enqueue(payload=b"foreign")
    await bench.settle(stray(await bench.take_one(build="build-1"), refused_by="build-1"))

    delivery = await bench.take_one(build="build-2")
    await bench.settle(success(delivery, b"done"))

    record = await bench.record(job_id)
    assert b"foreign" == delivery.payload
    assert (JobState.SUCCEEDED, b"done", 1) == (record.state, record.result, record.attempt)


@case("4.16")
async def a_stray_that_is_handed_back_stays_in_its_own_lane(bench: Bench) -> None:
    job_id = await _unknown(bench)

    for end in (release, snooze, failure):
        await bench.settle(end(await bench.take_one(tasks=NEW)))
        assert [] == await bench.take_ids(tasks=OLD), f"after {end.__name__}"

    assert [job_id] == await bench.take_ids(tasks=NEW)


@case("4.16", "4.4")
async def a_stray_whose_worker_crashed_stays_in_its_own_lane(bench: Bench) -> None:
    job_id = await _unknown(bench)
    await bench.take_one(tasks=NEW)
    await bench.lose_workers()

    old = await bench.take_ids(tasks=OLD)
    delivery = await bench.take_one(tasks=NEW)

    assert ([], job_id, True) == (old, delivery.id, delivery.guarded)


@case("4.16", "4.10")
async def strays_stand_in_one_order_with_the_other_jobs(bench: Bench) -> None:
    ids = {name: await bench.enqueue(task=NEW_TASK, priority=p) for name, p in (("late", 5), ("urgent", 1))}
    await bench.settle(*map(stray, await bench.take(tasks=OLD)))
    bench.advance(SECOND)
    plain = await bench.enqueue(priority=4)

    assert [ids["urgent"], plain, ids["late"]] == await bench.take_ids(tasks=NEW)


@case("4.16", "4.4")
async def a_stray_keeps_its_guard(bench: Bench) -> None:
    job_id = await bench.enqueue(task=NEW_TASK, retry=RetryNumbers(max_attempts=1))
    await bench.settle(stray(await bench.take_one(tasks=OLD)))

    reservation = await bench.reserve(tasks=NEW, guarded_limit=0)

    assert (0, True) == (len(reservation.deliveries), reservation.held_back)
    assert [job_id] == await bench.take_ids(tasks=NEW, guarded_limit=1)


@case("4.16", "4.15")
async def strays_of_a_paused_queue_are_not_taken(bench: Bench) -> None:
    job_id = await _unknown(bench)
    await bench.pause("default")

    paused = await bench.take_ids(tasks=NEW)
    await bench.resume("default")

    assert ([], [job_id]) == (paused, await bench.take_ids(tasks=NEW))


@case("4.16")
async def strays_stay_in_their_queue(bench: Bench) -> None:
    job_id = await bench.enqueue(task=NEW_TASK, queue="video")
    await bench.settle(stray(await bench.take_one(queues=["video"], tasks=OLD)))

    assert [] == await bench.take_ids(queues=["default"], tasks=NEW)
    assert [job_id] == await bench.take_ids(queues=["video"], tasks=NEW)


@case("4.16")
async def the_hint_leaves_out_strays_that_the_worker_may_not_take(bench: Bench) -> None:
    job_id = await _unknown(bench)
    await bench.settle(release(await bench.take_one(tasks=NEW)))

    old = await bench.reserve(tasks=OLD)
    new = await bench.reserve(0, tasks=NEW)

    assert None is old.next_due_in, "it would look again at once, for ever"
    assert timedelta(0) == new.next_due_in
    assert [job_id] == await bench.take_ids(tasks=NEW)


@case("4.16", "4.6")
async def a_stray_that_failed_waits_for_its_time_and_shows_it(bench: Bench) -> None:
    await bench.announce("new", tasks=[NEW_TASK])
    job_id = await _unknown(bench)
    await bench.settle(failure(await bench.take_one(tasks=NEW), after=HOUR))

    state = await bench.state(job_id)
    early = await bench.take_ids(tasks=NEW)
    bench.advance(HOUR)

    assert (JobState.RETRYING, []) == (state, early)
    assert [job_id] == await bench.take_ids(tasks=NEW)


@case("4.16", "4.1")
async def a_rolling_deploy_loses_nothing(bench: Bench) -> None:
    old_jobs = [await bench.enqueue() for _ in range(5)]
    new_jobs = [await bench.enqueue(task=NEW_TASK) for _ in range(5)]
    done: list[str] = []

    for build, tasks in (("build-1", OLD), ("build-2", NEW), ("build-1", OLD), ("build-2", NEW)):
        for delivery in await bench.take(build=build, tasks=tasks):
            if delivery.task in tasks:
                await bench.settle(success(delivery))
                done.append(delivery.id)
            else:
                await bench.settle(stray(delivery))
        bench.advance(DAY)

    assert [*old_jobs, *new_jobs] == done


@case("4.16", "4.13")
async def every_stray_of_a_batch_is_told_to_be_parked(bench: Bench) -> None:
    for task in ("a", "b", "c"):
        await bench.enqueue(task=task)
    deliveries = await bench.take(tasks=frozenset({"a", "b", "c"}))

    states = await bench.settle(*map(stray, deliveries))

    assert [JobState.PARKED] * 3 == states
