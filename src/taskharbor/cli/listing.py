"""Pages of jobs, and of flows, in the order of their ids: found page by page, printed as they come or as one table."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Annotated, TypeAlias, TypeVar

import typer

from taskharbor.cli.filters import Filter
from taskharbor.cli.job_view import for_programs
from taskharbor.cli.output import json_line, note, told_time
from taskharbor.cli.tables import table
from taskharbor.control import id_list
from taskharbor.driver import JobGet
from taskharbor.errors import nearest
from taskharbor.flow import FlowRecord
from taskharbor.harbor import Harbor
from taskharbor.job import TERMINAL, JobRecord, JobState

Kept = TypeVar("Kept", JobRecord, FlowRecord)
PAGE = 1_000
"""Jobs that are read at once."""
PAGE_BYTES = 16 << 20
"""Of payloads and results, where they are read: about so much at once, going by the page before."""
_FIRST = 8
"""Jobs that are read at once before anything is known of their size."""

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def _an_id(text: str) -> str:
    """Return an id, or "" for the beginning; what is none would stand somewhere between them all the same."""
    if text and not _ID.fullmatch(text):
        raise typer.BadParameter(f"{text!r} is no id; take the whole id of the last one of the page before")
    return text


AfterOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--after",
        metavar="ID",
        callback=_an_id,
        help="Only those beyond this one: the last of the page before.",
        show_default="from the beginning",
    ),
]
LimitOption: TypeAlias = Annotated[
    int, typer.Option("--limit", "-n", metavar="N", min=1, help="How many at most.")
]
OldestOption: TypeAlias = Annotated[
    bool, typer.Option("--oldest-first", help="In the order in which they were enqueued, not the other way.")
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON lines, for programs.")]


def pages(
    harbor: Harbor,
    wanted: Filter,
    *,
    after: str = "",
    limit: int | None = None,
    newest_first: bool = False,
    payloads: bool = False,
) -> Iterator[Sequence[JobRecord]]:
    """Yield matching jobs page by page, so that however many there are, few are held.

    They come without their payloads and results, unless those are asked for: then in smaller pages, if they are large.
    """

    def find(after: str, size: int) -> Sequence[JobRecord]:
        return harbor.jobs.find(
            states=wanted.states,
            key=wanted.key,
            flow=wanted.flow,
            after=after,
            limit=size,
            newest_first=newest_first,
            payloads=payloads,
            **wanted.counted(),
        )

    return pages_of(find, after=after, limit=limit, size_of=_bytes_of if payloads else None)


def _bytes_of(job: JobRecord) -> int:
    return len(job.payload) + len(job.result or b"")


def pages_of(
    find: Callable[[str, int], Sequence[Kept]],
    *,
    after: str,
    limit: int | None,
    size_of: Callable[[Kept], int] | None = None,
) -> Iterator[Sequence[Kept]]:
    """Yield what `find` finds beyond an id, so many at a time: `PAGE`, or fewer if they are large by `size_of`."""
    left = limit
    most = PAGE if size_of is None else min(PAGE, _FIRST)
    while left is None or left > 0:
        size = most if left is None else min(most, left)
        found = find(after, size)
        if found:
            yield found
        if len(found) < size:
            return
        after = found[-1].id
        left = None if left is None else left - len(found)
        if size_of is not None:
            largest = max(map(size_of, found))
            most = max(1, min(2 * most, PAGE, PAGE_BYTES // max(largest, 1)))


def look_up(harbor: Harbor, ids: Sequence[str]) -> Sequence[JobRecord | None]:
    """Return the jobs with these ids, in order; None where there is none."""
    return harbor.ask(lambda store: store.job_get(JobGet(ids=id_list(ids))))


def why_of(job: JobRecord) -> str:
    """Return why a job is in its state, without what stands in the other columns."""
    told = f"task {job.task!r} is not registered in the worker that met it"
    if job.state is JobState.PARKED and job.reason.startswith(told):
        return "task unknown to the worker that met it"
    if job.state is JobState.WAITING:
        return f"waits for {job.waits:,} result{'s'[: job.waits > 1]}"
    return job.reason


Columns: TypeAlias = tuple[tuple[str, Callable[[Kept], str]], ...]

JOB_COLUMNS: Columns[JobRecord] = (
    ("id", lambda job: job.id),
    ("state", lambda job: job.state.value),
    ("task", lambda job: job.task),
    ("queue", lambda job: job.queue),
    ("attempts", lambda job: f"{job.attempt}/{job.max_attempts}"),
    ("due or ended", lambda job: told_time(moment_of(job))),
    ("why", why_of),
)
DEAD_COLUMNS: Columns[JobRecord] = (
    ("id", lambda job: job.id),
    ("task", lambda job: job.task),
    ("queue", lambda job: job.queue),
    ("attempts", lambda job: f"{job.attempt}/{job.max_attempts}"),
    ("died", lambda job: told_time(job.finished_at)),
    ("why", lambda job: job.reason),
    ("last error", lambda job: f"{job.errors[-1].type}: {job.errors[-1].message}" if job.errors else ""),
)


def moment_of(job: JobRecord) -> datetime | None:
    """Return the instant that matters in its state: when it ended, or when it may be taken."""
    return job.finished_at if job.state in TERMINAL else job.due_at


def hint_unknown_tasks(harbor: Harbor, names: Sequence[str]) -> None:
    """Say which of these names no task of the application has, where there is one."""
    known = [task.name for task in harbor.registry]
    for name in names:
        if known and name not in known:
            note(f"No task here is named {name!r}{nearest_task(name, known)}")


def hint_unknown_queues(harbor: Harbor, names: Sequence[str]) -> None:
    """Say which of these queues nobody has heard of."""
    if not names:
        return
    known = {queue.name for queue in harbor.queues.list()}
    known.update(task.options.queue for task in harbor.registry)
    known.update(name for worker in harbor.workers.list() for name in worker.queues)
    for name in names:
        if name not in known:
            note(
                f"Nothing is in a queue {name!r}, and no live worker serves it; is it the one that is meant?"
            )


def nearest_task(name: str, known: Sequence[str]) -> str:
    """Return a hint; a name without its module is near, however long the module's is."""
    whole = [task for task in known if task.endswith(f".{name}")]
    return f" (did you mean {whole[0]!r}?)" if whole else nearest(name, known)


