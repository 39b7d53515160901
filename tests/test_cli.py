"""The command line as a user meets it: in a process of its own."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

import msgspec
import pytest

from taskharbor.drivers import available_drivers
from tests.fixtures.support import run_python


def installed() -> str:
    try:
        return version("taskharbor")
    except PackageNotFoundError:
        return "unknown (not installed)"


def test_the_package_is_the_command_line_too() -> None:
    assert f"taskharbor {installed()}\n" == run_python("-m", "taskharbor", "--version")


def cli(*arguments: str) -> str:
    return run_python("-m", "taskharbor.cli", *arguments)


def test_version_tells_the_installed_version() -> None:
    assert f"taskharbor {installed()}\n" == cli("--version")


def test_info_as_json_is_one_line_for_programs() -> None:
    told = cli("info", "--json")

    assert 1 == told.count("\n")
    found = json.loads(told)
    assert {"typer", "rich"} <= set(found.pop("packages"))
    assert {"name": "concurrency", "value": "50", "origin": "default"} in found.pop("settings")
    assert {
        "taskharbor": installed(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "msgspec": msgspec.__version__,
        "drivers": dict(available_drivers()),
        "config": None,
        "store": None,
    } == found


def test_info_for_people_has_a_line_for_everything() -> None:
    versions, settings = cli("info").split("\n\n")
    lines = {line.split()[0]: line.split(maxsplit=1)[1].strip() for line in versions.splitlines()}
    packages = lines.pop("Packages")

    assert {
        "TaskHarbor": installed(),
        "Python": platform.python_version(),
        "Platform": platform.platform(),
        "msgspec": msgspec.__version__,
        **{f"{scheme}://": origin for scheme, origin in available_drivers().items()},
    } == lines
    assert "typer " in packages
    assert ["lease", "30s", "default"] in [line.split() for line in settings.splitlines()]


@pytest.mark.parametrize("arguments", [["--help"], ["info", "--help"]])
def test_help_tells_what_there_is(arguments: list[str]) -> None:
    told = cli(*arguments)

    assert "Usage: taskharbor" in told
    assert "info" in told


@pytest.mark.parametrize("arguments", [["nonsense"], ["--nonsense"], ["info", "extra"]])
def test_a_wrong_command_ends_with_two_and_says_so_on_stderr(arguments: list[str]) -> None:
    from tests.fixtures.support import SOURCES

    ended = subprocess.run(
        [sys.executable, "-m", "taskharbor.cli", *arguments],
        env={"PYTHONPATH": str(SOURCES), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (2, "") == (ended.returncode, ended.stdout)
    assert arguments[-1] in ended.stderr
    assert "Traceback" not in ended.stderr


def test_what_only_a_worker_needs_is_loaded_with_a_worker_only() -> None:
    program = (
        "import sys, taskharbor.cli; "
        "print(sorted({'asyncio', 'taskharbor.worker', 'sqlite3', 'rich.table'} & set(sys.modules)))"
    )

    assert "[]\n" == run_python("-c", program)


def test_the_library_does_not_need_the_command_lines_packages() -> None:
    program = (
        "import sys; sys.modules['typer'] = sys.modules['rich'] = None; import taskharbor; "
        "taskharbor.Harbor('memory://').close(); print('well')"
    )

    assert "well\n" == run_python("-c", program)
