"""schedule_declare: an application's schedules, replaced as a whole, and only by a later generation."""

from __future__ import annotations

from datetime import timedelta

from taskharbor.driver import Capability, DeclareStatus
from taskharbor.schedule import Cron, Every
from taskharbor_conformance.bench import HOUR, SECOND, Bench, new_job
from taskharbor_conformance.case import case
from taskharbor_conformance.concurrency import STORES, in_threads
from taskharbor_conformance.timetables import (
    MINUTE,
    create,
    declare,
    delete,
    due_names,
    find,
    fire,
    firing,
    foresee,
    job_of,
    names_of,
    new_schedule,
    pause,
    record_of,
    tick,
)

CURRENT, DECLARED, OUTDATED = DeclareStatus.CURRENT, DeclareStatus.DECLARED, DeclareStatus.OUTDATED


@case("4.22")
async def what_is_declared_first_is_added(bench: Bench) -> None:
    answer = await declare(bench, new_schedule("app/b"), new_schedule("app/a"))

    assert (DECLARED, 1, ["app/a", "app/b"], [], []) == (
        answer.status,
        answer.generation,
        list(answer.added),
        list(answer.changed),
        list(answer.removed),
    )
    assert ["app/a", "app/b"] == await names_of(bench)
    record = await record_of(bench, "app/a")
    assert ("app", bench.now, bench.now, None) == (
        record.application,
        record.created_at,
        record.after,
        record.next_at,
    )


@case("4.22")
async def a_later_declaration_adds_changes_and_removes(bench: Bench) -> None:
    await declare(bench, *(new_schedule(f"app/{name}") for name in "abcd"))
    kept = await record_of(bench, "app/a")
    bench.advance(SECOND)

    answer = await declare(
        bench,
        new_schedule("app/e"),
        new_schedule("app/a"),
        new_schedule("app/c", Every(MINUTE)),
        new_schedule("app/b", description="größe '%"),
    )

    assert (DECLARED, 2) == (answer.status, answer.generation)
    assert (["app/e"], ["app/b", "app/c"], ["app/d"]) == (
        list(answer.added),
        list(answer.changed),
        list(answer.removed),
    )
    assert ["app/a", "app/b", "app/c", "app/e"] == await names_of(bench)
    assert kept == await record_of(bench, "app/a"), "what is the same is not written"
    assert "größe '%" == (await record_of(bench, "app/b")).description
    assert Every(MINUTE) == (await record_of(bench, "app/c")).schedule.trigger


@case("4.22")
async def what_is_declared_already_changes_nothing(bench: Bench) -> None:
    await declare(bench, new_schedule("app/a"), new_schedule("app/b"))
    await delete(bench, "app/b")
    before = await find(bench)
    bench.advance(SECOND)

    answer = await declare(bench, new_schedule("app/a"), new_schedule("app/b"))
    forced = await declare(bench, new_schedule("app/a"), new_schedule("app/b"), force=True)

    assert (CURRENT, 1) == (answer.status, answer.generation)
    assert (CURRENT, 1) == (forced.status, forced.generation)
    assert before == await find(bench), "what was deleted by hand comes back with the next generation"


@case("4.22")
async def what_was_deleted_by_hand_comes_back_with_the_next_generation(bench: Bench) -> None:
    await declare(bench, new_schedule("app/a"), new_schedule("app/b"))
    await delete(bench, "app/b")

    answer = await declare(bench, new_schedule("app/a"), new_schedule("app/b"), digest=b"next")

    assert (2, ["app/b"]) == (answer.generation, list(answer.added))
    assert ["app/a", "app/b"] == await names_of(bench)


@case("4.22")
async def an_old_worker_does_not_restore_what_a_new_one_removed(bench: Bench) -> None:
    old = [new_schedule("app/a"), new_schedule("app/old")]
    await declare(bench, *old)
    await declare(bench, new_schedule("app/a", description="new"))
    await declare(bench, new_schedule("app/a", description="newest"))

    answers = [await declare(bench, *old), await declare(bench, new_schedule("app/a", description="new"))]

    assert [(OUTDATED, 3)] * 2 == [(answer.status, answer.generation) for answer in answers]
    assert [[], []] == [[*one.added, *one.changed, *one.removed] for one in answers]
    assert [("app/a", "newest")] == [(record.name, record.description) for record in await find(bench)]


@case("4.22")
async def a_rollback_is_forced_and_makes_a_new_generation(bench: Bench) -> None:
    old = [new_schedule("app/a"), new_schedule("app/old")]
    await declare(bench, *old)
    await declare(bench, new_schedule("app/a"), new_schedule("app/new"))

    back = await declare(bench, *old, force=True)
    again = await declare(bench, *old)
    newer = await declare(bench, new_schedule("app/a"), new_schedule("app/new"))

    assert (DECLARED, 3, ["app/old"], ["app/new"]) == (
        back.status,
        back.generation,
        list(back.added),
        list(back.removed),
    )
    assert (CURRENT, 3) == (again.status, again.generation)
    assert (OUTDATED, 3) == (newer.status, newer.generation)
    assert ["app/a", "app/old"] == await names_of(bench)


