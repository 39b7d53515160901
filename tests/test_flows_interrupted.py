"""Settle and advance, cut between every two of their statements: all is written in the end, and once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count, takewhile
from pathlib import Path
from types import ModuleType
from unittest import mock

import msgspec
import pytest

from taskharbor.driver import Driver
from taskharbor.flow import FlowState, Sequel
from taskharbor.job import JobState, NewJob
from taskharbor.settlement import Settlement, SettleStatus
from taskharbor.step import Edge, Input, Step
from taskharbor_conformance.bench import Bench, burial, cancellation, new_job, success
from taskharbor_conformance.graphs import chain, chord, failure_template, ids_of, new_step
from tests.support.chaos_stores import POSTGRES, PostgresChaos, chaos_store
from tests.support.sqlite import ask_file

Prepared = tuple[Sequence[Settlement], Callable[[], Awaitable[None]]]
"""What is settled, and what must be so afterwards."""


class Cut(Exception):
    """The end of a process that was writing."""


async def _last_member(bench: Bench) -> Prepared:
    flow = await bench.enqueue_flow(chord(3))
    members = await bench.take()
    await bench.settle(success(members[0], b"0"), success(members[1], b"1"))

    async def check() -> None:
        callback = await bench.take_one()
        assert callback.id == flow.id
        assert callback.step is not None
        assert [b"0", b"1", b"2"] == [one.value for one in callback.step.inputs]

    return [success(members[2], b"2")], check


async def _a_batch_of_all_kinds(bench: Bench) -> Prepared:
    plain = await bench.enqueue(key="k")
    one = await bench.enqueue_flow(chord(2))
    other = await bench.enqueue_flow(chain())
    held = await bench.take()

    async def check() -> None:
        assert JobState.SUCCEEDED == await bench.state(plain)
        assert {one.id, other.id} == set(await bench.take_ids())

    return [success(delivery, b"1") for delivery in held], check


async def _a_dead_member(bench: Bench) -> Prepared:
    flow = await bench.enqueue_flow(chord(2, on_failure=failure_template("failures")))
    first, second = await bench.take()

    async def check() -> None:
        assert FlowState.FAILED == await bench.flow_state(flow.id)
        assert 1 == len(await bench.take(queues=["failures"]))
        await bench.requeue(first.id)
        await bench.finish(first.id, b"1")
        assert [flow.id] == await bench.take_ids()

    return [burial(first), success(second, b"2")], check


async def _a_failure_that_is_absorbed(bench: Bench) -> Prepared:
    flow = await bench.enqueue_flow(chord(2, tolerant=True))
    first, second = await bench.take()

    async def check() -> None:
        callback = await bench.take_one()
        assert callback.id == flow.id
        assert callback.step is not None
        assert [True, False] == [one.failed for one in callback.step.inputs]

    return [burial(first), success(second, b"2")], check


async def _a_cancelled_member(bench: Bench) -> Prepared:
    flow = await bench.enqueue_flow(chord(3))
    first, second, _ = await bench.take()

    async def check() -> None:
        assert FlowState.CANCELLED == await bench.flow_state(flow.id)
        assert JobState.CANCELLED == await bench.state(flow.id)
        assert JobState.SUCCEEDED == await bench.state(second.id)

    return [cancellation(first), success(second)], check


async def _the_end_of_a_flow_with_leftovers(bench: Bench) -> Prepared:
    flow = await bench.enqueue_flow(chord(2, tolerant=True))
    first, second = await bench.take()
    await bench.settle(burial(first), success(second))
    last = await bench.take_one()

    async def check() -> None:
        assert FlowState.SUCCEEDED == await bench.flow_state(flow.id)

    return [success(last)], check


async def _more_steps(bench: Bench) -> Prepared:
    first, last = new_job(), new_job()
    flow = await bench.enqueue_flow(chain(first, last))
    delivery = await bench.take_one()
    more = [_child(flow.id, index) for index in range(3)]
    settlement = msgspec.structs.replace(
        success(delivery, None), sequel=Sequel(steps=tuple(more), waits={last.id: 3})
    )

    async def check() -> None:
        assert {job.id for job in more} == set(await bench.take_ids())
        assert 3 == (await bench.record(last.id)).waits

    return [settlement], check


def _child(flow: str, index: int) -> NewJob:
    return new_step(
        new_job(),
        Step(flow=flow, edges=(Edge(flow, 1, index),), inputs=(Input(0, 0, "json", b"%d" % index),)),
    )


async def _jobs_and_flows_with_the_success(bench: Bench) -> Prepared:
    await bench.enqueue()
    delivery = await bench.take_one()
    job, flow = new_job(), chain()
    settlement = msgspec.structs.replace(success(delivery), sequel=Sequel(jobs=(job,), flows=(flow,)))

    async def check() -> None:
        assert {job.id, ids_of(flow)[0]} == set(await bench.take_ids())

    return [settlement], check


SITUATIONS = {
    "the last member of a chord": _last_member,
    "a batch of all kinds": _a_batch_of_all_kinds,
    "a dead member": _a_dead_member,
    "a failure that is absorbed": _a_failure_that_is_absorbed,
    "a cancelled member": _a_cancelled_member,
    "the end of a flow with leftovers": _the_end_of_a_flow_with_leftovers,
    "more steps": _more_steps,
    "jobs and flows with the success": _jobs_and_flows_with_the_success,
}


class Trouble:
    """Cuts a verb before one of its statements, once."""

    def __init__(self, at: int, cut: Callable[[], None]) -> None:
        self._at = at
        self._cut = cut
        self.done = False

    def around(self, verb: Callable[..., Generator[object, object, object]]) -> Callable[..., object]:
        """Return the verb with the trouble in it."""

        def routine(*asked: object) -> Generator[object, object, object]:
            statements = verb(*asked)
            number = 0
            query = next(statements)
            while True:
                self._meet(number)
                number += 1
                rows = yield query
                try:
                    query = statements.send(rows)
                except StopIteration as end:
                    self._meet(number)
                    return end.value

        return routine

    def _meet(self, number: int) -> None:
        if number == self._at and not self.done:
            self.done = True
            self._cut()


@contextmanager
def _troubled(module: ModuleType, trouble: Trouble, *verbs: str) -> Generator[None]:
    with ExitStack() as stack:
        for verb in verbs:
            stack.enter_context(mock.patch.object(module, verb, trouble.around(getattr(module, verb))))
        yield


@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_settle_cut_anywhere_on_sqlite_is_undone_whole_and_can_be_repeated(
    situation: str, tmp_path: Path
) -> None:
    from taskharbor.drivers import open_driver
    from taskharbor.drivers.sqlite import settle

    def cut() -> None:
        raise Cut

    async def try_at(driver: Driver, path: Path, at: int) -> bool:
        trouble = Trouble(at, cut)
        async with Bench(driver, lambda: driver) as bench:
            settlements, check = await SITUATIONS[situation](bench)
            before = _all_rows(path)
            with _troubled(settle, trouble, "job_settle"):
                try:
                    await bench.answers(*settlements)
                except Cut:
                    assert before == _all_rows(path)
                answers = await bench.answers(*settlements)
            expected = SettleStatus.SETTLED if trouble.done else SettleStatus.ALREADY
            assert {expected} == {answer.status for answer in answers}
            await check()
        return trouble.done

    def try_on_new_store(at: int) -> bool:
        path = tmp_path / f"{at}.db"
        driver = open_driver(f"sqlite:///{path}")
        try:
            return asyncio.run(try_at(driver, path, at))
        finally:
            driver.close()

    assert 3 <= len(list(takewhile(try_on_new_store, count())))


def _all_rows(path: Path) -> dict[str, list[str]]:
    tables = ask_file(path, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE 'taskharbor%'")
    names = [str(name) for (name,) in tables]
    return {name: sorted(map(repr, ask_file(path, f"SELECT * FROM {name}"))) for name in names}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_settle_whose_connection_is_cut_anywhere_on_postgresql_is_written_once(
    situation: str, tmp_path: Path
) -> None:
    with chaos_store(POSTGRES, tmp_path) as store:
        assert isinstance(store, PostgresChaos)

        def try_on_empty_store(at: int) -> bool:
            store.ground.empty()
            return asyncio.run(_try_on_postgres(store, situation, at))

        assert 1 <= len(list(takewhile(try_on_empty_store, count())))


async def _try_on_postgres(store: PostgresChaos, situation: str, at: int) -> bool:
    from taskharbor.drivers.postgres import settle

    trouble = Trouble(at, store.ground.cut)
    driver = store.ground.driver()
    try:
        async with Bench(driver, lambda: driver) as bench:
            settlements, check = await SITUATIONS[situation](bench)
            with _troubled(settle, trouble, "job_settle", "job_settle_together"):
                answers = await bench.answers(*settlements)
            # Where the answer was lost, the driver has asked again and been told so.
            assert {SettleStatus.SETTLED, SettleStatus.ALREADY} >= {answer.status for answer in answers}
            again = await bench.answers(*settlements)
            assert {SettleStatus.ALREADY} == {answer.status for answer in again}
            await check()
    finally:
        driver.close()
    return trouble.done
