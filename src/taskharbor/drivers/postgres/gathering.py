"""Enqueues that are asked at once on one event loop, written by one statement and one commit.

A commit waits for the disk, and takes longer than all else; so whatever is asked while one is under way goes into the
next together, and each caller is answered once its own job is committed. Only small requests are joined, and none with
an idempotency key, which could hold the others up: it waits for any transaction that has that key. Nor are flows,
which are several statements.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from taskharbor.driver import Enqueued, JobEnqueue
from taskharbor.errors import StoreUnavailable

_SMALL = 10
"""Jobs; a larger request gains nothing by waiting for others."""
_JOBS = 1000
_BYTES = 1 << 20

_Waiting: TypeAlias = tuple[JobEnqueue, asyncio.Future[Sequence[Enqueued]]]


class Gathering:
    """Joins the enqueues of one event loop."""

    def __init__(self, ask: Callable[[JobEnqueue], Awaitable[Sequence[Enqueued]]]) -> None:
        """Prepare it; `ask` writes a request down."""
        self._ask = ask
        self._waiting: list[_Waiting] = []
        self._task: asyncio.Task[None] | None = None

    async def enqueue(self, request: JobEnqueue) -> Sequence[Enqueued]:
        """Store jobs, together with what others ask meanwhile, and return one answer each."""
        if not _joinable(request):
            return await self._ask(request)
        future: asyncio.Future[Sequence[Enqueued]] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if self._task is None:
            # A task of its own: whoever was first may be cancelled, and the others wait for their answers all the same.
            self._task = asyncio.create_task(self._write(), name="taskharbor-enqueue")
            self._task.add_done_callback(self._ended)
        return await future

    async def close(self) -> None:
        """Wait until everything asked is answered."""
        while self._task is not None and not self._task.done():
            await asyncio.wait([self._task])

    async def _write(self) -> None:
        while self._waiting:
            batch = self._take()
            if len(batch) == 1:
                await self._one(*batch[0])
            else:
                await self._together(batch)
        self._task = None

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Make room for the next task after one that was cancelled, perhaps before it began; who waits goes with it."""
        if self._task is not task:
            return
        self._task = None
        waiting, self._waiting = self._waiting, []
        for _, future in waiting:
            future.cancel()

    def _take(self) -> list[_Waiting]:
        """Take as many as one statement should have, without those whose callers have gone."""
        batch: list[_Waiting] = []
        jobs = size = 0
        for place, (request, future) in enumerate(self._waiting):
            if future.cancelled():
                continue
            jobs += len(request.jobs)
            size += sum([len(job.payload) for job in request.jobs])
            if batch and (jobs > _JOBS or size > _BYTES):
                self._waiting = self._waiting[place:]
                return batch
            batch.append((request, future))
        self._waiting = []
        return batch

    async def _together(self, batch: Sequence[_Waiting]) -> None:
        jobs = [job for request, _ in batch for job in request.jobs]
        try:
            answers = await self._ask(JobEnqueue(jobs=jobs))
        except StoreUnavailable as error:
            for _, future in batch:
                _fail(future, error)
            return
        except Exception:  # noqa: BLE001 - perhaps the fault of one of them: each by itself, then
            for request, future in batch:
                await self._one(request, future)
            return
        except BaseException as error:
            for _, future in batch:
                _fail(future, error)
            raise
        begin = 0
        for request, future in batch:
            end = begin + len(request.jobs)
            if not future.done():
                future.set_result(answers[begin:end])
            begin = end

    async def _one(self, request: JobEnqueue, future: asyncio.Future[Sequence[Enqueued]]) -> None:
        try:
            answers = await self._ask(request)
        except Exception as error:  # noqa: BLE001 - the caller's to handle
            _fail(future, error)
        except BaseException as error:
            _fail(future, error)
            raise
        else:
            if not future.done():
                future.set_result(answers)


def _fail(future: asyncio.Future[Sequence[Enqueued]], error: BaseException) -> None:
    if future.done():
        return
    if isinstance(error, Exception):
        future.set_exception(error)
    else:
        future.cancel()


def _joinable(request: JobEnqueue) -> bool:
    jobs = request.jobs
    if request.now is not None or request.flows or len(jobs) > _SMALL:
        return False
    return not any([job.key is not None or job.step is not None for job in jobs])  # noqa: C419 - quicker
