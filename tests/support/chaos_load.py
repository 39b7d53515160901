"""A steady load on a PostgreSQL server, which a test then troubles; and the account of all that was asked and run."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from taskharbor import JobState
from taskharbor.drivers.postgres.embedded import Server
from tests.support.chaos import Chaos
from tests.support.chaos_stores import PostgresChaos
from tests.support.postgres_ground import Ground
from tests.support.work import eventually

WORKERS = 2
LEASE = "3s"
"""Longer than any trouble: whoever is alive keeps his jobs."""
SOON = 10.0
"""Seconds until a producer is told that the server does not answer, at most."""
_A_BIT = 50
"""Jobs that show that work goes on."""


class Asked(msgspec.Struct, frozen=True):
    """One call of the producer's, and what became of it."""

    name: str
    jobs: int
    stored: bool
    seconds: float


class Load:
    """Workers and a producer on one schema, and what they have come to so far."""

    def __init__(self, server: Server, folder: Path, *, options: str = "") -> None:
        self.server = server
        self.ground = Ground(server.conninfo)
        self.ground.url += options
        self.chaos = Chaos(folder, PostgresChaos(self.ground))
        self._told = folder / "told"
        self._told.touch()
        self._read = 0
        self._logged = 0
        self.workers = [self.chaos.start_worker("--concurrency", "20", lease=LEASE) for _ in range(WORKERS)]
        self.producer = self.chaos.start_role("steady", self._told)

    # --- going on

    def await_progress(self, jobs: int = _A_BIT) -> None:
        """Wait until each worker and the producer have gone on for a while from now."""
        began, told = self.chaos.trail.size(), self._told.stat().st_size
        pids = {worker.pid for worker in self.workers}

        def goes_on() -> bool:
            lines = [line for line in self.chaos.trail.lines() if line.at >= began]
            assert [None] * (WORKERS + 1) == [
                each.process.poll() for each in (*self.workers, self.producer)
            ], self.chaos.log()
            return len(lines) >= jobs and pids <= {line.pid for line in lines}

        eventually(goes_on, "progress of all workers")
        eventually(lambda: self._told.stat().st_size > told, "the producer's progress")

    def await_some(self) -> None:
        """Wait until some job or other has been started from now."""
        began = self.chaos.trail.size()
        eventually(lambda: self.chaos.trail.size() > began, "a job")

    def await_failures(self, calls: int) -> None:
        """Wait until so many of the producer's calls have failed from now."""
        began = self._told.stat().st_size

        def failed() -> bool:
            with self._told.open("rb") as file:
                file.seek(began)
                return file.read().count(b" failed ") >= calls

        eventually(failed, f"{calls} calls that fail")

    def await_refusal(self) -> None:
        """Wait until nobody gets anything done for a moment: the producer's calls fail, and no job is started."""
        self.await_failures(3)
        while True:
            began = self.chaos.trail.size()
            self.await_failures(5)
            if self.chaos.trail.size() == began:
                return

    def send(self, number: signal.Signals) -> None:
        """Send all programs a signal."""
        for program in (*self.workers, self.producer):
            program.send(number)

    # --- what it came to

    def settle_accounts(self) -> list[Asked]:
        """Have all come to an end for a moment; check every job; return what was asked since the last time."""
        self.pause()
        self.chaos.await_all_ended()
        asked = self._asked()
        self._check(asked)
        assert [None] * WORKERS == [worker.process.poll() for worker in self.workers], self.chaos.log()
        # So that the next account is of what comes now.
        self.ground.do("DELETE FROM history; DELETE FROM key")
        self.chaos.trail.forget()
        self.producer.tell()
        return asked

    def pause(self) -> None:
        """Have the producer wait between two calls."""
        self.producer.tell()
        assert ["paused"] == self.producer.hear()

    def new_log(self) -> list[str]:
        """Return what was logged since this was last asked."""
        lines = self.chaos.log().splitlines()
        new, self._logged = lines[self._logged :], len(lines)
        return new

    def _asked(self) -> list[Asked]:
        with self._told.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        self._read += len(data)
        asked: list[Asked] = []
        for line in data.decode().splitlines():
            name, jobs, became, seconds = line.split()
            asked.append(Asked(name, int(jobs), became == "stored", float(seconds)))
        return asked

    def _check(self, asked: list[Asked]) -> None:
        self.chaos.check_store()
        records = self.chaos.records()
        found = Counter(job.meta["batch"] for job in records.values())
        for each in asked:
            jobs = found.pop(each.name, 0)
            assert jobs == each.jobs or (not each.stored and jobs == 0), f"{each}: {jobs} jobs are there"
        assert {} == found
        starts = Counter(line.job_id for line in self.chaos.trail.lines())
        # All workers are alive, so each job was started once, and none was charged with a crash.
        assert dict.fromkeys(records, 1) == starts
        for job in records.values():
            assert (JobState.SUCCEEDED, 1, 0, ()) == (job.state, job.attempt, job.crashes, job.errors), job
        assert 0 == self.ground.count("lease")

    # --- what it costs

    @contextmanager
    def cpu(self) -> Generator[list[float]]:
        """Return a list that has, after the block, the share of one processor that each worker took in it."""
        shares: list[float] = []
        before, began = [_seconds(worker.pid) for worker in self.workers], time.monotonic()
        yield shares
        passed = time.monotonic() - began
        shares += [
            (_seconds(worker.pid) - spent) / passed
            for worker, spent in zip(self.workers, before, strict=True)
        ]

    def close(self) -> None:
        """End it all, well if all went well."""
        try:
            self.chaos.stop(*self.workers)
        finally:
            self.chaos.close()


def _seconds(pid: int) -> float:
    """Return how much of processors' time a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def load_on(server: Server, folder: Path, *, options: str = "") -> Generator[Load]:
    """Return a load on a server, which ends with the block; `options` are added to the URL."""
    made = Load(server, folder, options=options)
    try:
        made.await_progress()
        yield made
    finally:
        made.close()
