"""event_watch, event_unwatch, event_append, event_read: the feed.

Events are numbered by a counter, the one row of `feed`, which whoever appends keeps locked until he has committed. So
they become visible in the order of their numbers, and a cursor needs to know no more than the last one: who began
earlier and commits later has greater numbers. (To order by transactions would need no lock; but then readers must wait
for the oldest transaction that writes anything on that server, a report of an hour's too.) An append is one statement
of a few milliseconds, for many events.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate
from typing import NamedTuple

import msgspec

from taskharbor.clock import duration_micros
from taskharbor.driver import (
    EVENT_RETAIN,
    EventAppend,
    EventPage,
    EventRead,
    EventUnwatch,
    EventWatch,
    EventWatched,
)
from taskharbor.drivers.postgres.routine import Query, Routine, plain_array, text_array
from taskharbor.drivers.postgres.rows import BATCH_BYTES, interval_of, micros_text
from taskharbor.drivers.postgres.step import Step
from taskharbor.errors import OptionError
from taskharbor.event import JobEvent

_NOW = "coalesce($1::text::timestamptz, clock_timestamp())"
_WATCH = f"""WITH kept AS (INSERT INTO taskharbor.watcher AS w (reader, until)
    VALUES ($2::text, {_NOW} + {interval_of("$3::text::bigint")})
    ON CONFLICT (reader) DO UPDATE SET until = greatest(w.until, excluded.until))
SELECT store::text, last, coalesce(last_id::text, ''),
    NOT EXISTS (SELECT FROM taskharbor.watcher WHERE reader = $2::text AND until > {_NOW}),
    NOT EXISTS (SELECT FROM taskharbor.watcher WHERE until > {_NOW}) FROM taskharbor.feed"""
_UNWATCH = "DELETE FROM taskharbor.watcher WHERE reader = ANY ($1::text::text[])"
# Not waited for until it is on the disk: events are news, and nobody else is to wait behind that, either. What a crash
# of the server takes back is missing from the feed, and who has read it already is told so (`_read_on`).
_APPEND = f"""WITH watched AS MATERIALIZED (SELECT EXISTS (
        SELECT FROM taskharbor.watcher WHERE until > {_NOW}) AS yes),
quick AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true) FROM watched WHERE yes),
turn AS (UPDATE taskharbor.feed SET last = last + $2::text::bigint, last_id = $3::text::uuid
    WHERE $2::text::bigint > 0 AND EXISTS (SELECT FROM quick) RETURNING last - $2::text::bigint AS before),
kept AS (INSERT INTO taskharbor.event (seq, id, kept_at, body)
    SELECT t.before + e.n, e.id, {_NOW}, substring($7::bytea FROM e.start FOR e.size)
    FROM turn t, unnest($4::text::uuid[], $5::text::integer[], $6::text::integer[]) WITH ORDINALITY
        e(id, start, size, n)
    ON CONFLICT (id) DO NOTHING)
SELECT yes FROM watched"""
_READ = """SELECT f.store::text, f.last, coalesce(f.last_id::text, ''), s.pruned,
    coalesce((SELECT k.id::text FROM taskharbor.event k WHERE k.seq = $1::text::bigint), ''), e.seq, e.id, e.body
FROM taskharbor.feed f CROSS JOIN taskharbor.feed_start s
    LEFT JOIN LATERAL (SELECT seq, id::text AS id, body FROM taskharbor.event
        WHERE seq > $1::text::bigint ORDER BY seq LIMIT $2::text::bigint) e ON true ORDER BY e.seq"""

_PRUNE = f"""WITH first AS (SELECT seq, kept_at FROM taskharbor.event ORDER BY seq LIMIT $2::text::bigint),
old AS MATERIALIZED (SELECT e.seq FROM taskharbor.event e WHERE e.seq = ANY (ARRAY(SELECT seq FROM first
    WHERE kept_at < {_NOW} - {interval_of(str(duration_micros(EVENT_RETAIN)))})) FOR UPDATE SKIP LOCKED),
gone AS (DELETE FROM taskharbor.event WHERE seq = ANY (ARRAY(SELECT seq FROM old)) RETURNING seq),
noted AS (UPDATE taskharbor.feed_start SET pruned = greatest(pruned, (SELECT max(seq) FROM gone))
    WHERE EXISTS (SELECT FROM gone))
