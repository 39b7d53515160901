"""`harbor.using(connection)`: jobs and an application's own rows are committed together, or not at all.

An application writes rows beside the jobs (`Application`); other connections see what was committed. While its
transaction is open the cases only read by these, since a store may have one writer at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from typing import TypeVar, cast

import msgspec

from taskharbor import (
    DuplicateJob,
    Harbor,
    JobHandle,
    JobNotFound,
    KeyConflict,
    PayloadError,
    Registry,
    Signature,
    task,
)
from taskharbor.driver import Capability, EnqueueStatus, JobEnqueue, TransactionalDriver
from taskharbor.errors import UsageError
from taskharbor.flow import FlowState
from taskharbor.job import JobState, NewJob, OnConflict
from taskharbor.retry import RetryNumbers
from taskharbor_conformance.bench import HOUR, NOW, SECOND, Bench, Doorbell, new_job, success
from taskharbor_conformance.caller import AwaitedCaller, Caller
from taskharbor_conformance.case import case
from taskharbor_conformance.graphs import Stream, chain, chord, failure_template, ids_of, values_of

R = TypeVar("R")

TRANSACTIONAL = Capability.TRANSACTIONAL
CREATED, EXISTING, CONFLICT, LEFT_OUT = (
    EnqueueStatus.CREATED,
    EnqueueStatus.EXISTING,
    EnqueueStatus.CONFLICT,
    EnqueueStatus.LEFT_OUT,
)
NO_NUMBER: object = "two"
MANY_STEPS = 2_500
A_MOMENT = 0.05
"""Seconds for a wrong answer to come in. A right one is not hurried by them."""


@case("4.13", needs=TRANSACTIONAL)
async def what_is_no_connection_is_refused(bench: Bench) -> None:
    driver = bench.driver
    assert isinstance(driver, TransactionalDriver)

    told = ""
    try:
        driver.join(object())
    except UsageError as error:
        told = str(error)

    assert "object" in told, "a UsageError says what was given"


# --- both or neither


@case("4.13", needs=TRANSACTIONAL)
async def rows_and_jobs_are_committed_together(bench: Bench) -> None:
    jobs = [new_job(payload=b"%d" % number) for number in range(3)]
    ids = [job.id for job in jobs]
    async with bench.application() as app:
        await app.begin()
        await app.add_row(1)
        answers = [*await app.enqueue_all(jobs[0]), *await app.enqueue_all(*jobs[1:])]
        unseen = await app.rows(), await bench.find_ids(), await bench.get(*ids)
        await app.commit()
        rows = await app.rows()

    assert ([], [], [None] * 3) == unseen
    assert [(CREATED, job_id) for job_id in ids] == [(answer.status, answer.job_id) for answer in answers]
    assert ([1], ids) == (rows, await bench.find_ids())
    deliveries = await bench.take()
    assert [(job.id, job.payload) for job in jobs] == [(one.id, one.payload) for one in deliveries]
    assert [JobState.SUCCEEDED] * 3 == await bench.settle(*map(success, deliveries))


@case("4.13", "4.9", needs=TRANSACTIONAL)
async def a_rollback_leaves_neither_row_nor_job_nor_key(bench: Bench) -> None:
    async with bench.application() as app:
        await app.begin()
        await app.add_row(1)
        await app.enqueue_all(new_job(key="k"), new_job())
        await app.rollback()
        rows = await app.rows()

    assert ([], [], []) == (rows, await bench.find_ids(), await bench.take_ids())
    other = await bench.enqueue(key="k", digest=b"other arguments")
    assert [other] == await bench.find_ids()


@case("4.13", "4.9", needs=TRANSACTIONAL)
async def who_disconnects_without_a_commit_leaves_nothing(bench: Bench) -> None:
    async with bench.application() as app:
        await app.begin()
        await app.add_row(1)
        await app.enqueue_all(new_job(key="k"))

    other = await bench.enqueue(key="k", digest=b"other arguments")
    assert [other] == await bench.find_ids()


@case("4.13", needs=TRANSACTIONAL)
async def a_job_may_come_before_the_first_row(bench: Bench) -> None:
    async with bench.application() as app:
        await app.begin()
        (kept,) = await app.enqueue_all(new_job())
        await app.add_row(1)
        unseen = await app.rows(), await bench.find_ids()
        await app.commit()

        await app.begin()
        await app.enqueue_all(new_job())
        await app.add_row(2)
        await app.rollback()
        rows = await app.rows()

    assert ([], []) == unseen
    assert ([1], [kept.job_id]) == (rows, await bench.find_ids())


@case("4.13", needs=TRANSACTIONAL)
async def a_block_may_hold_several_transactions(bench: Bench) -> None:
    jobs = [new_job() for _ in range(4)]
    async with bench.application() as app:
        for number, job in enumerate(jobs):
            await app.begin()
            await app.add_row(number)
            await app.enqueue_all(job)
            await (app.rollback() if number == 1 else app.commit())
        rows = await app.rows()

    assert ([0, 2, 3], [jobs[0].id, jobs[2].id, jobs[3].id]) == (rows, await bench.find_ids())


@case("4.13", needs=TRANSACTIONAL)
async def a_transaction_may_hold_several_blocks(bench: Bench) -> None:
    jobs = [new_job() for _ in range(3)]
    async with bench.application() as app:
        await app.begin()
        for number, job in enumerate(jobs):
            await app.join()
            await app.add_row(number)
            await app.enqueue_all(job)
            await app.leave()
        unseen = await app.rows(), await bench.find_ids()
        await app.commit()
        rows = await app.rows()

    assert ([], []) == unseen
    assert ([0, 1, 2], [job.id for job in jobs]) == (rows, await bench.find_ids())


@case("4.13", needs=TRANSACTIONAL)
async def applications_beside_each_other_have_a_transaction_each(bench: Bench) -> None:
    kept, dropped = new_job(), new_job()
    async with bench.application() as first, bench.application() as second:
        await first.begin()
        await first.enqueue_all(dropped)
        await first.rollback()
        await second.begin()
        await second.enqueue_all(kept)
        await second.commit()

    assert [kept.id] == await bench.find_ids()


@case("4.13", "4.9", needs=TRANSACTIONAL)
async def what_a_savepoint_takes_back_is_gone_with_its_jobs_and_keys(bench: Bench) -> None:
    async with bench.application() as app:
        await app.begin()
        await app.add_row(1)
        (before,) = await app.enqueue_all(new_job())
        await app.savepoint()
        await app.add_row(2)
        await app.enqueue_all(new_job(key="k"), new_job())
        await app.rollback_to_savepoint()
        await app.add_row(3)
        (after,) = await app.enqueue_all(new_job(key="k", digest=b"other arguments"))
        await app.commit()
        rows = await app.rows()

    assert CREATED == after.status
    assert ([1, 3], [before.job_id, after.job_id]) == (rows, await bench.find_ids())


# --- what is stored


@case("4.13", needs=TRANSACTIONAL)
async def a_job_is_stored_as_an_enqueue_without_a_transaction_stores_it(bench: Bench) -> None:
    def described(key: str, payload: bytes) -> list[NewJob]:
        return [
            new_job(
                queue="mail",
                priority=3,
                payload=payload,
                codec="msgpack",
                fingerprint=2**63 - 1,
                run_in=HOUR,
                retry=RetryNumbers(max_attempts=7),
                timeout=SECOND,
                meta={"tenant": "Ærø"},
                key=key,
                keep_result=False,
            ),
            new_job(payload=payload, run_at=bench.now + 2 * HOUR),
            new_job(payload=b"", run_at=bench.now - HOUR),
        ]

    payload = bytes(range(256)) + b"x" * 300_000
    plain, joined = described("ключ 1", payload), described("ключ 2", payload)
    await bench.enqueue_all(*plain)
    async with bench.application() as app:
        await app.begin()
        await app.enqueue_all(*joined)
        await app.commit()

    expected = await bench.get(*(job.id for job in plain))
    stored = await bench.get(*(job.id for job in joined))
    assert [
        record and msgspec.structs.replace(record, id=job.id, key=job.key)
        for record, job in zip(expected, joined, strict=True)
    ] == stored


@case("4.13", "4.10", needs=TRANSACTIONAL)
async def jobs_of_transactions_take_their_place_among_the_others(bench: Bench) -> None:
    first = await bench.enqueue()
    bench.advance(SECOND)
    normal, urgent, scheduled = new_job(), new_job(priority=0), new_job(run_in=HOUR, priority=0)
    async with bench.application() as app:
        await app.begin()
        await app.enqueue_all(scheduled, normal, urgent)
        await app.commit()
    bench.advance(SECOND)
    last = await bench.enqueue()

    now = await bench.take_ids()
    bench.advance(HOUR)
    later = await bench.take_ids()

    assert ([urgent.id, first, normal.id, last], [scheduled.id]) == (now, later)


@case("4.13", needs=TRANSACTIONAL)
async def a_large_batch_is_stored_whole_or_not_at_all(bench: Bench) -> None:
    jobs = [new_job(payload=b"%d" % number) for number in range(500)]
    async with bench.application() as app:
        await app.begin()
        await app.enqueue_all(*jobs)
        await app.rollback()
        taken_back = await bench.find_ids()

        await app.begin()
        answers = await app.enqueue_all(*jobs)
        await app.commit()

    assert [] == taken_back
    assert [(CREATED, job.id) for job in jobs] == [(answer.status, answer.job_id) for answer in answers]
    assert [job.id for job in jobs] == await bench.find_ids()


@case("4.13", needs=TRANSACTIONAL)
async def an_empty_batch_stores_nothing(bench: Bench) -> None:
    async with bench.application() as app:
        await app.begin()
        assert [] == await app.enqueue_all()
        await app.add_row(1)
        await app.commit()
        rows = await app.rows()

    assert ([1], []) == (rows, await bench.find_ids())


@case("4.13", "4.9", needs=TRANSACTIONAL)
async def a_transaction_done_again_stores_its_jobs_once(bench: Bench) -> None:
    job = new_job(key="k", on_conflict=OnConflict.RAISE)
    answers = list[EnqueueStatus]()
    async with bench.application() as app:
        for ends in (app.rollback, app.commit, app.commit):
            await app.begin()
            (answer,) = await app.enqueue_all(job, all_or_none=True)
            answers.append(answer.status)
            await ends()

    assert [CREATED, CREATED, EXISTING] == answers
    assert [job.id] == await bench.find_ids()


# --- keys


@case("4.9", "4.13", needs=TRANSACTIONAL)
async def keys_of_committed_jobs_are_met_in_a_transaction(bench: Bench) -> None:
    live = await bench.enqueue(key="live")
    done = await bench.enqueue(key="done", key_ttl=HOUR)
    over = await bench.enqueue(key="over", key_ttl=NOW)
    await bench.finish(done)
    await bench.finish(over)
    bench.advance(SECOND)
    async with bench.application() as app:
        await app.begin()
        answers = await app.enqueue_all(
            new_job(key="live"),
            new_job(key="live", digest=b"other arguments"),
            new_job(key="done"),
            new := new_job(key="over"),
        )
        await app.commit()

    expected = [(EXISTING, live), (CONFLICT, live), (EXISTING, done), (CREATED, new.id)]
    assert expected == [(answer.status, answer.job_id) for answer in answers]


@case("4.9", "4.13", needs=TRANSACTIONAL)
async def a_key_taken_in_a_transaction_is_met_in_it_and_after_it(bench: Bench) -> None:
    first, again, other = new_job(key="k"), new_job(key="k"), new_job(key="k", digest=b"other arguments")
    async with bench.application() as app:
        await app.begin()
        answers = [*await app.enqueue_all(first), *await app.enqueue_all(again, other)]
        await app.commit()
    answers += await bench.enqueue_all(again, other)

    expected = [(CREATED, first.id), *[(EXISTING, first.id), (CONFLICT, first.id)] * 2]
    assert expected == [(answer.status, answer.job_id) for answer in answers]
    assert [first.id] == await bench.find_ids()


@case("4.9", "4.13", needs=TRANSACTIONAL)
async def a_key_of_an_open_transaction_waits_for_its_commit(bench: Bench) -> None:
    async with bench.application() as app:
        await app.begin()
        (first,) = await app.enqueue_all(new_job(key="k"))
        waiting = asyncio.create_task(bench.enqueue_all(new_job(key="k")))
        early, _ = await asyncio.wait({waiting}, timeout=A_MOMENT)
        await app.commit()
        (answer,) = await waiting

    assert not early, "whether the key is taken is not known before the commit"
    assert (EXISTING, first.job_id) == (answer.status, answer.job_id)


@case("4.9", "4.13", needs=TRANSACTIONAL)
async def a_key_of_an_open_transaction_is_free_after_its_rollback(bench: Bench) -> None:
    async with bench.application() as app:
        await app.begin()
        await app.enqueue_all(new_job(key="k"))
        waiting = asyncio.create_task(bench.enqueue_all(new_job(key="k", digest=b"other arguments")))
        early, _ = await asyncio.wait({waiting}, timeout=A_MOMENT)
        await app.rollback()
        (answer,) = await waiting

    assert not early, "whether the key is taken is not known before the rollback"
    assert CREATED == answer.status
    assert [answer.job_id] == await bench.find_ids()


@case("4.9", "4.13", needs=TRANSACTIONAL)
async def what_is_refused_leaves_the_transaction_as_it_was(bench: Bench) -> None:
    held = await bench.enqueue(key="k")
    before, left_out, after = new_job(), new_job(key="free"), new_job(key="free", digest=b"other arguments")
    told = new_job(key="k", on_conflict=OnConflict.RAISE)
    clash = new_job(key="k", digest=b"other arguments")
    async with bench.application() as app:
        await app.begin()
        await app.add_row(1)
        await app.enqueue_all(before)
        answers = [
            *await app.enqueue_all(clash, all_or_none=True),
            *await app.enqueue_all(left_out, told, all_or_none=True),
            *await app.enqueue_all(left_out, clash, all_or_none=True),
        ]
        await app.add_row(2)
        await app.enqueue_all(after, all_or_none=True)
        await app.commit()
        rows = await app.rows()

    assert [CONFLICT, LEFT_OUT, EXISTING, LEFT_OUT, CONFLICT] == [answer.status for answer in answers]
    assert ([1, 2], [held, before.id, after.id]) == (rows, await bench.find_ids())


@case("4.9", "4.13", needs=TRANSACTIONAL)
async def the_rest_of_a_batch_is_stored_beside_a_conflict(bench: Bench) -> None:
    held = await bench.enqueue(key="k")
    before, clash, after = new_job(), new_job(key="k", digest=b"other arguments"), new_job()
    async with bench.application() as app:
        await app.begin()
        answers = await app.enqueue_all(before, clash, after)
        await app.commit()

    assert [CREATED, CONFLICT, CREATED] == [answer.status for answer in answers]
    assert [held, before.id, after.id] == await bench.find_ids()


# --- wake-ups


@contextmanager
def _watched(bench: Bench) -> Generator[Doorbell]:
    bell = Doorbell()
    subscription = bench.driver.watch_queues(["default"], bell)
    try:
        yield bell
    finally:
        subscription.close()


@case("4.10", "4.13", needs=TRANSACTIONAL)
async def each_commit_within_a_block_wakes_workers(bench: Bench) -> None:
    async with bench.application() as app:
        with _watched(bench) as bell:
            for _ in range(2):
                await app.begin()
                await app.enqueue_all(new_job())
                bell.reset()
                await app.commit()
                await bell.wait()


@case("4.10", "4.13", needs=TRANSACTIONAL)
async def a_commit_after_the_block_wakes_workers(bench: Bench) -> None:
    async with bench.application() as app:
        with _watched(bench) as bell:
            await app.begin()
            await app.enqueue_all(new_job())
            await app.leave()
            bell.reset()
            await app.commit()
            await bell.wait()


@case("4.10", "4.13", needs=TRANSACTIONAL)
async def what_comes_after_a_savepoint_was_taken_back_wakes_workers_all_the_same(bench: Bench) -> None:
    async with bench.application() as app:
        with _watched(bench) as bell:
            await app.begin()
            await app.add_row(1)
            await app.savepoint()
            await app.enqueue_all(new_job())
            await app.rollback_to_savepoint()
            await app.enqueue_all(new_job())
            bell.reset()
            await app.commit()
            await bell.wait()


# --- the two forms, and the harbor


@case("4.13", needs=TRANSACTIONAL)
async def the_form_that_a_connection_is_not_for_is_carried_out_or_refused(bench: Bench) -> None:
    before, other, after = new_job(), new_job(), new_job()
    request = JobEnqueue(jobs=[other], now=bench.now)
    async with bench.application() as app:
        joined = app.joined
        await app.begin()
        await app.enqueue_all(before)
        try:
            if isinstance(app.caller, AwaitedCaller):
                await app.run(lambda: joined.job_enqueue(request))
            else:
                await app.run(lambda: asyncio.run(joined.ajob_enqueue(request)))
            stored = [other.id]
        except UsageError:
            stored = []
        await app.enqueue_all(after)
        await app.commit()

    assert [before.id, *stored, after.id] == await bench.find_ids()


def _enqueue(harbor: Harbor, caller: Caller, *calls: Signature[R]) -> list[JobHandle[R]]:
    if isinstance(caller, AwaitedCaller):
        return caller.run(harbor.aenqueue_many(calls))
    return harbor.enqueue_many(calls)


@case("4.13", "4.9", needs=TRANSACTIONAL)
async def an_application_orders_ships_and_corrects_its_mistakes(bench: Bench) -> None:
    registry = Registry()
    refused: list[type[Exception]] = []

    @task(name="ship", registry=registry)
    def ship(order: int) -> int:
        return order

    def order(harbor: Harbor, caller: Caller) -> JobHandle[int]:
        once = ship.options(key="order 1", on_conflict="raise")
        with harbor.using(caller.given):
            caller.begin()
            caller.add_row(1)
            (shipment,) = _enqueue(harbor, caller, once.s(1))
            for mistake in (ship.s(cast("int", NO_NUMBER)), once.s(1), once.s(2)):
                try:
                    _enqueue(harbor, caller, ship.s(7), mistake)
                except (PayloadError, DuplicateJob, KeyConflict) as error:
                    refused.append(type(error))
            try:
                harbor.look(shipment.id)
            except JobNotFound as error:
                refused.append(type(error))
            caller.add_row(2)
            caller.commit()
        return shipment

    async with bench.application() as app:
        await app.leave()
        await bench.close()  # the harbor closes the driver, so no store may be left open on it
        harbor = Harbor(bench.driver, registry=registry)
        try:
            shipment = await app.run(lambda: order(harbor, app.caller))
            done = await harbor.arun_until_idle()
            result = await shipment.aresult()
            rows = await app.rows()
        finally:
            await harbor.aclose()

    assert [PayloadError, DuplicateJob, KeyConflict, JobNotFound] == refused
    assert ([1, 2], {"succeeded": 1}, 1) == (rows, done.settled, result)


# --- flows


@case("4.13", "4.14", needs=TRANSACTIONAL)
async def rows_and_flows_are_committed_together(bench: Bench) -> None:
    flow = chord(3, on_failure=failure_template("failures"))
    async with bench.application() as app:
        await app.begin()
        await app.add_row(1)
        (answer,) = await app.enqueue_flows(flow)
        unseen = await bench.find_flows(), await bench.find_ids()
        await app.commit()
        rows = await app.rows()

    assert (CREATED, flow.id) == (answer.status, answer.job_id)
    assert ([], []) == unseen
    assert ([1], [flow.id]) == (rows, await bench.find_flows())
    for number, member in enumerate(ids_of(flow)[:-1]):
        await bench.finish(member, b"%d" % number)
    assert [b"0", b"1", b"2"] == values_of(await bench.take_one())


@case("4.13", "4.14", "4.9", needs=TRANSACTIONAL)
async def a_rollback_leaves_nothing_of_a_flow(bench: Bench) -> None:
    async with bench.application() as app:
        await app.begin()
        await app.enqueue_flows(chain(new_job(), new_job(key="k")))
        await app.rollback()

    assert ([], []) == (await bench.find_flows(), await bench.find_ids())
    assert await bench.enqueue(key="k", digest=b"other arguments")


@case("4.13", "4.14", needs=TRANSACTIONAL)
async def a_savepoint_takes_a_flow_back_whole(bench: Bench) -> None:
    kept, dropped = chain(), chord(3)
    async with bench.application() as app:
        await app.begin()
        await app.enqueue_flows(kept)
        await app.savepoint()
        await app.enqueue_flows(dropped)
        await app.rollback_to_savepoint()
        await app.commit()

    assert ([kept.id], sorted(ids_of(kept))) == (await bench.find_flows(), await bench.find_ids())


@case("4.13", "4.9", needs=TRANSACTIONAL)
async def a_flow_whose_key_is_taken_leaves_the_transaction_as_it_was(bench: Bench) -> None:
    holder = await bench.enqueue(key="k", queue="other")
    refused, kept = chain(new_job(key="k"), new_job()), chain()
    async with bench.application() as app:
        await app.begin()
        await app.add_row(1)
        answers = await app.enqueue_flows(refused, kept)
        await app.commit()
        rows = await app.rows()

    assert [(EnqueueStatus.CONFLICT, holder), (EnqueueStatus.CREATED, kept.id)] == [
        (answer.status, answer.job_id) for answer in answers
    ]
    assert ([1], [kept.id]) == (rows, await bench.find_flows())
    assert sorted([holder, *ids_of(kept)]) == await bench.find_ids()


@case("4.13", "4.1", needs=TRANSACTIONAL)
async def a_flow_enqueued_again_in_its_transaction_is_stored_once(bench: Bench) -> None:
    flow = chain()
    async with bench.application() as app:
        await app.begin()
        (first,) = await app.enqueue_flows(flow)
        (second,) = await app.enqueue_flows(flow)
        await app.commit()

    assert [EnqueueStatus.CREATED, EnqueueStatus.EXISTING] == [first.status, second.status]
    assert sorted(ids_of(flow)) == await bench.find_ids()


@case("4.13", "4.14", needs=TRANSACTIONAL)
async def a_large_flow_is_committed_whole(bench: Bench) -> None:
    whole = chord(MANY_STEPS)
    flow = msgspec.structs.replace(whole, steps=Stream([*whole.steps]))
    async with bench.application() as app:
        await app.begin()
        await app.enqueue_flows(flow)
        await app.commit()

    record = await bench.flow(flow.id)
    assert {JobState.READY: MANY_STEPS, JobState.WAITING: 1} == dict(record.steps)
    assert FlowState.RUNNING == record.state


@case("4.13", "4.10", needs=TRANSACTIONAL)
async def a_flow_that_was_committed_wakes_the_queues_of_what_may_run(bench: Bench) -> None:
    bell = Doorbell()
    subscription = bench.driver.watch_queues(["mail"], bell)
    async with bench.application() as app:
        await app.begin()
        await app.enqueue_flows(chain(new_job(queue="mail"), new_job()))
        await app.commit()

    await bell.wait()
    subscription.close()
