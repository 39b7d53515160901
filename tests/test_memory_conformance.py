"""The memory driver keeps the contract, and the suite that says so leaves no rule out."""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from unittest import SkipTest

import pytest

from taskharbor.driver import Capability, Joined
from taskharbor.drivers.memory import MemoryDriver
from taskharbor.errors import UsageError
from taskharbor_conformance import Case, OpenDriver, cases, conformance_test

test_conformance = conformance_test(MemoryDriver)


class TwinDriver(MemoryDriver):
    """Stands in for a driver of another process: several of them open one place."""

    capabilities = frozenset({Capability.BLOCKING, Capability.DURABLE, Capability.SHARED})

    def __init__(self, place: MemoryDriver) -> None:
        super().__init__()
        self._tables = place._tables


@contextmanager
def make_place() -> Generator[OpenDriver]:
    place = MemoryDriver()
    yield lambda: TwinDriver(place)


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.id) for case in cases() if case.needs in TwinDriver.capabilities]
)
def test_what_memory_cannot_do_is_tried_on_a_stand_in(case: Case) -> None:
    case.run(make_place)


def test_a_missing_capability_is_a_skip_that_names_it() -> None:
    (case, *_) = [case for case in cases() if case.needs is Capability.SHARED]

    with pytest.raises(SkipTest, match="'memory' does not offer 'shared'"):
        case.run(MemoryDriver)


def test_a_driver_that_claims_more_than_its_factory_can_show_fails() -> None:
    (case, *_) = [case for case in cases() if case.needs is Capability.SHARED]

    with pytest.raises(AssertionError, match="its factory made one driver only"):
        case.run(lambda: TwinDriver(MemoryDriver()))


def test_a_driver_that_joins_transactions_needs_a_factory_with_callers() -> None:
    class Joining(MemoryDriver):
        capabilities = frozenset({Capability.TRANSACTIONAL})

        def join(self, connection: object) -> Joined:
            raise UsageError(f"expected a connection; got {connection!r}")

    _, *tried = cases(family="using")

    for case in tried:
        with pytest.raises(AssertionError, match="its factory shows none; let it yield a `PlaceWithCallers`"):
            case.run(Joining)


@pytest.mark.parametrize("rule", [f"4.{number}" for number in range(1, 27)])
def test_every_rule_has_a_case(rule: str) -> None:
    assert cases(rule=rule)


def test_no_two_cases_have_one_name() -> None:
    names = Counter(case.id for case in cases())

    assert [name for name, count in names.items() if count > 1] == []


def _page(title: str) -> str:
    """Return the first Python example under a heading of the guide."""
    text = Path(__file__).parent.with_name("docs").joinpath("driver-contract.md").read_text(encoding="utf-8")
    return text.partition(f"\n## {title}\n")[2].partition("```python\n")[2].partition("```")[0]


def test_the_guides_page_is_a_whole_test() -> None:
    shown: dict[str, object] = {}

    exec(_page("Running the suite"), shown)  # noqa: S102 - the text is our own

    assert callable(shown["test_conformance"])
