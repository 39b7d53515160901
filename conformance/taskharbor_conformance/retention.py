"""history_prune: what has outlived its retention goes, and nothing else.

A store may remove by the day, so what must be gone is looked for `GRACE` later; what must be there, to the second.
"""

from __future__ import annotations

from taskharbor.driver import EnqueueStatus, HistoryPrune, JobCount, Pruned
from taskharbor.job import JobState
from taskharbor.settlement import SettleStatus
from taskharbor_conformance.bench import (
    DAY,
    ENOUGH,
    HOUR,
    NOW,
    SECOND,
    Bench,
    burial,
    failure,
    new_job,
    stray,
    success,
)
from taskharbor_conformance.case import case

GRACE = 2 * DAY


async def _prune(bench: Bench, limit: int = ENOUGH) -> Pruned:
    return await bench.store.history_prune(HistoryPrune(limit=limit, now=bench.now))


@case("4.17")
async def succeeded_and_cancelled_jobs_are_kept_for_their_time_and_then_removed(bench: Bench) -> None:
    succeeded = await bench.enqueue(retain=7 * DAY)
    await bench.finish(succeeded)
    cancelled = await bench.enqueue(retain=7 * DAY)
    await bench.cancel(cancelled)
    bench.advance(7 * DAY - SECOND)
    early = await _prune(bench)
    kept = [await bench.state(succeeded), await bench.state(cancelled)]
    bench.advance(GRACE)

    late = await _prune(bench)

    assert (0, [JobState.SUCCEEDED, JobState.CANCELLED], 2) == (early.jobs, kept, late.jobs)
    assert [None, None] == await bench.get(succeeded, cancelled)
    assert [] == await bench.find_ids()
    assert [] == list(await bench.store.job_count(JobCount(now=bench.now)))


@case("4.17", "4.11")
async def a_job_cancelled_while_running_is_removed_after_its_time_too(bench: Bench) -> None:
    job_id = await bench.enqueue(retain=HOUR)
    delivery = await bench.take_one()
    await bench.cancel(job_id)
    await bench.settle(failure(delivery))
    bench.advance(HOUR + GRACE)

    pruned = await _prune(bench)

    assert 1 == pruned.jobs


@case("4.17")
async def retention_is_counted_from_the_end_of_a_job(bench: Bench) -> None:
    job_id = await bench.enqueue(retain=DAY)
    bench.advance(10 * DAY)
    await bench.finish(job_id)
    bench.advance(HOUR)

    pruned = await _prune(bench)

    assert (0, JobState.SUCCEEDED) == (pruned.jobs, await bench.state(job_id))


@case("4.17")
async def each_job_has_its_own_retention(bench: Bench) -> None:
    ids = [await bench.enqueue(retain=retain) for retain in (90 * DAY, NOW, 60 * DAY, HOUR)]
    await bench.settle(*map(success, await bench.take()))
    bench.advance(30 * DAY)

    pruned = await _prune(bench)

    assert 2 == pruned.jobs
    assert [ids[0], ids[2]] == await bench.find_ids()


@case("4.17", "4.7")
async def dead_letters_are_never_removed(bench: Bench) -> None:
    job_id = await bench.enqueue(retain=NOW, payload=b"kept")
    await bench.settle(burial(await bench.take_one()))
    bench.advance(3650 * DAY)

    pruned = await _prune(bench)

    record = await bench.record(job_id)
    assert (0, JobState.DEAD, b"kept", 1) == (
        pruned.jobs,
        record.state,
        record.payload,
        len(record.errors),
    )


@case("4.17", "4.1")
async def live_jobs_are_never_removed(bench: Bench) -> None:
    for number in range(5):
        await bench.enqueue(retain=NOW, priority=number, run_in=DAY if number == 4 else None)
    running, retrying, parked = await bench.take(3)
    await bench.settle(failure(retrying, after=100 * DAY), stray(parked))
    before = await bench.find_ids()
    bench.advance(50 * DAY)

    pruned = await _prune(bench)

    assert 0 == pruned.jobs
    assert before == await bench.find_ids()
    assert JobState.RUNNING == await bench.state(running.id)


@case("4.17", "4.8")
async def a_requeued_job_is_live_again_and_stays(bench: Bench) -> None:
    job_id = await bench.enqueue(retain=HOUR)
    await bench.cancel(job_id)
    await bench.requeue(job_id)
    bench.advance(HOUR + GRACE)

    pruned = await _prune(bench)

    assert (0, [job_id]) == (pruned.jobs, await bench.take_ids())


@case("4.17")
async def a_job_that_ended_twice_is_kept_from_its_last_end(bench: Bench) -> None:
    job_id = await bench.enqueue(retain=HOUR)
    await bench.cancel(job_id)
    bench.advance(HOUR - SECOND)
    await bench.requeue(job_id)
    await bench.finish(job_id)
    bench.advance(HOUR - SECOND)
    early = await _prune(bench)
    bench.advance(GRACE)

    late = await _prune(bench)

    assert (0, 1) == (early.jobs, late.jobs)


