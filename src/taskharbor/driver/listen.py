"""Wake-ups: hints that something may have changed, so that nobody polls quickly and nobody waits long.

A wake-up may come late, twice, for nothing, or never. So whoever waits for one looks again now and then by itself, at
the driver's `poll_interval`, and correctness never rests on them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

Wake: TypeAlias = Callable[[], None]
"""Called from any thread, inside any event loop. Must return at once, must not raise, must not call the driver."""


class Subscription(Protocol):
    """A standing request for wake-ups."""

    def close(self) -> None:
        """End it. Idempotent; a call under way in another thread may still arrive."""
        ...


class Listen(Protocol):
    """Asking for wake-ups, from any thread."""

    def watch_queues(self, queues: Sequence[str], wake: Wake, /) -> Subscription:
        """Wake when jobs of these queues may have become due, or may become due earlier than was told."""
        ...

    def watch_jobs(self, ids: Sequence[str], wake: Wake, /) -> Subscription:
        """Wake when one of these jobs may have reached a terminal state, or was deleted."""
        ...
