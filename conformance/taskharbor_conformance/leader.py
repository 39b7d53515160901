"""Leadership: at most one worker leads a role, and each leader has a greater fence than all before it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from taskharbor.driver import AHEAD, Capability, LeaderList, LeaderRelease, Leadership, LeaderTake
from taskharbor_conformance.bench import DAY, SECOND, Bench
from taskharbor_conformance.case import case
from taskharbor_conformance.concurrency import STORES, in_threads

ROLE = "größe '%"
TTL = 10 * SECOND


async def take(bench: Bench, worker: str, role: str = ROLE, ttl: timedelta = TTL) -> Leadership:
    """Ask to lead."""
    request = LeaderTake(role=role, worker=worker, ttl=ttl, now=bench.now)
    return await bench.store.leader_take(request)


async def release(bench: Bench, worker: str, role: str = ROLE) -> bool:
    """Lead no more."""
    return await bench.store.leader_release(LeaderRelease(role=role, worker=worker, now=bench.now))


async def led(bench: Bench) -> Sequence[Leadership]:
    """Return the roles that are led."""
    return list(await bench.store.leader_list(LeaderList(now=bench.now)))


@case("4.23")
async def who_asks_first_leads(bench: Bench) -> None:
    before = await led(bench)

    first = await take(bench, "a")
    bench.advance(SECOND)
    second = await take(bench, "b")

    assert [] == before
    assert (ROLE, "a", bench.now - SECOND) == (first.role, first.worker, first.since)
    assert bench.now - SECOND + TTL == first.expires_at
    assert first == second, "it is told who leads, and changes nothing"
    assert [first] == await led(bench)


@case("4.23")
async def who_leads_goes_on_for_so_long_from_now(bench: Bench) -> None:
    first = await take(bench, "a")
    bench.advance(TTL - SECOND)

    again = await take(bench, "a")
    bench.advance(TTL - SECOND)
    other = await take(bench, "b")
    shorter = await take(bench, "a", ttl=SECOND)

    assert (first.since, first.fence, first.expires_at + TTL - SECOND) == (
        again.since,
        again.fence,
        again.expires_at,
    )
    assert again == other
    assert (first.fence, bench.now + SECOND) == (shorter.fence, shorter.expires_at)


@case("4.23")
async def when_a_leaders_time_is_over_another_leads_with_a_greater_fence(bench: Bench) -> None:
    first = await take(bench, "a")
    bench.advance(TTL)
    nobody = await led(bench)

    second = await take(bench, "b")
    late = await take(bench, "a")

    assert [] == nobody
    assert ("b", bench.now, bench.now + TTL) == (second.worker, second.since, second.expires_at)
    assert first.fence < second.fence
    assert second == late, "who led before is told so when it comes back"


@case("4.23")
async def a_lease_given_while_the_clock_was_ahead_is_not_waited_for(bench: Bench) -> None:
    await take(bench, "a", ttl=DAY)
    ahead = await take(bench, "a", ttl=2 * (AHEAD + TTL))
    waited_for = await take(bench, "b", ttl=AHEAD + 2 * TTL)
    followed = await take(bench, "b")
    late = await take(bench, "a")

    assert ahead == waited_for, "it ends no later than so much after the other's would"
    assert ("b", bench.now, bench.now + TTL) == (followed.worker, followed.since, followed.expires_at)
    assert ahead.fence < followed.fence
    assert followed == late


@case("4.23")
async def who_comes_back_after_its_time_is_a_new_leader(bench: Bench) -> None:
    first = await take(bench, "a")
    bench.advance(TTL)

    back = await take(bench, "a")

    assert ("a", bench.now) == (back.worker, back.since)
    assert first.fence < back.fence


@case("4.23")
async def a_leader_that_leaves_is_followed_at_once(bench: Bench) -> None:
    first = await take(bench, "a")
    bench.advance(SECOND)

    left = await release(bench, "a")
    nobody = await led(bench)
    second = await take(bench, "b")

    assert (True, []) == (left, nobody)
    assert ("b", bench.now) == (second.worker, second.since)
    assert first.fence < second.fence


@case("4.23")
async def only_who_leads_can_leave(bench: Bench) -> None:
    never = await release(bench, "a")
    first = await take(bench, "a")

    not_it = [await release(bench, "b"), await release(bench, "a", "another role")]
    kept = await led(bench)
    twice = [await release(bench, "a"), await release(bench, "a")]
    await take(bench, "a")
    bench.advance(TTL)
    late = await release(bench, "a")

    assert (False, [False, False], [first]) == (never, not_it, kept)
    assert ([True, False], False) == (twice, late)


@case("4.23")
async def fences_are_never_given_again(bench: Bench) -> None:
    fences: list[int] = []

    for number in range(6):
        fences.append((await take(bench, f"worker-{number % 2}")).fence)
        if number % 3:
            await release(bench, f"worker-{number % 2}")
        else:
            bench.advance(DAY)

    assert sorted(set(fences)) == fences


@case("4.23")
async def roles_are_led_apart(bench: Bench) -> None:
    upkeep = await take(bench, "a", "upkeep")
    other = await take(bench, "b", "another")
    bench.advance(SECOND)

    await release(bench, "a", "upkeep")

    assert ("a", "b") == (upkeep.worker, other.worker)
    assert [other] == await led(bench)
    again = await take(bench, "c", "upkeep")
    assert [other, again] == await led(bench), "in order of role"


@case("4.23")
async def of_many_that_ask_at_once_one_leads(bench: Bench) -> None:
    told: list[Leadership] = []

    async def ask(store: Bench, number: int) -> list[str]:
        told.extend([await take(store, f"worker-{number}") for _ in range(5)])
        return []

    await in_threads(bench, ask)

    assert 5 * STORES == len(told)
    assert 1 == len({(one.worker, one.fence) for one in told})


@case("4.23")
async def of_many_that_follow_a_leader_at_once_one_leads(bench: Bench) -> None:
    before = await take(bench, "before")
    bench.advance(TTL)
    told: list[Leadership] = []

    async def ask(store: Bench, number: int) -> list[str]:
        told.append(await take(store, f"worker-{number}"))
        return []

    await in_threads(bench, ask)

    assert 1 == len({(one.worker, one.fence) for one in told})
    assert {True} == {one.fence > before.fence for one in told}


@case("4.23", needs=Capability.SHARED)
async def a_leader_of_one_process_is_seen_by_the_others(bench: Bench) -> None:
    first = await take(bench, "a")

    async with bench.beside(bench.open_driver()) as other:
        told = [await take(other, "b"), *await led(other)]
        bench.advance(TTL)
        second = await take(other, "b")

    assert [first, first] == told
    assert first.fence < second.fence
    assert second == await take(bench, "a")


@case("4.23", needs=Capability.DURABLE)
async def leaders_survive_a_restart(bench: Bench) -> None:
    first = await take(bench, "a")

    await bench.restart()

    assert [first] == await led(bench)
    await release(bench, "a")
    await bench.restart()
    assert first.fence < (await take(bench, "b")).fence
