"""Programs that the chaos tests start and kill: `python -m tests.support.chaos_roles ROLE ...`.

worker LEASE SLOTS           a worker that tells what it has counted when it ends
both LEASE SECONDS BATCH     the same; it ends after so long, in which it enqueues batches too
producer BATCH               enqueues batches for ever, and tells of each before and after
steady FILE                  enqueues steadily, notes in a file what became of it; pauses and goes on when told to
verbs                        enqueues, reserves, extends and settles for ever, and tells of each before and after
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta

from taskharbor import Harbor
from taskharbor.driver import (
    Driver,
    JobEnqueue,
    JobReserve,
    JobSettle,
    LeaseExtend,
    LeaseHold,
    LeaseReclaim,
    QueueTake,
)
from taskharbor.drivers import driver_for
from taskharbor.errors import StoreUnavailable
from taskharbor.job import DEFAULT_QUEUE, NewJob, new_job_id, new_token
from taskharbor.settlement import SettleKind, Settlement
from tests.support.chaos_app import URL_VARIABLE, append, make_harbor, nothing

_STEADY_SECONDS, _STEADY_BATCH = 0.02, 10
"""Between two calls of the role `steady`, and jobs of every other one."""
VERBS_BATCH = 5
"""Jobs of one batch of the role `verbs`."""


def say(*words: object) -> None:
    """Tell the test something, which arrives whatever happens next."""
    os.write(sys.stdout.fileno(), " ".join(map(str, words)).encode() + b"\n")


def worker(lease: str, slots: str) -> None:
    """Work until told to stop, then tell the counts."""
    asyncio.run(_work(timedelta(seconds=float(lease)), int(slots)))


def both(lease: str, seconds: str, batch: str) -> None:
    """Work and enqueue for so long, then tell the counts."""
    asyncio.run(_work(timedelta(seconds=float(lease)), 50, float(seconds), int(batch)))


async def _work(lease: timedelta, slots: int, seconds: float = 0, batch: int = 0) -> None:
    harbor, sent = make_harbor(), 0
    async with harbor.worker(lease=lease, concurrency=slots) as worker:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.drain)
        say("ready", worker.name)
        if seconds:
            sent = await asyncio.to_thread(_produce, harbor, time.monotonic() + seconds, batch)
            worker.drain()
        await worker.run()
    counts = {"settled": worker.counts.settled, "stale": worker.counts.stale, "sent": sent}
    await harbor.aclose()
    say("counts", json.dumps(counts, separators=(",", ":")))


def _produce(harbor: Harbor, until: float, batch: int) -> int:
    sent = 0
    while time.monotonic() < until:
        sent += len(harbor.enqueue_many((nothing.s(number) for number in range(batch)), check=False))
    return sent


def producer(batch: str) -> None:
    """Enqueue batches, whose jobs bear their batch's name."""
    harbor = make_harbor()
    for number in itertools.count():
        name = f"{os.getpid()}-{number}"
        say("asking", name)
        harbor.enqueue_many([append.options(meta={"batch": name}).s() for _ in range(int(batch))])
        say("enqueued", name)


def steady(told: str) -> None:
    """Enqueue one job by its key, then some together, and so on. Whoever cannot be stored is given up."""
    with make_harbor() as harbor, open(told, "ab", buffering=0) as file:
        for number in itertools.count():
            if select.select([sys.stdin], [], [], _STEADY_SECONDS)[0]:
                sys.stdin.readline()
                say("paused")
                sys.stdin.readline()
            name = f"{os.getpid()}-{number}"
            jobs = 1 if number % 2 else _STEADY_BATCH
            began = time.monotonic()
            try:
                if jobs == 1:
                    append.options(meta={"batch": name}, key=name).enqueue()
                else:
                    harbor.enqueue_many([append.options(meta={"batch": name}).s() for _ in range(jobs)])
                became = "stored"
            except StoreUnavailable:
                became = "failed"
            file.write(f"{name} {jobs} {became} {time.monotonic() - began:.3f}\n".encode())


def verbs() -> None:
    """Take jobs through the store as fast as it goes, after having reclaimed what the last process left."""
    asyncio.run(_verbs(driver_for(os.environ[URL_VARIABLE])))


async def _verbs(driver: Driver) -> None:
    async with driver.connect() as store:
        await store.lease_reclaim(LeaseReclaim(observed=timedelta(days=1)))
        while True:
            jobs = [
                NewJob(id=new_job_id(), task="t", payload=b"[]", codec="json", fingerprint=1)
                for _ in range(VERBS_BATCH)
            ]
            say("enqueue", *(job.id for job in jobs))
            await store.job_enqueue(JobEnqueue(jobs=jobs))
            token = new_token()
            say("reserve", token)
            taken = await store.job_reserve(
                JobReserve(
                    queues=[QueueTake(DEFAULT_QUEUE, VERBS_BATCH)],
                    limit=VERBS_BATCH,
                    # Expires at once, and is reclaimed by the next process only.
                    lease=timedelta(microseconds=1),
                    token=token,
                    worker=str(os.getpid()),
                    tasks=frozenset({"t"}),
                    build="b",
                    guarded_limit=VERBS_BATCH,
                    solo=True,
                )
            )
            ids = [delivery.id for delivery in taken.deliveries]
            say("extend", *ids)
            await store.lease_extend(
                LeaseExtend(
                    worker=str(os.getpid()),
                    leases=[LeaseHold(token, ids[:1])],
                    lease=timedelta(microseconds=1),
                )
            )
            say("settle", *ids)
            await store.job_settle(
                JobSettle(
                    settlements=[
                        Settlement(job_id, token, SettleKind.SUCCEED, b"null", "json", charge=True)
                        for job_id in ids
                    ]
                )
            )
            say("settled", *ids)


ROLES: dict[str, Callable[..., None]] = {
    "worker": worker,
    "both": both,
    "producer": producer,
    "steady": steady,
    "verbs": verbs,
}

if __name__ == "__main__":
    # Tests end their programs; but one whose test has died should not stay.
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    ROLES[sys.argv[1]](*sys.argv[2:])
