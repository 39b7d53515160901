"""The conformance suite: whether a driver keeps every promise of the contract, a case for each.

A driver's own test is a page:

    from taskharbor_conformance import conformance_test

    test_conformance = conformance_test(MyDriver)

`docs/driver-contract.md` shows the whole of it. One file a family of verbs; each case is named by the rule it tries.
"""

from taskharbor_conformance.bench import OpenDriver
from taskharbor_conformance.caller import AwaitedCaller, Caller, PlaceWithCallers
from taskharbor_conformance.case import Case, DriverFactory
from taskharbor_conformance.suite import cases, conformance_test

__all__ = [
    "AwaitedCaller",
    "Caller",
    "Case",
    "DriverFactory",
    "OpenDriver",
    "PlaceWithCallers",
    "cases",
    "conformance_test",
]
