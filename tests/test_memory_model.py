"""The stateful model of the contract, run against the memory driver."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from taskharbor.drivers.memory import MemoryDriver
from taskharbor_conformance.model import contract_machine


def test_any_order_of_verbs_follows_the_contract() -> None:
    # The same runs every time: a pull request should not fail for a bug that was there before it.
    run_state_machine_as_test(
        contract_machine(MemoryDriver),
        settings=settings(
            max_examples=100,
            stateful_step_count=50,
            deadline=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_any_order_of_verbs_follows_the_contract_at_length() -> None:
    run_state_machine_as_test(
        contract_machine(MemoryDriver),
        settings=settings(
            max_examples=3000,
            stateful_step_count=80,
            deadline=None,
            database=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
