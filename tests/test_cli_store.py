"""The command line on a store in a file: `migrate`, `info`, and a whole day's work in real processes."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from taskharbor import Harbor
from taskharbor.cli.exits import Exit
from taskharbor.driver import Migration, SchemaVersion
from taskharbor.drivers.memory import MemoryDriver
from taskharbor.drivers.sqlite import SqliteDriver, schema
from taskharbor.supervisor import PROCESS_VARIABLE
from tests.fixtures.cli import Ended, Shop, shops
from tests.fixtures.support import SOURCES

APPLICATION = """
from taskharbor import Harbor, Retry, task

@task(name="mail.send", queue="mail")
async def send(to: str, count: int = 1) -> str:
    return f"{to} {count}"

@task(name="row.load", retry=Retry(max_attempts=1))
def load(row: int) -> int:
    with open("mended.txt") as file:
        return row + int(file.read())

harbor = Harbor("sqlite:///shop.db")
"""


@pytest.fixture
def shop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Shop]:
    monkeypatch.chdir(tmp_path)
    yield from shops(monkeypatch, capsys, SqliteDriver(tmp_path / "shop.db"))


# --- migrate


def test_a_new_store_is_migrated_and_then_up_to_date(shop: Shop) -> None:
    driver = shop.harbor.driver
    assert isinstance(driver, SqliteDriver)
    wanted = driver.schema_version().wanted

    before = shop.run("migrate", "--check")
    ran = shop.run("migrate", "--json")
    again = shop.run("migrate")
    after = shop.run("migrate", "--check")

    assert (Exit.FAILED, "The store has no tables yet. Run: taskharbor migrate\n") == (
        before.code, before.out
    )  # fmt: skip
    (told,) = ran.lines()
    assert (0, wanted, wanted, wanted) == (told["before"], told["present"], told["wanted"], len(told["ran"]))
    assert (0, f"The store is up to date: version {wanted}.\n") == (again.code, again.out)
    assert 0 == after.code


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> int:
    """Be a later release, with two more migrations; return the number of the last."""
    known = schema.MIGRATIONS
    last = known[-1].number + 2
    later = (
        Migration(last - 1, "a mark", ("CREATE TABLE taskharbor_mark (said TEXT DEFAULT 'it''s;\n--')",)),
        Migration(last, "a column", ("ALTER TABLE taskharbor_mark ADD COLUMN more TEXT",)),
    )
    monkeypatch.setattr(schema, "MIGRATIONS", (*known, *later))
    monkeypatch.setattr(schema, "WANTED", last)
    return last


def made(path: Path) -> tuple[list[Any], list[Any]]:
    """Return all that is in a file's schema, and which migrations are noted."""
    with closing(sqlite3.connect(path)) as file:
        return (
            file.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY name").fetchall(),
            file.execute("SELECT number, name FROM taskharbor_migration ORDER BY number").fetchall(),
        )


def test_the_script_makes_what_migrate_makes(shop: Shop, tmp_path: Path, three: int) -> None:
    script = shop.run("migrate", "--sql")
    told = shop.run("migrate", "--sql", "--json").lines()
    there = os.listdir(tmp_path)
    shop.run("migrate")
    with closing(sqlite3.connect(tmp_path / "by hand.db")) as file:
        file.executescript(script.out)

    assert (0, "", []) == (script.code, script.err, there)
    assert made(tmp_path / "shop.db") == made(tmp_path / "by hand.db")
    assert list(range(1, three + 1)) == [migration["number"] for migration in told]
    assert all(f"{statement};\n" in script.out for migration in told for statement in migration["statements"])


def test_the_script_has_what_is_missing_up_to_the_version_that_is_named(shop: Shop, three: int) -> None:
    shop.run("migrate", "--to", str(three - 2))

    all_, some, none = (
        shop.run("migrate", "--sql", *to).out for to in ([], ["--to", str(three - 1)], ["--to", "1"])
    )

    assert (2, 1, "-- nothing to run\n") == (all_.count("BEGIN;"), some.count("BEGIN;"), none)
    assert all_.startswith(some)
    assert Exit.FAILED == shop.run("migrate", "--sql", "--check").code
    assert 0 == shop.run("migrate", "--sql", "--check", "--to", "1").code


