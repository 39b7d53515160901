"""Connections lost in the middle of a verb: whatever the server made of it, asking again loses and doubles nothing.

Each verb is cut before the server hears of it, while it carries it out (so that the next asking meets the first one
under way), and after it has carried it out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from datetime import timedelta
from typing import TypeVar

import pytest

pytest.importorskip("psycopg", reason="needs the extra `postgres`")

from taskharbor.driver import (
    Enqueued,
    EnqueueStatus,
    JobCancel,
    JobEnqueue,
    JobSettle,
    LeaseExtend,
    LeaseHold,
    LeaseReclaim,
    Reservation,
    Store,
)
from taskharbor.drivers.postgres import Place, PostgresDriver
from taskharbor.errors import StoreUnavailable
from taskharbor.job import new_token
from taskharbor.settlement import Settled, SettleKind, Settlement, SettleStatus
from taskharbor_conformance.bench import WORKER, new_job
from tests.support.postgres import server
from tests.support.postgres_ground import Connection, Ground, a_reserve, put
from tests.support.postgres_proxy import Cut, Proxy, proxy_to
from tests.support.work import aeventually

T = TypeVar("T")

CUTS = [pytest.param(cut, id=cut.name.lower()) for cut in Cut]
WAYS = ["one", "keyed", "many", "many keyed"]
SECOND, DAY = timedelta(seconds=1), timedelta(days=1)
# Words of the statement that does it, by verb.
ENQUEUE, RESERVE, SETTLE, EXTEND, RECLAIM = "added AS", "leased AS", "spent AS", "heard AS", "back AS"
# What the first asking then waits for.
INSERT_JOB = """INSERT INTO job (id, run_at, enqueued_at, retain, priority, queue, task, options, payload, due, lane)
    VALUES (%s::uuid, now(), now(), 0, 0, '', '', '', '', now(), 2)"""
INSERT_LEASE = """INSERT INTO lease (token, worker, expires_at, duration, jobs, remaining)
    VALUES (%s, '', now(), 0, '{}', 0)"""
COMMIT = "COMMIT\0"  # and not READ COMMITTED


@pytest.fixture(scope="module")
def shared_ground() -> Generator[Ground]:
    made = Ground(server().conninfo)
    yield made
    made.remove()


@pytest.fixture
def ground(shared_ground: Ground) -> Ground:
    shared_ground.empty()
    return shared_ground


@pytest.fixture
def proxy(ground: Ground) -> Generator[Proxy]:
    with proxy_to(ground.conninfo) as made:
        yield made


class Line:
    """A store behind the proxy, whose connection is open when the test begins."""

    def __init__(self, store: Store, ground: Ground, proxy: Proxy) -> None:
        self.store, self.ground, self.proxy = store, ground, proxy

    async def reserve(self, limit: int = 5) -> Reservation:
        return await self.store.job_reserve(a_reserve(limit))

    def lose(self, words: str, cut: Cut, *, times: int = 1) -> None:
        self.proxy.lose(words, cut, times=times)

    async def meet(
        self, words: str, ask: Callable[[], Awaitable[T]], holder: Connection, *, waiting: int = 2
    ) -> T:
        """Have the first asking wait for a lock, and the second one for the first; then give the lock free."""
        self.lose(words, Cut.ON_THE_WAY)
        asked = asyncio.ensure_future(ask())
        await asyncio.to_thread(self.ground.await_waiting, waiting)
        holder.rollback()
        return await asked


def with_line(ground: Ground, proxy: Proxy, work: Callable[[Line], Awaitable[T]]) -> T:
    place = Place(conninfo=proxy.conninfo, schema=ground.schema, prepare=False)

    async def main() -> T:
        driver = PostgresDriver(place)
        async with driver.connect() as store:
            await store.lease_extend(LeaseExtend(worker=WORKER, leases=(), lease=SECOND))
            answer = await work(Line(store, ground, proxy))
        driver.close()
        return answer

    return asyncio.run(main())


def request_of(way: str) -> JobEnqueue:
    """Return jobs of one kind: those without keys go by one statement, those with by several, in a transaction."""
    count = 1 if way in ("one", "keyed") else 20
    return JobEnqueue(
        jobs=[new_job(key=f"key-{number}" if "keyed" in way else None) for number in range(count)]
    )


def created(request: JobEnqueue) -> list[Enqueued]:
    return [Enqueued(EnqueueStatus.CREATED, job.id) for job in request.jobs]


def ids_of(request: JobEnqueue) -> list[str]:
    return sorted(job.id for job in request.jobs)


def held_jobs(ground: Ground) -> tuple[list[str], list[tuple[int, int]]]:
    """Return the leased jobs, and of each lease how many it names and how many remain."""
    jobs = ground.do("SELECT id::text FROM job WHERE token IS NOT NULL ORDER BY 1")
    leases = ground.do("SELECT cardinality(jobs), remaining FROM lease")
    return [job_id for (job_id,) in jobs], [(named, left) for named, left in leases]


# --- enqueue


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("way", WAYS)
def test_enqueue(ground: Ground, proxy: Proxy, way: str, cut: Cut) -> None:
    """The caller is told that the jobs were created, and they are there once."""
    request = request_of(way)

    async def work(line: Line) -> object:
        line.lose(ENQUEUE, cut)
        return await line.store.job_enqueue(request)

    assert created(request) == with_line(ground, proxy, work)
    assert 1 == proxy.cuts
    assert ids_of(request) == ground.ids()
    assert (ids_of(request) if "keyed" in way else []) == ground.ids("key")


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("way", ["one", "many keyed"])
def test_enqueue_by_a_blocking_producer(ground: Ground, proxy: Proxy, way: str, cut: Cut) -> None:
    request = request_of(way)
    driver = PostgresDriver(Place(conninfo=proxy.conninfo, schema=ground.schema, prepare=False))
    with driver.connect_blocking() as store:
        put(store)
        proxy.lose(ENQUEUE, cut)

        answers = store.job_enqueue(request)
    driver.close()

    assert (created(request), 1) == (answers, proxy.cuts)
    assert set(ids_of(request)) < set(ground.ids())
    assert 1 + len(request.jobs) == ground.count("job")


def test_a_commit_whose_answer_is_lost(ground: Ground, proxy: Proxy) -> None:
    """What goes by several statements is committed by one more."""
    request = request_of("many keyed")

    async def work(line: Line) -> object:
        line.lose(COMMIT, Cut.ANSWER)
        return await line.store.job_enqueue(request)

    assert created(request) == with_line(ground, proxy, work)
    assert (1, ids_of(request)) == (proxy.cuts, ground.ids())


@pytest.mark.parametrize("way", WAYS)
def test_enqueue_while_the_first_asking_is_under_way(ground: Ground, proxy: Proxy, way: str) -> None:
    """It waits for its end, and finds the jobs that it stored."""
    request = request_of(way)
    first = request.jobs[0]

    async def work(line: Line) -> object:
        with ground.holding(INSERT_JOB, first.id) as holder:
            return await line.meet(ENQUEUE, lambda: line.store.job_enqueue(request), holder)

    assert created(request) == with_line(ground, proxy, work)
    assert ids_of(request) == ground.ids()


# --- reserve


@pytest.mark.parametrize("cut", CUTS)
def test_reserve(ground: Ground, proxy: Proxy, cut: Cut) -> None:
    """Its jobs are delivered, and no others are leased."""

    async def work(line: Line) -> set[str]:
        await line.store.job_enqueue(JobEnqueue(jobs=[new_job() for _ in range(12)]))
        line.lose(RESERVE, cut)
        taken = await line.reserve()
        return {delivery.id for delivery in taken.deliveries}

    taken = with_line(ground, proxy, work)

    assert (5, 1) == (len(taken), proxy.cuts)
    assert (sorted(taken), [(5, 5)]) == held_jobs(ground)
    assert [(1, 5), (0, 7)] == ground.do("SELECT deliveries, count(*) FROM job GROUP BY 1 ORDER BY 1 DESC")


def test_reserve_while_the_first_asking_is_under_way(ground: Ground, proxy: Proxy) -> None:
    """Both have locked jobs when the lock comes free; the second gives up its own for those of the first."""
    token = new_token()

    async def work(line: Line) -> set[str]:
        await line.store.job_enqueue(JobEnqueue(jobs=[new_job() for _ in range(12)]))
        with ground.holding(INSERT_LEASE, token) as holder:
            taken = await line.meet(
                RESERVE, lambda: line.store.job_reserve(a_reserve(5, token=token)), holder
            )
        return {delivery.id for delivery in taken.deliveries}

    taken = with_line(ground, proxy, work)

    assert (sorted(taken), [(5, 5)]) == held_jobs(ground)


# --- settle


def settlements(taken: Reservation, kind: SettleKind = SettleKind.SUCCEED) -> JobSettle:
    return JobSettle(
        settlements=[
            Settlement(delivery.id, delivery.token, kind, b"null", "json", after=SECOND, charge=True)
            for delivery in taken.deliveries
        ]
    )


KINDS = [SettleKind.SUCCEED, SettleKind.RETRY, SettleKind.BURY]


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_settle(ground: Ground, proxy: Proxy, kind: SettleKind, cut: Cut) -> None:
    """Each job has ended, or waits again, once; who asks is told that it is done, now or before."""

    async def work(line: Line) -> tuple[Reservation, list[Settled]]:
        await line.store.job_enqueue(JobEnqueue(jobs=[new_job() for _ in range(5)]))
        taken = await line.reserve()
        line.lose(SETTLE, cut)
        return taken, list(await line.store.job_settle(settlements(taken, kind)))

    taken, answers = with_line(ground, proxy, work)

    check_settled(ground, taken, kind, answers)
    assert 1 == proxy.cuts


@pytest.mark.parametrize("kind", KINDS)
def test_settle_while_the_first_asking_is_under_way(ground: Ground, proxy: Proxy, kind: SettleKind) -> None:
    """It waits for its end, and finds that it is done."""

    async def work(line: Line) -> tuple[Reservation, list[Settled]]:
        await line.store.job_enqueue(JobEnqueue(jobs=[new_job() for _ in range(5)]))
        taken = await line.reserve()
        with ground.holding("SELECT FROM job FOR UPDATE") as holder:
            settle = settlements(taken, kind)
            answers = await line.meet(SETTLE, lambda: line.store.job_settle(settle), holder)
        return taken, list(answers)

    taken, answers = with_line(ground, proxy, work)

    check_settled(ground, taken, kind, answers)


def check_settled(ground: Ground, taken: Reservation, kind: SettleKind, answers: list[Settled]) -> None:
    ids = sorted(delivery.id for delivery in taken.deliveries)
    assert {answer.status for answer in answers} <= {SettleStatus.SETTLED, SettleStatus.ALREADY}
    assert ([], []) == held_jobs(ground)
    again = kind is SettleKind.RETRY
    assert (ids, []) == (
        (ground.ids(), ground.ids("history")) if again else (ground.ids("history"), ground.ids())
    )
    assert [(1,)] == ground.do("SELECT DISTINCT attempt FROM job UNION SELECT DISTINCT attempt FROM history")


# --- leases


@pytest.mark.parametrize("cut", CUTS)
def test_extend(ground: Ground, proxy: Proxy, cut: Cut) -> None:
    """The lease is kept, the starts are written once."""

    async def work(line: Line) -> None:
        await line.store.job_enqueue(JobEnqueue(jobs=[new_job()]))
        (delivery,) = (await line.reserve()).deliveries
        line.lose(EXTEND, cut)
        hold = LeaseHold(delivery.token, [delivery.id])
        told = await line.store.lease_extend(LeaseExtend(worker=WORKER, leases=[hold], lease=DAY))
        assert ([], True) == (list(told.lost), told.expires_at.timestamp() > 0)

    with_line(ground, proxy, work)

    assert 1 == proxy.cuts
    assert [(1, True)] == ground.do(
        "SELECT cardinality(started), expires_at > now() + interval '23 hours' FROM lease"
    )


def test_extend_while_the_first_asking_is_under_way(ground: Ground, proxy: Proxy) -> None:
    async def work(line: Line) -> None:
        await line.store.job_enqueue(JobEnqueue(jobs=[new_job()]))
        (delivery,) = (await line.reserve()).deliveries
        extend = LeaseExtend(worker=WORKER, leases=[LeaseHold(delivery.token, [delivery.id])], lease=DAY)
        with ground.holding("SELECT FROM lease FOR UPDATE") as holder:
            told = await line.meet(EXTEND, lambda: line.store.lease_extend(extend), holder)
        assert [] == list(told.lost)

    with_line(ground, proxy, work)

    assert [(1,)] == ground.do("SELECT cardinality(started) FROM lease")


EXPIRED = LeaseReclaim(observed=DAY)


@pytest.mark.parametrize("words", [RECLAIM, COMMIT], ids=["statement", "commit"])
@pytest.mark.parametrize("cut", CUTS)
def test_reclaim(ground: Ground, proxy: Proxy, cut: Cut, words: str) -> None:
    """The jobs are ready again, and charged with one crash."""

    async def work(line: Line) -> None:
        await line.store.job_enqueue(JobEnqueue(jobs=[new_job() for _ in range(5)]))
        taken = await line.store.job_reserve(a_reserve(lease=timedelta(microseconds=1)))
        await line.store.lease_extend(
            LeaseExtend(
                worker=WORKER,
                leases=[LeaseHold(taken.deliveries[0].token, [taken.deliveries[0].id])],
                lease=timedelta(microseconds=1),
            )
        )
        line.lose(words, cut)
        await line.store.lease_reclaim(EXPIRED)
        # What was cut on its way may still be carried out.
        await aeventually(lambda: ground.idle_in_transaction() == 0)
        await line.store.lease_reclaim(EXPIRED)

    with_line(ground, proxy, work)

    assert 1 == proxy.cuts
    assert ([], []) == held_jobs(ground)
    assert [(1, 1, 1), (0, 0, 4)] == ground.do(
        "SELECT attempt, crashes, count(*) FROM job GROUP BY 1, 2 ORDER BY 1 DESC"
    )


# --- acts by hand


@pytest.mark.parametrize("cut", CUTS)
def test_cancel(ground: Ground, proxy: Proxy, cut: Cut) -> None:
    async def work(line: Line) -> str:
        (told,) = await line.store.job_enqueue(JobEnqueue(jobs=[new_job()]))
        line.lose(COMMIT, cut)
        await line.store.job_cancel(JobCancel(ids=[told.job_id], by="me", reason="no"))
        return told.job_id

    job_id = with_line(ground, proxy, work)

    assert ([], [job_id], 1) == (ground.ids(), ground.ids("history"), proxy.cuts)


# --- cut again and again


@pytest.mark.parametrize("way", WAYS)
def test_who_is_cut_twice_is_told_that_nothing_is_known(ground: Ground, proxy: Proxy, way: str) -> None:
    """It was carried out, in this case; asked again by the caller, the same jobs are not stored again."""
    request = request_of(way)

    async def work(line: Line) -> object:
        line.lose(COMMIT if way == "many keyed" else ENQUEUE, Cut.ANSWER, times=2)
        with pytest.raises(StoreUnavailable, match="ask again when it is back"):
            await line.store.job_enqueue(request)
        return await line.store.job_enqueue(request)

    answers = with_line(ground, proxy, work)

    existing = [Enqueued(EnqueueStatus.EXISTING, job.id) for job in request.jobs]
    assert (existing, 2) == (answers, proxy.cuts)
    assert ids_of(request) == ground.ids()


def test_a_reserve_cut_twice_is_asked_again_by_its_token(ground: Ground, proxy: Proxy) -> None:
    """As a worker does, who goes on asking until it is answered."""
    reserve = a_reserve(5)

    async def work(line: Line) -> set[str]:
        await line.store.job_enqueue(JobEnqueue(jobs=[new_job() for _ in range(12)]))
        line.lose(RESERVE, Cut.ANSWER, times=2)
        with pytest.raises(StoreUnavailable):
            await line.store.job_reserve(reserve)
        taken = await line.store.job_reserve(reserve)
        return {delivery.id for delivery in taken.deliveries}

    taken = with_line(ground, proxy, work)

    assert (sorted(taken), [(5, 5)]) == held_jobs(ground)
