"""`taskharbor jobs`: look at jobs, retry them, cancel them, delete them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from taskharbor.cli.acting import IdsArgument, ReasonOption, YesOption, act, batches, ids_of, operator
from taskharbor.cli.exits import Exit
from taskharbor.cli.input_view import inputs_for_programs, told_inputs
from taskharbor.cli.job_view import for_people, for_programs
from taskharbor.cli.listing import (
    JOB_COLUMNS,
    AfterOption,
    Filter,
    JsonOption,
    LimitOption,
    OldestOption,
    QueueFilter,
    TaskFilter,
    show_list,
    states_of,
    told_states,
)
from taskharbor.cli.output import confirm, json_line, line, note
from taskharbor.cli.step_view import told_place
from taskharbor.cli.target import AppOption, UrlOption, opened
from taskharbor.cli.values import listed
from taskharbor.control import not_found
from taskharbor.driver import JobGet
from taskharbor.harbor import Harbor
from taskharbor.job import JobRecord

commands = typer.Typer(no_args_is_help=True, help="Look at jobs, retry them, cancel them, delete them.")


@commands.command("list")
def list_jobs(
    ctx: typer.Context,
    state: Annotated[
        list[str] | None,
        typer.Option(
            "--state",
            metavar="STATES",
            help=f"Only in these states; with commas, or repeated: {told_states()}.",
            show_default="all",
        ),
    ] = None,
    queue: QueueFilter = None,
    task: TaskFilter = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--key", metavar="TEXT", help="Only with this idempotency key.", show_default="with any or none"
        ),
    ] = None,
    flow: Annotated[
        str,
        typer.Option("--flow", metavar="ID", help="Only steps of this flow.", show_default="of any or none"),
    ] = "",
    after: AfterOption = "",
    limit: LimitOption = 50,
    oldest_first: OldestOption = False,
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """List jobs, those enqueued last first."""
    wanted = Filter(
        states=states_of(state), queues=listed(queue), tasks=tuple(task or ()), key=key, flow=flow
    )
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
    """Show all that is known of jobs: times, arguments, result, every attempt's error, what people did."""
    well = True
    first = True
    with opened(ctx) as harbor:
        for batch in batches(ids_of(ids)):
            records = _records(harbor, batch)
            for job_id, record in zip(batch, records, strict=True):
                if record is None:
                    note(str(not_found(job_id)))
                    well = False
                elif as_json:
                    json_line(for_programs(harbor, record, inputs_for_programs(harbor, record)))
                else:
                    if not first:
                        line()
                    first = False
                    for told in for_people(
                        harbor, record, told_place(harbor, record), told_inputs(harbor, record)
                    ):
                        line(told)
    if not well:
        raise typer.Exit(Exit.FAILED)


@commands.command("retry")
def retry(
    ctx: typer.Context,
    ids: IdsArgument,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """Make dead or cancelled jobs ready again, with all their attempts."""
    with opened(ctx) as harbor:
        by = operator()
        well = act(ids_of(ids), lambda some: harbor.jobs.requeue(some, reason=reason, by=by), as_json=as_json)
    if not well:
        raise typer.Exit(Exit.FAILED)


@commands.command("cancel")
def cancel(
    ctx: typer.Context,
    ids: IdsArgument,
    reason: ReasonOption = "",
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """Cancel jobs: at once where they wait, within a third of a lease where they run.

    With a step its whole flow is cancelled, unless the flow takes that step's failure as a value.
    """
    with opened(ctx) as harbor:
        by = operator()
        well = act(ids_of(ids), lambda some: harbor.jobs.cancel(some, reason=reason, by=by), as_json=as_json)
    if not well:
        raise typer.Exit(Exit.FAILED)


@commands.command("delete")
def delete(
    ctx: typer.Context,
    ids: IdsArgument,
    yes: YesOption = False,
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """Remove jobs for good, with their arguments, results and keys, in whatever state; running ones are left.

    With a step that has not succeeded its flow is cancelled, unless it takes that step's failure as a value.
    """
    with opened(ctx) as harbor:
        many = (
            "all jobs that standard input names" if "-" in ids else f"{len(ids):,} job{'s'[: len(ids) > 1]}"
        )
        confirm(f"Delete {many} for good?", yes=yes)
        well = act(ids_of(ids), harbor.jobs.delete, as_json=as_json)
    if not well:
        raise typer.Exit(Exit.FAILED)


def _records(harbor: Harbor, ids: Sequence[str]) -> Sequence[JobRecord | None]:
    return harbor.ask(lambda store: store.job_get(JobGet(ids=ids)))
