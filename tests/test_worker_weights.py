"""Workers whose queues share them: weights, reserved slots, and aging, on real stores."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import pytest

from taskharbor import Harbor, Registry, Retry, task
from taskharbor.drivers.memory import MemoryDriver
from taskharbor.working import WorkerOptions
from tests.support.work import ENOUGH, LEASE, MS, TroubledDriver, await_event, eventually

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'jobs.db'}"


class Noted:
    """A task that notes the queue of each of its jobs, in the order of their starts."""

    def __init__(self) -> None:
        self.registry = registry = Registry()
        self.ran = ran = list[str]()

        @task(registry=registry, name="note", keep_result=False)
        async def note(queue: str) -> None:
            ran.append(queue)

        self.note = note

    def send(self, harbor: Harbor, queue: str, jobs: int, *, priority: int = 5) -> None:
        harbor.enqueue_many([self.note.options(queue=queue, priority=priority).s(queue) for _ in range(jobs)])


def share_of(queue: str, ran: list[str]) -> float:
    return Counter(ran)[queue] / len(ran)


def test_what_starts_comes_to_the_weights_whatever_the_priorities(url: str) -> None:
    """Within 5 % while all have work, over jobs of which the lighter queue's have the higher priority."""
    noted = Noted()

    with Harbor(url, registry=noted.registry) as harbor:
        noted.send(harbor, "mail", 1500)
        noted.send(harbor, "rows", 1000, priority=0)
        noted.send(harbor, "rest", 500)
        harbor.run_until_idle(queues=["mail", "rows", "rest"], weights={"mail": 3, "rows": 2})

    assert 3000 == len(noted.ran)
    while_all_had_work = noted.ran[:2400]
    assert share_of("mail", while_all_had_work) == pytest.approx(3 / 6, rel=0.05)
    assert share_of("rows", while_all_had_work) == pytest.approx(2 / 6, rel=0.05)
    assert share_of("rest", while_all_had_work) == pytest.approx(1 / 6, rel=0.05)


