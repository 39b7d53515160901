"""Flows from end to end, on every store, by a real worker: what each composition comes to, and how it fails."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Generator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from taskharbor import (
    Context,
    DuplicateJob,
    Failure,
    Flow,
    FlowFailed,
    FlowHandle,
    FlowState,
    Harbor,
    JobCancelled,
    JobFailed,
    JobState,
    KeyConflict,
    ResultTimeout,
    Signature,
    Success,
    chain,
    chord,
    each,
    gather,
    group,
)
from taskharbor.drivers.memory import MemoryDriver
from tests.support import flow_app
from tests.support.chaos_stores import POSTGRES, SQLITE, chaos_store
from tests.support.flow_app import (
    add_all,
    add_up,
    describe,
    double,
    doze,
    flatten,
    follow,
    follow_in_process,
    meetings,
    note,
    number,
    packed,
    refuse,
    refuse_once,
    registry,
    stumble,
    subtract,
    tell,
    told,
    total,
    unkept,
    upto,
    write,
)
from tests.support.work import ENOUGH, HOUR, MS, eventually


@pytest.fixture(params=["memory", SQLITE, POSTGRES])
def harbor(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Harbor]:
    """Return a harbor without a worker."""
    flow_app.forget()
    if request.param == "memory":
        with Harbor(MemoryDriver(), registry=registry) as made:
            yield made
        return
    with chaos_store(request.param, tmp_path) as store, Harbor(store.url, registry=registry) as made:
        yield made


@pytest.fixture
def working(harbor: Harbor) -> Generator[Harbor]:
    """Return a harbor with a worker beside it."""
    with harbor.worker_thread(concurrency=8):
        yield harbor


def five_times(value: int) -> Signature[int]:
    """Return the call that makes five times the value, in two steps."""
    return (
        double.s(value)
        .then(lambda twice: double.s(twice, plus=0))
        .then(lambda fourfold: subtract.s(fourfold, 0))
    )


def minus_one(value: int) -> Signature[int]:
    """Return the call that takes one away."""
    return subtract.s(value, 1)


def among(value: int) -> Signature[str]:
    """Return the call that writes the value after another."""
    return write.s([9, value])


def _nothing() -> Flow[list[int]]:
    return group()


def pairs_up(value: int) -> Signature[list[int]]:
    """Return the value, and twice it."""
    return group(number.s(value), double.s(value))


COMPOSITIONS: dict[str, tuple[Callable[[], Signature[object]], object]] = {
    "chain of tasks": (lambda: chain(number.s(3), double, double), 12),
    "chain over bare tasks": (lambda: chain(number, double, double).s(4), 16),
    "placed by a function": (lambda: number.s(3).then(lambda n: subtract.s(10, n)), 7),
    "one result twice": (lambda: number.s(3).then(lambda n: subtract.s(n, n)), 0),
    "a result that nobody takes": (lambda: number.s(3).then(lambda _: number.s(5)), 5),
    "a function that makes a chain": (lambda: number.s(3).then(lambda n: double.s(n).then(double)), 12),
    "a result used two steps later": (
        lambda: number.s(3).then(lambda n: double.s(5).then(lambda ten: subtract.s(ten, n))),
        7,
    ),
    "a group": (lambda: group(number.s(1), double.s(2), number.s(1).then(double)), [1, 4, 2]),
    "an empty group": (_nothing, []),
    "an empty chord": (lambda: chord([], add_up), 0),
    "a group of groups": (lambda: group(group(number.s(1), number.s(2)), group()), [[1, 2], []]),
    "a chord": (lambda: chord([double.s(n) for n in range(5)], write), "0,2,4,6,8"),
    "a chord over a generator": (lambda: chord((number.s(n) for n in range(5)), add_up), 10),
    "a chord over a flow": (lambda: chord(upto.s(4), write), "0,1,2,3"),
    "a chord in a chord": (
        lambda: chord([chord([number.s(n), number.s(1)], add_up) for n in range(3)], write),
        "1,2,3",
    ),
    "a callback placed by a function": (
        lambda: chord(
            [number.s(n) for n in range(3)],
            lambda values: subtract.s(4, 1).then(lambda n: add_all.s(n, values)),
        ),
        6,
    ),
    "a group after a step": (lambda: number.s(3).then(pairs_up), [3, 6]),
    "a chord after a step": (lambda: number.s(3).then(pairs_up).then(add_up), 9),
    "gathered": (lambda: gather(number.s(9), double.s(2)).then(subtract), 5),
    "gathered, placed by a function": (
        lambda: gather(number.s(9), double.s(2)).then(lambda a, b: subtract.s(b, a)),
        -5,
    ),
    "gathered lists": (
        lambda: gather(group(number.s(1), number.s(2)), upto.s(3)).then(
            lambda one, other: group(add_up.s(one), add_up.s(other))
        ),
        [3, 3],
    ),
    "gathered into *args": (lambda: gather(number.s(1), packed.s(2), double.s(2)).then(total), 7),
    "elements of a list": (lambda: number.s(3).then(lambda n: write.s([1, n, 2, n])), "1,3,2,3"),
    "elements within each": (lambda: upto.s(3).then(each(among)), ["9,0", "9,1", "9,2"]),
    "each": (lambda: upto.s(4).then(each(double)), [0, 2, 4, 6]),
    "each of an empty list": (lambda: upto.s(0).then(each(double)), []),
    "each of an empty list, added up": (lambda: upto.s(0).then(each(double)).then(add_up), 0),
    "each by a named function": (lambda: upto.s(3).then(each(minus_one)), [-1, 0, 1]),
    "each by a chain": (lambda: upto.s(3).then(each(chain(double, double))), [0, 4, 8]),
    "each by several steps": (lambda: upto.s(3).then(each(five_times)), [0, 4, 8]),
    "each, then each": (lambda: upto.s(3).then(each(double)).then(each(double)), [0, 4, 8]),
    "each of each": (
        lambda: upto.s(4).then(each(upto)).then(each(each(double))),
        [[], [0], [0, 2], [0, 2, 4]],
    ),
    "each to a list of each": (
        lambda: upto.s(3).then(each(chain(upto, each(double)))).then(flatten).then(write),
        "0,0,2",
    ),
    "each that gathers": (lambda: upto.s(3).then(each(pairs_up)), [[0, 0], [1, 2], [2, 4]]),
    "each of a list that is known": (lambda: each(double).s([5, 6]), [10, 12]),
    "each of a group": (lambda: group(number.s(1), packed.s(2)).then(each(double)), [2, 4]),
    "each in a group": (lambda: group(upto.s(2).then(each(double)), upto.s(0)), [[0, 2], []]),
    "several formats": (lambda: chord([number.s(1), packed.s(2), number.s(3)], write), "1,2,3"),
    "another format": (lambda: chord([packed.s(1), packed.s(2)], write), "1,2"),
    "from another format": (lambda: chain(packed.s(3), double, packed), 6),
    "a result that is not kept otherwise": (lambda: chain(unkept.s(3), double), 6),
    "failures that are told": (
        lambda: group(number.s(1), refuse.s(2), packed.s(3), allow_failures=True).then(describe),
        "1 ValueError 3",
    ),
    "failures that are told, in another format": (
        lambda: group(packed.s(1), refuse.s(2), allow_failures=True).then(describe),
        "1 ValueError",
    ),
    "a member of several steps that fails": (
        lambda: group(refuse.s(2).then(double).then(double), number.s(1), allow_failures=True).then(describe),
        "ValueError 1",
    ),
    "a chord that fails within": (
        lambda: group(chord([refuse.s(1), refuse.s(2)], add_up), number.s(1), allow_failures=True).then(
            describe
        ),
        "ValueError 1",
    ),
    "no failures to be told": (lambda: group(number.s(1), allow_failures=True).then(describe), "1"),
    "stumbling, dozing": (
        lambda: chord([stumble.s(1, "a"), doze.s(2, "b"), stumble.s(3, "c", times=3)], write),
        "1,2,3",
    ),
    "options on steps": (
        lambda: chain(number.options(priority=1).s(1), double.options(priority=9, run_in=5 * MS), double),
        4,
    ),
}


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_it_comes_to_what_python_would(working: Harbor, name: str) -> None:
    """Each composition, its result read by the handle that made it."""
    compose, expected = COMPOSITIONS[name]

    handle = compose().enqueue()

    assert isinstance(handle, FlowHandle)
    assert expected == handle.result(ENOUGH)
    status = handle.status()
    assert FlowState.SUCCEEDED is status.flow
    assert JobState.SUCCEEDED is status.state
    assert {JobState.SUCCEEDED, JobState.DEAD, JobState.CANCELLED} >= status.steps.keys()
    assert {JobState.SUCCEEDED, JobState.DEAD, JobState.CANCELLED} >= {
        counted.state for counted in working.jobs.count()
    }


def test_a_handle_can_be_had_again_from_the_id(working: Harbor) -> None:
    flow = group(number.s(1), double.s(2))
    handle = flow.enqueue()

    assert [1, 4] == flow.handle(handle.id).result(ENOUGH)


def test_a_pipeline_can_be_enqueued_again_and_again(working: Harbor) -> None:
    pipeline = chain(number, double, lambda n: subtract.s(n, 1))

    assert [1, 3, 5] == [pipeline.enqueue(n).result(ENOUGH) for n in (1, 2, 3)]


def test_steps_know_what_they_wait_for(harbor: Harbor) -> None:
    handle = chain(number.s(1), double, double).enqueue()

    first, second, third = handle.steps()

    assert [JobState.READY, JobState.WAITING, JobState.WAITING] == [
        step.state for step in (first, second, third)
    ]
    assert [(), (first.id,), (second.id,)] == [step.after for step in (first, second, third)]
    assert handle.id == third.id
    assert "s1 --> s2" in handle.graph().mermaid()
    assert "s2 -> s3;" in handle.graph().dot()


def test_steps_have_their_times(harbor: Harbor) -> None:
    handle = chain(number.s(1), double).enqueue()
    harbor.run_until_idle()

    first, second = handle.steps()

    assert first.begun_at == first.enqueued_at
    assert second.begun_at == first.finished_at
    assert second.finished_at is not None


def test_a_waiting_flow_does_not_end_in_time(harbor: Harbor) -> None:
    handle = chain(number.options(run_in=HOUR).s(1), double).enqueue()

    with pytest.raises(ResultTimeout):
        handle.result(10 * MS)


def test_a_flow_is_sent_with_other_jobs_or_not_at_all(working: Harbor) -> None:
    flow = chain(number.s(1), double)

    first, second, third = working.enqueue_many([number.s(7), flow, number.s(8)])

    assert [7, 2, 8] == [handle.result(ENOUGH) for handle in (first, second, third)]


# --- failure


def test_a_dead_step_fails_the_flow_and_its_requeue_resumes_it(working: Harbor) -> None:
    handle = chord([number.s(1), refuse_once.s(2, "x"), number.s(3)], write).configure(name="w").enqueue()

    with pytest.raises(FlowFailed, match="no 2") as caught:
        handle.result(ENOUGH)
    failed = handle.status()
    requeued = working.flows.retry(handle.id)

    assert handle.id == caught.value.flow_id
    assert "flow_app.refuse_once" in caught.value.task
    assert (FlowState.FAILED, JobState.WAITING) == (failed.flow, failed.state)
    assert 1 == requeued
    assert "1,2,3" == handle.result(ENOUGH)


def test_on_failure_is_told_each_time(working: Harbor) -> None:
    flow = chain(number.s(1), lambda n: refuse_once.s(n, "x"), lambda n: refuse_once.s(n, "y"))
    handle = flow.configure(name="twice", meta={"for": "me"}, on_failure=tell).enqueue()
    eventually(lambda: len(told) == 1, "the first failure is told")

    working.flows.retry(handle.id)
    eventually(lambda: len(told) == 2, "the second failure is told")
    working.flows.retry(handle.id)

    assert 1 == handle.result(ENOUGH)
    assert [handle.id] * 2 == [failure.flow_id for failure in told]
    assert ["twice"] * 2 == [failure.name for failure in told]
    assert [{"for": "me"}] * 2 == [failure.meta for failure in told]
    assert told[0].job_id != told[1].job_id
    assert FlowState.SUCCEEDED is working.flows.get(handle.id).state


def test_on_failure_can_be_placed_by_a_function(working: Harbor) -> None:
    chain(number.s(1), refuse).configure(on_failure=lambda failure: tell.s(failure, prefix="my ")).enqueue()

    eventually(lambda: meetings("my told") == 1, "the failure is told")


def test_a_callback_that_fails_fails_the_flow(working: Harbor) -> None:
    handle = chord([number.s(1), number.s(2)], lambda _: refuse.s(3)).enqueue()

    with pytest.raises(FlowFailed, match="no 3"):
        handle.result(ENOUGH)
    assert {JobState.SUCCEEDED: 2, JobState.DEAD: 1} == handle.status().steps


def test_a_cancelled_flow_runs_no_further(harbor: Harbor) -> None:
    handle = chain(number.s(1), double, double).configure(name="gone").enqueue()

    assert handle.cancel("not wanted")
    counts = harbor.run_until_idle()

    assert {} == counts.settled
    assert not handle.cancel()
    with pytest.raises(JobCancelled, match="not wanted"):
        handle.result(ENOUGH)
    assert {JobState.CANCELLED: 3} == handle.status().steps


def test_each_that_fails_within_fails_the_flow_and_resumes(working: Harbor) -> None:
    handle = upto.s(3).then(each(_odd_one)).then(add_up).enqueue()

    with pytest.raises(FlowFailed):
        handle.result(ENOUGH)
    working.flows.retry(handle.id)

    assert 3 == handle.result(ENOUGH)


def _odd_one(value: int) -> Signature[int]:
    return refuse_once.s(value, "odd")


def test_each_member_that_failed_is_told_as_such(working: Harbor) -> None:
    handle = group(number.s(1), refuse.s(2), allow_failures=True).enqueue()

    good, bad = handle.result(ENOUGH)

    assert Success(1) == good
    assert isinstance(bad, Failure)
    assert ("ValueError", "no 2", 1) == (bad.error_type, bad.error_message, bad.attempts)


def test_what_is_left_over_of_a_flow_is_cancelled(working: Harbor) -> None:
    flow = group(refuse.s(2).then(double), number.s(1), allow_failures=True).then(describe)
    handle = flow.enqueue()
    handle.result(ENOUGH)

    counted = handle.status().steps

    assert {JobState.SUCCEEDED: 2, JobState.DEAD: 1, JobState.CANCELLED: 1} == counted


# --- keys


def test_a_key_gives_the_same_flow_again(harbor: Harbor) -> None:
    flow = chain(number.s(1), double).configure(key="k")

    first, second = flow.enqueue(), flow.enqueue()

    assert (True, False) == (first.created, second.created)
    assert first.id == second.id
    assert 2 == sum(counted.count for counted in harbor.jobs.count())


def test_a_key_with_other_steps_is_a_conflict(harbor: Harbor) -> None:
    chain(number.s(1), double).configure(key="k").enqueue()

    with pytest.raises(KeyConflict):
        chain(number.s(2), double).configure(key="k").enqueue()
    with pytest.raises(KeyConflict):
        chain(number.s(1), double, double).configure(key="k").enqueue()


def test_a_key_can_ask_to_be_told(harbor: Harbor) -> None:
    flow = chain(number.s(1), double).configure(key="k", on_conflict="raise")
    flow.enqueue()

    with pytest.raises(DuplicateJob):
        flow.enqueue()


def test_a_step_with_a_taken_key_stores_nothing(harbor: Harbor) -> None:
    double.options(key="mine").enqueue(1)

    with pytest.raises(DuplicateJob, match="double"):
        chain(number.s(1), double.options(key="mine"), double).enqueue()
    assert 1 == sum(counted.count for counted in harbor.jobs.count())


def test_a_flow_that_ends_in_a_list_needs_a_name_for_its_key(working: Harbor) -> None:
    flow = group(number.s(1), number.s(2)).configure(name="both", key="k")

    first, second = flow.enqueue(), flow.enqueue()

    assert first.id == second.id
    assert [1, 2] == second.result(ENOUGH)


# --- more with the success


def test_what_is_asked_for_on_success_comes_with_it(working: Harbor) -> None:
    follow.enqueue("a").result(ENOUGH)

    eventually(lambda: meetings("a-job") == 1 and meetings("value-2") == 1, "both have run")


def test_what_is_asked_for_comes_once_however_often_it_failed_before(harbor: Harbor) -> None:
    follow.enqueue("a", fail=3)
    harbor.run_until_idle(within=ENOUGH)

    assert (4, 1, 1) == (meetings("a"), meetings("a-job"), meetings("value-2"))


def test_what_is_asked_for_never_comes_of_a_failure(harbor: Harbor) -> None:
    follow.enqueue("a", fail=9)
    harbor.run_until_idle(within=ENOUGH)

    assert (4, 0, 0) == (meetings("a"), meetings("a-job"), meetings("value-2"))


def test_a_detached_context_shows_what_was_asked_for() -> None:
    """For unit tests of handlers."""
    ctx = Context.detached(None)

    assert 1 == asyncio.run(follow.fn(ctx, "unit"))
    assert ["Signature", "Flow"] == [type(signature).__name__ for signature in ctx.asked]


def test_a_child_process_cannot_ask_for_more(working: Harbor) -> None:
    with pytest.raises(JobFailed, match="process of its own"):
        follow_in_process.enqueue().result(ENOUGH)


# --- in a caller's transaction


def test_a_flow_is_part_of_a_transaction(tmp_path: Path) -> None:
    with Harbor(f"sqlite:///{tmp_path / 'app.db'}", registry=registry) as harbor:
        number.enqueue(0)
        with closing(sqlite3.connect(tmp_path / "app.db", isolation_level=None)) as connection:
            for end in ("ROLLBACK", "COMMIT"):
                connection.execute("BEGIN IMMEDIATE")
                with harbor.using(connection):
                    handle = chord([number.s(1), number.s(2)], write).enqueue()
                connection.execute(end)
        harbor.run_until_idle()

        assert "1,2" == handle.result(ENOUGH)
        assert 4 == sum(counted.count for counted in harbor.jobs.count())


# --- size


def test_a_large_chord_keeps_order(harbor: Harbor) -> None:
    handle = chord((number.s(n) for n in range(3000)), write).enqueue()
    harbor.run_until_idle(concurrency=50)

    assert ",".join(map(str, range(3000))) == handle.result(ENOUGH)


def test_a_long_chain_runs_to_its_end(harbor: Harbor) -> None:
    flow: Flow[int] = number.s(0).then(double)
    for _ in range(498):
        flow = flow.then(lambda n: subtract.s(n, 1))
    handle = flow.enqueue()
    harbor.run_until_idle()

    assert -498 == handle.result(ENOUGH)


def test_a_note_is_no_flow(harbor: Harbor) -> None:
    """A plain job has none of it."""
    job = note.enqueue("x")

    record = harbor.jobs.get(job.id)

    assert (None, 0, ()) == (record.flow, record.waits, record.edges)
    assert timedelta(0) == record.run_at - record.enqueued_at
