"""`taskharbor jobs`: look at jobs, watch them, retry them, cancel them, delete them."""

from __future__ import annotations

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
from taskharbor.cli.filters import Age, Filter, filtered
from taskharbor.cli.listing import JOB_COLUMNS, AfterOption, JsonOption, LimitOption, OldestOption, show_list
from taskharbor.cli.showing import show_jobs
from taskharbor.cli.target import AppOption, UrlOption, opened
from taskharbor.cli.verbs import CANCEL, DELETE, RETRY
from taskharbor.cli.watch import watch

commands = typer.Typer(
    no_args_is_help=True, help="Look at jobs, watch them, retry them, cancel them, delete them."
)


@commands.command("list")
@filtered(Age.ENQUEUED)
def list_jobs(
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
    """List jobs, those enqueued last first."""
    with opened(ctx) as harbor:
        show_list(
            harbor,
            wanted,
            JOB_COLUMNS,
            nothing="No such jobs.",
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
    """Show all that is known of jobs: times, arguments, progress, result, log, every error, what people did."""
    with opened(ctx) as harbor:
        well = show_jobs(harbor, ids_of(ids), as_json=as_json)
    if not well:
        raise typer.Exit(Exit.FAILED)


commands.command("watch")(watch)


@commands.command("retry")
@filtered(Age.ENQUEUED)
def retry(
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
    """Make dead or cancelled jobs ready again, with all their attempts.

    Those named; or with `--all` those that match, which are dead letters unless `--state` says otherwise.
    """
    order = Order(
        command="jobs retry",
        verb=RETRY,
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


@commands.command("cancel")
@filtered(Age.ENQUEUED)
def cancel(
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
    """Cancel jobs: at once where they wait, within a third of a lease where they run.

    Those named; or with `--all` those that match and have not ended. With a step its whole flow is cancelled, unless
    the flow takes that step's failure as a value.
    """
    order = Order(
        command="jobs cancel",
        verb=CANCEL,
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


@commands.command("delete")
@filtered(Age.ENQUEUED)
def delete(
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
    """Remove jobs for good, with their arguments, results and keys, in whatever state; running ones are left.

    Those named; or with `--all` those that match. With a step that has not succeeded its flow is cancelled, unless it
    takes that step's failure as a value.
    """
    order = Order(
        command="jobs delete",
        verb=DELETE,
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


def _carry_out(ctx: typer.Context, order: Order) -> None:
    order.check()
    with opened(ctx) as harbor:
        well = carry_out(harbor, order)
    if not well:
        raise typer.Exit(Exit.FAILED)
