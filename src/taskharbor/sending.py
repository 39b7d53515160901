"""From calls to stored jobs: encoding them, and sending them by the harbor's connections or the caller's own."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import msgspec

from taskharbor.answers import read_answers
from taskharbor.call import Call, FlowCall, Sent, running_job, sheltered
from taskharbor.codec import Codec
from taskharbor.connections import Connections
from taskharbor.departure import Departure
from taskharbor.driver import (
    Capability,
    Driver,
    Enqueued,
    JobEnqueue,
    Joined,
    TransactionalDriver,
    require,
)
from taskharbor.errors import StoreError, UsageError
from taskharbor.flow import NewFlow, Sequel
from taskharbor.job import NewJob, new_job_ids
from taskharbor.task import Middleware, Outgoing
from taskharbor.telemetry import Hub
from taskharbor.telemetry.announcing import TOLD_BY_PRODUCERS, tell_enqueued


class Sender:
    """Sends the calls of one harbor. Every batch is stored whole or not at all."""

    def __init__(
        self,
        driver: Driver,
        connections: Connections,
        codec: Codec,
        *,
        check: bool,
        hub: Hub,
        middleware: Sequence[Middleware] = (),
    ) -> None:
        self._driver = driver
        self._connections = connections
        self._layers = [layer for layer in middleware if layer.surrounds_enqueue]
        self._codec = codec
        self._check = check
        self._hub = hub
        self._block: ContextVar[_Block | None] = ContextVar("taskharbor_using", default=None)

    def send(self, calls: Sequence[Call | FlowCall], *, check: bool | None = None) -> list[Sent]:
        """Store calls as jobs, and flows, and return one answer each, in order.

        Raises:
            PayloadError: arguments do not fit a signature.
            FlowError: steps that cannot be joined so.
            PayloadTooLarge: they are larger than a job carries.
            DuplicateJob: a key is taken, and its call asked to be told.
            KeyConflict: a key is taken by a job with other arguments.
        """
        departure = self._departure(calls)
        if departure is None:
            return self._send(calls, self._request(calls, check))
        with departure:
            request = self._request(calls, check, departure)
            departure.asks()
            return self._send(calls, request, departure)

    async def asend(self, calls: Sequence[Call | FlowCall], *, check: bool | None = None) -> list[Sent]:
        """Store calls as jobs, and flows; the async form of `send`."""
        departure = self._departure(calls)
        if departure is None:
            return await self._asend(calls, self._request(calls, check))
        with departure:
            request = self._request(calls, check, departure)
            departure.asks()
            return await self._asend(calls, request, departure)

    def _send(
        self, calls: Sequence[Call | FlowCall], request: JobEnqueue, departure: Departure | None = None
    ) -> list[Sent]:
        if not (request.jobs or request.flows):
            return []
        # Until layers know of it, too: an interrupt in between would have them hear that nothing was stored.
        with sheltered():
            block = self._claimed()
            if block is not None:
                # Whether these jobs come to be is decided by the caller's commit: nothing is told.
                with block.sending():
                    return _read(calls, request, block.joined.job_enqueue(request), departure)
            answers = self._connections.producer().job_enqueue(request)
            if self._hub.active:
                tell_enqueued(self._hub, request, answers)
            sent = _read(calls, request, answers, departure)
        if self._hub.active:
            self._hub.wait_for_room(TOLD_BY_PRODUCERS)
        return sent

    async def _asend(
        self, calls: Sequence[Call | FlowCall], request: JobEnqueue, departure: Departure | None = None
    ) -> list[Sent]:
        if not (request.jobs or request.flows):
            return []
        block = self._claimed()
        if block is not None:
            with block.sending():
                return _read(calls, request, await block.joined.ajob_enqueue(request), departure)
        store = await self._connections.store()
        answers = await store.job_enqueue(request)
        if self._hub.active:
            tell_enqueued(self._hub, request, answers)
        sent = _read(calls, request, answers, departure)
        if self._hub.active:
            await self._hub.room(TOLD_BY_PRODUCERS)
        return sent

    @contextmanager
    def using(self, connection: object) -> Generator[None]:
        """Send what this block sends through the caller's own transaction.

        Raises:
            UnsupportedError: the driver cannot join transactions.
            UsageError: it is no connection to this store; or the block ends while a child still sends through it.
        """
        require(self._driver, Capability.TRANSACTIONAL, "harbor.using()")
        if not isinstance(self._driver, TransactionalDriver):
            raise StoreError(
                f"the driver {self._driver.name!r} says that it is transactional and has no `join`; this is a bug in it"
            )
        block = _Block(self._driver.join(connection), outer=self._block.get())
        token = self._block.set(block)
        try:
            yield
        finally:
            with contextlib.suppress(ValueError):  # the block ends in another context than it began in
                self._block.reset(token)
            left_behind = block.end()
            block.joined.leave()
        # Only where the block ends well: an error under way says more, and ends the transaction by itself.
        if left_behind:
            raise UsageError(
                f"{left_behind} enqueue(s) begun inside this `harbor.using(...)` are still under way at its end, and "
                "whether they are part of the transaction is open; await the tasks, or join the threads, that you "
                "start in the block before it ends"
            )

    def sequel(self, calls: Sequence[Call | FlowCall]) -> Sequel:
        """Return calls and flows as they would be stored, to be stored with a job's success."""
        departure = self._departure(calls)
        if departure is None:
            request = self._request(calls, None)
        else:
            with departure:
                request = self._request(calls, None, departure)
        return Sequel(jobs=tuple(request.jobs), flows=tuple(request.flows))

    def _departure(self, calls: Sequence[Call | FlowCall]) -> Departure | None:
        """Return the batch's way through middleware, None if there is none around it."""
        if not calls:
            return None
        if self._layers or any(isinstance(call, Call) and call.callee.surrounds_enqueue for call in calls):
            return Departure(self._layers, calls)
        return None

    def _request(
        self, calls: Sequence[Call | FlowCall], check: bool | None, departure: Departure | None = None
    ) -> JobEnqueue:
        check = self._check if check is None else check
        if departure is not None:
            departure.go_in()
            return self._shown_request(calls, departure.outgoing, check=check)
        single = [call for call in calls if isinstance(call, Call)]
        jobs = [
            call.callee.new_job(call.arguments, call.options, self._codec, check=check, job_id=job_id)
            for job_id, call in zip(new_job_ids(len(single)), single, strict=True)
        ]
        if len(single) == len(calls):
            return JobEnqueue(jobs=jobs, all_or_none=True)
        from taskharbor.workflow.lowering import lower

        flows = [lower(call, self._codec, check=check) for call in calls if isinstance(call, FlowCall)]
        return JobEnqueue(jobs=jobs, flows=flows, all_or_none=True)

    def _shown_request(
        self, calls: Sequence[Call | FlowCall], outgoing: Sequence[Outgoing], *, check: bool
    ) -> JobEnqueue:
        """Return the request for calls that middleware has seen: with the ids it was told and the metadata it left."""
        jobs: list[NewJob] = []
        flows: list[NewFlow] = []
        for call, one in zip(calls, outgoing, strict=True):
            meta = dict(one.meta)  # who holds on to its own may go on changing that
            if isinstance(call, Call):
                job = call.callee.new_job(
                    call.arguments, call.options, self._codec, check=check, job_id=one.job_id
                )
                jobs.append(msgspec.structs.replace(job, meta=meta))
            else:
                from taskharbor.workflow.lowering import lower

                flows.append(lower(call, self._codec, check=check, flow_id=one.job_id, meta=meta))
        return JobEnqueue(jobs=jobs, flows=flows, all_or_none=True)

    def _claimed(self) -> _Block | None:
        """Return the innermost block that has not ended, a send noted in it; None if there is none."""
        block = self._block.get()
        while block is not None and not block.claim():
            block = block.outer
        return block


