"""What a shell offers when Tab is pressed: names of queues, tasks, workers, schedules and scopes, and ids, from
application and store.

Whatever goes wrong here offers nothing: nobody wants a traceback in the middle of a line. Nothing is made either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

import typer

from taskharbor.cli.store import refuse_missing
from taskharbor.cli.target import harbor_of, target_of
from taskharbor.harbor import Harbor
from taskharbor.job import JobState

_MANY = 50
"""So many ids are offered at most: those enqueued last."""

Completion = Callable[[typer.Context, str], list[str]]


def complete_task(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer names of tasks that the application declares."""
    return _offered(ctx, incomplete, lambda harbor: [task.name for task in harbor.registry])


def complete_queue(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer names of queues: those that tasks declare, and those in the store; after a comma the next of a list."""
    before, comma, last = incomplete.rpartition(",")

    def names(harbor: Harbor) -> Iterator[str]:
        yield from (task.options.queue for task in harbor.registry)
        refuse_missing(harbor)
        yield from (queue.name for queue in harbor.queues.list())

    return [f"{before}{comma}{name}" for name in _offered(ctx, last, names)]


def complete_scope(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer what limits and holds can be on: tasks and queues that the application has, and what the store limits."""

    def scopes(harbor: Harbor) -> Iterator[str]:
        for task in harbor.registry:
            yield f"task:{task.name}"
            if task.partitioned is not None:
                yield f"keys:{task.name}"
        yield from (f"queue:{task.options.queue}" for task in harbor.registry)
        refuse_missing(harbor)
        yield from (str(limit.scope) for limit in harbor.limits.list())
        yield from (str(hold.scope) for hold in harbor.limits.holds())

    return _offered(ctx, incomplete, scopes)


def complete_worker(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer names of live workers."""

    def names(harbor: Harbor) -> Sequence[str]:
        refuse_missing(harbor)
        return [worker.worker for worker in harbor.workers.list()]

    return _offered(ctx, incomplete, names)


def complete_schedule(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer names of schedules in the store."""

    def names(harbor: Harbor) -> Sequence[str]:
        refuse_missing(harbor)
        return [record.name for record in harbor.schedules.list()]

    return _offered(ctx, incomplete, names)


def complete_job(*states: JobState) -> Completion:
    """Return what offers the ids of jobs in these states, those enqueued last first."""

    def offer(ctx: typer.Context, incomplete: str) -> list[str]:
        def ids(harbor: Harbor) -> Sequence[str]:
            refuse_missing(harbor)
            return [
                job.id
                for job in harbor.jobs.find(states=states, limit=_MANY, newest_first=True, payloads=False)
            ]

        return _offered(ctx, incomplete, ids)

    return offer


def _offered(
    ctx: typer.Context, incomplete: str, names: Callable[[Harbor], Sequence[str] | Iterator[str]]
) -> list[str]:
    """Return the names that begin as what was typed, each once, as far as they could be found."""
    found: dict[str, None] = {}
    # An application may print when it is imported; a shell would take that for completions.
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        try:
            harbor = harbor_of(target_of(ctx))
            try:
                for name in names(harbor):
                    if name.startswith(incomplete):
                        found[name] = None
            finally:
                harbor.close()
        except Exception:  # noqa: BLE001, S110 - see above; what was found by then is offered
            pass
    return list(found)
