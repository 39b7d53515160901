"""Steps that could run and have not been taken for long: which queue they stand in, and whether anybody serves it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from taskharbor.call import FlowGraph, FlowStep
from taskharbor.driver import WorkerList
from taskharbor.harbor import Harbor
from taskharbor.job import DEFAULT_QUEUE, JobState

LONG = timedelta(seconds=10)
"""A live worker takes what is ready within moments, unless it is busy."""


def stalls(harbor: Harbor, graph: FlowGraph) -> Callable[[FlowStep], str]:
    """Return what tells of a step of a flow why it is ready for long; "" where there is nothing to tell."""
    before = datetime.now(UTC) - LONG
    if not any(_is_stalled(step, before) for step in graph.steps):
        return lambda _step: ""
    workers = harbor.ask(lambda store: store.worker_list(WorkerList()))

    def told(step: FlowStep) -> str:
        if not _is_stalled(step, before):
            return ""
        served = any(step.queue in worker.queues and step.task in worker.tasks for worker in workers)
        where = f"in the queue {step.queue!r}" if step.queue != DEFAULT_QUEUE else ""
        return "; ".join(part for part in (where, "" if served else "no live worker serves it") if part)

    return told


def _is_stalled(step: FlowStep, before: datetime) -> bool:
    return step.state is JobState.READY and step.begun_at is not None and step.begun_at <= before
