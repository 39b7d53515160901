"""Orders from afar: a worker that is told to drain or to stop ends by itself, and says who told it (rule 26)."""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path

import pytest

from taskharbor import Harbor, JobState, Registry, task
from taskharbor.driver import Order, WorkerOrder
from taskharbor.drivers.memory import MemoryDriver
from tests.support.work import ENOUGH, LEASE, await_event, eventually

DRIVERS = ["memory", "sqlite"]


def harbor_of(kind: str, registry: Registry, folder: Path) -> Harbor:
    return Harbor(
        MemoryDriver() if kind == "memory" else f"sqlite:///{folder / 'jobs.db'}", registry=registry
    )


def give(harbor: Harbor, worker: str, order: Order) -> bool:
    request = WorkerOrder(workers=[worker], order=order, by="ada", reason="moving")
    return harbor.ask(lambda store: store.worker_order(request))[0]


def ended() -> bool:
    return all(thread.name != "taskharbor-worker" for thread in threading.enumerate())


@pytest.mark.parametrize("kind", DRIVERS)
def test_an_idle_worker_hears_of_a_drain_and_ends(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with harbor_of(kind, Registry(), tmp_path) as harbor, caplog.at_level(logging.INFO, "taskharbor.worker"):
        with harbor.worker_thread(lease=LEASE) as thread:
            worker = thread.worker
            assert give(harbor, worker.name, Order.DRAIN)
            eventually(ended, "the worker's own end")

        assert worker.ordered
        assert "it was told to from afar, by ada" in caplog.text


def test_a_drain_lets_what_runs_finish_and_hands_back_the_rest() -> None:
    registry, started, go_on = Registry(), threading.Event(), threading.Event()

    @task(registry=registry)
    def hold() -> str:
        started.set()
        go_on.wait(20)
        return "done"

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        running, waiting = hold.enqueue(), hold.enqueue()
        with harbor.worker_thread(lease=LEASE, concurrency=1, prefetch=1) as thread:
            await_event(started)
            give(harbor, thread.worker.name, Order.DRAIN)
            eventually(lambda: waiting.status().state is JobState.READY, "the one that is handed back")
            go_on.set()
            assert running.result(ENOUGH) == "done"
            eventually(ended, "the worker's own end")
        assert waiting.status().state is JobState.READY


def test_a_stop_cancels_what_runs_even_after_a_drain() -> None:
    registry = Registry()
    started = threading.Event()

    @task(registry=registry)
    async def hold() -> None:
        started.set()
        await asyncio.sleep(60)

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        job = hold.enqueue()
        with harbor.worker_thread(lease=LEASE) as thread:
            await_event(started)
            give(harbor, thread.worker.name, Order.DRAIN)
            eventually(lambda: thread.worker.draining, "the drain")
            assert job.status().state is JobState.RUNNING
            give(harbor, thread.worker.name, Order.STOP)
            eventually(ended, "the worker's own end")
        assert job.status().state is JobState.READY
