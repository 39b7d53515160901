"""The command line on PostgreSQL: on a server that is there, and on one that it starts itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from taskharbor.cli.exits import Exit
from taskharbor.drivers.postgres.schema import WANTED
from tests.fixtures.cli import Shop, shops
from tests.fixtures.support import SOURCES
from tests.support.embedded import cleaned, made, server_in
from tests.support.postgres import new_folder, server
from tests.support.postgres_ground import Ground

APPLICATION = """
from taskharbor import Harbor, Retry, task

@task(name="mail.send", queue="mail")
async def send(to: str, count: int = 1) -> str:
    return f"{to} {count}"

@task(name="row.load", retry=Retry(max_attempts=1))
def load(row: int) -> int:
    raise ValueError(f"row {row} is bad")

harbor = Harbor("memory://")
"""


@pytest.fixture(scope="module")
def grounds() -> Generator[Ground]:
    ground = Ground(server().conninfo)
    yield ground
    ground.remove()


@pytest.fixture
def ground(grounds: Ground) -> Generator[Ground]:
    """A schema with tables and nothing in them."""
    yield grounds
    grounds.do("DELETE FROM job; DELETE FROM lease; DELETE FROM history; DELETE FROM key; DELETE FROM worker")
    grounds.do("DELETE FROM migration WHERE number > %s", WANTED)


@pytest.fixture
def shop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ground: Ground
) -> Iterator[Shop]:
    monkeypatch.setenv("COLUMNS", "200")
    yield from shops(monkeypatch, capsys, ground.driver())


def worked(folder: Path, url: str, processes: int, application: str = APPLICATION) -> str:
    """Run a worker as a user does, until nothing is left, and return its log."""
    (folder / "shop.py").write_text(application, encoding="utf-8")
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "taskharbor.cli",
            "worker",
            *(["--url", url] if url else []),
            "--until-idle",
            "--processes",
            str(processes),
        ],
        cwd=folder,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("TASKHARBOR_")},
            "PYTHONPATH": str(SOURCES),
            "TASKHARBOR_APP": "shop:harbor",
        },
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert 0 == ended.returncode, ended.stderr
    return ended.stderr


def rows(count: int) -> str:
    return "".join(f'{{"row": {number}}}\n' for number in range(count))


def listed(shop: Shop, *arguments: str) -> list[dict[str, Any]]:
    return shop.run("jobs", "list", "--json", *arguments).lines()


# --- a server that is there


def test_info_tells_what_is_in_the_store(shop: Shop, ground: Ground) -> None:
    shop.run("enqueue", "mail.send", "to=a")
    url = ground.url.replace("taskharbor@", "taskharbor:secret@")

    with shop.harbor.worker_thread(queues=["elsewhere"]):
        told = shop.run_alone("--url", url, "info", "--json")
        shown = shop.run_alone("--url", url, "info")

    store = told.lines()[0]["store"]
    assert ("postgresql", {"present": WANTED, "wanted": WANTED}) == (store["driver"], store["schema"])
    assert {"blocking", "durable", "migrations", "shared", "transactional"} == set(store["capabilities"])
    assert [("mail", 1)] == [(queue["name"], queue["ready"]) for queue in store["queues"]]
    assert [["elsewhere"]] == [worker["queues"] for worker in store["workers"]]
    assert f"Schema                  version {WANTED} of {WANTED}" in shown.out
    assert re.fullmatch(rf"the database '\w+' on \S+, schema '{ground.schema}'", store["where"])
    assert f"Database                {store['where']}\n" in shown.out
    assert "secret" not in told.out + told.err + shown.out + shown.err
    assert f"&schema={ground.schema}" in store["url"]


def test_the_store_that_only_the_application_names_is_told(
    shop: Shop, ground: Ground, tmp_path: Path
) -> None:
    url = ground.url.replace("taskharbor@", "taskharbor:s3cr3t@")
    log = worked(tmp_path, "", 1, APPLICATION.replace("memory://", url))
    told = shop.run("info", "--json")

    own = r"the store is the application's own \(postgresql: the database '\w+' on \S+, schema "
    assert re.search(rf"{own}'{ground.schema}'\)", log)
    assert "s3cr3t" not in log
    assert told.lines()[0]["store"]["url"] is None
    assert told.lines()[0]["store"]["where"].startswith("the database 'postgres' on ")


def test_jobs_are_enqueued_shown_cancelled_and_deleted(shop: Shop) -> None:
    one = shop.run("enqueue", "mail.send", "to=a@b.c", "count=3", "--key", "k").out.strip()
    again = shop.run("enqueue", "mail.send", "to=a@b.c", "count=3", "--key", "k")
    many = shop.run("enqueue", "row.load", "-", stdin=rows(600)).out.split()
    shop.harbor.run_until_idle(queues=["mail"])
    shown = shop.run("jobs", "show", one, "--json").lines()[0]
    cancelled = shop.run("jobs", "cancel", *many[:2], "--reason", "a mistake")
    deleted = shop.run("jobs", "delete", *many[2:4], "--yes")
    missing = shop.run("jobs", "delete", many[2], "--yes")

    assert one in again.out
    assert (600, ("succeeded", "a@b.c 3")) == (len(many), (shown["state"], shown["result"]))
    assert (0, 0, Exit.FAILED) == (cancelled.code, deleted.code, missing.code)
    assert {"cancelled": 2, "ready": 596, "succeeded": 1} == {
        state: len(listed(shop, "--state", state, "--limit", "1000"))
        for state in ("cancelled", "ready", "succeeded")
    }
    assert sorted(many[:2]) == sorted(job["id"] for job in listed(shop, "--state", "cancelled"))


def test_dead_letters_are_listed_and_requeued(shop: Shop) -> None:
    dead = shop.bury(1, 2, 3)

    told = shop.run("dlq", "list", "--json").lines()
    one = shop.run("dlq", "requeue", dead[0])
    rest = shop.run("dlq", "requeue", "--all", "--yes", "--task", "row.load")

    assert sorted(dead) == sorted(job["id"] for job in told)
    assert {"ValueError"} == {job["errors"][-1]["type"] for job in told}
    assert (0, 0, "2 requeued\n") == (one.code, rest.code, rest.out)
    assert sorted(dead) == sorted(job["id"] for job in listed(shop, "--state", "ready"))


def test_a_worker_drains_the_queues_of_a_url(shop: Shop, ground: Ground, tmp_path: Path) -> None:
    shop.run("enqueue", "row.load", "-", stdin=rows(3))
    shop.run("enqueue", "mail.send", "-", stdin='{"to": "a"}\n' * 40)

    log = worked(tmp_path, ground.url, 1)

    assert log.rstrip().endswith("done: 3 dead, 40 succeeded; left: nothing")
    assert [("dead", 3), ("succeeded", 40)] == ground.do(
        "SELECT state, count(*) FROM history GROUP BY 1 ORDER BY 1"
    )
    assert (0, 0) == (ground.count("job"), ground.count("lease"))


@pytest.fixture
def bare(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ground: Ground
) -> Iterator[tuple[Shop, str]]:
    """A shop, and the URL of a schema that is not there."""
    name = f"{ground.schema}-2"
    for shop in shops(monkeypatch, capsys):
        yield shop, ground.url.replace(ground.schema, name)
    ground.do(f'DROP SCHEMA IF EXISTS "{name}" CASCADE')


def test_tables_are_made_by_migrate_and_by_nothing_else(bare: tuple[Shop, str]) -> None:
    shop, url = bare
    others = [["jobs", "list"], ["info"], ["dlq", "list"], ["jobs", "cancel", "x"]]

    refused = [shop.run_alone("--url", url, *command) for command in others]
    refused += [
        shop.run("--url", url, *command)
        for command in (["enqueue", "mail.send", "to=a"], ["worker", "--until-idle"])
    ]
    before = shop.run_alone("--url", url, "migrate", "--check", "--json")
    script = shop.run_alone("--url", url, "migrate", "--sql")
    ran = shop.run_alone("--url", url, "migrate")
    after = shop.run_alone("--url", url, "migrate", "--check", "--json")

    assert [Exit.DEPLOYMENT] * 6 == [ended.code for ended in refused]
    assert all("migrate" in ended.err for ended in refused)
    assert "The first enqueue" not in "".join(ended.err for ended in refused)
    assert (Exit.FAILED, [{"before": 0, "present": 0, "wanted": WANTED, "ran": []}]) == (
        before.code,
        before.lines(),
    )
    assert script.out.startswith("-- 0001 ")
    assert (WANTED, 0) == (script.out.count("\nCOMMIT;\n"), script.code)
    assert ran.out.endswith(f"The store is up to date: version {WANTED}.\n")
    assert (0, [{"before": WANTED, "present": WANTED, "wanted": WANTED, "ran": []}]) == (
        after.code,
        after.lines(),
    )


def test_tables_of_a_later_release_are_refused(shop: Shop, ground: Ground) -> None:
    ground.do("INSERT INTO migration (number, name) VALUES (%s, 'later')", WANTED + 1)
    commands = [
        ["migrate"],
        ["migrate", "--check"],
        ["enqueue", "mail.send", "to=a"],
        ["worker", "--until-idle"],
    ]

    for command in commands:
        ended = shop.run("--url", ground.url, *command)
        assert Exit.DEPLOYMENT == ended.code, command
        assert f"version {WANTED + 1}" in ended.err
        assert "upgrade" in ended.err
    assert 0 == ground.count("job")


# --- one that it starts itself


@pytest.fixture
def alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Shop]:
    """A shop whose own store is none of PostgreSQL's."""
    monkeypatch.chdir(tmp_path)
    yield from shops(monkeypatch, capsys)


