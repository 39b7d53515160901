"""What becomes of calls of a task that declares its calls unique, on every store: kept out, replaced, put off."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from taskharbor import (
    Context,
    Debounce,
    DuplicateJob,
    FlowError,
    Harbor,
    JobHandle,
    JobState,
    KeyConflict,
    OptionError,
    Registry,
    Retry,
    Throttle,
    Unique,
    chain,
    every,
    group,
    task,
)
from taskharbor.clock import ManualClock
from taskharbor.driver import Driver
from taskharbor.drivers.memory import MemoryDriver
from taskharbor.drivers.sqlite import SqliteDriver
from taskharbor.middleware import Middleware, Outgoing
from tests.fixtures.support import untyped
from tests.support.postgres import server
from tests.support.postgres_ground import Ground
from tests.support.work import ENOUGH, HOUR, SECOND

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
registry = Registry()


@task(registry=registry)
def note(value: int) -> int:
    return value


@task(registry=registry, unique=Unique(key="account"))
def pay(account: str, cents: int = 0) -> int:
    return cents


@task(registry=registry, unique=Unique(key="account", on_conflict="raise"))
def charge(account: str, cents: int = 0) -> int:
    return cents


@task(registry=registry, unique=Unique(key="account", on_conflict="replace"))
def index(account: str, page: int = 0) -> int:
    return page


@task(registry=registry, unique=Unique())
async def again(ctx: Context, calls: int) -> tuple[str, bool]:
    """Call itself while it is running, and tell what came of that."""
    handle = await again.aenqueue(calls + 1)
    return handle.id, handle.created


@task(registry=registry, unique=Unique(states={"scheduled", JobState.READY}))
async def queued_once(ctx: Context, calls: int) -> tuple[str, bool]:
    handle = await queued_once.options(run_in=HOUR).aenqueue(calls + 1)
    return handle.id, handle.created


@task(registry=registry, unique=Unique(on_conflict="replace"))
async def latest(ctx: Context, calls: int) -> tuple[str, bool]:
    handle = await latest.options(run_in=HOUR).aenqueue(calls + 1)
    return handle.id, handle.created


@task(registry=registry, unique=Debounce(MINUTE, key="page", at_most=3 * MINUTE))
def render(page: str, version: int) -> int:
    return version


@task(registry=registry, retain=timedelta(0), unique=Throttle(MINUTE))
def refresh(why: str) -> str:
    return why


@task(registry=registry, retry=Retry(max_attempts=1), unique=Unique(window=MINUTE, states={"dead"}))
def report(day: int) -> int:
    if day < 0:
        raise ValueError(day)
    return day


@task(registry=registry)
def send_on(ctx: Context, account: str) -> None:
    ctx.enqueue_on_success(pay.s(account, 7))


@pytest.fixture(scope="module")
def ground() -> Generator[Ground]:
    """A schema of PostgreSQL."""
    made = Ground(server().conninfo)
    yield made
    made.remove()


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def harbor(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Harbor]:
    """Return a harbor without a worker, on every store."""
    if request.param == "memory":
        driver: Driver = MemoryDriver()
    elif request.param == "sqlite":
        driver = SqliteDriver(tmp_path / "jobs.db")
    else:
        ground: Ground = request.getfixturevalue("ground")
        ground.empty()
        driver = ground.driver()
    with Harbor(driver, registry=registry) as made:
        yield made


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def turned(clock: ManualClock) -> Iterator[Harbor]:
    """Return a harbor whose store goes by `clock`."""
    with Harbor(MemoryDriver(clock), registry=registry) as made:
        yield made


def arguments(harbor: Harbor, handle: JobHandle[object]) -> dict[str, object]:
    return dict(harbor.arguments_of(harbor.jobs.get(handle.id)))


# --- Unique --------------------------------------------------------------------------------------------------


def test_a_call_with_the_key_of_a_live_job_answers_with_that_job(harbor: Harbor) -> None:
    first, other = pay.enqueue("ada", 1), pay.enqueue("bob", 1)

    second = pay.enqueue("ada", 2)

    assert (True, True, False) == (first.created, other.created, second.created)
    assert first.id == second.id
    assert {"account": "ada", "cents": 1} == arguments(harbor, first)


def test_once_that_job_has_ended_the_next_call_is_a_new_one(harbor: Harbor) -> None:
    first = pay.enqueue("ada", 1)
    first.cancel()

    second = pay.enqueue("ada", 2)

    assert second.created
    assert first.id != second.id


def test_a_conflict_may_be_an_error(harbor: Harbor) -> None:
    first = charge.enqueue("ada", 1)

    with pytest.raises(DuplicateJob, match="'unique:\\[\"ada\"\\]' of task") as caught:
        charge.enqueue("ada", 2)
    told = charge.options(on_conflict="existing").enqueue("ada", 3)

    assert first.id == caught.value.job_id == told.id


@pytest.mark.parametrize(
    ("declared", "created"),
    [(again, False), (queued_once, True), (latest, True)],
    ids=["live", "states", "replace"],
)
def test_a_running_job_keeps_out_whom_the_declared_states_say(
    harbor: Harbor, declared: type[object], created: bool
) -> None:
    with harbor.worker_thread():
        first = untyped(declared).enqueue(0)
        other, was_created = first.result(timeout=ENOUGH)

    assert created is was_created
    assert (first.id == other) is not created


def test_a_replacing_call_leaves_one_job_with_the_last_arguments_and_options(harbor: Harbor) -> None:
    first = index.options(priority=7, run_in=HOUR).enqueue("ada", 1)

    second = index.options(queue="fast").enqueue("ada", 2)

    record = harbor.jobs.get(first.id)
    assert (first.id, False) == (second.id, second.created)
    assert {"account": "ada", "page": 2} == arguments(harbor, first)
    assert ("fast", 5, JobState.READY) == (record.queue, record.priority, record.state)
    assert 1 == len(harbor.jobs.find())


def test_a_task_without_unique_may_replace_under_a_key_of_its_own(harbor: Harbor) -> None:
    first = note.options(key="k", run_in=HOUR).enqueue(1)

    second = note.options(key="k", on_conflict="replace").enqueue(2)

    assert (first.id, False) == (second.id, second.created)
    assert {"value": 2} == arguments(harbor, first)
    with pytest.raises(KeyConflict):
        note.options(key="k").enqueue(1)


def test_an_own_key_goes_before_the_derived_one(harbor: Harbor) -> None:
    first = render.options(key="k").enqueue("home", 1)
    second = render.options(key="other").enqueue("home", 1)

    assert (True, True) == (first.created, second.created)
    record = harbor.jobs.get(first.id)
    assert ("k", JobState.READY) == (record.key, record.state)


def test_a_batch_is_unique_within_itself(harbor: Harbor) -> None:
    kept = harbor.enqueue_many([pay.s("ada", 1), pay.s("bob", 1), pay.s("ada", 2)])
    replaced = harbor.enqueue_many([index.s("ada", 1), index.s("ada", 2)])

    assert [True, True, False] == [handle.created for handle in kept]
    assert [True, False] == [handle.created for handle in replaced]
    assert {"account": "ada", "page": 2} == arguments(harbor, replaced[0])


def test_what_is_enqueued_with_a_jobs_success_is_unique_too(harbor: Harbor) -> None:
    first = pay.options(run_in=HOUR).enqueue("ada", 1)

    with harbor.worker_thread():
        send_on.enqueue("ada").result(timeout=ENOUGH)

    assert [first.id] == [record.id for record in harbor.jobs.find(tasks=[pay.name])]


def test_steps_of_flows_have_no_derived_key(harbor: Harbor) -> None:
    flow = group(pay.s("ada", 1), pay.s("ada", 2)).enqueue()
    single = pay.enqueue("ada", 3)

    steps = harbor.jobs.find(flow=flow.id, tasks=[pay.name])
    assert [None, None] == [record.key for record in steps]
    assert single.created


def test_what_a_schedule_triggers_is_unique_too(harbor: Harbor) -> None:
    waiting = pay.enqueue("ada", 1)
    harbor.schedules.create("daily", pay.s("ada", 2), every(HOUR))

    sent = harbor.schedules.trigger("daily")
    harbor.schedules.delete("daily")

    assert (waiting.id, False) == (sent.job_id, sent.created)


def test_what_a_schedule_triggers_raises_as_an_enqueue_would(harbor: Harbor) -> None:
    taken = note.options(key="k").enqueue(1)
    call = note.options(key="k", on_conflict="raise")
    harbor.schedules.create("same", call.s(1), every(HOUR))
    harbor.schedules.create("other", call.s(2), every(HOUR))

    with pytest.raises(DuplicateJob) as duplicate:
        harbor.schedules.trigger("same")
    with pytest.raises(KeyConflict, match="other arguments") as conflict:
        harbor.schedules.trigger("other")

    assert {taken.id} == {duplicate.value.job_id, conflict.value.job_id}
    assert [(1, 0), (1, 0)] == [
        (record.kept_out, record.fired) for record in map(harbor.schedules.get, ("same", "other"))
    ]
    harbor.schedules.delete("same", "other")


def test_in_a_callers_transaction_calls_are_unique(tmp_path: Path) -> None:
    file = tmp_path / "jobs.db"
    with Harbor(f"sqlite:///{file}", registry=registry) as harbor:
        first = index.options(run_in=HOUR).enqueue("ada", 1)

        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            with harbor.using(connection):
                second = index.enqueue("ada", 2)
                third = pay.enqueue("ada", 2)
            connection.execute("ROLLBACK")

        assert (first.id, False, True) == (second.id, second.created, third.created)
        assert {"account": "ada", "page": 1} == arguments(harbor, first)
        assert 1 == len(harbor.jobs.find())


def test_middleware_is_told_that_no_job_was_created() -> None:
    told: list[tuple[str, bool | None]] = []

    class Look(Middleware):
        def enqueue(self, jobs: Sequence[Outgoing]) -> Iterator[None]:
            yield
            told.extend((job.job_id, job.created) for job in jobs)

    with Harbor("memory://", registry=registry, middleware=[Look()]):
        first, _ = index.enqueue("ada", 1), index.enqueue("ada", 2)

    assert [(first.id, True), (first.id, False)] == told


def test_a_window_keeps_calls_out_after_the_end(turned: Harbor, clock: ManualClock) -> None:
    first = report.enqueue(1)
    turned.run_until_idle()
    clock.advance(MINUTE - SECOND)
    within = report.enqueue(2)
    clock.advance(SECOND)

    assert (first.id, True) == (within.id, report.enqueue(3).created)


def test_a_dead_letter_keeps_calls_out_where_that_is_a_declared_state(
    turned: Harbor, clock: ManualClock
) -> None:
    first = report.enqueue(-1)
    turned.run_until_idle()
    clock.advance(HOUR)

    assert first.id == report.enqueue(1).id
    turned.jobs.delete([first.id])
    assert report.enqueue(1).created


# --- Debounce and Throttle -----------------------------------------------------------------------------------


def test_calls_in_a_row_are_one_job_with_the_last_arguments(harbor: Harbor) -> None:
    handles = [render.enqueue("home", version) for version in range(5)]

    assert 1 == len({handle.id for handle in handles})
    assert [True, False, False, False, False] == [handle.created for handle in handles]
    record = harbor.jobs.get(handles[0].id)
    assert {"page": "home", "version": 4} == arguments(harbor, handles[0])
    assert JobState.SCHEDULED is record.state


def test_each_call_puts_the_start_off_up_to_a_limit(turned: Harbor, clock: ManualClock) -> None:
    starts = list[timedelta]()
    for version in range(5):
        handle = render.enqueue("home", version)
        starts.append(turned.jobs.get(handle.id).run_at - NOW)
        clock.advance(45 * SECOND)

    assert [60 * SECOND, 105 * SECOND, 150 * SECOND, 180 * SECOND, 180 * SECOND] == starts


def test_a_call_that_says_when_it_starts_is_not_put_off(turned: Harbor) -> None:
    handle = render.options(run_in=2 * MINUTE).enqueue("home", 1)
    render.options(run_at=NOW).enqueue("home", 2)

    assert NOW == turned.jobs.get(handle.id).run_at


def test_a_throttled_task_has_one_job_in_its_time_however_soon_that_ends(
    turned: Harbor, clock: ManualClock
) -> None:
    first = refresh.enqueue("a")
    first.cancel()
    clock.advance(MINUTE - SECOND)
    within = refresh.enqueue("b")
    clock.advance(SECOND)
    after = refresh.enqueue("c")

    assert (first.id, False) == (within.id, within.created)
    assert after.created


def test_calls_cannot_ask_for_what_goes_against_the_declaration(turned: Harbor) -> None:
    with pytest.raises(OptionError, match="declared with Throttle"):
        refresh.options(on_conflict="replace").enqueue("a")
    with pytest.raises(OptionError, match="declared with Debounce"):
        render.options(on_conflict="raise").enqueue("home", 1)

    assert [] == list(turned.jobs.find())


# --- flows ---------------------------------------------------------------------------------------------------


def test_flows_and_their_steps_replace_nothing(turned: Harbor) -> None:
    flow = chain(note.s(1), note)
    with pytest.raises(OptionError, match="a flow takes no other's place"):
        untyped(flow).configure(key="k", on_conflict="replace")
    with pytest.raises(OptionError, match="a flow takes no other's place"):
        chain(note, note).options(key="k", on_conflict="replace")
    with pytest.raises(FlowError, match="a step of a flow replaces no job"):
        chain(note.options(key="k", on_conflict="replace").s(1), note).enqueue()

    assert [] == list(turned.jobs.find())


def test_a_step_that_has_the_key_is_not_replaced(harbor: Harbor) -> None:
    chain(note.options(key="k").s(1), note).enqueue()

    with pytest.raises(KeyConflict, match="is a step of a flow and cannot be replaced"):
        note.options(key="k", on_conflict="replace").enqueue(2)
