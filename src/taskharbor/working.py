"""Workers as a harbor gives them out: their settings as keywords, and working until nothing is left to do.

The worker itself, and asyncio with it, is imported when one is asked for: most programs only enqueue.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from typing_extensions import TypedDict

from taskharbor.errors import OptionError, nearest

if TYPE_CHECKING:
    from taskharbor.worker import Application, Worker, WorkerCounts, WorkerSettings


class WorkerOptions(TypedDict, total=False, closed=True):
    """The settings of a worker, as keywords; `WorkerSettings` says what each means."""

    queues: Sequence[str] | None
    concurrency: int
    handler_processes: int
    lease: timedelta
    grace: timedelta
    halt: timedelta
    prefetch: int | None
    weights: Mapping[str, int] | None
    reserved: Mapping[str, int] | None
    aging: timedelta | None
    aging_share: float | None
    stall: timedelta
    owns_process: bool


def settings_of(options: WorkerOptions) -> WorkerSettings:
    """Return the keywords as settings; what they leave out comes from the environment and the file, if there.

    Raises:
        OptionError: one that does not exist, or a value that cannot be, here or there.
        DeploymentError: the file of settings cannot be read.
    """
    from taskharbor.worker import WorkerSettings

    known = WorkerSettings.__struct_fields__
    for name in options:
        if name not in known:
            raise OptionError(
                f"a worker has no setting {name!r}{nearest(name, known)}; it has {', '.join(known)}"
            )
    merged: WorkerOptions = {**configured(), **options}
    if "aging_share" not in options and merged.get("aging") is None and "aging" in options:
        merged.pop(
            "aging_share", None
        )  # the settings' share goes with the settings' aging, which is not wanted here
    return WorkerSettings(**merged)


def configured() -> WorkerOptions:
    """Return what the environment and the nearest file of settings say of a worker; see `taskharbor.settings`.

    Raises:
        OptionError: a setting that does not exist, or a value that cannot be.
        DeploymentError: the file cannot be read.
    """
    from taskharbor.settings import load_settings

    loaded = load_settings()
    settings = loaded.settings
    found: WorkerOptions = {}
    if loaded.given("queues"):
        found["queues"] = settings.queues
    if loaded.given("concurrency"):
        found["concurrency"] = settings.concurrency
    if loaded.given("handler_processes"):
        found["handler_processes"] = settings.handler_processes
    if loaded.given("lease"):
        found["lease"] = settings.lease
    if loaded.given("grace"):
        found["grace"] = settings.grace
    if loaded.given("halt"):
        found["halt"] = settings.halt
    if loaded.given("prefetch"):
        found["prefetch"] = settings.prefetch
    if loaded.given("weights"):
        found["weights"] = settings.weights
    if loaded.given("reserved"):
        found["reserved"] = settings.reserved
    if loaded.given("aging"):
        found["aging"] = settings.aging
    if loaded.given("aging_share"):
        found["aging_share"] = settings.aging_share
    if loaded.given("stall"):
        found["stall"] = settings.stall
    return found


async def until_idle(worker: Worker, within: timedelta) -> WorkerCounts:
    """Run a worker on this event loop until nothing runs and nothing is due within so long; return what it did."""
    worker.leave_schedules()
    async with worker:
        await worker.idle(within)
    return worker.counts


def run_until_idle(application: Application, worker: Worker, within: timedelta) -> WorkerCounts:
    """Run a worker in this thread, on an event loop of its own, until idle. Ctrl-C drains it, and twice halts it."""
    from taskharbor.worker import run_in_own_loop

    def on_interrupt() -> None:
        if worker.draining:
            worker.halt()
        worker.drain()

    async def work() -> WorkerCounts:
        try:
            return await until_idle(worker, within)
        finally:
            await application.on_loop_end()

    try:
        return run_in_own_loop(work, on_interrupt)
    finally:
        worker.loop_closed()
