"""Flows in SQLite: files from before there were any, and large ones."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from taskharbor.driver import EnqueueStatus, HistoryPrune, RequeueStatus
from taskharbor.drivers.sqlite.rows import BATCH_BYTES, INLINE_BYTES
from taskharbor.flow import FlowState, NewFlow
from taskharbor.job import Delivery, JobState, NewJob, new_job_id
from taskharbor.settlement import Settled, SettleKind, Settlement, SettleStatus
from taskharbor.step import Edge, Step
from taskharbor_conformance.bench import DAY, HOUR, Bench, new_job, success
from taskharbor_conformance.graphs import VALUES, chord, new_step
from tests.support.sqlite import ask_file, driver_on, with_bench

MEMBERS = 10_000
BATCH = 500


class Endless(Iterable[NewJob]):
    """The steps of a chord of so many members, made as they are read: there is no list of them."""

    def __init__(self, members: int) -> None:
        self.members = members
        self.flow = new_job_id()

    def __iter__(self) -> Iterator[NewJob]:
        """Read them from the first."""
        for index in range(self.members):
            yield new_step(new_job(), Step(flow=self.flow, edges=(Edge(self.flow, 0, index),)))
        yield new_step(new_job(id=self.flow), Step(flow=self.flow, waits=self.members, holes=(VALUES,)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


# --- files of version 1

_OPTIONS = (
    '{"codec":"json","fingerprint":1,"retry":{"max_attempts":5},"key_ttl":"P1D","retain":"P1D",'
    '"keep_result":true}'
)
_VERSION_1 = (
    f"INSERT INTO taskharbor_options (id, retain, text) VALUES (1, 86400000000, '{_OPTIONS}')",
    """INSERT INTO taskharbor_job (id, task, queue, options, priority, lane, due, guarded, run_at, enqueued_at, payload,
        token) VALUES ('ready', 'test.task', 'default', 1, 5, 2, 1, 0, 1, 1, x'5b5d', NULL),
        ('leased', 'test.task', 'default', 1, 5, 2, 1, 0, 1, 1, x'5b5d', 7)""",
    """INSERT INTO taskharbor_lease (token, worker, expires_at, duration, jobs, remaining)
        VALUES (7, 'worker', 4000000000000000, 30000000, '["leased"]', 1)""",
    """INSERT INTO taskharbor_history (id, task, queue, options, priority, run_at, enqueued_at, finished_at, attempt,
        deliveries, crashes, guarded, stray, settled, payload, state, expires_at, result, result_codec) VALUES
        ('done', 'test.task', 'default', 1, 5, 1, 1, 2, 1, 1, 0, 0, 0, 6, x'5b5d', 'succeeded', 4000000000000000,
        x'31', 'json')""",
    """INSERT INTO taskharbor_dead (id, task, queue, options, priority, run_at, enqueued_at, finished_at, attempt,
        deliveries, crashes, guarded, stray, payload, reason)
        VALUES ('dead', 'test.task', 'default', 1, 5, 1, 1, 2, 5, 5, 0, 0, 0, x'5b5d', 'attempts used up')""",
)


@pytest.fixture
def version_1(path: Path) -> Path:
    """Return a file as the first release wrote it: a job in each of its tables, one of them leased."""
    driver_on(path).migrate(1)
    for statement in _VERSION_1:
        ask_file(path, statement)
    return path


def test_jobs_of_a_file_from_before_flows_are_all_there_and_go_on(version_1: Path) -> None:
    async def work(bench: Bench) -> tuple[list[JobState], list[Settled], RequeueStatus, list[str]]:
        records = await bench.get("ready", "leased", "done", "dead")
        states = [record.state for record in records if record is not None]
        assert [(None, 0, ())] * 4 == [(r.flow, r.waits, r.edges) for r in records if r is not None]
        settled = await bench.answers(
            Settlement("leased", 7, SettleKind.SUCCEED, b"1", "json", charge=True),
            Settlement("done", 6, SettleKind.SUCCEED, b"1", "json", charge=True),
        )
        (requeued,) = await bench.requeue("dead")
        return states, settled, requeued, sorted(await bench.take_ids())

    states, settled, requeued, taken = with_bench(version_1, work)

    assert [JobState.READY, JobState.RUNNING, JobState.SUCCEEDED, JobState.DEAD] == states
    assert [SettleStatus.SETTLED, SettleStatus.ALREADY] == [answer.status for answer in settled]
    assert RequeueStatus.REQUEUED == requeued
    assert ["dead", "ready"] == taken


def test_a_file_from_before_flows_takes_flows(version_1: Path) -> None:
    async def work(bench: Bench) -> FlowState:
        flow = await bench.enqueue_flow(chord(3))
        for _ in range(2):
            await bench.settle(*map(success, await bench.take()))
        return await bench.flow_state(flow.id)

    assert FlowState.SUCCEEDED == with_bench(version_1, work)


def test_the_second_migration_is_run_alone_on_a_file_that_has_the_first(version_1: Path) -> None:
    before = ask_file(version_1, "SELECT id, payload FROM taskharbor_job ORDER BY id")

    run = driver_on(version_1).migrate(2)

    assert [2] == [migration.number for migration in run]
    assert before == ask_file(version_1, "SELECT id, payload FROM taskharbor_job ORDER BY id")
    assert [("ok",)] == ask_file(version_1, "PRAGMA integrity_check")


# --- rows of flows


def test_a_flow_is_kept_as_long_as_its_last_step(path: Path) -> None:
    async def work(bench: Bench) -> list[str]:
        members = [new_job(retain=DAY) for _ in range(2)]
        flow = await bench.enqueue_flow(chord(members, new_job(retain=HOUR)))
        kept = await bench.enqueue_flow(chord([new_job()], new_job(retain=3 * HOUR)))
        await bench.cancel_flows(flow.id, kept.id)
        bench.advance(2 * HOUR)
        await bench.store.history_prune(HistoryPrune(now=bench.now))
        assert None not in await bench.get(*(job.id for job in members))
        return [*await bench.find_flows(), kept.id]

    left, kept = with_bench(path, work)

    assert kept == left


def test_the_key_of_a_step_that_is_cancelled_with_its_flow_is_free_after_its_time(path: Path) -> None:
    async def work(bench: Bench) -> list[EnqueueStatus]:
        flow = await bench.enqueue_flow(chord([new_job(key="k", key_ttl=HOUR)]))
        await bench.cancel_flows(flow.id)
        again = [new_job(key="k"), new_job(key="k")]
        (before,) = await bench.enqueue_all(again[0])
        bench.advance(2 * HOUR)
        (after,) = await bench.enqueue_all(again[1])
        return [before.status, after.status]

    assert [EnqueueStatus.EXISTING, EnqueueStatus.CREATED] == with_bench(path, work)


# --- large flows


def test_a_chord_of_ten_thousand_members_ends_with_all_results_in_order(path: Path) -> None:
    async def work(bench: Bench) -> tuple[list[int], Delivery, FlowState]:
        flow = await bench.enqueue_flow(chord(MEMBERS))
        waits: list[int] = []
        for _ in range(MEMBERS // BATCH):
            taken = await bench.take(BATCH)
            random.Random(1).shuffle(taken)
            await bench.settle(*(success(one, one.id.encode()) for one in taken))
            waits.append((await bench.record(flow.id)).waits)
        callback = await bench.take_one()
        await bench.settle(success(callback))
        return waits, callback, await bench.flow_state(flow.id)

    waits, callback, state = with_bench(path, work)

    assert list(range(MEMBERS - BATCH, -1, -BATCH)) == waits
    assert callback.step is not None
    values = [one.value or b"" for one in callback.step.inputs]
    assert list(range(MEMBERS)) == [one.index for one in callback.step.inputs]
    assert MEMBERS == len(values)
    assert sorted(values) == values  # ids were given out in the order of the members
    assert FlowState.SUCCEEDED == state
    assert [(0,)] == ask_file(path, "SELECT count(*) FROM taskharbor_input")


def test_a_producer_needs_no_more_memory_for_a_larger_flow(path: Path) -> None:
    async def peak(bench: Bench, members: int) -> int:
        steps = Endless(members)
        tracemalloc.start()
        try:
            await bench.enqueue_flow(NewFlow(id=steps.flow, steps=steps))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    async def work(bench: Bench) -> tuple[int, int]:
        await peak(bench, 4_000)  # caches fill once
        return await peak(bench, 4_000), await peak(bench, 16_000)

    small, large = with_bench(path, work)

    assert large < small * 1.5


def test_results_of_any_size_come_in_as_they_were(path: Path) -> None:
    sizes = [0, 1, INLINE_BYTES, INLINE_BYTES + 1, 0, 3 << 20, BATCH_BYTES + 1, INLINE_BYTES - 1, 7]
    values = [random.Random(size).randbytes(size) for size in sizes]
    # More small ones than are read at once, and one that was not kept.
    results = [*values, None, *(bytes([number]) * 60_000 for number in range(256)), b"last", b"last"]

    async def work(bench: Bench) -> Delivery:
        await bench.enqueue_flow(chord(len(results)))
        taken = sorted(await bench.take(), key=lambda one: one.id)
        await bench.settle(*(success(one, result) for one, result in zip(taken, results, strict=True)))
        return await bench.take_one()

    step = with_bench(path, work).step

    assert step is not None
    assert results == [one.value for one in step.inputs]