def _read(
    calls: Sequence[Call | FlowCall],
    request: JobEnqueue,
    answers: Sequence[Enqueued],
    departure: Departure | None,
) -> list[Sent]:
    """Return what the store's answers mean, having told the layers."""
    sent = read_answers(calls, request, answers)
    if departure is not None:
        departure.stored(sent)
    return sent


class _Block:
    """One `using` block. Children begun in it see it in their context, and some outlive it."""

    def __init__(self, joined: Joined, outer: _Block | None) -> None:
        self.joined = joined
        self.outer = outer
        # A worker begun in the block gives its context to its handlers, and those are no part of the block.
        self._job = running_job.get()
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._under_way = 0
        self._ended = False

    def claim(self) -> bool:
        """Note a send through this block, and return whether the block still stands and is this code's own.

        Raises:
            UsageError: this is a forked child: the connection is the parent's.
        """
        if running_job.get() is not self._job:
            return False
        if self._pid != os.getpid():
            raise UsageError(
                "this process was forked inside a `harbor.using(...)` block, whose connection and transaction are its "
                "parent's; fork before the block, or enqueue in the parent"
            )
        with self._lock:
            if self._ended:
                return False
            self._under_way += 1
            return True

    @contextmanager
    def sending(self) -> Generator[None]:
        """Return the span of a send that was claimed."""
        try:
            yield
        finally:
            with self._lock:
                self._under_way -= 1

    def end(self) -> int:
        """Let nothing more through, and return how many sends are still under way."""
        with self._lock:
            self._ended = True
            return self._under_way
