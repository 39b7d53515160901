"""The feed: events of all processes, kept for those who read them later, elsewhere.

A store keeps events only while somebody watches: a reader says so with `event_watch`, for a time, again and again.
Workers learn of it from `lease_extend` (`LeaseExtended.watched`) and from the answers to what they append, so that
nothing is written, or asked, while nobody looks.

Readers hold a *cursor*: a text that only the driver understands. Reading from a cursor gives every event that was
appended after it was made, each once, in an order that is the same for all readers: none is passed over because a
transaction that began earlier was committed later.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

import msgspec

from taskharbor.driver.request import Request
from taskharbor.event import JobEvent

EVENT_RETAIN = timedelta(hours=24)
"""What was appended longer ago than this `history_prune` removes, read or not."""


class EventWatch(Request, frozen=True, kw_only=True):
    """Have events kept from now on, until so long after now. Asked again, the later end stands."""

    reader: str
    ttl: timedelta


class EventWatched(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to an `event_watch`."""

    cursor: str
    """Of this instant: what is appended from now on comes after it."""
    lapsed: bool
    """The reader did not watch until now: it is new, or its time was over. What came to pass since it last watched may
    not have been kept."""
    unwatched: bool
    """No reader at all watched until now: of what came to pass just before nothing was kept."""


class EventUnwatch(Request, frozen=True, kw_only=True):
    """Say that readers look no more. What was kept stays until it is pruned."""

    readers: Sequence[str]


class EventAppend(Request, frozen=True, kw_only=True):
    """Keep events, if anybody watches. One whose id is kept already is not kept again."""

    events: Sequence[JobEvent]


class EventRead(Request, frozen=True, kw_only=True):
    """Read on from a cursor."""

    after: str
    """The cursor; "" reads from the oldest event that is kept."""
    limit: int = 500


class EventPage(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to an `event_read`."""

    events: Sequence[JobEvent]
    """The oldest first; at most `limit`."""
    cursor: str
    """To read on from. Without events it is as good as the one asked with."""
    missed: bool = False
    """Events after the cursor asked with may have been removed before they were read."""


class EventFeed(Protocol):
    """The verbs of the feed."""

    async def event_watch(self, request: EventWatch, /) -> EventWatched:
        """Have events kept; return the cursor of this instant, and whether the reader, and all, had ceased to watch.

        Raises `OptionError` for a reader without a name, as no other verb of the feed does.
        """
        ...

    async def event_unwatch(self, request: EventUnwatch, /) -> None:
        """Say that readers look no more; those unknown are passed over."""
        ...

    async def event_append(self, request: EventAppend, /) -> bool:
        """Keep events; return whether anybody watches. If not, nothing was kept."""
        ...

    async def event_read(self, request: EventRead, /) -> EventPage:
        """Return events after a cursor.

        Raises `OptionError` for what is no cursor of this driver.
        """
        ...
