"""The fixtures for pytest, in a pytest of their own; and the page's own examples for pytest and unittest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.support import ROOT, SOURCES
from tests.support.pages import blocks_of

PAGE = ROOT / "docs" / "how-to" / "testing-your-tasks.md"


def run(folder: Path, *arguments: str) -> str:
    """Run Python there and return what it printed."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("TASKHARBOR_", "PYTEST_"))
            },
            "PYTHONPATH": str(SOURCES),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            # Of no moment to an inline harbor.
            "TASKHARBOR_URL": "nowhere://",
            "TASKHARBOR_QUEUES": "another",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout + done.stderr


def pytest_in(folder: Path, *arguments: str) -> str:
    return run(folder, "-m", "pytest", "-q", "-W", "error", "-p", "taskharbor_pytest", *arguments)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A folder with the files that the page shows."""
    for block in blocks_of(PAGE):
        if block.own_file is not None:
            (tmp_path / block.own_file).write_text(block.code + "\n", encoding="utf-8")
    return tmp_path


def test_the_pages_examples_for_pytest_and_unittest_pass(page: Path) -> None:
    assert "4 passed" in pytest_in(page)
    assert "OK" in run(page, "-m", "unittest", "-q", "test_unit")


def test_a_harbor_is_current_in_threads_and_what_was_installed_is_restored(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        """
from concurrent.futures import ThreadPoolExecutor

import pytest

from taskharbor import Harbor, task
from taskharbor.call.dispatcher import installed

@task
def add(x: int, y: int) -> int:
    return x + y

@pytest.fixture(scope="session", autouse=True)
def application():
    with Harbor("memory://") as harbor:
        yield harbor.install()

def test_threads_see_it(inline_harbor, harbor_clock):
    assert inline_harbor.clock is harbor_clock
    with ThreadPoolExecutor(1) as pool:
        handle = pool.submit(add.enqueue, 1, 2).result()
    assert {"succeeded": 1} == inline_harbor.drain().settled
    assert 3 == handle.result()

def test_afterwards_the_old_one_is_back(application):
    assert installed() is application
""",
        encoding="utf-8",
    )

    assert "2 passed" in pytest_in(tmp_path)


def test_who_uses_no_fixture_does_not_import_taskharbor(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        """
import sys

def test_nothing_came_with_the_plugin():
    assert "taskharbor_pytest" in sys.modules
    assert [] == [name for name in sys.modules if name.partition(".")[0] in ("taskharbor", "msgspec")]
""",
        encoding="utf-8",
    )

    assert "1 passed" in pytest_in(tmp_path)


def test_the_fixtures_are_listed_with_their_meaning(tmp_path: Path) -> None:
    listed = pytest_in(tmp_path, "--fixtures")

    for name in ("inline_harbor", "harbor_clock", "taskharbor_app"):
        assert name in listed
