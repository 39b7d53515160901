"""`harbor.events` and `harbor.results`: what happens in this process, told to those who listen."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from taskharbor import (
    BlockingCallError,
    Context,
    Harbor,
    JobState,
    OptionError,
    Registry,
    Reject,
    ResultNotKept,
    Retry,
    Snooze,
    chain,
    task,
)
from taskharbor.clock import ManualClock
from taskharbor.driver import JobReserve, LeaseReclaim, QueueTake
from taskharbor.drivers.memory import MemoryDriver
from taskharbor.event import (
    Ending,
    JobCancelled,
    JobDead,
    JobEnqueued,
    JobEvent,
    JobParked,
    JobReleased,
    JobRequeued,
    JobRetrying,
    JobSnoozed,
    JobStarted,
    JobSucceeded,
)
from taskharbor.job import new_token
from taskharbor.telemetry import Hub, Subscription
from tests.fixtures.support import fork, untyped
from tests.support.work import (
    ENOUGH,
    HOUR,
    LEASE,
    MS,
    TroubledDriver,
    await_event,
    eventually,
    fails,
    until,
    within,
)

NOW = timedelta(0)


class Thumb(msgspec.Struct):
    width: int
    tags: list[str] = []


def taken(events: Subscription[JobEvent]) -> list[JobEvent]:
    """Return what there is to take."""
    found: list[JobEvent] = []
    while (event := events.get(NOW)) is not None:
        found.append(event)
    return found


def names(events: Iterable[JobEvent], job_id: str = "") -> list[str]:
    """Return the kinds of events, in order; of one job, or of all."""
    return [type(event).__name__ for event in events if not job_id or event.job_id == job_id]


# --- what is told


def test_a_jobs_life_is_told_in_order() -> None:
    registry = Registry()

    @task(registry=registry, queue="mail", retry=Retry(max_attempts=2, base=0 * MS))
    def send(ctx: Context) -> str:
        ctx.progress(ctx.attempt, 2)
        if ctx.attempt == 1:
            raise ValueError("no")
        return "sent"

    with Harbor(MemoryDriver(), registry=registry) as harbor, harbor.events() as events:
        job = send.enqueue()
        harbor.run_until_idle()
        told = taken(events)

    life = ["JobEnqueued", "JobStarted", "JobProgressed", "JobRetrying"]
    life += ["JobStarted", "JobProgressed", "JobSucceeded"]
    assert life == names(told)
    assert {(job.id, send.name, "mail", None)} == {
        (event.job_id, event.task, event.queue, event.flow) for event in told
    }
    assert len(told) == len({event.id for event in told})
    retrying, succeeded = told[3], told[6]
    assert isinstance(retrying, JobRetrying)
    assert ("ValueError", NOW, 1) == (retrying.error, retrying.next_in, retrying.attempt)
    assert isinstance(succeeded, JobSucceeded)
    assert succeeded.attempt == 2
    assert succeeded.ran is not None
    assert NOW < succeeded.ran < ENOUGH


@pytest.mark.parametrize(
    ("error", "kind"), [(Reject("bad"), JobDead), (Snooze(HOUR), JobSnoozed), (ValueError("no"), JobRetrying)]
)
def test_each_ending_has_an_event_of_its_own(error: Exception, kind: type[JobEvent]) -> None:
    registry = Registry()

    @task(registry=registry, retry=Retry(max_attempts=3, base=HOUR, jitter=False))
    async def fail() -> None:
        raise error

    with Harbor(MemoryDriver(), registry=registry) as harbor, harbor.events() as events:
        fail.enqueue()
        harbor.run_until_idle()
        *_, ended = taken(events)

    assert type(ended) is kind
    match ended:
        case JobDead():
            assert ("taskharbor.outcome.Reject", "bad") == (ended.error, ended.reason)
        case JobSnoozed() | JobRetrying():
            assert HOUR == ended.next_in
        case _:
            raise AssertionError(ended)


def test_a_cancel_a_stop_and_a_stranger_are_told() -> None:
    registry, started = Registry(), threading.Semaphore(0)

    @task(registry=registry)
    async def wait() -> None:
        started.release()
        await asyncio.Event().wait()

    stranger = Registry()

    @task(registry=stranger, name="stranger")
    async def strange() -> None: ...

    driver = MemoryDriver()
    with Harbor(driver, registry=stranger):
        unknown = strange.enqueue()
    with Harbor(driver, registry=registry) as harbor, harbor.events() as events:
        cancelled = wait.enqueue()
        with harbor.worker_thread(lease=LEASE, grace=NOW):
            assert started.acquire(timeout=20)
            cancelled.cancel()
            cancelled.wait(ENOUGH)
            released = wait.enqueue()
            assert started.acquire(timeout=20)
        told = taken(events)

    assert names(told, cancelled.id)[-2:] == ["JobStarted", "JobCancelled"]
    assert names(told, released.id)[-2:] == ["JobStarted", "JobReleased"]
    assert names(told, unknown.id) == ["JobParked"]
    parked = next(event for event in told if isinstance(event, JobParked))
    assert parked.ran is None
    back = next(event for event in told if isinstance(event, JobReleased))
    assert back.ran is not None
    assert [cancelled.id] == [event.job_id for event in told if isinstance(event, JobCancelled)]


def test_a_job_whose_lease_was_lost_is_not_told_to_have_ended() -> None:
    registry, go_on, started = Registry(), threading.Event(), threading.Event()
    clock = ManualClock()
    driver = MemoryDriver(clock)

    @task(registry=registry, retry=Retry(max_attempts=5, base=HOUR, jitter=False))
    def slow() -> str:
        started.set()
        await_event(go_on)
        return "too late"

    with Harbor(driver, registry=registry) as harbor:
        job = slow.enqueue()
        with harbor.events() as events, harbor.worker_thread(lease=HOUR) as beside:
            await_event(started)
            eventually(lambda: harbor.look(job.id).started)
            clock.advance(2 * HOUR)
            harbor.ask(lambda store: store.lease_reclaim(LeaseReclaim(observed=10 * HOUR)))
            go_on.set()
            eventually(lambda: beside.worker.counts.stale == 1)
            told = taken(events)

    assert ["JobStarted"] == names(told)


def test_what_becomes_of_jobs_of_lost_workers_is_told_by_who_reclaims_them() -> None:
    registry = Registry()

    @task(registry=registry, queue="q")
    async def work() -> None: ...

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        job = work.enqueue()
        reserve = JobReserve(
            queues=[QueueTake("q", 1)], limit=1, lease=20 * MS, token=new_token(), worker="gone",
            tasks=frozenset({work.name}), build="b", guarded_limit=0, solo=False,
        )  # fmt: skip
        harbor.ask(lambda store: store.job_reserve(reserve))
        with harbor.events(kinds=JobReleased) as released, harbor.worker_thread(lease=LEASE):
            event = released.get(ENOUGH)
            job.result(ENOUGH)
        (tally,) = [tally for tally in harbor.statistics.read() if tally.ending is Ending.RELEASED]

    assert event is not None
    assert (job.id, "gone", None, 1) == (event.job_id, event.worker, event.ran, event.attempt)
    assert (work.name, "q", 1) == (tally.task, tally.queue, tally.count)


def test_a_requeue_is_told_with_its_task_and_nothing_else_is() -> None:
    registry = Registry()

    @task(registry=registry, queue="q")
    async def fail() -> None:
        raise Reject("no")

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        job, waiting = fail.enqueue(), fail.options(run_in=HOUR).enqueue()
        harbor.run_until_idle()
        with harbor.events() as events:
            harbor.jobs.requeue([job.id, waiting.id, "no such job"])
            told = taken(events)

    assert [(JobRequeued, job.id, fail.name, "q")] == [
        (type(event), event.job_id, event.task, event.queue) for event in told
    ]


def test_an_enqueue_is_told_once_for_each_job_that_is_new() -> None:
    registry = Registry()

    @task(registry=registry)
    async def work(number: int) -> int:
        return number

    with Harbor(MemoryDriver(), registry=registry) as harbor, harbor.events(kinds=JobEnqueued) as events:
        jobs = harbor.enqueue_many([work.s(1), work.options(key="k").s(2)])
        assert not work.options(key="k").enqueue(2).created
        flow = chain(work.s(3), work, work).enqueue()
        events.close()
        told = list(events)

    assert [jobs[0].id, jobs[1].id] == [event.job_id for event in told[:2]]
    assert [flow.id] * 3 == [event.flow for event in told[2:]]
    assert flow.id in {event.job_id for event in told[2:]}


def test_enqueues_in_a_transaction_of_the_callers_are_not_told(tmp_path: Path) -> None:
    """Whether those jobs come to be is decided later."""
    import sqlite3

    registry = Registry()

    @task(registry=registry)
    async def work() -> None: ...

    with Harbor(f"sqlite:///{tmp_path / 'jobs.db'}", registry=registry) as harbor, harbor.events() as events:
        work.enqueue()
        connection = sqlite3.connect(tmp_path / "jobs.db")
        with connection, harbor.using(connection):
            connection.execute("BEGIN")
            work.enqueue()
        connection.close()

        assert ["JobEnqueued"] == names(taken(events))


# --- who listens


def test_several_listeners_hear_what_each_asked_for() -> None:
    registry = Registry()

    @task(registry=registry, name="a", queue="one")
    async def a() -> None: ...

    @task(registry=registry, name="b", queue="two")
    async def b() -> None:
        raise Reject("no")

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        everything, dead = harbor.events(), harbor.events(kinds=(JobDead,))
        of_a, of_two = harbor.events(tasks=["a"]), harbor.events(queues=["two"], kinds=[JobStarted, JobDead])
        a.enqueue()
        b.enqueue()
        harbor.run_until_idle()

        assert 6 == len(taken(everything))
        assert "b" == untyped(dead.get(NOW)).task
        assert ["JobEnqueued", "JobStarted", "JobSucceeded"] == names(taken(of_a))
        assert ["JobStarted", "JobDead"] == names(taken(of_two))


@pytest.mark.parametrize(("policy", "kept"), [("drop_oldest", [3, 4]), ("drop_newest", [0, 1])])
def test_a_slow_listener_loses_the_oldest_or_the_newest_and_is_told_how_many(
    policy: str, kept: list[int]
) -> None:
    registry = Registry()

    @task(registry=registry)
    async def work(number: int) -> int:
        return number

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        slow = harbor.events(kinds=JobEnqueued, size=2, when_full=untyped(policy))
        jobs = [work.enqueue(number).id for number in range(5)]

        assert 3 == slow.dropped
        assert [jobs[number] for number in kept] == [
            event.job_id for event in (slow.get(), slow.get()) if event
        ]


def test_a_worker_waits_for_a_listener_that_asked_for_it() -> None:
    """Nothing is dropped, and not much runs ahead of it."""
    registry, ran = Registry(), list[int]()

    @task(registry=registry)
    async def work(number: int) -> None:
        ran.append(number)

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        harbor.enqueue_many([work.s(number) for number in range(200)])
        events = harbor.events(kinds=JobSucceeded, size=5, when_full="wait")
        with harbor.worker_thread(concurrency=4, lease=LEASE) as beside:
            eventually(lambda: len(ran) >= 5)
            eventually(lambda: beside.worker.counts.settled.get("succeeded", 0) >= 5)
            ahead = len(ran)
            heard = [untyped(events.get(ENOUGH)).job_id for _ in range(200)]

    assert ahead < 100
    assert 200 == len(set(heard))
    assert 0 == events.dropped


def test_a_worker_that_stops_waits_for_nobody() -> None:
    registry, ran = Registry(), list[int]()

    @task(registry=registry)
    def work(number: int) -> None:
        ran.append(number)

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        stuck = harbor.events(size=1, when_full="wait", kinds=JobStarted)
        with harbor.worker_thread(concurrency=4):
            harbor.enqueue_many([work.s(number) for number in range(50)])
            eventually(lambda: len(ran) > 0)

        left = harbor.jobs.find(states=[JobState.RUNNING])
        stuck.close()

    assert [] == left


def test_leases_are_kept_while_a_listener_is_waited_for() -> None:
    registry, driver, ran = Registry(), TroubledDriver(), list[int]()

    @task(registry=registry)
    async def work(number: int) -> int:
        ran.append(number)
        return number

    with Harbor(driver, registry=registry) as harbor:
        jobs = harbor.enqueue_many([work.s(number) for number in range(20)])
        stuck = harbor.events(size=1, when_full="wait", kinds=JobSucceeded)
        with harbor.worker_thread(concurrency=4, lease=LEASE) as beside:
            eventually(lambda: stuck.get(NOW) is not None)
            beats = driver.count("lease_extend")
            eventually(lambda: driver.count("lease_extend") >= beats + 8)  # more than two leases
            stuck.close()
            results = [job.result(ENOUGH) for job in jobs]

        assert list(range(20)) == results
        assert 0 == beside.worker.counts.stale
        assert list(range(20)) == sorted(ran)


def test_work_goes_on_once_such_a_listener_has_closed() -> None:
    registry = Registry()

    @task(registry=registry)
    async def work(number: int) -> int:
        return number

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        jobs = harbor.enqueue_many([work.s(number) for number in range(50)])
        stuck = harbor.events(size=1, when_full="wait", kinds=JobSucceeded)
        with harbor.worker_thread(concurrency=2) as beside:
            eventually(lambda: beside.worker.counts.settled.get("succeeded", 0) > 0)
            stuck.close()
            results = [job.result(ENOUGH) for job in jobs]

    assert list(range(50)) == results


def test_producers_wait_for_a_listener_that_asked_for_it() -> None:
    """After what they have stored; and they go on as it reads."""
    registry, sent = Registry(), list[str]()

    @task(registry=registry)
    async def work(number: int) -> None: ...

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        harbor.install()
        events = harbor.events(kinds=JobEnqueued, size=1, when_full="wait")

        def send() -> None:
            sent.extend(work.enqueue(number).id for number in range(3))

        sender = threading.Thread(target=send)
        sender.start()
        eventually(lambda: sum(counted.count for counted in harbor.jobs.count()) == 2)
        before = list(sent)
        heard = [untyped(events.get(ENOUGH)).job_id for _ in range(3)]
        sender.join()

    assert sent[:1] == before
    assert sent == heard


def test_an_async_producer_waits_too() -> None:
    registry = Registry()

    @task(registry=registry)
    async def work(number: int) -> None: ...

    async def main() -> tuple[bool, list[str], list[str]]:
        async with (
            Harbor(MemoryDriver(), registry=registry) as harbor,
            harbor.events(kinds=JobEnqueued, size=1, when_full="wait") as events,
        ):
            first = await within(work.aenqueue(1))
            sending = asyncio.ensure_future(work.aenqueue(2))

            async def stored() -> bool:
                return sum(counted.count for counted in await harbor.jobs.acount()) == 2

            await until(stored)
            waited = not sending.done()
            heard = [untyped(await events.aget(ENOUGH)).job_id for _ in range(2)]
            second = await within(sending)
            return waited, heard, [first.id, second.id]

    waited, heard, sent = asyncio.run(main())

    assert waited
    assert heard == sent


# --- the end of listening


def test_closing_wakes_readers_that_wait_in_threads_and_on_loops() -> None:
    with Harbor(MemoryDriver(), registry=Registry()) as harbor:
        events = harbor.events()
        heard = list[JobEvent]()
        reader = threading.Thread(target=lambda: heard.extend(events))
        reader.start()

        async def main() -> list[JobEvent]:
            async def read() -> list[JobEvent]:
                return [event async for event in events]

            reading = asyncio.ensure_future(read())
            await asyncio.sleep(0)
            events.close()
            return await within(reading)

        assert [] == asyncio.run(main())
        reader.join(20)
        assert not reader.is_alive()
        assert events.closed
        assert events.get() is None


def test_what_came_before_the_end_is_still_taken() -> None:
    registry = Registry()

    @task(registry=registry)
    async def work() -> None: ...

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        events = harbor.events()
        work.enqueue()
    # Its harbor's end is its own.

    assert ["JobEnqueued"] == names(events)


def test_a_listener_that_was_forgotten_listens_no_more() -> None:
    registry = Registry()

    @task(registry=registry)
    async def work() -> None: ...

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        events = harbor.events(size=1, when_full="wait")
        del events
        gc.collect()

        work.enqueue()
        for _ in range(3):  # or it would wait for ever
            work.enqueue()


def test_a_reader_that_waits_with_a_limit_is_told_that_nothing_came() -> None:
    with Harbor(MemoryDriver(), registry=Registry()) as harbor, harbor.events() as events:
        assert events.get(MS) is None
        assert asyncio.run(events.aget(MS)) is None


def test_a_blocking_reader_is_refused_on_an_event_loop() -> None:
    async def main() -> None:
        with Harbor(MemoryDriver(), registry=Registry()) as harbor, harbor.events() as events:
            next(events)

    with pytest.raises(BlockingCallError, match=r"await subscription\.aget"):
        asyncio.run(main())


def test_a_forked_child_does_not_tell_its_parents_listeners() -> None:
    registry = Registry()

    @task(registry=registry)
    async def work() -> None: ...

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        events = harbor.events(size=1, when_full="wait")
        work.enqueue()  # one more, and it would wait
        child = fork()
        if child == 0:
            try:
                work.enqueue()
                own = harbor.events(size=5)
                work.enqueue()
                told = own.get(NOW), own.get(NOW)
                good = events.closed and events.get() is None and told[0] is not None and told[1] is None
                os._exit(0 if good else 1)
            except BaseException:  # noqa: BLE001
                os._exit(2)
        _, status = os.waitpid(child, 0)

        assert 0 == os.waitstatus_to_exitcode(status)
        assert ["JobEnqueued"] == names(taken(events))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"kinds": int}, "int is no event"),
        ({"kinds": "JobDead"}, "expected classes of events"),
        ({"kinds": ["JobDead"]}, "is no event"),
        ({"size": 0}, "size=0"),
        ({"size": True}, "size=True"),
        ({"when_full": "drop_oldst"}, "did you mean 'drop_oldest'"),
        ({"tasks": "mail"}, "tasks='mail': expected a list of names"),
        ({"queues": [1]}, "queues: expected names"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, object], told: str) -> None:
    with Harbor(MemoryDriver(), registry=Registry()) as harbor, pytest.raises(OptionError, match=told):
        untyped(harbor.events)(**options)


# --- results


def test_results_are_told_typed_and_are_nobody_elses() -> None:
    registry, kept = Registry(), list[Thumb]()

    @task(registry=registry, aliases=["old.resize"])
    def resize(width: int) -> Thumb:
        kept.append(Thumb(width, ["made"]))
        return kept[-1]

    @task(registry=registry)
    def other() -> int:
        return 1

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        thumbs, again = harbor.results(resize), harbor.results(resize, queues=["nowhere"])
        job = resize.enqueue(640)
        other.enqueue()
        harbor.run_until_idle()
        done = thumbs.get(NOW)

        assert done is not None
        assert (job.id, Thumb(640, ["made"])) == (done.job_id, done.result)
        assert done.result is not kept[0]
        assert thumbs.get(NOW) is None
        assert again.get(NOW) is None


def test_results_of_failures_are_not_told_and_what_is_not_kept_is_refused() -> None:
    registry = Registry()

    @task(registry=registry)
    def fail() -> int:
        raise Reject("no")

    @task(registry=registry, keep_result=False)
    def forget() -> int:
        return 1

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        results = harbor.results(fail)
        fail.enqueue()
        harbor.run_until_idle()

        assert results.get(NOW) is None
        with pytest.raises(ResultNotKept, match="keep_result=False"):
            harbor.results(forget)
        with pytest.raises(OptionError, match="expected a task"):
            untyped(harbor.results)(fail.fn)


def test_nothing_is_made_while_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry()
    made = list[object]()

    def publish(_hub: Hub, news: Sequence[object]) -> None:
        made.extend(news)

    monkeypatch.setattr(Hub, "publish", publish)

    @task(registry=registry)
    async def work(ctx: Context) -> None:
        ctx.progress(1)

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        harbor.events().close()
        work.enqueue()
        harbor.run_until_idle()

    assert [] == made


def test_a_settle_whose_answer_was_lost_is_told_once() -> None:
    registry, driver = Registry(), TroubledDriver()
    driver.after = fails(1, "job_settle")

    @task(registry=registry)
    async def work() -> int:
        return 1

    with Harbor(driver, registry=registry) as harbor, harbor.events(kinds=JobSucceeded) as events:
        work.enqueue()
        harbor.run_until_idle()

        assert 1 == len(list(iter(lambda: events.get(NOW), None)))
