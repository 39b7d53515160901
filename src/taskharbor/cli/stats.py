"""`taskharbor stats`: what was done lately, from the counters that workers keep: by task, queue, minute or hour."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated

import msgspec
import typer

from taskharbor.cli.completing import complete_queue, complete_task
from taskharbor.cli.filters import ago
from taskharbor.cli.listing import JsonOption, hint_unknown_tasks
from taskharbor.cli.output import json_line, line, note
from taskharbor.cli.tables import table
from taskharbor.cli.target import AppOption, UrlOption, opened
from taskharbor.cli.values import duration, narrowing, told_duration, told_length
from taskharbor.driver import STATISTICS_RETAIN
from taskharbor.errors import OptionError
from taskharbor.event import Ending, Tally

_LAST = timedelta(hours=1)
_MINUTE = timedelta(minutes=1)
_SHOWN = (Ending.SUCCEEDED, Ending.RETRYING, Ending.DEAD, Ending.CANCELLED)
_FAILED = (Ending.RETRYING, Ending.DEAD)
_TRIED = (Ending.SUCCEEDED, *_FAILED)


class By(StrEnum):
    """What a line of the table is about."""

    TASK = "task"
    QUEUE = "queue"
    MINUTE = "minute"
    HOUR = "hour"


_NAMES: Mapping[By, Callable[[Tally], str]] = {
    By.TASK: lambda tally: tally.task,
    By.QUEUE: lambda tally: tally.queue,
    By.MINUTE: lambda tally: tally.minute.astimezone(UTC).strftime("%Y-%m-%d %H:%MZ"),
    By.HOUR: lambda tally: tally.minute.astimezone(UTC).strftime("%Y-%m-%d %H:00Z"),
}


class Line(msgspec.Struct):
    """What was counted of one task, queue, minute or hour."""

    name: str
    counts: dict[Ending, int]
    ran: timedelta = timedelta(0)

    def add(self, tally: Tally) -> None:
        """Count more."""
        self.counts[tally.ending] = self.counts.get(tally.ending, 0) + tally.count
        self.ran += tally.ran

    def of(self, endings: Iterable[Ending]) -> int:
        """Return how many deliveries ended in one of these ways."""
        return sum(self.counts.get(ending, 0) for ending in endings)

    @property
    def failed(self) -> float | None:
        """Return which part of the attempts failed, from 0 to 1; None where there were none."""
        tried = self.of(_TRIED)
        return self.of(_FAILED) / tried if tried else None

    @property
    def mean(self) -> timedelta | None:
        """Return how long an attempt ran on average; None where there were none."""
        tried = self.of((*_TRIED, Ending.CANCELLED, Ending.SNOOZED))
        return self.ran / tried if tried else None


def stats(
    ctx: typer.Context,
    by: Annotated[
        By, typer.Option("--by", metavar="WHAT", help="A line for each `task`, `queue`, `minute` or `hour`.")
    ] = By.TASK,
    last: Annotated[
        timedelta | None,
        typer.Option(
            "--last",
            metavar="DURATION",
            parser=duration,
            help=f"Of so long a time; counters are kept for {told_duration(STATISTICS_RETAIN)}.",
            show_default=told_duration(_LAST),
        ),
    ] = None,
    queue: Annotated[
        list[str] | None,
        typer.Option(
            "--queue",
            metavar="NAMES",
            help="Only of these queues; with commas, or repeated.",
            show_default="all",
            autocompletion=complete_queue,
        ),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            metavar="NAME",
            help="Only of this task; repeatable.",
            show_default="all",
            autocompletion=complete_task,
        ),
    ] = None,
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """Show how many attempts ended how: rates, failures, and how long they ran.

    Counted by the minute, and written by workers about every ten seconds; so the last minute grows.
    """
    length = _LAST if last is None else last
    if length < _MINUTE:
        raise OptionError(
            f"--last {told_duration(length)}: counters are kept by the minute; expected at least 1m"
        )
    queues, tasks = narrowing("--queue", queue), narrowing("--task", task, commas=False)
    now = datetime.now(UTC)
    since = ago(now, length).replace(second=0, microsecond=0)
    with opened(ctx) as harbor:
        found = harbor.statistics.read(since=since, queues=queues, tasks=tasks)
        if not found and not as_json:
            hint_unknown_tasks(harbor, tasks)
    lines = grouped(found, _NAMES[by])
    if as_json:
        for one in lines:
            json_line(_for_programs(by, one))
    elif lines:
        show_lines(by, lines, now - since)
    else:
        note(f"Nothing was done in the last {told_duration(length)}, as far as workers have counted.")


def grouped(tallies: Iterable[Tally], name_of: Callable[[Tally], str]) -> Sequence[Line]:
    """Return what was counted under each name, sorted by name."""
    found: dict[str, Line] = {}
    for tally in tallies:
        name = name_of(tally)
        found.setdefault(name, Line(name, {})).add(tally)
    return [found[name] for name in sorted(found)]


def show_lines(by: By, lines: Sequence[Line], span: timedelta) -> None:
    """Print a table, and what it comes to all together in so long a time."""
    every = Line("all", {})
    for one in lines:
        every.ran += one.ran
        for ending, count in one.counts.items():
            every.counts[ending] = every.counts.get(ending, 0) + count
    rows = [_row(one) for one in lines]
    if len(rows) > 1:
        rows.append(_row(every))
    table((by.value, *(ending.value for ending in _SHOWN), "others", "failed", "mean run"), rows)
    rate = every.of(_TRIED) / (span / _MINUTE)
    line()
    line(f"{every.of(_TRIED):,} attempts in {told_length(span)}: {rate:,.1f} a minute.")


def _row(one: Line) -> Sequence[str]:
    others = one.of(ending for ending in Ending if ending not in _SHOWN)
    return (
        one.name,
        *(f"{one.of([ending]):,}" for ending in _SHOWN),
        f"{others:,}",
        "" if one.failed is None else f"{one.failed:.1%}",
        "" if one.mean is None else told_length(one.mean),
    )


def _for_programs(by: By, one: Line) -> dict[str, object]:
    return {
        by.value: one.name,
        **{ending.value: one.counts.get(ending, 0) for ending in Ending},
        "failed": one.failed,
        "ran_seconds": one.ran.total_seconds(),
    }
