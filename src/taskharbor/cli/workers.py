"""`taskharbor workers`: who works on the store now; telling workers to end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, TypeAlias

import msgspec
import typer

from taskharbor.cli.acting import ByOption, WhyOption, YesOption, operator
from taskharbor.cli.completing import complete_worker
from taskharbor.cli.exits import Exit
from taskharbor.cli.grouping import ListingGroup
from taskharbor.cli.listing import JsonOption
from taskharbor.cli.output import confirm, json_line, line, note
from taskharbor.cli.tables import table
from taskharbor.cli.target import AppOption, UrlOption, opened
from taskharbor.cli.values import listed, told_age
from taskharbor.driver import Order, WorkerInfo
from taskharbor.errors import OptionError, nearest
from taskharbor.harbor import Harbor

commands = typer.Typer(cls=ListingGroup, help="See who works on the store; drain and stop workers from afar.")

_NamesArgument: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAME...]",
        help="Workers, by the names that the list tells.",
        show_default=False,
        autocompletion=complete_worker,
    ),
]
_AllOption: TypeAlias = Annotated[bool, typer.Option("--all", help="All that are live now.")]


@commands.command("list")
def list_workers(
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


@commands.command("drain")
def drain(
    ctx: typer.Context,
    names: _NamesArgument = None,
    every: _AllOption = False,
    yes: YesOption = False,
    reason: WhyOption = "",
    by: ByOption = "",
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """Tell workers to start nothing new, finish what runs, and end, as SIGTERM does.

    They learn of it within a third of their lease, and their supervisors do not start them again.
    """
    _give(ctx, Order.DRAIN, names, reason, by, every=every, yes=yes, as_json=as_json)


@commands.command("stop")
def stop(
    ctx: typer.Context,
    names: _NamesArgument = None,
    every: _AllOption = False,
    yes: YesOption = False,
    reason: WhyOption = "",
    by: ByOption = "",
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """Tell workers to cancel what runs, hand it back, and end, as a second SIGTERM does.

    What was cut short runs again elsewhere; with `max_attempts=1` it is a dead letter. Else as `drain`.
    """
    _give(ctx, Order.STOP, names, reason, by, every=every, yes=yes, as_json=as_json)


def _give(
    ctx: typer.Context,
    order: Order,
    names: list[str] | None,
    reason: str,
    by: str,
    *,
    every: bool,
    yes: bool,
    as_json: bool,
) -> None:
    wanted = list(dict.fromkeys(listed(names)))
    if bool(wanted) == every:
        raise OptionError(f"workers {order.value}: name one or more workers, or say --all")
    with opened(ctx) as harbor:
        before = {worker.worker: worker for worker in harbor.workers.list()}
        if every and not before:
            note("No live worker.")
            return
        if every or order is Order.STOP:
            _ask(order, [before[name] for name in wanted or before if name in before], yes=yes)
        tell = harbor.workers.drain if order is Order.DRAIN else harbor.workers.stop
        answers = tell(*wanted, every=every, reason=reason, by=operator(by))
        well = _tell(order, answers, harbor, before, as_json=as_json)
    if not well:
        raise typer.Exit(Exit.FAILED)


def _ask(order: Order, workers: Sequence[WorkerInfo], *, yes: bool) -> None:
    if not workers:
        return
    running = sum(worker.running for worker in workers)
    what = "; they finish" if order is Order.DRAIN else ", and cancel"
    confirm(
        f"{order.value.capitalize()} {len(workers):,} worker{'s'[: len(workers) > 1]}{what} {running:,} jobs?",
        yes=yes,
    )


def _tell(
    order: Order,
    answers: Mapping[str, bool],
    harbor: Harbor,
    before: Mapping[str, WorkerInfo],
    *,
    as_json: bool,
) -> bool:
    """Print what became of the order for each, and return whether all are live."""
    live = {**before, **{worker.worker: worker for worker in harbor.workers.list()}}
    for name, changed in answers.items():
        if as_json:
            json_line({"worker": name, "order": order, "live": name in live, "changed": changed})
        elif changed:
            runs = f", {live[name].running:,} jobs running" if name in live and live[name].running else ""
            line(f"{name}  told to {order.value}{runs}")
        elif name in live:
            line(f"{name}  told to {live[name].order or order} already")
        else:
            note(f"{name}  is no live worker{nearest(name, list(live))}")
    return all(changed or name in live for name, changed in answers.items())


def show_workers(workers: Sequence[WorkerInfo], now: datetime, *, tasks: bool = False) -> None:
    """Print a table of workers, with the tasks by name or by number."""
    table(
        ("worker", "running", "queues", "tasks", "build", "up for", "heard", ""),
        [
            (
                worker.worker,
                f"{worker.running:,}",
                ", ".join(worker.queues),
                ", ".join(sorted(worker.tasks)) if tasks else f"{len(worker.tasks):,}",
                worker.build,
                "" if worker.started_at is None else told_age(now - worker.started_at),
                f"{told_age(now - worker.seen_at)} ago",
                _told_order(worker),
            )
            for worker in workers
        ],
    )


def _told_order(worker: WorkerInfo) -> str:
    if worker.order is None:
        return ""
    return f"told to {worker.order.value}" + (f" by {worker.ordered_by}" if worker.ordered_by else "")
