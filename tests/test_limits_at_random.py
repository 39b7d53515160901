"""Limits, holds and turns in any order of verbs, against a book that reads their rules naively."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from taskharbor.drivers.memory import MemoryDriver
from taskharbor.drivers.sqlite import SqliteDriver
from taskharbor_conformance import OpenDriver
from taskharbor_conformance.case import DriverFactory
from taskharbor_conformance.model.limit_machine import limits_machine
from tests.support.postgres_place import emptied_places


@contextmanager
def _sqlite() -> Generator[OpenDriver]:
    with TemporaryDirectory() as folder:
        yield lambda: SqliteDriver(Path(folder) / "jobs.db")


def _try(factory: DriverFactory, examples: int, steps: int = 40, *, quick: bool) -> None:
    # Quick ones are the same every time: a pull request should not fail for a bug that was there before it. Nor do
    # they reduce what they find, which takes longer than a test may.
    run_state_machine_as_test(
        limits_machine(factory),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=quick,
            database=None,
            phases=[Phase.generate] if quick else list(Phase),
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


def test_limits_in_memory_follow_the_book() -> None:
    _try(MemoryDriver, 60, quick=True)


def test_limits_of_sqlite_follow_the_book() -> None:
    _try(_sqlite, 20, quick=True)


def test_limits_of_postgres_follow_the_book() -> None:
    _try(emptied_places(), 6, quick=True)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("factory", "examples"), [(MemoryDriver, 2000), (_sqlite, 500)])
def test_limits_follow_the_book_at_length(factory: DriverFactory, examples: int) -> None:
    _try(factory, examples, 80, quick=False)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_limits_of_postgres_follow_the_book_at_length() -> None:
    _try(emptied_places(), 300, 60, quick=False)
