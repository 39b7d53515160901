"""Limits as workers keep them: declared at the start, taken into slots only, beside weights, batches and plain jobs."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from taskharbor import Batch, Harbor, JobState, MaxRunning, Rate, Registry, task
from taskharbor.driver import LimitList, LimitSet
from taskharbor.drivers.memory import MemoryDriver
from taskharbor.drivers.memory.store import MemoryStore
from taskharbor.limit import LimitRecord, LimitTerms, RateTerms, Scope, ScopeKind
from taskharbor.upkeep import limits
from taskharbor.worker.asking import Ask
from taskharbor.worker.asking.whole import Open
from taskharbor.working import WorkerOptions
from tests.support.work import ENOUGH, HOUR, MS, eventually, running

MINUTE = timedelta(minutes=1)
DRIVERS = ["memory", "sqlite"]


def harbor_of(kind: str, registry: Registry, folder: Path) -> Harbor:
    return Harbor(
        MemoryDriver() if kind == "memory" else f"sqlite:///{folder / 'jobs.db'}", registry=registry
    )


def known(harbor: Harbor) -> dict[str, LimitRecord]:
    """Return the limits that the store knows, as people write their scopes."""
    return {str(one.scope): one for one in harbor.ask(lambda store: store.limit_list(LimitList()))}


# --- declaring


@pytest.mark.parametrize("kind", DRIVERS)
def test_a_worker_writes_down_what_its_tasks_declare(kind: str, tmp_path: Path) -> None:
    """And takes back what they declare no more; what was set by hand stays as it is."""
    before, after = Registry(), Registry()

    @task(
        registry=before, name="call", aliases=["ring"], rate=Rate(5, MINUTE), max_running=MaxRunning(2, "a")
    )
    def call(a: str) -> None: ...

    @task(registry=after, name="call")
    def call_now(a: str) -> None: ...

    for registry in (before, after):

        @task(registry=registry, name="other", max_running=7)
        def other() -> None: ...

    with harbor_of(kind, before, tmp_path) as harbor:
        harbor.run_until_idle()
        found = known(harbor)
        assert {"keys:call", "keys:ring", "task:call", "task:other", "task:ring"} == set(found)
        assert LimitTerms(rate=RateTerms(5, MINUTE)) == found["task:call"].terms
        assert LimitTerms(max_running=2) == found["keys:ring"].terms

        by_hand = LimitSet(scope=Scope(ScopeKind.TASK, "other"), terms=LimitTerms(max_running=1), by="ada")
        harbor.ask(lambda store: store.limit_set(by_hand))
        with Harbor(harbor.driver, registry=after) as second:
            second.run_until_idle()
            left = known(second)
        assert {"keys:ring", "task:other", "task:ring"} == {name for name, one in left.items() if one.terms}
        assert (7, 1) == (left["task:other"].declared.max_running, left["task:other"].terms.max_running)


def test_a_failure_to_declare_is_tried_again_and_stops_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    registry, asked = Registry(), Counter[str]()
    list_them = MemoryStore.limit_list

    @task(registry=registry, name="call", max_running=2)
    def call() -> int:
        return 1

    async def fails_twice(store: MemoryStore, request: LimitList) -> object:
        asked["limit_list"] += 1
        if asked["limit_list"] <= 2:
            raise PermissionError("no rights")
        return await list_them(store, request)

    monkeypatch.setattr(MemoryStore, "limit_list", fails_twice)
    monkeypatch.setattr(limits, "_FIRST_SECONDS", 0.001)

    with Harbor(MemoryDriver(), registry=registry) as harbor, harbor.worker_thread():
        assert 1 == call.enqueue().result(ENOUGH)
        eventually(lambda: "task:call" in known(harbor), "the declaration")
    assert "cannot declare the limits of its tasks, and tries again" in caplog.text


def test_a_task_declared_while_a_worker_runs_has_its_limits() -> None:
    registry = Registry()

    @task(registry=registry, name="first")
    def first() -> None: ...

    with Harbor(MemoryDriver(), registry=registry) as harbor, harbor.worker_thread():

        @task(registry=registry, name="later", max_running=1)
        def later() -> None: ...

        later.enqueue().result(ENOUGH)
        eventually(lambda: "task:later" in known(harbor), "the declaration")


# --- slots


@pytest.mark.parametrize("kind", DRIVERS)
def test_nobody_holds_ahead_what_a_limit_lets_another_start(kind: str, tmp_path: Path) -> None:
    """Two workers, two slots of a limit: both run, whatever the prefetch; the rest is parked, and says why."""
    registry, go_on = Registry(), threading.Event()
    started = threading.Semaphore(0)

    @task(registry=registry, name="hold", max_running=2)
    def hold() -> None:
        started.release()
        go_on.wait(20)

    with harbor_of(kind, registry, tmp_path) as harbor:
        jobs = [hold.enqueue() for _ in range(6)]
        options: WorkerOptions = {"concurrency": 1, "prefetch": 100, "queues": ["default"]}
        with harbor.worker_thread(**options), harbor.worker_thread(**options):
            assert all(started.acquire(timeout=20) for _ in range(2))
            assert 2 == len(running(harbor))
            parked = [job.status() for job in jobs if job.status().state is not JobState.RUNNING]
            assert {JobState.PARKED} == {status.state for status in parked}
            assert {"task:hold has 2 running, its limit"} == {status.reason for status in parked}
            go_on.set()
            for job in jobs:
                job.result(ENOUGH)


@pytest.mark.parametrize("kind", DRIVERS)
def test_jobs_of_lines_are_leased_into_slots_only(kind: str, tmp_path: Path) -> None:
    """Never one more than can start, whatever the prefetch."""
    registry, leased = Registry(), list[int]()

    @task(registry=registry, fair="tenant", keep_result=False)
    def fair(tenant: str) -> None:
        if not leased:  # later ones may have ended beside those that run, and not be settled yet
            leased.append(len(running(harbor)))

    with harbor_of(kind, registry, tmp_path) as harbor:
        harbor.enqueue_many([fair.s("ab"[number % 2]) for number in range(20)])
        harbor.run_until_idle(concurrency=1, prefetch=50)

    assert [1] == leased


@pytest.mark.parametrize(
    "options",
    [
        {"prefetch": 20},
        {"weights": {"default": 3, "other": 1}, "prefetch": 20},
        {"reserved": {"other": 1}, "prefetch": 20},
        {"aging": MS, "prefetch": 20},
    ],
    ids=lambda options: next(iter(options)),
)
def test_at_no_time_more_than_allowed_however_a_worker_asks(options: WorkerOptions) -> None:
    """One at a time for each account, beside plain jobs, over two queues and two workers."""
    registry, lock = Registry(), threading.Lock()
    now, most, ran = Counter[str](), Counter[str](), Counter[str]()

    @task(registry=registry, max_running=MaxRunning(1, "account"), keep_result=False)
    def book(account: str) -> None:
        with lock:
            now[account] += 1
            most[account] = max(most[account], now[account])
        with lock:
            now[account] -= 1
            ran[account] += 1

    @task(registry=registry, keep_result=False)
    def plain() -> None:
        with lock:
            ran["plain"] += 1

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        for queue in ("default", "other"):
            harbor.enqueue_many(
                one
                for number in range(30)
                for one in (book.options(queue=queue).s("abc"[number % 3]), plain.options(queue=queue).s())
            )
        asked: WorkerOptions = {"queues": ["default", "other"], "concurrency": 3, **options}
        with harbor.worker_thread(**asked), harbor.worker_thread(**asked):
            eventually(lambda: ran.total() == 120, "the end of all jobs")

    assert {"a": 20, "b": 20, "c": 20, "plain": 60} == dict(ran)
    assert {1} == set(most.values())


def alternate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have reserves look at lines first and second in turn, instead of by chance."""
    asked: Callable[[Open], Ask] = Open.next
    count = 0

    def in_turn(asking: Open) -> Ask:
        nonlocal count
        count += 1
        ask = asked(asking)
        return msgspec.structs.replace(ask, token=ask.token >> 1 << 1 | count & 1)

    monkeypatch.setattr(Open, "next", in_turn)


