"""Orders to workers: told with each heartbeat, until they are gone."""

from __future__ import annotations

from taskharbor.driver import Order, WorkerForget, WorkerInfo, WorkerList, WorkerOrder
from taskharbor_conformance.bench import HOUR, SECOND, Bench
from taskharbor_conformance.case import case

DRAIN, STOP = Order.DRAIN, Order.STOP


async def _order(bench: Bench, order: Order, *workers: str, by: str = "") -> list[bool]:
    request = WorkerOrder(workers=workers, order=order, by=by, now=bench.now)
    return list(await bench.store.worker_order(request))


async def _told(bench: Bench, worker: str) -> Order | None:
    return (await bench.extend(worker=worker)).order


async def _worker(bench: Bench, name: str) -> WorkerInfo:
    (info,) = (one for one in await bench.store.worker_list(WorkerList(now=bench.now)) if one.worker == name)
    return info


@case("4.26")
async def a_worker_learns_of_its_order_with_each_heartbeat(bench: Bench) -> None:
    await bench.announce("a")
    await bench.announce("b")
    before = await _told(bench, "a")

    given = await _order(bench, DRAIN, "a")

    assert (None, [True]) == (before, given)
    assert [DRAIN, DRAIN, None] == [await _told(bench, worker) for worker in ("a", "a", "b")]


@case("4.26")
async def an_order_is_listed_with_who_gave_it(bench: Bench) -> None:
    await bench.announce("a")
    await bench.announce("b")

    await _order(bench, STOP, "a", by="ada")

    ordered, other = await _worker(bench, "a"), await _worker(bench, "b")
    assert ((STOP, "ada"), (None, "")) == (
        (ordered.order, ordered.ordered_by),
        (other.order, other.ordered_by),
    )


@case("4.26")
async def only_live_workers_are_given_orders(bench: Bench) -> None:
    await bench.announce("a")
    await bench.announce("gone", ttl=SECOND)
    await bench.announce("forgotten")
    await bench.store.worker_forget(WorkerForget(workers=["forgotten"], now=bench.now))
    bench.advance(2 * SECOND)

    assert [False, True, False, False] == await _order(bench, DRAIN, "unknown", "a", "gone", "forgotten")


@case("4.26")
async def a_stop_goes_before_a_drain_whichever_comes_first(bench: Bench) -> None:
    await bench.announce("a")

    answers = [await _order(bench, order, "a") for order in (DRAIN, DRAIN, STOP, DRAIN, STOP)]

    assert [[True], [False], [True], [False], [False]] == answers
    assert STOP == await _told(bench, "a")


@case("4.26")
async def announcing_itself_again_frees_no_worker_of_its_order(bench: Bench) -> None:
    await bench.announce("a")
    await _order(bench, DRAIN, "a", by="ada")

    await bench.announce("a", tasks=["new"], ttl=HOUR)

    info = await _worker(bench, "a")
    assert (DRAIN, "ada", frozenset({"new"})) == (info.order, info.ordered_by, info.tasks)
    assert DRAIN == await _told(bench, "a")


@case("4.26")
async def a_worker_that_was_forgotten_starts_without_orders(bench: Bench) -> None:
    await bench.announce("a")
    await _order(bench, DRAIN, "a")
    await bench.store.worker_forget(WorkerForget(workers=["a"], now=bench.now))

    await bench.announce("a")

    assert None is await _told(bench, "a")
