"""Large payloads, large batches, and text of every kind: what goes in comes out."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from sqlite3 import SQLITE_LIMIT_LENGTH

import pytest

from taskharbor.driver import EnqueueStatus, JobFind
from taskharbor.drivers.sqlite.rows import BATCH_BYTES, INLINE_BYTES
from taskharbor.errors import StoreError
from taskharbor.job import Delivery, JobState, NewJob
from taskharbor.settlement import Settlement
from taskharbor_conformance.bench import (
    HOUR,
    Bench,
    burial,
    cancellation,
    failure,
    new_job,
    stray,
    success,
)
from tests.support.sqlite import ask_file, connections_noted, producing, put, stored, with_bench

MB = 1 << 20


def noise(size: int) -> bytes:
    """Return bytes in which a part in the wrong place would show."""
    return random.Random(size).randbytes(size)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.mark.parametrize(
    "size",
    [
        0,
        1,
        INLINE_BYTES - 1,
        INLINE_BYTES,
        INLINE_BYTES + 1,
        MB,
        pytest.param(20 * MB, marks=pytest.mark.slow),
    ],
)
def test_a_payload_and_a_result_of_any_size_come_back_as_they_were(size: int, path: Path) -> None:
    payload = noise(size)

    async def work(bench: Bench) -> tuple[bytes, bytes, bytes | None]:
        job_id = await bench.enqueue(payload=payload)
        delivery = await bench.take_one()
        await bench.settle(success(delivery, payload[::-1]))
        record = await bench.record(job_id)
        return delivery.payload, record.payload, record.result

    delivered, kept, result = with_bench(path, work)

    assert payload == delivered == kept
    assert payload[::-1] == result


def test_payloads_of_mixed_sizes_in_one_reserve_are_each_their_own(path: Path) -> None:
    sizes = [
        0,
        10,
        INLINE_BYTES,
        INLINE_BYTES + 1,
        5,
        0,
        3 * MB,
        INLINE_BYTES - 1,
        1,
        2 * INLINE_BYTES,
        0,
    ] * 3
    payloads = [noise(size) + bytes([number]) * (number % 4) for number, size in enumerate(sizes)]

    async def work(bench: Bench) -> tuple[dict[str, bytes], dict[str, bytes]]:
        jobs = [new_job(payload=payload) for payload in payloads]
        await bench.enqueue_all(*jobs)
        return (
            {job.id: job.payload for job in jobs},
            {delivery.id: delivery.payload for delivery in await bench.take()},
        )

    sent, came = with_bench(path, work)

    assert sent == came


def test_results_of_mixed_sizes_in_one_settle_are_each_their_own(path: Path) -> None:
    sizes = [
        0,
        BATCH_BYTES + 1,
        7,
        None,
        3 * MB,
        BATCH_BYTES - 10,
        100,
        0,
        None,
        BATCH_BYTES // 2,
        BATCH_BYTES // 2 + 1,
    ]

    async def work(bench: Bench) -> tuple[dict[str, bytes | None], dict[str, bytes | None]]:
        await bench.enqueue_all(*(new_job() for _ in sizes))
        taken = await bench.take()
        results = [None if size is None else noise(size) for size in sizes]
        sent = {delivery.id: result for delivery, result in zip(taken, results, strict=True)}
        await bench.settle(*(success(delivery, sent[delivery.id]) for delivery in taken))
        records = await bench.get(*sent)
        return sent, {record.id: record.result for record in records if record is not None}

    sent, kept = with_bench(path, work)

    assert sent == kept


def test_ten_thousand_jobs_go_through_every_verb_in_one_batch(path: Path) -> None:
    count = 10_000

    async def work(bench: Bench) -> list[JobState | None]:
        jobs = [new_job(key=str(number), payload=b"%d" % number) for number in range(count)]
        created = await bench.enqueue_all(*jobs)
        again = await bench.enqueue_all(*jobs)
        other = await bench.enqueue_all(
            *(new_job(key=str(number), digest=b"other") for number in range(count))
        )
        assert {EnqueueStatus.CREATED} == {answer.status for answer in created}
        assert {EnqueueStatus.EXISTING} == {answer.status for answer in again}
        assert {EnqueueStatus.CONFLICT} == {answer.status for answer in other}
        taken = await bench.take()
        assert [job.payload for job in jobs] == [delivery.payload for delivery in taken]
        await bench.start(*taken)
        await bench.lose_workers()
        bench.advance(HOUR)
        taken = await bench.take()
        ends: list[Callable[[Delivery], Settlement]] = [success, failure, burial, cancellation, stray]
        await bench.settle(*(ends[number % 5](delivery) for number, delivery in enumerate(taken)))
        bench.advance(HOUR)
        return [
            None if record is None else record.state for record in await bench.get(*(job.id for job in jobs))
        ]

    states = with_bench(path, work)

    assert {
        JobState.SUCCEEDED: count // 5,
        JobState.READY: count // 5,
        JobState.DEAD: count // 5,
        JobState.CANCELLED: count // 5,
        JobState.PARKED: count // 5,
    } == {state: states.count(state) for state in set(states)}
    assert [("ok",)] == ask_file(path, "PRAGMA integrity_check")


TEXTS = [
    'it\'s "quoted" `so` [and] {so}',
    "'; DROP TABLE taskharbor_job; --",
    "umlaut äöü, 日本語, العربية, e\u0301",
    "🚢⚓🏴\u200d☠️",
    "line\nbreak\r\ntab\tand\x0bmore\x7f\u2028\u2029\ufeff",
    "back\\slash \\u0041 \\\\ %s %d ? ?1 :name @x $y",
    "null",
    "123",
    "1e5",
    "[1, 2]",
    " ",
    "x" * 5000,
    "\U0010ffff\ue000",
]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_text_comes_back_as_it_was_from_every_field(text: str, path: Path) -> None:
    async def work(bench: Bench) -> None:
        await bench.announce(text, tasks=[text], build=text)
        job = new_job(
            task=text,
            queue=text,
            key=text,
            codec=text,
            meta={text: text},
            digest=text.encode(),
            fingerprint=2**63 - 1,
        )
        await bench.enqueue_all(job)
        same = await bench.enqueue_all(new_job(task=text, queue=text, key=text, digest=text.encode()))
        assert (EnqueueStatus.EXISTING, job.id) == (same[0].status, same[0].job_id)
        await bench.pause(text, by=text, reason=text)
        assert [] == await bench.take(queues=[text])
        assert [text] == await bench.queue_names()
        await bench.resume(text)

        taken = await bench.take_one(queues=[text], worker=text, build="other")
        assert (text, text, text, text) == (taken.task, taken.queue, taken.key, taken.codec)
        assert {text: text} == taken.meta
        assert 2**63 - 1 == taken.fingerprint
        assert text == (await bench.record(job.id)).worker
        await bench.settle(stray(taken, refused_by="other", reason=text))
        assert (text, ("other",)) == (
            (await bench.record(job.id)).reason,
            (await bench.record(job.id)).refused_by,
        )
        again = await bench.take_one(queues=[text], tasks=frozenset({text}), build=text)
        await bench.settle(stray(again, refused_by=text, reason=text))
        assert tuple(sorted(["other", text])) == (await bench.record(job.id)).refused_by
        await bench.cancel(job.id, reason=text, by=text)
        record = await bench.record(job.id)
        assert (JobState.CANCELLED, text) == (record.state, record.reason)
        assert [(text, text)] == [(note.by, note.reason) for note in record.operations]

        await bench.requeue(job.id, by=text, reason=text)
        third = await bench.take_one(queues=[text], tasks=frozenset({text}), build="third")
        await bench.settle(failure(third, message=text))
        fourth = await bench.take_one(queues=[text], tasks=frozenset({text}), build="third")
        await bench.cancel(job.id, reason=text)
        assert [text] == [cancel.reason for cancel in (await bench.extend(fourth)).cancels]
        await bench.settle(burial(fourth, reason=text, message=text))
        record = await bench.record(job.id)
        assert [text, text] == [error.message for error in record.errors]
        assert text == record.reason
        found = await bench.store.job_find(
            JobFind(tasks=frozenset({text}), queues=frozenset({text}), key=text, limit=10, now=bench.now)
        )
        assert [job.id] == [each.id for each in found]
        await bench.delete(job.id)
        assert [] == stored(path)

    with_bench(path, work)


def test_the_last_text_of_a_cancel_stays_whole_in_the_history(path: Path) -> None:
    async def work(bench: Bench) -> list[str]:
        ids = [await bench.enqueue() for _ in TEXTS]
        taken = await bench.take()
        await bench.settle(
            *(cancellation(delivery, reason=text) for delivery, text in zip(taken, TEXTS, strict=True))
        )
        return [(await bench.record(job_id)).reason for job_id in ids]

    assert TEXTS == with_bench(path, work)


def test_keys_are_apart_by_task_and_by_every_character(path: Path) -> None:
    keys = ["a", "A", "a ", " a", "ä", "a\u0308", "a'", "", "a\n", "\uff41", "1", "1.0", "01"]

    async def work(bench: Bench) -> set[EnqueueStatus]:
        jobs = [new_job(task=name, key=key) for name in keys[:-1] if name for key in keys]
        return {answer.status for answer in await bench.enqueue_all(*jobs)}

    assert {EnqueueStatus.CREATED} == with_bench(path, work)


@pytest.mark.slow
def test_a_hundred_thousand_keys_admit_one_job_each(path: Path) -> None:
    count = 100_000
    with producing(path) as store:
        for begin in range(0, count, 5000):
            put(store, *(new_job(key=f"key-{number}") for number in range(begin, begin + 5000)))
        answers = [
            answer.status
            for begin in range(0, count, 5000)
            for answer in put(store, *(new_job(key=f"key-{number}") for number in range(begin, begin + 5000)))
        ]

    assert {EnqueueStatus.EXISTING} == set(answers)
    assert [(count,)] == ask_file(path, "SELECT count(*) FROM taskharbor_job")


@pytest.mark.parametrize("number", [0, 1, 2**31, 2**53 + 1, 2**63 - 1])
def test_numbers_of_63_bits_come_back_as_they_were(number: int, path: Path) -> None:
    async def work(bench: Bench) -> tuple[int, int]:
        await bench.enqueue(fingerprint=number)
        delivery = await bench.take_one(token=number)
        extended = await bench.extend(delivery)
        assert not extended.lost
        await bench.settle(success(delivery))
        return delivery.token, delivery.fingerprint

    assert (number, number) == with_bench(path, work)


def test_a_payload_beyond_sqlites_limit_is_refused_and_harms_nobody(path: Path) -> None:
    with connections_noted() as connections:

        async def limited(bench: Bench) -> str:
            connections[-1].setlimit(SQLITE_LIMIT_LENGTH, MB)  # by default a thousand million
            with pytest.raises(StoreError) as refused:
                await bench.enqueue(payload=bytes(2 * MB))
            await bench.enqueue()
            return str(refused.value)

        told = with_bench(path, limited)

    assert "too big" in told
    assert 1 == len(stored(path))


def jobs_of(count: int) -> list[NewJob]:
    """Return jobs of no particular kind."""
    return [new_job() for _ in range(count)]


@pytest.mark.parametrize("count", [1, 19, 20, 21, 199, 200, 201, 220, 221, 399, 441])
def test_batches_of_every_size_are_stored_whole(count: int, path: Path) -> None:
    jobs = jobs_of(count)

    with producing(path) as store:
        put(store, *jobs)

    assert sorted(job.id for job in jobs) == stored(path)
