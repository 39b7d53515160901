"""Those who meet at PostgreSQL's schedules: leaders and others at once, one who stops, connections that break."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import pytest

pytest.importorskip("psycopg", reason="needs the extra `postgres`")

import psycopg
from msgspec.structs import replace

from taskharbor.driver import (
    UPKEEP,
    CreateStatus,
    Declared,
    DeclareStatus,
    EnqueueStatus,
    Fired,
    Firing,
    LeaderList,
    Leadership,
    LeaderTake,
    ScheduleCreate,
    ScheduleDeclare,
    ScheduleDelete,
    ScheduleDue,
    ScheduleFind,
    ScheduleFire,
    SchedulePause,
)
from taskharbor.drivers.postgres import Place, PostgresDriver
from taskharbor.drivers.postgres.declaring import schedule_create, schedule_declare
from taskharbor.drivers.postgres.firing import Pauses, parts, schedule_fire
from taskharbor.drivers.postgres.leader import leader_list, leader_take
from taskharbor.drivers.postgres.schedule import (
    schedule_delete,
    schedule_due,
    schedule_find,
    schedule_pause,
)
from taskharbor.job import NewJob, new_job_id
from taskharbor.schedule import Every, NewSchedule, Schedule, ScheduleRecord
from taskharbor_conformance.bench import new_job
from tests.support.postgres import server
from tests.support.postgres_ground import Ground
from tests.support.postgres_place import SharedSchema, shared_schema
from tests.support.postgres_proxy import Cut, proxy_to
from tests.support.postgres_walk import Meeting, Party, meeting
from tests.support.work import eventually

T = TypeVar("T")

HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
TICK = datetime(2026, 1, 1, 12, tzinfo=UTC)
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND wait_event_type = 'Lock'"


@pytest.fixture
def met() -> Generator[Meeting]:
    with meeting(shared_schema()) as made:
        yield made


def new_schedule(name: str = "tick", *, period: timedelta = HOUR, key: str | None = None) -> NewSchedule:
    return NewSchedule(
        name=name, schedule=Schedule(trigger=Every(period)), job=replace(new_job(key=key), id="")
    )


def create(party: Party, *names: str, key: str | None = None) -> None:
    party.begin()
    party.verb(schedule_create, ScheduleCreate(schedules=[new_schedule(name, key=key) for name in names]))
    party.commit()


def find(party: Party) -> list[ScheduleRecord]:
    return list(party.verb(schedule_find, ScheduleFind()))


def job_of(record: ScheduleRecord) -> NewJob:
    return replace(record.job, id=new_job_id())


def firing_of(record: ScheduleRecord) -> Firing:
    return Firing(
        name=record.name,
        revision=record.revision,
        jobs=[job_of(record)],
        last_tick=TICK,
        after=TICK,
        next_at=TICK + HOUR,
    )


def firings_of(party: Party) -> list[Firing]:
    return [firing_of(record) for record in find(party)]


def fire(party: Party, firings: Sequence[Firing], *, fence: int | None = None) -> Sequence[Fired]:
    return party.verb(schedule_fire, ScheduleFire(firings=firings, fence=fence))


def take(party: Party, worker: str, ttl: timedelta = HOUR) -> Leadership:
    return party.verb(leader_take, LeaderTake(role=UPKEEP, worker=worker, ttl=ttl))


def end_the_lease(party: Party) -> None:
    party.do("UPDATE leader SET expires_at = clock_timestamp() - interval '1 second'")


def count(party: Party, table: str) -> int:
    return int(party.do(f"SELECT count(*) FROM {table}")[0][0])


def pid(party: Party) -> int:
    return party.connection.info.backend_pid


@contextmanager
def begun(met: Meeting, party: Party, call: Callable[[], T]) -> Generator[Future[T]]:
    """Have somebody ask for what he then has to wait for: a lock."""
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(call)
        statement = WAITING.format(pid(party))
        eventually(lambda: bool(met.schema.ask(statement)[0][0]), "a lock that is waited for")
        assert not asked.done()
        yield asked


# --- firing


def test_of_two_who_fire_at_once_one_makes_the_jobs(met: Meeting) -> None:
    one, other = met.party(), met.party()
    create(one, "a", "b", "c")
    of_one, of_other = firings_of(one), firings_of(one)
    one.begin()
    assert [True] * 3 == [fired.moved for fired in fire(one, of_one)]

    other.begin()
    with begun(met, other, lambda: fire(other, of_other[::-1])) as asked:
        one.commit()
        answers = asked.result(20)
    other.commit()

    assert [False] * 3 == [fired.moved for fired in answers]
    assert 3 == count(one, "job")
    assert {1} == {record.fired for record in find(one)}


def test_of_firings_in_both_orders_none_waits_for_ever(met: Meeting) -> None:
    names = [f"s{number:02}" for number in range(20)]
    parties = [met.party() for _ in range(2)]
    create(parties[0], *names)

    def fire_all(party: Party, *, backwards: bool) -> int:
        moved = 0
        for _ in range(20):
            party.begin()
            firings = firings_of(party)
            moved += sum(fired.moved for fired in fire(party, firings[::-1] if backwards else firings))
            party.commit()
        return moved

    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(fire_all, party, backwards=bool(n)) for n, party in enumerate(parties)]
        moved = sum(each.result(60) for each in both)

    assert 20 * len(names) <= moved
    assert moved == count(parties[0], "job")
    assert moved == sum(record.fired for record in find(parties[0]))


def test_a_firing_beside_a_pause_changes_nothing(met: Meeting) -> None:
    leader, person = met.party(), met.party()
    create(leader, "tick")
    firings = firings_of(leader)
    person.begin()
    person.verb(schedule_pause, SchedulePause(names=["tick"], by="me"))

    leader.begin()
    with begun(met, leader, lambda: fire(leader, firings)) as asked:
        person.commit()
        (answer,) = asked.result(20)
    leader.commit()

    assert not answer.moved
    assert 0 == count(leader, "job")
    assert "me" == find(leader)[0].paused_by


def test_a_firing_beside_a_delete_changes_nothing(met: Meeting) -> None:
    leader, person = met.party(), met.party()
    create(leader, "a", "tick")
    firings = firings_of(leader)
    person.begin()
    assert [True] == person.verb(schedule_delete, ScheduleDelete(names=["tick"]))

    leader.begin()
    with begun(met, leader, lambda: fire(leader, firings)) as asked:
        person.commit()
        answers = asked.result(20)
    leader.commit()

    assert [True, False] == [fired.moved for fired in answers]
    assert ["a"] == [record.name for record in find(leader)]
    assert 1 == count(leader, "job")


def test_a_delete_waits_for_a_firing_and_leaves_its_job(met: Meeting) -> None:
    leader, person = met.party(), met.party()
    create(leader, "tick")
    leader.begin()
    fire(leader, firings_of(leader))

    with begun(
        met, person, lambda: person.verb(schedule_delete, ScheduleDelete(names=["tick", "gone"]))
    ) as asked:
        leader.commit()
        answers = asked.result(20)

    assert [True, False] == answers
    assert [] == find(person)
    assert 1 == count(person, "job")


def test_what_is_paused_beside_a_firing_keeps_what_that_has_written(met: Meeting) -> None:
    leader, person = met.party(), met.party()
    create(leader, "tick")
    leader.begin()
    fire(leader, [replace(firing, waiting_tick=TICK) for firing in firings_of(leader)])

    with begun(met, person, lambda: person.verb(schedule_pause, SchedulePause(names=["tick"]))) as asked:
        leader.commit()
        assert [True] == asked.result(20)

    (record,) = find(person)
    assert (1, TICK + HOUR, True) == (record.fired, record.next_at, record.paused_at is not None)
    person.do("DELETE FROM job")  # for whose end a tick waits
    assert [] == person.verb(schedule_due, ScheduleDue()).due


def test_a_trigger_by_hand_leaves_what_has_ended_and_what_nobody_has_led(met: Meeting) -> None:
    party = met.party()
    create(party, "tick")
    last = replace(firings_of(party)[0], ended=True, next_at=None)
    assert [True] == [fired.moved for fired in fire(party, [last], fence=3)]

    by_hand = replace(firings_of(party)[0], after=None, next_at=None)
    assert [True] == [fired.moved for fired in fire(party, [by_hand])]

    (record,) = find(party)
    assert (True, TICK, 2) == (record.ended, record.after, record.fired)


# --- leadership


def test_of_many_who_would_lead_at_once_one_does(met: Meeting) -> None:
    parties = [met.party() for _ in range(4)]
    for _ in range(10):
        with ThreadPoolExecutor(4) as pool:
            takes = [pool.submit(take, party, f"w{n}") for n, party in enumerate(parties)]
            answers = [each.result(20) for each in takes]

        assert 1 == len({(answer.worker, answer.fence) for answer in answers})
        end_the_lease(parties[0])

    assert 10 == int(parties[0].do("SELECT fence FROM leader")[0][0])


@pytest.mark.parametrize("led", [False, True], ids=["nobody has led", "somebody has led"])
def test_who_would_lead_and_comes_second_is_told_who_does(met: Meeting, *, led: bool) -> None:
    one, other = met.party(), met.party()
    if led:
        take(one, "c")
        end_the_lease(one)
    one.begin()
    take(one, "a")

    with begun(met, other, lambda: take(other, "b")) as asked:
        one.commit()
        answer = asked.result(20)

    assert ("a", 2 if led else 1) == (answer.worker, answer.fence)


def test_who_does_not_lead_writes_nothing(met: Meeting) -> None:
    leader, other = met.party(), met.party()
    take(leader, "a")
    other.begin()

    answer = take(other, "b")

    assert "a" == answer.worker
    assert [(None,)] == other.do("SELECT pg_current_xact_id_if_assigned()")
    other.roll_back()


def test_a_leader_goes_on_leading_while_it_fires(met: Meeting) -> None:
    firing, beating = met.party(), met.party()
    create(firing, "tick")
    fence = take(firing, "a", SECOND).fence
    firing.begin()
    fire(firing, firings_of(firing), fence=fence)

    answer = take(beating, "a")

    assert ("a", fence) == (answer.worker, answer.fence)
    firing.commit()
    assert 1 == count(firing, "job")


def test_a_leader_that_stops_within_a_firing_is_not_overtaken_before_it_has_ended(met: Meeting) -> None:
    old, new = met.party(), met.party()
    create(old, "tick")
    fence = take(old, "a").fence
    firings = firings_of(old)
    old.begin()
    fire(old, firings, fence=fence)
    end_the_lease(new)

    with begun(met, new, lambda: take(new, "b")) as asked:
        old.commit()
        answer = asked.result(20)

    assert ("b", fence + 1) == (answer.worker, answer.fence)
    assert [False] == [fired.moved for fired in fire(old, firings_of(old), fence=fence)]
    assert [True] == [fired.moved for fired in fire(new, firings_of(new), fence=fence + 1)]


def test_a_leader_that_stops_within_a_firing_is_cut_off_soon(met: Meeting) -> None:
    old, new = met.party(), met.party()
    create(old, "tick")
    old.begin()
    fire(old, firings_of(old), fence=take(old, "a").fence)

    ((limit,),) = old.do("SHOW idle_in_transaction_session_timeout")
    old.do("SET LOCAL idle_in_transaction_session_timeout = '100ms'")
    end_the_lease(new)
    answer = take(new, "b")

    assert ("5s", "b") == (limit, answer.worker)
    with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
        old.commit()
    assert [True] == [fired.moved for fired in fire(new, firings_of(new), fence=answer.fence)]
    assert 1 == count(new, "job")


def test_a_leader_of_old_waits_for_who_takes_over_and_fires_nothing(met: Meeting) -> None:
    old, new = met.party(), met.party()
    create(old, "tick")
    fence = take(old, "a").fence
    end_the_lease(old)
    new.begin()
    take(new, "b")

    with begun(met, old, lambda: fire(old, firings_of(old), fence=fence)) as asked:
        new.commit()
        (answer,) = asked.result(20)

    assert not answer.moved
    assert 0 == count(old, "job")
    assert ["b"] == [each.worker for each in old.verb(leader_list, LeaderList())]


# --- declaring


def declaration(*schedules: NewSchedule, digest: bytes) -> ScheduleDeclare:
    return ScheduleDeclare(application="app", schedules=schedules, digest=digest)


def declare(party: Party, request: ScheduleDeclare) -> Declared:
    party.begin()
    answer = party.verb(schedule_declare, request)
    party.commit()
    return answer


def test_workers_that_declare_at_once_come_one_after_the_other(met: Meeting) -> None:
    one, other = met.party(), met.party()
    one.begin()
    first = one.verb(schedule_declare, declaration(new_schedule("app/a"), digest=b"1"))

    with begun(met, other, lambda: declare(other, declaration(new_schedule("app/b"), digest=b"2"))) as asked:
        one.commit()
        second = asked.result(20)

    assert (1, ["app/a"], []) == (first.generation, first.added, first.removed)
    assert (2, ["app/b"], ["app/a"]) == (second.generation, second.added, second.removed)
    assert ["app/b"] == [record.name for record in find(one)]


def test_workers_that_declare_the_same_at_once_declare_it_once(met: Meeting) -> None:
    one, other = met.party(), met.party()
    request = declaration(new_schedule("app/a"), digest=b"1")
    one.begin()
    one.verb(schedule_declare, request)

    with begun(met, other, lambda: declare(other, request)) as asked:
        one.commit()
        second = asked.result(20)

    assert (DeclareStatus.CURRENT, 1) == (second.status, second.generation)
    assert 1 == len(find(one))


def test_what_is_declared_already_is_seen_without_waiting(met: Meeting) -> None:
    one, other = met.party(), met.party()
    request = declaration(new_schedule("app/a"), digest=b"1")
    declare(one, request)
    one.begin()
    one.verb(schedule_declare, declaration(new_schedule("app/b"), digest=b"2"))
    other.begin()

    answer = other.verb(schedule_declare, request)

    assert DeclareStatus.CURRENT is answer.status
    assert [(None,)] == other.do("SELECT pg_current_xact_id_if_assigned()")
    other.roll_back()
    one.roll_back()


def test_a_declaration_waits_for_a_firing_and_keeps_what_that_has_written(met: Meeting) -> None:
    leader, worker = met.party(), met.party()
    declare(leader, declaration(new_schedule("app/a"), new_schedule("app/b"), digest=b"1"))
    stale = firings_of(leader)
    leader.begin()
    fire(leader, firings_of(leader))

    changed = declaration(new_schedule("app/a", period=SECOND), digest=b"2")
    with begun(met, worker, lambda: declare(worker, changed)) as asked:
        leader.commit()
        answer = asked.result(20)

    assert (["app/a"], ["app/b"]) == (answer.changed, answer.removed)
    (record,) = find(worker)
    assert (1, TICK, None) == (record.fired, record.last_tick, record.next_at)
    assert [False, False] == [fired.moved for fired in fire(leader, stale)]
    assert 2 == count(worker, "job")


def test_names_that_two_create_at_once_are_created_once(met: Meeting) -> None:
    one, other = met.party(), met.party()
    request = ScheduleCreate(schedules=[new_schedule("tick")])
    one.begin()
    one.verb(schedule_create, request)

    def create_it() -> object:
        other.begin()
        answer = other.verb(schedule_create, request)
        other.commit()
        return answer

    with begun(met, other, create_it) as asked:
        one.commit()
        assert ["existing"] == asked.result(20)


def test_a_schedule_whose_answer_of_creation_is_lost_was_created(ground: Ground) -> None:
    ground.do("DELETE FROM job; DELETE FROM schedule")
    asked = ScheduleCreate(schedules=[new_schedule("a")])

    async def work(place: Place) -> list[CreateStatus]:
        driver = PostgresDriver(place)
        try:
            async with driver.connect() as store:
                await store.schedule_due(ScheduleDue())
                proxy.lose(COMMIT, Cut.ANSWER)
                return [*await store.schedule_create(asked), *await store.schedule_create(asked)]
        finally:
            driver.close()

    with proxy_to(ground.conninfo) as proxy:
        answers = asyncio.run(work(Place(conninfo=proxy.conninfo, schema=ground.schema, prepare=False)))

    assert 1 == proxy.cuts
    assert [CreateStatus.CREATED, CreateStatus.EXISTING] == answers


# --- keys that others hold


def test_schedules_whose_keys_are_held_are_left_alone_longer_and_longer() -> None:
    clock = [0.0]
    pauses = Pauses(lambda: clock[0])
    firings = [Firing(name=f"k{number}", revision=1, jobs=[new_job(key="k")]) for number in range(9)]
    found = list(parts(ScheduleFire(firings=[*firings, Firing(name="plain", revision=1)], fence=7)))
    asked: list[list[str]] = []
    for clock[0] in (0.0, 0.0, 0.1, 0.3, 0.5, 1.0):
        pauses.begin()
        asked.append([])
        for part in found:
            if not pauses.keeps(part):
                asked[-1].append(part.request.firings[0].name)
                (pauses.held if part.keyed else pauses.fired)(part)

    assert ["plain", "k0", "k1", "k2", "k3", "k4"] == asked[0]
    assert ["plain", "k5", "k6", "k7", "k8"] == asked[1]
    assert [["plain"], ["plain", "k0", "k1", "k2", "k3", "k4"]] == asked[2:4]
    assert ["plain", "k5", "k6", "k7", "k8"] == asked[4]
    assert ["plain", "k0", "k1", "k2", "k3", "k4"] == asked[5]


def test_a_schedule_that_is_fired_by_hand_waits_for_its_key() -> None:
    pauses = Pauses(lambda: 0.0)
    (part,) = parts(ScheduleFire(firings=[Firing(name="k", revision=1, jobs=[new_job(key="k")])]))
    pauses.held(part)

    assert not pauses.keeps(part)
    assert schedule_fire is part.verb


def test_firings_with_keys_come_last_and_alone() -> None:
    plain = [Firing(name=f"p{number}", revision=1, jobs=[new_job()]) for number in range(501)]
    keyed = [Firing(name=f"k{number}", revision=1, jobs=[new_job(key="k")]) for number in range(2)]
    many = Firing(name="many", revision=1, jobs=[new_job()] * 5000)

    found = list(parts(ScheduleFire(firings=[keyed[0], *plain, many, keyed[1]], fence=7)))

    assert [500, 1, 1, 1, 1] == [len(part.request.firings) for part in found]
    assert [False, False, False, True, True] == [part.keyed for part in found]
    assert sorted(place for part in found for place in part.places) == list(range(504))
    assert {7} == {part.request.fence for part in found}


def test_a_key_in_somebodys_open_transaction_holds_up_no_other_schedule(met: Meeting) -> None:
    schema, person = met.schema, met.party()
    create(person, "a", key="held")
    create(person, "b")
    person.begin()
    person.put(new_job(key="held"))
    firings = firings_of(person)

    answers = with_driver(schema, lambda place: fire_through(place, firings))

    assert [False, True] == [fired.moved for fired in answers]
    person.roll_back()


def fire_through(place: Place, firings: Sequence[Firing]) -> Sequence[Fired]:
    async def main() -> Sequence[Fired]:
        driver = PostgresDriver(place)
        try:
            async with driver.connect() as store:
                return await store.schedule_fire(ScheduleFire(firings=firings))
        finally:
            driver.close()

    return asyncio.run(main())


def with_driver(schema: SharedSchema, work: Callable[[Place], T]) -> T:
    words = schema.place.conninfo
    return work(replace(schema.place, conninfo=f"{words}&options=-c%20lock_timeout%3D300ms"))


# --- connections that break


@pytest.fixture(scope="module")
def ground() -> Generator[Ground]:
    made = Ground(server().conninfo)
    yield made
    made.remove()


STORING, COMMIT = "added AS", "COMMIT\0"
CUTS = [
    *(pytest.param(STORING, cut, id=f"within, {cut.name.lower()}") for cut in Cut),
    *(pytest.param(COMMIT, cut, id=f"commit, {cut.name.lower()}") for cut in (Cut.BEFORE, Cut.ANSWER)),
]


@pytest.mark.parametrize(("words", "cut"), CUTS)
def test_a_firing_whose_connection_breaks_is_made_once_and_told(ground: Ground, words: str, cut: Cut) -> None:
    ground.do("DELETE FROM job; DELETE FROM schedule")

    async def work(place: Place) -> tuple[list[Firing], Sequence[Fired]]:
        driver = PostgresDriver(place)
        try:
            async with driver.connect() as store:
                await store.schedule_create(ScheduleCreate(schedules=[new_schedule("a"), new_schedule("b")]))
                firings = [firing_of(each) for each in await store.schedule_find(ScheduleFind())]
                proxy.lose(words, cut)
                return firings, await store.schedule_fire(ScheduleFire(firings=firings))
        finally:
            driver.close()

    with proxy_to(ground.conninfo) as proxy:
        place = Place(conninfo=proxy.conninfo, schema=ground.schema, prepare=False)
        firings, answers = asyncio.run(work(place))

    assert 1 == proxy.cuts
    assert [True, True] == [fired.moved for fired in answers]
    assert [EnqueueStatus.CREATED] * 2 == [each.status for fired in answers for each in fired.jobs]
    assert sorted(job.id for firing in firings for job in firing.jobs) == ground.ids()
    assert [(1,), (1,)] == ground.do("SELECT fired FROM schedule")