def test_one_can_stop_at_a_version(shop: Shop, three: int) -> None:
    stopped = shop.run("migrate", "--to", str(three - 1))
    there = shop.run("migrate", "--check", "--to", str(three - 1))
    checked = shop.run("migrate", "--check")
    back = shop.run("migrate", "--to", "1", "--json")
    rest = shop.run("migrate")

    assert (0, f"The store is at version {three - 1}; this release wants {three}.") == (
        stopped.code, stopped.out.splitlines()[-1]
    )  # fmt: skip
    assert (0, Exit.FAILED, 0, 0) == (there.code, checked.code, back.code, rest.code)
    assert (three - 1, []) == (back.lines()[0]["present"], back.lines()[0]["ran"])
    assert f"ran {three:04d} a column\nThe store is up to date: version {three}.\n" == rest.out


@pytest.mark.parametrize("option", [[], ["--check"], ["--sql"]], ids=str)
def test_a_version_that_is_not_known_is_refused(shop: Shop, tmp_path: Path, option: list[str]) -> None:
    ended = shop.run("migrate", "--to", "99", *option)

    assert (Exit.DEPLOYMENT, "", []) == (ended.code, ended.out, os.listdir(tmp_path))
    assert "there is no version 99 of the tables: this release knows versions 1 to " in ended.err
    assert Exit.USAGE == shop.run("migrate", "--to", "0").code


class Newer(MemoryDriver):
    """A driver whose tables were made by a later release."""

    capabilities = SqliteDriver.capabilities
    migrations: tuple[Migration, ...] = ()

    def schema_version(self) -> SchemaVersion:
        return SchemaVersion(present=9, wanted=3)

    def migrate(self, to: int | None = None) -> tuple[Migration, ...]:
        raise AssertionError("it must not be touched")


def test_a_newer_store_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = Shop(monkeypatch, capsys, Newer())

    for arguments in ([], ["--check"], ["--sql"], ["--to", "3"]):
        ended = shop.run("migrate", *arguments)
        assert (Exit.DEPLOYMENT, "") == (ended.code, ended.out)
        assert "tables are of version 9" in ended.err
        assert "upgrade TaskHarbor here" in ended.err


def test_a_store_without_tables_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = Shop(monkeypatch, capsys).run("migrate")

    assert (Exit.DEPLOYMENT, "") == (ended.code, ended.out)
    assert "the driver 'memory' does not offer 'migrations', which `taskharbor migrate` needs" in ended.err


# --- info


def test_info_tells_what_is_in_the_store(shop: Shop, tmp_path: Path) -> None:
    with shop.harbor:
        shop.send.enqueue("a")
        shop.harbor.queues.pause("mail", reason="stamps are out", by="me")
    with shop.harbor.worker_thread():
        told = shop.run("info", "--json").lines()[0]["store"]
        shown = shop.run("info").out

    assert (f"sqlite:///{tmp_path / 'shop.db'}", "sqlite") == (told["url"], told["driver"])
    assert {"durable", "shared"} < set(told["capabilities"])
    assert told["schema"]["present"] == told["schema"]["wanted"]
    (queue,) = told["queues"]
    assert ("mail", True, 1) == (queue["name"], queue["paused"], queue["ready"])
    (worker,) = told["workers"]
    assert {"default", "mail"} == set(worker["queues"])
    assert " ago by me: stamps are out" in shown
    assert worker["worker"] in shown


def test_info_of_a_store_without_tables_makes_none(shop: Shop, tmp_path: Path) -> None:
    ended = shop.run("info", "--json")

    assert (Exit.DEPLOYMENT, None) == (ended.code, ended.lines()[0]["store"])
    assert f"Error: there is no file {tmp_path / 'shop.db'}; " in ended.err
    assert [] == list(tmp_path.iterdir())
    assert Exit.FAILED == shop.run("migrate", "--check").code


def test_info_tells_its_versions_when_the_store_does_not_answer(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "broken.db").write_bytes(b"no database at all" * 100)

    ended = shop.run_alone("--url", "sqlite:///broken.db", "info", "--json")

    assert Exit.DEPLOYMENT == ended.code
    assert ("3.", None) == (ended.lines()[0]["python"][:2], ended.lines()[0]["store"])
    assert ended.err.startswith("Error: ")


