"""Workers stopped with SIGSTOP while they hold a job, and continued: too late, or in time."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from taskharbor import JobHandle, JobRecord, JobState, Signature
from tests.support.chaos import Chaos, Program, chaos_in
from tests.support.chaos_app import append, gated, gated_in_thread
from tests.support.chaos_stores import POSTGRES, SQLITE, SqliteChaos
from tests.support.led import state
from tests.support.sqlite import lock_held
from tests.support.work import ENOUGH, eventually

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="needs POSIX signals, and /proc to see who stopped"
)

LEASE = 1
LONG_LEASE = 6
ON_SQLITE = [
    pytest.param(SQLITE, gated.s, id="sqlite-async"),
    pytest.param(SQLITE, gated_in_thread.s, id="sqlite-thread"),
]
ON_BOTH = [
    *ON_SQLITE,
    pytest.param(POSTGRES, gated.s, id="postgresql-async"),
    pytest.param(POSTGRES, gated_in_thread.s, id="postgresql-thread", marks=pytest.mark.slow),
]
SLOW_ON_POSTGRES = [
    *ON_SQLITE,
    pytest.param(POSTGRES, gated.s, id="postgresql-async", marks=pytest.mark.slow),
    pytest.param(POSTGRES, gated_in_thread.s, id="postgresql-thread", marks=pytest.mark.slow),
]

Make = Callable[[], Signature[int]]


@pytest.fixture
def chaos(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Chaos]:
    with chaos_in(tmp_path, request.param) as made:
        yield made


@contextmanager
def gate_in(folder: Path, fence: int) -> Generator[int]:
    """Make the gate at which a delivery of the job waits, for a byte."""
    path = folder / f"gate-{fence}"
    os.mkfifo(path)
    pipe = os.open(path, os.O_RDWR)
    yield pipe
    os.close(pipe)


@pytest.fixture
def gate(tmp_path: Path) -> Generator[int]:
    """Where the job's first delivery waits."""
    with gate_in(tmp_path, 1) as pipe:
        yield pipe


def open_gate(gate: int) -> None:
    os.write(gate, b".")


def start(chaos: Chaos, *, lease: int = LEASE, slots: int = 50) -> Program:
    """Start a worker and wait until it works."""
    worker = chaos.start_role("worker", lease, slots)
    assert "ready" == worker.hear()[0]
    return worker


def take_up(chaos: Chaos, make: Make, *, lease: int = LEASE) -> tuple[JobHandle[int], Program]:
    """Have a worker run the job, and return both; the job waits at its gate."""
    (handle,) = chaos.harbor.enqueue_many([make()])
    worker = start(chaos, lease=lease)
    assert worker.pid == chaos.trail.await_lines(1)[0].pid
    return handle, worker


def stop(worker: Program) -> None:
    worker.send(signal.SIGSTOP)
    eventually(lambda: state(worker.pid) == "T", "the stop")


def stop_outside_transactions(chaos: Chaos, worker: Program) -> None:
    """Stop a worker where it does not hold others up, as within a transaction. It is the only one that writes."""
    stop(worker)
    while not chaos.store.nobody_writes():
        worker.send(signal.SIGCONT)
        stop(worker)


def go_on(worker: Program) -> None:
    worker.send(signal.SIGCONT)


def look(chaos: Chaos, handle: JobHandle[int]) -> JobRecord:
    return chaos.harbor.look(handle.id)


def check_late_settle(chaos: Chaos, handle: JobHandle[int], late: Program, before: JobRecord) -> None:
    """Check that a worker whose job another has done changes nothing, and goes on with new jobs."""
    (new,) = chaos.harbor.enqueue_many([append.s()])
    new.result(timeout=ENOUGH)
    assert late.pid == chaos.trail.lines()[-1].pid
    late.send(signal.SIGTERM)
    counts = late.counts()

    assert (1, {"succeeded": 1}) == (counts["stale"], counts["settled"])
    assert before == look(chaos, handle)
    assert 0 == chaos.count("lease")
    chaos.check_store()


@pytest.mark.parametrize(("chaos", "make"), ON_BOTH, indirect=["chaos"])
def test_a_worker_that_is_continued_too_late_changes_nothing(chaos: Chaos, gate: int, make: Make) -> None:
    """Its job has been done by another; its own answer is stale."""
    handle, late = take_up(chaos, make)
    stop_outside_transactions(chaos, late)
    other = start(chaos)
    assert other.pid == handle.result(timeout=ENOUGH)
    before = look(chaos, handle)
    assert (JobState.SUCCEEDED, 2) == (before.state, before.deliveries)
    other.send(signal.SIGTERM)
    assert {"succeeded": 1} == other.counts()["settled"]

    open_gate(gate)
    go_on(late)

    check_late_settle(chaos, handle, late, before)


