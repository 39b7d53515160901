"""Slips that newcomers made, each of which once ended in a raw Python error, or in silence."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from taskharbor import (
    BlockingCallError,
    Harbor,
    JobState,
    OptionError,
    Registry,
    Reject,
    Retry,
    RetryLater,
    Signature,
    Snooze,
    UsageError,
    task,
)
from taskharbor.clock import ManualClock
from taskharbor.drivers.memory import MemoryDriver

registry = Registry()


@task(registry=registry)
def double(x: int) -> int:
    return 2 * x


@task(registry=registry)
def shout(text: str) -> str:
    return text.upper()


@asynccontextmanager
async def lifespan() -> AsyncGenerator[str]:
    yield "deps"


@pytest.fixture
def harbor() -> Harbor:
    return Harbor("memory://", registry=registry)


def wrong(value: object) -> Any:
    """Return a value that no checker would let pass."""
    return value


SLIPS: list[tuple[Callable[[Harbor], object], str]] = [
    (lambda h: h.run_until_idle(within=wrong(5)), "within=5: expected a timedelta"),
    (lambda h: h.run_until_idle(within=timedelta(seconds=-1)), "within="),
    (lambda h: h.enqueue_many(wrong([double(1)])), "task.s("),
    (lambda h: h.enqueue_many(wrong([double])), "task.s("),
    (lambda h: h.enqueue_many(wrong(double.s(1))), "a list of signatures"),
    (lambda h: h.jobs.requeue(wrong([object()])), "handle.id"),
    (lambda h: h.jobs.get(wrong(object())), "handle.id"),
    (lambda h: h.jobs.find(tasks=wrong([double])), "task.name"),
    (lambda h: h.jobs.find(tasks=wrong(double)), "task.name"),
    (lambda h: h.jobs.find(states=wrong("dead")), "states='dead': expected a list"),
    (lambda h: h.queues.pause(wrong(["mail"])), "one by one"),
    (lambda h: h.worker(queues=wrong([1])), "queues=1"),
    (lambda h: h.worker(queues=[""]), "queues=''"),
]


@pytest.mark.parametrize(("slip", "told"), SLIPS)
def test_a_wrong_argument_is_told(harbor: Harbor, slip: Callable[[Harbor], object], told: str) -> None:
    with pytest.raises(OptionError, match=re.escape(told)):
        slip(harbor)


def test_a_registry_and_a_lifespan_are_checked_where_they_are_given() -> None:
    with pytest.raises(OptionError, match="expected a Registry"):
        Harbor("memory://", registry=wrong([double]))
    with pytest.raises(OptionError, match=r"drop the \(\)"):
        Harbor("memory://", deps=wrong(lifespan()))
    with pytest.raises(OptionError, match="expected a function"):
        Harbor("memory://", deps=wrong("deps"))


def test_a_handle_of_another_task_does_not_give_its_result() -> None:
    with Harbor("memory://", registry=registry) as harbor:
        job = shout.enqueue("hello")
        harbor.run_until_idle()

        with pytest.raises(UsageError, match="wrong type"):
            double.handle(job.id).result(timedelta(seconds=5))


def test_a_worker_that_was_not_entered_says_so(harbor: Harbor) -> None:
    async def use(work: str) -> None:
        worker = harbor.worker()
        await (worker.run() if work == "run" else worker.idle())

    for work in ("run", "idle"):
        with pytest.raises(UsageError, match="has not been entered"):
            asyncio.run(use(work))


def test_a_worker_thread_on_a_running_loop_is_refused(harbor: Harbor) -> None:
    async def main() -> None:
        with pytest.raises(BlockingCallError, match=r"async with harbor\.worker"):
            harbor.worker_thread()

    asyncio.run(main())


@pytest.mark.parametrize("verdict", [Snooze, RetryLater])
def test_a_wait_beyond_ten_years_is_refused(verdict: Callable[[timedelta], Exception]) -> None:
    with pytest.raises(OptionError, match="3650 days"):
        verdict(timedelta.max)


def test_one_can_see_when_a_job_runs_next() -> None:
    clock, mine = ManualClock(), Registry()

    @task(registry=mine, retry=Retry(max_attempts=2, base=timedelta(minutes=3), jitter=False))
    def fails() -> None:
        raise ValueError("no")

    with Harbor(MemoryDriver(clock), registry=mine) as harbor:
        job = fails.enqueue()
        began = clock.now()
        assert began == job.status().due_at

        harbor.run_until_idle()

        status = job.status()
        assert (JobState.RETRYING, began + timedelta(minutes=3)) == (status.state, status.due_at)
        assert began == status.run_at
        clock.advance(timedelta(minutes=3))
        harbor.run_until_idle()
        assert (JobState.DEAD, None) == (job.status().state, job.status().due_at)


def test_a_result_that_does_not_come_times_out_on_a_loop_too() -> None:
    async def main() -> None:
        async with Harbor("memory://", registry=registry):
            job = await double.aenqueue(1)
            with pytest.raises(TimeoutError, match="had not ended"):
                await job.aresult(timedelta(milliseconds=20))

    asyncio.run(main())


def test_one_key_with_two_meanings_in_one_batch_stores_nothing() -> None:
    bound = double.options(key="k")
    with Harbor("memory://", registry=registry) as harbor:
        with pytest.raises(Exception, match="other arguments"):
            harbor.enqueue_many([bound.s(1), bound.s(2), double.s(3)])

        assert [] == list(harbor.jobs.find())


def test_a_signature_is_sent_by_many_or_by_itself(harbor: Harbor) -> None:
    with harbor:
        signature: Signature[int] = double.s(4)
        one, (other,) = signature.enqueue(), harbor.enqueue_many([signature])
        harbor.run_until_idle()

        assert [8, 8] == [one.result(timedelta(seconds=5)), other.result(timedelta(seconds=5))]


def test_a_verdict_raised_in_a_task_group_is_taken_for_one() -> None:
    mine = Registry()

    @task(registry=mine)
    async def rejects() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(verdict())

    async def verdict() -> None:
        raise Reject("no use")

    with Harbor("memory://", registry=mine) as harbor:
        job = rejects.enqueue()
        harbor.run_until_idle()

        assert (JobState.DEAD, "no use", 1) == (job.status().state, job.status().reason, job.status().attempt)


def test_a_handler_that_returns_the_wrong_type_is_not_run_again() -> None:
    mine, runs = Registry(), list[int]()

    @task(registry=mine, retry=Retry(max_attempts=5, base=timedelta(0)))
    def lies() -> int:
        runs.append(1)
        seven: int = wrong("seven")
        return seven

    with Harbor("memory://", registry=mine) as harbor:
        job = lies.enqueue()
        harbor.run_until_idle()

        assert [1] == runs
        assert (JobState.DEAD, "it did not return what it declares") == (
            job.status().state,
            job.status().reason,
        )


def test_a_queue_that_no_task_declares_is_told_at_start(caplog: pytest.LogCaptureFixture) -> None:
    with Harbor("memory://", registry=registry) as harbor:
        harbor.run_until_idle(queues=["defualt"])

    assert "'defualt', which no task or schedule here declares (did you mean 'default'?)" in caplog.text


PROGRAM = """
from datetime import timedelta
from taskharbor import Harbor, task

@task(run="process")
def cpu(x: int) -> int:
    return x * x

if __name__ == "__main__":
    with Harbor("memory://") as harbor:
        job = cpu.enqueue(7)
        harbor.run_until_idle()
        print(cpu.name, job.result(timedelta(seconds=5)))
"""


STARTS = [(["-m", "app"], "app.cpu"), (["-m", "app.work"], "app.work.cpu"), (["script.py"], "script.cpu")]


@pytest.mark.parametrize(("arguments", "name"), STARTS)
def test_a_process_task_runs_however_its_program_was_started(
    tmp_path: Path, arguments: list[str], name: str
) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").write_text("")
    for file in ("app/__main__.py", "app/work.py", "script.py"):
        (tmp_path / file).write_text(PROGRAM)

    done = subprocess.run(
        [sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )

    assert f"{name} 49\n" == done.stdout, done.stderr


def test_a_task_of_a_program_read_from_a_pipe_can_be_enqueued(tmp_path: Path) -> None:
    program = PROGRAM.replace('(run="process")', "")

    done = subprocess.run(
        [sys.executable, "-"],
        input=program,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.stdout.endswith(" 49\n"), done.stderr
