"""Intake: which jobs a worker takes, in what order, and what it does with those it cannot run."""

from __future__ import annotations

import asyncio
import threading
import time

import msgspec
import pytest

from taskharbor import Harbor, JobState, MsgpackCodec, Registry, Retry, register_type, task
from taskharbor.driver import JobEnqueue
from taskharbor.drivers.memory import MemoryDriver
from taskharbor.job import NewJob, new_job_id
from tests.support.work import ENOUGH, LEASE, MS, TroubledDriver, await_event, eventually, running

ONCE = Retry(max_attempts=1)


def test_what_waits_behind_long_jobs_is_handed_back_to_others() -> None:
    """After about a second without a free slot another worker gets the unstarted jobs, whatever the prefetch."""
    registry, started, go_on = Registry(), threading.Event(), threading.Event()

    @task(registry=registry)
    def hold() -> None:
        started.set()
        go_on.wait(20)

    @task(registry=registry)
    async def quick(number: int) -> int:
        return number

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        hold.enqueue()
        jobs = [quick.enqueue(number) for number in range(5)]
        with harbor.worker_thread(concurrency=1, prefetch=5):
            await_event(started)
            eventually(lambda: len(running(harbor)) == 6, "the prefetch")
            with harbor.worker_thread(concurrency=1, prefetch=0):
                assert [job.result(ENOUGH) for job in jobs] == list(range(5))
            go_on.set()


def test_priorities_are_served_in_order() -> None:
    """0 first, 9 last, and within one the order of enqueue."""
    registry, ran = Registry(), list[tuple[int, int]]()

    @task(registry=registry)
    async def work(priority: int, number: int) -> None:
        ran.append((priority, number))

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        for number in range(30):
            work.options(priority=number * 7 % 10).enqueue(number * 7 % 10, number)
        harbor.run_until_idle(concurrency=1, prefetch=0)

    assert ran == sorted(ran)


def test_a_worker_serves_the_queues_of_all_its_tasks() -> None:
    """And `default`, unless it was told which."""
    registry, ran = Registry(), list[str]()

    @task(registry=registry, queue="mail")
    async def mail() -> None:
        ran.append("mail")

    @task(registry=registry, queue="video")
    async def video() -> None:
        ran.append("video")

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        mail.enqueue()
        video.enqueue()
        mail.options(queue="default").enqueue()
        elsewhere = mail.options(queue="elsewhere").enqueue()
        harbor.run_until_idle(queues=["video"])
        assert ran == ["video"]
        harbor.run_until_idle()

        assert sorted(ran) == ["mail", "mail", "video"]
        assert elsewhere.status().state is JobState.READY


def test_a_paused_queue_is_passed_over_until_it_is_resumed() -> None:
    """A waiting worker is woken by the resume."""
    registry = Registry()

    @task(registry=registry, queue="mail")
    async def mail() -> str:
        return "sent"

    @task(registry=registry)
    async def other() -> str:
        return "done"

    with Harbor(MemoryDriver(), registry=registry) as harbor, harbor.worker_thread():
        harbor.queues.pause("mail")
        job = mail.enqueue()
        assert other.enqueue().result(ENOUGH) == "done"
        assert job.status().state is JobState.READY
        harbor.queues.resume("mail")

        assert job.result(ENOUGH) == "sent"


def test_a_job_of_an_unknown_task_waits_for_a_worker_that_knows_it() -> None:
    """Met once it strays, shows as parked, and runs as soon as somebody who knows it appears."""
    old, new, driver = Registry(), Registry(), MemoryDriver()

    @task(registry=old)
    async def known() -> str:
        return "known"

    @task(registry=new, name="feature")
    async def feature() -> str:
        return "new"

    with Harbor(driver, registry=new), Harbor(driver, registry=old) as harbor:
        with Harbor(driver, registry=new) as sender:
            job = feature.enqueue()
        with harbor.worker_thread():
            assert known.enqueue().result(ENOUGH) == "known"
            eventually(lambda: harbor.look(job.id).state is JobState.PARKED, "its parking")
            assert "'feature' is not registered" in harbor.look(job.id).reason
            with sender.worker_thread():
                assert job.result(ENOUGH) == "new"


