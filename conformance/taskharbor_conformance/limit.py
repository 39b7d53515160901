"""Limits on how many jobs are leased at once: of a queue, a task, each key, one key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta

from taskharbor.driver import Capability, LimitSet
from taskharbor.job import Delivery, JobState, NewJob, OnConflict, new_token
from taskharbor.limit import LimitTerms
from taskharbor.settlement import Settlement, SettleStatus
from taskharbor_conformance.bench import (
    BUILD,
    DAY,
    HOUR,
    NOW,
    SECOND,
    TASK,
    Bench,
    Doorbell,
    burial,
    cancellation,
    failure,
    new_job,
    release,
    snooze,
    stray,
    success,
)
from taskharbor_conformance.case import case
from taskharbor_conformance.graphs import chain, chord, ids_of
from taskharbor_conformance.scopes import (
    BOTH,
    OTHER,
    A,
    B,
    at_most,
    clear_limits,
    declare,
    in_line,
    limits,
    of_key,
    of_keys,
    of_queue,
    of_task,
    set_limit,
    token,
)


async def _plain(bench: Bench, count: int, task: str = TASK, queue: str = "default") -> list[str]:
    return [await bench.enqueue(task=task, queue=queue) for _ in range(count)]


# --- each scope


@case("4.24")
async def no_more_of_a_task_are_leased_than_its_limit(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_most(2))
    ids = await _plain(bench, 5)

    first, second = await bench.take(), await bench.take_ids()
    await bench.settle(success(first[0]))
    third, fourth = await bench.take_ids(), await bench.take_ids()

    assert (ids[:2], []) == ([delivery.id for delivery in first], second)
    assert ([ids[2]], []) == (third, fourth)


@case("4.24")
async def a_limit_set_later_is_on_the_jobs_that_are_there(bench: Bench) -> None:
    ids = await _plain(bench, 4)

    await set_limit(bench, of_task(), at_most(3))

    assert ids[:3] == await bench.take_ids()
    assert [] == await bench.take_ids()


@case("4.24")
async def what_is_leased_when_a_limit_is_set_counts(bench: Bench) -> None:
    ids = await _plain(bench, 4)
    first, _ = await bench.take(2)

    await set_limit(bench, of_task(), at_most(2))
    shut = await bench.take_ids()
    await bench.settle(success(first))

    assert ([], [ids[2]]) == (shut, await bench.take_ids())


@case("4.24")
async def a_tasks_limit_is_on_its_jobs_in_all_queues_and_of_all_keys(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_most(3))
    for queue in ("mail", "video"):
        await in_line(bench, A, 2, queue=queue)
        await in_line(bench, B, 2, queue=queue)

    taken = await bench.take_ids(2, queues=["mail"]) + await bench.take_ids(queues=["video"])

    assert 3 == len(taken)
    assert [] == await bench.take_ids(queues=["mail", "video"])


@case("4.24")
async def each_key_has_the_limit_of_keys(bench: Bench) -> None:
    await set_limit(bench, of_keys(), at_most(1))
    of_a, of_b = await in_line(bench, A, 3), await in_line(bench, B, 2)

    first = await bench.take()
    await bench.settle(*(success(one) for one in first if one.id == of_a[0]))

    assert {of_a[0], of_b[0]} == {one.id for one in first}
    assert [of_a[1]] == await bench.take_ids()


@case("4.24")
async def one_keys_own_limit_goes_before_that_of_keys(bench: Bench) -> None:
    await set_limit(bench, of_keys(), at_most(1))
    await set_limit(bench, of_key(B), at_most(3))
    of_a, of_b = await in_line(bench, A, 4), await in_line(bench, B, 4)

    assert {of_a[0], *of_b[:3]} == set(await bench.take_ids())


@case("4.24")
async def one_keys_limit_alone_leaves_the_others_free(bench: Bench) -> None:
    await set_limit(bench, of_key(A), at_most(1))
    of_a, of_b, plain = await in_line(bench, A, 3), await in_line(bench, B, 3), await _plain(bench, 3)

    assert {of_a[0], *of_b, *plain} == set(await bench.take_ids())


@case("4.24")
async def jobs_without_a_key_are_one_key_by_themselves(bench: Bench) -> None:
    await set_limit(bench, of_keys(), at_most(1))
    plain, of_a = await _plain(bench, 2), await in_line(bench, A, 2)

    assert {plain[0], of_a[0]} == set(await bench.take_ids())


@case("4.24")
async def a_queues_limit_is_on_all_its_jobs_and_on_no_other_queue(bench: Bench) -> None:
    await set_limit(bench, of_queue("mail"), at_most(3))
    await _plain(bench, 3, queue="mail")
    await in_line(bench, A, 3, queue="mail")
    other = await _plain(bench, 5, queue="video")

    taken = await bench.take(queues=["mail", "video"])

    assert sorted(other) == sorted(one.id for one in taken if one.queue == "video")
    of_mail = [one for one in taken if one.queue == "mail"]
    assert 3 == len(of_mail)
    assert [] == await bench.take_ids(queues=["mail", "video"])
    await bench.settle(*map(success, of_mail[:2]))
    assert 2 == len(await bench.take_ids(queues=["mail", "video"]))


@case("4.24")
async def plain_jobs_of_a_limited_queue_are_taken_in_order(bench: Bench) -> None:
    await set_limit(bench, of_queue(), at_most(2))
    later = await _plain(bench, 3)
    urgent = await bench.enqueue(priority=1)

    assert [urgent, later[0]] == await bench.take_ids()


@case("4.24")
async def a_job_needs_room_in_all_limits_that_concern_it(bench: Bench) -> None:
    await set_limit(bench, of_queue(), at_most(4))
    await set_limit(bench, of_task(), at_most(3))
    await set_limit(bench, of_keys(), at_most(2))
    of_a, of_b = await in_line(bench, A, 3), await in_line(bench, B, 3)
    others = [await bench.enqueue(task=OTHER, priority=9) for _ in range(3)]

    taken = await bench.take(tasks=BOTH)

    by_task = [one.id for one in taken if one.task == TASK]
    assert (4, 3) == (len(taken), len(by_task))
    assert others[0] in {one.id for one in taken}
    assert {of_a[0], of_b[0]} < set(by_task)
    await bench.settle(*(success(one) for one in taken if one.task == OTHER))
    assert [others[1]] == await bench.take_ids(tasks=BOTH), "the task has no room, the queue has"


@case("4.24")
async def jobs_without_limits_are_not_held_up(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_most(1))
    limited = [await bench.enqueue(priority=0) for _ in range(50)]
    others = [await bench.enqueue(task=OTHER, priority=9) for _ in range(5)]

    assert [limited[0], *others] == await bench.take_ids(tasks=BOTH)


@case("4.24")
async def under_a_limit_the_more_urgent_go_first(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_most(2))
    late = [await bench.enqueue(partition=A, priority=7) for _ in range(2)]
    urgent = await bench.enqueue(partition=A, priority=1)

    assert [urgent, late[0]] == await bench.take_ids()


@case("4.24", "4.10")
async def within_a_line_the_order_is_that_of_lanes(bench: Bench) -> None:
    await set_limit(bench, of_keys(), at_most(1))
    scheduled = await bench.enqueue(partition=A, run_in=SECOND)
    (first,) = await in_line(bench, A, 1)
    bench.advance(2 * SECOND)
    (second,) = await in_line(bench, A, 1)
    order: list[str] = []
    for _ in range(3):
        delivery = await bench.take_one()
        order.append(delivery.id)
        await bench.settle(success(delivery))

    assert [first, scheduled, second] == order


# --- lowering, lifting, clearing


@case("4.24")
async def what_is_leased_when_a_limit_is_lowered_stays_leased(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_most(4))
    ids = await _plain(bench, 8)
    first = await bench.take()
    await set_limit(bench, of_task(), at_most(2))

    kept = await bench.extend(*first)
    await bench.settle(*map(success, first[:2]))
    shut = await bench.take_ids()
    await bench.settle(success(first[2]))

    assert ([], []) == (list(kept.lost), shut)
    assert [ids[4]] == await bench.take_ids()


@case("4.24")
async def a_limit_that_is_raised_lets_more_through_at_once(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_most(1))
    ids = await _plain(bench, 4)
    await bench.take()

    await set_limit(bench, of_task(), at_most(3))

    assert ids[1:3] == await bench.take_ids()


@case("4.24")
async def a_limit_of_zero_stops_a_task(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_most(0))
    ids = await _plain(bench, 2)

    reservation = await bench.reserve()
    await clear_limits(bench, of_task())

    assert [] == list(reservation.deliveries)
    assert ids == await bench.take_ids()


@case("4.24")
async def what_is_declared_is_in_force(bench: Bench) -> None:
    await declare(bench, {of_task(): at_most(2), of_keys(): at_most(1)})
    of_a, of_b = await in_line(bench, A, 2), await in_line(bench, B, 2)

    assert {of_a[0], of_b[0]} == set(await bench.take_ids())


@case("4.24")
async def what_is_set_stands_in_the_place_of_what_is_declared_until_it_is_cleared(bench: Bench) -> None:
    await declare(bench, {of_task(): at_most(3)})
    ids = await _plain(bench, 6)

    await set_limit(bench, of_task(), at_most(1))
    await declare(bench, {of_task(): at_most(3)})
    first = await bench.take_ids()
    await declare(bench, {of_task(): at_most(2)})
    second = await bench.take_ids()
    cleared = await clear_limits(bench, of_task())
    third = await bench.take_ids()

    assert (ids[:1], [], [True], ids[1:2]) == (first, second, cleared, third)


@case("4.24")
async def terms_without_limits_lift_what_is_declared(bench: Bench) -> None:
    await declare(bench, {of_task(): at_most(1)})
    ids = await _plain(bench, 3)

    answer = await set_limit(bench, of_task(), LimitTerms())

    assert (at_most(1), True) == (answer.before, answer.changed)
    assert ids == await bench.take_ids()


@case("4.24")
async def what_code_declares_no_more_is_taken_back(bench: Bench) -> None:
    await declare(bench, {of_task(): at_most(1), of_task(OTHER): at_most(1)})
    ids = await _plain(bench, 2)

    await declare(bench, {of_task(): LimitTerms(), of_keys(): LimitTerms()})

    assert [of_task(OTHER)] == list(await limits(bench)), "of other tasks nothing was said"
    assert ids == await bench.take_ids()


@case("4.24")
async def clearing_says_whether_there_was_something(bench: Bench) -> None:
    await declare(bench, {of_task(): at_most(3)})
    await set_limit(bench, of_key(A), at_most(1))

    assert [False, True, False] == await clear_limits(bench, of_task(), of_key(A), of_queue("never seen"))
    assert [False] == await clear_limits(bench, of_key(A))


@case("4.24")
async def setting_says_what_was_in_force_and_whether_anything_changed(bench: Bench) -> None:
    first = await set_limit(bench, of_task(), at_most(3))
    again = await set_limit(bench, of_task(), at_most(3))
    other = await set_limit(bench, of_task(), at_most(1))

    assert (LimitTerms(), True) == (first.before, first.changed)
    assert (at_most(3), False) == (again.before, again.changed)
    assert (at_most(3), True) == (other.before, other.changed)


@case("4.24")
async def jobs_whose_limit_is_gone_are_all_taken(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_most(1))
    ids = [*await _plain(bench, 2), *await in_line(bench, A, 2)]
    running = await bench.take_ids()
    await clear_limits(bench, of_task())

    assert sorted(ids) == sorted([*running, *await bench.take_ids(2), *await bench.take_ids()])


@case("4.24")
async def limits_are_listed_with_what_is_declared_set_and_running(bench: Bench) -> None:
    await declare(bench, {of_task(): at_most(5), of_keys(): at_most(3)})
    bench.advance(SECOND)
    request = LimitSet(scope=of_keys(), terms=at_most(2), by="ada", reason="they complained", now=bench.now)
    await bench.store.limit_set(request)
    await set_limit(bench, of_queue(), at_most(9))
    await set_limit(bench, of_key(A), at_most(1))
    set_at = bench.now
    await in_line(bench, A, 2)
    await in_line(bench, B, 3)
    await bench.take()
    bench.advance(SECOND)

    listed = await limits(bench)

    assert sorted([of_queue(), of_task(), of_keys(), of_key(A)]) == list(listed)
    assert (at_most(5), None, at_most(5)) == (
        listed[of_task()].declared,
        listed[of_task()].override,
        listed[of_task()].terms,
    )
    keys = listed[of_keys()]
    assert (at_most(3), at_most(2), set_at) == (keys.declared, keys.override, keys.set_at)
    assert ("ada", "they complained") == (keys.set_by, keys.reason)
    assert {of_queue(): 3, of_task(): 3, of_keys(): 3, of_key(A): 1} == {
        scope: record.running for scope, record in listed.items()
    }


@case("4.24", needs=Capability.SHARED)
async def limits_set_on_one_driver_are_kept_by_another_at_once(bench: Bench) -> None:
    async with bench.beside(bench.open_driver()) as other:
        ids = await _plain(bench, 6)
        await other.settle(success(await other.take_one()))
        await set_limit(bench, of_task(), at_most(2))
        first = await other.take_ids(), await bench.take_ids()
        await set_limit(other, of_task(), at_most(3))
        second = await bench.take_ids()
        await clear_limits(bench, of_task())
        third = await other.take_ids()

    assert ((ids[1:3], []), ids[3:4], ids[4:]) == (first, second, third)


@case("4.24", needs=Capability.DURABLE)
async def limits_and_what_runs_under_them_outlive_a_restart(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_most(2))
    ids = await _plain(bench, 4)
    first, _ = await bench.take()

    await bench.restart()

    shut = await bench.take_ids()
    await bench.settle(success(first))
    assert ([], [ids[2]]) == (shut, await bench.take_ids())


# --- what takes room, and what gives it back


@case("4.24")
async def whatever_ends_a_delivery_makes_room(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_most(1))
    ids = await _plain(bench, 7)
    order: list[str] = []
    ends: list[Callable[[Delivery], Settlement]] = [
        success,
        lambda one: failure(one, HOUR),
        lambda one: snooze(one, HOUR),
        burial,
        cancellation,
        lambda one: stray(one, BUILD),
    ]
    for end in ends:
        delivery = await bench.take_one()
        blocked = await bench.take_ids()
        await bench.settle(end(delivery))
        order += [delivery.id, *blocked]
    last = await bench.take_one()
    await bench.settle(release(last))

    assert ids == [*order, last.id]
    assert [last.id] == await bench.take_ids(), "what was handed back goes first, and has room"


@case("4.24", "4.5")
async def a_dead_workers_job_counts_until_it_is_reclaimed(bench: Bench) -> None:
    await set_limit(bench, of_keys(), at_most(1))
    first, second = await in_line(bench, A, 2)
    await bench.take()
    bench.advance(DAY)

    before = await bench.take_ids()
    reclaimed = await bench.reclaim()
    after = await bench.take_ids()

    assert ([], [first]) == (before, [one.job_id for one in reclaimed])
    assert [first] == after, "it goes first, as it was handed back"
    assert JobState.PARKED == await bench.state(second)


@case("4.24", "4.3")
async def a_stale_settlement_makes_no_room(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_most(1))
    await _plain(bench, 2)
    (lost,) = await bench.take()
    await bench.lose_workers()
    await bench.take_one()

    (answer,) = await bench.answers(success(lost))

    assert SettleStatus.STALE == answer.status
    assert [] == await bench.take_ids()


@case("4.24", "4.3")
async def a_settlement_written_twice_makes_room_for_one(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_most(2))
    ids = await _plain(bench, 5)
    first, _ = await bench.take()

    await bench.settle(success(first))
    await bench.answers(success(first))

    assert [ids[2]] == await bench.take_ids()
    assert [] == await bench.take_ids()


@case("4.24")
async def each_of_those_leased_together_makes_room_by_itself(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_most(2))
    ids = await _plain(bench, 3)
    first, second = await bench.take()
    await bench.settle(release(first))
    again = await bench.take_ids()
    full = await bench.take_ids()
    await bench.settle(success(second))

    assert ([first.id], []) == (again, full)
    assert [ids[2]] == await bench.take_ids()


@case("4.24", "4.11")
async def a_cancelled_job_that_waits_takes_no_room_and_one_that_runs_keeps_it(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_most(1))
    first, second, third = await _plain(bench, 3)
    running = await bench.take_one()
    await bench.cancel(first, second)

    shut = await bench.take_ids()
    await bench.settle(cancellation(running))

    assert ([], [third]) == (shut, await bench.take_ids())


@case("4.24", "4.2")
async def a_repeated_reserve_gives_what_it_took_and_takes_no_more_room(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_most(2))
    ids = await _plain(bench, 4)
    mine = new_token()

    first = await bench.take(token=mine)
    again = await bench.take_ids(token=mine)
    await bench.settle(success(first[0]))
    third = await bench.take_ids()

    assert (ids[:2], ids[2:3]) == (sorted(again), third)


@case("4.24")
async def at_no_time_do_small_reserves_go_above_a_limit(bench: Bench) -> None:
    await set_limit(bench, of_queue(), at_most(7))
    await set_limit(bench, of_task(), at_most(5))
    await set_limit(bench, of_keys(), at_most(2))
    jobs = [new_job(partition=f"k{number % 6}") for number in range(40)]
    partitions = {job.id: job.partition for job in jobs}
    await bench.enqueue_all(*jobs, *(new_job(task=OTHER, priority=6) for _ in range(10)))
    running: list[Delivery] = []
    done: set[str] = set()
    while len(done) < 50:
        running += await bench.take(1 + len(done) % 4, tasks=BOTH)
        of_task_now = [one for one in running if one.task == TASK]
        of_keys_now = Counter([partitions[one.id] for one in of_task_now])
        assert len(running) <= 7
        assert len(of_task_now) <= 5
        assert all(count <= 2 for count in of_keys_now.values())
        assert len(running) == (await limits(bench))[of_queue()].running
        oldest = running.pop(0)
        await bench.settle(success(oldest))
        done.add(oldest.id)


# --- strays, steps, replacements, requeued jobs


@case("4.24", "4.16")
async def strays_of_a_limited_task_stay_under_its_limit(bench: Bench) -> None:
    await set_limit(bench, of_task(OTHER), at_most(1))
    ids = [await bench.enqueue(task=OTHER) for _ in range(3)]
    for _ in ids:
        await bench.settle(stray(await bench.take_one()))

    nobody = await bench.take_ids()
    first = await bench.take(tasks=BOTH)
    second = await bench.take_ids(tasks=BOTH)
    await bench.settle(*map(success, first))

    assert ([], ids[:1], []) == (nobody, [one.id for one in first], second)
    assert ids[1:2] == await bench.take_ids(tasks=BOTH)


@case("4.24", "4.14")
async def steps_of_flows_stay_under_their_limits(bench: Bench) -> None:
    await set_limit(bench, of_keys(), at_most(1))
    flow = chord([new_job(partition=A) for _ in range(3)], new_job(partition=A))
    await bench.enqueue_flow(flow)
    order: list[str] = []
    for _ in range(4):
        delivery = await bench.take_one()
        order += [delivery.id, *await bench.take_ids()]
        await bench.settle(success(delivery))

    assert (sorted(ids_of(flow)), flow.id) == (sorted(order), order[-1])


@case("4.24", "4.14")
async def a_step_that_becomes_ready_stands_in_its_line(bench: Bench) -> None:
    await set_limit(bench, of_keys(), at_most(1))
    flow = chain(new_job(), new_job(partition=A))
    await bench.enqueue_flow(flow)
    (before,) = await in_line(bench, A, 1)
    first, second = await bench.take()
    assert {before, ids_of(flow)[0]} == {first.id, second.id}
    step, other = (second, first) if first.id == before else (first, second)

    await bench.settle(success(step))
    shut = await bench.take_ids()
    await bench.settle(success(other))

    assert ([], [flow.id]) == (shut, await bench.take_ids())


@case("4.24", "4.8")
async def a_requeued_job_goes_back_to_its_line(bench: Bench) -> None:
    first, second = await in_line(bench, A, 2)
    await bench.bury(first)
    await set_limit(bench, of_keys(), at_most(1))
    dead = await bench.record(first)

    running = await bench.take_one()
    await bench.requeue(first)
    shut = await bench.take_ids()
    await bench.settle(success(running))

    assert (A, second, []) == (dead.partition, running.id, shut)
    assert [first] == await bench.take_ids()
    assert A == (await bench.record(first)).partition


@case("4.24", "4.9")
async def a_replacement_stands_in_the_line_of_its_own_arguments(bench: Bench) -> None:
    await set_limit(bench, of_keys(), at_most(1))
    blocking = [*await in_line(bench, A, 1), *await in_line(bench, B, 1)]
    running = {one.id: one for one in await bench.take()}
    job = new_job(key="k", partition=A)
    await bench.enqueue_all(job)
    other: NewJob = new_job(key="k", partition=B, digest=b"other", on_conflict=OnConflict.REPLACE)

    (answer,) = await bench.enqueue_all(other)
    await bench.settle(success(running[blocking[0]]))
    shut = await bench.take_ids()
    await bench.settle(success(running[blocking[1]]))

    assert job.id == answer.job_id
    assert ([], [job.id]) == (shut, await bench.take_ids())
    assert B == (await bench.record(job.id)).partition


@case("4.24")
async def a_job_keeps_its_partition_all_its_life(bench: Bench) -> None:
    odd = "Ærø: 'a' \\ \" % \n\t日本 🚢" + "x" * 150
    job_id = await bench.enqueue(partition=odd)
    seen = [(await bench.record(job_id)).partition]
    await bench.settle(failure(await bench.take_one()))
    await bench.settle(release(await bench.take_one()))
    await bench.take_one()
    seen.append((await bench.record(job_id)).partition)
    await bench.lose_workers()
    seen.append((await bench.record(job_id)).partition)
    await bench.finish(job_id)
    seen.append((await bench.record(job_id)).partition)
    (plain,) = await _plain(bench, 1)

    assert [odd] * 4 == seen
    assert (await bench.record(plain)).partition is None


# --- what workers learn


@case("4.25")
async def no_more_jobs_of_lines_are_taken_than_the_caller_can_start(bench: Bench) -> None:
    await set_limit(bench, of_queue("mail"), at_most(9))
    of_a, of_b = await in_line(bench, A, 3), await in_line(bench, B, 3)
    mail = await _plain(bench, 3, queue="mail")
    plain = await _plain(bench, 4)

    queues = ["default", "mail"]
    first = await bench.take_ids(queues=queues, partitioned_limit=2, token=token(lines_first=True))
    second = await bench.take_ids(queues=queues, partitioned_limit=2, token=token(lines_first=False))
    none = await bench.take_ids(queues=queues, partitioned_limit=0)
    rest = await bench.take_ids(queues=queues)

    assert set(plain) <= set(first), "plain jobs of queues without limits are not counted"
    assert (6, 2, []) == (len(first), len(second), none)
    assert sorted([*of_a, *of_b, *mail, *plain]) == sorted([*first, *second, *rest])


@case("4.24", "4.10")
async def a_worker_is_told_to_look_again_where_a_limit_keeps_jobs_back(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_most(1))
    await _plain(bench, 2)
    await bench.take()

    shut = await bench.reserve()

    assert shut.next_due_in is not None
    assert NOW <= shut.next_due_in <= 60 * SECOND


@case("4.24", "4.10")
async def what_comes_due_behind_a_full_limit_and_beside_it_is_told(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_most(1))
    await bench.enqueue()
    await bench.take()
    await bench.enqueue(partition=A, run_in=20 * SECOND)
    await bench.enqueue(task=OTHER, run_in=10 * SECOND)

    told = (await bench.reserve(tasks=BOTH)).next_due_in

    assert told is not None
    assert NOW <= told <= 10 * SECOND


@case("4.25", "4.10")
async def the_time_of_a_job_in_a_line_is_told(bench: Bench) -> None:
    job_id = await bench.enqueue(partition=A, run_in=20 * SECOND)

    early = await bench.reserve()
    told = early.next_due_in
    bench.advance(20 * SECOND)

    assert ([], True) == (list(early.deliveries), told is not None and timedelta(0) < told <= 20 * SECOND)
    assert [job_id] == await bench.take_ids()


@case("4.24", "4.25")
async def queues_with_limits_draw_together_on_the_slots_that_are_free(bench: Bench) -> None:
    for queue in ("default", "mail"):
        await set_limit(bench, of_queue(queue), at_most(5))
        await _plain(bench, 2, queue=queue)

    first = await bench.take(queues=["default", "mail"], partitioned_limit=1)
    second = await bench.take(queues=["default", "mail"], partitioned_limit=2)

    assert [1, 2] == [len(first), len(second)]


@case("4.24", "4.10")
async def a_job_that_ends_wakes_the_workers_of_its_queue(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_most(1))
    await _ends_and_wakes(bench)


@case("4.24", "4.10")
async def a_job_that_ends_wakes_the_workers_of_a_queue_with_a_limit(bench: Bench) -> None:
    await set_limit(bench, of_queue("default"), at_most(1))
    await _ends_and_wakes(bench)


async def _ends_and_wakes(bench: Bench) -> None:
    await _plain(bench, 2)
    delivery = await bench.take_one()
    bell = Doorbell()
    subscription = bench.driver.watch_queues(["default"], bell)
    bell.reset()

    await bench.settle(success(delivery))

    await bell.wait()
    subscription.close()


@case("4.24", "4.10")
async def changed_limits_wake_workers(bench: Bench) -> None:
    await set_limit(bench, of_task(), at_most(0))
    await _plain(bench, 1)
    bell = Doorbell()
    subscription = bench.driver.watch_queues(["default"], bell)
    bell.reset()
    await set_limit(bench, of_task(), at_most(1))
    await bell.wait()
    bell.reset()
    await clear_limits(bench, of_task())
    await bell.wait()
    subscription.close()
