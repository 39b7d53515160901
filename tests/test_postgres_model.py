"""The stateful model of the contract, run against the PostgreSQL driver."""

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from taskharbor_conformance.model import contract_machine
from tests.support.postgres_place import emptied_places


def test_any_order_of_verbs_follows_the_contract() -> None:
    # The same runs every time: a pull request should not fail for a bug that was there before it.
    run_state_machine_as_test(
        contract_machine(emptied_places()),
        settings=settings(
            max_examples=8,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            phases=[Phase.generate],  # reducing an example takes longer than a test may
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_any_order_of_verbs_follows_the_contract_at_length() -> None:
    run_state_machine_as_test(
        contract_machine(emptied_places()),
        settings=settings(
            max_examples=500,
            stateful_step_count=80,
            deadline=None,
            database=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
