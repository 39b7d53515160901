"""Rules of retention: they shorten for how long, and of how many, what has ended is kept."""

from __future__ import annotations

from datetime import timedelta

from taskharbor.driver import (
    Capability,
    HistoryPrune,
    JobCount,
    Pruned,
    RetentionList,
    RetentionRecord,
    RetentionRule,
    RetentionSet,
)
from taskharbor.job import JobState
from taskharbor_conformance.bench import (
    DAY,
    ENOUGH,
    HOUR,
    NOW,
    SECOND,
    TASK,
    Bench,
    burial,
    new_job,
    success,
)
from taskharbor_conformance.case import case
from taskharbor_conformance.graphs import chain, ids_of
from taskharbor_conformance.scopes import BOTH, OTHER

SUCCEEDED, CANCELLED, DEAD = JobState.SUCCEEDED, JobState.CANCELLED, JobState.DEAD
GRACE = 2 * DAY
RETAIN = 90 * DAY


async def _set(bench: Bench, *rules: RetentionRule, by: str = "", reason: str = "") -> list[bool]:
    request = RetentionSet(rules=rules, by=by, reason=reason, now=bench.now)
    return list(await bench.store.retention_set(request))


async def _rules(bench: Bench) -> list[RetentionRecord]:
    return list(await bench.store.retention_list(RetentionList(now=bench.now)))


async def _prune(bench: Bench, limit: int = ENOUGH, *, rules: bool = True) -> Pruned:
    return await bench.store.history_prune(HistoryPrune(limit=limit, rules=rules, now=bench.now))


async def _ended(bench: Bench, state: JobState, count: int = 1, task: str = TASK) -> list[str]:
    """Return jobs that ended so, a second apart."""
    ids: list[str] = []
    for _ in range(count):
        job_id = await bench.enqueue(task=task, retain=RETAIN, priority=0)
        ids.append(job_id)
        if state is CANCELLED:
            await bench.cancel(job_id)
        else:
            delivery = await bench.take_one(tasks=BOTH)
            assert job_id == delivery.id
            await bench.settle(success(delivery) if state is SUCCEEDED else burial(delivery))
        bench.advance(SECOND)
    return ids


def _rule(
    state: JobState, task: str = "", *, keep_for: timedelta | None = None, keep_last: int | None = None
) -> RetentionRule:
    return RetentionRule(task=task, state=state, keep_for=keep_for, keep_last=keep_last)


@case("4.17")
async def what_a_rule_keeps_no_longer_is_removed_and_nothing_else(bench: Bench) -> None:
    await _set(bench, _rule(SUCCEEDED, keep_for=DAY))
    old = await _ended(bench, SUCCEEDED)
    others = [*await _ended(bench, DEAD), *await _ended(bench, CANCELLED), await bench.enqueue()]
    bench.advance(DAY - HOUR)
    early = await _prune(bench)
    fresh = await _ended(bench, SUCCEEDED)
    bench.advance(2 * HOUR)

    without = await _prune(bench, rules=False)
    late = await _prune(bench)

    assert (0, 0, 1) == (early.jobs, without.jobs, late.jobs)
    assert [None] == await bench.get(*old)
    assert sorted([*others, *fresh]) == await bench.find_ids()


@case("4.17")
async def dead_letters_are_removed_by_rules_only(bench: Bench) -> None:
    dead = await _ended(bench, DEAD, 3)
    bench.advance(365 * DAY)
    without = await _prune(bench)
    await _set(bench, _rule(DEAD, keep_for=30 * DAY))

    by_rule = await _prune(bench)

    assert (0, 3) == (without.jobs, by_rule.jobs)
    assert [None] * 3 == await bench.get(*dead)
    assert [] == list(await bench.store.job_count(JobCount(now=bench.now)))


@case("4.17")
async def of_each_task_so_many_are_kept_those_that_ended_last(bench: Bench) -> None:
    await _set(bench, _rule(SUCCEEDED, keep_last=2))
    one = await _ended(bench, SUCCEEDED, 4)
    other = await _ended(bench, SUCCEEDED, 3, OTHER)
    dead = await _ended(bench, DEAD, 3)

    pruned = await _prune(bench)

    assert 3 == pruned.jobs
    assert sorted([*one[2:], *other[1:], *dead]) == await bench.find_ids()


