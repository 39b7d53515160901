"""`taskharbor dlq`: dead letters, listed, shown, requeued, purged and exported, one by one or all that match."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from taskharbor.cli.acting import (
    ByOption,
    IdsArgument,
    NoIdsArgument,
    ReasonOption,
    WhyOption,
    YesOption,
    ids_of,
)
from taskharbor.cli.bulk import AllOption, DryRunOption, Order, carry_out
from taskharbor.cli.exits import Exit
from taskharbor.cli.export import export_jobs
from taskharbor.cli.filters import Age, Filter, filtered
from taskharbor.cli.listing import DEAD_COLUMNS, AfterOption, JsonOption, LimitOption, OldestOption, show_list
from taskharbor.cli.showing import show_jobs
from taskharbor.cli.target import AppOption, UrlOption, opened
from taskharbor.cli.verbs import PURGE, REQUEUE
from taskharbor.job import JobState

commands = typer.Typer(no_args_is_help=True, help="Look at dead letters, requeue, export and purge them.")

_NOUN = "dead letter"
_DEAD = (JobState.DEAD,)


@commands.command("list")
@filtered(Age.DIED, by_state=False)
def list_dead(
    ctx: typer.Context,
    *,
    wanted: Filter,
    after: AfterOption = "",
    limit: LimitOption = 50,
    oldest_first: OldestOption = False,
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """List dead letters, each with its last error."""
    with opened(ctx) as harbor:
        show_list(
            harbor,
            wanted.of(_DEAD),
            DEAD_COLUMNS,
            nothing=f"No such {_NOUN}s." if wanted.is_given() else f"No {_NOUN}s.",
            after=after,
            limit=limit,
            oldest_first=oldest_first,
            as_json=as_json,
        )


@commands.command("show")
def show(
    ctx: typer.Context,
    ids: IdsArgument,
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """Show all that is known of dead letters, as `jobs show` does: arguments, log, every attempt's error."""
    with opened(ctx) as harbor:
        well = show_jobs(harbor, ids_of(ids), as_json=as_json)
    if not well:
        raise typer.Exit(Exit.FAILED)


@commands.command("requeue")
@filtered(Age.DIED, by_state=False)
def requeue(
    ctx: typer.Context,
    ids: NoIdsArgument = None,
    *,
    every: AllOption = False,
    wanted: Filter,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    reason: ReasonOption = "",
    by: ByOption = "",
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """Make dead letters ready again, with all their attempts: those named, or with `--all` those that match."""
    order = Order(
        command="dlq requeue",
        verb=REQUEUE,
        noun=_NOUN,
        ids=ids or (),
        every=every,
        wanted=wanted,
        reason=reason,
        by=by,
        dry_run=dry_run,
        yes=yes,
        as_json=as_json,
    )
    _carry_out(ctx, order)


@commands.command("purge")
@filtered(Age.DIED, by_state=False)
def purge(
    ctx: typer.Context,
    ids: NoIdsArgument = None,
    *,
    every: AllOption = False,
    wanted: Filter,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    reason: WhyOption = "",
    by: ByOption = "",
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """Remove dead letters for good, with their arguments: those named, or with `--all` those that match.

    Nothing else removes a dead letter, unless a rule of `retention` does; `dlq export` keeps a copy.
    """
    order = Order(
        command="dlq purge",
        verb=PURGE,
        noun=_NOUN,
        asks=True,
        ids=ids or (),
        every=every,
        wanted=wanted,
        reason=reason,
        by=by,
        dry_run=dry_run,
        yes=yes,
        as_json=as_json,
    )
    _carry_out(ctx, order)


@commands.command("export")
@filtered(Age.DIED, by_state=False)
def export(
    ctx: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]",
            help="Where to; compressed if it ends in .gz. Standard output without it, or with -.",
            show_default=False,
        ),
    ] = None,
    *,
    wanted: Filter,
    arguments: Annotated[
        bool,
        typer.Option(
            "--arguments",
            help="With their arguments, decoded where they can be. They may be nobody else's business.",
        ),
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Replace the file if it is there, unasked.")
    ] = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """Write dead letters as lines of JSON, oldest first: all, or those that match. They stay where they are."""
    with opened(ctx) as harbor:
        export_jobs(harbor, wanted, file, noun=_NOUN, states=_DEAD, with_arguments=arguments, yes=yes)


def _carry_out(ctx: typer.Context, order: Order) -> None:
    order.check()
    with opened(ctx) as harbor:
        well = carry_out(harbor, order)
    if not well:
        raise typer.Exit(Exit.FAILED)
