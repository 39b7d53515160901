"""The register of live workers."""

from __future__ import annotations

from taskharbor.driver import WorkerAnnounce, WorkerForget, WorkerInfo, WorkerList
from taskharbor.job import JobState
from taskharbor_conformance.bench import DAY, HOUR, SECOND, Bench, success
from taskharbor_conformance.case import case


async def _workers(bench: Bench) -> list[WorkerInfo]:
    return list(await bench.store.worker_list(WorkerList(now=bench.now)))


async def _names(bench: Bench) -> list[str]:
    return [info.worker for info in await _workers(bench)]


@case("4.16")
async def an_announced_worker_is_listed_as_it_described_itself(bench: Bench) -> None:
    announce = WorkerAnnounce(
        worker="worker-1",
        queues=["mail", "default"],
        tasks=frozenset({"a", "b"}),
        build="build-7",
        ttl=HOUR,
        host="web-1",
        pid=4711,
        started_at=bench.now - DAY,
        now=bench.now,
    )

    await bench.store.worker_announce(announce)

    (info,) = await _workers(bench)
    assert ("worker-1", ["mail", "default"]) == (info.worker, list(info.queues))
    assert (frozenset({"a", "b"}), "build-7") == (info.tasks, info.build)
    assert ("web-1", 4711, bench.now - DAY) == (info.host, info.pid, info.started_at)
    assert (bench.now, 0) == (info.seen_at, info.running)


@case("4.16")
async def live_workers_are_listed_by_name(bench: Bench) -> None:
    for worker in ("b", "c", "a"):
        await bench.announce(worker)

    assert ["a", "b", "c"] == await _names(bench)


@case("4.16")
async def announcing_again_replaces_the_entry(bench: Bench) -> None:
    await bench.announce("a", tasks=["old"], build="build-1")
    bench.advance(SECOND)

    await bench.announce("a", tasks=["new"], build="build-2")

    (info,) = await _workers(bench)
    assert (frozenset({"new"}), "build-2", bench.now) == (info.tasks, info.build, info.seen_at)


@case("4.16")
async def a_worker_not_heard_for_its_time_is_not_live(bench: Bench) -> None:
    await bench.announce("short", ttl=60 * SECOND)
    await bench.announce("long", ttl=HOUR)
    bench.advance(59 * SECOND)
    before = await _names(bench)
    bench.advance(2 * SECOND)

    assert (["long", "short"], ["long"]) == (before, await _names(bench))


@case("4.16", "4.5")
async def a_heartbeat_keeps_a_worker_live(bench: Bench) -> None:
    await bench.announce("a", ttl=60 * SECOND)
    for _ in range(3):
        bench.advance(50 * SECOND)
        answer = await bench.extend(worker="a")
        assert answer.known_worker

    (info,) = await _workers(bench)
    assert bench.now == info.seen_at


@case("4.16")
async def a_heartbeat_of_an_unknown_worker_is_told_to_announce_itself(bench: Bench) -> None:
    await bench.announce("a")

    answer = await bench.extend(worker="b")

    assert not answer.known_worker
    assert ["a"] == await _names(bench), "a heartbeat alone puts nobody on the register"


@case("4.16")
async def a_forgotten_worker_is_off_the_register(bench: Bench) -> None:
    for worker in ("a", "b", "c"):
        await bench.announce(worker)

    await bench.store.worker_forget(WorkerForget(workers=["a", "c", "never seen"], now=bench.now))

    assert ["b"] == await _names(bench)
    assert not (await bench.extend(worker="a")).known_worker


@case("4.16", "4.5")
async def forgetting_a_worker_leaves_its_leases_to_expire(bench: Bench) -> None:
    job_id = await bench.enqueue()
    await bench.announce("a")
    delivery = await bench.take_one(worker="a")

    await bench.store.worker_forget(WorkerForget(workers=["a"], now=bench.now))

    assert JobState.RUNNING == await bench.state(job_id)
    assert [] == await bench.take_ids()
    assert [JobState.SUCCEEDED] == await bench.settle(success(delivery))


@case("4.16")
async def a_worker_is_listed_with_how_many_jobs_it_holds(bench: Bench) -> None:
    for _ in range(5):
        await bench.enqueue()
    await bench.announce("a")
    await bench.announce("b")
    first = await bench.take(2, worker="a")
    await bench.take(2, worker="a")
    await bench.take(1, worker="b")
    await bench.settle(success(first[0]))

    assert {"a": 3, "b": 1} == {info.worker: info.running for info in await _workers(bench)}


@case("4.16")
async def a_worker_needs_no_entry_to_reserve(bench: Bench) -> None:
    job_id = await bench.enqueue()

    assert [job_id] == await bench.take_ids(worker="never announced")
