"""`taskharbor events`: what happens to jobs in all workers, as the store keeps it for who reads it."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import timedelta
from typing import Annotated

import typer

from taskharbor.cli.completing import complete_queue, complete_task
from taskharbor.cli.job_view import told_progress
from taskharbor.cli.listing import JsonOption
from taskharbor.cli.output import json_line, line, note, told_time
from taskharbor.cli.target import AppOption, UrlOption, opened
from taskharbor.cli.values import narrowing, told_length
from taskharbor.control import Feed
from taskharbor.errors import StoreUnavailable
from taskharbor.event import (
    JobDead,
    JobEnqueued,
    JobEvent,
    JobProgressed,
    JobRequeued,
    JobRetrying,
    JobSnoozed,
    JobStarted,
)

_AWAY_SECONDS = 1.0
"""How often a store that is away is looked for."""


def events(
    ctx: typer.Context,
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Go on with what happens, until Ctrl-C; not only what is kept."),
    ] = False,
    after: Annotated[
        str | None,
        typer.Option(
            "--after",
            metavar="CURSOR",
            help="From where a former reading ended, which told its cursor.",
            show_default="the oldest event kept; with --follow from now on",
        ),
    ] = None,
    reader: Annotated[
        str,
        typer.Option(
            "--reader",
            metavar="NAME",
            help="A name under which you come back: events are kept for five minutes after the last look.",
            show_default="none: they are kept no longer than you read",
        ),
    ] = "",
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
    """Print events of jobs: those that are kept, and with `--follow` those to come.

    A store keeps events only while somebody reads them; workers hear of a reader within a third of their lease.
    """
    queues, tasks = narrowing("--queue", queue), narrowing("--task", task, commas=False)
    with opened(ctx) as harbor:
        begin = after if after is not None else None if follow else ""
        with harbor.feed(reader=reader, after=begin) as feed, suppress(KeyboardInterrupt):
            while (event := _next(feed, follow=follow)) is not None:
                if (queues and event.queue not in queues) or (tasks and event.task not in tasks):
                    continue
                if as_json:
                    json_line(event)
                else:
                    line(told_event(event))
        if feed.missed:
            note("Some events may have been missed: removed before they were read, or not kept for a while.")
        if feed.cursor:
            note(f"Read on from here: --after {feed.cursor}")


def _next(feed: Feed, *, follow: bool) -> JobEvent | None:
    """Return the next event; None at the end of what is kept, unless it is to be followed."""
    told = False
    while True:
        try:
            return feed.get(None if follow else timedelta(0))
        except StoreUnavailable as error:
            if not follow:
                raise
            if not told:
                note(f"{error}; it is looked for again until it is back")
            told = True
            time.sleep(_AWAY_SECONDS)


def told_event(event: JobEvent) -> str:
    """Return an event as a line for people."""
    name = event.__struct_config__.tag
    told = f"{told_time(event.at)}  {event.job_id}  {event.task}  {name}"
    more = _more(event)
    return f"{told}  {more}" if more else told


def _more(event: JobEvent) -> str:
    """Return what is told of this kind of event alone."""
    if isinstance(event, JobEnqueued | JobRequeued):
        return f"in {event.queue}"
    if isinstance(event, JobStarted):
        return f"attempt {event.attempt} by {event.worker}, {told_length(event.waited)} after its enqueue"
    if isinstance(event, JobProgressed):
        return told_progress(event.progress)
    ran = "" if event.ran is None else f"after {told_length(event.ran)}"
    if isinstance(event, JobRetrying):
        return f"{ran}: {event.error}; again in {told_length(event.next_in)}".lstrip(": ")
    if isinstance(event, JobDead):
        return f"{ran}: {event.error or event.reason}".lstrip(": ")
    if isinstance(event, JobSnoozed):
        return f"{ran}; again in {told_length(event.next_in)}".lstrip("; ")
    return ran
