"""How PostgreSQL finds and moves schedules among many: by which index, how much it reads, what it writes anew."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest

pytest.importorskip("psycopg", reason="needs the extra `postgres`")

from msgspec.structs import replace

from taskharbor.driver import (
    UPKEEP,
    DueSchedule,
    Fired,
    Firing,
    LeaderTake,
    ScheduleCreate,
    ScheduleDeclare,
    ScheduleDelete,
    ScheduleDue,
    ScheduleFind,
    ScheduleFire,
    SchedulePause,
    ScheduleResume,
)
from taskharbor.drivers.postgres.declaring import schedule_create, schedule_declare
from taskharbor.drivers.postgres.firing import schedule_fire
from taskharbor.drivers.postgres.leader import leader_take
from taskharbor.drivers.postgres.routine import quoted
from taskharbor.drivers.postgres.schedule import (
    schedule_delete,
    schedule_due,
    schedule_find,
    schedule_pause,
    schedule_resume,
)
from taskharbor.drivers.postgres.step import Step
from taskharbor.job import new_job_id
from taskharbor.schedule import Every, NewSchedule, Schedule, ScheduleRecord
from taskharbor_conformance.bench import new_job
from tests.test_postgres_plans import OPTIONS, Explainer, Plan, Store

SMALL, LARGE = 5_000, 150_000
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
"""Of the schedules 600 are due then, and 100 have waited for jobs of which half have ended; at `NOW` only those."""
BATCH = 500
HOUR = timedelta(hours=1)
_ID = "('01000000-0000-7000-8000-' || lpad(i::text, 12, '0'))::uuid"
_JOB = '{"id":"","task":"mail.send","payload":"","codec":"json","fingerprint":1,"retry":{"max_attempts":5}}'
_SCHEDULE = '{"trigger":{"type":"every","period":"PT1H"}}'
_NOW = f"timestamptz '{NOW.isoformat()}'"
_FILL = (
    f"""INSERT INTO job (id, task, queue, options, priority, lane, due, run_at, enqueued_at, retain, payload)
        SELECT {_ID}, 'mail.send', 'default', '{OPTIONS}', 5, 2, now(), now(), now(), 86400000000, '\\x5b5d'
        FROM generate_series(0, COUNT - 1, 2) i""",
    f"""INSERT INTO schedule (name, application, schedule, job, payload, description, revision, created_at, after,
            next_at, ended, waiting_tick, paused_at, last_job)
        SELECT 's-' || lpad(i::text, 8, '0'), CASE WHEN i % 2 = 0 THEN 'app-' || i % 1000 END, '{_SCHEDULE}', '{_JOB}',
            '\\x5b5d', '', 1, {_NOW}, {_NOW}, {_NOW} + CASE WHEN i < 600 THEN interval '1 minute'
                ELSE interval '10 minutes' + i * interval '1 second' END,
            i % 100 = 99, CASE WHEN i BETWEEN 2000 AND 2099 THEN {_NOW} END, CASE WHEN i % 100 = 98 THEN {_NOW} END,
            {_ID} FROM generate_series(0, COUNT - 1) i""",
    f"""INSERT INTO declaration SELECT 'app-' || i % 100, i::text, i, i, now()
        FROM generate_series(1, {SMALL}) i""",
    "INSERT INTO leader SELECT 'role-' || i, 'w', i, now(), now() FROM generate_series(1, 20) i",
)
_TABLES = ("schedule", "declaration", "leader")
_FORGET_US = f"""DELETE FROM pg_statistic WHERE starelid IN (SELECT oid FROM pg_class
        WHERE relnamespace = '{{}}'::regnamespace AND relname IN {_TABLES});
    UPDATE pg_class SET reltuples = {{tuples}} WHERE relnamespace = '{{}}'::regnamespace AND relname IN {_TABLES}"""
KNOWLEDGE = {
    "statistics": "ANALYZE",
    "no statistics": _FORGET_US.replace("{tuples}", "-1"),
    "statistics of a moment without schedules": _FORGET_US.replace("{tuples}", "2"),
}
SIZES = [
    pytest.param(SMALL, id="5k"),
    pytest.param(LARGE, id="150k", marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
]


@pytest.fixture(scope="module", params=SIZES)
def store(request: pytest.FixtureRequest) -> Generator[Store]:
    with ExitStack() as stack:
        store = Store(0, stack)
        for statement in _FILL:
            store.schema.ask(statement.replace("COUNT", str(request.param)).replace("%", "%%"), ())
        yield store


@pytest.fixture(scope="module", params=list(KNOWLEDGE))
def known(request: pytest.FixtureRequest, store: Store) -> Store:
    """Return the store with something that the planner knows of it."""
    for table in ("job", *_TABLES):
        store.schema.ask(f"VACUUM ANALYZE {table}")  # so that it finds nothing of what was rolled back before
    store.schema.ask(KNOWLEDGE[request.param].replace("{}", quoted(store.schema.name)))
    return store


@pytest.fixture
def leader(known: Store) -> Generator[Explainer]:
    """Return somebody in a transaction that is rolled back at the end."""
    explainer = known.explainer()
    explainer.begin()
    yield explainer
    explainer.roll_back()
    explainer.connection.close()


def at(leader: Explainer, now: datetime) -> Step:
    return leader.step._replace(now=now.isoformat())


def check(plan: Plan, *, batch: int = BATCH, rows: float = 4, pages: float = 25) -> None:
    """Check that our tables, and that of jobs, are entered by indexes, and read in proportion to a batch."""
    for table in (*_TABLES, "job", "history.*"):
        for node in plan.on(table):
            read = node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0))
            assert node["Node Type"] != "Seq Scan" or read == 0, plan
            assert node["Node Type"] == "ModifyTable" or read <= rows * batch + 120, plan
    assert plan.pages <= pages * batch + 700, plan


def names(count: int = BATCH) -> list[str]:
    return [f"s-{number * 7:08}" for number in range(count)]


def due(leader: Explainer, now: datetime, limit: int = BATCH) -> list[DueSchedule]:
    return list(leader.ask(schedule_due(at(leader, now), ScheduleDue(limit=limit))).due)


def firing_of(record: ScheduleRecord, *, moves: bool = True) -> Firing:
    return Firing(
        name=record.name,
        revision=record.revision,
        jobs=[replace(record.job, id=new_job_id())],
        after=LATER if moves else None,
        next_at=LATER + HOUR if moves else None,
    )


def fire(leader: Explainer, firings: list[Firing]) -> list[Fired]:
    return list(leader.ask(schedule_fire(at(leader, LATER), ScheduleFire(firings=firings, fence=10**6))))


def test_where_nothing_is_due_a_look_reads_the_ends_of_two_indexes(leader: Explainer) -> None:
    leader.do("UPDATE schedule SET waiting_tick = NULL WHERE waiting_tick IS NOT NULL")
    with leader.explaining() as plans:
        assert [] == due(leader, NOW)

    (plan,) = plans
    check(plan, batch=0)
    assert {"schedule_due", "schedule_waiting"} <= plan.indexes("schedule")
    touched = sum(node["Actual Loops"] * node["Actual Rows"] for node in plan.on("schedule"))
    assert touched <= 2, plan
    assert plan.pages <= 60, plan


def test_a_look_reads_what_waits_for_a_job_and_asks_for_each_job_by_its_id(leader: Explainer) -> None:
    with leader.explaining() as plans:
        found = due(leader, NOW)

    assert (50, {False}) == (len(found), {one.busy for one in found})
    (plan,) = plans
    check(plan, batch=100)
    assert {"job_pkey"} == plan.indexes("job")


def test_a_look_reads_what_is_due_and_no_more(leader: Explainer) -> None:
    with leader.explaining() as plans:
        found = due(leader, LATER)

    assert BATCH == len(found)
    assert {True, False} == {one.busy for one in found}
    (plan,) = plans
    check(plan)


def test_firing_enters_by_name_and_takes_three_statements(leader: Explainer) -> None:
    firings = [firing_of(one.record) for one in due(leader, LATER)]
    fire(leader, firings[:1])  # which learns where in the history jobs may be
    with leader.explaining() as plans:
        answers = fire(leader, firings)

    assert BATCH - 1 == sum(fired.moved for fired in answers)
    # That the present is given has it learn that each time.
    locking, storing, moving = (plan for plan in plans if not plan.on("slot"))
    check(locking)
    check(storing, pages=60)
    check(moving, pages=60)
    assert {"schedule_pkey"} == locking.indexes("schedule") == moving.indexes("schedule")


def test_schedules_are_found_by_name_by_application_and_by_pages(leader: Explainer) -> None:
    ((of_app,),) = leader.do("SELECT count(*) FROM schedule WHERE application = 'app-42'")
    for request, count in (
        (ScheduleFind(names=names()), BATCH),
        (ScheduleFind(application="app-42"), of_app),
        (ScheduleFind(application="app-42", after="s-00000042"), of_app - 1),
        (ScheduleFind(after="s-00003000", limit=BATCH), BATCH),
    ):
        with leader.explaining() as plans:
            found = leader.verb(schedule_find, request)

        assert count == len(found)
        (plan,) = plans
        check(plan, batch=count)


def test_what_is_done_by_hand_enters_by_name(leader: Explainer) -> None:
    with leader.explaining() as plans:
        assert all(leader.verb(schedule_pause, SchedulePause(names=names())))
        assert all(leader.verb(schedule_resume, ScheduleResume(names=names())))
        assert all(leader.verb(schedule_delete, ScheduleDelete(names=names())))

    for plan in plans:
        check(plan, rows=8, pages=80)
        assert {"schedule_pkey"} == plan.indexes("schedule")


def test_declaring_and_creating_read_what_is_concerned(leader: Explainer) -> None:
    new = [
        NewSchedule(
            name=f"app-42/{number}", schedule=Schedule(trigger=Every(HOUR)), job=replace(new_job(), id="")
        )
        for number in range(BATCH)
    ]
    concerned = len(leader.verb(schedule_find, ScheduleFind(application="app-42")))
    with leader.explaining() as plans:
        declared = leader.verb(
            schedule_declare, ScheduleDeclare(application="app-42", schedules=new, digest=b"new")
        )
        leader.verb(
            schedule_create, ScheduleCreate(schedules=[replace(each, name=f"x{each.name}") for each in new])
        )

    assert (BATCH, concerned) == (len(declared.added), len(declared.removed))
    for plan in plans:
        check(plan, rows=8, pages=80)


def test_whether_a_declaration_is_new_is_seen_by_two_looks_at_an_index(leader: Explainer) -> None:
    with leader.explaining() as plans:
        leader.verb(
            schedule_declare, ScheduleDeclare(application="app-42", schedules=(), digest=b"", generation=1)
        )

    (plan,) = plans
    check(plan, batch=0)
    assert plan.pages <= 200, plan


def test_a_look_at_who_leads_reads_one_row(leader: Explainer) -> None:
    take = LeaderTake(role=UPKEEP, worker="a", ttl=HOUR)
    leader.verb(leader_take, take)
    for worker in ("a", "b"):
        with leader.explaining() as plans:
            assert "a" == leader.verb(leader_take, replace(take, worker=worker)).worker

        (plan,) = plans
        check(plan, batch=1)
        assert plan.pages <= 60, plan


def hot(leader: Explainer, table: str) -> tuple[int, int]:
    """Return how many rows this transaction has updated, and how many of those without touching an index."""
    ((changed, kept),) = leader.do(
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_xact_user_tables "
        f"WHERE relname = '{table}' AND schemaname = '{leader.schema.name}'"
    )
    return int(changed), int(kept)


def test_a_trigger_by_hand_and_going_on_to_lead_touch_no_index(leader: Explainer) -> None:
    records = leader.verb(schedule_find, ScheduleFind(names=names(50)))
    before = hot(leader, "schedule")
    fire(leader, [firing_of(record, moves=False) for record in records])
    changed, kept = (after - earlier for after, earlier in zip(hot(leader, "schedule"), before, strict=True))
    led = hot(leader, "leader")
    for _ in range(5):
        leader.verb(leader_take, LeaderTake(role="new", worker="a", ttl=HOUR))

    assert 50 == changed
    assert kept >= 0.8 * changed  # all but those that find no more room on a full page
    assert (led[0] + 4, led[1] + 4) == hot(leader, "leader")
