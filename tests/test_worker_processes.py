"""`run="process"`: what happens in a child stays in its job, and children go with the worker."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from taskharbor import (
    Context,
    Harbor,
    JobCancelled,
    JobState,
    JsonCodec,
    PayloadError,
    Registry,
    Reject,
    Retry,
    RetryLater,
    Snooze,
    TaskDefinitionError,
    task,
)
from taskharbor.drivers.memory import MemoryDriver
from tests.support.work import ENOUGH, HOUR, LEASE, MS, SECOND, eventually

registry = Registry()
ONCE = Retry(max_attempts=1)


class Broken(Exception):
    """Raised in a child, known in the parent."""


class VeryBroken(Broken):
    """One further down its MRO."""


@task(registry=registry, run="process")
def add(a: int, b: int = 1) -> int:
    return a + b


@task(registry=registry, run="process")
def who(ctx: Context) -> tuple[int, str, int]:
    ctx.raise_if_cancelled()
    return os.getpid(), ctx.job_id, ctx.attempt


@task(
    registry=registry,
    run="process",
    retry=Retry(max_attempts=3, base=0 * MS, on={Broken: Retry(max_attempts=2, base=0 * MS)}),
)
def fail(how: str) -> int:
    match how:
        case "broken":
            raise VeryBroken("broken over there")
        case "value":
            raise ValueError("bad value")
        case "later":
            raise RetryLater(after=HOUR)
        case "snooze":
            raise Snooze(for_=HOUR)
        case "reject":
            raise Reject("not wanted")
        case "type":
            return "no number"  # type: ignore[return-value] # pyright: ignore[reportReturnType]
        case "exit":
            sys.exit(3)
        case _:
            raise AssertionError(how)


@task(registry=registry, run="process", retry=ONCE)
def end(how: str) -> None:
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(7)


@task(registry=registry, run="process", retry=ONCE, timeout=500 * MS)
def overrun() -> None:
    threading.Event().wait(60)


@task(registry=registry, run="process", retry=ONCE)
def linger(mark: str) -> None:
    Path(mark).write_text(str(os.getpid()), encoding="utf-8")
    while True:
        try:
            threading.Event().wait(60)
        except BaseException:  # noqa: BLE001, S112 - nothing but a kill ends it
            continue


@task(registry=registry, run="process", retry=ONCE)
def hold(mark: str, until: str) -> None:
    Path(mark).touch()
    eventually(Path(until).exists)  # another process's word


@task(registry=registry, run="process", retry=ONCE, timeout=SECOND)
def waits() -> None:
    """End at once, once it has the child."""


@task(registry=registry, retry=ONCE, timeout=SECOND)
async def overrun_here() -> None:
    await asyncio.Event().wait()


@task(registry=registry, run="process", retry=ONCE, timeout=15 * MS)
def hurry(seconds: float) -> None:
    threading.Event().wait(seconds)


def children() -> list[int]:
    """Return the children that handlers run in; the suite's own server, for one, is a child too."""
    return [child.pid for child in psutil.Process().children() if "--multiprocessing-fork" in _cmdline(child)]


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:  # it has just ended
        return []


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_child_runs_the_handler_and_its_end_is_read_as_any_other() -> None:
    """Results, contexts, verdicts, policies by class and `sys.exit`, all over the pipe."""
    with Harbor(MemoryDriver(), registry=registry) as harbor:
        three, me = add.enqueue(1, b=2), who.enqueue()
        kinds = ("broken", "value", "later", "snooze", "reject", "type", "exit")
        jobs = {how: fail.enqueue(how) for how in kinds}
        harbor.run_until_idle()

        assert three.result() == 3
        pid, job_id, attempt = me.result()
        found = {how: (job.status().state, job.status().attempt) for how, job in jobs.items()}
        broken = jobs["broken"].status().errors[-1]
        exited = jobs["exit"].status().errors[-1]

    assert pid != os.getpid()
    assert (job_id, attempt) == (me.id, 1)
    assert found == {
        "broken": (JobState.DEAD, 2),
        "value": (JobState.DEAD, 3),
        "later": (JobState.RETRYING, 1),
        "snooze": (JobState.SCHEDULED, 0),
        "reject": (JobState.DEAD, 1),
        "type": (JobState.DEAD, 3),
        "exit": (JobState.DEAD, 3),
    }
    assert broken.type.endswith("VeryBroken")
    assert broken.message == "broken over there"
    assert "in fail" in broken.traceback
    assert exited.type == "SystemExit"


@pytest.mark.parametrize(("how", "told"), [("killed", "signal 9"), ("exited", "exit code 7")])
def test_a_child_that_is_lost_fails_its_attempt_only(how: str, told: str) -> None:
    """The worker lives, and starts another child."""
    with Harbor(MemoryDriver(), registry=registry) as harbor, harbor.worker_thread(handler_processes=1):
        status = end.enqueue(how).wait(ENOUGH)
        assert add.enqueue(1).result(ENOUGH) == 2

    assert status.state is JobState.DEAD
    assert status.errors[0].type.endswith("ChildLost")
    assert told in status.errors[0].message


