"""Uniqueness and aging on PostgreSQL are broken on purpose, piece by piece, and the tests have to notice.

As in `test_postgres_mutations`, with the scenarios of `test_postgres_unique` and `test_postgres_aged`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from taskharbor_conformance.bench import success
from tests import test_postgres_aged as aging
from tests import test_postgres_unique as unique
from tests.support import postgres_walk
from tests.support.postgres_place import shared_schema
from tests.support.postgres_walk import Meeting, meeting
from tests.test_mutations import Mutation, first_failing, misplaced, quick_first
from tests.test_postgres_mutations import broken, mutant, name, places, played_with

PLACES = (postgres_walk, unique, aging)


def reserved_in_between(there: Meeting) -> None:
    unique.test_what_can_be_replaced_no_more_when_it_is_locked_leaves_the_key_to_a_new_job(
        unique.reserved, there
    )


def put_off_before_others(there: Meeting) -> None:
    unique.test_a_job_put_off_as_often_as_it_may_be_is_found_behind_no_mark({"priority": 0}, there)


def ends_after_it_was_handed_over(there: Meeting) -> None:
    unique.test_who_ends_after_his_key_was_handed_over_touches_it_no_more(success, there)


SCENARIOS = [
    (
        broken(
            "unique", "uniqueness", "ORDER BY {LOCK_ORDER} FOR UPDATE", "ORDER BY {LOCK_ORDER}", "no lock"
        ),
        unique.test_nobody_takes_a_job_that_is_about_to_be_replaced,
    ),
    (
        broken(
            "unique",
            "uniqueness",
            "if concerned != locked:",
            "if concerned and not locked:",
            "who has the key by now is not locked",
        ),
        unique.test_another_one_that_has_the_key_when_the_first_is_locked_is_locked_too,
    ),
    (
        broken(
            "unique",
            "uniqueness",
            "            if concerned:\n                yield Query(_LOCK, (plain_array(concerned),))\n"
            "                continue\n",
            "            if concerned:\n                yield Query(_LOCK, (plain_array(concerned),))\n",
            "nobody looks again once it is locked",
        ),
        reserved_in_between,
    ),
    (
        broken(
            "unique",
            "uniqueness",
            "SELECT was, coalesce(until, -1) FROM said",
            'SELECT was, coalesce({micros_of("k.expires_at")}, -1) FROM said',
            "a key is taken although its holder lives again",
        ),
        unique.test_a_dead_holder_that_is_requeued_before_the_key_is_taken_keeps_others_out,
    ),
    (
        broken(
            "unique",
            "uniqueness",
            "return len(rows) == len(wanted)",
            "return True",
            "a key somebody else took counts as taken",
        ),
        unique.test_a_key_that_somebody_takes_before_it_is_claimed_is_his,
    ),
    (
        broken(
            "unique",
            "replacing",
            "ELSE greatest(s.due, c.now) END",
            "ELSE s.due END",
            "a row is put behind the marks",
        ),
        put_off_before_others,
    ),
    (
        broken(
            "unique",
            "replacing",
            "\n        AND (j.queue, j.priority) = (s.queue, s.priority)",
            "",
            "a row keeps its place in another lane",
        ),
        put_off_before_others,
    ),
    (
        broken(
            "unique",
            "replacing",
            "CASE WHEN {_STAYS} THEN j.due ELSE",
            "CASE WHEN false THEN j.due ELSE",
            "who is replaced again and again goes to the end each time",
        ),
        unique.test_ready_again_and_again_it_keeps_its_place,
    ),
    (
        broken(
            "unique",
            "rows",
            "CASE WHEN pg_current_xact_id() IS NOT NULL\n"
            "    THEN coalesce($1::text::timestamptz, clock_timestamp()) END",
            "coalesce($1::text::timestamptz, clock_timestamp())",
            "the clock is read before there is a number",
        ),
        unique.test_a_replacement_has_its_number_before_it_reads_the_clock,
    ),
    (
        broken(
            "unique",
            "foresight",
            "holders = yield from holders_of(step, brought)\n",
            "holders: set[str] = set()\n",
            "what a success replaces is locked after it",
        ),
        unique.test_a_success_that_replaces_a_job_locks_it_in_order,
    ),
    (
        broken(
            "unique",
            "uniqueness",
            "            raise Unforeseen\n",
            "            pass\n",
            "a success locks one job after another, whatever their order",
        ),
        unique.test_a_success_that_comes_upon_a_job_too_late_lets_go_of_what_it_has_locked,
    ),
    (
        broken(
            "unique",
            "leaving",
            "\n    WHERE k.ctid = n.spot AND k.job_id = n.id)",
            "\n    WHERE k.task = (SELECT task FROM gone LIMIT 1))",
            "the end of a job touches keys that are another's",
        ),
        ends_after_it_was_handed_over,
    ),
    (
        broken(
            "aged",
            "aging",
            "LIMIT 1 FOR UPDATE SKIP LOCKED",
            "LIMIT 1 FOR UPDATE NOWAIT",
            "nobody is passed over",
        ),
        aging.test_elders_that_somebody_locks_are_passed_over_and_found_later,
    ),
    (
        broken(
            "aged",
            "aging",
            'ELDERS = "(SELECT jobs FROM elders)"',
            'ELDERS = "0"',
            "the walk locks as many as if there were no elders",
        ),
        aging.test_no_more_is_locked_than_is_taken,
    ),
    (
        broken(
            "aged",
            "aging",
            "PARTITION BY queue ORDER BY due, id",
            "PARTITION BY queue ORDER BY id",
            "a quota goes to others than the longest due",
        ),
        aging.test_a_quota_is_given_to_those_who_have_been_due_for_longest,
    ),
]

CONTRACT = [
    broken(
        "4.20", "holding", "CASE WHEN j.token IS NOT NULL THEN 'running' WHEN", "CASE WHEN", "nobody runs"
    ),
    broken("4.20", "holding", "if stray in parked and", "if False and", "nobody is parked"),
    broken(
        "4.20", "holding", "JobState(state), from_micros(enqueued_at),", "JobState(state), None,", "no window"
    ),
    broken("4.20", "holding", "step=bool(is_step)", "step=False", "steps are taken for jobs"),
    broken("4.20", "replacing", "stray = 0, stray_reason", "stray_reason", "what is replaced stays a stray"),
    broken(
        "4.20",
        "replacing",
        "guarded = j.guarded OR s.guarded",
        "guarded = s.guarded",
        "crashes are forgotten",
    ),
    broken("4.20", "replacing", "options = s.options, ", "", "the policy stays the old one's"),
    broken("4.20", "replacing", "digest = s.digest, ", "", "the digest stays the old one's"),
    broken("4.20", "replacing", "run_at = s.run_at, ", "", "the time stays the old one's"),
    broken(
        "4.20",
        "uniqueness",
        "wanted[name] = found.replaced[holder.job_id]",
        "pass",
        "the key keeps its digest",
    ),
    broken("4.21", "aging", "l.priority > 0 AND ", "", "the first priority takes a share"),
    broken("4.21", "aging", "AND j.due < (SELECT now", "AND j.due <= (SELECT now", "too soon"),
    broken("4.21", "aging", "l.lane <> {SOLO}", "true", "solo jobs leave their lane"),
    broken("4.21", "aging", "e WHERE guards <= $12::text::integer", "e", "guarded jobs beyond their limit"),
    broken("4.21", "aging", "y.guards + e.guards", "y.guards", "each has the guarded limit for itself"),
    broken("4.21", "aging", "y.n + e.jobs", "y.n", "elders and others are mixed"),
    broken(
        "4.21",
        "aging",
        '" - (SELECT count(*) FROM elder x WHERE x.queue = f.queue)"',
        '""',
        "quotas count twice",
    ),
    broken(
        "4.21", "aging", "least($23::text::integer, $11::text::integer)", "$11::text::integer", "no share"
    ),
    broken(
        "4.21",
        "aging",
        "PARTITION BY queue ORDER BY due, id",
        "PARTITION BY queue ORDER BY id",
        "any of a queue",
    ),
    broken("4.21", "aging", "w AS (ORDER BY due, id)) e", "w AS (ORDER BY id DESC)) e", "the youngest first"),
]


def test_every_mutation_has_its_place() -> None:
    assert misplaced([*(mutation for mutation, _ in SCENARIOS), *CONTRACT]) == []


@pytest.mark.slow
@pytest.mark.parametrize(("mutation", "scenario"), SCENARIOS, ids=name)
def test_what_is_broken_fails_in_a_scenario(
    mutation: Mutation, scenario: Callable[[Meeting], None], tmp_path: Path
) -> None:
    with (
        mutant(tmp_path, mutation) as package,
        played_with(package, PLACES),
        meeting(shared_schema()) as there,
        pytest.raises(Exception),  # noqa: B017, PT011 - a mutant may break in any way
    ):
        scenario(there)


@pytest.mark.slow
def test_an_unmutated_copy_plays_its_scenarios(tmp_path: Path) -> None:
    with mutant(tmp_path, None) as package, played_with(package, PLACES):
        for scenario in dict.fromkeys(scenario for _, scenario in SCENARIOS):
            with meeting(shared_schema()) as there:
                scenario(there)


@pytest.mark.slow
@pytest.mark.parametrize("mutation", CONTRACT, ids=name)
def test_a_rule_broken_in_the_driver_is_noticed(mutation: Mutation, tmp_path: Path) -> None:
    with mutant(tmp_path, mutation) as package:
        noticed = first_failing(quick_first(mutation.rule), places(package))

    assert noticed, f"rule {mutation.rule}: {mutation.why}, and none of its cases fails"
