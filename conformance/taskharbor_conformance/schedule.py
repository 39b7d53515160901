"""Schedules made by hand: created, found, paused, resumed, deleted; and kept as they were handed in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from taskharbor.driver import CreateStatus
from taskharbor.job import KeyRule, NewJob, OnConflict
from taskharbor.retry import RetryNumbers
from taskharbor.schedule import Cron, Every, Misfire, NewSchedule, Overlap, Schedule
from taskharbor_conformance.bench import HOUR, SECOND, Bench, new_job
from taskharbor_conformance.case import case
from taskharbor_conformance.timetables import (
    MINUTE,
    create,
    declare,
    delete,
    due,
    due_names,
    find,
    fire,
    firing,
    foresee,
    names_of,
    new_schedule,
    pause,
    record_of,
    resume,
    tick,
)

CREATED, REPLACED, EXISTING = CreateStatus.CREATED, CreateStatus.REPLACED, CreateStatus.EXISTING
MICROSECOND = timedelta(microseconds=1)


@case("4.22")
async def a_schedule_is_kept_as_it_was_handed_in(bench: Bench) -> None:
    said = "größe 日本 🚢 \"'\\ \n%_"
    job = NewJob(
        id="",
        task=said,
        payload=b"\x00\xff" + said.encode(),
        codec="msgpack",
        fingerprint=2**63 - 1,
        queue=said,
        priority=9,
        retry=RetryNumbers(max_attempts=7, base_seconds=0.25),
        timeout=MICROSECOND,
        meta={said: said},
        key=said,
        key_ttl=HOUR + MICROSECOND,
        digest=b"\x00\xff",
        on_conflict=OnConflict.REPLACE,
        key_rule=KeyRule(window=HOUR, latest=MICROSECOND),
        keep_result=False,
        retain=MICROSECOND,
    )
    east = timezone(timedelta(hours=5, minutes=30))
    kept = [
        NewSchedule(
            name=said,
            schedule=Schedule(
                trigger=Cron("*/5 8-17 * * MON-FRI", tz="America/New_York"),
                misfire=Misfire.CATCH_UP,
                catch_up=17,
                grace=MICROSECOND,
                overlap=Overlap.QUEUE_ONE,
                until=datetime(2199, 12, 31, 23, 59, 59, 999_999, tzinfo=east),
            ),
            job=job,
            description=said,
        ),
        new_schedule("~ every", Every(26 * HOUR + MICROSECOND, start=datetime(1999, 1, 1, tzinfo=UTC))),
        new_schedule("~~ plain", Every(MICROSECOND)),
    ]

    await create(bench, *kept)

    found = {record.name: record for record in await find(bench)}
    for each in kept:
        record = found[each.name]
        assert (each.schedule, each.job, each.description) == (
            record.schedule,
            record.job,
            record.description,
        )
        assert (None, bench.now, bench.now, None, False, None) == (
            record.application,
            record.created_at,
            record.after,
            record.next_at,
            record.ended,
            record.waiting_tick,
        )
        assert (None, "", "", None, None, 0, 0, 0) == (
            record.paused_at,
            record.paused_by,
            record.reason,
            record.last_tick,
            record.last_job,
            record.fired,
            record.missed,
            record.overlapped,
        )


@case("4.22")
async def a_large_template_is_kept_whole(bench: Bench) -> None:
    payload = bytes(range(256)) * 4096

    await create(bench, new_schedule(job=new_job(payload=payload)), new_schedule("other"))

    assert payload == (await record_of(bench)).job.payload
    job_id = await tick(bench)
    assert payload == (await bench.record(job_id)).payload


@case("4.22")
async def a_name_is_taken_once(bench: Bench) -> None:
    first = await create(bench, new_schedule("a"), new_schedule("a", Every(MINUTE)))

    second = await create(bench, new_schedule("a", Every(MINUTE)), new_schedule("b"))

    assert [[CREATED, EXISTING], [EXISTING, CREATED]] == [first, second]
    assert Every(HOUR) == (await record_of(bench, "a")).schedule.trigger


@case("4.22")
async def what_was_created_is_replaced_if_asked(bench: Bench) -> None:
    await create(bench, new_schedule("a"))
    await tick(bench, "a")
    before = await record_of(bench, "a")
    bench.advance(MINUTE)

    answers = await create(bench, new_schedule("a", description="new"), new_schedule("b"), replace=True)
    kept = await record_of(bench, "a")
    await create(bench, new_schedule("a", Every(MINUTE)), replace=True)
    after = await record_of(bench, "a")

    assert [REPLACED, CREATED] == answers
    assert ("new", before.next_at, before.after) == (kept.description, kept.next_at, kept.after)
    assert (Every(MINUTE), None, bench.now) == (after.schedule.trigger, after.next_at, after.after)
    assert [before.created_at, before.last_job, 1] == [after.created_at, after.last_job, after.fired]
    assert before.revision < kept.revision < after.revision


@case("4.22")
async def what_is_declared_is_not_replaced_by_hand(bench: Bench) -> None:
    await declare(bench, new_schedule("app/a"))
    before = await find(bench)

    answers = await create(bench, new_schedule("app/a", Every(MINUTE)), replace=True)

    assert [EXISTING] == answers
    assert before == await find(bench)


# --- finding


@case("4.22")
async def schedules_are_found_in_order_of_name_and_by_pages(bench: Bench) -> None:
    names = ["B", "a", "a/1", "b", "c", "größe", "%", "_"]
    await create(bench, *map(new_schedule, names))

    listed = await names_of(bench)
    pages: list[str] = []
    while page := await find(bench, after=pages[-1] if pages else None, limit=3):
        pages += [record.name for record in page]

    assert sorted(names) == listed == pages


@case("4.22")
async def schedules_are_found_by_name_and_application(bench: Bench) -> None:
    await declare(bench, new_schedule("app/a"), new_schedule("app/b"))
    await create(bench, new_schedule("c"), new_schedule("d"))

    found = [
        [record.name for record in records]
        for records in (
            await find(bench, "d", "unknown", "app/b", "d"),
            await find(bench, application="app"),
            await find(bench, application="unknown"),
            await find(bench, "c", "app/a", application="app"),
            await find(bench, "c", "d", "app/a", after="app/a", limit=1),
            await find(bench, limit=0),
        )
    ]

    assert [["app/b", "d"], ["app/a", "app/b"], [], ["app/a"], ["c"], []] == found


# --- pausing


@case("4.22")
async def a_paused_schedule_is_not_due(bench: Bench) -> None:
    await create(bench, new_schedule("a"), new_schedule("b"), new_schedule("c"))
    await foresee(bench, "a", "c")

    told = await pause(bench, "a", "unknown", "b", by="ada", reason="why")
    bench.advance(HOUR)

    assert [True, False, True] == told
    assert (["c"], None) == ((await due_names(bench)), (await due(bench)).next_in)
    record = await record_of(bench, "a")
    assert (bench.now - HOUR, "ada", "why") == (record.paused_at, record.paused_by, record.reason)


@case("4.22")
async def pausing_again_keeps_the_first_instant(bench: Bench) -> None:
    await create(bench, new_schedule())
    await pause(bench, "tick", by="ada", reason="why")
    before = await find(bench)
    bench.advance(SECOND)

    again = await pause(bench, "tick", by="bob")

    assert [True] == again
    assert before == await find(bench)


@case("4.22")
async def a_pause_lets_go_of_the_ticks_that_pass_meanwhile(bench: Bench) -> None:
    await create(bench, new_schedule())
    record = await record_of(bench)
    await fire(bench, firing(record, after=bench.now, next_at=bench.now + HOUR, waiting_tick=bench.now))
    await pause(bench, "tick", by="ada", reason="why")
    paused = await record_of(bench)
    bench.advance(5 * HOUR)

    told = await resume(bench, "unknown", "tick")

    record = await record_of(bench)
    assert [False, True] == told
    assert (bench.now, None, None) == (record.after, record.next_at, record.waiting_tick)
    assert (None, "", "") == (record.paused_at, record.paused_by, record.reason)
    assert paused.revision < record.revision
    assert ["tick"] == await due_names(bench), "its next tick is to be computed"


@case("4.22")
async def resuming_what_is_not_paused_changes_nothing(bench: Bench) -> None:
    await create(bench, new_schedule())
    await foresee(bench, "tick")
    before = await find(bench)
    bench.advance(SECOND)

    assert [True] == await resume(bench, "tick")
    assert before == await find(bench)


@case("4.22")
async def a_schedule_that_has_ended_has_ended_when_it_is_resumed(bench: Bench) -> None:
    await create(bench, new_schedule())
    await fire(bench, firing(await record_of(bench), after=bench.now, ended=True))
    await pause(bench, "tick")

    await resume(bench, "tick")

    assert (await record_of(bench)).ended
    assert ([], None) == (await due_names(bench), (await due(bench)).next_in)


@case("4.22")
async def a_firing_read_before_a_pause_changes_nothing(bench: Bench) -> None:
    await create(bench, new_schedule())
    stale = await record_of(bench)
    await pause(bench, "tick")
    paused = await record_of(bench)
    await resume(bench, "tick")

    told = [
        answer.moved
        for each in (stale, paused)
        for answer in await fire(bench, firing(each, new_job(), after=bench.now))
    ]

    assert ([False, False], []) == (told, await bench.find_ids())


# --- deleting


@case("4.22")
async def a_deleted_schedule_is_gone_and_its_jobs_stay(bench: Bench) -> None:
    await declare(bench, new_schedule("app/a"))
    await create(bench, new_schedule("b"), new_schedule("c"))
    job_id = await tick(bench, "b")

    told = await delete(bench, "b", "unknown", "app/a", "b")

    assert [True, False, True, False] == told
    assert (["c"], [job_id]) == (await names_of(bench), await bench.find_ids())
    assert [False] == await delete(bench, "b")


@case("4.22")
async def a_firing_of_a_schedule_that_was_deleted_and_made_again_changes_nothing(bench: Bench) -> None:
    await create(bench, new_schedule())
    stale = await record_of(bench)
    await delete(bench, "tick")
    gone = await fire(bench, firing(stale, new_job(), after=bench.now))
    await create(bench, new_schedule())

    again = await fire(bench, firing(stale, new_job(), after=bench.now))

    assert [False, False] == [answer.moved for answer in (*gone, *again)]
    assert [] == await bench.find_ids()


@case("4.22")
async def asking_for_nothing_is_answered_so(bench: Bench) -> None:
    answers = [await create(bench), await delete(bench), await pause(bench), await resume(bench)]

    assert [[], [], [], []] == answers
    assert ([], []) == (await fire(bench), await find(bench))
    nothing = await due(bench)
    assert (bench.now, [], None) == (nothing.now, list(nothing.due), nothing.next_in)
