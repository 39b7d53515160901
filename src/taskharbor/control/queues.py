"""`harbor.queues`: whole queues, paused, resumed and listed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from taskharbor.call import refuse_on_loop
from taskharbor.control.acts import make_act, told_names
from taskharbor.control.asking import Asks, text_list
from taskharbor.driver import QueueInfo, QueueList, QueuePause, QueueResume, Store
from taskharbor.errors import OptionError

T = TypeVar("T")


class Queues:
    """Whole queues. Every method has an `a` form for event loops."""

    def __init__(self, asks: Asks) -> None:
        """Made by the harbor."""
        self._asks = asks

    def pause(self, *queues: str, reason: str = "", by: str = "") -> Sequence[bool]:
        """Stop workers from taking jobs of these queues, at once; what runs goes on, and enqueue goes on.

        Return of each whether it was not paused before: where it was, the first reason stands.
        """
        request = _pause(queues, reason, by)
        return self._block("pause", lambda store: store.queue_pause(request))

    async def apause(self, *queues: str, reason: str = "", by: str = "") -> Sequence[bool]:
        """Stop workers from taking jobs of these queues; the async form of `pause`."""
        request = _pause(queues, reason, by)
        return await self._asks.aask(lambda store: store.queue_pause(request))

    def resume(self, *queues: str, reason: str = "", by: str = "") -> Sequence[bool]:
        """Let workers take jobs of these queues again; return of each whether it was paused."""
        request = _resume(queues, reason, by)
        return self._block("resume", lambda store: store.queue_resume(request))

    async def aresume(self, *queues: str, reason: str = "", by: str = "") -> Sequence[bool]:
        """Let workers take jobs of these queues again; the async form of `resume`."""
        request = _resume(queues, reason, by)
        return await self._asks.aask(lambda store: store.queue_resume(request))

    def list(self) -> Sequence[QueueInfo]:
        """Return every queue that holds live jobs or is paused, sorted by name."""
        return self._block("list", lambda store: store.queue_list(QueueList()))

    async def alist(self) -> Sequence[QueueInfo]:
        """Return every queue that holds live jobs or is paused; the async form of `list`."""
        return await self._asks.aask(lambda store: store.queue_list(QueueList()))

    def _block(self, name: str, work: Callable[[Store], Awaitable[T]]) -> T:
        refuse_on_loop(f"harbor.queues.{name}()", f"harbor.queues.a{name}(...)")
        return self._asks.ask(work)


def _pause(queues: Sequence[str], reason: str, by: str) -> QueuePause:
    wanted = _some(queues)
    act = make_act("queues.pause", told_names(wanted), by=by, reason=reason)
    return QueuePause(queues=wanted, reason=reason, by=by, act=act)


def _resume(queues: Sequence[str], reason: str, by: str) -> QueueResume:
    wanted = _some(queues)
    return QueueResume(queues=wanted, act=make_act("queues.resume", told_names(wanted), by=by, reason=reason))


def _some(queues: Sequence[str]) -> Sequence[str]:
    if not queues:
        raise OptionError("no queue was named; name one or more")
    return text_list(queues, "queues", "names, one by one")
