"""`taskharbor dlq`: dead letters, listed and requeued, one by one or all that match."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer

from taskharbor.cli.acting import NoIdsArgument, ReasonOption, YesOption, act, ids_of, operator, tell
from taskharbor.cli.exits import Exit
from taskharbor.cli.listing import (
    DEAD_COLUMNS,
    AfterOption,
    Filter,
    JsonOption,
    LimitOption,
    OldestOption,
    QueueFilter,
    TaskFilter,
    hint_unknown_tasks,
    pages,
    show_list,
)
from taskharbor.cli.output import confirm, line, note, progress, to_the_end
from taskharbor.cli.target import AppOption, UrlOption, opened
from taskharbor.cli.values import listed
from taskharbor.driver import RequeueStatus
from taskharbor.errors import OptionError
from taskharbor.harbor import Harbor
from taskharbor.job import JobState

commands = typer.Typer(no_args_is_help=True, help="Look at dead letters, and requeue them.")


@commands.command("list")
def list_dead(
    ctx: typer.Context,
    queue: QueueFilter = None,
    task: TaskFilter = None,
    after: AfterOption = "",
    limit: LimitOption = 50,
    oldest_first: OldestOption = False,
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """List dead letters, each with its last error."""
    with opened(ctx) as harbor:
        wanted = _dead(queue, task)
        show_list(
            harbor,
            wanted,
            DEAD_COLUMNS,
            nothing=_nothing(wanted),
            after=after,
            limit=limit,
            oldest_first=oldest_first,
            as_json=as_json,
        )


@commands.command("requeue")
def requeue(
    ctx: typer.Context,
    ids: NoIdsArgument = None,
    every: Annotated[bool, typer.Option("--all", help="All dead letters that match, in pages.")] = False,
    queue: QueueFilter = None,
    task: TaskFilter = None,
    yes: YesOption = False,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """Make dead letters ready again, with all their attempts: those named, or with --all those that match."""
    if bool(ids) == every:
        raise OptionError("dlq requeue: give the ids of dead letters, or --all")
    if ids and (queue or task):
        raise OptionError("dlq requeue: --queue and --task go with --all; ids say which jobs already")
    with opened(ctx) as harbor:
        if every:
            well = _requeue_all(harbor, _dead(queue, task), yes=yes, reason=reason, as_json=as_json)
        else:
            by = operator()
            well = act(
                ids_of(ids or ()),
                lambda some: harbor.jobs.requeue(some, reason=reason, by=by),
                as_json=as_json,
            )
    if not well:
        raise typer.Exit(Exit.FAILED)


def _dead(queue: list[str] | None, task: list[str] | None) -> Filter:
    return Filter(states=(JobState.DEAD,), queues=listed(queue), tasks=tuple(task or ()))


def _nothing(wanted: Filter) -> str:
    return "No such dead letters." if wanted.queues or wanted.tasks else "No dead letters."


def _requeue_all(harbor: Harbor, wanted: Filter, *, yes: bool, reason: str, as_json: bool) -> bool:
    """Requeue page after page, and return whether all could be."""
    counted = harbor.jobs.count(queues=wanted.queues, tasks=wanted.tasks)
    total = sum(some.count for some in counted if some.state is JobState.DEAD)
    if not total:
        note(_nothing(wanted))
        hint_unknown_tasks(harbor, wanted.tasks)
        return True
    confirm(f"Requeue {total:,} dead letter{'' if total == 1 else 's'}?", yes=yes)
    by = operator()
    found: Counter[RequeueStatus] = Counter()
    with to_the_end(), progress("requeue", total) as advance:
        # One that dies again meanwhile stands before `after`, and is not met twice.
        for page in pages(harbor, wanted):
            ids = [record.id for record in page]
            for job_id, status in zip(ids, harbor.jobs.requeue(ids, reason=reason, by=by), strict=True):
                found[status] += 1
                if as_json or status is not RequeueStatus.REQUEUED:
                    tell(job_id, status, as_json=as_json)
            advance(len(page))
    if not as_json:
        line(f"{found[RequeueStatus.REQUEUED]:,} requeued")
    # Removed or requeued by somebody else meanwhile: nothing is left to do about those.
    return not found[RequeueStatus.KEY_TAKEN]
