"""The application of the chaos tests: each start of a handler leaves a line in a file before anything else happens.

Worker processes load it as `--app tests/support/chaos_app.py:make_harbor`; the tests import it for its tasks.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from datetime import timedelta
from pathlib import Path

from taskharbor import Batch, BatchContext, Context, Harbor, Registry, Retry, task

URL_VARIABLE = "CHAOS_URL"
"""Names the store."""
FOLDER_VARIABLE = "CHAOS_FOLDER"
"""Names the directory of the trail and the gates."""

registry = Registry()

_PATIENT = Retry(max_attempts=10, base=timedelta(milliseconds=100))
_FIVE = Retry(max_attempts=5, base=timedelta(milliseconds=100))


def harbor_on(url: str) -> Harbor:
    """Return the harbor on a chaos test's store."""
    return Harbor(url, registry=registry)


def make_harbor() -> Harbor:
    """Return the harbor that this process was started for."""
    return harbor_on(os.environ[URL_VARIABLE])


def _folder() -> Path:
    return Path(os.environ[FOLDER_VARIABLE])


def leave_line(kind: str, ctx: Context) -> None:
    """Append one line to the trail: what, whose, and where."""
    line = f"{kind} {ctx.job_id} {ctx.attempt} {ctx.fence} {os.getpid()}\n"
    trail = os.open(_folder() / "trail", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)
    try:
        os.write(trail, line.encode())
    finally:
        os.close(trail)


@task(registry=registry, retry=_PATIENT)
async def append(ctx: Context, busy_ms: int = 0) -> None:
    """Leave a line and take a while, on the loop."""
    leave_line("start", ctx)
    await asyncio.sleep(busy_ms / 1000)


@task(registry=registry, retry=_PATIENT)
def append_in_thread(ctx: Context, busy_ms: int = 0) -> None:
    """Leave a line and take a while, in a thread."""
    leave_line("start", ctx)
    time.sleep(busy_ms / 1000)


@task(batch=Batch(size=20, wait=timedelta(milliseconds=100)), registry=registry, retry=_PATIENT)
def append_many(ctx: BatchContext, busy_ms: list[int]) -> None:
    """Leave a line for each job of a batch and take a while, in a thread."""
    for job in ctx.jobs:
        leave_line("start", job)
    time.sleep(max(busy_ms) / 1000)


@task(registry=registry, retry=_FIVE)
async def neighbour(ctx: Context, busy_ms: int) -> None:
    """Do nothing wrong, beside a job that does."""
    leave_line("start", ctx)
    await asyncio.sleep(busy_ms / 1000)


@task(registry=registry, retry=_FIVE)
async def poison(ctx: Context) -> None:
    """Kill the worker."""
    leave_line("start", ctx)
    os.kill(os.getpid(), signal.SIGKILL)


@task(registry=registry, retry=_FIVE)
async def endless(ctx: Context) -> None:
    """Run until cancelled."""
    leave_line("start", ctx)
    await asyncio.get_running_loop().create_future()


@task(registry=registry, retry=_FIVE)
async def gated(ctx: Context) -> int:
    """Wait at the gate of this delivery, if there is one; return who ran it."""
    leave_line("start", ctx)
    gate = _folder() / f"gate-{ctx.fence}"
    if gate.exists():
        opened = asyncio.Event()
        pipe = os.open(gate, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        loop = asyncio.get_running_loop()
        loop.add_reader(pipe, opened.set)
        try:
            await opened.wait()
        finally:
            loop.remove_reader(pipe)
            os.close(pipe)
    leave_line("end", ctx)
    return os.getpid()


@task(registry=registry, retry=_FIVE)
def gated_in_thread(ctx: Context) -> int:
    """Do the same in a thread, in a C call that nothing interrupts."""
    leave_line("start", ctx)
    gate = _folder() / f"gate-{ctx.fence}"
    if gate.exists():
        pipe = os.open(gate, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.read(pipe, 1)
        finally:
            os.close(pipe)
    leave_line("end", ctx)
    return os.getpid()


@task(registry=registry)
async def nothing(number: int) -> None:
    """Be as quick as can be."""


@task(registry=registry, retry=_PATIENT)
async def member(ctx: Context, chord: int, index: int, busy_ms: int) -> list[int]:
    """Leave a line, take a while, fail at first if it is one of those that do; return which it was."""
    leave_line("start", ctx)
    await asyncio.sleep(busy_ms / 1000)
    if index % 5 == 0 and ctx.attempt == 1:
        raise ConnectionError(f"{chord}.{index}")
    return [chord, index]


@task(registry=registry, retry=_PATIENT)
async def callback(ctx: Context, members: list[list[int]]) -> list[list[int]]:
    """Leave a line, and return what came in."""
    leave_line("start", ctx)
    return members
