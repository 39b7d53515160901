"""`taskharbor dev`: reload on changes, new files, source that cannot be imported, and what is missing."""

from __future__ import annotations

import builtins
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from taskharbor import Harbor, JobState, task
from taskharbor.cli.entry import run
from taskharbor.cli.exits import Exit
from tests.fixtures.support import SOURCES
from tests.support.work import ENOUGH, eventually

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")

APPLICATION = """
from taskharbor import Harbor, task

@task(name="say")
def say() -> str:
    return "first"

harbor = Harbor("sqlite:///jobs.db")
"""
CHANGED = APPLICATION.replace("from taskharbor", "from words import WORD\nfrom taskharbor", 1).replace(
    '"first"', "WORD"
)


class Dev:
    """A `taskharbor dev` that runs, and what it has said."""

    def __init__(self, folder: Path) -> None:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("TASKHARBOR_")
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "taskharbor.cli", "dev", "app.py"],
            cwd=folder,
            env={**environment, "PYTHONPATH": str(SOURCES)},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.said.extend(iter(self.process.stderr.readline, ""))

    def until(self, text: str, times: int = 1) -> None:
        eventually(lambda: sum(text in line for line in [*self.said]) >= times, f"{text!r} in {self.said}")

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(ENOUGH.total_seconds())
        self._reader.join()
        return code

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    (tmp_path / "app.py").write_text(APPLICATION, encoding="utf-8")
    running = Dev(tmp_path)
    yield running
    running.close()


def test_a_change_reloads_a_broken_one_is_waited_out_and_a_new_file_is_seen(dev: Dev, tmp_path: Path) -> None:
    @task(name="say")
    def say() -> str:
        return "of nobody"

    def answer(harbor: Harbor) -> str:
        job = say.enqueue().id
        eventually(lambda: harbor.jobs.get(job).state is JobState.SUCCEEDED, "the job was done")
        return (harbor.jobs.get(job).result or b"").decode()

    dev.until("dev: the worker is ready")
    with Harbor(f"sqlite:///{tmp_path / 'jobs.db'}") as harbor:
        before = answer(harbor)
        (tmp_path / "app.py").write_text("def broken(:", encoding="utf-8")
        dev.until("dev: the worker ended by itself, with 3; it starts again with the next change")
        (tmp_path / "words.py").write_text('WORD = "second"', encoding="utf-8")
        (tmp_path / "app.py").write_text(CHANGED, encoding="utf-8")
        dev.until("dev: the worker is ready", 2)
        after = answer(harbor)
    code = dev.end()

    assert ('"first"', '"second"', Exit.OK) == (before, after, code)
    said = "".join(dev.said)
    assert "dev: app.py changed: the worker drains, for 10s at most" in said
    assert "'app' cannot be imported: SyntaxError" in said
    assert "words.py" in said


def test_a_grace_of_nothing_is_no_grace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.py").touch()
    looped: list[tuple[list[str], timedelta]] = []

    def loop(command: list[str], paths: list[Path], grace: timedelta) -> int:
        looped.append((command, grace))
        return 0

    monkeypatch.setattr("taskharbor.cli.dev._loop", loop)

    code = run(["dev", "app.py", "--grace", "0s"])

    ((command, grace),) = looped
    assert (0, timedelta(0)) == (code, grace)
    assert "--grace=0s" in command


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        ([], Exit.DEPLOYMENT, "dev needs your tasks: taskharbor dev app.py"),
        (
            ["app.py", "--app", "other.py"],
            Exit.USAGE,
            "which application? 'app.py' as an argument, 'other.py' as --app",
        ),
        (["nope.py"], Exit.DEPLOYMENT, "there is no file"),
        (["nope.py:harbor"], Exit.DEPLOYMENT, "there is no file"),
        (["app.py", "--watch", "nowhere"], Exit.USAGE, "nowhere: there is nothing there"),
    ],
)
def test_what_cannot_be_run_is_refused(
    arguments: list[str],
    code: Exit,
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TASKHARBOR_APP", raising=False)
    (tmp_path / "app.py").touch()

    assert code == run(["dev", *arguments])
    assert why in capsys.readouterr().err


def test_without_watchfiles_it_is_said_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def without(
        name: str,
        globals_: Mapping[str, object] | None = None,
        locals_: Mapping[str, object] | None = None,
        names: Sequence[str] = (),
        level: int = 0,
    ) -> object:
        if name == "watchfiles":
            raise ModuleNotFoundError("No module named 'watchfiles'", name="watchfiles")
        return real(name, globals_, locals_, names, level)

    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.py").touch()
    monkeypatch.delitem(sys.modules, "taskharbor.cli.reloading", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)

    assert Exit.DEPLOYMENT == run(["dev", "app.py"])
    assert 'pip install "taskharbor[reload]"' in capsys.readouterr().err
