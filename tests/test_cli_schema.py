"""`taskharbor schema dump` and `schema check`."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from taskharbor.cli.entry import run

APPLICATION = """
from taskharbor import Harbor, Registry, task

registry = Registry()

{tasks}

# Nothing answers there, and nothing has to.
harbor = Harbor("sqlite:////nowhere/at/all/jobs.db", registry=registry)
"""
MAIL = """
@task(name="mail", queue="post", registry=registry)
def mail(to: str, copies: int = 1) -> int: ...
"""
LOUDER = """
@task(name="mail", queue="post", registry=registry)
def mail(to: str, subject: str, copies: int = 1) -> int: ...
"""
UPGRADED = """
@task(name="mail", registry=registry, upgrade=lambda old: {"subject": "", **old})
def mail(to: str, subject: str, copies: int = 1) -> int: ...
"""
WIDER = """
@task(name="mail", registry=registry)
def mail(to: str | None, copies: int = 1, bcc: str = "") -> int: ...
"""
OTHER_RESULT = """
@task(name="mail", registry=registry)
def mail(to: str, copies: int = 1) -> str: ...
"""

Schema = Callable[..., int]

_numbers = itertools.count()


@pytest.fixture
def schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Schema:
    """Return a function that runs `schema` on an application of these tasks."""
    monkeypatch.chdir(tmp_path)
    for name in ("APP", "URL"):
        monkeypatch.delenv(f"TASKHARBOR_{name}", raising=False)

    def ask(tasks: str, *arguments: str) -> int:
        made = next(_numbers)
        Path(f"schema_application_{made}.py").write_text(APPLICATION.replace("{tasks}", tasks))
        return run(["--app", f"schema_application_{made}.py:harbor", "schema", *arguments])

    return ask


def test_a_dump_tells_each_task(schema: Schema, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == schema(MAIL, "dump")

    (task,) = json.loads(capsys.readouterr().out)["tasks"]
    assert ("mail", [], "post", "json", False) == tuple(
        task[name] for name in ("name", "aliases", "queue", "codec", "upgrade")
    )
    assert ["to"] == task["arguments"]["required"]
    assert {"type": "integer"} == task["result"]
    assert 16 == len(task["fingerprint"])


def test_a_dump_is_the_same_on_every_run_and_compares_as_equal(
    schema: Schema, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 0 == schema(MAIL, "dump")
    printed = capsys.readouterr().out
    assert 0 == schema(MAIL, "dump", "--output", "old.json")

    assert printed == Path("old.json").read_text()
    assert 0 == schema(MAIL, "check", "old.json", "--strict")
    assert "" == capsys.readouterr().out


def test_a_change_that_stored_jobs_would_not_survive_fails_and_says_why(
    schema: Schema, capsys: pytest.CaptureFixture[str]
) -> None:
    schema(MAIL, "dump", "-o", "old.json")

    assert 1 == schema(LOUDER, "check", "old.json")

    told = capsys.readouterr()
    assert "breaks: task 'mail' at $.subject: it is new, and is required now; give the parameter" in told.out
    assert "1 finding that stored jobs may not survive" in told.err


def test_a_check_for_programs_has_a_line_for_each_finding(
    schema: Schema, capsys: pytest.CaptureFixture[str]
) -> None:
    schema(MAIL, "dump", "-o", "old.json")
    capsys.readouterr()

    assert 1 == schema("", "check", "old.json", "--json")

    (line,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert ("breaks", "mail", "") == (line["level"], line["task"], line["path"])


@pytest.mark.parametrize("tasks", [UPGRADED, WIDER], ids=["upgraded", "wider"])
def test_a_change_that_old_jobs_survive_passes_with_notes(
    tasks: str, schema: Schema, capsys: pytest.CaptureFixture[str]
) -> None:
    schema(MAIL, "dump", "-o", "old.json")

    assert 0 == schema(tasks, "check", "old.json")
    quiet = capsys.readouterr()
    assert 0 == schema(tasks, "check", "old.json", "--verbose", "--strict")
    told = capsys.readouterr()

    assert "" == quiet.out
    assert "Stored jobs survive" in quiet.err
    assert told.out.startswith("note: task 'mail'")


def test_a_narrowed_result_fails_a_strict_check_only(
    schema: Schema, capsys: pytest.CaptureFixture[str]
) -> None:
    schema(MAIL, "dump", "-o", "old.json")

    assert 0 == schema(OTHER_RESULT, "check", "old.json")
    assert 1 == schema(OTHER_RESULT, "check", "old.json", "--strict")
    assert "warning: task 'mail' at result" in capsys.readouterr().out


@pytest.mark.parametrize(("content", "told"), [(None, "cannot be read"), ("{}", "is no dump of tasks")])
def test_what_is_no_dump_is_a_wrong_command_line(
    content: str | None, told: str, schema: Schema, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        Path("old.json").write_text(content)

    assert 2 == schema(MAIL, "check", "old.json")
    assert told in capsys.readouterr().err


def test_a_dump_that_cannot_be_written_says_so(schema: Schema, capsys: pytest.CaptureFixture[str]) -> None:
    assert 2 == schema(MAIL, "dump", "-o", "no/such/folder.json")
    assert "cannot be written to no/such/folder.json" in capsys.readouterr().err
