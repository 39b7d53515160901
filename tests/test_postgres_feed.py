"""The feed in PostgreSQL: no reader passes an event over, whoever commits when, and whatever the server has lost."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from taskharbor.driver import EventAppend, EventPage, EventRead, EventWatch
from taskharbor.drivers.postgres.event import event_append, event_read, event_watch, prune_events
from taskharbor.event import JobEvent, JobStarted
from taskharbor.job import new_job_id
from tests.support.postgres_place import shared_schema
from tests.support.postgres_walk import Meeting, Party, meeting
from tests.support.work import eventually

HOUR = timedelta(hours=1)


@pytest.fixture
def here() -> Generator[Meeting]:
    """Give an empty schema, whose feed begins anew."""
    schema = shared_schema()
    with meeting(schema) as here:
        schema.ask("UPDATE feed SET last = 0, last_id = NULL")
        schema.ask("UPDATE feed_start SET pruned = 0")
        yield here


@pytest.fixture
def reader(here: Meeting) -> Party:
    return here.party()


@pytest.fixture
def cursor(reader: Party) -> str:
    """Watch, and return the cursor of the beginning."""
    return reader.verb(event_watch, EventWatch(reader="reader", ttl=HOUR)).cursor


def events(count: int) -> list[JobEvent]:
    return [
        JobStarted(
            id=new_job_id(),
            at=datetime(2026, 1, 1, tzinfo=UTC),
            job_id=new_job_id(),
            task="mail.send",
            queue="default",
            worker="worker",
            attempt=1,
            waited=HOUR,
        )
        for _ in range(count)
    ]


def append(party: Party, *some: JobEvent) -> bool:
    return party.verb(event_append, EventAppend(events=some))


def read(party: Party, after: str, limit: int = 500) -> EventPage:
    return party.verb(event_read, EventRead(after=after, limit=limit))


def stands_behind(here: Meeting, party: Party) -> None:
    """Wait until somebody waits for a lock."""
    waits = "SELECT 1 FROM pg_locks WHERE pid = %s AND NOT granted"
    pid = party.connection.info.backend_pid
    eventually(lambda: bool(here.schema.ask(waits, (pid,))), "the wait for who appends")


@pytest.mark.parametrize("commits", [True, False])
def test_who_appends_second_is_not_read_before_the_first_has_ended(
    here: Meeting, reader: Party, cursor: str, commits: bool
) -> None:
    first, second = here.party(), here.party()
    early, late = events(3), events(2)
    first.begin()
    append(first, *early)

    with ThreadPoolExecutor(1) as thread:
        done: Future[bool] = thread.submit(append, second, *late)
        stands_behind(here, second)
        between = read(reader, cursor)
        first.commit() if commits else first.roll_back()
        assert done.result(20)
    page = read(reader, between.cursor)

    expected = [*early, *late] if commits else late
    assert ([], expected, False) == (between.events, page.events, page.missed)
    assert [] == read(reader, page.cursor).events


def test_a_transaction_that_writes_elsewhere_holds_no_event_back(
    here: Meeting, reader: Party, cursor: str
) -> None:
    elsewhere = here.party()
    elsewhere.begin()
    elsewhere.number()
    some = events(2)

    append(here.party(), *some)

    assert some == read(reader, cursor).events


def test_an_append_repeated_after_a_cut_leaves_a_gap_that_nobody_misses(
    here: Meeting, reader: Party, cursor: str
) -> None:
    (one,), (two,) = events(1), events(1)
    worker = here.party()
    append(worker, one)
    at_one = read(reader, cursor).cursor
    append(worker, one)
    append(worker, two)

    page = read(reader, at_one)

    assert ([two], False) == (page.events, page.missed)
    assert ([one, two], False) == (read(reader, cursor).events, read(reader, cursor).missed)


def lose(here: Meeting, last: int) -> None:
    """Let the server be as it was before the events beyond this one."""
    here.schema.ask("DELETE FROM event WHERE seq > %s", (last,))
    here.schema.ask("UPDATE feed SET last = %s, last_id = NULL", (last,))


@pytest.mark.parametrize("since", [0, 1, 5], ids=["none", "fewer", "more"])
def test_who_has_read_what_a_crash_took_back_is_told_so_and_reads_all_there_is(
    here: Meeting, reader: Party, cursor: str, since: int
) -> None:
    worker = here.party()
    kept, lost, new = events(2), events(2), events(since)
    append(worker, *kept, *lost)
    at_lost = read(reader, cursor).cursor
    lose(here, len(kept))
    append(worker, *new)

    page = read(reader, at_lost)
    again = read(reader, page.cursor)

    assert ([*kept, *new], True) == (page.events, page.missed)
    assert ([], False) == (again.events, again.missed)


def test_a_cursor_of_another_store_reads_all_there_is_and_is_told_so(
    here: Meeting, reader: Party, cursor: str
) -> None:
    some = events(2)
    append(here.party(), *some)
    identity = cursor.split(".")[1]
    other = cursor.replace(identity, "0" * 8 if identity != "0" * 8 else "1" * 8)

    page = read(reader, other)

    assert (some, True) == (page.events, page.missed)


def test_events_of_a_later_release_are_passed_over(here: Meeting, reader: Party, cursor: str) -> None:
    one, two, three = events(3)
    append(here.party(), one, two, three)
    here.schema.ask(
        "UPDATE event SET body = '\\x81a56576656e74a66e6577657374' WHERE seq = 2"
    )  # {"event": "newest"}

    page = read(reader, cursor, limit=2)

    assert [one] == page.events
    assert [three] == read(reader, page.cursor).events


def test_a_prune_takes_the_oldest_a_number_at_a_time(here: Meeting, reader: Party, cursor: str) -> None:
    old, new = events(5), events(2)
    append(here.party(), *old)
    here.schema.ask("UPDATE event SET kept_at = kept_at - interval '25 hours'")
    append(here.party(), *new)

    steps = [reader.ask(prune_events(reader.step, 3)) for _ in range(2)]

    pages = [read(reader, after) for after in (cursor, "")]
    assert [True, False] == steps
    assert [(new, True), (new, False)] == [(page.events, page.missed) for page in pages]


def test_events_of_many_bytes_are_kept_in_several_statements(
    here: Meeting, reader: Party, cursor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskharbor.drivers.postgres.event.BATCH_BYTES", 300)
    some: Sequence[JobEvent] = events(10)

    append(here.party(), *some)

    assert some == read(reader, cursor).events
    assert [(10,)] == here.schema.ask("SELECT last FROM feed")
