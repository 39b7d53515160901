"""What running jobs tell of themselves: progress and log lines, fenced by the lease, kept with the job."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from taskharbor.driver import Capability, HistoryPrune, JobFind, JobReport
from taskharbor.job import Delivery, JobRecord, JobState
from taskharbor.report import LINE_LIMIT, LOG_LIMIT, NOTE_LIMIT, LogLine, Progress, Report
from taskharbor_conformance.bench import (
    HOUR,
    LEASE,
    SECOND,
    UNKNOWN,
    Bench,
    burial,
    failure,
    new_job,
    success,
)
from taskharbor_conformance.case import case

TRICKY = 'Zoë said: "it\'s 100%" \\n {1,2} NULL \t\r\n 日本語 🚢 '
"""Text that is easily taken for something else on its way."""


def _lines(bench: Bench, delivery: Delivery, *texts: str, first: int = 1) -> tuple[LogLine, ...]:
    return tuple(
        LogLine(fence=delivery.fence, number=number, attempt=delivery.attempt, at=bench.now, text=text)
        for number, text in enumerate(texts, first)
    )


def _progress(bench: Bench, done: float, total: float | None = None, note: str = "") -> Progress:
    return Progress(done=done, total=total, note=note, at=bench.now)


def _report(
    delivery: Delivery,
    progress: Progress | None = None,
    lines: Sequence[LogLine] = (),
    token: int | None = None,
) -> Report:
    held = delivery.token if token is None else token
    return Report(job_id=delivery.id, token=held, progress=progress, lines=tuple(lines))


async def _tell(bench: Bench, *reports: Report) -> list[bool]:
    return list(await bench.store.job_report(JobReport(reports=reports, now=bench.now)))


async def _running(bench: Bench) -> Delivery:
    await bench.enqueue()
    return await bench.take_one()


def _texts(record: JobRecord) -> list[str]:
    return [line.text for line in record.log]


@case()
async def a_look_up_tells_what_a_running_job_told(bench: Bench) -> None:
    delivery = await _running(bench)
    progress = _progress(bench, 3, 10, "resizing")
    lines = _lines(bench, delivery, "began", "went on")

    stored = await _tell(bench, _report(delivery, progress, lines))

    record = await bench.record(delivery.id)
    assert ([True], progress, lines) == (stored, record.progress, record.log)


@case()
async def a_job_that_told_nothing_has_no_progress_and_no_log(bench: Bench) -> None:
    delivery = await _running(bench)

    stored = await _tell(bench, _report(delivery))

    record = await bench.record(delivery.id)
    assert ([True], None, ()) == (stored, record.progress, record.log)


@case()
async def a_search_tells_neither(bench: Bench) -> None:
    delivery = await _running(bench)
    await _tell(bench, _report(delivery, _progress(bench, 1), _lines(bench, delivery, "began")))

    (record,) = await bench.store.job_find(JobFind(now=bench.now))

    assert (None, ()) == (record.progress, record.log)


@case()
async def a_report_changes_nothing_else_of_a_job(bench: Bench) -> None:
    delivery = await _running(bench)
    before = await bench.record(delivery.id)
    bench.advance(SECOND)

    await _tell(bench, _report(delivery, _progress(bench, 1), _lines(bench, delivery, "began")))

    after = await bench.record(delivery.id)
    assert before == msgspec.structs.replace(after, progress=None, log=())
    assert [JobState.SUCCEEDED] == await bench.settle(success(delivery))


@case()
async def no_reports_are_no_step(bench: Bench) -> None:
    assert [] == await _tell(bench)


@case()
async def of_two_progresses_the_later_asked_stands(bench: Bench) -> None:
    delivery = await _running(bench)
    early = _progress(bench, 1)
    bench.advance(SECOND)
    late = _progress(bench, 2)

    await _tell(bench, _report(delivery, early), _report(delivery, late))
    together = (await bench.record(delivery.id)).progress
    await _tell(bench, _report(delivery, early))

    assert (late, early) == (together, (await bench.record(delivery.id)).progress)


@case()
async def a_report_without_progress_leaves_the_last_one(bench: Bench) -> None:
    delivery = await _running(bench)
    progress = _progress(bench, 5, 10)
    await _tell(bench, _report(delivery, progress))

    await _tell(bench, _report(delivery, None, _lines(bench, delivery, "still there")))

    assert progress == (await bench.record(delivery.id)).progress


@case()
async def progress_and_text_come_back_as_they_were_told(bench: Bench) -> None:
    delivery = await _running(bench)
    told = [
        _progress(bench, 0.1, None, TRICKY),
        _progress(bench, 1e300, 3.5e300),
        _progress(bench, 0, 0, "é" * NOTE_LIMIT),
    ]
    lines = _lines(bench, delivery, TRICKY, "", " ", "日" * LINE_LIMIT, "two\nlines")

    read: list[Progress | None] = []
    for progress in told:
        await _tell(bench, _report(delivery, progress))
        read.append((await bench.record(delivery.id)).progress)
    await _tell(bench, _report(delivery, None, lines))

    assert told == read
    assert lines == (await bench.record(delivery.id)).log


@case()
async def many_jobs_report_in_one_step(bench: Bench) -> None:
    await bench.enqueue_all(*(new_job() for _ in range(300)))
    deliveries = await bench.take()

    stored = await _tell(
        bench,
        *(
            _report(one, _progress(bench, number), _lines(bench, one, f"line of {number}"))
            for number, one in enumerate(deliveries)
        ),
    )

    records = await bench.get(*(one.id for one in deliveries))
    assert [True] * 300 == stored
    assert [(number, [f"line of {number}"]) for number in range(300)] == [
        (record.progress.done, _texts(record)) for record in records if record is not None and record.progress
    ]


# --- who may


@case("4.3")
async def who_does_not_hold_a_job_reports_nothing_of_it(bench: Bench) -> None:
    held, other = await _running(bench), await _running(bench)
    waiting = await bench.enqueue()
    report = _report(held, _progress(bench, 1), _lines(bench, held, "began"))

    stored = await _tell(
        bench,
        _report(held, _progress(bench, 9), _lines(bench, held, "not mine"), token=other.token),
        report,
        msgspec.structs.replace(report, job_id=waiting),
        msgspec.structs.replace(report, job_id=UNKNOWN),
        _report(other, _progress(bench, 2)),
    )

    assert [False, True, False, False, True] == stored
    record, untold = await bench.record(held.id), await bench.record(waiting)
    assert (report.progress, report.lines) == (record.progress, record.log)
    assert (None, ()) == (untold.progress, untold.log)


@case("4.3", "4.5")
async def who_lost_a_job_reports_no_more_of_it(bench: Bench) -> None:
    lost = await _running(bench)
    await bench.lose_workers()
    unheld = await _tell(bench, _report(lost, _progress(bench, 1), _lines(bench, lost, "late")))
    again = await bench.take_one()

    stored = await _tell(
        bench,
        _report(again, _progress(bench, 2), _lines(bench, again, "mine")),
        _report(lost, _progress(bench, 3), _lines(bench, lost, "later")),
    )

    record = await bench.record(lost.id)
    assert ([False], [True, False]) == (unheld, stored)
    assert (_progress(bench, 2), ["mine"]) == (record.progress, _texts(record))


@case("4.3", "4.5")
async def an_expired_lease_that_nobody_reclaimed_still_reports(bench: Bench) -> None:
    delivery = await _running(bench)
    bench.advance(2 * LEASE)

    assert [True] == await _tell(bench, _report(delivery, _progress(bench, 1)))


@case("4.3")
async def a_job_that_was_settled_takes_no_more_reports(bench: Bench) -> None:
    ended, retried = await _running(bench), await _running(bench)
    await bench.settle(success(ended), failure(retried))

    stored = await _tell(bench, *(_report(one, _progress(bench, 1)) for one in (ended, retried)))

    assert ([False, False], None) == (stored, (await bench.record(ended.id)).progress)


# --- the log


@case()
async def a_line_told_again_is_kept_once_and_as_it_was_first(bench: Bench) -> None:
    delivery = await _running(bench)
    first = _lines(bench, delivery, "one", "two")
    await _tell(bench, _report(delivery, None, first))

    stored = await _tell(
        bench,
        _report(delivery, None, first),
        _report(delivery, None, _lines(bench, delivery, "another two", "three", first=2)),
        _report(delivery, None, _lines(bench, delivery, "four", first=4) * 2),
    )

    assert [True] * 3 == stored
    assert ["one", "two", "three", "four"] == _texts(await bench.record(delivery.id))


@case("4.4")
async def lines_of_all_deliveries_are_told_in_their_order(bench: Bench) -> None:
    delivery = await _running(bench)
    job_id = delivery.id
    told: list[tuple[int, int]] = []
    for _ in range(3):
        await _tell(
            bench,
            _report(delivery, None, _lines(bench, delivery, "third", first=3)),
            _report(delivery, None, _lines(bench, delivery, "first", "second")),
        )
        told += [(delivery.fence, number) for number in (1, 2, 3)]
        await bench.settle(failure(delivery))
        delivery = await bench.take_one()

    log = (await bench.record(job_id)).log
    assert told == [(line.fence, line.number) for line in log]
    assert ["first", "second", "third"] * 3 == [line.text for line in log]


@case()
async def of_a_thousand_lines_the_last_are_kept(bench: Bench) -> None:
    delivery, other = await _running(bench), await _running(bench)
    await _tell(bench, _report(other, None, _lines(bench, other, "of another")))
    texts = [f"line {number}" for number in range(1, 1001)]

    await _tell(bench, _report(delivery, None, _lines(bench, delivery, *texts)))
    at_once = _texts(await bench.record(delivery.id))
    for begin in range(1000, 1500, 50):
        more = (f"line {number}" for number in range(begin + 1, begin + 51))
        await _tell(bench, _report(delivery, None, _lines(bench, delivery, *more, first=begin + 1)))
    await _tell(bench, _report(delivery, None, _lines(bench, delivery, "told late", first=1)))

    assert texts[-LOG_LIMIT:] == at_once
    assert [f"line {number}" for number in range(1501 - LOG_LIMIT, 1501)] == _texts(
        await bench.record(delivery.id)
    )
    assert ["of another"] == _texts(await bench.record(other.id))


# --- how long


@case("4.6", "4.7", "4.8", "4.11")
async def what_was_told_survives_every_turn_of_a_jobs_life(bench: Bench) -> None:
    await bench.announce()
    delivery = await _running(bench)
    job_id, progress = delivery.id, _progress(bench, 4, 5, "nearly")
    await _tell(bench, _report(delivery, progress, _lines(bench, delivery, "kept")))

    async def kept() -> tuple[JobState, Progress | None, list[str]]:
        record = await bench.record(job_id)
        return record.state, record.progress, _texts(record)

    await bench.settle(failure(delivery, after=HOUR))
    seen = [await kept()]
    bench.advance(HOUR)
    await bench.start(await bench.take_one())
    await bench.lose_workers()
    seen.append(await kept())
    bench.advance(HOUR)
    await bench.settle(burial(await bench.take_one()))
    seen.append(await kept())
    await bench.requeue(job_id)
    seen.append(await kept())
    await bench.cancel(job_id)
    seen.append(await kept())
    await bench.requeue(job_id)
    await bench.finish(job_id)
    seen.append(await kept())

    states = ("retrying", "retrying", "dead", "ready", "cancelled", "succeeded")
    assert [(JobState(state), progress, ["kept"]) for state in states] == seen


@case()
async def a_job_stored_anew_has_told_nothing(bench: Bench) -> None:
    delivery = await _running(bench)
    await _tell(bench, _report(delivery, _progress(bench, 1), _lines(bench, delivery, "of the first")))
    await bench.settle(burial(delivery))

    await bench.delete(delivery.id)
    gone = await bench.get(delivery.id)
    await bench.enqueue(id=delivery.id)
    await bench.take_one()

    record = await bench.record(delivery.id)
    assert ([None], None, ()) == (gone, record.progress, record.log)


@case("4.17")
async def what_was_told_goes_with_a_record_that_is_pruned(bench: Bench) -> None:
    delivery = await _running(bench)
    (kept,) = await bench.enqueue_all(new_job(retain=1000 * HOUR))
    other = await bench.take_one()
    for one in (delivery, other):
        await _tell(bench, _report(one, _progress(bench, 1), _lines(bench, one, "told")))
    await bench.settle(success(delivery), success(other))
    bench.advance(400 * HOUR)

    await bench.store.history_prune(HistoryPrune(now=bench.now))

    assert [None] == await bench.get(delivery.id)
    assert ["told"] == _texts(await bench.record(kept.job_id))


@case("4.1", needs=Capability.DURABLE)
async def what_was_told_survives_the_end_of_the_process(bench: Bench) -> None:
    delivery = await _running(bench)
    progress, lines = _progress(bench, 1, 2, "half"), _lines(bench, delivery, "one", "two")
    await _tell(bench, _report(delivery, progress, lines))

    await bench.restart()

    record = await bench.record(delivery.id)
    assert (progress, lines) == (record.progress, record.log)
