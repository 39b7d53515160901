"""The stateful model of the contract, run against the SQLite driver."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from taskharbor.drivers.sqlite import SqliteDriver
from taskharbor_conformance import OpenDriver
from taskharbor_conformance.model import contract_machine


@contextmanager
def make_place() -> Generator[OpenDriver]:
    with TemporaryDirectory() as folder:
        yield lambda: SqliteDriver(Path(folder) / "jobs.db")


def test_any_order_of_verbs_follows_the_contract() -> None:
    # The same runs every time: a pull request should not fail for a bug that was there before it.
    run_state_machine_as_test(
        contract_machine(make_place),
        settings=settings(
            max_examples=25,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_any_order_of_verbs_follows_the_contract_at_length() -> None:
    run_state_machine_as_test(
        contract_machine(make_place),
        settings=settings(
            max_examples=1000,
            stateful_step_count=80,
            deadline=None,
            database=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