SELECT count(*) FROM gone"""
_DROP_WATCHERS = f"DELETE FROM taskharbor.watcher WHERE until <= {_NOW}"

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[JobEvent] = msgspec.msgpack.Decoder(JobEvent)
_CURSOR = re.compile(r"pg1\.([0-9a-f]{8})\.([0-9]{1,18})\.([0-9a-f]{12}|)")


class _Cursor(NamedTuple):
    """How far a reader has come: which store's feed, the number of the last event, and the end of that one's id."""

    store: str
    seq: int
    tail: str

    def __str__(self) -> str:
        return f"pg1.{self.store}.{self.seq}.{self.tail}"


def _cursor(store: str, seq: int, event_id: str) -> _Cursor:
    return _Cursor(store[:8], seq, event_id[-12:])


def event_watch(step: Step, request: EventWatch) -> Routine[EventWatched]:
    """Have events kept, and return the cursor of this instant."""
    if not request.reader:
        raise OptionError("event_watch: reader='': expected a name that no other reader has")
    ((store, last, last_id, lapsed, unwatched),) = yield Query(
        _WATCH, (step.now, request.reader, micros_text(request.ttl))
    )
    return EventWatched(cursor=str(_cursor(store, last, last_id)), lapsed=lapsed, unwatched=unwatched)


def event_unwatch(step: Step, request: EventUnwatch) -> Routine[None]:
    """Say that readers look no more."""
    del step
    yield Query(_UNWATCH, (text_array(request.readers),))


def event_append(step: Step, request: EventAppend) -> Routine[bool]:
    """Keep events; return whether anybody watches."""
    watched = False
    for part in _parts(request.events):
        sizes = [len(body) for _, body in part]
        ((watched,),) = yield Query(
            _APPEND,
            (
                step.now,
                str(len(part)),
                part[-1][0] if part else None,
                plain_array([event_id for event_id, _ in part]),
                plain_array(accumulate(sizes[:-1], initial=1)),
                plain_array(sizes),
                b"".join([body for _, body in part]),
            ),
        )
    return watched


def _parts(events: Sequence[JobEvent]) -> list[list[tuple[str, bytes]]]:
    """Return the events as they are kept, in statements of no great size; at least one, which asks who watches."""
    parts: list[list[tuple[str, bytes]]] = [[]]
    size = 0
    firsts: dict[str, JobEvent] = {}
    for event in events:
        firsts.setdefault(event.id, event)
    for event_id, event in firsts.items():
        body = _encoder.encode(event)
        size += len(body)
        if size > BATCH_BYTES and parts[-1]:
            parts.append([])
            size = len(body)
        parts[-1].append((event_id, body))
    return parts


def event_read(step: Step, request: EventRead) -> Routine[EventPage]:
    """Return events after a cursor."""
    asked = _parsed(request.after)
    limit = str(max(request.limit, 0))
    rows = yield Query(_READ, (str(asked.seq), limit))
    if not _is_known(asked, *rows[0][:5]):
        # Of another store's feed; or the server has lost what was read, since it crashed or an older copy took its
        # place. All that there is may be new, then.
        page = yield from event_read(step, msgspec.structs.replace(request, after=""))
        return msgspec.structs.replace(page, missed=True)
    store, _, _, pruned, there = rows[0][:5]
    found = [(seq, event_id, body) for *_, seq, event_id, body in rows if seq is not None]
    if found:
        end = _cursor(store, *found[-1][:2])
    elif asked.seq >= pruned:
        end = _cursor(store, asked.seq, there or asked.tail)
    else:
        end = _cursor(store, pruned, "")
    return EventPage(
        events=_events([body for _, _, body in found]),
        cursor=str(end),
        missed=request.after != "" and asked.seq < pruned,
    )


def _is_known(asked: _Cursor, store: str, last: int, last_id: str, pruned: int, there: str) -> bool:
    """Return whether it was this feed, as it is now, that gave a cursor."""
    del last_id, pruned
    same = not asked.tail or not there or there[-12:] == asked.tail
    return asked.store in ("", store[:8]) and asked.seq <= last and same


def _parsed(cursor: str) -> _Cursor:
    if not cursor:
        return _Cursor("", 0, "")
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise OptionError(
            f"event_read: after={cursor!r}: this is no cursor of a PostgreSQL store; begin with '', or with the answer "
            "to an event_watch"
        )
    return _Cursor(found[1], int(found[2]), found[3])


def _events(bodies: Sequence[bytes]) -> list[JobEvent]:
    events: list[JobEvent] = []
    for body in bodies:
        # A later release tells of what this one does not know.
        with suppress(msgspec.ValidationError):
            events.append(_decoder.decode(body))
    return events


def prune_events(step: Step, limit: int) -> Routine[bool]:
    """Remove at most so many events that have been kept for long, and return whether there may be more."""
    yield Query(_DROP_WATCHERS, (step.now,))
    ((gone,),) = yield Query(_PRUNE, (step.now, str(limit)))
    return bool(gone >= limit)