def test_a_task_declared_while_a_worker_runs_is_picked_up() -> None:
    """Its stray jobs too."""
    registry, later, driver = Registry(), Registry(), MemoryDriver()

    @task(registry=later, name="late")
    async def sent() -> str:
        return "never run"

    with (
        Harbor(driver, registry=later),
        Harbor(driver, registry=registry) as harbor,
        harbor.worker_thread(lease=LEASE),
    ):
        with Harbor(driver, registry=later):
            stray = sent.enqueue()
        eventually(lambda: harbor.look(stray.id).state is JobState.PARKED, "its parking")

        @task(registry=registry, name="late")
        async def late() -> str:
            return "run"

        assert late.enqueue().result(ENOUGH) == "run"
        assert late.handle(stray.id).result(ENOUGH) == "run"


def test_a_job_stored_under_an_alias_runs() -> None:
    """So a task may be renamed while jobs of the old name wait."""
    before, after, driver = Registry(), Registry(), MemoryDriver()

    @task(registry=before, name="old.name")
    async def old(number: int) -> int:
        return number

    @task(registry=after, name="new.name", aliases=["old.name"])
    async def new(number: int) -> int:
        return number + 1

    with Harbor(driver, registry=before):
        job = old.enqueue(1)
    with Harbor(driver, registry=after) as harbor:
        harbor.run_until_idle()

        assert new.handle(job.id).result() == 2


def put(harbor: Harbor, name: str, payload: bytes, *, codec: str = "json", foreign: bool = False) -> str:
    """Store a job that no producer of ours would."""
    definition = harbor.task(name)
    job = NewJob(
        id=new_job_id(),
        task=name,
        payload=payload,
        codec=codec,
        fingerprint=definition.fingerprint ^ int(foreign),
    )

    async def store() -> None:
        async with harbor.driver.connect() as store:
            await store.job_enqueue(JobEnqueue(jobs=[job]))

    asyncio.run(store())
    return job.id


class Odd:
    """A type whose hook raises what no decoder should."""


def decode_oddly(value: str) -> Odd:
    raise {"key": KeyError, "runtime": RuntimeError, "value": ValueError}.get(value, ZeroDivisionError)(value)


register_type(Odd, wire=str, encode=repr, decode=decode_oddly)


class Touchy(msgspec.Struct):
    """A Struct that refuses in its own way."""

    number: int

    def __post_init__(self) -> None:
        if self.number < 0:
            raise RuntimeError("negative")


class Tree(msgspec.Struct):
    """As deep as one likes."""

    children: list[Tree]


BAD_PAYLOADS = [
    b"",
    b"\xff\xfe",
    b"{}",
    b'{"odd": 1}',
    b'{"odd": "key"}',
    b'{"odd": "runtime"}',
    b'{"odd": "value"}',
    b'{"odd": "zero"}',
    b'{"touchy": {"number": -1}}',
    b'{"unknown": 1}',
    b"[" * 100_000,
    b'{"tree": ' + b'{"children": [' * 100_000,
]


@pytest.mark.parametrize("foreign", [False, True])
@pytest.mark.parametrize("payload", BAD_PAYLOADS, ids=lambda payload: repr(payload[:30]))
def test_an_undecodable_payload_ends_as_a_dead_letter_or_is_left_to_others(
    payload: bytes, foreign: bool
) -> None:
    """Dead at once under the worker's own fingerprint, parked under another; the worker goes on."""
    registry = Registry()

    @task(registry=registry, name="take")
    async def take(odd: Odd | None = None, touchy: Touchy | None = None, tree: Tree | None = None) -> str:
        return "taken"

    @task(registry=registry, name="need")
    async def need(number: int) -> int:
        return number

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        name = "need" if payload == b"{}" else "take"
        job_id = put(harbor, name, payload, foreign=foreign)
        good = need.enqueue(3)
        harbor.run_until_idle()
        record = harbor.look(job_id)

        assert good.result() == 3
        if foreign:
            assert record.state is JobState.PARKED
            assert len(record.refused_by) == 1
        else:
            assert (record.state, record.attempt) == (JobState.DEAD, 1)
            assert record.errors[0].type == "taskharbor.errors.PayloadError"
        assert "take" in str(record) or "need" in str(record)


