"""`taskharbor enqueue` and `taskharbor tasks`."""

from __future__ import annotations

import errno
import io
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from taskharbor import JobState
from taskharbor.cli import enqueue as room
from taskharbor.cli.exits import Exit
from tests.fixtures.cli import Shop, shops


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shop]:
    yield from shops(monkeypatch, capsys)


def test_it_prints_the_id_alone(shop: Shop) -> None:
    ended = shop.run("enqueue", "mail.send", "to=a@b.c", "count=3")

    assert (0, "") == (ended.code, ended.err)
    record = shop.harbor.jobs.get(ended.out.strip())
    assert {"to": "a@b.c", "count": 3} == shop.harbor.arguments_of(record)
    assert ("mail", JobState.READY) == (record.queue, record.state)


@pytest.mark.parametrize("arguments", [['{"to": "3"}'], ["--json", '{"to": "3"}'], ["to=3", "--json"]])
def test_arguments_are_pairs_or_an_object_and_json_says_how_it_prints(
    shop: Shop, arguments: list[str]
) -> None:
    ended = shop.run("enqueue", "mail.post", *arguments)

    printed = ended.lines()[0] if "--json" in arguments else {"id": ended.out.strip()}
    assert {"to": "3", "count": 1} == shop.harbor.arguments_of(shop.harbor.jobs.get(printed["id"]))
    if "--json" in arguments:
        assert {"id": printed["id"], "task": "mail.send", "created": True} == printed


def test_every_option_arrives(shop: Shop) -> None:
    ended = shop.run(
        "enqueue", "mail.send", "to=a", "--queue", "slow", "--priority", "0", "--run-at", "2090-01-31T08:00+02:00",
        "--key", "k1", "--meta", "who=me", "--meta", "why=a=b",
    )  # fmt: skip

    record = shop.harbor.jobs.get(ended.out.strip())
    assert ("slow", 0, "k1", {"who": "me", "why": "a=b"}) == (
        record.queue,
        record.priority,
        record.key,
        record.meta,
    )
    assert datetime(2090, 1, 31, 6, tzinfo=UTC) == record.run_at


def test_run_in_counts_from_the_stores_now(shop: Shop) -> None:
    ended = shop.run("enqueue", "mail.send", "to=a", "--run-in", "1h30m")

    record = shop.harbor.jobs.get(ended.out.strip())
    assert timedelta(minutes=90) == record.run_at - record.enqueued_at


def test_a_key_that_is_taken_gives_the_first_job(shop: Shop) -> None:
    first = shop.run("enqueue", "mail.send", "to=a", "--key", "k")

    again = shop.run("enqueue", "mail.send", "to=a", "--key", "k")
    as_json = shop.run("enqueue", "mail.send", "to=a", "--key", "k", "--json")
    other = shop.run("enqueue", "mail.send", "to=b", "--key", "k")

    assert (0, first.out) == (again.code, again.out)
    assert "nothing was enqueued" in again.err
    assert [{"id": first.out.strip(), "task": "mail.send", "created": False}] == as_json.lines()
    assert (1, "") == (other.code, other.out)
    assert "the key 'k' of task 'mail.send' is taken" in other.err