def show_list(
    harbor: Harbor,
    wanted: Filter,
    columns: Columns[JobRecord],
    *,
    nothing: str,
    after: str,
    limit: int,
    oldest_first: bool,
    as_json: bool,
) -> None:
    """Print the jobs that match, and how to see more of them; for people `nothing`, if there are none."""
    found = pages(harbor, wanted, after=after, limit=limit, newest_first=not oldest_first, payloads=as_json)

    def in_json(job: JobRecord) -> object:
        return for_programs(harbor, job)

    if not show_pages(found, columns, in_json=in_json if as_json else None, nothing=nothing, limit=limit):
        hint_unknown_tasks(harbor, wanted.tasks)


def show_pages(
    found: Iterable[Sequence[Kept]],
    columns: Columns[Kept],
    *,
    in_json: Callable[[Kept], object] | None,
    nothing: str,
    limit: int,
) -> int:
    """Print pages, and how to see more than `limit`, and return how many there were.

    Args:
        found: the pages.
        columns: what is told of each, for people.
        in_json: what is told of each, for programs; None for people.
        nothing: what people are told if there are none.
        limit: how many were asked for.
    """
    rows: list[Sequence[str]] = []
    shown, last = 0, ""
    for page in found:
        shown, last = shown + len(page), page[-1].id
        for one in page:
            if in_json is not None:
                json_line(in_json(one))
            else:
                rows.append([read(one) for _, read in columns])
    if in_json is not None:
        return shown
    if not shown:
        note(nothing)
    if rows:
        table([name for name, _ in columns], rows)
    if shown == limit:
        note(f"There may be more: --after {last}")
    return shown