def test_a_payload_written_under_another_signature_runs_where_it_is_understood() -> None:
    """The build that refused it leaves it; the one that wrote it runs it."""
    old, new, driver = Registry(), Registry(), MemoryDriver()

    @task(registry=old, name="greet")
    async def greet(name: str) -> str:
        return f"hello {name}"

    @task(registry=new, name="greet")
    async def greet_by_number(number: int) -> str:
        return f"hello number {number}"

    with Harbor(driver, registry=old) as writer:
        job = greet.enqueue("Ada")
        with Harbor(driver, registry=new) as harbor:
            harbor.run_until_idle()
            assert harbor.look(job.id).state in (JobState.PARKED, JobState.READY)
            assert harbor.look(job.id).deliveries == 1
            harbor.run_until_idle()
            assert harbor.look(job.id).deliveries == 1, "met once by each build"
        writer.run_until_idle()

        assert job.result() == "hello Ada"


def test_a_payload_in_an_unknown_codec_is_left_to_others() -> None:
    """The reason names the codec, and what to do."""
    registry = Registry()

    @task(registry=registry, name="take")
    async def take() -> None:
        """Never run."""

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        job_id = put(harbor, "take", b"?", codec="secret")
        harbor.run_until_idle()
        record = harbor.look(job_id)

    assert record.state is JobState.PARKED
    assert "'secret'" in record.reason
    assert "codecs=" in record.reason


def test_payloads_in_either_of_our_codecs_are_read_by_any_harbor() -> None:
    """A harbor may change its codec while jobs wait."""
    registry, driver = Registry(), MemoryDriver()

    @task(registry=registry)
    async def double(number: int) -> int:
        return number * 2

    with Harbor(driver, registry=registry, codec=MsgpackCodec()) as packed:
        first = double.enqueue(1)
        with Harbor(driver, registry=registry) as plain:
            second = double.enqueue(2)
            plain.run_until_idle()
            assert (first.result(), second.result()) == (2, 4)
        third = double.enqueue(3)
        packed.run_until_idle()
        assert third.result() == 6


def test_long_jobs_are_not_hoarded() -> None:
    """Without a prefetch of the user's a worker of slow jobs holds about what it can run."""
    registry, go_on, most = Registry(), threading.Event(), list[int]()

    @task(registry=registry)
    def slow() -> None:
        go_on.wait(20)

    with Harbor(MemoryDriver(), registry=registry) as harbor, harbor.worker_thread(concurrency=2):
        for _ in range(20):
            slow.enqueue()
        eventually(lambda: len(running(harbor)) >= 2)
        most.append(len(running(harbor)))
        go_on.set()

    assert most == [2]


def test_many_short_jobs_are_taken_ahead() -> None:
    """Far fewer reserves than jobs, since the buffer grows with the rate."""
    registry = Registry()

    @task(registry=registry, keep_result=False)
    async def short() -> None:
        """End at once."""

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        harbor.enqueue_many([short.s() for _ in range(5000)])
        began = time.monotonic()
        counts = harbor.run_until_idle(concurrency=10)
        assert time.monotonic() - began < 20

    assert counts.settled == {"succeeded": 5000}


def test_an_idle_worker_asks_the_store_rarely() -> None:
    """It is woken, and does not poll."""

    registry, driver = Registry(), TroubledDriver()
    driver.poll_interval = 60_000 * MS

    @task(registry=registry)
    async def work() -> str:
        return "woken"

    with Harbor(driver, registry=registry) as harbor, harbor.worker_thread(lease=LEASE):
        eventually(lambda: driver.count("lease_extend") >= 4, "a few heartbeats")
        assert driver.count("job_reserve") <= 2
        assert work.enqueue().result(ENOUGH) == "woken"