def test_a_key_that_is_taken_may_be_an_error_or_its_jobs_place_be_taken(shop: Shop) -> None:
    first = shop.run("enqueue", "mail.send", "to=a", "--key", "k").out

    replaced = shop.run("enqueue", "mail.send", "to=b", "--key", "k", "--on-conflict", "replace")
    refused = shop.run("enqueue", "mail.send", "to=b", "--key", "k", "--on-conflict", "raise")

    assert (0, first) == (replaced.code, replaced.out)
    assert "it has these arguments" in replaced.err
    record = shop.harbor.jobs.get(first.strip())
    assert {"to": "b", "count": 1} == shop.harbor.arguments_of(record)
    assert (1, "") == (refused.code, refused.out)


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (
            ["mail.send", "to=a", "--on-conflict", "merge"],
            2,
            "on_conflict='merge': expected 'existing', 'raise' or 'replace'",
        ),
        (["mail.sned", "to=a"], 3, "no task is named 'mail.sned' (did you mean 'mail.send'?)"),
        (["mail.send"], 2, "Object missing required field `to` at $"),
        (["mail.send", "to=a", "count=x"], 2, "Expected `int`, got `str` at $.count"),
        (["mail.send", "to=a", '{"to": "a"}'], 2, "and not both"),
        (["mail.send", "to=a", "to=b"], 2, "'to' is given twice"),
        (["mail.send", "a"], 2, "expected name=value"),
        (["mail.send", "{"], 2, "no JSON object"),
        (["mail.send", "to=a", "--priority", "12"], 2, "priority=12: expected 0 (first) to 9 (last)"),
        (["mail.send", "to=a", "--run-in", "30"], 2, "'30' has no unit"),
        (["mail.send", "to=a", "--run-in", "30s", "--run-at", "2090-01-01T00:00Z"], 2, "one or the other"),
        (["mail.send", "-", "--key", "k"], 2, "a --key admits one job"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_enqueued(
    shop: Shop, arguments: list[str], code: int, why: str
) -> None:
    ended = shop.run("enqueue", *arguments)

    assert (code, "") == (ended.code, ended.out)
    assert why in " ".join(ended.err.replace("│", " ").split())
    assert [] == shop.harbor.jobs.find()


def test_it_needs_the_application(shop: Shop) -> None:
    ended = shop.run_alone("--url", "memory://", "enqueue", "mail.send", "to=a")

    assert (3, "") == (ended.code, ended.out)
    assert (
        ended.err
        == "Error: enqueue needs your tasks: say where they are, --app module:harbor (or TASKHARBOR_APP, or app = in "
        "taskharbor.toml)\n"
    )


def test_standard_input_is_a_job_a_line(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "CHUNK", 3)
    lines = "".join(f'{{"to": "{number}"}}\n' for number in range(8)) + "\n"

    ended = shop.run("enqueue", "mail.send", "-", "--json", "--queue", "bulk", stdin=lines)

    records = shop.harbor.jobs.find(queues=["bulk"])
    assert (0, "8 jobs enqueued") == (ended.code, ended.err.splitlines()[-1])
    assert [record.id for record in records] == [printed["id"] for printed in ended.lines()]
    assert [str(number) for number in range(8)] == [
        shop.harbor.arguments_of(record)["to"] for record in records
    ]


def test_a_bad_line_is_told_with_how_many_were_enqueued_before(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "CHUNK", 2)
    lines = '{"to": "a"}\n\n{"to": "b"}\n{"to": "c"}\n{"to": 5}\n{"to": "d"}\n'

    ended = shop.run("enqueue", "mail.send", "-", stdin=lines)

    stored = [record.id for record in shop.harbor.jobs.find()]
    assert (2, 3) == (ended.code, len(stored))
    assert stored == ended.out.split()
    assert "standard input, line 5: " in ended.err
    assert "Expected `str`, got `int` at $.to" in ended.err
    assert ended.err.endswith("; 3 jobs were enqueued before\n")


class ClosedPipe(io.TextIOWrapper):
    """Standard output whose reader has gone away."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), "utf-8")

    def write(self, text: str, /) -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_all_are_enqueued_though_nobody_reads_the_ids_and_that_is_said(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "CHUNK", 3)
    monkeypatch.setattr(sys, "stdout", ClosedPipe())

    ended = shop.run("enqueue", "mail.send", "-", stdin='{"to": "a"}\n' * 8)

    assert (Exit.FAILED, 8) == (ended.code, len(shop.harbor.jobs.find()))
    assert [
        "8 jobs enqueued",
        "Not all of it could be printed (Broken pipe); the work went on without.",
    ] == ended.err.splitlines()


def test_an_id_that_nobody_could_read_is_no_success(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", ClosedPipe())

    ended = shop.run("enqueue", "mail.send", "to=a")

    assert (Exit.FAILED, 1) == (ended.code, len(shop.harbor.jobs.find()))
    assert "Not all of it could be printed" in ended.err


@pytest.mark.parametrize(
    ("queue", "hint"),
    [("mial", " (did you mean 'mail'?)"), ("defualt", " (did you mean 'default'?)"), ("xyz", "")],
)
def test_a_queue_that_no_task_declares_is_warned_of(shop: Shop, queue: str, hint: str) -> None:
    ended = shop.run("enqueue", "mail.send", "to=a", "--queue", queue)

    serves = f"Only a worker that is told to serves it: --queues {queue}"
    assert (0, f"No task here declares the queue {queue!r}{hint}. {serves}\n") == (ended.code, ended.err)
    assert [queue] == [record.queue for record in shop.harbor.jobs.find()]


@pytest.mark.parametrize("queue", ["mail", "default"])
def test_a_queue_that_workers_serve_by_themselves_is_not(shop: Shop, queue: str) -> None:
    ended = shop.run("enqueue", "mail.send", "to=a", "--queue", queue)

    assert (0, "") == (ended.code, ended.err)
    assert [queue] == [record.queue for record in shop.harbor.jobs.find()]


def test_tasks_are_listed_for_people(shop: Shop) -> None:
    ended = shop.run("tasks")

    rows = [line.split("  ") for line in ended.out.splitlines()]
    assert ["task", "mail.send", "row.load", "row.skip"] == [row[0].strip() for row in rows]
    assert "(to: str, count: int = 1) -> str" in ended.out
    assert "event loop" in ended.out
    assert "thread" in ended.out


def test_tasks_are_listed_for_programs(shop: Shop) -> None:
    mail, load, _ = shop.run("tasks", "--json").lines()

    assert ("mail.send", ["mail.post"], "mail", "event loop", "7d") == (
        mail["name"], mail["aliases"], mail["queue"], mail["runs"], mail["retain"]
    )  # fmt: skip
    assert {"max_attempts": 1, "base": "1s", "factor": 2.0, "cap": "1h", "jitter": True, "on": {}} == load[
        "retry"
    ]
    assert {"type": "integer"} == load["schema"]["$defs"]["row.load"]["properties"]["row"]


def test_a_task_is_shown_with_its_schema(shop: Shop) -> None:
    ended = shop.run("tasks", "row.load")
    unknown = shop.run("tasks", "row.laod")

    assert "row.load(row: int) -> None" in ended.out
    assert '"row": {' in ended.out
    assert (3, "") == (unknown.code, unknown.out)
    assert "did you mean 'row.load'?" in unknown.err
