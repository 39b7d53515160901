"""A rolling deploy rehearsed: two versions of an application, each a process of its own, on one store.

No job is lost, none is run by a version that cannot decode it, and what waits says why.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from taskharbor import Harbor, JobState, Registry
from taskharbor.cli.entry import run
from tests.fixtures.support import SOURCES
from tests.support.postgres import server
from tests.support.postgres_ground import Ground
from tests.support.work import eventually

OLD = """
import sys
from taskharbor import Harbor, task
from taskharbor.codec.encryption import EncryptedCodec

KEY = bytes(range(32))

@task(name="mail")
def mail(to: str, copies: int = 1) -> str:
    return f"old: {to} x{copies}"

@task(name="report")
def report(day: int) -> str:
    return f"old: day {day}"

@task(name="resize")
def resize(image: str) -> str:
    return f"old: {image}"

@task(name="ping", codec=EncryptedCodec(keys={"2025": KEY}))
def ping(n: int) -> str:
    return f"old: {n}"

def produce():
    return [mail.enqueue("a@b.c", copies=2), report.enqueue(3), resize.enqueue("cat.png"), ping.enqueue(4)]

harbor = Harbor(sys.argv[1])
"""
NEW = """
import sys
from datetime import date
from taskharbor import Harbor, task
from taskharbor.codec.encryption import EncryptedCodec

KEYS = {"2025": bytes(range(32)), "2026": bytes(range(1, 33))}

def upgrade(arguments):
    if "copies" in arguments:
        arguments["to"] = [arguments["to"]] * arguments.pop("copies")
    return {"subject": "hello", **arguments}

@task(name="mail", upgrade=upgrade)
def mail(to: list[str], subject: str) -> str:
    return f"new: {','.join(to)} {subject}"

@task(name="report")
def report(day: date, region: str) -> str:
    return f"new: {day} {region}"

@task(name="thumb", aliases=["resize"])
def thumb(image: str) -> str:
    return f"new: {image}"

@task(name="ping", codec=EncryptedCodec(keys=KEYS, active="2026"))
def ping(n: int) -> str:
    return f"new: {n}"

@task(name="fresh")
def fresh(n: int) -> str:
    return f"new: {n}"

def produce():
    return [
        mail.enqueue(["x@y.z"], "hi"), report.enqueue(date(2026, 1, 2), "north"), thumb.enqueue("dog.png"),
        ping.enqueue(5), fresh.enqueue(6),
    ]

harbor = Harbor(sys.argv[1])
"""
AGENT = """
import contextlib, json, sys
import app

with app.harbor as harbor, contextlib.ExitStack() as working:
    print("ready", flush=True)
    for line in sys.stdin:
        command, *rest = json.loads(line)
        answer = None
        if command == "produce":
            answer = [handle.id for handle in app.produce()]
        elif command == "work":
            harbor.run_until_idle()
        elif command == "start":
            working.enter_context(harbor.worker_thread())
        elif command == "results":
            records = [harbor.jobs.get(job_id) for job_id in rest]
            answer = [harbor.task(one.task).read_result(
                one.result, harbor.task(one.task).codec or harbor.codec) for one in records]
        print(json.dumps(answer), flush=True)
"""


class Version:
    """A process that runs one version of the application, and does what it is told."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert "ready\n" == self._heard()

    def __call__(self, command: str, *rest: str) -> list[str]:
        """Have it do something, and return its answer once that is done."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([command, *rest]) + "\n")
        self._process.stdin.flush()
        answer: list[str] = json.loads(self._heard())
        return answer

    def _heard(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@contextmanager
def version(folder: Path, source: str, url: str) -> Generator[Version]:
    """Run a version from a source tree of its own."""
    folder.mkdir()
    (folder / "app.py").write_text(source)
    (folder / "agent.py").write_text(AGENT)
    with subprocess.Popen(
        [sys.executable, "agent.py", url],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Version(process)
            process.stdin.close()  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
            assert 0 == process.wait(30)
        finally:
            process.kill()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/jobs.db"
        return
    ground = Ground(server().conninfo)
    yield ground.url
    ground.remove()


Parked = Callable[[], dict[str, str]]


@pytest.fixture
def parked(url: str, capsys: pytest.CaptureFixture[str]) -> Parked:
    """Return a function that asks the command line for what is parked, and why, by job."""

    def ask() -> dict[str, str]:
        capsys.readouterr()
        assert 0 == run(["--url", url, "jobs", "list", "--state", "parked", "--json"])
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return {str(line["id"]): str(line["reason"]) for line in lines}

    return ask


def test_a_rolling_deploy_loses_nothing(
    url: str, parked: Parked, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with version(tmp_path / "old", OLD, url) as old, version(tmp_path / "new", NEW, url) as new:
        # The new version alone: it runs what it understands, by an upgrade, an alias and an old key.
        mail, report, resize, ping = old("produce")
        new("work")
        waiting = parked()
        assert [report] == list(waiting)
        assert "does not fit the signature of task 'report'" in waiting[report]
        assert 1 == run(["--url", url, "jobs", "retry", report])
        assert "what is parked is taken by itself" in capsys.readouterr().err
        assert ["new: a@b.c,a@b.c hello", "new: cat.png", "new: 4"] == new("results", mail, resize, ping)

        # The old version alone: it runs what was left to it, and nothing that the new one has sent.
        sent = new("produce")
        old("work")
        waiting = parked()
        assert ["old: day 3"] == old("results", report)
        assert set(sent) == set(waiting)
        mail, report, thumb, ping, fresh = (waiting[job] for job in sent)
        assert "does not fit the signature of task 'mail'" in mail
        assert "does not fit the signature of task 'report'" in report
        assert "task 'thumb' is not registered" in thumb
        assert "the key '2026', which is not here" in ping
        assert "task 'fresh' is not registered" in fresh

        # The new version comes back: each is admitted, once it is there.
        new("work")
        assert {} == parked()
        assert [
            "new: x@y.z hi",
            "new: 2026-01-02 north",
            "new: dog.png",
            "new: 5",
            "new: 6",
        ] == new("results", *sent)


def test_two_versions_work_side_by_side(url: str, tmp_path: Path) -> None:
    with version(tmp_path / "old", OLD, url) as old, version(tmp_path / "new", NEW, url) as new:
        old("start")
        new("start")
        ids = [*old("produce"), *new("produce"), *old("produce"), *new("produce")]

        with Harbor(url, registry=Registry()) as harbor:

            def all_done() -> bool:
                return {JobState.SUCCEEDED} == {harbor.jobs.get(job).state for job in ids}

            eventually(all_done, "that all have succeeded")

        results = new("results", *ids)
        for at in (0, 9):  # of each round: mail, report, resize, ping of the old, and the five of the new
            assert results[at] in ("old: a@b.c x2", "new: a@b.c,a@b.c hello")
            assert "old: day 3" == results[at + 1]
            assert {"old: ", "new: "} >= {results[at + 2][:5], results[at + 3][:5]}
            assert {"new: "} == {one[:5] for one in results[at + 4 : at + 9]}