def test_looking_makes_no_folder_and_starts_no_server(alone: Shop, tmp_path: Path) -> None:
    url = "postgresql+embedded:///dev.pg"

    looked = [
        alone.run_alone("--url", url, *command) for command in (["jobs", "list"], ["info"], ["dlq", "list"])
    ]
    checked = alone.run_alone("--url", url, "migrate", "--check")
    script = alone.run_alone("--url", url, "migrate", "--sql")

    assert [Exit.DEPLOYMENT] * 3 == [ended.code for ended in looked]
    assert (
        f"there is no folder {tmp_path / 'dev.pg'}; is it the store that is meant? The first enqueue"
        in looked[0].err
    )
    assert (Exit.FAILED, 0) == (checked.code, script.code)
    assert [] == list(tmp_path.iterdir())


def test_the_first_enqueue_makes_the_tables_and_the_last_user_stops_the_server(
    alone: Shop, tmp_path: Path
) -> None:
    with made() as folder:
        url = f"postgresql+embedded:///{folder}"
        server = server_in(folder)

        looked = alone.run("--url", url, "jobs", "list")
        enqueued = alone.run("--url", url, "enqueue", "mail.send", "-", stdin='{"to": "a"}\n' * 20)
        running = server.running
        logged = worked(tmp_path, url, 2)
        told = alone.run("--url", url, "info", "--json").lines()[0]["store"]
        done = alone.run("--url", url, "jobs", "list", "--json", "--state", "succeeded").lines()

        assert (Exit.DEPLOYMENT, 0) == (looked.code, enqueued.code)
        assert f"there are no tables for jobs in {folder}" in looked.err
        assert {"1", "2", "supervisor"} == set(re.findall(r" \[(\w+)\] ", logged))
        assert f"the store is {url}\n" in logged
        assert (20, "postgresql+embedded", url) == (len(done), told["driver"], told["url"])
        assert (False, False) == (running, server.running)


@pytest.mark.slow
def test_a_worker_makes_the_folder_that_is_not_there(alone: Shop, tmp_path: Path) -> None:
    folder = new_folder()
    with cleaned(folder):
        url = f"postgresql+embedded:///{folder}?schema=work"

        logged = worked(tmp_path, url, 2)

        assert (
            f"the store is postgresql+embedded:///{folder}, which is not there yet, and is made now" in logged
        )
        assert 0 == alone.run_alone("--url", url, "migrate", "--check").code
        assert not server_in(folder).running
