"""`taskharbor enqueue`: one job from the command line, or as many as standard input has lines."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Annotated, BinaryIO, cast

import msgspec
import typer
from msgspec import UNSET

from taskharbor.call import Call, JobHandle, OnConflictName, Options, Signature
from taskharbor.cli.arguments import from_object, from_words
from taskharbor.cli.listing import JsonOption
from taskharbor.cli.output import json_line, line, note, progress, to_the_end
from taskharbor.cli.target import AppOption, UrlOption, opened
from taskharbor.cli.values import duration, instant, pairs
from taskharbor.errors import OptionError, PayloadError, nearest
from taskharbor.harbor import Harbor
from taskharbor.job import DEFAULT_QUEUE, OnConflict
from taskharbor.task import TaskDefinition

CHUNK = 500
"""Jobs stored in one transaction."""


def enqueue(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The task's name, or an alias.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE...|JSON|-]",
            help="The arguments: key=value for each, or one JSON object, or - for JSON objects on standard input, one "
            "a line, a job each.",
            show_default=False,
        ),
    ] = None,
    queue: Annotated[
        str | None,
        typer.Option("--queue", metavar="NAME", help="Where it waits.", show_default="the task's"),
    ] = None,
    priority: Annotated[
        int | None,
        typer.Option("--priority", metavar="N", help="0 (first) to 9 (last).", show_default="the task's"),
    ] = None,
    run_at: Annotated[
        datetime | None,
        typer.Option(
            "--run-at",
            metavar="TIME",
            parser=instant,
            help="Earliest start, ISO 8601 with a zone: 2030-01-31T08:00Z.",
            show_default="now",
        ),
    ] = None,
    run_in: Annotated[
        timedelta | None,
        typer.Option(
            "--run-in",
            metavar="DURATION",
            parser=duration,
            help="Earliest start from now, by the store's clock: 30s, 5m, 1h30m.",
            show_default="now",
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            metavar="TEXT",
            help="Idempotency key: the same key enqueues once, and prints the first job's id.",
            show_default="none",
        ),
    ] = None,
    on_conflict: Annotated[
        str | None,
        typer.Option(
            "--on-conflict",
            metavar="existing|raise|replace",
            help="When a job has the key: print its id, fail, or take its place as long as no worker has it.",
            show_default="existing, or the task's",
            autocompletion=lambda: [one.value for one in OnConflict],
        ),
    ] = None,
    meta: Annotated[
        list[str] | None,
        typer.Option(
            "--meta",
            metavar="KEY=VALUE",
            help="Text to travel with the job; repeatable.",
            show_default="none",
        ),
    ] = None,
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """Enqueue a job and print its id.

    Values are read as the task's signature declares them: as JSON where the parameter accepts that, else as text.
    """
    options = Options(
        queue=UNSET if queue is None else queue,
        priority=UNSET if priority is None else priority,
        run_at=UNSET if run_at is None else run_at,
        run_in=UNSET if run_in is None else run_in,
        key=UNSET if key is None else key,
        on_conflict=UNSET if on_conflict is None else cast("OnConflictName", on_conflict),  # checked there
        meta=pairs(meta) if meta else UNSET,
    )
    given = arguments or []
    with opened(ctx, tasks="enqueue") as harbor:
        task = harbor.task(name)
        if queue is not None:
            _warn_of_queue(harbor, queue)
        if given != ["-"]:
            handles = harbor.enqueue_many([_signature(task, from_words(task, given), options)])
            with to_the_end():
                _tell(task, handles, options, as_json=as_json)
        elif key is not None:
            raise OptionError("enqueue -: a --key admits one job, and standard input may hold many")
        else:
            _enqueue_lines(harbor, task, options, sys.stdin.buffer, as_json=as_json)


def _warn_of_queue(harbor: Harbor, queue: str) -> None:
    """Warn of a queue that no worker serves by itself; one that is told to may be there, so it is no error."""
    known = sorted({DEFAULT_QUEUE, *(task.options.queue for task in harbor.registry)})
    if queue not in known:
        note(
            f"No task here declares the queue {queue!r}{nearest(queue, known)}. Only a worker that is told to serves "
            f"it: --queues {queue}"
        )


def _signature(task: TaskDefinition, arguments: msgspec.Struct, options: Options) -> Signature[object]:
    return Signature(Call(task, arguments, options))


def _tell(
    task: TaskDefinition, handles: Sequence[JobHandle[object]], options: Options, *, as_json: bool
) -> None:
    for handle in handles:
        if as_json:
            json_line({"id": handle.id, "task": task.name, "created": handle.created})
            continue
        line(handle.id)
        if not handle.created:
            note(
                "This job had the key; it has these arguments and options now."
                if _replaces(task, options)
                else "The key is taken by this job; nothing was enqueued."
            )


def _replaces(task: TaskDefinition, options: Options) -> bool:
    if task.keyed is not None and options.key is UNSET:
        return task.keyed.replaces(options.on_conflict)
    return options.on_conflict == "replace"


def _enqueue_lines(
    harbor: Harbor, task: TaskDefinition, options: Options, source: BinaryIO, *, as_json: bool
) -> None:
    """Enqueue a job for each line, chunk by chunk, so that however many there are, few are held."""
    stored = 0
    numbered = enumerate(source, 1)
    with to_the_end():
        with progress("enqueue", _size_of(source)) as advance:
            while chunk := [(number, text) for number, text in islice(numbered, CHUNK)]:
                signatures = list(_signatures(task, options, chunk, stored))
                try:
                    handles = harbor.enqueue_many(signatures)
                except PayloadError as error:
                    where = f"standard input, lines {chunk[0][0]} to {chunk[-1][0]}"
                    raise _failure(task, error, where, stored) from error
                _tell(task, handles, options, as_json=as_json)
                stored += len(handles)
                advance(sum(len(text) for _, text in chunk))
        note(f"{stored:,} job{'' if stored == 1 else 's'} enqueued")


def _signatures(
    task: TaskDefinition, options: Options, chunk: Sequence[tuple[int, bytes]], stored: int
) -> Iterator[Signature[object]]:
    for number, text in chunk:
        if not text.strip():
            continue
        try:
            yield _signature(task, from_object(task, text), options)
        except PayloadError as error:
            raise _failure(task, error, f"standard input, line {number}", stored) from error


def _failure(task: TaskDefinition, error: PayloadError, where: str, stored: int) -> PayloadError:
    return PayloadError(
        f"{where}: {error}; {stored:,} jobs were enqueued before",
        task=task.name,
        path=error.path,
        reason=error.reason,
    )


def _size_of(source: BinaryIO) -> int | None:
    """Return how many bytes will come, if it is a file."""
    try:
        told = os.fstat(source.fileno())
    except (OSError, ValueError):  # no file at all, as in tests
        return None
    return told.st_size if stat.S_ISREG(told.st_mode) else None
