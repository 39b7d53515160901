"""Who waits for what, in this process."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence

from taskharbor.driver import Wake

logger = logging.getLogger("taskharbor.postgres")


class _Subscriber:
    """One subscription, which is itself and no other: callbacks may be equal, or not hashable."""

    __slots__ = ("wake",)

    def __init__(self, wake: Wake) -> None:
        self.wake = wake


class Watchers:
    """Subscriptions by the name of what they wait for. From any thread."""

    def __init__(self) -> None:
        # Reentrant: a signal's handler may enqueue while its thread is in here.
        self._lock = threading.RLock()
        self._by_name: dict[str, dict[_Subscriber, None]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_name)

    def add(self, names: Sequence[str], wake: Wake) -> Callable[[], None]:
        """Note that someone waits for these, and return what ends that."""
        subscriber = _Subscriber(wake)
        with self._lock:
            for name in names:
                self._by_name.setdefault(name, {})[subscriber] = None

        def remove() -> None:
            with self._lock:
                for name in names:
                    left = self._by_name.get(name, {})
                    left.pop(subscriber, None)
                    if not left:
                        self._by_name.pop(name, None)

        return remove

    def names(self) -> list[str]:
        """Return all that somebody waits for."""
        with self._lock:
            return list(self._by_name)

    def watched(self, names: Iterable[str]) -> list[str]:
        """Return those of the names that somebody waits for."""
        with self._lock:
            return [name for name in names if name in self._by_name]

    def wake(self, names: Iterable[str]) -> None:
        """Wake each who waits for any of these, once."""
        if not self._by_name:
            return
        with self._lock:
            found = {subscriber: None for name in names for subscriber in self._by_name.get(name, ())}
        _wake_all(found)

    def wake_everybody(self) -> None:
        """Wake each who waits, once."""
        self.wake(self.names())


def _wake_all(subscribers: Iterable[_Subscriber]) -> None:
    for subscriber in subscribers:
        try:
            subscriber.wake()
        except Exception:
            # Theirs; the others shall be woken all the same, and what was committed stays so.
            logger.exception("a wake-up could not be delivered")
