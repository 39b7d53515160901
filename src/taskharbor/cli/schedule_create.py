"""`taskharbor schedules create`: a schedule at run time, its call checked against the task's signature."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, TypedDict

import typer
from msgspec import UNSET

from taskharbor.call import Call, Options, Signature
from taskharbor.cli.acting import ByOption, WhyOption, operator
from taskharbor.cli.arguments import from_words
from taskharbor.cli.completing import complete_task
from taskharbor.cli.listing import JsonOption
from taskharbor.cli.output import json_line, line, note
from taskharbor.cli.schedule_view import for_people, for_programs, unserved
from taskharbor.cli.target import AppOption, UrlOption, opened
from taskharbor.cli.values import duration, instant, pairs
from taskharbor.errors import OptionError
from taskharbor.schedule import Misfire, Overlap, Schedule
from taskharbor.scheduling import cron, every

_SHOWN = 3


class _Policies(TypedDict):
    """What `cron` and `every` both take."""

    misfire: Misfire
    catch_up: int | None
    grace: timedelta | None
    overlap: Overlap
    until: datetime | None


def create(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name, unique in the store.")],
    task: Annotated[
        str,
        typer.Argument(metavar="TASK", help="The task's name, or an alias.", autocompletion=complete_task),
    ],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE...|JSON]",
            help="The arguments of each call: key=value for each, or one JSON object.",
            show_default=False,
        ),
    ] = None,
    expression: Annotated[
        str | None,
        typer.Option("--cron", metavar="EXPRESSION", help="When: '0 8 * * 1-5'.", show_default="none"),
    ] = None,
    period: Annotated[
        timedelta | None,
        typer.Option(
            "--every",
            metavar="DURATION",
            parser=duration,
            help="Or a fixed time apart: 30s, 5m.",
            show_default="none",
        ),
    ] = None,
    tz: Annotated[
        str, typer.Option("--tz", metavar="ZONE", help="With --cron, on whose clocks: Europe/Paris.")
    ] = "UTC",
    start: Annotated[
        datetime | None,
        typer.Option(
            "--start",
            metavar="TIME",
            parser=instant,
            help="With --every, the first tick, ISO 8601 with a zone.",
            show_default="counted from 1970",
        ),
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option(
            "--until", metavar="TIME", parser=instant, help="No tick after this.", show_default="for ever"
        ),
    ] = None,
    misfire: Annotated[
        Misfire, typer.Option("--misfire", help="What becomes of ticks that are later than --grace.")
    ] = Misfire.ONCE,
    catch_up: Annotated[
        int | None,
        typer.Option(
            "--catch-up",
            metavar="N",
            min=1,
            help="With --misfire catch_up, so many jobs at most.",
            show_default="100",
        ),
    ] = None,
    grace: Annotated[
        timedelta | None,
        typer.Option(
            "--grace",
            metavar="DURATION",
            parser=duration,
            help="How late is on time.",
            show_default="1m, or the time between two ticks, if that is shorter",
        ),
    ] = None,
    overlap: Annotated[
        Overlap, typer.Option("--overlap", help="What becomes of a tick while the last job has not ended.")
    ] = Overlap.ALLOW,
    queue: Annotated[
        str | None,
        typer.Option("--queue", metavar="NAME", help="Where its jobs wait.", show_default="the task's"),
    ] = None,
    priority: Annotated[
        int | None,
        typer.Option("--priority", metavar="N", help="0 (first) to 9 (last).", show_default="the task's"),
    ] = None,
    meta: Annotated[
        list[str] | None,
        typer.Option(
            "--meta",
            metavar="KEY=VALUE",
            help="Text to travel with each job; repeatable.",
            show_default="none",
        ),
    ] = None,
    description: Annotated[
        str, typer.Option("--description", metavar="TEXT", help="For people.", show_default="none")
    ] = "",
    replace: Annotated[
        bool, typer.Option("--replace", help="Change the one that is there, if it was created so too.")
    ] = False,
    reason: WhyOption = "",
    by: ByOption = "",
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """Create a schedule, and show its next ticks."""
    if catch_up is not None and misfire is not Misfire.CATCH_UP:
        raise OptionError("--catch-up goes with --misfire catch_up")
    policies: _Policies = {
        "misfire": misfire,
        "catch_up": catch_up,
        "grace": grace,
        "overlap": overlap,
        "until": until,
    }
    schedule = _schedule(expression, period, tz, start, policies)
    options = Options(
        queue=UNSET if queue is None else queue,
        priority=UNSET if priority is None else priority,
        meta=pairs(meta) if meta else UNSET,
    )
    with opened(ctx, tasks="schedules create") as harbor:
        definition = harbor.task(task)
        call: Signature[object] = Signature(
            Call(definition, from_words(definition, arguments or []), options)
        )
        made = harbor.schedules.create(
            name,
            call,
            schedule,
            description=description,
            replace=replace,
            by=operator(by),
            reason=reason,
        )
        if as_json:
            json_line(for_programs(harbor, made, _SHOWN))
            return
        for text in for_people(harbor, made, _SHOWN):
            line(text)
        for remark in unserved([made], harbor.workers.list()):
            note(remark)


def _schedule(
    expression: str | None, period: timedelta | None, tz: str, start: datetime | None, policies: _Policies
) -> Schedule:
    if (expression is None) == (period is None):
        raise OptionError("schedules create: say when, either --cron EXPRESSION or --every DURATION")
    if period is not None:
        if tz != "UTC":
            raise OptionError("--tz goes with --cron; --every counts real time, whatever clocks on walls do")
        return every(period, start=start, **policies)
    if start is not None:
        raise OptionError("--start goes with --every")
    return cron(expression or "", tz=tz, **policies)
