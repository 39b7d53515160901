"""What a slot of a worker holds, and how it is stopped."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from taskharbor.worker.plan import TaskPlan

if TYPE_CHECKING:
    from taskharbor.worker.run import Run


class Stop(Enum):
    """Why a running job is asked to stop."""

    CANCEL = "cancelled"
    TIMEOUT = "timed out"
    SHUTDOWN = "the worker shuts down"
    LOST = "its lease was lost to another worker"


class Work(ABC):
    """What has one slot and is called once: a run, or several of one task as a batch.

    Each sets these for itself: a run is made for every job, and each call that it is made by costs.
    """

    __slots__ = ("ended", "interrupt", "plan", "started", "task", "timer")

    plan: TaskPlan
    started: bool
    """Its handler has begun."""
    ended: float
    """When its call ended, on the monotonic clock; 0 before."""
    interrupt: Interrupt | None
    """How to stop it, once it runs."""
    task: asyncio.Task[None] | None
    """What drives an async handler."""
    timer: asyncio.TimerHandle | None

    @property
    @abstractmethod
    def parts(self) -> Sequence[Run]:
        """Return the runs that it stands for."""

    @property
    @abstractmethod
    def job_id(self) -> str:
        """Return its job's id, or that of the first."""

    @property
    @abstractmethod
    def context(self) -> object:
        """Return what its handler sees of it."""

    @property
    def timeout(self) -> timedelta | None:
        """Return how long its handler may run; one for all parts."""
        return self.parts[0].delivery.timeout

    @property
    @abstractmethod
    def queue(self) -> str:
        """Return the queue for which it has its slot."""

    @property
    @abstractmethod
    def solo(self) -> bool:
        """Return whether it is a job that runs beside no other of its kind."""

    def time_out(self) -> None:
        """Ask all of it to stop."""
        for run in self.parts:
            run.ask_to_stop(Stop.TIMEOUT)

    def shelter(self) -> AbstractContextManager[None]:
        """Return a block in which its handler is not interrupted."""
        interrupt = self.interrupt
        return nullcontext() if interrupt is None else interrupt.shelter()


class Interrupt(Protocol):
    """How a running job is stopped; each kind of handler has its own way."""

    def interrupt(self, run: Work, /) -> None:
        """Interrupt the run if it is still the one that runs. Callable from any thread."""
        ...

    def shelter(self) -> AbstractContextManager[None]:
        """Return a block in which no interrupt lands."""
        ...


class _Cancel:
    """Stops an async handler: `CancelledError` at its next await. Only used in the loop's own thread."""

    def interrupt(self, run: Work) -> None:
        # A task cancelled before its first step would never run at all, and nobody would hear of its end.
        if run.started and run.task is not None:
            run.task.cancel()

    def shelter(self) -> AbstractContextManager[None]:
        # A cancel only lands at an await, and the store's own verbs are ready for it there.
        return nullcontext()


CANCEL: Interrupt = _Cancel()
