"""What is printed, and to whom."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from collections.abc import Sequence

import pytest
import typer

from taskharbor import (
    DeploymentError,
    JobNotFound,
    KeyConflict,
    OptionError,
    StoreUnavailable,
    TaskHarborError,
    UnknownTaskError,
)
from taskharbor.cli.exits import Exit, code_of
from taskharbor.cli.listing import JOB_COLUMNS
from taskharbor.cli.output import confirm, plain, progress
from taskharbor.cli.tables import table
from tests.fixtures.support import SOURCES


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OptionError("x"), Exit.USAGE),
        (DeploymentError("x"), Exit.DEPLOYMENT),
        (UnknownTaskError("x"), Exit.DEPLOYMENT),
        (StoreUnavailable("x"), Exit.UNAVAILABLE),
        (JobNotFound("x", job_id="1"), Exit.FAILED),
        (KeyConflict("x", job_id="1", task="t", key="k"), Exit.FAILED),
        (TaskHarborError("x"), Exit.FAILED),
    ],
)
def test_an_errors_branch_decides_the_code(error: TaskHarborError, code: Exit) -> None:
    assert code is code_of(error)


def test_control_characters_are_shown_not_obeyed() -> None:
    assert "a\\x1b[31mb\\x07\\nc\\u202eé漢" == plain("a\x1b[31mb\x07\nc\u202eé漢")
    assert "a\n\tb\\r" == plain("a\n\tb\r", lines=True)
    assert "\\udc80" == plain("\udc80")


def test_a_table_for_a_program_is_not_folded(capsys: pytest.CaptureFixture[str]) -> None:
    table(("id", "why"), [("1", "x" * 500), ("[bold]2", "\x1b")])

    header, first, second = capsys.readouterr().out.splitlines()
    assert ["id", "why"] == header.split()
    assert ["1", "x" * 500] == first.split()
    assert ["[bold]2", "\\x1b"] == second.split()


def on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, width: int, headers: Sequence[str], rows: Sequence[Sequence[str]]
) -> list[str]:
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    table(headers, rows)
    return re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue()).splitlines()


ROWS = [("0123456789-0123456789-01", "x" * 80), ("[bold]2", "dead")]


def test_long_texts_are_folded_to_a_terminals_width_and_ids_never(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = on_a_terminal(monkeypatch, 60, ("id", "why"), ROWS)

    assert ["id", "why"] == lines[0].split()
    assert 60 >= max(len(line.rstrip()) for line in lines)
    assert 80 == sum(line.count("x") for line in lines)
    assert [True, True] == [any(line.startswith(row[0]) for line in lines) for row in ROWS]


def test_on_a_narrow_terminal_the_id_has_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line.rstrip() for line in on_a_terminal(monkeypatch, 40, ("id", "why", "state"), NARROW)]

    assert ["id", "  why                          state"] == lines[:2]
    assert "0123456789-0123456789-01" == lines[2]
    assert ["x" * 27 + "  running", "x" * 27, "x" * 26] == [line.strip() for line in lines[3:6]]
    assert ["[bold]2", "  y                            dead"] == lines[6:]
    assert 40 >= max(len(line) for line in lines)


NARROW = [("0123456789-0123456789-01", "x" * 80, "running"), ("[bold]2", "y", "dead")]


def test_a_list_of_jobs_folds_at_eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    job = "01a20144-7778-74dd-b047-87f58dcd81f0"
    row = (job, "succeeded", "shop.letters.send_one", "default", "1/5", "2030-01-01 10:00:00Z", "why " * 30)

    lines = on_a_terminal(monkeypatch, 80, [name for name, _ in JOB_COLUMNS], [row, row])

    assert 80 >= max(len(line.rstrip()) for line in lines)
    assert 2 == [line.rstrip() for line in lines].count(job)
    assert 61 == " ".join(lines).split().count("why")


def test_a_terminal_too_narrow_for_an_id_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = on_a_terminal(monkeypatch, 20, ("id", "why"), ROWS)

    assert [["id", "why"], list(ROWS[0]), list(ROWS[1])] == [line.split() for line in lines]


def test_an_empty_table_is_its_headers(capsys: pytest.CaptureFixture[str]) -> None:
    table(("id", "why"), [])

    assert "id  why\n" == capsys.readouterr().out


def test_no_bar_is_drawn_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("x", 3) as advance:
        advance(2)

    assert ("", "") == tuple(capsys.readouterr())


@pytest.mark.parametrize(
    ("answer", "goes_on"), [("y\n", True), ("Yes\n", True), ("n\n", False), ("\n", False), ("", False)]
)
def test_a_question_on_a_terminal_is_answered_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: str, goes_on: bool
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))

    if goes_on:
        confirm("All?", yes=False)
    else:
        with pytest.raises(typer.Exit) as ended:
            confirm("All?", yes=False)
        assert 1 == ended.value.exit_code
    assert ("", "All? [y/N] ") == tuple(capsys.readouterr())


def test_yes_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)

    confirm("All?", yes=True)


@pytest.fixture
def long_table() -> str:
    return (
        "import sys\n"
        "from taskharbor.cli import entry, output\n"
        "from taskharbor.cli.entry import app, main\n"
        "@app.command()\n"
        "def much() -> None:\n"
        "    for number in range(200_000): output.line(str(number))\n"
        "sys.argv = ['taskharbor', 'much']\n"
        "main()\n"
    )


def test_a_reader_that_goes_away_is_no_error_to_talk_about(long_table: str) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", long_table],
        env={"PYTHONPATH": str(SOURCES), "PATH": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert writer.stdout is not None
    assert writer.stderr is not None
    with writer:
        assert b"0\n" == writer.stdout.readline()
        writer.stdout.close()
        told = writer.stderr.read()
        writer.wait(60)

    assert (0, b"") == (writer.returncode, told)


def test_acting_on_jobs_goes_on_when_nobody_reads_what_became_of_them() -> None:
    program = (
        "import sys\n"
        "from taskharbor.cli.acting import act\n"
        "from taskharbor.cli.entry import app, main\n"
        "from taskharbor.driver import CancelStatus\n"
        "done = 0\n"
        "def do(ids):\n"
        "    global done\n"
        "    done += len(ids)\n"
        "    return [CancelStatus.CANCELLED] * len(ids)\n"
        "@app.command()\n"
        "def much() -> None:\n"
        "    try: act(map(str, range(20_000)), do, as_json=False)\n"
        "    finally: print('done', done, file=sys.stderr)\n"
        "sys.argv = ['taskharbor', 'much']\n"
        "main()\n"
    )
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as nobody:
        ended = subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONPATH": str(SOURCES), "PATH": ""},
            stdout=nobody,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )

    assert Exit.FAILED == ended.returncode
    assert [
        "Not all of it could be printed (Broken pipe); the work went on without.",
        "done 20000",
    ] == ended.stderr.splitlines()


def test_a_bug_keeps_its_traceback_without_the_values() -> None:
    program = (
        "import sys\n"
        "from taskharbor.cli.entry import app, main\n"
        "@app.command()\n"
        "def bug() -> None:\n"
        "    payload = 'secret' * 2\n"
        "    raise ValueError('here')\n"
        "sys.argv = ['taskharbor', 'bug']\n"
        "main()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(SOURCES), "PATH": "", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (1, "") == (ended.returncode, ended.stdout)
    assert "ValueError" in ended.stderr
    assert "secretsecret" not in ended.stderr


def test_ctrl_c_ends_a_command_as_shells_count_it() -> None:
    program = (
        "import sys\n"
        "from taskharbor.cli.entry import app, main\n"
        "@app.command()\n"
        "def slow() -> None:\n"
        "    raise KeyboardInterrupt\n"
        "sys.argv = ['taskharbor', 'slow']\n"
        "main()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(SOURCES), "PATH": ""},
        capture_output=True,
        timeout=60,
        check=False,
    )

    assert (Exit.INTERRUPTED, b"", b"") == (ended.returncode, ended.stdout, ended.stderr)


def test_a_bar_is_drawn_on_a_terminal() -> None:
    program = (
        "from taskharbor.cli.output import progress\n"
        "with progress('moving', 2) as advance:\n"
        "    print('between', flush=True)\n"
        "    advance(2)\n"
    )
    ours, theirs = pty.openpty()
    try:
        ended = subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONPATH": str(SOURCES), "PATH": "", "TERM": "xterm"},
            stdout=subprocess.PIPE,
            stderr=theirs,
            timeout=60,
            check=True,
        )
        shown = os.read(ours, 65536).decode()
    finally:
        os.close(theirs)
        os.close(ours)

    assert b"between\n" == ended.stdout
    assert "moving" in shown
    assert "2/2" in shown