def test_a_locked_store_is_worth_another_try(shop: Shop, tmp_path: Path) -> None:
    shop.run_alone("--url", "sqlite:///locked.db", "migrate")
    with closing(sqlite3.connect(tmp_path / "locked.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        ended = shop.run_alone("--url", "sqlite:///locked.db?busy_timeout=0", "jobs", "cancel", "x")

    assert (Exit.UNAVAILABLE, "") == (ended.code, ended.out)
    assert 1 == ended.err.count("\n")


def test_info_hides_the_password_of_a_url(shop: Shop) -> None:
    ended = shop.run_alone("--url", "postgresql://me:secret@127.0.0.1:1/db", "info")

    assert Exit.UNAVAILABLE == ended.code
    assert "the database 'db' on 127.0.0.1:1 cannot be used now" in ended.err
    assert "secret" not in ended.out + ended.err


# --- which store


def test_a_store_that_nobody_named_is_not_made_by_looking(shop: Shop, tmp_path: Path) -> None:
    ended = shop.run_alone("jobs", "list")

    assert (Exit.DEPLOYMENT, "") == (ended.code, ended.out)
    assert "which store? There is no taskharbor.db in" in ended.err
    assert not (tmp_path / "taskharbor.db").exists()


LOOKING = [
    ["jobs", "list"],
    ["jobs", "show", "x"],
    ["jobs", "retry", "x"],
    ["jobs", "cancel", "x"],
    ["jobs", "delete", "x", "--yes"],
    ["dlq", "list", "--json"],
    ["dlq", "requeue", "--all", "--yes"],
    ["dlq", "requeue", "x"],
    ["info"],
]


@pytest.mark.parametrize("command", LOOKING, ids=" ".join)
def test_a_store_that_was_mistyped_is_told_and_not_made(
    shop: Shop, tmp_path: Path, command: list[str]
) -> None:
    ended = shop.run_alone("--url", "sqlite:///typo.db", *command)

    assert Exit.DEPLOYMENT == ended.code
    assert (
        f"Error: there is no file {tmp_path / 'typo.db'}; is it the store that is meant? The first enqueue or worker "
        "makes it, or `taskharbor migrate`\n"
    ) == ended.err
    assert [] == list(tmp_path.iterdir())


def test_a_file_without_tables_for_jobs_is_told_and_left_as_it_is(shop: Shop, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "mine.db")) as mine:
        mine.execute("CREATE TABLE mine (x)")
    before = (tmp_path / "mine.db").read_bytes()

    ended = shop.run_alone("--url", "sqlite:///mine.db", "jobs", "list")

    assert Exit.DEPLOYMENT == ended.code
    assert f"there are no tables for jobs in {tmp_path / 'mine.db'}; " in ended.err
    assert before == (tmp_path / "mine.db").read_bytes()


def test_the_applications_tasks_are_told_without_its_store(shop: Shop, tmp_path: Path) -> None:
    assert 0 == shop.run("tasks").code
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [["migrate"], ["migrate", "--check"]], ids=" ".join)
def test_a_store_that_nobody_named_is_not_migrated(shop: Shop, tmp_path: Path, command: list[str]) -> None:
    ended = shop.run_alone(*command)

    assert (Exit.DEPLOYMENT, "") == (ended.code, ended.out)
    assert "which store? There is no taskharbor.db in" in ended.err
    assert [] == list(tmp_path.iterdir())


def test_the_default_store_is_used_where_it_is(shop: Shop, tmp_path: Path) -> None:
    assert 0 == shop.run_alone("migrate", "--url", "sqlite:///taskharbor.db").code

    assert 0 == shop.run_alone("migrate", "--check").code
    assert (tmp_path / "taskharbor.db").exists()
    assert "No such jobs.\n" == shop.run_alone("jobs", "list").err


def test_a_url_comes_before_the_applications_own(shop: Shop) -> None:
    with shop.harbor:
        shop.send.enqueue("a")

    elsewhere = shop.run("enqueue", "mail.send", "to=b", "--url", "sqlite:///other.db")

    assert [elsewhere.out.strip()] == [
        job["id"] for job in shop.run_alone("--url", "sqlite:///other.db", "jobs", "list", "--json").lines()
    ]
    assert 1 == len(shop.harbor.jobs.find())


# --- the whole, in processes


