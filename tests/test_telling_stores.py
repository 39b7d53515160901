"""What is told of jobs and kept by the store, whichever it is: progress, logs, counters, the feed."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from taskharbor import Context, Harbor, JobState, Registry, Reject, Retry, task
from taskharbor.driver import EventRead
from taskharbor.errors import OptionError
from taskharbor.event import Ending, JobEvent, JobSucceeded
from tests.fixtures.support import SOURCES
from tests.support.work import ENOUGH, LEASE, MS

NOW = timedelta(0)

BESIDE = """
import sys
from datetime import timedelta
from taskharbor import Context, Harbor, task

@task(name="far.work")
def work(ctx: Context, number: int) -> int:
    ctx.progress(number, note="far away")
    ctx.log("told in another process")
    return number

with Harbor(sys.argv[1]) as harbor, harbor.worker_thread(lease=timedelta(milliseconds=300)):
    print("ready", flush=True)
    sys.stdin.read()
"""


class Place(NamedTuple):
    """A harbor on a new store, which is the current one, and how others reach the store."""

    harbor: Harbor
    url: str


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def harbor(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Harbor]:
    for place in places(request.param, tmp_path):
        yield place.harbor


@pytest.fixture(params=["sqlite", "postgres"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Place]:
    yield from places(request.param, tmp_path)


def places(kind: str, folder: Path) -> Generator[Place]:
    registry = Registry()
    if kind != "postgres":
        url = "memory://" if kind == "memory" else f"sqlite:///{folder / 'jobs.db'}"
        with Harbor(url, registry=registry) as harbor:
            yield Place(harbor, url)
        return
    pytest.importorskip("psycopg", reason="needs the extra `postgres`")
    from tests.support.postgres import server
    from tests.support.postgres_ground import Ground

    ground = Ground(server().conninfo)
    try:
        with Harbor(ground.driver(), registry=registry) as harbor:
            yield Place(harbor, ground.url)
    finally:
        ground.remove()


def test_progress_and_log_survive_retries_and_a_dead_letter(harbor: Harbor) -> None:
    @task(registry=harbor.registry, retry=Retry(max_attempts=3, base=0 * MS))
    def load(ctx: Context) -> None:
        ctx.progress(ctx.attempt, 3, f"attempt {ctx.attempt}")
        ctx.log(f"begun {ctx.attempt}")
        if ctx.attempt == 3:
            raise Reject("never")
        raise ValueError("no")

    job = load.enqueue()
    harbor.run_until_idle()

    progress = job.progress()
    assert JobState.DEAD is job.status().state
    assert progress is not None
    assert (3.0, 3.0, "attempt 3", 1.0) == (progress.done, progress.total, progress.note, progress.fraction)
    assert [(1, "begun 1"), (2, "begun 2"), (3, "begun 3")] == [
        (line.attempt, line.text) for line in job.log()
    ]


def test_what_was_told_survives_the_crash_of_its_worker(shared: Place, tmp_path: Path) -> None:
    harbor, url = shared
    script = tmp_path / "crash.py"
    script.write_text(
        """
import os, sys, time
from datetime import timedelta
from taskharbor import Context, Harbor, task

harbor = Harbor(sys.argv[1])

@task(name="crash")
def crash(ctx: Context) -> None:
    ctx.progress(7, 9)
    ctx.log("last words")
    while not harbor.jobs.get(ctx.job_id).log:
        time.sleep(0.01)
    os._exit(0)

with harbor, harbor.worker_thread(lease=timedelta(milliseconds=300)):
    time.sleep(60)
