"""How a verb of the memory driver is run, and those of a producer, which any thread may call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from taskharbor.clock import micros
from taskharbor.driver import (
    CancelStatus,
    Enqueued,
    FlowCancel,
    FlowGet,
    JobCancel,
    JobEnqueue,
    JobGet,
    Request,
)
from taskharbor.drivers.memory import acts, control, enqueue, flow, look
from taskharbor.drivers.memory.tables import Tables
from taskharbor.flow import FlowRecord
from taskharbor.job import JobRecord

Q = TypeVar("Q", bound=Request)
A = TypeVar("A")


def run(tables: Tables, verb: Callable[[Tables, Q, int], A], request: Q) -> A:
    """Carry out one verb under the lock, and wake whom it concerns once the lock is free."""
    with tables.lock:
        now = micros(tables.clock.now() if request.now is None else request.now)
        answer = verb(tables, request, now)
        if request.act is not None:
            acts.note(tables, request, answer, now)
        wakes = tables.take_wakes()
    for wake in wakes:
        wake()
    return answer


class BlockingMemoryStore:
    """The verbs of a producer, in blocking form."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def job_enqueue(self, request: JobEnqueue) -> Sequence[Enqueued]:
        """Store jobs and flows and return one answer each: for the jobs in order, then for the flows."""
        return run(self._tables, enqueue.job_enqueue, request)

    def job_get(self, request: JobGet) -> Sequence[JobRecord | None]:
        """Return one record an id, in order."""
        return run(self._tables, look.job_get, request)

    def job_cancel(self, request: JobCancel) -> Sequence[CancelStatus]:
        """Cancel jobs and return one answer each, in order."""
        return run(self._tables, control.job_cancel, request)

    def flow_get(self, request: FlowGet) -> Sequence[FlowRecord | None]:
        """Return one record an id, in order."""
        return run(self._tables, flow.flow_get, request)

    def flow_cancel(self, request: FlowCancel) -> Sequence[CancelStatus]:
        """End flows and return one answer each, in order."""
        return run(self._tables, flow.flow_cancel, request)