class Office:
    """An application in a directory, and the command line as a user has it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "shop.py").write_text(APPLICATION, encoding="utf-8")
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TASKHARBOR_")},
            "PYTHONPATH": str(SOURCES),
            "TASKHARBOR_APP": "shop:harbor",
            "COLUMNS": "200",
        }

    def run(self, *arguments: str, stdin: str = "", **environment: str) -> Ended:
        ended = subprocess.run(
            [sys.executable, "-m", "taskharbor.cli", *arguments],
            cwd=self.folder,
            env={**self._environment, **environment},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    def jobs(self, *arguments: str) -> list[dict[str, Any]]:
        return self.run("jobs", "list", "--json", *arguments).lines()


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def test_a_days_work(office: Office) -> None:
    mail = office.run("enqueue", "mail.send", "to=a@b.c", "count=3").out.strip()
    rows = office.run(
        "enqueue", "row.load", "-", stdin="".join(f'{{"row": {n}}}\n' for n in range(20))
    ).out.split()

    first = office.run("worker", "--until-idle", "--processes", "2", "--log-format", "json")

    assert 0 == first.code, first.err
    assert {"1", "2", "supervisor"} == {json.loads(line).get("process") for line in first.err.splitlines()}
    assert ["dead"] * 20 + ["succeeded"] == [job["state"] for job in office.jobs()]
    assert "a@b.c 3" == office.run("jobs", "show", mail, "--json").lines()[0]["result"]
    assert "FileNotFoundError" in office.run("dlq", "list", "--limit", "1").out

    (office.folder / "mended.txt").write_text("100", encoding="utf-8")
    assert "20 requeued\n" == office.run("dlq", "requeue", "--all", "--yes", "--task", "row.load").out
    second = office.run("worker", "--until-idle")

    assert 0 == second.code, second.err
    assert f"the store is sqlite:///{office.folder / 'shop.db'}\n" in second.err
    assert second.err.rstrip().endswith("done: 20 succeeded; left: nothing")
    done = office.jobs("--task", "row.load", "--oldest-first")
    assert rows == [job["id"] for job in done]
    assert [("succeeded", 100 + n) for n in range(20)] == [(job["state"], job["result"]) for job in done]


def test_a_worker_recycles_itself_when_it_was_told_to(office: Office) -> None:
    office.run("enqueue", "mail.send", "-", stdin='{"to": "a"}\n' * 3)

    ended = office.run("worker", "--max-jobs", "2", "--concurrency", "1", "--prefetch", "0")

    assert Exit.RECYCLE == ended.code, ended.err
    assert re.search(r"it has settled \d+ deliveries \(--max-jobs 2\)", ended.err)


def test_a_worker_that_has_grown_says_so_as_the_limit_was_written(office: Office) -> None:
    office.run("enqueue", "mail.send", "to=a")

    ended = office.run("worker", "--max-memory", "1.5M")

    assert Exit.RECYCLE == ended.code, ended.err
    assert re.search(r"it holds [0-9.]+[MG] of memory after 1 deliveries \(--max-memory 1\.5M\)", ended.err)


def test_a_worker_says_which_store_it_makes_and_what_it_leaves(office: Office) -> None:
    first = office.run("worker", "--until-idle", "--url", "sqlite:///new.db")
    for options in ([], ["--run-in", "1h"]):
        office.run("enqueue", "mail.send", "to=a", *options)
    with Harbor(f"sqlite:///{office.folder / 'shop.db'}") as harbor:
        harbor.queues.pause("mail")
    second = office.run("worker", "--until-idle")

    made = f"the store is sqlite:///{office.folder / 'new.db'}, which is not there yet, and is made now"
    assert made in first.err
    assert first.err.rstrip().endswith("done: nothing; left: nothing")
    assert (0, True) == (
        second.code,
        second.err.rstrip().endswith("done: nothing; left: 1 ready in paused queues, 1 due later"),
    ), second.err


def test_several_processes_need_a_store_that_they_can_share(office: Office) -> None:
    ended = office.run("worker", "--url", "memory://", "--processes", "2")

    assert Exit.DEPLOYMENT == ended.code
    assert "does not offer 'shared', which a worker of several processes needs" in ended.err


def test_a_supervised_process_says_which_it_is(office: Office) -> None:
    ended = office.run("worker", "--until-idle", "--processes", "5", **{PROCESS_VARIABLE: "3"})

    assert 0 == ended.code, ended.err
    assert all(" INFO [3] " in line for line in ended.err.splitlines())
