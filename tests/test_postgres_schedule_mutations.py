"""What PostgreSQL does for schedules and leadership, broken on purpose: the suite's cases, or who meets, must notice.

As in `test_postgres_mutations`. A mutation's `rule` is the family whose cases have to notice.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("psycopg", reason="needs the extra `postgres`")

from taskharbor_conformance import cases
from tests import test_postgres_schedules as scenarios
from tests.support.postgres_place import shared_schema
from tests.support.postgres_walk import Meeting, meeting
from tests.test_mutations import Mutation, first_failing, misplaced
from tests.test_postgres_mutations import broken, mutant, name, places

SCHEDULE, DECLARE, DUE, FIRE, LEADER = (
    "schedule",
    "schedule_declare",
    "schedule_due",
    "schedule_fire",
    "leader",
)

BY_CASES = [
    broken(
        SCHEDULE, "schedule", "ORDER BY s.name LIMIT", "ORDER BY s.name DESC LIMIT", "names are in no order"
    ),
    broken(SCHEDULE, "schedule", "s.name > ${}", "s.name >= ${}", "the last of a page comes again"),
    broken(
        SCHEDULE, "schedule", "AND s.paused_at IS NULL)\nSELECT", ")\nSELECT", "pausing again counts anew"
    ),
    broken(SCHEDULE, "schedule", "after = {_NOW},", "after = s.after,", "a pause's ticks are made up for"),
    broken(SCHEDULE, "schedule", "waiting_tick = NULL, rev", "rev", "a tick waits through a pause"),
    broken(SCHEDULE, "schedule", "AND s.paused_at IS NOT NULL)", ")", "what was not paused is resumed"),
    broken(SCHEDULE, "schedule", "gone AS (DELETE", "gone AS (SELECT 1), n AS (SELECT", "nothing is deleted"),
    broken(
        SCHEDULE,
        "declaring",
        "request.replace and there.application is None",
        "request.replace",
        "a declared one is replaced by hand",
    ),
    broken(
        SCHEDULE, "declaring", "        if there is None:\n", "        if True:\n", "names are created twice"
    ),
    broken(SCHEDULE, "schedule_rows", "payload=payload)", 'payload=b"")', "a template has no arguments"),
    broken(DECLARE, "declaring", "    if written.removed:\n", "    if False:\n", "nothing is ever removed"),
    broken(DECLARE, "declaring", "    yield from change(written.changed)\n", "", "nothing is ever changed"),
    broken(
        DECLARE,
        "declaring",
        "UNION SELECT * FROM",
        "EXCEPT SELECT * FROM",
        "only what is not declared is seen",
    ),
    broken(DECLARE, "declaring", "if there else ())", "if False else ())", "an old worker takes over again"),
    broken(DECLARE, "declaring", "number = excluded.number,", "", "a rollback is not the present one"),
    broken(
        DECLARE,
        "declaring",
        "DESC OFFSET {DECLARATIONS}",
        "DESC OFFSET 10",
        "few declarations are remembered",
    ),
    broken(
        DECLARE, "schedule_rows", "next_at = s.next_at, ended", "ended", "another trigger keeps the next tick"
    ),
    broken(DECLARE, "schedule_rows", "revision = s.revision, after", "after", "a change leaves the revision"),
    broken(FIRE, "firing", "if there.get(firing.name) == firing.revision:", "if True:", "any revision moves"),
    broken(
        FIRE, "firing", "            del there[firing.name]", "            pass", "a batch moves one twice"
    ),
    broken(FIRE, "firing", "<= $2::text::bigint)", ">= 0)", "a leader of old fires"),
    broken(
        FIRE,
        "firing",
        "last_job = coalesce(f.last_job, s.last_job)",
        "last_job = f.last_job",
        "it is forgotten",
    ),
    broken(
        FIRE, "firing", "coalesce(f.last_tick, s.last_tick)", "f.last_tick", "a trigger loses the last tick"
    ),
    broken(
        FIRE, "firing", "missed = s.missed + f.missed", "missed = f.missed", "missed ticks are not added up"
    ),
    broken(
        FIRE, "firing", "THEN s.next_at ELSE f", "THEN NULL ELSE f", "a trigger by hand loses the next tick"
    ),
    broken(FIRE, "firing", "THEN s.waiting_tick ELSE f", "THEN NULL ELSE f", "a trigger loses what waits"),
    broken(FIRE, "firing", "SET revision = s.revision + 1, last", "SET last", "a firing leaves the revision"),
    broken(DUE, "schedule", "LIMIT 1) IS NOT NULL", "LIMIT 1) IS NULL", "who runs is taken for idle"),
    broken(DUE, "schedule", "AND NOT {BUSY}),", "),", "what waits for a job is due while that runs"),
    broken(DUE, "schedule", "ORDER BY min(due), name", "ORDER BY name", "names go before instants"),
    broken(DUE, "schedule", "if len(listed) > limit:", "if False:", "what the limit left is not told"),
    broken(DUE, "schedule", "AND x.due < timestamptz 'infinity' ORDER", "ORDER", "a pause is foreseen"),
    broken(LEADER, "leader", "fence = l.fence + 1,", "fence = l.fence,", "a new leader has the old fence"),
    broken(
        LEADER, "leader", "since = (SELECT now FROM clock),\n", "\n", "a new leader leads since the old one"
    ),
    broken(LEADER, "leader", "(l.expires_at <= (SELECT now FROM clock)\n", "(true\n", "anybody takes over"),
    broken(
        LEADER,
        "leader",
        "AND l.worker = $3::text AND l.exp",
        "AND l.exp",
        "who does not lead prolongs the lease",
    ),
    broken(
        LEADER, "leader", "AND worker = $3::text AND", "AND $3::text IS NOT NULL AND", "anybody ends a lead"
    ),
    broken(
        LEADER,
        "leader",
        "FROM taskharbor.leader l WHERE l.expires_at > {_NOW}",
        "FROM taskharbor.leader l WHERE {_NOW} IS NOT NULL",
        "who led is listed",
    ),
]


def second_is_told(met: Meeting) -> None:
    scenarios.test_who_would_lead_and_comes_second_is_told_who_does(met, led=False)


BY_SCENARIOS = [
    (broken("", file, old, new, why), scenario)
    for file, old, new, why, scenario in (
        (
            "firing",
            "ORDER BY s.name FOR UPDATE OF s",
            "ORDER BY s.name",
            "schedules are not locked",
            scenarios.test_of_two_who_fire_at_once_one_makes_the_jobs,
        ),
        (
            "firing",
            "FOR KEY SHARE",
            "",
            "the fence is read and not held",
            scenarios.test_a_leader_that_stops_within_a_firing_is_not_overtaken_before_it_has_ended,
        ),
        (
            "firing",
            "FOR KEY SHARE",
            "FOR SHARE",
            "a leader waits for its own firing",
            scenarios.test_a_leader_goes_on_leading_while_it_fires,
        ),
        (
            "firing",
            "'5s', true",
            "'1h', true",
            "who stops within a firing leads on",
            scenarios.test_a_leader_that_stops_within_a_firing_is_cut_off_soon,
        ),
        (
            "schedule",
            "paused_by = $3::text, reason = $4::text,\n    revision = s.revision + 1",
            "paused_by = $3::text, reason = $4::text",
            "a firing read before a pause goes through",
            scenarios.test_a_firing_beside_a_pause_changes_nothing,
        ),
        (
            "schedule",
            "AND s.paused_at IS NULL\n    AND NOT",
            "\n    AND NOT",
            "what is paused fires what waits",
            scenarios.test_what_is_paused_beside_a_firing_keeps_what_that_has_written,
        ),
        (
            "firing",
            "THEN s.ended ELSE f",
            "THEN false ELSE f",
            "a trigger by hand begins a schedule again",
            scenarios.test_a_trigger_by_hand_leaves_what_has_ended_and_what_nobody_has_led,
        ),
        (
            "firing",
            "<= $2::text::bigint)",
            "= $2::text::bigint)",
            "where nobody has led a fence is of old",
            scenarios.test_a_trigger_by_hand_leaves_what_has_ended_and_what_nobody_has_led,
        ),
        (
            "leader",
            "        if rows:\n            return",
            "        if True:\n            return",
            "who comes second is told nothing",
            second_is_told,
        ),
        (
            "declaring",
            "        yield Query(_LOCK)\n        judged",
            "        judged",
            "two declare at once",
            scenarios.test_workers_that_declare_at_once_come_one_after_the_other,
        ),
        (
            "declaring",
            "        judged = yield from _judged(request)  # another may have declared meanwhile\n",
            "",
            "who has waited declares what is there",
            scenarios.test_workers_that_declare_the_same_at_once_declare_it_once,
        ),
        (
            "declaring",
            "        return []\n    yield Query(_LOCK)\n",
            "        return []\n",
            "two create at once",
            scenarios.test_names_that_two_create_at_once_are_created_once,
        ),
    )
]
_VERBS = {
    "declaring": ["schedule_create", "schedule_declare"],
    "firing": ["schedule_fire"],
    "leader": ["leader_list", "leader_take"],
    "schedule": ["schedule_delete", "schedule_due", "schedule_find", "schedule_pause"],
}


def test_every_mutation_has_its_place() -> None:
    assert misplaced([*BY_CASES, *(mutation for mutation, _ in BY_SCENARIOS)]) == []


@pytest.mark.slow
@pytest.mark.parametrize("mutation", BY_CASES, ids=name)
def test_what_is_broken_is_noticed_by_a_case(mutation: Mutation, tmp_path: Path) -> None:
    with mutant(tmp_path, mutation) as package:
        noticed = first_failing(cases(family=mutation.rule), places(package))

    assert noticed, f"{mutation.rule}: {mutation.why}, and no case of that family fails"


@contextmanager
def played_with(package: str) -> Generator[None]:
    """Let those who meet use a copy of the driver."""
    with pytest.MonkeyPatch.context() as patch:
        for file, verbs in _VERBS.items():
            module = importlib.import_module(f"{package}.{file}")
            for verb in verbs:
                patch.setattr(scenarios, verb, getattr(module, verb))
        yield


@pytest.mark.slow
@pytest.mark.parametrize(("mutation", "scenario"), BY_SCENARIOS, ids=name)
def test_what_is_broken_fails_where_some_meet(
    mutation: Mutation, scenario: Callable[[Meeting], None], tmp_path: Path
) -> None:
    with (
        mutant(tmp_path, mutation) as package,
        played_with(package),
        meeting(shared_schema()) as there,
        pytest.raises(Exception),  # noqa: B017, PT011 - a mutant may break in any way
    ):
        scenario(there)


@pytest.mark.slow
def test_an_unmutated_copy_plays_its_scenarios(tmp_path: Path) -> None:
    # Else a mutant might fail for what the copying did to it.
    with mutant(tmp_path, None) as package, played_with(package):
        for scenario in {scenario for _, scenario in BY_SCENARIOS}:
            with meeting(shared_schema()) as there:
                scenario(there)