@pytest.mark.parametrize("concurrency", [1, 7])
def test_weights_hold_for_reserves_of_a_single_job(concurrency: int) -> None:
    noted = Noted()

    with Harbor("memory://", registry=noted.registry) as harbor:
        noted.send(harbor, "mail", 600, priority=9)
        noted.send(harbor, "default", 600, priority=0)
        harbor.run_until_idle(
            queues=["mail", "default"], weights={"mail": 4}, concurrency=concurrency, prefetch=0
        )

    assert 0.8 == pytest.approx(share_of("mail", noted.ran[:700]), rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    "weights", [{"mail": 3, "default": 1}, {"mail": 10, "rows": 5, "default": 1}], ids=str
)
def test_weights_hold_within_five_percent_over_fifty_thousand_jobs(url: str, weights: dict[str, int]) -> None:
    noted, jobs, whole = Noted(), 50_000, sum(weights.values())

    with Harbor(url, registry=noted.registry) as harbor:
        for number, (queue, weight) in enumerate(weights.items()):
            noted.send(harbor, queue, jobs * weight // whole + 1000, priority=number)
        harbor.run_until_idle(queues=list(weights), weights=weights)

    for queue, weight in weights.items():
        assert share_of(queue, noted.ran[:jobs]) == pytest.approx(weight / whole, rel=0.05)


def test_within_a_queue_priorities_are_served_in_order() -> None:
    registry, ran = Registry(), dict[str, list[int]]()

    @task(registry=registry)
    async def work(queue: str, priority: int) -> None:
        ran.setdefault(queue, []).append(priority)

    with Harbor("memory://", registry=registry) as harbor:
        for number in range(60):
            queue = ("mail", "default")[number % 2]
            work.options(queue=queue, priority=number * 7 % 10).enqueue(queue, number * 7 % 10)
        harbor.run_until_idle(queues=["mail", "default"], weights={"mail": 2}, concurrency=1, prefetch=0)

    assert all(priorities == sorted(priorities) for priorities in ran.values())


def test_a_queue_without_work_leaves_all_slots_to_the_others() -> None:
    """Even one that would have nearly all of them: nothing that is due waits beside a free slot."""
    registry, started, go_on = Registry(), threading.Semaphore(0), threading.Event()

    @task(registry=registry)
    def hold() -> None:
        started.release()
        assert go_on.wait(20)

    with (
        Harbor("memory://", registry=registry) as harbor,
        harbor.worker_thread(queues=["mail", "default"], weights={"mail": 100}, concurrency=8, prefetch=0),
    ):
        harbor.enqueue_many([hold.s() for _ in range(8)])

        assert all(started.acquire(timeout=20) for _ in range(8))
        go_on.set()


@pytest.mark.parametrize("concurrency", [1, 10])
def test_idle_means_that_no_queue_has_anything_due_that_without_a_quota_at_first_neither(
    concurrency: int,
) -> None:
    noted = Noted()

    with Harbor("memory://", registry=noted.registry) as harbor:
        noted.send(harbor, "default", 200)
        harbor.run_until_idle(
            queues=["mail", "default"], weights={"mail": 100}, concurrency=concurrency, prefetch=0
        )

    assert 200 == len(noted.ran)


@pytest.mark.parametrize(
    "options",
    [{"weights": {"mail": 3}}, {"reserved": {"mail": 2}}, {"weights": {"mail": 3}, "reserved": {"mail": 2}}],
    ids=["weights", "reserved", "both"],
)
def test_empty_queues_cost_one_reserve_and_a_short_one_a_second(options: WorkerOptions) -> None:
    """Then the worker sleeps until it is woken."""
    registry, driver = Registry(), TroubledDriver()
    started, go_on = threading.Semaphore(0), threading.Event()

    @task(registry=registry)
    def hold() -> None:
        started.release()
        assert go_on.wait(20)

    driver.poll_interval = 60_000 * MS
    told: WorkerOptions = {
        "queues": ["mail", "default"],
        "concurrency": 8,
        "prefetch": 0,
        "lease": LEASE,
        **options,
    }
    with (
        Harbor(driver, registry=registry) as harbor,
        harbor.worker_thread(**told),
    ):
        eventually(lambda: driver.count("lease_extend") >= 3, "a few heartbeats")
        assert 1 == driver.count("job_reserve")

        harbor.enqueue_many([hold.s() for _ in range(6)])
        assert all(started.acquire(timeout=20) for _ in range(6))
        heard = driver.count("lease_extend")
        eventually(lambda: driver.count("lease_extend") >= heard + 3, "a few heartbeats")
        # Two for the fill, and with reserved slots a last look at them.
        assert driver.count("job_reserve") <= (4 if "reserved" in options else 3)
        go_on.set()


@pytest.mark.parametrize(
    "options",
    [{"concurrency": 1}, {"concurrency": 2, "reserved": {"q0": 1}}],
    ids=["weights", "both"],
)
def test_an_idle_worker_with_more_queues_than_slots_asks_for_all_of_them_at_once(
    options: WorkerOptions,
) -> None:
    """And not for one after the other, each by its share of a single slot."""
    driver, queues = TroubledDriver(), [f"q{number}" for number in range(10)]
    driver.poll_interval = 60_000 * MS
    told: WorkerOptions = {"queues": queues, "weights": {"q0": 20}, "prefetch": 0, "lease": LEASE, **options}

    with Harbor(driver, registry=Registry()) as harbor, harbor.worker_thread(**told):
        eventually(lambda: driver.count("lease_extend") >= 3, "a few heartbeats")

        assert 1 == driver.count("job_reserve")


def test_reserved_slots_are_never_taken_by_others(url: str) -> None:
    """Not by a flood of another queue's jobs, of a higher priority and long; its own start at once beside them."""
    registry, started, go_on = Registry(), threading.Semaphore(0), threading.Event()

    @task(registry=registry, queue="video")
    def video() -> None:
        started.release()
        assert go_on.wait(20)

    @task(registry=registry, queue="mail")
    def mail(number: int) -> int:
        return number

    with Harbor(url, registry=registry) as harbor:
        jobs = harbor.enqueue_many([video.options(priority=0).s() for _ in range(20)])
        with harbor.worker_thread(concurrency=5, reserved={"mail": 2}, queues=["mail", "video"]):
            assert all(started.acquire(timeout=20) for _ in range(3))

            sent = harbor.enqueue_many([mail.options(priority=9).s(number) for number in range(30)])
            assert [job.result(ENOUGH) for job in sent] == list(range(30))
            assert not started.acquire(blocking=False), "a fourth one"

            go_on.set()
            for job in jobs:
                job.result(ENOUGH)


def test_unstarted_jobs_of_one_queue_do_not_stand_in_the_way_of_another(url: str) -> None:
    """What waits in the buffer behind long jobs is passed by what may start: its own slot is free."""
    registry, started, go_on = Registry(), threading.Event(), threading.Event()

    @task(registry=registry, queue="video")
    def video() -> None:
        started.set()
        assert go_on.wait(20)

    @task(registry=registry, queue="mail")
    async def mail(number: int) -> int:
        return number

    with Harbor(url, registry=registry) as harbor:
        harbor.enqueue_many([video.s() for _ in range(6)])
        with harbor.worker_thread(concurrency=2, reserved={"mail": 1}, prefetch=6, queues=["mail", "video"]):
            await_event(started)
            for number in range(50):
                assert mail.enqueue(number).result(ENOUGH) == number
            go_on.set()


def test_a_guarded_job_without_a_slot_of_its_own_does_not_keep_the_worker_asking() -> None:
    """It waits for a shared slot; mail goes on in its own, and the store is not asked in a circle."""
    registry, driver = Registry(), TroubledDriver()
    started, go_on = threading.Event(), threading.Event()

    @task(registry=registry, queue="video", retry=Retry(max_attempts=1))
    def video() -> str:
        started.set()
        assert go_on.wait(20)
        return "seen"

    @task(registry=registry, queue="mail")
    async def mail() -> str:
        return "sent"

    with Harbor(driver, registry=registry) as harbor:
        videos = harbor.enqueue_many([video.s() for _ in range(4)])
        with harbor.worker_thread(concurrency=3, reserved={"mail": 2}, queues=["mail", "video"]):
            await_event(started)
            for _ in range(20):
                assert mail.enqueue().result(ENOUGH) == "sent"
            before = driver.count("job_reserve")
            assert mail.enqueue().result(ENOUGH) == "sent"
            assert driver.count("job_reserve") - before <= 10
            go_on.set()
            assert [one.result(ENOUGH) for one in videos] == ["seen"] * 4


def test_a_slot_that_ends_is_taken_by_the_queue_that_had_no_room() -> None:
    """Though the worker slept on the reserved slots meanwhile, with nothing to wake it but that end."""
    registry, driver = Registry(), MemoryDriver()
    go_on, running = [threading.Event() for _ in range(4)], threading.Semaphore(0)

    @task(registry=registry, queue="video")
    def video(number: int) -> None:
        running.release()
        assert go_on[number].wait(20)

    driver.poll_interval = 60_000 * MS
    with (
        Harbor(driver, registry=registry) as harbor,
        harbor.worker_thread(concurrency=2, reserved={"mail": 1}, queues=["mail", "video"], prefetch=0),
    ):
        harbor.enqueue_many([video.s(number) for number in range(4)])
        for event in go_on:
            assert running.acquire(timeout=20)
            event.set()


@pytest.mark.parametrize("weights", [None, {"mail": 1, "default": 1}], ids=["by priority", "by weight"])
def test_under_a_flood_of_higher_priority_aging_brings_the_last_ones_through(
    url: str, weights: dict[str, int] | None
) -> None:
    """With a share of a tenth, n of them have started once some ten times n others have."""
    registry, ran, last = Registry(), list[int](), 20

    @task(registry=registry, keep_result=False)
    async def work(priority: int) -> None:
        ran.append(priority)

    with Harbor(url, registry=registry) as harbor:
        harbor.enqueue_many([work.options(priority=9).s(9) for _ in range(last)])
        harbor.enqueue_many([work.options(priority=0).s(0) for _ in range(1000)])
        harbor.run_until_idle(
            aging=1 * MS,
            aging_share=0.1,
            concurrency=10,
            prefetch=0,
            weights=weights,
            queues=["default", "mail"],
        )

    latest = max(place for place, priority in enumerate(ran) if priority == 9)
    assert latest <= 10 * last + 40


def test_without_aging_they_wait_for_the_end(url: str) -> None:
    """What the test above is measured against."""
    registry, ran = Registry(), list[int]()

    @task(registry=registry, keep_result=False)
    async def work(priority: int) -> None:
        ran.append(priority)

    with Harbor(url, registry=registry) as harbor:
        harbor.enqueue_many([work.options(priority=9).s(9) for _ in range(20)])
        harbor.enqueue_many([work.options(priority=0).s(0) for _ in range(200)])
        harbor.run_until_idle(concurrency=10, prefetch=0)

    assert [9] * 20 == ran[-20:]