@case("4.22")
async def where_generations_are_given_numbers_alone_decide(bench: Bench) -> None:
    one, two = new_schedule("app/one"), new_schedule("app/two")
    told = [
        await declare(bench, one, generation=7),
        await declare(bench, one, generation=7),
        await declare(bench, two, generation=6),
        await declare(bench, two, generation=6, force=True),
        await declare(bench, two, generation=7),
        await declare(bench, one, generation=9),
        await declare(bench, one, generation=20),
        await declare(bench, two, generation=9),
    ]

    assert [
        (DECLARED, 7),
        (CURRENT, 7),
        (OUTDATED, 7),
        (OUTDATED, 7),
        (DECLARED, 7),
        (DECLARED, 9),
        (DECLARED, 20),
        (OUTDATED, 20),
    ] == [(answer.status, answer.generation) for answer in told]
    assert [4] == [number for number, answer in enumerate(told) if answer.contested], (
        "two sets bear the number 7"
    )
    assert ["app/one"] == await names_of(bench)
    assert ([], [], []) == (list(told[6].added), list(told[6].changed), list(told[6].removed))


@case("4.22")
async def generations_that_are_not_given_go_on_after_those_that_were(bench: Bench) -> None:
    await declare(bench, new_schedule("app/one"), generation=7)

    new = await declare(bench, new_schedule("app/two"))
    old = await declare(bench, new_schedule("app/one"))

    assert [(DECLARED, 8), (OUTDATED, 8)] == [(new.status, new.generation), (old.status, old.generation)]


@case("4.22")
async def applications_are_apart(bench: Bench) -> None:
    await declare(bench, new_schedule("app/a"), digest=b"same")
    await create(bench, new_schedule("by hand"))

    other = await declare(bench, new_schedule("other/a"), application="other", digest=b"same")
    await declare(bench, new_schedule("other/b"), application="other")

    assert (DECLARED, 1) == (other.status, other.generation)
    assert ["app/a", "by hand", "other/b"] == await names_of(bench)
    assert ["app/a"] == [record.name for record in await find(bench, application="app")]


@case("4.22")
async def an_application_may_declare_nothing_any_more(bench: Bench) -> None:
    await declare(bench, new_schedule("app/a"), new_schedule("app/b"))
    await create(bench, new_schedule("by hand"))

    answer = await declare(bench)

    assert (2, ["app/a", "app/b"]) == (answer.generation, list(answer.removed))
    assert ["by hand"] == await names_of(bench)


@case("4.22")
async def a_changed_schedule_keeps_its_pause_its_counts_and_its_last_job(bench: Bench) -> None:
    await declare(bench, new_schedule("app/a"))
    await tick(bench, "app/a")
    record = await record_of(bench, "app/a")
    await fire(bench, firing(record, after=bench.now, missed=2, overlapped=3))
    await pause(bench, "app/a", by="ada", reason="why")
    before = await record_of(bench, "app/a")
    bench.advance(MINUTE)

    await declare(bench, new_schedule("app/a", Every(MINUTE), job=new_job(queue="mail")))

    after = await record_of(bench, "app/a")
    for each in (before, after):
        assert (1, 2, 3, before.last_job, before.last_tick) == (
            each.fired,
            each.missed,
            each.overlapped,
            each.last_job,
            each.last_tick,
        )
        assert (bench.now - MINUTE, "ada", "why") == (each.paused_at, each.paused_by, each.reason)
        assert bench.now - MINUTE == each.created_at
    assert before.revision < after.revision
    assert "mail" == after.job.queue


@case("4.22")
async def with_the_same_trigger_the_next_tick_is_kept(bench: Bench) -> None:
    await declare(bench, new_schedule("app/a"))
    record = await record_of(bench, "app/a")
    waiting = bench.now - MINUTE
    await fire(bench, firing(record, after=bench.now, next_at=bench.now + HOUR, waiting_tick=waiting))
    bench.advance(MINUTE)

    await declare(bench, new_schedule("app/a", description="new", job=new_job(queue="mail")))

    record = await record_of(bench, "app/a")
    assert (bench.now - MINUTE, bench.now - MINUTE + HOUR, waiting) == (
        record.after,
        record.next_at,
        record.waiting_tick,
    )


