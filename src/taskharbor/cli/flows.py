"""`taskharbor flows`: look at flows, draw them, cancel them, requeue their dead steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, TypeAlias

import msgspec
import typer

from taskharbor.call import draw
from taskharbor.cli.acting import ByOption, ReasonOption, YesOption, act, ids_of, operator
from taskharbor.cli.exits import Exit
from taskharbor.cli.flow_view import for_programs, show_graph, show_head, show_steps
from taskharbor.cli.listing import (
    AfterOption,
    Columns,
    JsonOption,
    LimitOption,
    OldestOption,
    pages_of,
    show_pages,
)
from taskharbor.cli.output import confirm, echo, json_line, line, note, plain, to_the_end, told_time
from taskharbor.cli.stalled import stalls
from taskharbor.cli.target import AppOption, UrlOption, opened
from taskharbor.cli.values import narrowing
from taskharbor.control import make_act, told_names
from taskharbor.driver import CancelStatus, JobGet, RequeueStatus
from taskharbor.errors import JobNotFound, OptionError, nearest
from taskharbor.flow import FLOW_ENDED, FlowRecord, FlowState
from taskharbor.harbor import Harbor
from taskharbor.job import JobState

commands = typer.Typer(no_args_is_help=True, help="Look at flows, draw them, cancel them, resume them.")

_STATES = [state.value for state in FlowState]
_CANCELLED: dict[StrEnum, str] = {
    CancelStatus.CANCELLED: "cancelled",
    CancelStatus.REQUESTED: "cancelled; the workers of steps that run are told to stop them",
    CancelStatus.FINISHED: "not cancelled: it had ended already",
    CancelStatus.MISSING: "there is no such flow",
}
_IdsArgument: TypeAlias = Annotated[
    list[str],
    typer.Argument(
        metavar="ID...",
        help="Flows, by id; - reads ids, or the JSON lines of a listing, from standard input.",
    ),
]


@commands.command("list")
def list_flows(
    ctx: typer.Context,
    state: Annotated[
        list[str] | None,
        typer.Option(
            "--state",
            metavar="STATES",
            help=f"Only in these states; with commas, or repeated: {', '.join(_STATES)}.",
            show_default="all",
        ),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option("--name", metavar="NAME", help="Only of this name; repeatable.", show_default="all"),
    ] = None,
    after: AfterOption = "",
    limit: LimitOption = 50,
    oldest_first: OldestOption = False,
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """List flows, those enqueued last first."""
    states, names = _states_of(state), tuple(narrowing("--name", name, commas=False))
    with opened(ctx) as harbor:
        tasks: dict[str, str] = {}

        def find(beyond: str, size: int) -> Sequence[FlowRecord]:
            page = harbor.flows.find(
                states=states, names=names, after=beyond, limit=size, newest_first=not oldest_first
            )
            if not as_json:
                tasks.update(_last_tasks(harbor, [flow.id for flow in page if not flow.name]))
            return page

        show_pages(
            pages_of(find, after=after, limit=limit),
            _columns(tasks),
            in_json=_without_counts if as_json else None,
            nothing="No such flows." if states or names else "No flows.",
            limit=limit,
        )


@commands.command("show")
def show(
    ctx: typer.Context,
    ids: _IdsArgument,
    steps: Annotated[
        bool, typer.Option("--steps", help="List every step, or draw it by itself, however many are alike.")
    ] = False,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print the graph for Mermaid.")] = False,
    dot: Annotated[bool, typer.Option("--dot", help="Print the graph for Graphviz.")] = False,
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """Show flows: where each stands, and its steps, drawn as the graph that they make.

    Many steps that are alike are drawn as one, and the dead ones among them told.
    """
    if as_json + mermaid + dot > 1:
        raise OptionError("flows show: give one of --json, --mermaid and --dot")
    well = True
    first = True
    with opened(ctx) as harbor:
        for flow_id in ids_of(ids):
            try:
                flow = harbor.flows.get(flow_id)
            except JobNotFound as error:
                note(_told_missing(harbor, flow_id, str(error)))
                well = False
                continue
            graph = draw(flow_id, harbor.flows.steps(flow_id))
            if as_json:
                json_line(for_programs(flow, graph))
            elif mermaid or dot:
                text = graph.mermaid(folded=not steps) if mermaid else graph.dot(folded=not steps)
                echo(plain(text.rstrip("\n"), lines=True))
            else:
                if not first:
                    line()
                first = False
                show_head(flow)
                line()
                (show_steps if steps else show_graph)(graph, stalls(harbor, graph))
    if not well:
        raise typer.Exit(Exit.FAILED)


@commands.command("cancel")
def cancel(
    ctx: typer.Context,
    ids: _IdsArgument,
    yes: YesOption = False,
    reason: ReasonOption = "",
    by: ByOption = "",
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """Cancel flows for good: what waits or is ready at once, what runs within a third of a lease."""
    with opened(ctx) as harbor:
        many = (
            "all flows that standard input names" if "-" in ids else f"{len(ids):,} flow{'s'[: len(ids) > 1]}"
        )
        confirm(f"Cancel {many} for good?", yes=yes)
        target = "ids from standard input" if "-" in ids else told_names(ids)
        whose = make_act("flows.cancel", target, by=operator(by), reason=reason)
        well = act(
            ids_of(ids),
            lambda some: harbor.flows.cancel(some, reason=reason, by=whose.by, act=whose),
            as_json=as_json,
            words=_CANCELLED,
        )
    if not well:
        raise typer.Exit(Exit.FAILED)


@commands.command("retry")
def retry(
    ctx: typer.Context,
    ids: _IdsArgument,
    reason: ReasonOption = "",
    by: ByOption = "",
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """Make the dead steps of flows ready again, with all their attempts; the flows go on from there."""
    well = True
    with opened(ctx) as harbor, to_the_end():
        by = operator(by)
        for flow_id in ids_of(ids):
            answer = _retried(harbor, flow_id, reason, by)
            well &= answer.status is RequeueStatus.REQUEUED
            if as_json:
                json_line({"id": flow_id, "status": answer.status, "steps": answer.steps})
            elif answer.status is RequeueStatus.REQUEUED:
                line(f"{flow_id}  {answer.told}")
            else:
                note(answer.told if answer.status is RequeueStatus.MISSING else f"{flow_id}  {answer.told}")
    if not well:
        raise typer.Exit(Exit.FAILED)


class _Answer(msgspec.Struct, frozen=True):
    """What became of the retry of one flow."""

    status: RequeueStatus
    told: str
    steps: int = 0
    """How many were requeued."""


def _retried(harbor: Harbor, flow_id: str, reason: str, by: str) -> _Answer:
    try:
        flow = harbor.flows.get(flow_id)
        if flow.state in FLOW_ENDED:
            return _Answer(RequeueStatus.NOT_DEAD, f"not retried: it has {_ENDED[flow.state]}")
        if flow.state is not FlowState.FAILED:  # failures that were taken as values are none to mend
            return _Answer(
                RequeueStatus.NOT_DEAD, "nothing to retry: it is running, and no dead step is in its way"
            )
        count = harbor.flows.retry(flow_id, reason=reason, by=by)
    except JobNotFound as error:
        return _Answer(RequeueStatus.MISSING, _told_missing(harbor, flow_id, str(error)))
    requeued = f"{count:,} dead step{'' if count == 1 else 's'} requeued"
    left = flow.steps.get(JobState.DEAD, 0) - count
    if left > 0:
        why = f"{left:,} not: another job has taken the idempotency key, or somebody was faster"
        return _Answer(RequeueStatus.KEY_TAKEN, f"{requeued}, {why}", count)
    return _Answer(RequeueStatus.REQUEUED, f"{requeued}; the flow goes on", count)


_ENDED = {
    FlowState.SUCCEEDED: "succeeded",
    FlowState.CANCELLED: "been cancelled, and nothing of it will run any more",
}


def _columns(tasks: Mapping[str, str]) -> Columns[FlowRecord]:
    """Return what is told of each flow; where it has no name, the task of its last step, in parentheses."""
    return (
        ("id", lambda flow: flow.id),
        ("state", lambda flow: flow.state.value),
        ("name", lambda flow: flow.name or (f"({tasks[flow.id]})" if flow.id in tasks else "")),
        ("meta", lambda flow: ", ".join(f"{name}={value}" for name, value in sorted(flow.meta.items()))),
        ("enqueued", lambda flow: told_time(flow.enqueued_at)),
        ("ended", lambda flow: told_time(flow.finished_at)),
        ("why", lambda flow: flow.reason),
    )


def _last_tasks(harbor: Harbor, ids: Sequence[str]) -> Mapping[str, str]:
    """Return the tasks of the last steps of flows, whose ids are the flows'."""
    if not ids:
        return {}
    records = harbor.ask(lambda store: store.job_get(JobGet(ids=ids)))
    return {record.id: record.task for record in records if record is not None}


def _states_of(given: Sequence[str] | None) -> Sequence[FlowState]:
    found: list[FlowState] = []
    for name in narrowing("--state", given):
        if name not in _STATES:
            hint = nearest(name, _STATES)
            raise OptionError(
                f"--state {name!r}: no flow has this state{hint}; there are {', '.join(_STATES)}"
            )
        found.append(FlowState(name))
    return found


def _without_counts(flow: FlowRecord) -> dict[str, object]:
    """Return a flow for a line of JSON, without the steps: a list does not count them."""
    told = msgspec.structs.asdict(flow)
    del told["steps"]
    return told


def _told_missing(harbor: Harbor, flow_id: str, told: str) -> str:
    """Return what to say of an id that no flow has; it may be a job's."""
    try:
        job = harbor.jobs.get(flow_id)
    except JobNotFound:
        return told
    if job.flow is None:
        return f"{flow_id!r} is a job of no flow, see `taskharbor jobs show`"
    return f"{flow_id!r} is a step of the flow {job.flow}"
