"""The one entry: all cases, and a pytest function of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from unittest import SkipTest

from taskharbor_conformance.case import Case, DriverFactory, collected

FAMILIES = (
    "enqueue",
    "unique",
    "replace",
    "reserve",
    "aged",
    "lease",
    "settle",
    "stray",
    "control",
    "queue",
    "workers",
    "retention",
    "listen",
    "report",
    "event",
    "statistics",
    "filters",
    "schedule",
    "schedule_declare",
    "schedule_due",
    "schedule_fire",
    "schedule_concurrency",
    "leader",
    "limit",
    "limit_shown",
    "rate",
    "turns",
    "hold",
    "limit_concurrency",
    "audit",
    "order",
    "retention_rules",
    "concurrency",
    "capability",
    "using",
    "flow_enqueue",
    "flow_advance",
    "flow_delivery",
    "flow_failure",
    "flow_absorb",
    "flow_cancel",
    "flow_delete",
    "flow_sequel",
    "flow_look",
    "flow_wake",
    "flow_keep",
    "flow_concurrency",
    "flow_large",
    "worker",
)


def cases(*, family: str | None = None, rule: str | None = None) -> Sequence[Case]:
    """Return the cases in order, all of them or those of one family or rule (such as `4.3`)."""
    for name in FAMILIES:
        import_module(f"{__package__}.{name}")
    return [
        case
        for case in collected()
        if (family is None or case.family == family) and (rule is None or rule in case.rules)
    ]


def conformance_test(factory: DriverFactory, *, family: str | None = None) -> Callable[[Case], None]:
    """Return a pytest test function, parametrised with every case, or those of one family.

    Assign it to a name that starts with `test_`.
    """
    import pytest

    # So that pytest shows what the two sides of a failed assert were, as it does in test files.
    families = [f"{__package__}.{name}" for name in FAMILIES]
    pytest.register_assert_rewrite(*(name for name in families if name not in sys.modules))

    @pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in cases(family=family)])
    def test(case: Case) -> None:
        try:
            case.run(factory)
        except SkipTest as reason:
            pytest.skip(str(reason))

    return test
