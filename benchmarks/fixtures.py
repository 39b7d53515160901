"""What several themes share: the harbor, the tasks, and the bare loop that is their ceiling."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from benchmarks.measure import Clock, Settings
from taskharbor import Harbor, Registry, Signature, task

T = TypeVar("T")

IN_FLIGHT = 50
"""How many jobs run at once, in a worker (its default) and in the bare loop."""

registry = Registry()
"""The benchmarks' own tasks, apart from whatever else the process declares."""


class Mail(msgspec.Struct):
    """The payload of the no-op tasks, for subjects that do without TaskHarbor."""

    to: str
    n: int


@task(registry=registry)
async def noop(to: str, n: int) -> int:
    """Do nothing, on the loop."""
    return n


@task(registry=registry)
def noop_in_thread(to: str, n: int) -> int:
    """Do nothing, in a thread."""
    return n


@task(registry=registry)
def wait_in_thread(seconds: float) -> None:
    """Block for a while, as I/O would."""
    threading.Event().wait(seconds)


@contextmanager
def fresh_url(settings: Settings) -> Generator[str]:
    """Give the URL of an empty store of the driver under test, which is removed at the end."""
    if settings.driver == "sqlite":
        with fresh_folder(settings) as folder:
            yield f"sqlite:///{folder / 'bench.db'}"
    else:
        yield f"{settings.driver}://"


@contextmanager
def fresh_folder(settings: Settings) -> Generator[Path]:
    """Give a directory on the disk to be measured, removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="taskharbor-bench-", dir=settings.directory)).resolve()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def open_harbor(settings: Settings, *, check: bool = True) -> Generator[Harbor]:
    """Give a harbor, and make it the current one, on an empty store of the driver under test."""
    with fresh_url(settings) as url, Harbor(url, registry=registry, check=check) as harbor:
        yield harbor


def drain_speed(settings: Settings, signatures: Sequence[Signature[T]], clock: Clock | None = None) -> float:
    """Enqueue calls, then time a worker from start to idle; return jobs a second."""
    with open_harbor(settings) as harbor:
        harbor.enqueue_many(signatures)
        return per_second(
            len(signatures), lambda: harbor.run_until_idle(concurrency=IN_FLIGHT), clock or settings.clock
        )


def bare_speed(jobs: int, clock: Clock) -> float:
    """Return the jobs a second of a loop without TaskHarbor: decode, call and encode in a task per job.

    Nothing is stored, leased, retried or awaited by anyone, so it is a ceiling and no rival.
    """
    decode, encode = msgspec.json.Decoder(Mail).decode, msgspec.json.Encoder().encode
    payloads = [encode(Mail("user@example.com", n)) for n in range(jobs)]
    results: list[bytes] = []

    async def job(payload: bytes) -> None:
        mail = decode(payload)
        results.append(encode(await noop.fn(mail.to, mail.n)))

    async def main() -> None:
        for start in range(0, jobs, IN_FLIGHT):
            await asyncio.gather(
                *[asyncio.create_task(job(payload)) for payload in payloads[start : start + IN_FLIGHT]]
            )

    return per_second(jobs, lambda: on_own_loop(main), clock)


def per_second(jobs: int, work: Callable[[], object], clock: Clock) -> float:
    """Return jobs a second by that clock."""
    now = time.perf_counter if clock == "wall" else time.process_time
    began = now()
    work()
    return jobs / (now() - began)


def micros_each(jobs: int, work: Callable[[], object], clock: Clock) -> float:
    """Return microseconds a job by that clock."""
    return 1e6 / per_second(jobs, work, clock)


def on_own_loop(main: Callable[[], Coroutine[object, object, T]]) -> T:
    """Run `main()` on a new loop of the kind that workers use: uvloop's where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())
