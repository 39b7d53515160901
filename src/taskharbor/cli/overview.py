"""What goes on now: queues, and the jobs that run, shown anew again and again until Ctrl-C."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from taskharbor.cli.job_view import told_progress
from taskharbor.cli.listing import look_up
from taskharbor.cli.output import json_line, line, note, told_time
from taskharbor.cli.queues import QUEUE_HEADERS, queue_row, show_queues
from taskharbor.cli.tables import folded, table
from taskharbor.driver import QueueInfo
from taskharbor.errors import StoreUnavailable
from taskharbor.harbor import Harbor
from taskharbor.job import JobRecord, JobState
from taskharbor.report import Progress

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

_SHOWN = 20
"""So many running jobs are shown: those enqueued first."""
_JOB_HEADERS = ("running", "task", "queue", "attempt", "worker", "enqueued", "progress")


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A job that runs."""

    id: str
    task: str
    queue: str
    attempt: int
    worker: str
    enqueued_at: datetime
    progress: Progress | None


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """What goes on at one instant."""

    at: datetime
    queues: Sequence[QueueInfo]
    running: Sequence[Running]
    """The first few of them: how many there are, the queues tell."""


def show_overview(harbor: Harbor, queues: Sequence[str], every: timedelta, *, as_json: bool) -> None:
    """Show what goes on until Ctrl-C: one picture that changes on a terminal, one after the other elsewhere.

    Raises:
        StoreUnavailable: at the first look. Later ones wait until it is back.
    """
    first = look(harbor, queues)
    with suppress(KeyboardInterrupt):
        if as_json or not sys.stdout.isatty():
            _print(first, as_json=as_json)
            while True:
                time.sleep(every.total_seconds())
                now = _patient_look(harbor, queues)
                if now is not None:
                    _print(now, as_json=as_json)
        _show_live(harbor, queues, every, first)


def look(harbor: Harbor, queues: Sequence[str]) -> Overview:
    """Return what goes on now, in all queues or in some."""
    counted = [queue for queue in harbor.queues.list() if not queues or queue.name in queues]
    found = harbor.jobs.find(states=[JobState.RUNNING], queues=queues, limit=_SHOWN, payloads=False)
    looked = look_up(harbor, [job.id for job in found])
    running = [_running(job) for job in looked if job is not None and job.state is JobState.RUNNING]
    return Overview(at=datetime.now(UTC), queues=counted, running=running)


def _patient_look(harbor: Harbor, queues: Sequence[str]) -> Overview | None:
    """Return what goes on now; None, and a remark, if the store cannot be reached."""
    try:
        return look(harbor, queues)
    except StoreUnavailable as error:
        note(f"{error}; it is looked for again until it is back")
        return None


def _running(job: JobRecord) -> Running:
    return Running(
        id=job.id,
        task=job.task,
        queue=job.queue,
        attempt=job.attempt + 1,
        worker=job.worker,
        enqueued_at=job.enqueued_at,
        progress=job.progress,
    )


def _row(job: Running) -> Sequence[str]:
    said = "" if job.progress is None else told_progress(job.progress)
    return (job.id, job.task, job.queue, str(job.attempt), job.worker, told_time(job.enqueued_at), said)


def _print(now: Overview, *, as_json: bool) -> None:
    if as_json:
        json_line(now)
        return
    line(told_time(now.at))
    if now.queues:
        show_queues(now.queues, now.at)
    if now.running:
        table(_JOB_HEADERS, [_row(job) for job in now.running])
    line()


def _show_live(harbor: Harbor, queues: Sequence[str], every: timedelta, first: Overview) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False, markup=False)
    with Live(picture(first, console.width), console=console, auto_refresh=False) as live:
        while True:
            time.sleep(every.total_seconds())
            now = _patient_look(harbor, queues)
            if now is not None:
                _change(live, now)


def _change(live: Live, now: Overview) -> None:
    live.update(picture(now, live.console.width), refresh=True)


def picture(now: Overview, columns: int) -> RenderableType:
    """Return what a terminal of so many columns shows; an id is on one line, so that it can be copied."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [Text(f"{told_time(now.at)}  Ctrl-C ends this", style="dim")]
    if now.queues:
        parts.extend(folded(QUEUE_HEADERS, [queue_row(queue, now.at) for queue in now.queues], columns))
    else:
        parts.append(Text("No queue holds live jobs."))
    if now.running:
        parts.extend([Text(""), *folded(_JOB_HEADERS, [_row(job) for job in now.running], columns)])
    return Group(*parts)
