"""event_watch, event_unwatch, event_append, event_read: the feed, kept while somebody watches."""

from __future__ import annotations

from itertools import islice

from taskharbor.clock import duration_micros
from taskharbor.driver import (
    EVENT_RETAIN,
    EventAppend,
    EventPage,
    EventRead,
    EventUnwatch,
    EventWatch,
    EventWatched,
    FeedCursor,
)
from taskharbor.drivers.memory.rows import Kept
from taskharbor.drivers.memory.tables import Feed, Tables
from taskharbor.errors import OptionError

_DRIVER = "memory"


def is_watched(tables: Tables, now: int) -> bool:
    """Return whether somebody looks."""
    return any(until > now for until in tables.watches.values())


def event_watch(tables: Tables, request: EventWatch, now: int) -> EventWatched:
    """Have events kept, and return the cursor of this instant."""
    if not request.reader:
        raise OptionError("a reader of the feed has to have a name, by which it is known when it looks again")
    until = now + duration_micros(request.ttl)
    before, unwatched = tables.watches.get(request.reader), not is_watched(tables, now)
    tables.watches[request.reader] = until if before is None else max(until, before)
    return EventWatched(
        cursor=_cursor(tables.feed, tables.feed.last),
        lapsed=before is None or before <= now,
        unwatched=unwatched,
    )


def event_unwatch(tables: Tables, request: EventUnwatch, now: int) -> None:
    """Say that readers look no more."""
    for reader in request.readers:
        tables.watches.pop(reader, None)


def event_append(tables: Tables, request: EventAppend, now: int) -> bool:
    """Keep events, if anybody watches."""
    if not is_watched(tables, now):
        return False
    feed = tables.feed
    for event in request.events:
        if event.id not in feed.ids:
            feed.last += 1
            feed.ids.add(event.id)
            feed.events.append(Kept(feed.last, now, event))
    return True


def event_read(tables: Tables, request: EventRead, now: int) -> EventPage:
    """Return events after a cursor."""
    feed = tables.feed
    asked = feed.removed
    missed = False
    if request.after:
        cursor = FeedCursor.read(request.after, _DRIVER)
        known = cursor.feed == feed.number and cursor.number <= feed.last
        missed = not known or cursor.number < feed.removed
        asked = max(cursor.number, feed.removed) if known else feed.removed
    begin = asked - feed.removed  # they are numbered without gaps
    found = list(islice(feed.events, begin, begin + max(request.limit, 0)))
    return EventPage(
        events=[kept.event for kept in found],
        cursor=_cursor(feed, found[-1].number if found else asked),
        missed=missed,
    )


def _cursor(feed: Feed, number: int) -> str:
    return FeedCursor(_DRIVER, feed.number, number).text()


def prune_feed(tables: Tables, now: int) -> None:
    """Remove what has been kept for long enough, and readers who look no more."""
    feed, kept_since = tables.feed, now - duration_micros(EVENT_RETAIN)
    while feed.events and feed.events[0].at < kept_since:
        kept = feed.events.popleft()
        feed.ids.discard(kept.event.id)
        feed.removed = kept.number
    for reader, until in list(tables.watches.items()):
        if until <= now:
            del tables.watches[reader]
