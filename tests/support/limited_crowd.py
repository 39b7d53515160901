"""A crowd of processes that work under limits, and the trouble that is made for them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from taskharbor.driver import Counted, JobCount, JobEnqueue, LimitDeclare, Store
from taskharbor.drivers import open_driver
from taskharbor.job import TERMINAL, NewJob, new_job_ids
from tests.fixtures.support import SOURCES
from tests.support import limited
from tests.support.limited import EACH, FREE, QUEUES, RATED, WHOLE
from tests.support.work import ENOUGH

CROWD = 4


class Crowd:
    """Processes that work, always so many."""

    def __init__(self, process: subprocess.Popen[str], draw: random.Random) -> None:
        self._process = process
        self._draw = draw
        self._living = [self._spawn() for _ in range(CROWD)]
        self._stopped: list[int] = []
        self.killed = 0
        self.stopped = 0

    def _spawn(self) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{self._draw.getrandbits(30)}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def trouble(self) -> None:
        """Kill one and start another, or stop one for a while, in the midst of whatever it does."""
        for pid in self._stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._stopped.clear()
        victim = self._draw.randrange(CROWD)
        if self._draw.random() < 0.5:
            os.kill(self._living[victim], signal.SIGKILL)
            self._living[victim] = self._spawn()
            self.killed += 1
        else:
            os.kill(self._living[victim], signal.SIGSTOP)
            self._stopped.append(self._living[victim])
            self.stopped += 1


@contextmanager
def crowd(url: str, draw: random.Random) -> Generator[Crowd]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.limited", url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=SOURCES.parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCES), os.environ.get("PYTHONPATH", "")])},
    )
    with process:
        try:
            yield Crowd(process, draw)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(ENOUGH.total_seconds())


def made(count: int, draw: random.Random) -> list[NewJob]:
    jobs: list[NewJob] = []
    for job_id in new_job_ids(count):
        task = draw.choice((WHOLE, EACH, EACH, RATED, FREE))
        partition = {WHOLE: "", EACH: draw.choice("abcde"), RATED: draw.choice("xy"), FREE: None}[task]
        jobs.append(
            NewJob(
                id=job_id,
                task=task,
                queue=draw.choice(QUEUES),
                priority=draw.choice((5, 5, 3)),
                payload=b"{}",
                codec="json",
                fingerprint=1,
                partition=partition,
            )
        )
    return jobs


async def through(store: Store, some: Crowd, jobs: int) -> None:
    """Make trouble until every job has ended."""
    patience = time.monotonic() + 4 * ENOUGH.total_seconds()
    while True:
        counted = await store.job_count(JobCount())
        if sum(one.count for one in counted if one.state in TERMINAL) == jobs:
            return
        assert time.monotonic() < patience, counted
        some.trouble()
        await asyncio.sleep(0.12)  # a span in which they work


async def rehearse(url: str, jobs: int, seat: Callable[[], None]) -> tuple[Crowd, list[Counted]]:
    """Have a crowd end so many jobs under LIMITS, with a judge in his seat; return it, and what became of them."""
    draw = random.Random(8)
    driver = open_driver(url)
    async with driver.connect() as store:
        seat()
        await store.limit_declare(LimitDeclare(limits=limited.LIMITS))
        await store.job_enqueue(JobEnqueue(jobs=made(jobs, draw)))
        with crowd(url, draw) as some:
            await through(store, some, jobs)
        counted = await store.job_count(JobCount())
    driver.close()
    return some, list(counted)
