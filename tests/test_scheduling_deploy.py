"""Schedules while a new version is rolled out, each version a process from a source tree of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from taskharbor import Harbor
from taskharbor.driver import UPKEEP, LeaderList, Leadership, Store
from tests.fixtures.support import SOURCES
from tests.support.postgres import server
from tests.support.postgres_ground import Ground
from tests.support.work import ENOUGH, eventually

OLD = """
import sys
from datetime import timedelta
from taskharbor import Harbor, cron, every, task

@task(name="mail", schedule=every(timedelta(seconds=1), grace=timedelta(minutes=1)))
def mail() -> None: ...

@task(name="report", schedule=cron("0 8 * * *", tz="Europe/Paris"))
def report() -> None: ...

harbor = Harbor(sys.argv[1], application="shop")
"""
NEW = """
import sys
from taskharbor import Harbor, cron, task

@task(name="mail")
def mail() -> None: ...

@task(name="report", schedule=cron("30 9 * * *", tz="Europe/Paris"))
def report() -> None: ...

harbor = Harbor(sys.argv[1], application="shop")
"""
WORK_ONCE = """
import app
with app.harbor as harbor, harbor.worker_thread():
    pass
"""
WORK_ON = """
import sys, app
with app.harbor as harbor, harbor.worker_thread():
    print("ready", flush=True)
    sys.stdin.read()
"""


def environment(tree: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(tree), str(SOURCES)])}


def start(tree: Path, url: str) -> None:
    """Have a version work once."""
    done = subprocess.run(
        [sys.executable, "-c", WORK_ONCE, url],
        env=environment(tree),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@contextmanager
def living(tree: Path, url: str) -> Generator[subprocess.Popen[str]]:
    """Have a version work until it is killed, or until the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", WORK_ON, url],
        env=environment(tree),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.stdin.close()
            process.wait(ENOUGH.total_seconds())


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    for name, source in (("old", OLD), ("new", NEW)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "app.py").write_text(source)
    return tmp_path / "old", tmp_path / "new"


def test_an_old_worker_that_starts_again_during_a_deploy_restores_nothing(
    trees: tuple[Path, Path], tmp_path: Path
) -> None:
    old, new = trees
    url = f"sqlite:///{tmp_path}/jobs.db"

    with Harbor(url) as harbor:
        start(old, url)
        before = {one.name: one.schedule for one in harbor.schedules.list()}
        start(new, url)
        deployed = {one.name: one.schedule for one in harbor.schedules.list()}
        start(old, url)
        start(new, url)
        after = {one.name: one.schedule for one in harbor.schedules.list()}

    assert {"shop/mail", "shop/report"} == set(before)
    assert {"shop/report"} == set(deployed)
    assert before["shop/report"] != deployed["shop/report"]
    assert deployed == after


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_another_process_takes_over_within_seconds_when_the_leader_is_killed(
    trees: tuple[Path, Path], tmp_path: Path, store: str
) -> None:
    old, _ = trees
    url = f"sqlite:///{tmp_path}/jobs.db" if store == "sqlite" else Ground(server().conninfo).url

    with Harbor(url) as harbor, living(old, url) as one, living(old, url) as other:
        eventually(lambda: bool(leaders(harbor)), "a leader")
        pids = {str(process.pid): process for process in (one, other)}
        first = leaders(harbor)[0]
        victim = pids[first.worker.split(":")[1]]
        victim.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        eventually(lambda: any(one.worker != first.worker for one in leaders(harbor)), "another leader")
        took = time.monotonic() - killed
        (second,) = leaders(harbor)
        fired = harbor.schedules.get("mail").fired
        eventually(lambda: harbor.schedules.get("mail").fired > fired, "a tick")
        record = harbor.schedules.get("mail")

    assert took < 16
    assert second.fence > first.fence
    assert 0 == record.missed


def leaders(harbor: Harbor) -> list[Leadership]:
    async def listed(store: Store) -> list[Leadership]:
        return [one for one in await store.leader_list(LeaderList()) if one.role == UPKEEP]

    return harbor.ask(listed)
