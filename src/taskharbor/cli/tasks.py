"""`taskharbor tasks`: what the application declares."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from taskharbor.cli.arguments import told_signature
from taskharbor.cli.listing import JsonOption
from taskharbor.cli.output import json_line, json_text, line, note
from taskharbor.cli.tables import table
from taskharbor.cli.target import AppOption, UrlOption, opened
from taskharbor.cli.values import told_duration
from taskharbor.retry import Retry
from taskharbor.task import TaskDefinition


def tasks(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME...]",
            help="Only these, in full, with the JSON Schema of their arguments.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """List the application's tasks: signature, queue, retries, and where they run."""
    with opened(ctx, tasks="tasks") as harbor:
        wanted = [harbor.task(name) for name in names] if names else list(harbor.registry)
    if as_json:
        for task in wanted:
            json_line(_for_programs(task))
    elif names:
        for task in wanted:
            _show(task)
    elif wanted:
        table(
            ("task", "signature", "queue", "retry", "runs"),
            [
                (
                    task.name,
                    told_signature(task).removeprefix(task.name),
                    task.options.queue,
                    _told_retry(task.options.retry),
                    _runs(task),
                )
                for task in wanted
            ],
        )
    else:
        note(
            "The application declares no tasks in this registry; import the modules that do where the harbor is made."
        )


def _for_programs(task: TaskDefinition) -> dict[str, object]:
    options = task.options
    return {
        "name": task.name,
        "aliases": task.aliases,
        "signature": told_signature(task),
        "queue": options.queue,
        "priority": options.priority,
        "retry": {
            "max_attempts": options.retry.max_attempts,
            "base": told_duration(options.retry.base),
            "factor": options.retry.factor,
            "cap": told_duration(options.retry.cap),
            "jitter": options.retry.jitter,
            "on": {
                f"{kind.__module__}.{kind.__qualname__}": policy.max_attempts
                for kind, policy in options.retry.on.items()
            },
        },
        "timeout": None if options.timeout is None else told_duration(options.timeout),
        "runs": _runs(task),
        "keep_result": options.keep_result,
        "retain": told_duration(options.retain),
        "key_ttl": told_duration(options.key_ttl),
        "schema": task.schema(),
    }


def _show(task: TaskDefinition) -> None:
    options = task.options
    facts = {
        "task": told_signature(task),
        "aliases": ", ".join(task.aliases),
        "queue": options.queue,
        "priority": str(options.priority),
        "retry": _told_retry(options.retry),
        "timeout": "" if options.timeout is None else told_duration(options.timeout),
        "runs": _runs(task),
        "results": f"kept {told_duration(options.retain)}" if options.keep_result else "not kept",
        "keys": f"taken for {told_duration(options.key_ttl)} after the job has ended",
    }
    for name, value in facts.items():
        if value:
            line(f"{name:<12}{value}")
    line("schema")
    for text in msgspec.json.format(json_text(task.schema()), indent=2).decode().splitlines():
        line(f"  {text}")


def _told_retry(retry: Retry) -> str:
    if retry.max_attempts == 1:
        told = "none"
    else:
        told = (
            f"{retry.max_attempts} attempts, {told_duration(retry.base)} to {told_duration(retry.cap)} apart"
        )
    return told + (f", {len(retry.on)} exceptions apart" if retry.on else "")


def _runs(task: TaskDefinition) -> str:
    """Return where its handler runs."""
    if task.options.run == "process":
        return "process"
    where = "event loop" if task.reading.is_async else "thread"
    batch = task.options.batch
    return where if batch is None else f"{where}, {batch.size} at a time"
