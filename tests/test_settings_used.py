"""What settings do: to a harbor without a URL, to workers, and to the command line."""

from __future__ import annotations

import logging
import os
from datetime import timedelta
from pathlib import Path

import pytest

from taskharbor import DeploymentError, DriverURLError, Harbor, OptionError
from taskharbor.cli import launching
from taskharbor.cli import worker as worker_room
from taskharbor.cli.entry import run
from taskharbor.cli.launching import Orders
from taskharbor.cli.logs import LogLevel
from taskharbor.working import settings_of
from tests.fixtures.support import run_python

SECRET = "hunter2"
APPLICATION = """
from taskharbor import Harbor, task

@task(name="shop.add")
def add(x: int, y: int) -> int:
    return x + y

harbor = Harbor()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of its own, and no settings around it."""
    for name in os.environ:
        if name.startswith("TASKHARBOR_") and not name.startswith("TASKHARBOR_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def configure(folder: Path, text: str) -> None:
    (folder / "taskharbor.toml").write_text(text, encoding="utf-8")


def test_a_harbor_without_url_takes_that_of_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    configure(folder, "url = 'sqlite:///data.db'")
    (folder / "sub").mkdir()
    monkeypatch.chdir(folder / "sub")

    with caplog.at_level(logging.INFO, logger="taskharbor"), Harbor() as harbor:
        assert [] == harbor.queues.list()

    assert (folder / "data.db").exists()
    assert f"the store's URL is taken from {folder / 'taskharbor.toml'}" in caplog.text


def test_the_environment_comes_before_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(folder, "url = 'nowhere://'")
    monkeypatch.setenv("TASKHARBOR_URL", "memory://")

    assert "memory" == Harbor().driver.name


def test_a_wrong_url_is_refused_with_its_place_and_without_its_password(folder: Path) -> None:
    configure(folder, f"url = 'nowhere://u:{SECRET}@h'")

    with pytest.raises(DriverURLError, match=r"taskharbor\.toml: no driver answers to nowhere://") as caught:
        Harbor()

    assert SECRET not in str(caught.value)


def test_what_a_worker_is_not_told_it_takes_from_the_settings(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(
        folder,
        "[worker]\nconcurrency = 3\nlease = '10s'\ngrace = '7s'\nqueues = ['mail']\nprefetch = 4\n"
        "weights = {mail = 3}\nreserved = {mail = 1}\naging = '5m'",
    )
    monkeypatch.setenv("TASKHARBOR_LEASE", "20s")
    monkeypatch.setenv("TASKHARBOR_HANDLER_PROCESSES", "1")
    monkeypatch.setenv("TASKHARBOR_HALT", "1s")
    monkeypatch.setenv("TASKHARBOR_STALL", "9s")
    monkeypatch.setenv("TASKHARBOR_WEIGHTS", "mail=4, default=2")
    monkeypatch.setenv("TASKHARBOR_AGING_SHARE", "0.5")

    settings = settings_of({"grace": timedelta(seconds=1), "queues": None})

    assert (3, 20, 1, None, 4, 1, 1, 9) == (
        settings.concurrency,
        settings.lease.total_seconds(),
        settings.grace.total_seconds(),
        settings.queues,
        settings.prefetch,
        settings.handler_processes,
        settings.halt.total_seconds(),
        settings.stall.total_seconds(),
    )
    assert ({"mail": 4, "default": 2}, {"mail": 1}, timedelta(minutes=5), 0.5) == (
        settings.weights,
        settings.reserved,
        settings.aging,
        settings.aging_share,
    )


def test_every_door_to_a_worker_refuses_wrong_settings(folder: Path) -> None:
    configure(folder, "[worker]\nleese = '10s'")

    with Harbor("memory://") as harbor:
        with pytest.raises(OptionError, match=r"'leese' \(did you mean 'lease'\?\)"):
            harbor.worker()
        with pytest.raises(OptionError, match="'leese'"):
            harbor.worker_thread()
        with pytest.raises(OptionError, match="'leese'"):
            harbor.run_until_idle()


# --- the command line


def test_the_worker_command_takes_what_it_is_not_told_from_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(
        folder, "[worker]\nprocesses = 3\nlease = '10s'\ngrace = '10s'\nhalt = '9s'\nlog_level = 'debug'"
    )
    monkeypatch.setenv("TASKHARBOR_GRACE", "20s")
    asked: list[tuple[Orders, int]] = []

    def launch(orders: Orders, processes: int) -> int:
        asked.append((orders, processes))
        return 0

    monkeypatch.setattr(worker_room, "launch", launch)
    assert 0 == run(["worker", "--lease=30s"])

    (orders, processes) = asked[0]
    assert (3, LogLevel.DEBUG) == (processes, orders.log_level)
    assert {
        "lease": timedelta(seconds=30),
        "grace": timedelta(seconds=20),
        "halt": timedelta(seconds=9),
    } == orders.settings()


def test_a_worker_says_which_file_it_has_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    configure(folder, "")
    (folder / "sub").mkdir()
    monkeypatch.chdir(folder / "sub")

    with caplog.at_level(logging.INFO, logger="taskharbor.worker"):
        launching.tell_settings()

    assert [f"settings are read from {folder / 'taskharbor.toml'}"] == caplog.messages


def test_a_command_finds_the_application_and_its_store_by_the_file(folder: Path) -> None:
    (folder / "settled_shop.py").write_text(APPLICATION, encoding="utf-8")
    configure(folder, "app = 'settled_shop:harbor'\nurl = 'sqlite:///shop.db'")
    (folder / "sub").mkdir()

    printed = run_python("-m", "taskharbor", "enqueue", "shop.add", "x=1", "y=2", cwd=folder / "sub")

    with Harbor() as harbor:
        assert [printed.strip()] == [job.id for job in harbor.jobs.find()]


def test_a_wrong_setting_ends_a_command_in_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    configure(folder, "ulr = 'memory://'")

    code = run(["jobs", "list"])

    assert 2 == code
    assert capsys.readouterr().err.startswith(
        f"Error: {folder / 'taskharbor.toml'}: there is no setting 'ulr'"
    )


def test_a_file_that_cannot_be_read_is_told_as_such(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "taskharbor.toml").mkdir()

    with pytest.raises(DeploymentError, match="cannot be read"):
        Harbor()
