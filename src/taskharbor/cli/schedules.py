"""`taskharbor schedules`: what fires when; creating, pausing, triggering and deleting schedules, and declaring the
application's.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, TypeAlias

import typer

from taskharbor.cli.acting import ByOption, ShownReasonOption, WhyOption, operator
from taskharbor.cli.completing import complete_schedule
from taskharbor.cli.exits import Exit
from taskharbor.cli.listing import JsonOption
from taskharbor.cli.output import confirm, json_line, line, note
from taskharbor.cli.schedule_create import create
from taskharbor.cli.schedule_view import HEADERS, for_people, for_programs, row, told_when, unserved
from taskharbor.cli.tables import table
from taskharbor.cli.target import AppOption, UrlOption, opened
from taskharbor.cli.values import listed
from taskharbor.control import make_act
from taskharbor.driver import DeclareStatus
from taskharbor.errors import OptionError
from taskharbor.harbor import Harbor
from taskharbor.schedule import ScheduleRecord

commands = typer.Typer(
    no_args_is_help=True,
    help="See what fires when; create, pause, trigger and delete schedules.",
)
commands.command("create")(create)

_NameArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="NAME", help="The schedule's name.", autocompletion=complete_schedule)
]
_NamesArgument: TypeAlias = Annotated[
    list[str],
    typer.Argument(metavar="NAME...", help="Schedules, by name.", autocompletion=complete_schedule),
]
_YesOption: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
_CountOption: TypeAlias = Annotated[
    int,
    typer.Option("--count", "-n", metavar="N", min=0, max=1000, help="How many of its next ticks to show."),
]


@commands.command("list")
def list_schedules(
    ctx: typer.Context,
    application: Annotated[
        str | None,
        typer.Option(
            "--application", metavar="NAME", help="Only what it declares.", show_default="all schedules"
        ),
    ] = None,
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """List schedules, with their next tick and what became of those before."""
    with opened(ctx) as harbor:
        found = harbor.schedules.list(application=application)
        leaders, workers = harbor.workers.leaders(), harbor.workers.list()
        if as_json:
            for record in found:
                json_line(for_programs(harbor, record, 1, whole=False))
            return
    now = datetime.now(UTC)
    if found:
        table(HEADERS, [row(record, now) for record in found])
    else:
        note("There is no schedule.")
    if found and not leaders:
        note("Nobody fires them: no worker leads. Start one.")
    for remark in unserved(found, workers) if workers else ():
        note(remark)


@commands.command("show")
def show(
    ctx: typer.Context,
    name: _NameArgument,
    count: _CountOption = 5,
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """Show one schedule whole, with its next ticks."""
    with opened(ctx) as harbor:
        _tell(harbor, harbor.schedules.get(name), count, as_json=as_json)


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
    """Let schedules fire no more until they are resumed. Ticks that pass meanwhile are let go."""
    with opened(ctx) as harbor:
        found = harbor.schedules.pause(*_listed(names), reason=reason, by=operator(by))
        _tell_all(harbor, found, "paused", as_json=as_json)


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
    """Let schedules fire again, from now on."""
    with opened(ctx) as harbor:
        found = harbor.schedules.resume(*_listed(names), reason=reason, by=operator(by))
        _tell_all(harbor, found, "fires again", as_json=as_json)


@commands.command("trigger")
def trigger(
    ctx: typer.Context,
    name: _NameArgument,
    reason: WhyOption = "",
    by: ByOption = "",
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """Make a schedule's job now, beside its ticks, and print its id. Works while it is paused, too."""
    with opened(ctx) as harbor:
        made = harbor.schedules.trigger(name, reason=reason, by=operator(by))
    if as_json:
        json_line({"id": made.job_id, "created": made.created})
        return
    line(made.job_id)
    if not made.created:
        note("The key is taken by this job; nothing was enqueued.")


