"""The PostgreSQL driver keeps the contract: on PostgreSQL 18, and on 15 where it is installed.

A case costs a few connections, each of which plans its statements anew over the history's partitions. So the whole of
it is among the slow tests, and one case of each family and rule among the others. The family `using` is tried with
every kind of connection, by `test_postgres_using`.
"""

from __future__ import annotations

from collections.abc import Sequence
from unittest import SkipTest

import pytest

from taskharbor_conformance import Case, cases, conformance_test
from tests.support.postgres import PG15
from tests.support.postgres_place import emptied_places
from tests.support.postgres_using import OfPsycopg, places_of


def one_of_each() -> Sequence[Case]:
    """Return a case of each family and rule."""
    chosen: dict[tuple[str, str], Case] = {}
    for case in cases():
        for rule in case.rules if case.family != "using" else ():
            chosen.setdefault((case.family, rule), case)
    return sorted({case.id: case for case in chosen.values()}.values(), key=lambda case: case.id)


test_conformance = pytest.mark.slow(conformance_test(places_of(OfPsycopg)))
test_conformance_of_15 = pytest.mark.skipif(PG15 is None, reason="PostgreSQL 15 is not installed")(
    pytest.mark.slow(conformance_test(places_of(OfPsycopg, PG15)))
)


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in one_of_each()])
def test_conformance_in_short(case: Case) -> None:
    try:
        case.run(emptied_places())
    except SkipTest as reason:
        pytest.skip(str(reason))
