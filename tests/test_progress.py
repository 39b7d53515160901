"""`ctx.progress` and `ctx.log`: told without waiting, written now and then, and before the outcome at the latest."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import cast

import msgspec
import pytest

from taskharbor import Context, Harbor, JobState, OptionError, Registry, Retry, RetryLater, Snooze, task
from taskharbor.driver import JobReport, Store
from taskharbor.drivers.memory import MemoryDriver
from taskharbor.errors import StoreUnavailable
from taskharbor.job import Delivery
from taskharbor.report import LINE_LIMIT, LOG_LIMIT, NOTE_LIMIT, LogLine, Progress, Report
from taskharbor.retry import RetryNumbers
from taskharbor.task.told import Told
from taskharbor.worker import reporting
from taskharbor.worker.plan import TaskPlan
from taskharbor.worker.reporting import Reporting
from taskharbor.worker.run import Run
from tests.fixtures.support import untyped
from tests.support.work import ENOUGH, MS, TroubledDriver, aeventually, await_event, eventually, fails

registry = Registry()
ONCE = Retry(max_attempts=1)


@task(registry=registry, run="process")
def far(ctx: Context, steps: int) -> int:
    for step in range(steps):
        ctx.progress(step + 1, steps, "far away")
        ctx.log(f"step {step}")
    return steps


def texts(lines: Sequence[LogLine]) -> list[str]:
    return [line.text for line in lines]


def told_by(progress: Progress | None) -> tuple[float, float | None, str] | None:
    return None if progress is None else (progress.done, progress.total, progress.note)


def test_what_a_running_handler_tells_is_seen_on_its_handle() -> None:
    own, go_on = Registry(), threading.Event()

    @task(registry=own)
    def load(ctx: Context) -> None:
        ctx.log("begun")
        ctx.progress(1, 4, "rows")
        await_event(go_on)
        ctx.progress(4, 4)
        ctx.log("done")

    with Harbor(MemoryDriver(), registry=own) as harbor, harbor.worker_thread():
        job = load.enqueue()
        eventually(lambda: job.progress() is not None)
        seen, lines = job.progress(), job.log()
        go_on.set()
        job.result(ENOUGH)

        assert (1.0, 4.0, "rows") == told_by(seen)
        assert ["begun"] == texts(lines)
        assert (4.0, 4.0, "") == told_by(job.progress())
        assert [(1, 1, "begun"), (2, 1, "done")] == [
            (line.number, line.attempt, line.text) for line in job.log()
        ]


def test_async_handlers_and_their_handles_tell_alike() -> None:
    own = Registry()

    @task(registry=own)
    async def load(ctx: Context) -> None:
        ctx.progress(0.5)
        ctx.log("half")

    async def main() -> tuple[Progress | None, Sequence[LogLine]]:
        async with Harbor(MemoryDriver(), registry=own) as harbor, harbor.worker():
            job = await load.aenqueue()
            await job.aresult(ENOUGH)
            return await job.aprogress(), await job.alog()

    progress, lines = asyncio.run(main())

    assert (0.5, None, "") == told_by(progress)
    assert ["half"] == texts(lines)


@pytest.mark.parametrize(
    ("method", "values"),
    [
        ("progress", (-1,)),
        ("progress", (float("nan"),)),
        ("progress", (float("inf"),)),
        ("progress", (True,)),
        ("progress", ("half",)),
        ("progress", (10**400,)),
        ("progress", (1, "two")),
        ("progress", (1, -2)),
        ("progress", (1, 2, 3)),
        ("log", (b"bytes",)),
        ("log", (None,)),
    ],
)
def test_values_that_cannot_be_are_refused_at_once(method: str, values: tuple[object, ...]) -> None:
    context = Context.detached(None)

    with pytest.raises(OptionError, match=rf"ctx\.{method}"):
        getattr(untyped(context), method)(*values)

    assert [] == context.reports


def test_a_detached_context_collects_what_it_was_told() -> None:
    context = Context.detached(None)

    context.progress(1, 2, "n")
    context.log("one")
    context.log("two")

    progress, *lines = context.reports
    assert isinstance(progress, Progress)
    assert 0.5 == progress.fraction
    assert [(1, "one"), (2, "two")] == [
        (line.number, line.text) for line in lines if isinstance(line, LogLine)
    ]


@pytest.mark.parametrize("text", ["x" * 5000, "é" * 5000, "\x00" * 5000, "\ud800" * 5000])
def test_texts_are_cut_to_what_stores_keep(text: str) -> None:
    context = Context.detached(None)

    context.progress(1, note=text)
    context.log(text)

    progress, line = context.reports
    assert isinstance(progress, Progress)
    assert isinstance(line, LogLine)
    assert len(progress.note) <= NOTE_LIMIT
    assert len(line.text) <= LINE_LIMIT
    assert "left out" in line.text
    assert "\x00" not in (line.text + progress.note).encode().decode()


def test_a_handler_that_tells_nothing_costs_no_report() -> None:
    own, driver = Registry(), TroubledDriver()

    @task(registry=own)
    def quiet(ctx: Context) -> int:
        return ctx.attempt

    with Harbor(driver, registry=own) as harbor:
        quiet.enqueue()
        harbor.run_until_idle()

    assert 0 == driver.count("job_report")


@pytest.mark.parametrize("how", [None, RetryLater(0 * MS), Snooze(ENOUGH), ValueError("no")])
def test_what_was_told_last_is_written_before_the_outcome(how: Exception | None) -> None:
    own, driver = Registry(), TroubledDriver()

    @task(registry=own, retry=Retry(max_attempts=2, base=0 * MS))
    def load(ctx: Context) -> None:
        ctx.progress(ctx.attempt)
        ctx.log(f"attempt {ctx.attempt}")
        if how is not None:
            raise how

    with Harbor(driver, registry=own) as harbor:
        job = load.enqueue()
        harbor.run_until_idle()

        attempts = 1 if how is None or isinstance(how, Snooze) else 2
        verbs = [verb for verb, _ in driver.asked if verb in ("job_report", "job_settle")]
        assert [f"attempt {attempt + 1}" for attempt in range(attempts)] == texts(job.log())
        assert "job_report" == verbs[0]
        assert verbs.count("job_settle") == attempts
        assert (float(attempts), None, "") == told_by(job.progress())


def test_a_flood_of_lines_keeps_the_last_and_says_how_many_were_left_out() -> None:
    own = Registry()

    @task(registry=own)
    async def flood(ctx: Context) -> None:  # on the loop, so that nothing is written meanwhile
        for number in range(10 * LOG_LIMIT):
            ctx.log(f"line {number}")

    with Harbor(MemoryDriver(), registry=own) as harbor:
        job = flood.enqueue()
        harbor.run_until_idle()

        lines = job.log()

    count, kept = 10 * LOG_LIMIT, LOG_LIMIT - 1
    assert [
        f"[{count - kept} lines left out: more than {kept} at a time]",
        *(f"line {number}" for number in range(count - kept, count)),
    ] == texts(lines)


def test_a_job_whose_reports_are_refused_succeeds_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    own, driver = Registry(), TroubledDriver()
    driver.before = fails(1000, "job_report")

    @task(registry=own)
    def load(ctx: Context, number: int) -> int:
        ctx.log("unheard")
        return number

    with Harbor(driver, registry=own) as harbor, caplog.at_level(logging.WARNING):
        jobs = [load.enqueue(number) for number in range(20)]
        harbor.run_until_idle()

        assert {JobState.SUCCEEDED} == {job.status().state for job in jobs}
        assert 1 == sum("tell of themselves" in line for line in caplog.messages)


def test_a_connection_that_was_cut_costs_no_last_words() -> None:
    own, driver = Registry(), TroubledDriver()
    driver.after = fails(1, "job_report")  # the answer alone is lost

    @task(registry=own)
    async def load(ctx: Context) -> None:
        ctx.log("heard once")

    with Harbor(driver, registry=own) as harbor:
        job = load.enqueue()
        harbor.run_until_idle()

        assert ["heard once"] == texts(job.log())


def test_a_store_that_hangs_over_a_report_does_not_hold_up_the_outcome(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reporting, "_PATIENCE_SECONDS", 0.05)
    own, driver = Registry(), TroubledDriver()

    async def for_ever() -> None:
        await asyncio.Event().wait()

    driver.gates["job_report"] = for_ever

    @task(registry=own)
    def load(ctx: Context) -> str:
        ctx.progress(1)
        return "done"

    with Harbor(driver, registry=own) as harbor, harbor.worker_thread():
        assert "done" == load.enqueue().result(ENOUGH)


def test_a_handler_in_a_child_process_tells_over_the_pipe() -> None:
    with Harbor(MemoryDriver(), registry=registry) as harbor:
        job = far.enqueue(3)
        harbor.run_until_idle(handler_processes=1)

        assert 3 == job.result(ENOUGH)
        assert (3.0, 3.0, "far away") == told_by(job.progress())
        assert ["step 0", "step 1", "step 2"] == texts(job.log())


def test_threads_of_one_handler_may_tell_at_once() -> None:
    own = Registry()

    @task(registry=own)
    def load(ctx: Context) -> None:
        def say(name: int) -> None:
            for number in range(20):
                ctx.log(f"{name} {number}")

        threads = [threading.Thread(target=say, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    with Harbor(MemoryDriver(), registry=own) as harbor:
        job = load.enqueue()
        harbor.run_until_idle()
        lines = job.log()

    assert sorted(f"{name} {number}" for name in range(8) for number in range(20)) == sorted(texts(lines))
    assert list(range(1, 161)) == [line.number for line in lines]


# --- how often


class Ledger:
    """A store that notes reports, and takes them if told to."""

    def __init__(self) -> None:
        self.reports = list[list[Report]]()

    async def job_report(self, request: JobReport) -> Sequence[bool]:
        self.reports.append(list(request.reports))
        return [True] * len(request.reports)


def a_run(job_id: str) -> Run:
    now = datetime.now(UTC)
    delivery = Delivery(
        job_id, 7, "work", "default", b"{}", "json", 1, 1, 1, RetryNumbers(), None, 5, now, now, None, {}, True,
        False, False, False,
    )  # fmt: skip
    return Run(delivery, cast("TaskPlan", object()), msgspec.defstruct("Arguments", [])(), None)


def test_all_running_jobs_are_reported_together_once_an_interval() -> None:
    """However often they tell; and nothing is asked while nothing is told."""
    ledger, turns = Ledger(), list[float]()

    async def main() -> None:
        turned = asyncio.Event()

        async def pause(seconds: float) -> None:
            turns.append(seconds)
            await turned.wait()
            turned.clear()

        store = cast("Store", cast("object", ledger))
        told = Reporting(store, lambda _run, _progress: None, worker="me", pause=pause)
        runs = [a_run(f"job-{number}") for number in range(3)]
        for run in runs:
            run.on_news = told.hear
        task = asyncio.ensure_future(told.run())

        runs[0].context.progress(1)
        await aeventually(lambda: len(turns) == 1)
        for number in range(100):
            for run in runs:
                run.context.progress(number, 99)
                run.context.log(f"{number}")
        await asyncio.sleep(0)
        assert 1 == len(ledger.reports)
        turned.set()
        await aeventually(lambda: len(turns) == 2)
        turned.set()
        for _ in range(10):
            await asyncio.sleep(0)
        task.cancel()

    asyncio.run(main())

    assert [["job-0"], ["job-0", "job-1", "job-2"]] == [
        sorted(report.job_id for report in batch) for batch in ledger.reports
    ]
    assert [(99.0, 100)] * 3 == [
        (report.progress.done, len(report.lines)) for report in ledger.reports[1] if report.progress
    ]
    assert [reporting.EVERY_SECONDS] * 2 == turns


def test_what_could_not_be_handed_on_gives_way_to_what_is_newer() -> None:
    heard = list[Told]()
    told = Told(a_run("job").delivery, heard.append)
    told.note(Progress(done=1, at=datetime.now(UTC)))
    first = told.write("one")
    report = told.take()
    assert report is not None

    told.note(Progress(done=2, at=datetime.now(UTC)))
    second = told.write("two")
    told.give_back(report)
    again = told.take()

    assert again is not None
    assert again.progress is not None
    assert 2 == again.progress.done
    assert (first, second) == again.lines
    assert told.take() is None
    assert [told, told] == heard


# --- a store in trouble


class Trouble(Ledger):
    """A store that answers a report when it is let, with an error while it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses = False
        self.now = 1000.0
        self.asked = 0
        self.pauses = 0
        self.answers = asyncio.Event()
        self.answers.set()
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def job_report(self, request: JobReport) -> Sequence[bool]:
        self.asked += 1
        await self.answers.wait()
        if self.refuses:
            raise StoreUnavailable("away")
        return await super().job_report(request)

    def reporting(
        self, on_progress: Callable[[Run, Progress], None] = lambda _run, _progress: None
    ) -> Reporting:
        store = cast("Store", cast("object", self))
        return Reporting(store, on_progress, worker="me", monotonic=lambda: self.now, pause=self._pause)

    async def _pause(self, seconds: float) -> None:
        self.pauses += 1
        await asyncio.sleep(0)
        await self.go_on.wait()


