"""`taskharbor jobs watch`: named jobs until they end, and what runs now until Ctrl-C; and what is new of a job."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from rich.console import Console, RenderableType

from taskharbor import Context, Harbor, JobRecord, JobState, Retry, task
from taskharbor.cli.exits import Exit
from taskharbor.cli.news import news_of, told_news
from taskharbor.cli.overview import Overview, Running, picture
from taskharbor.cli.watch_view import bars_on
from taskharbor.drivers.registry import open_driver
from taskharbor.report import LogLine, Progress
from tests.fixtures.cli import Shop, shops
from tests.fixtures.support import SOURCES
from tests.support.work import ENOUGH, await_event, eventually

NOW = datetime(2030, 1, 31, 8, 0, tzinfo=UTC)


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shop]:
    yield from shops(monkeypatch, capsys)


# --- what is new


def looked(
    state: JobState = JobState.RUNNING, lines: int = 0, done: float | None = None, attempt: int = 0
) -> JobRecord:
    return JobRecord(
        id="a",
        task="row.load",
        queue="default",
        state=state,
        priority=0,
        run_at=NOW,
        enqueued_at=NOW,
        attempt=attempt,
        max_attempts=5,
        payload=b"{}",
        codec="json",
        fingerprint=0,
        progress=None if done is None else Progress(done=done, total=4, at=NOW),
        log=tuple(
            LogLine(fence=1, number=number, attempt=1, at=NOW, text=f"line {number}")
            for number in range(1, lines + 1)
        ),
    )


def test_the_first_look_tells_all_and_later_ones_what_has_changed() -> None:
    first = looked(lines=1, done=1)

    assert [
        "a  row.load  2030-01-31 08:00:00Z  line 1",
        "a  row.load  1 of 4 (25%)",
        "a  row.load  running",
    ] == [told_news(news) for news in news_of(None, first)]
    assert [] == list(news_of(first, first))
    assert ["line 2", "line 3"] == [
        news.log.text for news in news_of(first, looked(lines=3, done=1)) if news.log
    ]
    assert [2] == [news.progress.done for news in news_of(first, looked(lines=1, done=2)) if news.progress]
    assert [(JobState.RETRYING, 1)] == [
        (news.state, news.attempt) for news in news_of(first, looked(JobState.RETRYING, 1, 1, attempt=1))
    ]


def test_lines_that_were_dropped_meanwhile_are_not_told_twice() -> None:
    before = looked(lines=3)
    after = msgspec.structs.replace(looked(lines=5), log=looked(lines=5).log[3:])

    assert ["line 4", "line 5"] == [news.log.text for news in news_of(before, after) if news.log]


# --- named jobs


def test_a_job_is_watched_while_it_runs_and_the_end_decides(tmp_path: Path, shop: Shop) -> None:
    harbor = Harbor(f"sqlite:///{tmp_path / 'jobs.db'}", registry=shop.registry)
    go = threading.Event()

    @task(name="row.report", registry=shop.registry, retry=Retry(max_attempts=1))
    def report(ctx: Context, rows: int) -> None:
        ctx.log("begun")
        ctx.progress(1, rows)
        await_event(go)
        ctx.log("all read")

    with harbor:
        job = report.enqueue(rows=4).id
        with (
            harbor.worker_thread(),
            watching(tmp_path, "jobs", "watch", job, "--json", "--every", "20ms") as process,
        ):
            lines = [json.loads(line) for line in read_until(process, '"done":1')]
            go.set()
            rest, _ = process.communicate(timeout=ENOUGH.total_seconds())
    lines += [json.loads(line) for line in rest.splitlines()]

    assert ["begun", "all read"] == [line["log"]["text"] for line in lines if "log" in line]
    assert "succeeded" == lines[-1]["state"]
    assert {job} == {line["id"] for line in lines}
    assert Exit.OK == process.returncode


def test_the_worst_end_decides_and_a_job_that_is_not_there_is_told(shop: Shop) -> None:
    (dead,) = shop.bury(1)
    with shop.harbor:
        well = shop.send.enqueue("a").id
        shop.harbor.run_until_idle()

    ended = shop.run("jobs", "watch", well, dead, well, "nowhere")

    assert Exit.FAILED == ended.code
    assert [
        f"{well}  mail.send  succeeded after 1 attempt",
        f"{dead}  row.load  dead after 1 attempt: not to be retried",
    ] == [line.rstrip() for line in ended.out.splitlines()]
    assert "no job has the id 'nowhere'" in ended.err
    assert Exit.OK == shop.run("jobs", "watch", well).code


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["x", "--queue", "mail"], "--queue goes without ids"),
        (["x", "--every", "1ms"], "expected at least 10ms"),
    ],
)
def test_what_cannot_be_meant_is_refused(shop: Shop, arguments: list[str], why: str) -> None:
    ended = shop.run("jobs", "watch", *arguments)

    assert Exit.USAGE == ended.code
    assert why in ended.err


# --- Ctrl-C, and terminals


ID = "01234567-89ab-7def-8123-456789abcdef"


def shown_at_80(part: RenderableType, console: Console) -> list[str]:
    with console.capture() as capture:
        console.print(part)
    return [line.rstrip() for line in capture.get().splitlines()]


def test_at_80_columns_the_overview_has_an_id_on_one_line() -> None:
    running = Running(
        id=ID,
        task="reports.build_the_monthly_one",
        queue="default",
        attempt=1,
        worker="web-7f9c-worker-2:4711",
        enqueued_at=NOW,
        progress=Progress(done=30, total=120, note="rows of the ledger", at=NOW),
    )
    console = Console(width=80, file=io.StringIO())

    lines = shown_at_80(picture(Overview(at=NOW, queues=[], running=[running]), 80), console)

    assert ID in lines
    assert "30 of 120" in " ".join(lines)


def test_at_80_columns_a_bar_stands_beneath_the_id_of_its_job() -> None:
    console = Console(width=80, file=io.StringIO())
    bars = bars_on(console)
    bars.add_task(
        f"{ID}  reports.build", total=1.0, completed=0, told="running  30 of 120 (25%): the very last"
    )

    lines = shown_at_80(bars.get_renderable(), console)

    assert f"{ID}  reports.build" == lines[0]
    assert "30 of 120 (25%)" in lines[1]
    assert "last" in " ".join(lines[1:])


@contextmanager
def watching(folder: Path, *arguments: str) -> Generator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "taskharbor.cli", "--url", f"sqlite:///{folder / 'jobs.db'}", *arguments],
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_until(process: subprocess.Popen[str], text: str) -> list[str]:
    assert process.stdout is not None
    lines: list[str] = []
    while not lines or text not in lines[-1]:
        line = process.stdout.readline()
        assert line, f"{text!r} never came: {lines} {process.communicate()}"
        lines.append(line)
    return lines


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Harbor]:
    """A file with one job that waits."""
    with Harbor(open_driver(f"sqlite:///{tmp_path / 'jobs.db'}")) as harbor:

        @task(name="mail.wait", queue="mail")
        def wait() -> None: ...

        wait.enqueue()
        yield harbor


def test_ctrl_c_ends_the_overview_well_and_a_watch_of_jobs_with_130(store: Harbor, tmp_path: Path) -> None:
    (job,) = store.jobs.find()

    with watching(tmp_path, "jobs", "watch", "--json", "--every", "20ms") as overview:
        (first, *_) = [json.loads(line) for line in read_until(overview, '"queues"')]
        overview.send_signal(signal.SIGINT)
        _, overview_err = overview.communicate(timeout=ENOUGH.total_seconds())
    with watching(tmp_path, "jobs", "watch", job.id) as named:
        read_until(named, "ready")
        named.send_signal(signal.SIGINT)
        _, named_err = named.communicate(timeout=ENOUGH.total_seconds())

    assert [("mail", 1)] == [(queue["name"], queue["ready"]) for queue in first["queues"]]
    assert [] == first["running"]
    assert (Exit.OK, "") == (overview.returncode, overview_err)
    assert (Exit.INTERRUPTED, "No longer watched: 1 job had not ended.\n") == (named.returncode, named_err)


def test_on_a_terminal_the_overview_changes_in_its_place(store: Harbor, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "taskharbor.cli",
            "--url",
            f"sqlite:///{tmp_path / 'jobs.db'}",
            "jobs",
            "watch",
            "--every",
            "20ms",
        ],
        env={**os.environ, "PYTHONPATH": str(SOURCES), "TERM": "xterm", "COLUMNS": "100", "NO_COLOR": "1"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    seen = ""

    def see(text: str) -> bool:
        nonlocal seen
        if select.select([ours], [], [], 0)[0]:
            seen += os.read(ours, 65_536).decode()
        return text in seen

    try:
        eventually(lambda: see("mail "), "the queue was shown")
        store.queues.pause("mail", reason="stamps are out")
        eventually(lambda: see("stamps are out"), "the change was shown")
        process.send_signal(signal.SIGINT)
        end = time.monotonic() + ENOUGH.total_seconds()
        while process.poll() is None and time.monotonic() < end:
            with suppress(OSError):  # as a terminal tells that nobody holds its other end any more
                see("-")
        assert Exit.OK == process.poll()
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert "Ctrl-C ends this" in seen
    assert "\x1b[1A" in seen  # back to where it began
    assert "\x1b[3" not in seen  # no colours
