"""`harbor.events(...)`: which events a listener asks for, and of which types they are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar, cast, get_args, overload

from taskharbor.errors import OptionError, nearest
from taskharbor.event import JobEvent
from taskharbor.telemetry.buffer import Buffer, Overflow
from taskharbor.telemetry.hub import Hub
from taskharbor.telemetry.news import News
from taskharbor.telemetry.subscription import Subscription

A = TypeVar("A", bound=JobEvent)
B = TypeVar("B", bound=JobEvent)
C = TypeVar("C", bound=JobEvent)
D = TypeVar("D", bound=JobEvent)

KINDS: frozenset[type] = frozenset(get_args(JobEvent))
_BY_NAME = {kind.__name__: kind for kind in KINDS}
_POLICIES: dict[str, Overflow] = {
    "drop_oldest": "drop_oldest",
    "drop_newest": "drop_newest",
    "wait": "wait",
}
SIZE = 1000
_LARGEST = 10_000_000


class Events:
    """Calling it subscribes to events of this process. Made by the harbor, as `harbor.events`."""

    def __init__(self, hub: Hub) -> None:
        """Made by the harbor."""
        self._hub = hub

    @overload
    def __call__(
        self,
        *,
        tasks: Iterable[str] = (),
        queues: Iterable[str] = (),
        size: int = SIZE,
        when_full: Overflow = "drop_oldest",
    ) -> Subscription[JobEvent]: ...
    @overload
    def __call__(
        self,
        *,
        kinds: type[A] | tuple[type[A]],
        tasks: Iterable[str] = (),
        queues: Iterable[str] = (),
        size: int = SIZE,
        when_full: Overflow = "drop_oldest",
    ) -> Subscription[A]: ...
    @overload
    def __call__(
        self,
        *,
        kinds: tuple[type[A], type[B]],
        tasks: Iterable[str] = (),
        queues: Iterable[str] = (),
        size: int = SIZE,
        when_full: Overflow = "drop_oldest",
    ) -> Subscription[A | B]: ...
    @overload
    def __call__(
        self,
        *,
        kinds: tuple[type[A], type[B], type[C]],
        tasks: Iterable[str] = (),
        queues: Iterable[str] = (),
        size: int = SIZE,
        when_full: Overflow = "drop_oldest",
    ) -> Subscription[A | B | C]: ...
    @overload
    def __call__(
        self,
        *,
        kinds: tuple[type[A], type[B], type[C], type[D]],
        tasks: Iterable[str] = (),
        queues: Iterable[str] = (),
        size: int = SIZE,
        when_full: Overflow = "drop_oldest",
    ) -> Subscription[A | B | C | D]: ...
    @overload
    def __call__(
        self,
        *,
        kinds: Iterable[type[JobEvent]],
        tasks: Iterable[str] = (),
        queues: Iterable[str] = (),
        size: int = SIZE,
        when_full: Overflow = "drop_oldest",
    ) -> Subscription[JobEvent]: ...
    def __call__(
        self,
        *,
        kinds: object = (),
        tasks: Iterable[str] = (),
        queues: Iterable[str] = (),
        size: int = SIZE,
        when_full: Overflow = "drop_oldest",
    ) -> Subscription[JobEvent]:
        """Listen to what happens to jobs in this process, from now on.

        What its producers enqueue through this harbor, what its workers do, and what is requeued by it. Events of other
        processes come by `harbor.feed(...)`. They are news, told at most once; what is true of a job is in its record.

        Args:
            kinds: one class of events, or several; empty for all. Up to four in a tuple give events of just those
                types.
            tasks: only of these, by the names that jobs were enqueued under; empty for all.
            queues: only of these; empty for all.
            size: how many are kept until they are read.
            when_full: what becomes of an event that finds as many unread. `drop_oldest` and `drop_newest` count what
                is dropped (`subscription.dropped`). `wait` drops none: producers wait, after they have stored their
                jobs, and workers of this harbor neither write further outcomes nor start jobs, until there is room;
                what is under way then may go beyond `size`.

        Raises:
            OptionError: something that is no event, no list of names, or no such policy.
        """
        buffer = made_buffer(_kinds(kinds), tasks, queues, size, when_full)
        return Subscription(self._hub, buffer, _as_event, "events")


def made_buffer(
    kinds: frozenset[type], tasks: Iterable[str], queues: Iterable[str], size: object, when_full: object
) -> Buffer:
    """Return a buffer with these options.

    Raises:
        OptionError: one that cannot be.
    """
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= _LARGEST:
        raise OptionError(f"size={size!r}: expected a number of news from 1 to {_LARGEST:,}")
    policy = _POLICIES.get(when_full) if isinstance(when_full, str) else None
    if policy is None:
        known = ", ".join(map(repr, _POLICIES))
        raise OptionError(
            f"when_full={when_full!r}{nearest(str(when_full), tuple(_POLICIES))}: expected one of {known}"
        )
    return Buffer(
        kinds=kinds,
        tasks=_names(tasks, "tasks"),
        queues=_names(queues, "queues"),
        size=size,
        when_full=policy,
    )


def _kinds(given: object) -> frozenset[type]:
    if isinstance(given, str) or not isinstance(given, (type, Iterable)):
        raise OptionError(f"kinds={given!r}: expected classes of events, such as (JobDead, JobRetrying)")
    kinds = [given] if isinstance(given, type) else list(cast("Iterable[object]", given))
    for kind in kinds:
        if kind not in KINDS:
            name = getattr(kind, "__name__", repr(kind))
            raise OptionError(
                f"kinds: {name} is no event{nearest(name, sorted(_BY_NAME))}; there are {', '.join(sorted(_BY_NAME))}"
            )
    return frozenset(kind for kind in kinds if isinstance(kind, type)) or KINDS


def _names(given: object, what: str) -> frozenset[str]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise OptionError(f"{what}={given!r}: expected a list of names")
    names = list(cast("Iterable[object]", given))
    for name in names:
        if not isinstance(name, str):
            raise OptionError(f"{what}: expected names, got {name!r}")
    return frozenset(name for name in names if isinstance(name, str))


def _as_event(news: News) -> JobEvent:
    return cast("JobEvent", news)