@pytest.mark.parametrize(("chaos", "make"), ON_SQLITE, indirect=["chaos"])
def test_a_settle_already_on_its_way_comes_too_late(chaos: Chaos, gate: int, make: Make) -> None:
    """The handler has returned and only the file's lock is missing when its worker is stopped."""
    handle, late = take_up(chaos, make)
    assert isinstance(chaos.store, SqliteChaos)
    with lock_held(chaos.store.path) as holder:
        open_gate(gate)
        chaos.trail.await_lines(1, "end")
        stop(late)
        holder.tell()
        holder.end()
    other = start(chaos)
    assert other.pid == handle.result(timeout=ENOUGH)
    before = look(chaos, handle)
    other.send(signal.SIGTERM)
    assert {"succeeded": 1} == other.counts()["settled"]

    go_on(late)

    check_late_settle(chaos, handle, late, before)


@pytest.mark.parametrize(("chaos", "make"), ON_BOTH, indirect=["chaos"])
def test_a_late_settle_does_not_end_what_another_runs(chaos: Chaos, gate: int, make: Make) -> None:
    """The job is leased again, under another token."""
    handle, late = take_up(chaos, make)
    stop_outside_transactions(chaos, late)
    with gate_in(chaos.folder, 2) as second_gate:
        other = start(chaos)
        assert other.pid == chaos.trail.await_lines(2)[1].pid
        before = look(chaos, handle)

        open_gate(gate)
        go_on(late)
        late.send(signal.SIGTERM)
        counts = late.counts()

        assert (1, {}) == (counts["stale"], counts["settled"])
        after = look(chaos, handle)
        assert JobState.RUNNING is before.state
        # Its worker's heartbeats go on meanwhile.
        kept = {"lease_expires_at": before.lease_expires_at, "started": before.started}
        assert before == msgspec.structs.replace(after, **kept)
        open_gate(second_gate)
    assert other.pid == handle.result(timeout=ENOUGH)
    other.send(signal.SIGTERM)
    counts = other.counts()
    assert (0, {"succeeded": 1}) == (counts["stale"], counts["settled"])


@pytest.mark.parametrize("chaos", [SQLITE, pytest.param(POSTGRES, marks=pytest.mark.slow)], indirect=True)
def test_what_a_stopped_worker_held_unstarted_is_done_by_others(chaos: Chaos, gate: int) -> None:
    """None of it changes when that worker goes on."""
    first, *others = chaos.harbor.enqueue_many([gated.s(), *(append.s() for _ in range(20))])
    late = start(chaos, slots=1)
    chaos.trail.await_lines(1)
    stop_outside_transactions(chaos, late)
    other = start(chaos)
    chaos.await_all_ended()
    other.send(signal.SIGTERM)
    assert {"succeeded": 21} == other.counts()["settled"]
    before = chaos.records()
    assert {JobState.SUCCEEDED} == {job.state for job in before.values()}

    open_gate(gate)
    go_on(late)
    late.send(signal.SIGTERM)
    counts = late.counts()

    assert counts["stale"] >= 1
    assert {} == counts["settled"]
    assert before == chaos.records()
    assert {first.id, *(job.id for job in others)} == set(before)
    assert 0 == chaos.count("lease")


@pytest.mark.parametrize(("chaos", "make"), SLOW_ON_POSTGRES, indirect=["chaos"])
def test_a_worker_that_is_continued_in_time_keeps_its_job(chaos: Chaos, gate: int, make: Make) -> None:
    """A heartbeat was missed, and another worker is there; yet the job is delivered once."""
    handle, worker = take_up(chaos, make, lease=LONG_LEASE)
    other = start(chaos)
    stop_outside_transactions(chaos, worker)
    # A worker that beats never has less than two thirds left.
    eventually(lambda: chaos.store.lease_left() < LONG_LEASE * 0.6, "a missed heartbeat")

    go_on(worker)
    eventually(lambda: chaos.store.lease_left() > LONG_LEASE * 0.6, "a heartbeat")
    open_gate(gate)

    assert worker.pid == handle.result(timeout=ENOUGH)
    job = look(chaos, handle)
    assert (1, 1, ()) == (job.attempt, job.deliveries, job.errors)
    for program, settled in ((worker, {"succeeded": 1}), (other, {})):
        program.send(signal.SIGTERM)
        counts = program.counts()
        assert (0, settled) == (counts["stale"], counts["settled"])


@pytest.mark.parametrize(("chaos", "make"), SLOW_ON_POSTGRES, indirect=["chaos"])
def test_a_lease_that_expired_is_kept_if_nobody_took_it(chaos: Chaos, gate: int, make: Make) -> None:
    """Least of all does its own worker, once it goes on: expiry alone frees nothing."""
    handle, worker = take_up(chaos, make)
    stop_outside_transactions(chaos, worker)
    eventually(lambda: chaos.store.lease_left() < -LEASE, "the expiry")

    go_on(worker)
    eventually(lambda: chaos.store.lease_left() > 0, "a heartbeat")
    open_gate(gate)

    assert worker.pid == handle.result(timeout=ENOUGH)
    job = look(chaos, handle)
    assert (1, 1, ()) == (job.attempt, job.deliveries, job.errors)
    worker.send(signal.SIGTERM)
    assert 0 == worker.counts()["stale"]
