"""`taskharbor queues`: what waits in each queue; pausing and resuming them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, TypeAlias

import typer

from taskharbor.cli.acting import ByOption, ShownReasonOption, WhyOption, operator
from taskharbor.cli.completing import complete_queue
from taskharbor.cli.listing import JsonOption, hint_unknown_queues
from taskharbor.cli.output import json_line, line, note
from taskharbor.cli.tables import table
from taskharbor.cli.target import AppOption, UrlOption, opened
from taskharbor.cli.values import listed, told_age
from taskharbor.control import told_terms
from taskharbor.driver import QueueInfo
from taskharbor.errors import OptionError
from taskharbor.harbor import Harbor
from taskharbor.limit import LimitRecord, ScopeKind

commands = typer.Typer(no_args_is_help=True, help="See what waits in queues; pause and resume them.")

_NamesArgument: TypeAlias = Annotated[
    list[str],
    typer.Argument(metavar="NAME...", help="Queues, by name.", autocompletion=complete_queue),
]


@commands.command("list")
def list_queues(
    ctx: typer.Context, as_json: JsonOption = False, _app: AppOption = None, _url: UrlOption = None
) -> None:
    """List the queues that hold live jobs or are paused, with how many jobs are in which state."""
    with opened(ctx) as harbor:
        found = harbor.queues.list()
        limits = harbor.limits.list()
    if as_json:
        for queue in found:
            json_line(queue)
    elif found:
        show_queues(found, datetime.now(UTC), limits)
    else:
        note("No queue holds live jobs, or is paused.")


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
    """Stop workers from taking jobs of these queues, at once. What runs goes on; jobs can be enqueued."""
    with opened(ctx) as harbor:
        wanted = _names(harbor, names)
        harbor.queues.pause(*wanted, reason=reason, by=operator(by))
        _tell(harbor, wanted, as_json=as_json)


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
    """Let workers take jobs of these queues again."""
    with opened(ctx) as harbor:
        wanted = _names(harbor, names)
        harbor.queues.resume(*wanted, reason=reason, by=operator(by))
        _tell(harbor, wanted, as_json=as_json)


def show_queues(queues: Sequence[QueueInfo], now: datetime, limits: Sequence[LimitRecord] = ()) -> None:
    """Print a table of queues, with those of the limits that are theirs."""
    told = {limit.scope.name: told_terms(limit.terms) for limit in limits if _is_of_queue(limit)}
    table(QUEUE_HEADERS, [queue_row(queue, now, told.get(queue.name, "")) for queue in queues])


QUEUE_HEADERS = ("queue", "ready", "scheduled", "parked", "waiting", "running", "")


def queue_row(queue: QueueInfo, now: datetime, limit: str = "") -> Sequence[str]:
    """Return what a table tells of a queue."""
    counts = (queue.ready, queue.scheduled, queue.parked, queue.waiting, queue.running)
    return (
        queue.name,
        *(f"{count:,}" for count in counts),
        "; ".join(filter(None, (limit, _told_pause(queue, now)))),
    )


def _is_of_queue(limit: LimitRecord) -> bool:
    return limit.scope.kind is ScopeKind.QUEUE and bool(limit.terms)


def _told_pause(queue: QueueInfo, now: datetime) -> str:
    if not queue.paused:
        return ""
    since = "" if queue.paused_at is None else f" {told_age(now - queue.paused_at)} ago"
    by = f" by {queue.paused_by}" if queue.paused_by else ""
    why = f": {queue.reason}" if queue.reason else ""
    return f"paused{since}{by}{why}"


def _names(harbor: Harbor, given: Sequence[str]) -> Sequence[str]:
    """Return the queues that are named; those that nobody has heard of are remarked on, but taken."""
    names = list(dict.fromkeys(listed(given)))
    if not names:
        raise OptionError(f"{','.join(given)!r}: expected one or more names of queues, such as mail,default")
    hint_unknown_queues(harbor, names)
    return names


def _tell(harbor: Harbor, names: Sequence[str], *, as_json: bool) -> None:
    """Print how the queues are now."""
    now = {queue.name: queue for queue in harbor.queues.list()}
    for name in names:
        queue = now.get(name) or QueueInfo(name=name)
        if as_json:
            json_line(queue)
        else:
            held = f", {queue.ready:,} ready" if queue.ready else ""
            runs = f", {queue.running:,} still running" if queue.paused and queue.running else ""
            line(f"{name}  {'paused' if queue.paused else 'not paused'}{held}{runs}")
