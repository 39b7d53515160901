"""`taskharbor workers`: who works on the store now."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import msgspec
import typer

from taskharbor.cli.listing import JsonOption
from taskharbor.cli.output import json_line, note
from taskharbor.cli.tables import table
from taskharbor.cli.target import AppOption, UrlOption, opened
from taskharbor.cli.values import told_age
from taskharbor.driver import WorkerInfo


def workers(
    ctx: typer.Context,
    tasks: Annotated[bool, typer.Option("--tasks", help="Name the tasks that each knows.")] = False,
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """List the live workers: what they serve, how many jobs each holds, and when it was last heard."""
    with opened(ctx) as harbor:
        found = harbor.workers.list()
    now = datetime.now(UTC)
    if as_json:
        for worker in found:
            json_line({**msgspec.structs.asdict(worker), "tasks": sorted(worker.tasks)})
    elif found:
        show_workers(found, now, tasks=tasks)
    else:
        note("No live worker.")


def show_workers(workers: Sequence[WorkerInfo], now: datetime, *, tasks: bool = False) -> None:
    """Print a table of workers, with the tasks by name or by number."""
    table(
        ("worker", "running", "queues", "tasks", "build", "up for", "heard"),
        [
            (
                worker.worker,
                f"{worker.running:,}",
                ", ".join(worker.queues),
                ", ".join(sorted(worker.tasks)) if tasks else f"{len(worker.tasks):,}",
                worker.build,
                "" if worker.started_at is None else told_age(now - worker.started_at),
                f"{told_age(now - worker.seen_at)} ago",
            )
            for worker in workers
        ],
    )
