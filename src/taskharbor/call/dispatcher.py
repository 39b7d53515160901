"""How a task reaches its harbor: a small protocol, and which harbor is current.

The current harbor is the innermost `with harbor:` of this context (a thread's, or an asyncio task's), else the one that
was installed for the process.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar, Token
from datetime import timedelta
from typing import Protocol

import msgspec

from taskharbor.call.call import Call
from taskharbor.call.graph import FlowCall
from taskharbor.codec import CodecBook
from taskharbor.errors import BlockingCallError, DeadlockError, NoHarborError
from taskharbor.flow import FlowRecord, Sequel
from taskharbor.job import JobRecord, JobState


class Sent(msgspec.Struct, frozen=True, gc=False):
    """What became of a call, or of a flow, that was sent."""

    job_id: str
    created: bool
    """False when its key matched a job that is there, which is as it was, or as the call is if that replaces it."""


class Dispatcher(Protocol):
    """What tasks and handles ask of a harbor. Both colours do the same."""

    @property
    def codecs(self) -> CodecBook:
        """Return the codecs results may be written in."""
        ...

    def send(self, calls: Sequence[Call | FlowCall], /) -> Sequence[Sent]:
        """Store calls as jobs, and flows, all or none, and return one answer each, in order."""
        ...

    async def asend(self, calls: Sequence[Call | FlowCall], /) -> Sequence[Sent]:
        """Store calls as jobs, and flows, all or none, and return one answer each, in order."""
        ...

    def sequel(self, calls: Sequence[Call | FlowCall], /) -> Sequel:
        """Return calls and flows as they would be stored, to be stored with a job's success."""
        ...

    def look(self, job_id: str, /) -> JobRecord:
        """Return what the store knows of a job; raises `JobNotFound`."""
        ...

    async def alook(self, job_id: str, /) -> JobRecord:
        """Return what the store knows of a job; raises `JobNotFound`."""
        ...

    def cancel(self, job_id: str, reason: str, /) -> bool:
        """Ask for a cancel; return False if the job had ended already. Raises `JobNotFound`."""
        ...

    async def acancel(self, job_id: str, reason: str, /) -> bool:
        """Ask for a cancel; return False if the job had ended already. Raises `JobNotFound`."""
        ...

    def await_end(self, job_id: str, timeout: timedelta | None, /) -> JobRecord:
        """Block until the job is terminal; raises `ResultTimeout`, `JobNotFound`."""
        ...

    async def aawait_end(self, job_id: str, timeout: timedelta | None, /) -> JobRecord:
        """Wait until the job is terminal; raises `ResultTimeout`, `JobNotFound`."""
        ...

    @property
    def flows(self) -> FlowDesk:
        """Return what can be asked of stored flows."""
        ...


class FlowDesk(Protocol):
    """What handles ask about stored flows. Both colours do the same."""

    def get(self, flow_id: str, /) -> FlowRecord:
        """Return what the store knows of a flow; raises `JobNotFound`."""
        ...

    async def aget(self, flow_id: str, /) -> FlowRecord:
        """Return what the store knows of a flow; raises `JobNotFound`."""
        ...

    def await_end(self, flow_id: str, timeout: timedelta | None, /) -> FlowRecord:
        """Block until the flow has ended, or failed; raises `ResultTimeout`, `JobNotFound`."""
        ...

    async def aawait_end(self, flow_id: str, timeout: timedelta | None, /) -> FlowRecord:
        """Wait until the flow has ended, or failed; raises `ResultTimeout`, `JobNotFound`."""
        ...

    def end(self, flow_id: str, reason: str, /) -> bool:
        """Cancel a flow; return False if it had ended already. Raises `JobNotFound`."""
        ...

    async def aend(self, flow_id: str, reason: str, /) -> bool:
        """Cancel a flow; return False if it had ended already. Raises `JobNotFound`."""
        ...

    def steps(self, flow_id: str, /, states: Iterable[JobState] = ()) -> Sequence[JobRecord]:
        """Return the records of a flow's steps in some states, or in any, in order of id."""
        ...

    async def asteps(self, flow_id: str, /, states: Iterable[JobState] = ()) -> Sequence[JobRecord]:
        """Return the records of a flow's steps in some states, or in any, in order of id."""
        ...


class RunningJob(Protocol):
    """The job whose handler runs here."""

    @property
    def job_id(self) -> str:
        """Return its id."""
        ...

    @property
    def context(self) -> object:
        """Return what its handler sees of it."""
        ...

    def shelter(self) -> AbstractContextManager[None]:
        """Return a block in which its handler is not interrupted; what comes meanwhile waits for its end."""
        ...


_current: ContextVar[Dispatcher | None] = ContextVar("taskharbor_current", default=None)
_installed: Dispatcher | None = None
running_job: ContextVar[RunningJob | None] = ContextVar("taskharbor_running_job", default=None)
"""Set by the worker around each handler."""


def current_dispatcher(task: str) -> Dispatcher:
    """Return the current harbor.

    Raises:
        NoHarborError: there is none; names the task it was wanted for.
    """
    dispatcher = _current.get() or _installed
    if dispatcher is None:
        raise NoHarborError(
            f"task {task!r} was used while no harbor was current; open one around it (`with Harbor(...) as harbor:`, "
            "or `async with`), or call harbor.install() once at start-up. A thread does not see the `with` of another: "
            "there install() is what you need"
        )
    return dispatcher


def enter(dispatcher: Dispatcher) -> Token[Dispatcher | None]:
    """Make a harbor the current one of this context; give the token to `leave`."""
    return _current.set(dispatcher)


def leave(token: Token[Dispatcher | None]) -> None:
    """Restore what was current before `enter`."""
    _current.reset(token)


def install(dispatcher: Dispatcher | None) -> None:
    """Make a harbor the process-wide default; None takes it away."""
    global _installed  # noqa: PLW0603 - a process-wide default is what this is
    _installed = dispatcher


def installed() -> Dispatcher | None:
    """Return the process-wide default."""
    return _installed


def uninstall(dispatcher: Dispatcher) -> None:
    """Take the process-wide default away if it is this harbor."""
    if _installed is dispatcher:
        install(None)


def sheltered() -> AbstractContextManager[None]:
    """Return a block that no interrupt of a running job cuts in half: for writing to a store."""
    job = running_job.get()
    return nullcontext() if job is None else job.shelter()


def refuse_on_loop(call: str, instead: str) -> None:
    """Refuse a blocking call where it would stop an event loop.

    Raises:
        BlockingCallError: an event loop runs in this thread.
    """
    if "asyncio" not in sys.modules:  # slow to import, and where nobody has, no loop can be running
        return
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    write = instead if instead.startswith("async ") else f"await {instead}"
    raise BlockingCallError(f"{call} would block the running event loop; write `{write}`")


def refuse_in_handler(call: str) -> None:
    """Refuse to wait for a job inside a handler.

    Raises:
        DeadlockError: a handler runs here. Enough of them waiting for each other would hold every slot for ever.
    """
    job = running_job.get()
    if job is not None:
        raise DeadlockError(
            f"{call} inside a handler (job {job.job_id}) waits while holding a slot that the other job may need; "
            "join them in a flow (chain, .then), which hands the result on; or enqueue the other job, with "
            "ctx.enqueue_on_success(...) for one, and end this one"
        )