@case("4.22")
async def with_another_trigger_ticks_count_from_now(bench: Bench) -> None:
    await declare(bench, new_schedule("app/a"), new_schedule("app/ended"))
    for name in ("app/a", "app/ended"):
        record = await record_of(bench, name)
        last = firing(
            record,
            after=bench.now,
            next_at=None if name == "app/ended" else bench.now + HOUR,
            ended=name == "app/ended",
            waiting_tick=bench.now,
        )
        await fire(bench, last)
    bench.advance(MINUTE)

    new = Cron("0 8 * * *", tz="Europe/Paris")
    await declare(bench, new_schedule("app/a", new), new_schedule("app/ended", new), digest=b"new")

    for record in await find(bench):
        assert (bench.now, None, False, None) == (
            record.after,
            record.next_at,
            record.ended,
            record.waiting_tick,
        )
    assert ["app/a", "app/ended"] == await due_names(bench), "they are to be computed"


@case("4.22")
async def a_schedule_whose_end_is_moved_is_computed_anew(bench: Bench) -> None:
    names = ("app/a", "app/ended")
    await declare(bench, *(new_schedule(name, until=bench.now + MINUTE) for name in names), digest=b"1")
    going, ended = await find(bench)
    await fire(
        bench,
        firing(going, after=bench.now, next_at=bench.now + SECOND),
        firing(ended, after=bench.now, ended=True),
    )
    bench.advance(HOUR)

    await declare(bench, *(new_schedule(name, until=bench.now + HOUR) for name in names), digest=b"2")

    going, ended = await find(bench)
    assert [(None, False)] * 2 == [(each.next_at, each.ended) for each in (going, ended)]
    assert (bench.now - HOUR, bench.now) == (going.after, ended.after)
    assert ["app/a", "app/ended"] == await due_names(bench)


@case("4.22")
async def a_schedule_made_by_hand_becomes_the_applications_that_declares_its_name(bench: Bench) -> None:
    await create(bench, new_schedule("app/a"), new_schedule("app/b"))
    await tick(bench, "app/a")

    first = await declare(bench, new_schedule("app/a"))
    second = await declare(bench)

    assert (["app/a"], ["app/a"]) == (list(first.changed), list(second.removed))
    assert ["app/b"] == await names_of(bench), "what it does not declare is left alone"


@case("4.22")
async def a_firing_read_before_a_change_changes_nothing(bench: Bench) -> None:
    await declare(bench, new_schedule("app/a"), new_schedule("app/b"), new_schedule("app/c"))
    stale = await find(bench)
    await declare(bench, new_schedule("app/a", description="new"), new_schedule("app/c"))

    moves = [firing(record, job_of(record), after=bench.now) for record in stale]
    told = [answer.moved for answer in await fire(bench, *moves)]

    assert [False, False, True] == told
    assert 1 == len(await bench.find_ids())


@case("4.22")
async def older_declarations_than_the_last_are_remembered(bench: Bench) -> None:
    await declare(bench, application="other", digest=b"0")
    for number in range(20):
        await declare(bench, digest=b"%d" % number)

    told = [await declare(bench, digest=b"%d" % number) for number in (0, 10, 18)]
    other = await declare(bench, application="other", digest=b"0")

    assert [(OUTDATED, 20)] * 3 == [(answer.status, answer.generation) for answer in told]
    assert (CURRENT, 1) == (other.status, other.generation), "those of others are not counted"


@case("4.22")
async def of_many_that_declare_the_same_at_once_one_is_told_so(bench: Bench) -> None:
    schedules = [new_schedule(f"app/{number}") for number in range(20)]

    async def declare_it(store: Bench, number: int) -> list[str]:
        return [(await declare(store, *schedules)).status]

    told = await in_threads(bench, declare_it)

    assert sorted([DECLARED, *[CURRENT] * (STORES - 1)]) == sorted(status for (status,) in told)
    assert 20 == len(await find(bench, application="app"))


@case("4.22")
async def of_many_generations_at_once_the_last_stands(bench: Bench) -> None:
    async def declare_it(store: Bench, number: int) -> list[str]:
        return [(await declare(store, new_schedule(f"app/{number}"), generation=number + 1)).status]

    await in_threads(bench, declare_it)

    assert [f"app/{STORES - 1}"] == await names_of(bench)


@case("4.22", needs=Capability.DURABLE)
async def declarations_survive_a_restart(bench: Bench) -> None:
    first = new_schedule("app/a", Every(timedelta(microseconds=1), start=bench.now))
    await declare(bench, first)
    await declare(bench, new_schedule("app/a", Cron("0 8 * * *", tz="Australia/Lord_Howe")), digest=b"2")
    await foresee(bench, "app/a")
    before = await find(bench)

    await bench.restart()

    assert before == await find(bench)
    assert (OUTDATED, 2) == ((old := await declare(bench, first)).status, old.generation)
    assert CURRENT == (await declare(bench, digest=b"2")).status
