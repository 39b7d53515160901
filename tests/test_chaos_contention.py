"""Many writers on one file: heartbeats get through, and whoever has the right of way cannot keep it for ever."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Self

import pytest

from tests.support.chaos import Chaos, chaos_in
from tests.support.led import state
from tests.support.sqlite import OtherProgram, producing, put
from tests.support.work import eventually

if sys.platform == "win32":
    pytest.skip("needs POSIX signals", allow_module_level=True)

from taskharbor.drivers.sqlite import courtesy
from taskharbor.drivers.sqlite.courtesy import Courtesy

LEASE = 1
PROCESSES = 4
TOO_SLOW = LEASE / 10
"""Seconds for a page to reach the disk, at worst, beyond which leases so short prove nothing about the lock."""
LOOK_SECONDS = 0.02
PATIENCE = 0.5
"""Seconds that one is let through; for ten others then pay no heed to it."""


@pytest.fixture
def chaos(tmp_path: Path) -> Generator[Chaos]:
    with chaos_in(tmp_path) as made:
        yield made


class Machine:
    """How long it takes for a thread to get going and a page to reach the disk, at worst, while the block lasts."""

    def __init__(self, folder: Path) -> None:
        self.slowest = 0.0
        self._path = folder / "page"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        with self._path.open("wb") as file:
            started = time.monotonic()
            while not self._ended.wait(LOOK_SECONDS):
                file.seek(0)
                file.write(bytes(4096))
                file.flush()
                os.fsync(file.fileno())
                now = time.monotonic()
                self.slowest = max(self.slowest, now - started - LOOK_SECONDS)
                started = now


@pytest.mark.parametrize(
    ("seconds", "batch"),
    [
        pytest.param(4, 20, id="small batches"),
        pytest.param(15, 1000, id="large batches", marks=[pytest.mark.slow, pytest.mark.timeout(300)]),
    ],
)
def test_no_lease_is_lost_for_want_of_the_lock(chaos: Chaos, seconds: int, batch: int) -> None:
    """Though each of four processes enqueues, reserves and settles as fast as it can."""
    with Machine(chaos.folder) as machine:
        programs = [chaos.start_role("both", LEASE, seconds, batch) for _ in range(PROCESSES)]
        counts = [program.counts() for program in programs]

    chaos.check_store()
    jobs = chaos.records().values()
    lost = {job.id for job in jobs if job.crashes or job.errors or job.guarded}
    if machine.slowest > TOO_SLOW and (lost or any(count["stale"] for count in counts)):
        pytest.skip(f"the machine is too busy: it took {machine.slowest:.2f} s to wake up and write a page")
    assert set() == lost
    assert [0] * PROCESSES == [count["stale"] for count in counts]
    assert all(count["sent"] > batch and count["settled"].get("succeeded", 0) > 0 for count in counts)
    assert sum(count["sent"] for count in counts) == len(jobs)
    assert sum(count["settled"].get("succeeded", 0) for count in counts) == sum(
        job.state.value == "succeeded" for job in jobs
    )
    assert 0 == chaos.count("lease")


# --- the right of way

CLAIMS = """
from taskharbor.drivers.sqlite.courtesy import Courtesy
mine = Courtesy(path)
mine.claim()
say()
wait()
mine.waive()
say()
wait()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
def mine(path: Path) -> Generator[Courtesy]:
    made = Courtesy(str(path))
    yield made
    made.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the time is for `mine`."""
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(courtesy, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


@pytest.fixture
def claimant(path: Path) -> Generator[OtherProgram]:
    """Another process, which has the right of way."""
    with OtherProgram(path, CLAIMS) as other:
        other.hear()
        yield other


def stop(other: OtherProgram) -> None:
    other.process.send_signal(signal.SIGSTOP)
    eventually(lambda: state(other.process.pid) == "T", "the stop")


def test_others_wait_until_it_is_waived(mine: Courtesy, claimant: OtherProgram) -> None:
    """And no longer."""
    assert mine.somebody_first()

    claimant.tell()
    claimant.hear()

    assert not mine.somebody_first()


def test_several_have_it_at_once(path: Path, mine: Courtesy, claimant: OtherProgram) -> None:
    """Heartbeats do not wait for one another's sign, and it stays up until the last has waived."""
    mine.claim()
    claimant.tell()
    claimant.hear()
    third = Courtesy(str(path))

    assert third.somebody_first()
    mine.waive()
    assert not third.somebody_first()
    third.close()


def test_looking_for_it_does_not_take_it(path: Path, mine: Courtesy) -> None:
    """Two who look at once do not hold each other up."""
    other = Courtesy(str(path))

    assert [False] * 4 == [who.somebody_first() for who in (mine, other, mine, other)]
    other.close()


def test_it_goes_with_a_killed_process(mine: Courtesy, claimant: OtherProgram) -> None:
    """The kernel drops the sign."""
    assert mine.somebody_first()

    claimant.process.kill()
    claimant.process.wait()

    assert not mine.somebody_first()


def test_one_that_does_not_get_on_is_let_through_for_a_moment_only(
    mine: Courtesy, claimant: OtherProgram, clock: SimpleNamespace
) -> None:
    """Then not heeded for a while; then for another moment."""
    stop(claimant)

    heeded = list[tuple[float, bool]]()
    for seconds in (0.0, 0.4, 0.6, 1.0, 9.0, 10.7, 11.1, 11.3, 20.0):
        clock.seconds = 1000.0 + seconds
        heeded.append((seconds, mine.somebody_first()))

    assert [0.0, 0.4, 10.7, 11.1] == [seconds for seconds, heeds in heeded if heeds]


def test_a_process_stopped_with_it_delays_others_once(path: Path) -> None:
    """About half a second; those that come after do not wait for it at all."""
    with producing(path) as store, OtherProgram(path, CLAIMS) as other:
        put(store)
        other.hear()
        stop(other)

        started = time.monotonic()
        put(store)
        first = time.monotonic() - started
        others = list[float]()
        for _ in range(10):
            started = time.monotonic()
            put(store)
            others.append(time.monotonic() - started)

    assert first >= PATIENCE
    assert min(others) < PATIENCE, "each of them waited for the sign"