"""
    )

    @task(registry=harbor.registry, name="crash", retry=Retry(max_attempts=2, base=0 * MS))
    def crash(ctx: Context) -> None:
        ctx.log("again")

    job = crash.enqueue()
    subprocess.run([sys.executable, str(script), url], env=environment(), timeout=60, check=True)
    with harbor.worker_thread(lease=LEASE):
        job.wait(ENOUGH)

    progress = job.progress()
    assert progress is not None
    assert 7.0 == progress.done
    assert ["last words", "again"] == [line.text for line in job.log()]


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TASKHARBOR_")}
    return {**kept, "PYTHONPATH": str(SOURCES)}


def test_what_workers_count_is_read_by_minute_queue_task_and_ending(harbor: Harbor) -> None:
    @task(registry=harbor.registry, name="load", queue="q")
    def load(number: int) -> None:
        if number % 2:
            raise Reject("odd")

    @task(registry=harbor.registry, name="other", retry=Retry(max_attempts=2, base=0 * MS))
    async def other(ctx: Context) -> None:
        if ctx.attempt == 1:
            raise ValueError("no")

    before = datetime.now(UTC) - timedelta(minutes=1)
    harbor.enqueue_many([load.s(number) for number in range(5)])
    other.enqueue()
    harbor.run_until_idle()
    harbor.run_until_idle()  # a second worker, with nothing to add

    tallies = harbor.statistics.read(since=before)
    counts: dict[tuple[str, str, Ending], int] = {}
    for tally in tallies:  # of one minute, or of two
        key = (tally.queue, tally.task, tally.ending)
        counts[key] = counts.get(key, 0) + tally.count
    assert {
        ("q", "load", Ending.SUCCEEDED): 3,
        ("q", "load", Ending.DEAD): 2,
        ("default", "other", Ending.RETRYING): 1,
        ("default", "other", Ending.SUCCEEDED): 1,
    } == counts
    assert all(tally.ran > NOW for tally in tallies)
    assert {"load"} == {tally.task for tally in harbor.statistics.read(queues=["q"])}
    assert {"other"} == {tally.task for tally in asyncio.run(harbor.statistics.aread(tasks=["other"]))}
    assert [] == list(harbor.statistics.read(until=before))


# --- the feed


def test_the_feed_gives_what_workers_tell_once_somebody_reads(harbor: Harbor) -> None:
    @task(registry=harbor.registry)
    async def work(number: int) -> int:
        return number

    with harbor.feed() as feed, harbor.worker_thread(lease=LEASE):
        told = list[JobEvent]()
        number = 0
        # The worker hears of the reader with one of its next heartbeats.
        while not any(isinstance(event, JobSucceeded) for event in told):
            work.enqueue(number).result(ENOUGH)
            number += 1
            if (event := feed.get(100 * MS)) is not None:
                told.append(event)
        begun = work.enqueue(-1)
        begun.result(ENOUGH)
        while not (told[-1].job_id == begun.id and isinstance(told[-1], JobSucceeded)):
            event = feed.get(ENOUGH)
            assert event is not None
            told.append(event)

    assert ["JobStarted", "JobSucceeded"] == [type(e).__name__ for e in told if e.job_id == begun.id]
    assert len(told) == len({event.id for event in told})
    assert not feed.missed
    assert feed.get() is None


def test_nothing_is_kept_while_nobody_reads(harbor: Harbor) -> None:
    @task(registry=harbor.registry)
    async def work() -> None: ...

    with harbor.worker_thread(lease=LEASE):
        for _ in range(3):
            work.enqueue().wait(ENOUGH)

    page = harbor.ask(lambda store: store.event_read(EventRead(after="")))
    assert [] == list(page.events)


def test_a_reader_with_a_name_comes_back_to_where_it_was(harbor: Harbor) -> None:
    @task(registry=harbor.registry)
    async def work() -> None: ...

    def until_ended(job_id: str, after: str | None) -> tuple[list[JobEvent], str | None]:
        """Read until the end of a job is told, and return what was read and where one is then."""
        told = list[JobEvent]()
        with harbor.feed(reader="dashboard", after=after) as feed:
            for event in feed:
                told.append(event)
                if event.job_id == job_id and isinstance(event, JobSucceeded):
                    break
            # Taken note of: what is behind the last of a page is asked for.
            while (more := feed.get(NOW)) is not None:
                told.append(more)
            return told, feed.cursor

    harbor.feed(reader="dashboard").get(NOW)
    with harbor.worker_thread(lease=LEASE):
        while not harbor.ask(lambda store: store.event_read(EventRead(after=""))).events:
            work.enqueue().wait(ENOUGH)  # until the worker has heard of the reader
        first = work.enqueue()
        first.wait(ENOUGH)
        before, cursor = until_ended(first.id, "")
        missed = work.enqueue()
        missed.wait(ENOUGH)
    # All of it has stopped meanwhile.
    after, _ = until_ended(missed.id, cursor)

    assert first.id in {event.job_id for event in before}
    assert missed.id not in {event.job_id for event in before}
    assert {missed.id} == {event.job_id for event in after}


def test_the_feed_and_reports_cross_processes(shared: Place, tmp_path: Path) -> None:
    harbor, url = shared
    script = tmp_path / "beside.py"
    script.write_text(BESIDE)

    @task(registry=harbor.registry, name="far.work")
    def work(number: int) -> int:
        raise AssertionError("run elsewhere")

    with subprocess.Popen(
        [sys.executable, str(script), url], env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as beside:
        assert beside.stdout is not None
        assert beside.stdout.readline() == b"ready\n"

        async def read() -> JobSucceeded:
            async with harbor.feed() as feed:
                while True:
                    await work.aenqueue(1)
                    event = await feed.aget(100 * MS)
                    if isinstance(event, JobSucceeded):
                        return event

        event = asyncio.run(asyncio.wait_for(read(), ENOUGH.total_seconds()))
        _ = beside.communicate(timeout=30)

    job = work.handle(event.job_id)
    assert str(beside.pid) in event.worker
    assert ["told in another process"] == [line.text for line in job.log()]
    assert sum(tally.count for tally in harbor.statistics.read(tasks=["far.work"])) > 0


def test_what_is_no_cursor_and_what_is_no_instant_are_refused() -> None:
    with Harbor("memory://", registry=Registry()) as harbor:
        with harbor.feed(after="nonsense") as feed, pytest.raises(OptionError, match="no cursor"):
            feed.get(NOW)
        with pytest.raises(OptionError, match="keep"):
            harbor.feed(keep=NOW)
        with pytest.raises(OptionError, match="since"):
            harbor.statistics.read(since=datetime(2026, 1, 1))  # noqa: DTZ001
