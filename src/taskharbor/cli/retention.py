"""`taskharbor retention`: rules on how long ended jobs are kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeAlias

import msgspec
import typer

from taskharbor.cli.acting import ByOption, ShownReasonOption, WhyOption, operator
from taskharbor.cli.completing import complete_task
from taskharbor.cli.grouping import ListingGroup
from taskharbor.cli.listing import JsonOption, hint_unknown_tasks
from taskharbor.cli.output import json_line, line, note
from taskharbor.cli.tables import table
from taskharbor.cli.target import AppOption, UrlOption, opened
from taskharbor.cli.values import duration, narrowed, told_age
from taskharbor.control import told_rule
from taskharbor.driver import RetentionRecord, RetentionRule
from taskharbor.errors import OptionError, nearest
from taskharbor.job import TERMINAL, JobState

commands = typer.Typer(
    cls=ListingGroup, help="See, set and remove rules on how long ended jobs are kept; `prune` applies them."
)

_ENDED = [state.value for state in JobState if state in TERMINAL]
_StateOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--state",
        metavar="STATE",
        help=f"Which jobs: {', '.join(_ENDED)}.",
        show_default="none",
        autocompletion=lambda: _ENDED,
    ),
]
_TaskOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="NAME",
        help="Only of this task.",
        show_default="every task that has no rule of its own",
        autocompletion=complete_task,
    ),
]


@commands.command("list")
def list_rules(
    ctx: typer.Context, as_json: JsonOption = False, _app: AppOption = None, _url: UrlOption = None
) -> None:
    """List the rules, with who set them and why."""
    with opened(ctx) as harbor:
        found = harbor.retention.list()
    if as_json:
        for record in found:
            json_line(_for_programs(record))
        return
    now = datetime.now(UTC)
    if found:
        table(
            ("task", "state", "kept", "set", "by", "why"),
            [
                (
                    record.rule.task or "all others",
                    record.rule.state.value,
                    told_rule(record.rule),
                    f"{told_age(now - record.set_at)} ago",
                    record.by,
                    record.reason,
                )
                for record in found
            ],
        )
    else:
        note("There are no rules: jobs are kept as their tasks say, and dead letters until they are deleted.")


@commands.command("set")
def set_rule(
    ctx: typer.Context,
    state: _StateOption,
    task: _TaskOption = None,
    keep_for: Annotated[
        timedelta | None,
        typer.Option(
            "--keep-for",
            metavar="DURATION",
            parser=duration,
            help="No longer than this after they ended: 7d.",
            show_default="as long as the task says",
        ),
    ] = None,
    keep_last: Annotated[
        int | None,
        typer.Option(
            "--keep-last",
            metavar="N",
            min=0,
            help="Of each task no more than these, the ones that ended last.",
            show_default="any number",
        ),
    ] = None,
    reason: ShownReasonOption = "",
    by: ByOption = "",
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """Set a rule, in the place of the one for its task and state. Workers apply it about every ten minutes.

    It shortens what a task's `retain` says, and never lengthens it.
    """
    if keep_for is None and keep_last is None:
        raise OptionError("retention set: say what is kept, --keep-for DURATION, --keep-last N, or both")
    rule = RetentionRule(
        task=narrowed("--task", task) or "", state=_state(state), keep_for=keep_for, keep_last=keep_last
    )
    with opened(ctx) as harbor:
        hint_unknown_tasks(harbor, [rule.task] if rule.task else [])
        changed = harbor.retention.set(
            rule.state,
            task=rule.task,
            keep_for=keep_for,
            keep_last=keep_last,
            reason=reason,
            by=operator(by),
        )
    if as_json:
        json_line({"changed": changed, **_rule_for_programs(rule)})
    else:
        line(f"{_told(rule)}  kept: {told_rule(rule)}{'' if changed else ', as it was'}")


@commands.command("remove")
def remove(
    ctx: typer.Context,
    state: _StateOption,
    task: _TaskOption = None,
    reason: WhyOption = "",
    by: ByOption = "",
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """Remove the rule for a task and state: what the task says holds again, or the rule for all other tasks."""
    rule = RetentionRule(task=narrowed("--task", task) or "", state=_state(state))
    with opened(ctx) as harbor:
        changed = harbor.retention.remove(rule.state, task=rule.task, reason=reason, by=operator(by))
    if as_json:
        json_line({"changed": changed, **_rule_for_programs(rule)})
    elif changed:
        line(f"{_told(rule)}  rule removed")
    else:
        note(f"{_told(rule)}  there was no rule; `taskharbor retention` lists them")


def _state(name: str) -> JobState:
    if name not in _ENDED:
        raise OptionError(
            f"--state {name!r}: expected one in which jobs have ended{nearest(name, _ENDED)}: {', '.join(_ENDED)}"
        )
    return JobState(name)


def _told(rule: RetentionRule) -> str:
    return f"{rule.state.value} jobs of {rule.task or 'all other tasks'}"


def _rule_for_programs(rule: RetentionRule) -> dict[str, object]:
    return {
        "task": rule.task,
        "state": rule.state,
        "keep_for_seconds": None if rule.keep_for is None else rule.keep_for.total_seconds(),
        "keep_last": rule.keep_last,
    }


def _for_programs(record: RetentionRecord) -> dict[str, object]:
    about = msgspec.structs.asdict(record)
    del about["rule"]
    return {**_rule_for_programs(record.rule), **about}
