"""Acts, limits and what is shown in PostgreSQL, broken on purpose: `test_postgres_acts` must notice.

As in `test_postgres_mutations`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("psycopg", reason="needs the extra `postgres`")

from taskharbor.errors import StoreUnavailable
from tests import test_postgres_acts as acts
from tests.support.postgres_place import SharedSchema, shared_schema
from tests.test_mutations import Mutation, misplaced
from tests.test_postgres_mutations import broken, mutant, name

ENTERED = """            verb, together = with_entry(verb), True
        attempt = _Attempt(self._shared)
        while True:
            step = attempt.step(request)
            async with"""
BY_TESTS: list[tuple[Mutation, Callable[[SharedSchema], None]]] = [
    (broken("acts", file, old, new, why), test)
    for file, old, new, why, test in (
        (
            "desk",
            ENTERED,
            ENTERED.replace("verb, together = with_entry(verb), True", "verb = with_entry(verb)"),
            "an act stands without its entry",
            acts.test_an_act_that_cannot_be_written_down_is_not_carried_out,
        ),
        (
            "audit",
            "at <= {_NOW} - {",
            "at <= {_NOW} + {",
            "the trail is forgotten",
            acts.test_entries_outlive_a_year_and_no_more,
        ),
        (
            "limit",
            "    if not (yield from _news(request.limits)):\n        return\n",
            "",
            "what is declared already is declared anew",
            acts.test_declaring_what_is_declared_waits_for_nobody_and_writes_nothing,
        ),
        (
            "limit",
            "        yield Query(_LOCK_LEASES)\n",
            "",
            "leases not yet committed do not count",
            acts.test_leases_taken_before_the_first_limit_count_even_those_not_yet_committed,
        ),
        (
            "limit",
            "    yield from _restart(before, after)\n",
            "",
            "a new rate goes on from an old one",
            acts.test_a_rate_begins_with_its_whole_burst_unless_only_its_numbers_change,
        ),
        (
            "limit",
            "and Scope(ScopeKind.KEYS, scope.name) not in rated",
            "",
            "a key's own numbers give it a burst",
            acts.test_a_rate_begins_with_its_whole_burst_unless_only_its_numbers_change,
        ),
        (
            "shut",
            "({tasks}) <> (",
            "({tasks}) OR (",
            "no key is excepted",
            acts.test_what_is_kept_back_is_shown_counted_and_filtered_as_parked,
        ),
        (
            "gates",
            'sql = _GATES + (_OF_SCOPES if lines is not None else "") + (_COUNTED if rules.counts else "")',
            'sql = _GATES + (_OF_SCOPES if lines is not None else "")',
            "nothing runs",
            acts.test_what_is_kept_back_is_shown_counted_and_filtered_as_parked,
        ),
        (
            "queue",
            "WHEN {{kept_back}} THEN 'parked'",
            "WHEN {{kept_back}} THEN 'ready'",
            "queues count what is kept back as ready",
            acts.test_what_is_kept_back_is_shown_counted_and_filtered_as_parked,
        ),
        (
            "control",
            "        if state is JobState.READY and reason(gates, task, part):\n",
            "        if False:\n",
            "what is kept back is deleted as ready",
            acts.test_jobs_that_are_kept_back_are_deleted_as_parked_ones,
        ),
        (
            "retention",
            "PARTITION BY h.task ",
            "",
            "all tasks together keep the last ones",
            acts.test_rules_are_applied_part_by_part_to_all_partitions,
        ),
        (
            "retention",
            "h.task <> ALL ($2",
            "'' <> ALL ($2",
            "a rule for all goes before a task's own",
            acts.test_rules_are_applied_part_by_part_to_all_partitions,
        ),
        (
            "retention",
            "AND {_FREE} AND",
            "AND",
            "steps are taken from under a flow",
            acts.test_steps_of_a_flow_that_has_not_ended_are_kept,
        ),
    )
]


def test_every_mutation_has_its_place() -> None:
    assert [] == misplaced([mutation for mutation, _ in BY_TESTS])


@pytest.mark.slow
@pytest.mark.parametrize(("mutation", "test"), BY_TESTS, ids=name)
def test_what_is_broken_is_noticed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mutation: Mutation,
    test: Callable[[SharedSchema], None],
) -> None:
    schema = shared_schema()
    schema.empty()
    with mutant(tmp_path, mutation) as package, monkeypatch.context() as patch:
        patch.setattr(acts, "PostgresDriver", importlib.import_module(package).PostgresDriver)
        with pytest.raises((AssertionError, pytest.fail.Exception, StoreUnavailable)):
            test(schema)
    schema.empty()
