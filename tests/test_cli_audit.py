"""`taskharbor audit`: every act of the command line is in the trail, once, with who and why."""

from __future__ import annotations

import csv
import getpass
import io
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskharbor.cli import listing
from tests.fixtures.cli import Shop, shops


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shop]:
    yield from shops(monkeypatch, capsys)


ACTS = [
    ("jobs retry {dead}", "jobs.requeue", "{dead}"),
    ("dlq requeue {dead}", "jobs.requeue", "{dead}"),
    ("jobs cancel {sent}", "jobs.cancel", "{sent}"),
    ("jobs delete {sent} --yes", "jobs.delete", "{sent}"),
    ("dlq purge {dead} --yes", "jobs.delete", "{dead}"),
    ("flows cancel nothing --yes", "flows.cancel", "nothing"),
    ("queues pause mail", "queues.pause", "mail"),
    ("queues resume mail", "queues.resume", "mail"),
    ("schedules create s mail.send to=a --every 5m", "schedules.create", "s"),
    ("schedules declare", "schedules.declare", "the application's schedules"),
    ("limits set queue:mail --max-running 5", "limits.set", "queue:mail"),
    ("limits clear queue:mail", "limits.clear", "queue:mail"),
    ("limits hold task:mail.send", "limits.hold", "task:mail.send"),
    ("limits lift task:mail.send", "limits.lift", "task:mail.send"),
    ("tasks pause mail.send", "limits.hold", "task:mail.send"),
    ("tasks resume mail.send", "limits.lift", "task:mail.send"),
    ("workers drain nobody", "workers.drain", "nobody"),
    ("workers stop nobody", "workers.stop", "nobody"),
    ("retention set --state dead --keep-last 9", "retention.set", "dead jobs of all other tasks"),
    ("retention remove --state dead", "retention.remove", "dead jobs of all other tasks"),
    ("prune", "retention.prune", "what jobs and rules keep no longer"),
]


@pytest.mark.parametrize(("words", "action", "target"), ACTS, ids=[words for words, _, _ in ACTS])
def test_an_act_is_in_the_trail_with_who_and_why(shop: Shop, words: str, action: str, target: str) -> None:
    (dead,) = shop.bury(1)
    with shop.harbor:
        sent = shop.send.enqueue("a").id

    shop.run(*words.format(dead=dead, sent=sent).split(), "--by", "ada", "--reason", "because of X")

    (entry,) = shop.harbor.audit.find()
    assert (action, target.format(dead=dead, sent=sent)) == (entry.action, entry.target)
    assert ("ada", "because of X") == (entry.by, entry.reason)


@pytest.mark.parametrize("verb", ["pause", "resume", "trigger", "delete --yes"])
def test_what_is_done_to_a_schedule_is_in_the_trail(shop: Shop, verb: str) -> None:
    shop.run("schedules", "create", "s", "mail.send", "to=a", "--every", "5m")

    word, *rest = verb.split()
    shop.run("schedules", word, "s", *rest, "--by", "ada", "--reason", "because")

    last = shop.harbor.audit.find()[0]
    assert (f"schedules.{word}", "s", "ada", "because", 1) == (
        last.action,
        last.target,
        last.by,
        last.reason,
        last.changed,
    )


def test_what_is_done_to_many_is_one_entry_with_its_filter(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "PAGE", 2)
    shop.bury(1, 2, 3, 4, 15)

    shop.run("dlq", "requeue", "--all", "--text", "row", "--task", "row.load", "--yes")
    shop.run("dlq", "requeue", "--all", "--dry-run")

    (entry,) = shop.harbor.audit.find()
    assert (5, 5) == (entry.named, entry.changed)
    assert entry.target.startswith("all dead letters: state dead; task row.load; text row; ended before ")
    assert f"cli:{getpass.getuser()}@{socket.gethostname()}" == entry.by


def test_the_trail_is_narrowed_down_paged_and_counted(shop: Shop) -> None:
    for number in range(3):
        shop.run("queues", "pause", f"q{number}", "--by", "ada", "--reason", "Flood")
    shop.run("jobs", "cancel", "nobody", "--by", "bob")

    page = shop.run("audit", "--limit", "2")
    after = page.err.split()[-1]

    assert ["q1", "q0"] == [line["target"] for line in shop.run("audit", "--after", after, "--json").lines()]
    assert 3 == len(shop.run("audit", "--action", "queues", "--text", "flood", "--json").lines())
    assert 1 == len(shop.run("audit", "--by", "bob", "--since", "1h", "--json").lines())
    assert "No such acts." in shop.run("audit", "--before", "1h").err
    assert [("jobs.cancel", "bob", 1, 0), ("queues.pause", "ada", 3, 3)] == [
        tuple(line.values()) for line in shop.run("audit", "count", "--json").lines()
    ]
    assert (2, True) == (
        (refused := shop.run("audit", "--since", "yesterday")).code,
        "is no instant" in refused.err,
    )
    assert "names nothing" in shop.run("audit", "--action", "").err


def test_an_export_is_json_or_csv_that_no_table_calculator_takes_for_a_formula(
    shop: Shop, tmp_path: Path
) -> None:
    file = tmp_path / "acts.csv"
    shop.run("queues", "pause", "=1+1,2", "--reason", 'say "hi"')

    shop.run("audit", "export", str(file), "--csv")

    (row,) = csv.DictReader(io.StringIO(file.read_text(encoding="utf-8")))
    assert ("'=1+1, 2", 'say "hi"', "queues.pause") == (row["target"], row["reason"], row["action"])
    (line,) = shop.run("audit", "export").out.splitlines()
    assert "=1+1, 2" == json.loads(line)["target"]
    assert "Nobody is there to answer" in shop.run("audit", "export", str(file)).err


def test_an_action_that_is_nowhere_in_the_trail_is_remarked_on(shop: Shop) -> None:
    shop.run("queues", "pause", "mail")

    assert "no action 'queue' (did you mean 'queues'?)" in shop.run("audit", "--action", "queue").err
    assert "no action 'queues.puase'" in shop.run("audit", "count", "--action", "queues.puase").err
    assert "no action" not in shop.run("audit", "--action", "queues", "--before", "1h").err


@pytest.mark.parametrize("command", ["audit", "dlq"])
def test_a_dash_is_standard_output(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shop.run("queues", "pause", "mail")

    assert shop.run(command, "export").out == shop.run(command, "export", "-").out
    assert [] == [file.name for file in tmp_path.iterdir()]