@commands.command("delete")
def delete(
    ctx: typer.Context,
    names: _NamesArgument,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Delete declared ones too, as of an application that is no more; the next generation that declares "
            "them brings them back.",
        ),
    ] = False,
    yes: _YesOption = False,
    reason: WhyOption = "",
    by: ByOption = "",
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """Delete schedules. Jobs that they have made stay."""
    wanted = _listed(names)
    with opened(ctx) as harbor:
        for name in wanted:
            harbor.schedules.get(name)
        confirm(f"Delete {', '.join(wanted)}?", yes=yes)
        deleted = harbor.schedules.delete(*wanted, force=force, reason=reason, by=operator(by))
    for name in deleted:
        if as_json:
            json_line({"name": name, "deleted": True})
        else:
            line(f"{name}  deleted")


@commands.command("declare")
def declare(
    ctx: typer.Context,
    force: Annotated[
        bool,
        typer.Option("--force", help="Although a later generation is there: a rollback takes its place."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only check them, and show what the application declares.")
    ] = False,
    reason: WhyOption = "",
    by: ByOption = "",
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """Make the application's schedules those that its code and files declare, as each worker does when it starts."""
    with opened(ctx, tasks="schedules declare") as harbor:
        if dry_run:
            _show_declared(harbor, as_json=as_json)
            return
        act = make_act("schedules.declare", "the application's schedules", by=operator(by), reason=reason)
        declared, given = harbor.declare_schedules(force=force, act=act), harbor.declared_generation
    if as_json:
        json_line(declared)
    else:
        for what, names in (
            ("added", declared.added),
            ("changed", declared.changed),
            ("removed", declared.removed),
        ):
            for name in names:
                line(f"{name}  {what}")
    if declared.status is DeclareStatus.OUTDATED:
        note(_told_outdated(declared.generation, given))
        raise typer.Exit(Exit.FAILED)
    if not as_json:
        word = "up to date" if declared.status is DeclareStatus.CURRENT else "declared"
        note(f"Schedules {word}, generation {declared.generation}.")
    if declared.contested:
        note(
            f"Two different sets bear generation {declared.generation}, and this one stands now; number each "
            "deployment."
        )


def _told_outdated(present: int, given: int | None) -> str:
    if given is not None:
        return (
            f"Nothing was changed: generation {present} is there, and this is generation {given}. If this is the "
            f"version to run, raise its generation above {present}; numbers alone decide, whatever --force says."
        )
    return (
        f"Nothing was changed: generation {present} is there, and this set was declared before it. If this is the "
        "version to run (a rollback, a revert), say --force; or number your generations, and give it a greater number."
    )


def _show_declared(harbor: Harbor, *, as_json: bool) -> None:
    found = harbor.declared_schedules
    if as_json:
        for one in found:
            json_line(
                {
                    "name": one.name,
                    "task": one.job.task,
                    "schedule": one.schedule,
                    "description": one.description,
                }
            )
    elif found:
        table(
            ("schedule", "task", "when", "queue"),
            [(one.name, one.job.task, told_when(one.schedule), one.job.queue) for one in found],
        )
    else:
        note("The application declares no schedule.")


def _listed(names: Sequence[str]) -> Sequence[str]:
    found = listed(names)
    if not found:
        raise OptionError(f"{','.join(names)!r}: expected one or more names of schedules")
    return found


def _tell_all(harbor: Harbor, found: Sequence[ScheduleRecord], word: str, *, as_json: bool) -> None:
    for record in found:
        if as_json:
            json_line(for_programs(harbor, record, 1, whole=False))
        else:
            line(f"{record.name}  {word}")


def _tell(harbor: Harbor, record: ScheduleRecord, count: int, *, as_json: bool) -> None:
    if as_json:
        json_line(for_programs(harbor, record, count))
        return
    for text in for_people(harbor, record, count):
        line(text)
    for remark in unserved([record], harbor.workers.list()):
        note(remark)