def test_an_earlier_progress_never_takes_the_place_of_the_last() -> None:
    """Though the report of it fails after its job has told more, and ended."""

    async def main() -> list[list[Report]]:
        store = Trouble()
        told, run = store.reporting(), a_run("job")
        run.on_news = told.hear
        writing = asyncio.ensure_future(told.run())
        store.answers.clear()
        store.refuses = True
        run.context.progress(50, 100)
        run.context.log("half")
        await aeventually(lambda: store.asked == 1)

        run.context.progress(100, 100)
        run.context.log("whole")
        run.ended = 1.0
        told.last_words(run)
        store.answers.set()
        await aeventually(lambda: store.pauses > 0)
        store.refuses = False
        store.now += 60
        await told.write_last()
        writing.cancel()
        return store.reports

    (report,) = asyncio.run(main())[-1]

    assert (100.0, 100, "") == told_by(report.progress)
    assert ["half", "whole"] == texts(report.lines)


def test_outcomes_do_not_wait_while_it_is_tried_whether_reports_are_taken_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> tuple[int, int]:
        store = Trouble()
        told, chatty = store.reporting(), a_run("chatty")
        chatty.on_news = told.hear
        store.refuses = True
        store.go_on.clear()
        chatty.context.progress(1)
        writing = asyncio.ensure_future(told.run())
        await aeventually(lambda: store.pauses == 1)
        store.answers.clear()
        store.go_on.set()
        await aeventually(lambda: store.asked == 2)  # and it hangs there

        store.now += 60
        for number in range(3):
            run = a_run(f"job-{number}")
            run.on_news = told.hear
            run.context.log("last words")
            told.last_words(run)
            await told.write_last()
        hanging = store.asked
        store.refuses = False
        store.answers.set()
        await aeventually(lambda: bool(store.reports))
        last = a_run("last")
        last.on_news = told.hear
        last.context.log("heard again")
        told.last_words(last)
        await told.write_last()
        writing.cancel()
        return hanging, len(store.reports)

    with caplog.at_level(logging.WARNING):
        asked = asyncio.run(main())

    assert (2, 2) == asked
    assert 1 == sum("told last is lost" in line for line in caplog.messages)


def test_a_progress_is_told_to_listeners_once_however_often_its_report_fails() -> None:
    announced = list[float]()

    async def main() -> int:
        store = Trouble()
        told = store.reporting(lambda _run, progress: announced.append(progress.done))
        run = a_run("job")
        run.on_news = told.hear
        store.refuses = True
        writing = asyncio.ensure_future(told.run())
        run.context.progress(1)
        await aeventually(lambda: store.asked >= 3)
        run.context.progress(2)
        store.refuses = False
        await aeventually(lambda: len(announced) == 2 and bool(store.reports))
        writing.cancel()
        return store.asked

    assert asyncio.run(main()) > 3
    assert [1.0, 2.0] == announced