@case("4.17")
async def a_limited_prune_says_whether_there_may_be_more(bench: Bench) -> None:
    for _ in range(5):
        await bench.enqueue(retain=NOW)
    await bench.settle(*map(success, await bench.take()))
    bench.advance(GRACE)
    steps: list[int] = []

    more = True
    while more and len(steps) < 10:
        pruned = await _prune(bench, limit=2)
        steps.append(pruned.jobs)
        more = pruned.more

    assert 5 == sum(steps)
    assert max(steps) <= 2 or 5 in steps, "more than the limit, and not the whole day"
    assert [] == await bench.find_ids()


@case("4.17", "4.9")
async def a_limited_prune_of_keys_says_so_too(bench: Bench) -> None:
    for number in range(5):
        await bench.enqueue(key=f"k{number}", key_ttl=HOUR, retain=100 * DAY)
    await bench.settle(*map(success, await bench.take()))
    bench.advance(GRACE)
    steps: list[int] = []

    more = True
    while more and len(steps) < 10:
        pruned = await _prune(bench, limit=2)
        steps.append(pruned.keys)
        more = pruned.more

    assert (5, True) == (sum(steps), max(steps) <= 2)
    assert 5 == len(await bench.find_ids()), "the jobs are kept for longer"


@case("4.17")
async def a_prune_with_nothing_to_do_does_nothing(bench: Bench) -> None:
    await bench.enqueue()

    pruned = await _prune(bench)

    assert (0, 0, False) == (pruned.jobs, pruned.keys, pruned.more)


@case("4.17", "4.9")
async def a_key_outlives_its_jobs_record_for_its_own_time(bench: Bench) -> None:
    first = await bench.enqueue(key="k", key_ttl=10 * DAY, retain=HOUR)
    await bench.finish(first)
    bench.advance(HOUR + GRACE)
    removed = await _prune(bench)

    (within,) = await bench.enqueue_all(new_job(key="k"))
    (other,) = await bench.enqueue_all(new_job(key="k", digest=b"other"))
    bench.advance(10 * DAY)
    expired = await _prune(bench)
    (after,) = await bench.enqueue_all(new_job(key="k"))

    assert ((1, 0), (0, 1)) == ((removed.jobs, removed.keys), (expired.jobs, expired.keys))
    assert (EnqueueStatus.EXISTING, first) == (within.status, within.job_id)
    assert EnqueueStatus.CONFLICT == other.status
    assert EnqueueStatus.CREATED == after.status


@case("4.17", "4.9")
async def keys_of_live_jobs_are_never_removed(bench: Bench) -> None:
    job_id = await bench.enqueue(key="k", key_ttl=NOW)
    bench.advance(100 * DAY)

    pruned = await _prune(bench)

    (duplicate,) = await bench.enqueue_all(new_job(key="k"))
    assert (0, job_id) == (pruned.keys, duplicate.job_id)


@case("4.17", "4.9")
async def a_key_taken_anew_is_not_removed_with_its_old_time(bench: Bench) -> None:
    first = await bench.enqueue(key="k", key_ttl=HOUR)
    await bench.finish(first)
    bench.advance(2 * HOUR)
    second = await bench.enqueue(key="k", key_ttl=HOUR)
    bench.advance(GRACE)

    await _prune(bench)

    (duplicate,) = await bench.enqueue_all(new_job(key="k"))
    assert (EnqueueStatus.EXISTING, second) == (duplicate.status, duplicate.job_id)


@case("4.17", "4.9")
async def a_requeued_jobs_key_is_not_removed_with_its_old_time(bench: Bench) -> None:
    job_id = await bench.enqueue(key="k", key_ttl=HOUR)
    await bench.cancel(job_id)
    await bench.requeue(job_id)
    bench.advance(HOUR + GRACE)

    await _prune(bench)

    (duplicate,) = await bench.enqueue_all(new_job(key="k"))
    assert (EnqueueStatus.EXISTING, job_id) == (duplicate.status, duplicate.job_id)


@case("4.17", "4.3")
async def a_removed_record_remembers_no_settlement(bench: Bench) -> None:
    await bench.enqueue(retain=HOUR)
    delivery = await bench.take_one()
    await bench.settle(success(delivery))
    bench.advance(HOUR + GRACE)
    await _prune(bench)

    (answer,) = await bench.answers(success(delivery))

    assert SettleStatus.STALE == answer.status


@case("4.17", "4.18")
async def the_requests_now_decides_what_has_outlived_its_time(bench: Bench) -> None:
    job_id = await bench.enqueue(retain=HOUR)
    await bench.finish(job_id)

    pruned = await bench.store.history_prune(HistoryPrune(now=bench.now + HOUR + GRACE))

    assert 1 == pruned.jobs


@case("4.17", "4.16")
async def a_worker_long_gone_is_removed_and_a_live_one_is_not(bench: Bench) -> None:
    await bench.announce("gone", ttl=SECOND)
    await bench.announce("alive", ttl=10 * DAY)
    bench.advance(GRACE)

    await _prune(bench)

    assert not (await bench.extend(worker="gone")).known_worker
    assert (await bench.extend(worker="alive")).known_worker