@case("4.17")
async def a_tasks_own_rule_goes_before_the_one_for_all_others(bench: Bench) -> None:
    await _set(bench, _rule(DEAD, keep_last=1), _rule(DEAD, TASK, keep_last=3))
    own, other = await _ended(bench, DEAD, 4), await _ended(bench, DEAD, 4, OTHER)

    await _prune(bench)

    assert sorted([*own[1:], *other[3:]]) == await bench.find_ids()


@case("4.17")
async def a_tasks_own_rule_is_for_its_state_only(bench: Bench) -> None:
    await _set(bench, _rule(SUCCEEDED, keep_last=1), _rule(DEAD, TASK, keep_last=0))
    done, dead = await _ended(bench, SUCCEEDED, 2), await _ended(bench, DEAD, 2)

    await _prune(bench)

    assert done[1:] == await bench.find_ids()
    assert [None, None] == await bench.get(*dead)


@case("4.17")
async def time_and_number_of_one_rule_both_count(bench: Bench) -> None:
    await _set(bench, _rule(CANCELLED, keep_for=DAY, keep_last=2))
    old = await _ended(bench, CANCELLED, 2)
    bench.advance(DAY + HOUR)
    fresh = await _ended(bench, CANCELLED, 3)

    await _prune(bench)

    assert fresh[1:] == await bench.find_ids()
    assert [None, None] == await bench.get(*old)


@case("4.17")
async def a_rule_lengthens_nothing(bench: Bench) -> None:
    await _set(bench, _rule(SUCCEEDED, keep_for=90 * DAY, keep_last=100))
    await bench.finish(await bench.enqueue(retain=HOUR))
    bench.advance(HOUR + GRACE)

    assert 1 == (await _prune(bench)).jobs


@case("4.17")
async def rules_are_applied_in_chunks(bench: Bench) -> None:
    await _set(bench, _rule(SUCCEEDED, keep_last=1), _rule(DEAD, keep_for=NOW))
    done, dead = await _ended(bench, SUCCEEDED, 8), await _ended(bench, DEAD, 6)
    bench.advance(SECOND)
    chunks: list[int] = []
    while True:
        pruned = await _prune(bench, limit=5)
        chunks.append(pruned.jobs)
        if not pruned.more:
            break
        assert len(chunks) < 20

    assert 13 == sum(chunks)
    assert max(chunks) <= 10, "history and dead letters count apart, if a driver likes"
    assert done[7:] == await bench.find_ids()
    assert [None] * 6 == await bench.get(*dead)


@case("4.17", "4.14")
async def steps_of_flows_that_have_not_ended_are_kept(bench: Bench) -> None:
    await _set(bench, _rule(SUCCEEDED, keep_last=0))
    flow = chain(new_job(retain=RETAIN), new_job(retain=RETAIN))
    await bench.enqueue_flow(flow)
    await bench.settle(success(await bench.take_one()))
    bench.advance(SECOND)

    running = await _prune(bench)
    kept = await bench.find_ids()
    last = await bench.take_one()
    await bench.settle(success(last))
    bench.advance(SECOND)
    ended = await _prune(bench)

    assert (0, sorted(ids_of(flow))) == (running.jobs, kept)
    assert (2, []) == (ended.jobs, await bench.find_ids())


@case("4.17")
async def rules_are_listed_with_who_set_them_and_taken_back(bench: Bench) -> None:
    general = _rule(DEAD, keep_for=30 * DAY)
    own = _rule(SUCCEEDED, TASK, keep_last=7)
    first = await _set(bench, own, general, by="ada", reason="space")
    since = bench.now
    bench.advance(SECOND)

    again = await _set(bench, own, _rule(DEAD, keep_for=20 * DAY), by="bob")
    listed = await _rules(bench)
    removed = await _set(bench, _rule(DEAD), _rule(CANCELLED))

    assert ([True, True], [False, True], [True, False]) == (first, again, removed)
    assert [_rule(DEAD, keep_for=20 * DAY), own] == [record.rule for record in listed]
    assert (bench.now, "bob") == (listed[0].set_at, listed[0].by)
    assert (since, "ada", "space") == (listed[1].set_at, listed[1].by, listed[1].reason)
    assert [own] == [record.rule for record in await _rules(bench)]


@case("4.17", needs=Capability.DURABLE)
async def rules_outlive_a_restart(bench: Bench) -> None:
    await _set(bench, _rule(DEAD, keep_last=1))

    await bench.restart()

    assert [_rule(DEAD, keep_last=1)] == [record.rule for record in await _rules(bench)]
