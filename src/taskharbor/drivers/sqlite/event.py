"""event_watch, event_unwatch, event_append, event_read: the feed, kept while somebody watches.

Events are numbered as they are committed: one transaction writes at a time, so the order is the same for all readers.
"""

from __future__ import annotations

import msgspec

from taskharbor.clock import duration_micros
from taskharbor.driver import (
    EventAppend,
    EventPage,
    EventRead,
    EventUnwatch,
    EventWatch,
    EventWatched,
    FeedCursor,
)
from taskharbor.drivers.sqlite.leaving import chunks
from taskharbor.drivers.sqlite.routine import Query, Routine
from taskharbor.drivers.sqlite.rows import Step, json_text
from taskharbor.errors import OptionError
from taskharbor.event import JobEvent

_DRIVER = "sqlite"
_event = msgspec.json.Decoder(JobEvent)

IS_WATCHED = "EXISTS (SELECT 1 FROM taskharbor_watch WHERE until > ?)"
"""As a column; it takes the time."""
_WATCH = """INSERT INTO taskharbor_watch (reader, until) VALUES (?, ?)
    ON CONFLICT (reader) DO UPDATE SET until = max(until, excluded.until)"""
_WATCHING = """SELECT EXISTS (SELECT 1 FROM taskharbor_watch WHERE reader = ?1 AND until > ?2),
    EXISTS (SELECT 1 FROM taskharbor_watch WHERE until > ?2)"""
_UNWATCH = "DELETE FROM taskharbor_watch WHERE reader IN (SELECT value FROM json_each(?))"
_APPEND = """INSERT INTO taskharbor_event (number, id, at, event)
    SELECT f.last + 1 + e.key, e.value ->> 0, ?2, e.value ->> 1 FROM taskharbor_feed f CROSS JOIN json_each(?1) e
    WHERE true ON CONFLICT (id) DO NOTHING"""
_APPENDED = "UPDATE taskharbor_feed SET last = last + ?"
_FEED = "SELECT feed, last, removed FROM taskharbor_feed"
_READ = "SELECT number, event FROM taskharbor_event WHERE number > ? ORDER BY number LIMIT ?"


def event_watch(step: Step, request: EventWatch) -> Routine[EventWatched]:
    """Have events kept, and return the cursor of this instant."""
    if not request.reader:
        raise OptionError("a reader of the feed has to have a name, by which it is known when it looks again")
    ((watching, watched),) = yield Query(_WATCHING, (request.reader, step.now))
    yield Query(_WATCH, (request.reader, step.now + duration_micros(request.ttl)))
    ((feed, last, _),) = yield Query(_FEED)
    return EventWatched(cursor=_cursor(feed, last), lapsed=not watching, unwatched=not watched)


def event_unwatch(step: Step, request: EventUnwatch) -> Routine[None]:
    """Say that readers look no more."""
    yield Query(_UNWATCH, (json_text(list(request.readers)),))


def nobody_watches(step: Step, request: EventAppend) -> Routine[bool | None]:
    """Return the answer if nobody watches, without writing; None if somebody does."""
    ((watched,),) = yield Query(f"SELECT {IS_WATCHED}", (step.now,))
    return None if watched else False


def event_append(step: Step, request: EventAppend) -> Routine[bool]:
    """Keep events, if anybody watches."""
    if (yield from nobody_watches(step, request)) is False:
        return False
    for chunk in chunks(request.events):
        rows = [(event.id, json_text(event)) for event in chunk]
        yield Query(_APPEND, (json_text(rows), step.now))
        yield Query(_APPENDED, (len(rows),))
    return True


def event_read(step: Step, request: EventRead) -> Routine[EventPage]:
    """Return events after a cursor."""
    cursor = FeedCursor.read(request.after, _DRIVER) if request.after else None
    ((feed, last, removed),) = yield Query(_FEED)
    asked, missed = 0, False
    if cursor is not None:
        # Unknown is one of a file that was removed since, and one that a backup put back has not come to yet.
        known = cursor.feed == feed and cursor.number <= last
        asked = cursor.number if known else 0
        missed = not known or asked < removed
    rows = yield Query(_READ, (asked, max(request.limit, 0)))
    return EventPage(
        events=[event for _, text in rows for event in _decoded(text)],
        cursor=_cursor(feed, rows[-1][0] if rows else max(asked, removed)),
        missed=missed,
    )


def _decoded(text: str) -> list[JobEvent]:
    """Return the event, or nothing for one of a kind that a later release has added: others are not kept from it."""
    try:
        return [_event.decode(text)]
    except msgspec.ValidationError:
        return []


def _cursor(feed: int, number: int) -> str:
    return FeedCursor(_DRIVER, feed, number).text()
