"""`harbor.queues`: whole queues, paused, resumed and listed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from taskharbor.call import refuse_on_loop
from taskharbor.control.asking import Asks, check_notes, text_list
from taskharbor.driver import QueueInfo, QueueList, QueuePause, QueueResume, Store
from taskharbor.errors import OptionError

T = TypeVar("T")


class Queues:
    """Whole queues. Every method has an `a` form for event loops."""

    def __init__(self, asks: Asks) -> None:
        """Made by the harbor."""
        self._asks = asks

    def pause(self, *queues: str, reason: str = "", by: str = "") -> None:
        """Stop workers from taking jobs of these queues, at once; what runs goes on, and enqueue goes on."""
        check_notes(reason, by)
        request = QueuePause(queues=_some(queues), reason=reason, by=by)
        self._block("pause", lambda store: store.queue_pause(request))

    async def apause(self, *queues: str, reason: str = "", by: str = "") -> None:
        """Stop workers from taking jobs of these queues; the async form of `pause`."""
        check_notes(reason, by)
        request = QueuePause(queues=_some(queues), reason=reason, by=by)
        await self._asks.aask(lambda store: store.queue_pause(request))

    def resume(self, *queues: str) -> None:
        """Let workers take jobs of these queues again."""
        self._block("resume", lambda store: store.queue_resume(QueueResume(queues=_some(queues))))

    async def aresume(self, *queues: str) -> None:
        """Let workers take jobs of these queues again; the async form of `resume`."""
        await self._asks.aask(lambda store: store.queue_resume(QueueResume(queues=_some(queues))))

    def list(self) -> Sequence[QueueInfo]:
        """Return every queue that holds live jobs or is paused, sorted by name."""
        return self._block("list", lambda store: store.queue_list(QueueList()))

    async def alist(self) -> Sequence[QueueInfo]:
        """Return every queue that holds live jobs or is paused; the async form of `list`."""
        return await self._asks.aask(lambda store: store.queue_list(QueueList()))

    def _block(self, name: str, work: Callable[[Store], Awaitable[T]]) -> T:
        refuse_on_loop(f"harbor.queues.{name}()", f"harbor.queues.a{name}(...)")
        return self._asks.ask(work)


def _some(queues: Sequence[str]) -> Sequence[str]:
    if not queues:
        raise OptionError("no queue was named; name one or more")
    return text_list(queues, "queues", "names, one by one")
