"""`taskharbor limits`, `tasks pause`, `retention` and `workers drain`: what is refused, remarked on, and offered."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from taskharbor import JobState, MaxRunning, Rate, task
from tests.fixtures.cli import Shop, shops


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shop]:
    yield from shops(monkeypatch, capsys)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("limits set mail --max-running 5", "is it task:mail or queue:mail?"),
        ("limits set queue:mail", "say which limit"),
        ("limits set queue:mail --max-running many", "expected a whole number below a billion, or none"),
        ("limits set queue:mail --rate 100", "such as 100/1m or 5/s"),
        ("limits set queue:mail --rate 0/s", "such as 100/1m or 5/s"),
        ("limits set queue:mail --rate 5/1", "has no unit"),
        ("limits set queue:mail --burst 5", "--burst goes with --rate"),
        ("limits hold queue:mail", "taskharbor queues pause mail"),
        ("limits hold keys:mail.send", "task:mail.send"),
        ("limits lift key:mail.send", "it names no key"),
        ("retention set --state dead", "--keep-for DURATION"),
        ("retention set --state running --keep-last 5", "in which jobs have ended"),
        ("retention set --state ded --keep-last 5", "did you mean 'dead'"),
        ("workers drain", "or say --all"),
        ("workers stop w --all", "or say --all"),
        ("workers drian", "drian"),
        ("tasks pause ''", "expected text of 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(shop: Shop, words: str, told: str) -> None:
    given = [word if word != "''" else "" for word in words.split()]

    ended = shop.run(*given)

    assert 2 == ended.code
    assert told in " ".join(ended.err.replace("│", "").split())
    assert [] == list(shop.harbor.audit.find())


def test_a_list_is_meant_where_nothing_else_is_named(shop: Shop) -> None:
    shop.harbor.limits.set("queue:mail", max_running=1)

    assert shop.run("limits").out == shop.run("limits", "list").out != ""
    assert shop.run("tasks", "row.load").out == shop.run("tasks", "list", "row.load").out != ""
    assert "Commands" in shop.run("workers", "--help").out
    assert "No live worker." in shop.run("workers", "--tasks").err


@pytest.mark.parametrize(
    ("rate", "told"), [("5/s", "5/1s"), ("100/1m", "100/1m"), ("1000/1h30m", "1000/1h30m")]
)
def test_a_rate_is_written_as_it_is_told(shop: Shop, rate: str, told: str) -> None:
    assert (
        f"task:mail.send  {told} (was: none)\n"
        == shop.run("limits", "set", "task:mail.send", "--rate", rate).out
    )


def test_what_changes_nothing_is_told_so(shop: Shop) -> None:
    shop.harbor.limits.set("queue:mail", max_running=1)

    assert (
        "queue:mail  at most 1 running, as it was\n"
        == shop.run("limits", "set", "queue:mail", "--max-running", "1").out
    )
    shop.run("limits", "clear", "queue:mail")
    assert "nothing was set by hand" in shop.run("limits", "clear", "queue:mail").err


def test_a_task_that_is_not_known_and_keys_that_no_task_declares_are_remarked_on(shop: Shop) -> None:
    unknown = shop.run("limits", "hold", "task:mail.sned")
    keyless = shop.run("limits", "set", "keys:mail.send", "--max-running", "1")

    assert (0, True) == (unknown.code, "did you mean 'mail.send'" in unknown.err)
    assert (0, True) == (keyless.code, "declares no keys" in keyless.err)


def test_a_queue_that_nobody_has_heard_of_is_remarked_on(shop: Shop) -> None:
    unknown = shop.run("limits", "set", "queue:mial", "--max-running", "1")
    known = shop.run("limits", "set", f"queue:{shop.send.definition.options.queue}", "--max-running", "1")

    assert (0, True) == (unknown.code, "Nothing is in a queue 'mial'" in unknown.err)
    assert "" == known.err


def test_tasks_tell_the_limits_that_they_declare(shop: Shop) -> None:
    @task(
        name="api.call",
        registry=shop.registry,
        rate=Rate(10, per=timedelta(seconds=1)),
        max_running=MaxRunning(2, key="tenant"),
    )
    def call(tenant: str) -> None: ...

    @task(name="row.turn", registry=shop.registry, fair="tenant")
    def turn(tenant: str) -> None: ...

    assert {
        "api.call": "10/1s; at most 2 running for each key",
        "row.turn": "takes turns",
        "mail.send": "",
    }.items() <= {line["name"]: line["limits"] for line in shop.run("tasks", "--json").lines()}.items()
    with shop.harbor:
        job = call.enqueue("acme")
    assert "line        acme\n" in shop.run("jobs", "show", job.id).out


def test_a_task_that_is_paused_goes_on_when_it_is_resumed(shop: Shop) -> None:
    with shop.harbor:
        job = shop.send.enqueue("a")
    paused = shop.run("tasks", "pause", "mail.send", "--reason", "no stamps", "--by", "ada")
    again = shop.run("tasks", "pause", "mail.send")
    shop.harbor.run_until_idle()
    waits = shop.harbor.jobs.get(job.id).state

    assert ("task:mail.send  held back\n", JobState.PARKED) == (paused.out, waits)
    assert "held back already" in again.out
    assert "by ada: no stamps" in again.out
    assert "task:mail.send  goes on\n" == shop.run("tasks", "resume", "mail.send").out
    shop.harbor.run_until_idle()
    assert JobState.SUCCEEDED is shop.harbor.jobs.get(job.id).state
