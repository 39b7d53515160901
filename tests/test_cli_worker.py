"""`taskharbor worker`: its options, how it is started again by a supervisor, and what it logs."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from unittest.mock import Mock

import msgspec
import pytest
from typer.core import TyperGroup, TyperOption
from typer.main import get_command

from taskharbor.cli import launching
from taskharbor.cli import worker as room
from taskharbor.cli.closing import told_done, told_left
from taskharbor.cli.entry import app, run
from taskharbor.cli.launching import Orders, launch
from taskharbor.cli.logs import JsonLines, LogFormat, LogLevel, TextLines
from taskharbor.cli.target import Target
from taskharbor.cli.values import told_duration
from taskharbor.driver import QueueInfo
from taskharbor.supervisor import Exit
from taskharbor.worker import WorkerCounts, WorkerSettings
from tests.fixtures.support import SOURCES

EVERYTHING = [
    "--app=shop:harbor", "--url=memory://", "--queues=mail,rows", "--queue", "slow", "--concurrency=7",
    "--handler-processes=3", "--lease=1h30m", "--grace=1.5s", "--halt=500ms", "--prefetch=0", "--stall=2m",
    "--weights=mail=3,rows=1", "--reserve=mail=2", "--aging=5m", "--aging-share=0.2",
    "--max-jobs=1000", "--max-memory=1.1G", "--until-idle", "--within=5m", "--log-level=debug", "--log-format=json",
]  # fmt: skip


@pytest.fixture(autouse=True)
def no_settings_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("APP", "URL", "PROCESS", "PROCESSES", "LEASE", "QUEUES", "CONFIG"):
        monkeypatch.delenv(f"TASKHARBOR_{name}", raising=False)


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Orders, int]]:
    """What the command has asked for."""
    asked: list[tuple[Orders, int]] = []

    def note(orders: Orders, processes: int) -> int:
        asked.append((orders, processes))
        return 0

    monkeypatch.setattr(room, "launch", note)
    return asked


def worker(*arguments: str) -> int:
    return run(["worker", *arguments])


def test_every_option_arrives(launched: list[tuple[Orders, int]]) -> None:
    assert 0 == worker(*EVERYTHING, "--processes=4")

    assert [
        (
            Orders(
                target=Target("shop:harbor", "memory://"),
                queues=["mail", "rows", "slow"],
                concurrency=7,
                handler_processes=3,
                lease=timedelta(minutes=90),
                grace=timedelta(seconds=1.5),
                halt=timedelta(milliseconds=500),
                prefetch=0,
                weights={"mail": 3, "rows": 1},
                reserved={"mail": 2},
                aging=timedelta(minutes=5),
                aging_share=0.2,
                stall=timedelta(minutes=2),
                max_jobs=1000,
                max_memory=int(1.1 * 2**30),
                until_idle=True,
                within=timedelta(minutes=5),
                log_level=LogLevel.DEBUG,
                log_format=LogFormat.JSON,
            ),
            4,
        )
    ] == launched


@pytest.mark.parametrize("arguments", [[], EVERYTHING], ids=["nothing", "everything"])
def test_a_supervised_process_is_told_the_same(
    launched: list[tuple[Orders, int]], arguments: list[str]
) -> None:
    worker(*arguments, "--processes=2")
    (mine, _) = launched[0]

    assert [sys.executable, "-m", "taskharbor.cli"] == mine.command()[:3]
    run(mine.command()[3:])

    assert (mine, 1) == launched[1]


def test_the_environment_sets_what_the_command_line_does_not(
    launched: list[tuple[Orders, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKHARBOR_APP", "shop")
    monkeypatch.setenv("TASKHARBOR_QUEUES", "a,b")
    monkeypatch.setenv("TASKHARBOR_LEASE", "10s")
    monkeypatch.setenv("TASKHARBOR_PROCESSES", "3")

    worker("--lease", "20s")

    assert [(Orders(target=Target("shop"), queues=["a", "b"], lease=timedelta(seconds=20)), 3)] == launched


@pytest.mark.parametrize(
    ("before", "after"),
    [([], ["--app=a", "--url=u"]), (["--app=a", "--url=u"], []), (["--app=x", "--url=u"], ["--app=a"])],
)
def test_application_and_store_stand_before_the_command_or_after_it(
    launched: list[tuple[Orders, int]], monkeypatch: pytest.MonkeyPatch, before: list[str], after: list[str]
) -> None:
    monkeypatch.setenv("TASKHARBOR_APP", "elsewhere")

    assert 0 == run([*before, "worker", *after])

    assert Target("a", "u") == launched[0][0].target


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--lease", "30"], "'30' has no unit"),
        (["--max-memory", "512"], "'512' is no size"),
        (["--processes", "0"], "--processes"),
        (["--within", "5m"], "--within goes with --until-idle"),
        (["--log-level", "loud"], "loud"),
        (["--lease", "10ms"], "--lease 10ms: expected at least 100ms"),
        (["--stall", "0s", "--processes", "2"], "--stall 0s: expected at least 100ms"),
        (["--weights", "mail"], "'mail' is no name with a whole number; write mail=3,default=1"),
        (["--weights", "a=1,a=2"], "'a' is named twice"),
        (["--reserve", "mail=0"], "reserved = 'mail=0'"),
        (["--aging", "5"], "'5' has no unit"),
        (["--aging-share", "0"], "expected a number above 0 and at most 1"),
        (["--aging-share", "0.5"], "goes with --aging"),
        (["--queues", ","], "--queues ',': expected one or more names, such as mail,default"),
        (["--queues", "a,b,a"], "--queues: 'a' is named twice"),
    ],
)
def test_what_cannot_be_is_refused(
    launched: list[tuple[Orders, int]], capsys: pytest.CaptureFixture[str], arguments: list[str], why: str
) -> None:
    assert 2 == worker(*arguments)

    assert why in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert [] == launched


def test_the_help_tells_the_defaults_that_a_worker_has() -> None:
    root = get_command(app)
    assert isinstance(root, TyperGroup)
    options = {
        option.name: option for option in root.commands["worker"].params if isinstance(option, TyperOption)
    }
    defaults = WorkerSettings()

    for name in ("concurrency", "handler_processes", "lease", "grace", "halt", "stall"):
        value = getattr(defaults, name)
        assert (told_duration(value) if isinstance(value, timedelta) else str(value)) == options[
            name
        ].show_default
    assert set(WorkerSettings.__struct_fields__) - {"owns_process"} <= set(options)


# --- who runs


@pytest.fixture
def supervised(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """How the supervisor was called."""
    calls: list[dict[str, object]] = []

    def supervise(command: Sequence[str], **options: object) -> int:
        calls.append({"command": list(command), **options})
        return 5

    monkeypatch.setattr(launching, "supervise", supervise)
    monkeypatch.setattr(launching, "configure_logging", Mock())
    return calls


def test_several_processes_are_led_by_a_supervisor(supervised: list[dict[str, object]]) -> None:
    orders = Orders(target=Target("shop"), grace=timedelta(seconds=1), until_idle=True)

    assert 5 == launch(orders, 3)

    assert [
        {
            "command": orders.command(),
            "processes": 3,
            "grace": timedelta(seconds=1),
            "halt": timedelta(seconds=5),
            "until_idle": True,
        }
    ] == supervised


def test_a_supervised_process_runs_one_worker_whatever_is_said(
    supervised: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKHARBOR_PROCESS", "2")
    served: list[str] = []

    def serve(_orders: Orders, number: str) -> int:
        served.append(number)
        return 0

    monkeypatch.setattr(launching, "_serve", serve)

    assert 0 == launch(Orders(target=Target("shop")), 3)

    assert (["2"], []) == (served, supervised)


# --- what it logs


def record(message: str, *, error: BaseException | None = None) -> logging.LogRecord:
    info = None if error is None else (type(error), error, error.__traceback__)
    made = logging.LogRecord("shop", logging.WARNING, "shop.py", 1, message, (), info)
    made.created = 1_900_000_000.25
    return made


def test_text_is_one_line_a_record_whatever_the_message() -> None:
    told = TextLines("2").format(record("one\ntwo\x1b[31m"))

    assert "2030-03-17T17:46:40.250Z WARNING [2] shop: one\\ntwo\\x1b[31m" == told
    assert " WARNING shop: " in TextLines("").format(record("x"))


def test_text_tells_a_traceback_below_the_line_indented() -> None:
    told = TextLines("").format(record("x", error=ValueError("bad\x07")))

    assert [False, True] == [line.startswith("    ") for line in told.splitlines()]
    assert told.endswith("ValueError: bad\\x07")


def test_json_is_one_object_a_record() -> None:
    told = JsonLines("2").format(record("one\ntwo", error=ValueError("bad")))

    assert "\n" not in told
    assert {
        "time": "2030-03-17T17:46:40.250Z",
        "level": "warning",
        "logger": "shop",
        "message": "one\ntwo",
        "process": "2",
        "exception": "ValueError: bad",
    } == json.loads(told)
    assert {"time", "level", "logger", "message"} == set(json.loads(JsonLines("").format(record("x"))))


class Done(msgspec.Struct):
    code: int
    out: str
    err: str


def in_a_process(*arguments: str, cwd: Path) -> Done:
    ended = subprocess.run(
        [sys.executable, "-m", "taskharbor.cli", *arguments],
        cwd=cwd,
        env={"PYTHONPATH": str(SOURCES), "PATH": "", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Done(ended.returncode, ended.stdout, ended.stderr)


def test_what_keeps_a_worker_from_starting_is_in_its_log(tmp_path: Path) -> None:
    ended = in_a_process("worker", "--app", "nowhere", "--log-format", "json", cwd=tmp_path)

    (line,) = ended.err.splitlines()
    told = json.loads(line)
    assert (Exit.DEPLOYMENT, "critical") == (ended.code, told["level"])
    assert "there is no module 'nowhere'" in told["message"]


def test_a_setting_that_cannot_be_ends_it_as_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "from taskharbor import Harbor\nharbor = Harbor('memory://')\n", encoding="utf-8"
    )

    ended = in_a_process("worker", "--app", "shop", "--lease", "1ms", cwd=tmp_path)

    assert (Exit.USAGE, 1) == (ended.code, len(ended.err.splitlines()))
    assert "Error: --lease 1ms: expected at least 100ms\n" == ended.err


def test_what_was_done_and_what_is_left_are_counted_by_what_keeps_it() -> None:
    queues = [
        QueueInfo(name="a", ready=1, scheduled=2, parked=3, running=1000),
        QueueInfo(name="b", paused=True, ready=4, waiting=5, running=1),
    ]
    counts = WorkerCounts(settled={"succeeded": 1000, "dead": 2, "parked": 0}, stale=1)

    assert "2 dead, 1,000 succeeded, 1 whose lease was lost" == told_done(counts)
    assert (
        "1 ready, 4 ready in paused queues, 2 due later, 3 parked, 5 waiting for earlier steps, "
        "1,001 leased by other workers" == told_left(queues)
    )
    assert ("nothing", "nothing") == (told_done(WorkerCounts()), told_left([]))
