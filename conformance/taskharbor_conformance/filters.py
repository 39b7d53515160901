"""Filters: which jobs a search finds and a count counts, by their errors, reasons and times."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from taskharbor.driver import Counted, JobCount, JobFind
from taskharbor.job import AttemptError, Delivery, JobRecord, JobState
from taskharbor.settlement import SettleKind, Settlement
from taskharbor_conformance.bench import (
    DAY,
    ENOUGH,
    HOUR,
    SECOND,
    Bench,
    burial,
    cancellation,
    new_job,
    stray,
    success,
)
from taskharbor_conformance.case import case

LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def _failed(
    delivery: Delivery, type_: str, message: str = "boom", reason: str = "", *, dead: bool = True
) -> Settlement:
    error = AttemptError(
        attempt=delivery.attempt,
        type=type_,
        message=message,
        traceback="Traceback: hidden",
        worker="worker-1",
    )
    kind = SettleKind.BURY if dead else SettleKind.RETRY
    return Settlement(delivery.id, delivery.token, kind, error=error, reason=reason, charge=True, after=HOUR)


async def _bury(bench: Bench, type_: str, message: str = "boom", reason: str = "rejected") -> str:
    """Make a dead letter, and return its id."""
    await bench.enqueue()
    delivery = await bench.take_one()
    await bench.settle(_failed(delivery, type_, message, reason))
    return delivery.id


async def _ids(bench: Bench, request: JobFind) -> list[str]:
    return [record.id for record in await bench.store.job_find(request)]


async def _by_error(bench: Bench, error: str) -> list[str]:
    return await _ids(bench, JobFind(error=error, now=bench.now))


async def _by_text(bench: Bench, text: str) -> list[str]:
    return await _ids(bench, JobFind(text=text, now=bench.now))


# --- by error


@case("4.7")
async def an_error_is_named_whole_or_by_its_last_part(bench: Bench) -> None:
    plain = await _bury(bench, "ValueError")
    ours = await _bury(bench, "shop.errors.ValueError")
    nested = await _bury(bench, "shop.errors.Paying.Refused")
    await _bury(bench, "shop.errors.NotValueError")

    assert [plain, ours] == await _by_error(bench, "ValueError")
    assert [ours] == await _by_error(bench, "shop.errors.ValueError")
    assert [nested] == await _by_error(bench, "Refused")
    assert [nested] == await _by_error(bench, "shop.errors.Paying.Refused")


@case("4.7")
async def no_other_part_of_an_errors_name_finds_it(bench: Bench) -> None:
    await _bury(bench, "shop.errors.Refused")

    for other in (
        "errors.Refused",
        "refused",
        "Refus",
        "shop",
        "errors",
        ".Refused",
        "%",
        "R_fused",
        "*",
        "shop.errors.Refused ",
        "%.Refused",
    ):
        assert [] == await _by_error(bench, other), other


@case("4.6", "4.7")
async def only_the_last_error_of_a_job_counts(bench: Bench) -> None:
    await bench.enqueue()
    delivery = await bench.take_one()
    await bench.settle(_failed(delivery, "First", "early trouble", dead=False))
    first = await _by_error(bench, "First"), await _by_text(bench, "early trouble")
    bench.advance(HOUR)
    await bench.settle(_failed(await bench.take_one(), "app.Second", "late trouble"))

    assert ([delivery.id], [delivery.id]) == first
    assert ([], []) == (await _by_error(bench, "First"), await _by_text(bench, "early trouble"))
    assert [delivery.id] == await _by_error(bench, "Second")
    assert [delivery.id] == await _by_text(bench, "late trouble")


@case("4.6", "4.8", "4.11")
async def an_error_is_found_in_whatever_state_a_job_is(bench: Bench) -> None:
    ids = [await bench.enqueue() for _ in range(5)]
    await bench.settle(*(_failed(one, "app.Broken", dead=False) for one in await bench.take()))
    bench.advance(HOUR)
    buried, won, stopped, _, requeued = await bench.take()
    await bench.settle(
        burial(buried), success(won), cancellation(stopped), _failed(requeued, "app.Broken"), success(_)
    )
    await bench.requeue(requeued.id)
    running = await bench.take_one()
    assert requeued.id == running.id

    found = await _by_error(bench, "Broken")

    assert [each for each in ids if each != buried.id] == found
    assert [buried.id] == await _by_error(bench, "ValueError")


# --- by text


@case("4.7")
async def a_text_is_found_in_reason_and_message_whatever_the_case(bench: Bench) -> None:
    by_reason = await _bury(bench, "E", "nothing", "Attempts used up")
    by_message = await _bury(bench, "E", "All ATTEMPTS\nwere in vain", "rejected")
    await _bury(bench, "Attempts", "other", "other")

    assert [by_reason, by_message] == await _by_text(bench, "attempts")
    assert [by_reason] == await _by_text(bench, "ATTEMPTS USED")
    assert [by_message] == await _by_text(bench, "attempts\nWere")
    assert [] == await _by_text(bench, "hidden"), "tracebacks are not looked through"


@case("4.7")
async def a_text_means_each_of_its_characters(bench: Bench) -> None:
    said = '50% of a_b said "it\'s" \\d{2} [x] * ? größe 日本 🚢 NULL'
    job_id = await _bury(bench, "E", said)
    await _bury(bench, "E", "50 of axb, xx")

    for text in ("50%", "a_b", '"it\'s"', "\\d{2}", "[x]", "* ?", "größe", "日本", "🚢", "null", said):
        assert [job_id] == await _by_text(bench, text), text
    for text in ("5%0", "a%b", "x*", "GRÖSSE", "GRÖße", "%%", "\\\\", "{3}", "used_"):
        assert [] == await _by_text(bench, text), text


@case("4.11", "4.16")
async def reasons_of_parked_and_of_cancelled_jobs_are_looked_through(bench: Bench) -> None:
    parked, cancelled, stopped = [await bench.enqueue(priority=number) for number in range(3)]
    await bench.settle(stray(await bench.take_one(), reason="Unknown task"))
    await bench.cancel(cancelled, reason="no longer wanted")
    await bench.settle(cancellation(await bench.pick(stopped), "not WANTED here"))

    assert [parked] == await _by_text(bench, "unknown TASK")
    assert [cancelled, stopped] == await _by_text(bench, "wanted")


# --- by time


@case("4.18")
async def the_time_of_enqueue_narrows_it_down(bench: Bench) -> None:
    instants: list[datetime] = []
    ids: list[str] = []
    for _ in range(3):
        ids.append(await bench.enqueue(run_in=HOUR))
        instants.append(bench.now)
        bench.advance(SECOND)

    async def found(since: datetime | None = None, before: datetime | None = None) -> list[str]:
        return await _ids(bench, JobFind(enqueued_since=since, enqueued_before=before, now=bench.now))

    assert ids[1:] == await found(since=instants[1])
    assert ids[:1] == await found(before=instants[1])
    assert ids[1:2] == await found(instants[1], instants[2])
    assert [] == await found(instants[2], instants[1])
    assert ids == await found(bench.now - DAY, bench.now + DAY)


@case("4.7", "4.18")
async def the_time_of_its_end_narrows_it_down_to_jobs_that_ended(bench: Bench) -> None:
    await bench.enqueue(run_in=DAY)
    ids = [await bench.enqueue() for _ in range(3)]
    dead, won, stopped = await bench.take()
    instants: list[datetime] = []
    for settlement in (burial(dead), success(won), cancellation(stopped)):
        instants.append(bench.now)
        await bench.settle(settlement)
        bench.advance(SECOND)

    async def found(since: datetime | None = None, before: datetime | None = None) -> list[str]:
        return await _ids(bench, JobFind(finished_since=since, finished_before=before, now=bench.now))

    assert ids == await found(since=bench.now - DAY)
    assert ids == await found(before=bench.now + DAY)
    assert ids[1:] == await found(since=instants[1])
    assert ids[:1] == await found(before=instants[1])
    assert ids[1:2] == await found(instants[1], instants[2])
    await bench.requeue(ids[0])
    assert ids[1:] == await found(since=bench.now - DAY), "it is live again"


# --- together


def _text_of(record: JobRecord) -> str:
    return f"{record.reason}\x00{record.errors[-1].message if record.errors else ''}".translate(LOWER)


def _matches(record: JobRecord, wanted: JobFind | JobCount) -> bool:
    """Return whether a record is as a filter asks; written as plainly as can be."""
    last = record.errors[-1].type if record.errors else ""
    finished = record.finished_at
    return (
        (not wanted.queues or record.queue in wanted.queues)
        and (not wanted.tasks or record.task in wanted.tasks)
        and (not wanted.error or wanted.error in (last, last.split(".")[-1]))
        and (not wanted.text or wanted.text.translate(LOWER) in _text_of(record))
        and (wanted.enqueued_since is None or record.enqueued_at >= wanted.enqueued_since)
        and (wanted.enqueued_before is None or record.enqueued_at < wanted.enqueued_before)
        and (wanted.finished_since is None or (finished is not None and finished >= wanted.finished_since))
        and (wanted.finished_before is None or (finished is not None and finished < wanted.finished_before))
    )


async def _population(bench: Bench) -> tuple[list[JobRecord], datetime]:
    """Make jobs of all kinds, and return their records in order of id, and an instant in the midst of it."""
    await bench.announce(tasks=["a", "b"])
    tasks = frozenset({"a", "b"})
    for number in range(24):
        await bench.enqueue(task="ab"[number % 2], queue="xy"[number % 3 == 0], priority=number % 4)
    first = await bench.take(16, queues=["x", "y"], tasks=tasks)
    ends: Sequence[Settlement] = [
        _failed(
            one,
            ("app.Broken", "Refused")[number % 2],
            f"Trouble {number % 3}",
            "Given up",
            dead=number % 4 < 3,
        )
        for number, one in enumerate(first[:9])
    ]
    await bench.settle(*ends, success(first[9]), cancellation(first[10], "trouble"), stray(first[11]))
    middle = bench.advance(HOUR)
    for number in range(6):
        await bench.enqueue(task="ab"[number % 2], queue="x", run_in=DAY * (number % 2))
    await bench.settle(*(_failed(one, "app.Broken", "later trouble", "given UP") for one in first[12:14]))
    await bench.requeue(*[one.id for one in first[:9:4]])
    records = list(await bench.store.job_find(JobFind(limit=ENOUGH, now=bench.now)))
    assert 30 == len(records)
    return records, middle


def _filters(middle: datetime) -> list[dict[str, object]]:
    single: list[dict[str, object]] = [
        {"error": "Broken"},
        {"error": "Refused"},
        {"text": "TROUBLE"},
        {"text": "given up"},
        {"enqueued_since": middle},
        {"enqueued_before": middle},
        {"finished_since": middle},
        {"finished_before": middle},
        {"queues": frozenset({"x"})},
        {"tasks": frozenset({"a"})},
    ]
    pairs = [{**one, **other} for place, one in enumerate(single) for other in single[place + 1 :]]
    whole: dict[str, object] = {
        "queues": frozenset({"x", "y"}),
        "tasks": frozenset({"a", "b"}),
        "error": "app.Broken",
        "text": "trouble",
        "enqueued_before": middle,
        "finished_since": middle,
    }
    return [*single, *pairs, whole]


@case("4.7")
async def filters_narrow_it_down_together(bench: Bench) -> None:
    records, middle = await _population(bench)
    some = 0

    for fields in _filters(middle):
        # Each set has other fields, of types that a dict cannot tell apart.
        find = JobFind(limit=ENOUGH, now=bench.now, **fields)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        expected = [record.id for record in records if _matches(record, find)]
        some += bool(expected)
        assert expected == await _ids(bench, find), fields

    assert some > 30, "most of these filters find something"


@case("4.7")
async def a_count_counts_what_a_search_finds(bench: Bench) -> None:
    records, middle = await _population(bench)

    for fields in _filters(middle):
        # Each set has other fields, of types that a dict cannot tell apart.
        count = JobCount(now=bench.now, **fields)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        expected = Counter(
            (record.queue, record.task, record.state) for record in records if _matches(record, count)
        )
        counted = list(await bench.store.job_count(count))
        assert [Counted(*name, number) for name, number in sorted(expected.items())] == counted, fields


@case("4.7")
async def what_is_filtered_is_read_in_full_pages_both_ways(bench: Bench) -> None:
    ids = [await bench.enqueue() for _ in range(25)]
    await bench.settle(
        *(
            _failed(one, "app.Broken" if number % 3 else "Other")
            for number, one in enumerate(await bench.take())
        )
    )
    expected = [job_id for number, job_id in enumerate(ids) if number % 3]

    async def pages(*, newest_first: bool, states: frozenset[JobState]) -> list[list[str]]:
        read: list[list[str]] = []
        after = ""
        while not read or read[-1]:
            find = JobFind(
                error="Broken",
                text="BOOM",
                states=states,
                finished_since=bench.now,
                after=after,
                limit=6,
                newest_first=newest_first,
                now=bench.now,
            )
            read.append(await _ids(bench, find))
            after = read[-1][-1] if read[-1] else ""
        return read[:-1]

    for states in (
        frozenset[JobState](),
        frozenset({JobState.DEAD}),
        frozenset({JobState.DEAD, JobState.READY}),
    ):
        upwards = await pages(newest_first=False, states=states)
        downwards = await pages(newest_first=True, states=states)
        assert [6, 6, 4] == [len(page) for page in upwards] == [len(page) for page in downwards]
        assert expected == [job_id for page in upwards for job_id in page]
        assert expected[::-1] == [job_id for page in downwards for job_id in page]


@case("4.7", "4.8")
async def pages_go_on_while_jobs_come_and_go(bench: Bench) -> None:
    ids = [await bench.enqueue() for _ in range(20)]
    await bench.settle(*(_failed(one, "app.Broken") for one in await bench.take()))
    seen: list[str] = []
    after = ""

    while page := await _ids(bench, JobFind(error="Broken", after=after, limit=4, now=bench.now)):
        seen += page
        after = page[-1]
        await bench.delete(*page[:2])
        await bench.requeue(page[2])
        await bench.enqueue()
        if after == ids[7]:
            await bench.delete(ids[12])

    assert [job_id for job_id in ids if job_id != ids[12]] == seen
    left = [job_id for place, job_id in enumerate(seen) if place % 4 >= 2]
    assert left == await _by_error(bench, "Broken")


@case("4.7", "4.9")
async def states_and_key_narrow_a_filtered_search_down(bench: Bench) -> None:
    (keyed, _) = [answer.job_id for answer in await bench.enqueue_all(new_job(key="k"), new_job(key="other"))]
    await bench.enqueue()
    await bench.settle(*(_failed(one, "app.Broken") for one in await bench.take()))
    await bench.requeue(keyed)

    async def found(states: frozenset[JobState], key: str | None = None) -> list[str]:
        return await _ids(bench, JobFind(error="Broken", text="boom", states=states, key=key, now=bench.now))

    assert [keyed] == await found(frozenset(), key="k")
    assert [keyed] == await found(frozenset({JobState.READY}))
    assert [] == await found(frozenset({JobState.DEAD}), key="k")
    assert 2 == len(await found(frozenset({JobState.DEAD})))
    assert 1 == len(await found(frozenset({JobState.DEAD}), key="other"))
