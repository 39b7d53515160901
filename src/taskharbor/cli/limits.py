"""`taskharbor limits`: limits set by hand, and tasks and keys held back, while workers run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeAlias

import typer
from msgspec import UNSET, UnsetType

from taskharbor.cli.acting import ByOption, ShownReasonOption, WhyOption, operator
from taskharbor.cli.completing import complete_scope
from taskharbor.cli.grouping import ListingGroup
from taskharbor.cli.listing import JsonOption, hint_unknown_queues, hint_unknown_tasks
from taskharbor.cli.output import json_line, line, note
from taskharbor.cli.tables import table
from taskharbor.cli.target import AppOption, UrlOption, opened
from taskharbor.cli.values import duration, told_age
from taskharbor.control import held_scopes, scope_of, scopes_of, told_terms
from taskharbor.errors import OptionError
from taskharbor.harbor import Harbor
from taskharbor.limit import HoldRecord, LimitRecord, LimitTerms, RateTerms, Scope, ScopeKind

commands = typer.Typer(
    cls=ListingGroup,
    help="See limits and what is held back; set, clear, hold and lift them, while workers run.",
)

_SCOPES = "queue:NAME, task:NAME, keys:TASK (each key on its own), key:TASK:KEY"
_ScopeArgument: TypeAlias = Annotated[
    str,
    typer.Argument(metavar="SCOPE", help=f"What it is on: {_SCOPES}.", autocompletion=complete_scope),
]
_ScopesArgument: TypeAlias = Annotated[
    list[str],
    typer.Argument(metavar="SCOPE...", help=f"What they are on: {_SCOPES}.", autocompletion=complete_scope),
]
_HeldArgument: TypeAlias = Annotated[
    list[str],
    typer.Argument(
        metavar="SCOPE...", help="Tasks, or keys: task:NAME, key:TASK:KEY.", autocompletion=complete_scope
    ),
]
_NONE = "none"
_RATE = re.compile(r"([0-9]{1,9})/(.+)")


@commands.command("list")
def list_limits(
    ctx: typer.Context, as_json: JsonOption = False, _app: AppOption = None, _url: UrlOption = None
) -> None:
    """List every limit, with how many jobs run under it and who set it, and what is held back."""
    with opened(ctx) as harbor:
        limits, holds = harbor.limits.list(), harbor.limits.holds()
    now = datetime.now(UTC)
    if as_json:
        for limit in limits:
            json_line(_limit_for_programs(limit))
        for hold in holds:
            json_line(_hold_for_programs(hold))
        return
    if limits:
        table(
            ("scope", "limit", "running", "declared", "set by hand"),
            [_limit_row(limit, now) for limit in limits],
        )
    if holds:
        if limits:
            line()
        _show_holds(holds, now)
    if not limits and not holds:
        note("There are no limits, and nothing is held back.")


@commands.command("set")
def set_limit(
    ctx: typer.Context,
    scope: _ScopeArgument,
    max_running: Annotated[
        str | None,
        typer.Option(
            "--max-running",
            metavar="N",
            help="How many of its jobs run at once, on all workers together; 0 stops them, none lifts it.",
            show_default="as it is",
        ),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(
            "--rate",
            metavar="N/DURATION",
            help="How many of its jobs start in a time: 100/1m, 5/s; none lifts it.",
            show_default="as it is",
        ),
    ] = None,
    burst: Annotated[
        int | None,
        typer.Option(
            "--burst",
            metavar="N",
            min=1,
            help="With --rate, how many start at once after a quiet time.",
            show_default="1",
        ),
    ] = None,
    reason: ShownReasonOption = "",
    by: ByOption = "",
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """Set the limits of a scope, for all workers, at once. It stands in the place of what code declares, until cleared.

    What is not given of the two stays as it is in force. Jobs that run are left to.
    """
    most, terms = _most(max_running), _rate(rate, burst)
    if max_running is None and rate is None:
        raise OptionError("limits set: say which limit, --max-running N, --rate N/DURATION, or both")
    with opened(ctx) as harbor:
        wanted = scope_of(scope, [task.name for task in harbor.registry])
        _hint(harbor, [wanted])
        answer = harbor.limits.set(wanted, max_running=most, rate=terms, reason=reason, by=operator(by))
        after = harbor.limits.get(wanted)
    if as_json:
        json_line({"before": _terms(answer.before), "changed": answer.changed, **_limit_for_programs(after)})
    elif answer.changed:
        line(f"{wanted}  {told_terms(after.terms)} (was: {told_terms(answer.before)})")
    else:
        line(f"{wanted}  {told_terms(after.terms)}, as it was")


@commands.command("clear")
def clear(
    ctx: typer.Context,
    scopes: _ScopesArgument,
    reason: WhyOption = "",
    by: ByOption = "",
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """Take back what was set by hand: what code declares is in force again."""
    with opened(ctx) as harbor:
        wanted = scopes_of(scopes, [task.name for task in harbor.registry])
        cleared = harbor.limits.clear(*wanted, reason=reason, by=operator(by))
        now = {limit.scope: limit for limit in harbor.limits.list()}
    for scope, changed in zip(wanted, cleared, strict=True):
        limit = now.get(scope, LimitRecord(scope=scope))
        if as_json:
            json_line({"changed": changed, **_limit_for_programs(limit)})
        elif changed:
            line(f"{scope}  cleared; in force now: {told_terms(limit.terms)}")
        else:
            note(f"{scope}  nothing was set by hand; in force: {told_terms(limit.terms)}")


@commands.command("hold")
def hold(
    ctx: typer.Context,
    scopes: _HeldArgument,
    reason: ShownReasonOption = "",
    by: ByOption = "",
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """Hold back tasks, or single keys of tasks: no worker takes their jobs from now on. What runs goes on."""
    with opened(ctx) as harbor:
        wanted = held_scopes(scopes, [task.name for task in harbor.registry])
        hold_back(harbor, wanted, reason, by, as_json=as_json)


@commands.command("lift")
def lift(
    ctx: typer.Context,
    scopes: _HeldArgument,
    reason: WhyOption = "",
    by: ByOption = "",
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """Let go of what is held back: its jobs go on by themselves."""
    with opened(ctx) as harbor:
        wanted = held_scopes(scopes, [task.name for task in harbor.registry])
        let_go(harbor, wanted, reason, by, as_json=as_json)


@commands.command("holds")
def list_holds(
    ctx: typer.Context, as_json: JsonOption = False, _app: AppOption = None, _url: UrlOption = None
) -> None:
    """List what is held back: since when, by whom, and why."""
    with opened(ctx) as harbor:
        holds = harbor.limits.holds()
    if as_json:
        for one in holds:
            json_line(_hold_for_programs(one))
    elif holds:
        _show_holds(holds, datetime.now(UTC))
    else:
        note("Nothing is held back.")


def hold_back(harbor: Harbor, scopes: Sequence[Scope], reason: str, by: str, *, as_json: bool) -> None:
    """Hold scopes back, and print of each how it is now."""
    _hint(harbor, scopes)
    placed = harbor.limits.hold(*scopes, reason=reason, by=operator(by))
    held = {one.scope: one for one in harbor.limits.holds()}
    now = datetime.now(UTC)
    for scope, changed in zip(scopes, placed, strict=True):
        one = held.get(scope)
        if as_json:
            json_line({"changed": changed, **_hold_for_programs(one or HoldRecord(scope=scope, at=now))})
        elif changed or one is None:
            line(f"{scope}  held back")
        else:
            line(f"{scope}  held back already{_told_hand(one.at, one.by, one.reason, now)}")


def let_go(harbor: Harbor, scopes: Sequence[Scope], reason: str, by: str, *, as_json: bool) -> None:
    """Let go of scopes, and print of each whether it was held back."""
    lifted = harbor.limits.lift(*scopes, reason=reason, by=operator(by))
    for scope, changed in zip(scopes, lifted, strict=True):
        if as_json:
            json_line({"scope": str(scope), "held": False, "changed": changed})
        elif changed:
            line(f"{scope}  goes on")
        else:
            note(f"{scope}  was not held back")


def _most(text: str | None) -> int | UnsetType | None:
    if text is None:
        return UNSET
    if text == _NONE:
        return None
    if not re.fullmatch("[0-9]{1,9}", text):
        raise OptionError(f"--max-running {text!r}: expected a whole number below a billion, or {_NONE}")
    return int(text)


def _rate(text: str | None, burst: int | None) -> RateTerms | UnsetType | None:
    if burst is not None and text in (None, _NONE):
        raise OptionError("--burst goes with --rate, as --rate 100/1m --burst 20")
    if text is None:
        return UNSET
    if text == _NONE:
        return None
    found = _RATE.fullmatch(text.strip())
    if found is None or not int(found[1]):
        raise OptionError(
            f"--rate {text!r}: expected a number of jobs and a time, such as 100/1m or 5/s, or {_NONE}"
        )
    # 5/s is 5/1s.
    per: timedelta = duration(found[2] if found[2][0].isdigit() else f"1{found[2]}")
    return RateTerms(int(found[1]), per, burst or 1)


def _hint(harbor: Harbor, scopes: Sequence[Scope]) -> None:
    """Remark on tasks and queues that nobody has heard of, and on keys of tasks that declare none."""
    hint_unknown_queues(harbor, [scope.name for scope in scopes if scope.kind is ScopeKind.QUEUE])
    hint_unknown_tasks(harbor, [scope.name for scope in scopes if scope.kind is not ScopeKind.QUEUE])
    keyed = {scope.name for scope in scopes if scope.kind in (ScopeKind.KEYS, ScopeKind.KEY)}
    for task in harbor.registry:
        if task.name in keyed and task.partitioned is None:
            note(
                f"The task {task.name!r} declares no keys, so none of its jobs has one; give it fair=... in its code"
            )


def _limit_row(limit: LimitRecord, now: datetime) -> Sequence[str]:
    hand = "" if limit.set_at is None else _told_hand(limit.set_at, limit.set_by, limit.reason, now)
    return (
        str(limit.scope),
        told_terms(limit.terms),
        f"{limit.running:,}",
        told_terms(limit.declared) if limit.declared else "",
        hand.strip(),
    )


def _show_holds(holds: Sequence[HoldRecord], now: datetime) -> None:
    table(
        ("held back", "since", "by", "why"),
        [(str(one.scope), f"{told_age(now - one.at)} ago", one.by, one.reason) for one in holds],
    )


def _told_hand(at: datetime, by: str, reason: str, now: datetime) -> str:
    whose = f" by {by}" if by else ""
    why = f": {reason}" if reason else ""
    return f" {told_age(now - at)} ago{whose}{why}"


def _limit_for_programs(limit: LimitRecord) -> dict[str, object]:
    return {
        "scope": str(limit.scope),
        "limit": _terms(limit.terms),
        "declared": _terms(limit.declared),
        "override": None if limit.override is None else _terms(limit.override),
        "running": limit.running,
        "set_at": limit.set_at,
        "set_by": limit.set_by,
        "reason": limit.reason,
    }


def _terms(terms: LimitTerms) -> dict[str, object]:
    rate = terms.rate
    return {
        "max_running": terms.max_running,
        "rate": None
        if rate is None
        else {"limit": rate.limit, "per_seconds": rate.per.total_seconds(), "burst": rate.burst},
    }


def _hold_for_programs(one: HoldRecord) -> dict[str, object]:
    return {"scope": str(one.scope), "held": True, "at": one.at, "by": one.by, "reason": one.reason}
