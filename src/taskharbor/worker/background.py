"""A worker's own tasks on its loop. None of them may fail unheard: the worker stops, and says why."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

logger = logging.getLogger("taskharbor.worker")


class Background:
    """The tasks of one worker beside its handlers."""

    def __init__(self, worker: str, on_failure: Callable[[], None]) -> None:
        """Make it; `on_failure` is called on the loop when a task has failed."""
        self._worker = worker
        self._on_failure = on_failure
        self._tasks: list[asyncio.Task[None]] = []
        self.failure: BaseException | None = None
        """What one of them failed with, the last one's if several did."""

    def spawn(self, work: Coroutine[Any, Any, None], what: str) -> asyncio.Task[None]:
        """Start a task; `what` names it in the log."""
        self._tasks = [task for task in self._tasks if not task.done()]
        task = asyncio.get_running_loop().create_task(work, name=f"taskharbor-{what}")
        task.add_done_callback(self._on_end)
        self._tasks.append(task)
        return task

    def fail(self, error: BaseException, what: str) -> None:
        """Note that something failed which the worker cannot go on without."""
        self.failure = error
        logger.critical("%s of worker %s failed; it stops", what, self._worker, exc_info=error)
        self._on_failure()

    async def cancel(self) -> None:
        """Cancel all tasks and wait for their ends."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self.fail(error, task.get_name())
