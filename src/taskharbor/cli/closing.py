"""What a worker that ran `--until-idle` says at its end: what it did, and what it left in its queues, and why."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from taskharbor.driver import QueueInfo
from taskharbor.errors import TaskHarborError
from taskharbor.job import DEFAULT_QUEUE

if TYPE_CHECKING:
    from taskharbor import Harbor
    from taskharbor.worker import Worker, WorkerCounts, WorkerSettings

logger = logging.getLogger("taskharbor.worker")


async def tell_closing(harbor: Harbor, settings: WorkerSettings, worker: Worker) -> None:
    """Log what a worker that has stopped did, and what is left in its queues. Raises nothing: the work is done."""
    declared = {DEFAULT_QUEUE, *(task.options.queue for task in harbor.registry)}
    served = declared if settings.queues is None else frozenset(settings.queues)
    try:
        left = told_left([queue for queue in await harbor.queues.alist() if queue.name in served])
    except TaskHarborError as error:
        left = f"unknown ({error})"
    logger.info("done: %s; left: %s", told_done(worker.counts), left)


def told_done(counts: WorkerCounts) -> str:
    """Return what became of deliveries: `2 succeeded, 1 dead`."""
    parts = [f"{count:,} {state}" for state, count in sorted(counts.settled.items()) if count]
    if counts.stale:
        parts.append(f"{counts.stale:,} whose lease was lost")
    return ", ".join(parts) or "nothing"


def told_left(queues: Sequence[QueueInfo]) -> str:
    """Return what is still in queues, by what keeps it there: `2 leased by other workers, 1 parked`."""
    counts = {
        "ready": sum(queue.ready for queue in queues if not queue.paused),
        "ready in paused queues": sum(queue.ready for queue in queues if queue.paused),
        "due later": sum(queue.scheduled for queue in queues),
        "parked": sum(queue.parked for queue in queues),
        "waiting for earlier steps": sum(queue.waiting for queue in queues),
        "leased by other workers": sum(queue.running for queue in queues),
    }
    return ", ".join(f"{count:,} {where}" for where, count in counts.items() if count) or "nothing"
