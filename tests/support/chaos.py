"""Worker processes on one store, real signals sent to them, and the account of every job afterwards. POSIX."""

from __future__ import annotations

import json
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import TypedDict, cast

from taskharbor import JobRecord, JobState
from tests.fixtures.support import ROOT, SOURCES
from tests.support import chaos_app
from tests.support.chaos_stores import SQLITE, ChaosStore, chaos_store
from tests.support.chaos_trail import Line, Trail
from tests.support.led import children, lives, state
from tests.support.work import ENOUGH, eventually

PATIENCE = 3 * ENOUGH.total_seconds()
"""Seconds in which a fleet of workers, however loaded the machine, must have done what it was given."""
ON_TIME = timedelta(0)
MANY = 1_000_000
"""More jobs than any of these tests has."""


class Counts(TypedDict):
    """What a worker of the role `worker` tells when it ends."""

    settled: dict[str, int]
    stale: int
    sent: int


class Program:
    """One started process and what it says."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.pid = process.pid
        self._unread = b""

    def hear(self) -> list[str]:
        """Return the next line it says, as words; none when it has ended."""
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                assert selector.select(PATIENCE), f"process {self.pid} says nothing"
                data = os.read(self.process.stdout.fileno(), 65536)
                if not data:
                    return []
                self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode().split()

    def tell(self) -> None:
        """Have it go on, or pause, as its role has it."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def hear_rest(self) -> list[list[str]]:
        """Return all it still says, as words, until it has ended."""
        rest: list[list[str]] = []
        while words := self.hear():
            rest.append(words)
        return rest

    def counts(self) -> Counts:
        """Return what it has counted; it must be ending, and end well."""
        (told,) = (words[1] for words in self.hear_rest() if words[0] == "counts")
        assert 0 == self.process.wait(PATIENCE)
        return cast("Counts", json.loads(told))

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        self.process.kill()
        self.process.wait()


class Chaos:
    """A store, the processes that a test lets loose on it, and a directory for what they leave."""

    def __init__(self, folder: Path, store: ChaosStore) -> None:
        self.folder = folder
        self.store = store
        self.trail = Trail(folder / "trail")
        self.harbor = chaos_app.harbor_on(store.url)
        self.killed: dict[int, int] = {}
        """By process: how long the trail was when it was killed, or earlier."""
        self._programs: list[Program] = []
        self._log = folder / "log"

    # --- processes

    def start_worker(self, *options: str, lease: str = "1s", skew: timedelta = ON_TIME) -> Program:
        """Start `taskharbor worker`, by a clock that is so wrong."""
        app = f"{ROOT / 'tests/support/chaos_app.py'}:make_harbor"
        return self._start("taskharbor.cli", "--app", app, "worker", "--lease", lease, *options, skew=skew)

    def start_role(self, *role: object, skew: timedelta = ON_TIME) -> Program:
        """Start a program of `chaos_roles`, by a clock that is so wrong."""
        return self._start("tests.support.chaos_roles", *map(str, role), speaks=True, skew=skew)

    def _start(self, *command: str, speaks: bool = False, skew: timedelta) -> Program:
        if skew:
            command = ("tests.support.skewed", str(skew.total_seconds()), *command)
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("TASKHARBOR_")
        }
        environment |= {
            chaos_app.FOLDER_VARIABLE: str(self.folder),
            chaos_app.URL_VARIABLE: self.store.url,
            "PYTHONPATH": os.pathsep.join(map(str, (SOURCES, ROOT))),
        }
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.PIPE if speaks else subprocess.DEVNULL,
                stdout=subprocess.PIPE if speaks else log,
                stderr=log,
            )
        self._programs.append(Program(process))
        return self._programs[-1]

    def kill(self, program: Program) -> None:
        """Kill a worker that has no children."""
        self.killed[program.pid] = self.trail.size()
        program.kill()

    def kill_all(self, *programs: Program) -> None:
        """Kill processes and their children, as near to one moment as can be."""
        pids = [program.pid for program in programs]
        pids += [child for pid in pids for child in children(pid)]
        size = self.trail.size()
        for pid in pids:
            self.killed[pid] = size
            os.kill(pid, signal.SIGKILL)
        for program in programs:
            program.process.wait()
        eventually(lambda: not any(lives(pid) for pid in pids), "the end of all")

    def await_serving(self, *workers: Program) -> None:
        """Wait until workers that have no children serve."""
        eventually(
            lambda: all(
                re.search(rf":{worker.pid}:\w+ serves", self.log()) is not None for worker in workers
            ),
            "all workers serve",
        )

    def stop(self, *programs: Program) -> None:
        """Have workers drain; they must end well."""
        for program in programs:
            program.send(signal.SIGTERM)
        for program in programs:
            assert 0 == program.process.wait(PATIENCE), self.log()

    def log(self) -> str:
        """Return what they have logged."""
        return self._log.read_text()

    def close(self) -> None:
        """Leave no process behind, whatever the test came to."""
        for program in self._programs:
            pids = [program.pid, *(children(program.pid) if lives(program.pid) else ())]
            for pid in pids:
                if state(pid):
                    os.kill(pid, signal.SIGKILL)
            program.process.wait()
            for pipe in (program.process.stdin, program.process.stdout):
                if pipe is not None:
                    pipe.close()
        self.harbor.close()

    # --- the store

    def count(self, table: str) -> int:
        """Return how many rows a table has."""
        return self.store.count(table)

    def await_all_ended(self) -> None:
        """Wait until no job is left to be done."""
        end = time.monotonic() + PATIENCE
        while self.count("job"):
            assert time.monotonic() < end, f"jobs are left:\n{self.log()}"
            time.sleep(0.05)

    def records(self) -> dict[str, JobRecord]:
        """Return every job by its id."""
        return {job.id: job for job in self.harbor.jobs.find(limit=MANY)}

    def check_store(self) -> None:
        """Check that the store is whole, and its leases and jobs agree."""
        self.store.check()

    # --- the account

    def check_nothing_lost(self, ids: Iterable[str]) -> None:
        """Check that each of these jobs has succeeded, and was started again only after its worker was killed."""
        records = self.records()
        starts: dict[str, list[Line]] = {}
        for line in self.trail.lines():
            starts.setdefault(line.job_id, []).append(line)
        for job_id in ids:
            self._check_job(records[job_id], starts.get(job_id, []))

    def _check_job(self, job: JobRecord, starts: Sequence[Line]) -> None:
        told = f"{job}\n{starts}\n{self.killed}"
        assert JobState.SUCCEEDED is job.state, told
        assert 1 <= len(starts) <= job.deliveries, told
        # Each delivery was started once at most, and they were started in order.
        assert sorted({line.fence for line in starts}) == [line.fence for line in starts], told
        for line, again in pairwise(starts):
            assert self.killed.get(line.pid, MANY * MANY) <= again.at, told
        assert ["taskharbor.WorkerLost"] * (job.attempt - 1) == [error.type for error in job.errors], told
        assert all(int(error.worker.split(":")[1]) in self.killed for error in job.errors), told
        assert job.crashes == len(job.errors), told


@contextmanager
def chaos_in(folder: Path, kind: str = SQLITE) -> Generator[Chaos]:
    """Return chaos on a new store of a kind, which ends with the block."""
    with chaos_store(kind, folder) as store:
        made = Chaos(folder, store)
        try:
            yield made
        finally:
            made.close()
