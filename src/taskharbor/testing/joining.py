"""The inline harbor's store: `harbor.using` on it takes any connection, and nobody waits where nothing works."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from typing_extensions import override

from taskharbor.driver import (
    Capability,
    Enqueued,
    EnqueueStatus,
    FlowGet,
    JobDelete,
    JobEnqueue,
    JobGet,
    Joined,
    Subscription,
    Wake,
)
from taskharbor.drivers.memory import MemoryDriver
from taskharbor.errors import UsageError
from taskharbor.flow import FlowState
from taskharbor.job import TERMINAL
from taskharbor.sending import Sender
from taskharbor.testing.passes import at_once


class Written:
    """What one `using` block has sent. It is stored at once, and taken back if the block raises."""

    def __init__(self, driver: MemoryDriver, connection: object) -> None:
        self._driver = driver
        self.connection = connection
        self.ids: list[str] = []

    def job_enqueue(self, request: JobEnqueue) -> Sequence[Enqueued]:
        """Store jobs, and note those that are new."""
        with self._driver.connect_blocking() as store:
            answers = store.job_enqueue(request)
        new = {answer.job_id for answer in answers if answer.status is EnqueueStatus.CREATED}
        self.ids += [job.id for job in request.jobs if job.id in new]
        self.ids += [step.id for flow in request.flows if flow.id in new for step in flow.steps]
        return answers

    async def ajob_enqueue(self, request: JobEnqueue) -> Sequence[Enqueued]:
        """Store jobs, and note those that are new; the async form."""
        return self.job_enqueue(request)

    def leave(self) -> None:
        """Do nothing: all is stored."""

    def take_back(self) -> None:
        """Delete what was sent, but for what is running."""

        async def delete() -> None:
            async with self._driver.connect() as store:
                await store.job_delete(JobDelete(ids=self.ids))

        at_once(delete())


class InlineSender(Sender):
    """Sends the calls of an inline harbor."""

    _written: ContextVar[Written | None] = ContextVar("taskharbor_written", default=None)

    @override
    @contextmanager
    def using(self, connection: object) -> Generator[None]:
        """Keep what the block sends if it ends well; have it deleted if it raises. The connection is not looked at."""
        assert isinstance(self._driver, MemoryDriver)  # noqa: S101 - an inline harbor has no other
        written, outer = Written(self._driver, connection), self._written.get()
        token = self._written.set(written)
        try:
            with super().using(written):
                yield
        except BaseException:
            written.take_back()
            raise
        finally:
            self._written.reset(token)
        if outer is not None and outer.connection is connection:
            outer.ids += written.ids


class InlineDriver(MemoryDriver):
    """A store in memory for a test: one that can be joined, and where waiting for nobody is refused."""

    capabilities = MemoryDriver.capabilities | {Capability.TRANSACTIONAL}

    def join(self, connection: object) -> Joined:
        """Return what `InlineSender` made."""
        assert isinstance(connection, Written)  # noqa: S101 - made there
        return connection

    @override
    def watch_jobs(self, ids: Sequence[str], wake: Wake) -> Subscription:
        """Wake when one of these jobs may have ended.

        Raises:
            UsageError: a job or flow has not ended, and no worker runs: whoever waits would wait for ever.
        """
        if not self._tables.queue_watchers:
            at_once(self._refuse_unended(ids))
        return super().watch_jobs(ids, wake)

    async def _refuse_unended(self, ids: Sequence[str]) -> None:
        async with self.connect() as store:
            jobs, flows = await store.job_get(JobGet(ids=ids)), await store.flow_get(FlowGet(ids=ids))
        for job, flow in zip(jobs, flows, strict=True):
            if flow is not None and flow.state is FlowState.RUNNING:
                what, state = f"flow {flow.id}", str(flow.state)
            elif flow is None and job is not None and job.state not in TERMINAL:
                what, state = f"job {job.id} (task {job.task!r})", str(job.state)
            else:
                continue
            raise UsageError(
                f"{what} is {state}, and nothing works on an InlineHarbor by itself; call harbor.drain() first, on an "
                "event loop `await harbor.adrain()`"
            )