@task(registry=registry, run="process")
def be_signalled() -> str:
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(os.getpid(), number)
    told = [sys.executable, "-c", "import signal; print(signal.getsignal(signal.SIGTERM).name)"]
    return subprocess.run(told, capture_output=True, text=True, check=True).stdout.strip()


def test_a_stop_of_the_whole_group_leaves_children_to_the_worker_and_their_own_programs_as_they_were() -> (
    None
):
    with Harbor(MemoryDriver(), registry=registry) as harbor, harbor.worker_thread(handler_processes=1):
        told = be_signalled.enqueue().result(timeout=ENOUGH)

    assert "SIG_DFL" == told


class _Money:
    """Known to one codec alone."""


def _pay(amount: _Money) -> None: ...


class _Own(JsonCodec):
    name = "own"

    def supports(self, kind: type[object]) -> bool:
        return kind is _Money


def test_what_cannot_be_handed_to_a_child_is_refused_where_it_is_declared_or_enqueued() -> None:
    with pytest.raises(TaskDefinitionError, match=r'nothing that msgpack can carry.* \(run="process"'):
        task(registry=Registry(), name="pay", run="process", codec=_Own())(_pay)
    with (
        Harbor("memory://", registry=registry),
        pytest.raises(PayloadError, match=r"arguments of task .*add' do not fit"),
    ):
        add.enqueue(2**70)


def test_a_timeout_kills_the_child() -> None:
    """The attempt fails as one that timed out, and the next job gets a new child."""
    with Harbor(MemoryDriver(), registry=registry) as harbor, harbor.worker_thread(handler_processes=1):
        add.enqueue(0).wait(ENOUGH)
        (before,) = children()
        status = overrun.enqueue().wait(ENOUGH)

        assert status.errors[0].type == "taskharbor.errors.JobTimeout"
        eventually(lambda: gone(before))
        assert add.enqueue(1).result(ENOUGH) == 2


def test_a_cancel_kills_a_child_that_listens_to_nothing(tmp_path: Path) -> None:
    """Even one that catches everything ends."""
    mark = tmp_path / "pid"

    with Harbor(MemoryDriver(), registry=registry) as harbor, harbor.worker_thread(lease=LEASE):
        job = linger.enqueue(str(mark))
        eventually(lambda: mark.exists() and bool(mark.read_text()))
        job.cancel()

        with pytest.raises(JobCancelled):
            job.result(ENOUGH)
        eventually(lambda: gone(int(mark.read_text())))


def test_waiting_for_a_free_child_is_not_running(tmp_path: Path) -> None:
    """The timeout counts from when the handler begins: here, when one of that length has long been over."""
    started, go_on = tmp_path / "started", tmp_path / "go on"

    with Harbor(MemoryDriver(), registry=registry) as harbor, harbor.worker_thread(handler_processes=1):
        held = hold.enqueue(str(started), str(go_on))
        eventually(started.exists)
        waiting = waits.enqueue()
        eventually(lambda: waiting.status().state is JobState.RUNNING)
        assert overrun_here.enqueue().wait(ENOUGH).state is JobState.DEAD
        go_on.touch()

        assert [job.wait(ENOUGH).state for job in (held, waiting)] == [JobState.SUCCEEDED] * 2


def test_a_job_that_waited_for_a_child_at_shutdown_has_not_started(tmp_path: Path) -> None:
    """It is handed back, even with one attempt only; the one in the child ends dead, interrupted."""
    mark = tmp_path / "pid"

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        with harbor.worker_thread(handler_processes=1, lease=LEASE, grace=0 * MS):
            first = linger.enqueue(str(mark))
            eventually(lambda: mark.exists() and bool(mark.read_text()))
            second = linger.enqueue(str(tmp_path / "never"))
            eventually(lambda: second.status().state is JobState.RUNNING)

        assert (first.status().state, first.status().reason) == (JobState.DEAD, "interrupted")
        assert second.status().state is JobState.READY
        assert not (tmp_path / "never").exists()


def test_timeouts_that_hit_a_child_at_any_moment_lose_neither_child_nor_slot() -> None:
    """Killed while it starts, while it is told, while it answers: the next job runs, and none is left behind."""
    with (
        Harbor(MemoryDriver(), registry=registry) as harbor,
        harbor.worker_thread(handler_processes=2, concurrency=4),
    ):
        jobs = [hurry.enqueue(number % 5 * 0.004) for number in range(12)]
        ended = {job.wait(ENOUGH).state for job in jobs}
        assert add.enqueue(1).result(ENOUGH) == 2
        assert add.enqueue(2).result(ENOUGH) == 3

    assert ended <= {JobState.SUCCEEDED, JobState.DEAD}
    eventually(lambda: children() == [], "the end of all children")


def test_no_child_outlives_its_worker(tmp_path: Path) -> None:
    """Idle or at a job that is stopped for the shutdown."""
    mark, before = tmp_path / "pid", threading.active_count()

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        with harbor.worker_thread(handler_processes=2, grace=0 * MS):
            add.enqueue(1).wait(ENOUGH)
            linger.enqueue(str(mark))
            eventually(lambda: mark.exists() and bool(mark.read_text()))

        assert threading.active_count() < before + 50
    eventually(lambda: children() == [], "the end of all children")