def test_plain_jobs_that_are_held_ahead_starve_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """While jobs of lines wait, nothing is held ahead, and the two kinds come by turns."""
    alternate(monkeypatch)
    registry, ran = Registry(), list[str]()

    @task(registry=registry, keep_result=False)
    async def plain() -> None:
        ran.append("plain")

    @task(registry=registry, fair="tenant", keep_result=False)
    async def fair(tenant: str) -> None:
        ran.append(tenant)

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        harbor.enqueue_many([plain.s() for _ in range(400)])
        harbor.enqueue_many([fair.s("ab"[number % 2]) for number in range(40)])
        harbor.run_until_idle(concurrency=4, prefetch=50)

    last = max(place for place, name in enumerate(ran) if name != "plain")
    assert 440 == len(ran)
    assert last < 200, "by turns from the second or third reserve on"


def test_jobs_of_lines_come_into_batches() -> None:
    """Those that join one that gathers need no slot; one call takes several tenants' jobs."""
    registry, sizes = Registry(), list[int]()

    @task(registry=registry, batch=Batch(size=10, wait=HOUR), fair=lambda args: args.orders[0])
    def ship(orders: list[str]) -> None:
        sizes.append(len(orders))

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        harbor.enqueue_many([ship.s("abc"[number % 3] + str(number)) for number in range(30)])
        harbor.run_until_idle(concurrency=1)

    assert [10, 10, 10] == sizes


def test_a_rate_spends_no_attempt_and_is_waited_for() -> None:
    """What is above it stays parked in a store at rest."""
    registry = Registry()

    @task(registry=registry, name="call", rate=Rate(1, HOUR, burst=3))
    def call() -> None: ...

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        jobs = harbor.enqueue_many([call.s() for _ in range(5)])
        harbor.run_until_idle()
        states = Counter((job.status().state, job.status().attempt, job.status().reason) for job in jobs)

    assert {
        (JobState.SUCCEEDED, 1, ""): 3,
        (JobState.PARKED, 0, "task:call is at its rate"): 2,
    } == dict(states)
