"""`taskharbor tasks`: what the application declares; pausing and resuming tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypeAlias

import msgspec
import typer

from taskharbor.cli.acting import ByOption, ShownReasonOption, WhyOption
from taskharbor.cli.arguments import told_signature
from taskharbor.cli.completing import complete_task
from taskharbor.cli.grouping import NamesGroup
from taskharbor.cli.limits import hold_back, let_go
from taskharbor.cli.listing import JsonOption
from taskharbor.cli.output import json_line, json_text, line, note
from taskharbor.cli.tables import table
from taskharbor.cli.target import AppOption, UrlOption, opened
from taskharbor.cli.values import told_duration
from taskharbor.control import task_name, told_terms
from taskharbor.limit import Scope, ScopeKind
from taskharbor.retry import Retry
from taskharbor.task import TaskDefinition

commands = typer.Typer(cls=NamesGroup, help="See the application's tasks; pause and resume them.")

_NamesArgument: TypeAlias = Annotated[
    list[str],
    typer.Argument(metavar="NAME...", help="Tasks, by name.", autocompletion=complete_task),
]


@commands.command("list")
def list_tasks(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME...]",
            help="Only these, in full, with the JSON Schema of their arguments.",
            show_default=False,
            autocompletion=complete_task,
        ),
    ] = None,
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """List the application's tasks: signature, queue, retries, where they run, and the limits they declare."""
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
            ("task", "signature", "queue", "retry", "runs", "limits"),
            [
                (
                    task.name,
                    told_signature(task).removeprefix(task.name),
                    task.options.queue,
                    _told_retry(task.options.retry),
                    _runs(task),
                    _limits(task),
                )
                for task in wanted
            ],
        )
    else:
        note(
            "The application declares no tasks in this registry; import the modules that do where the harbor is made."
        )


@commands.command("pause")
def pause(
    ctx: typer.Context,
    names: _NamesArgument,
    reason: ShownReasonOption = "",
    by: ByOption = "",
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """Stop workers from taking jobs of these tasks, in whatever queue: `limits hold task:NAME` in other words."""
    with opened(ctx) as harbor:
        hold_back(harbor, _scopes(names), reason, by, as_json=as_json)


@commands.command("resume")
def resume(
    ctx: typer.Context,
    names: _NamesArgument,
    reason: WhyOption = "",
    by: ByOption = "",
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """Let workers take jobs of these tasks again: `limits lift task:NAME` in other words."""
    with opened(ctx) as harbor:
        let_go(harbor, _scopes(names), reason, by, as_json=as_json)


def _scopes(names: Sequence[str]) -> Sequence[Scope]:
    return [Scope(ScopeKind.TASK, task_name(name)) for name in dict.fromkeys(names)]


def _limits(task: TaskDefinition) -> str:
    """Return the limits that a task declares, and whether its keys take turns."""
    if task.partitioned is None:
        return ""
    declared = task.partitioned.declared
    whole = told_terms(declared.task) if declared.task else ""
    each = f"{told_terms(declared.keys)} for each key" if declared.keys else ""
    return "; ".join(filter(None, (whole, each))) or "takes turns"


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
        "limits": _limits(task),
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
        "limits": _limits(task),
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
