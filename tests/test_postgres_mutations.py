"""The PostgreSQL driver is broken on purpose, piece by piece, and the tests have to notice.

As in `test_mutations`: a mutation is a text replacement in a copy of the driver. What keeps a rule of the contract must
be noticed by a case of that rule; what keeps reserve correct under concurrency, by chance histories of a simulated
server or by a scenario of `test_postgres_reserve`, played with the broken driver.
"""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from taskharbor.driver import Driver
from taskharbor_conformance import DriverFactory, OpenDriver, PlaceWithCallers
from tests import test_postgres_marks as marks_tests
from tests import test_postgres_reserve as scenarios
from tests.support import postgres_simulated, postgres_walk
from tests.support.postgres_place import shared_schema
from tests.support.postgres_using import OfPsycopg, calling, schema_with_orders
from tests.support.postgres_walk import Meeting, meeting
from tests.test_mutations import PACKAGE, Mutation, first_failing, misplaced, quick_first, replace

POSTGRES = "drivers/postgres/"
MUTANT = "mutant_postgres"
TRIES = 3000
"""Histories after which a mutant of the marks must have missed a job. As a rule it takes a few dozen."""


def broken(by: str, file: str, old: str, new: str, why: str) -> Mutation:
    """Return a mutation of one of the driver's files; `by` is the rule that it breaks, or what notices it."""
    return Mutation(by, f"{POSTGRES}{file}.py", old, new, why)


LATE, LOCKED, TROUBLED, ALONE = "late", "locked", "troubled", "alone"
HISTORIES = {
    LATE: (marks_tests.LATE, 0.0),
    LOCKED: (marks_tests.LOCKED, 2.0),
    TROUBLED: ((*marks_tests.TROUBLED, "step back"), 10.0),
}

MARKS = [
    broken(
        LATE,
        "marks",
        "self._late.update((xid, self._met_since) for xid in running if xid in unlisted)",
        "pass",
        "who had a number that the last snapshot could not list counts as new",
    ),
    broken(
        LATE,
        "marks",
        'end = (self._met_since if met else seen.now, "")',
        'end = (seen.now, "")',
        "marks move past those who were met for the first time",
    ),
    broken(
        LATE,
        "marks",
        "bool(met) or seen.xmax < seen.own",
        "bool(met)",
        "those whom the snapshot could not list do not count as met",
    ),
    broken(
        LATE,
        "marks",
        "            self._marks[lane] = ended\n",
        "",
        "no mark goes back for who has ended",
    ),
    broken(
        LATE,
        "marks",
        "self._late.update(dict.fromkeys(met, self._met_since))",
        "self._late.update(dict.fromkeys(met, seen.now))",
        "whoever is met is taken to have just begun",
    ),
    broken(
        LATE,
        "marks",
        "min(ended, default=seen.now)",
        "max(ended, default=seen.now)",
        "marks go back for the youngest only",
    ),
    broken(
        LATE,
        "marks",
        "        if any(lane in lanes for lane in missed):\n            return True\n",
        "",
        "nobody is told that marks went back",
    ),
    broken(
        LATE,
        "marks",
        "if place < (self.start(lane) if lane in walked else mark)",
        "if lane in walked and place < self.start(lane)",
        "marks of queues that are paused do not go back",
    ),
    broken(
        LATE,
        "marks",
        "self._numbered_at = -1",
        "self._numbered_at = 1 << 60",
        "who was there before the first scan is not known to be late",
    ),
    broken(
        LOCKED,
        "marks",
        "elif now >= self._back_at and self._unsure(lanes):",
        "elif False:",
        "nobody looks back at what was locked",
    ),
    broken(
        LOCKED,
        "marks",
        "if self.start(lane) <= self._sure.get(lane, BEGINNING):",
        "if True:",
        "a scan from the mark makes sure what is before it",
    ),
    broken(
        LOCKED,
        "marks",
        "end if lane not in left else min(_before(left[lane]), end)",
        "end",
        "what was left counts as taken",
    ),
    broken(
        LOCKED,
        "marks",
        '    return position[0], ""\n',
        "    return position\n",
        "looking back begins behind what was locked",
    ),
    broken(
        TROUBLED,
        "marks",
        "if self._last is None or now >= self._whole_at:",
        "if self._last is None:",
        "nothing is ever scanned from the beginning again",
    ),
]

BY_THEMSELVES: list[tuple[Mutation, Callable[[], None]]] = [
    (
        broken(
            ALONE,
            "marks",
            "missed = self._beyond(ended, ())",
            "missed = self._beyond(ended, lanes)",
            "a scan cut short counts as having seen every lane",
        ),
        marks_tests.test_a_scan_from_the_beginning_that_was_cut_short_has_not_seen_them,
    ),
    (
        broken(
            ALONE,
            "marks",
            "min(taken[lane], end))",
            "taken[lane])",
            "a scan cut short moves its marks past those who were met",
        ),
        marks_tests.test_a_scan_cut_short_moves_its_marks_no_further_than_others,
    ),
    (
        broken(
            ALONE,
            "marks",
            "if last is None or seen.own != last.own:",
            "if True:",
            "scans of one transaction count as transactions of their own",
        ),
        marks_tests.test_scans_of_one_transaction_share_a_number_and_the_instant_it_was_given_at,
    ),
    (
        broken(
            ALONE,
            "marks",
            "            self._sure[lane] = min(self._sure.get(lane, BEGINNING), ended)\n",
            "",
            "a lane that was set back stays sure",
        ),
        marks_tests.test_what_was_late_and_then_locked_when_a_scan_was_cut_short_is_looked_at_again,
    ),
    (
        broken(
            ALONE,
            "marks",
            "seen.server != last.server or ",
            "",
            "a server that was started anew goes unnoticed",
        ),
        marks_tests.test_a_server_that_was_started_anew_is_noticed,
    ),
    (
        broken(
            ALONE,
            "marks",
            "max(_BACK_SECONDS, _SHARE * took)",
            "_BACK_SECONDS",
            "looking back may take all the time",
        ),
        marks_tests.test_looking_back_takes_a_fortieth_of_the_time_at_most,
    ),
]

RESERVE: Sequence[tuple[Mutation, Callable[[Meeting], None]]] = [
    (
        broken("reserve", file, old, new, why),
        scenario,
    )
    for file, old, new, why, scenario in (
        (
            "scan",
            "pg_snapshot_xmax(pg_current_snapshot())::text::bigint",
            "pg_current_xact_id()::text::bigint",
            "xmax is taken for the next number",
            scenarios.test_a_job_whose_producer_commits_between_two_scans_is_found_by_the_second,
        ),
        (
            "scan",
            "(SELECT coalesce(json_agg(x::text::bigint), '[]') FROM pg_snapshot_xip(pg_current_snapshot()) x)",
            "'[]'::json",
            "nobody is listed as under way",
            scenarios.test_a_job_that_commits_after_later_ones_were_taken_is_found,
        ),
        (
            "reserve",
            "    if len(rows) >= request.limit:\n        return True\n",
            "",
            "a limit reached beside a quota is taken for the end",
            scenarios.test_a_backlog_beside_the_quota_of_an_empty_queue_is_taken_without_a_pause,
        ),
        (
            "reserve",
            "return any(taken[take.name] >= take.limit for take in request.queues)",
            "return False",
            "a quota reached is taken for the end",
            scenarios.test_a_backlog_behind_a_quota_is_taken_without_a_pause,
        ),
        (
            "scan",
            "AND $19::text = (SELECT words FROM known)",
            "AND $19::text IS NOT NULL",
            "jobs are taken although there are lanes nobody knew of",
            scenarios.test_a_stray_lane_not_known_yet_is_not_passed_over,
        ),
        (
            "scan",
            "string_agg(id::text, ',' ORDER BY id)",
            "max(id)::text",
            "the greatest number of the strays stands for all",
            scenarios.test_a_kind_of_strays_that_commits_after_a_later_one_is_met,
        ),
        (
            "reserve",
            "next_due_in=as_duration(0) if again else",
            "next_due_in=",
            "who took something is not told that marks went back",
            scenarios.test_a_held_writer_that_has_enqueued_itself_is_found_at_its_end,
        ),
        (
            "reserve",
            "            if rows or not again or scans == SCANS:\n",
            "            if True:\n",
            "a reserve ends although marks went back",
            scenarios.test_a_job_that_commits_after_later_ones_were_taken_is_found,
        ),
        (
            "scan",
            "LIMIT l.room FOR UPDATE SKIP LOCKED)",
            "LIMIT l.room FOR UPDATE NOWAIT)",
            "rows that others hold are not passed over",
            scenarios.test_rows_that_a_reserver_locks_and_rolls_back_are_found_within_two_seconds,
        ),
        (
            "scan",
            "WHERE f.nth <= coalesce(q.room{used}, f.nth)",
            "WHERE q.room IS NOT NULL OR q.room IS NULL",
            "a queue gives more than its quota",
            scenarios.test_a_quota_counts_over_all_priorities,
        ),
        (
            "scan",
            "WHERE lane <> {SOLO} OR number = (SELECT number FROM solo)",
            "WHERE true",
            "solo jobs are taken beside one another",
            scenarios.test_of_solo_jobs_at_several_priorities_one_is_taken,
        ),
        (
            "scan",
            "AND j.id NOT IN (SELECT uid FROM taken) ORDER BY",
            "AND j.id NOT IN (SELECT uid FROM taken) AND false ORDER BY",
            "what was left is not told",
            scenarios.test_rows_that_a_reserver_locks_and_rolls_back_are_found_within_two_seconds,
        ),
    )
] + [
    (
        broken(
            "reserve",
            "rows",
            "CASE WHEN pg_current_xact_id() IS NOT NULL\n"
            "    THEN coalesce($1::text::timestamptz, clock_timestamp()) END",
            "coalesce($1::text::timestamptz, clock_timestamp())",
            "the clock is read before there is a number",
        ),
        scenarios.test_every_statement_that_makes_a_job_due_has_its_number_before_it_reads_the_clock,
    )
]

CONTRACT = [
    broken(
        "4.1",
        "storing",
        'id NOT IN (SELECT id FROM known)),\n{_ADD.format(said="fresh")}',
        'id NOT IN (SELECT id FROM known) OFFSET 1),\n{_ADD.format(said="fresh")}',
        "the first of a batch is not stored",
    ),
    broken(
        "4.2",
        "scan",
        "AND (j.due, j.id) > (l.due, l.id) AND j.token IS NULL",
        "AND (j.due, j.id) > (l.due, l.id)",
        "a leased job is taken again",
    ),
    broken(
        "4.3",
        "settling",
        "WHERE j.id = s.id AND j.token = s.token {which} LIMIT 1",
        "WHERE j.id = s.id {which} LIMIT 1",
        "any token makes a success",
    ),
    broken(
        "4.3",
        "settling",
        "WHERE j.id = s.id AND j.token = s.token AND (j.waits IS NULL OR {{steps}}) LIMIT 1",
        "WHERE j.id = s.id AND (j.waits IS NULL OR {{steps}}) LIMIT 1",
        "any token gives a job back",
    ),
    broken(
        "4.3",
        "settling",
        "SET token = NULL, settled = j.token,",
        "SET token = NULL, settled = NULL,",
        "the settle of a job that waits again is not remembered",
    ),
    broken(
        "4.3",
        "scan",
        "deliveries = j.deliveries + 1",
        "deliveries = j.deliveries",
        "the fence does not grow",
    ),
    broken(
        "4.3", "reserve", "if told.held_until is not None:", "if False:", "a repeated reserve finds nothing"
    ),
    broken(
        "4.4",
        "scan",
        "if lane != SOLO or solo",
        "if lane != SOLO or True",
        "a solo job is taken beside others",
    ),
    broken(
        "4.4",
        "settling",
        "attempt = j.attempt + s.charge",
        "attempt = j.attempt + 1",
        "a hand-back costs an attempt",
    ),
    broken(
        "4.4",
        "scan",
        "guards + solos <= $12::text::integer",
        "guards + solos <= $12::text::integer + 1",
        "guarded jobs are taken beyond what is allowed",
    ),
    broken(
        "4.4",
        "lease",
        "SET token = NULL, settled = NULL, guarded = true,",
        "SET token = NULL, settled = NULL,",
        "what a worker died of is not guarded",
    ),
    broken(
        "4.5",
        "lease",
        '"""Take back the jobs of workers that are gone."""\n',
        'request = type(request)(__import__("datetime").timedelta(99), request.limit, now=request.now)\n',
        "a reclaim may come right after an outage",
    ),
    broken(
        "4.6",
        "settling",
        'due = c.now + {interval_of("coalesce(s.after, 0)")}, lost',
        "due = c.now, lost",
        "no retry waits",
    ),
    broken(
        "4.9",
        "leaving",
        "SET expires_at = c.now +",
        "SET expires_at = NULL::timestamptz +",
        "the key of a job that ended is held for ever",
    ),
    broken(
        "4.9",
        "storing",
        "expires_at = NULL WHERE k.expires_at <= (SELECT now FROM clock)",
        "expires_at = NULL",
        "a key that is held is taken",
    ),
    broken(
        "4.10",
        "scan",
        "AND j.due <= (SELECT now FROM clock)\n            ORDER",
        "AND j.due <= (SELECT now FROM clock) + interval '1 hour'\n            ORDER",
        "jobs run early",
    ),
    broken("4.10", "storing", "greatest(w.run_at, c.now)", "w.run_at", "a run_at in the past overtakes"),
    broken(
        "4.10",
        "scan",
        "WINDOW w AS (ORDER BY f.line, f.due, f.id)",
        "WINDOW w AS (ORDER BY f.line, f.queue, f.due, f.id)",
        "queues are taken one after the other",
    ),
    broken(
        "4.11",
        "settling",
        "CASE WHEN s.state = 'succeeded' OR j.cancel IS NULL THEN s.state ELSE 'cancelled' END AS state",
        "s.state AS state",
        "a failure beats a pending cancel",
    ),
    broken(
        "4.10",
        "joining/enqueue",
        "        yield Query(_NOTIFY, (channel, payload))\n",
        "        pass\n",
        "a commit of the caller's wakes nobody",
    ),
    broken(
        "4.13",
        "joining/joined",
        "Step(instant(request.now),",
        "Step(instant(None),",
        "a request's now is ignored in a transaction",
    ),
    broken(
        "4.15",
        "scan",
        "AND l.queue NOT IN (SELECT queue FROM taskharbor.pause)",
        "",
        "a paused queue gives jobs",
    ),
    broken(
        "4.16",
        "stray",
        "return self.task in tasks and build not in self.refused_by",
        "return self.task in tasks",
        "a build meets again what it refused",
    ),
    broken(
        "4.24",
        "serving",
        "counted=self._rules.counts",
        "counted=False",
        "what is leased of lines does not count",
    ),
    broken(
        "4.24",
        "scan",
        "task = ANY ($20::text::text[])",
        "task = ANY ($20::text::text[]) AND false",
        "plain jobs of a task that has limits pass them by",
    ),
    broken(
        "4.24",
        "gates",
        "WHERE r.id = u.id AND r.token = l.token LIMIT 1",
        "WHERE r.id = u.id LIMIT 1",
        "what went back counts as leased",
    ),
    broken(
        "4.24",
        "control",
        'ELSE {NORMAL} END", "part")',
        'ELSE {NORMAL} END", "NULL::text")',
        "what is requeued leaves its line",
    ),
    broken("4.24", "serving", "arrivals=self._gates.changed", "arrivals={}", "rates are forgotten"),
    broken(
        "4.24",
        "limit",
        "    step.wakes.queues.update([queue for (queue,) in (yield Query(_QUEUES))])\n",
        "    yield Query(_QUEUES)\n",
        "changed limits wake nobody",
    ),
    broken(
        "4.25",
        "lines",
        "DO UPDATE SET task = excluded.task, part = excluded.part, stray = excluded.stray",
        "DO NOTHING",
        "the first line is served first each time",
    ),
    broken(
        "4.25",
        "serving",
        "request.limit if request.partitioned_limit is None else request.partitioned_limit",
        "request.limit",
        "more of lines is taken than can be started",
    ),
    broken("4.26", "upkeep", " AND $3::text = '{Order.STOP.value}'", "", "a drain takes back a stop"),
    broken(
        "4.26",
        "lease",
        "order=None if order is None else Order(order)",
        "order=None",
        "a worker is not told of its order",
    ),
]


@contextmanager
def mutant(folder: Path, mutation: Mutation | None) -> Generator[str]:
    """Make a copy of the driver that can be imported, with one replacement, and return its name."""
    copied = folder / MUTANT
    shutil.copytree(PACKAGE / POSTGRES, copied, ignore=shutil.ignore_patterns("__pycache__"))
    if mutation is not None:
        replace(copied / mutation.file.removeprefix(POSTGRES), mutation)
    for file in copied.rglob("*.py"):
        file.write_text(file.read_text().replace("taskharbor.drivers.postgres", MUTANT))
    sys.path.insert(0, str(folder))
    try:
        importlib.invalidate_caches()
        yield MUTANT
    finally:
        sys.path.remove(str(folder))
        for loaded in [loaded for loaded in sys.modules if loaded.partition(".")[0] == MUTANT]:
            del sys.modules[loaded]


def name(mutation: object) -> str | None:
    """Return a test's name."""
    if isinstance(mutation, Mutation):
        return f"{mutation.rule}-{mutation.why.replace(' ', '_')}"
    return ""


# --- marks: on chance histories


def a_miss(kinds: Sequence[str], seconds: float) -> object:
    """Return a history after which a job is missed, None if there is none."""
    for seed in range(TRIES):
        happened = marks_tests.any_events(seed, kinds)
        for last in (0, 1):
            try:
                if marks_tests.missed(happened, last, seconds):
                    return happened
            except AssertionError:
                return happened
    return None


@pytest.mark.parametrize("mutation", MARKS, ids=name)
def test_marks_that_are_broken_miss_a_job(
    mutation: Mutation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mutant(tmp_path, mutation) as package:
        marks = importlib.import_module(f"{package}.marks")
        monkeypatch.setattr(postgres_simulated, "Marks", marks.Marks)
        monkeypatch.setattr(postgres_simulated, "Seen", marks.Seen)

        assert a_miss(*HISTORIES[mutation.rule]), mutation.why


@pytest.mark.parametrize(("mutation", "test"), BY_THEMSELVES, ids=name)
def test_marks_that_are_broken_fail_by_themselves(
    mutation: Mutation, test: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mutant(tmp_path, mutation) as package:
        monkeypatch.setattr(marks_tests, "Marks", importlib.import_module(f"{package}.marks").Marks)

        with pytest.raises(AssertionError):
            test()


# --- reserve: on scenarios


@contextmanager
def played_with(package: str, places: Sequence[ModuleType] = (postgres_walk, scenarios)) -> Generator[None]:
    """Let those who meet, in these modules, use a copy of the driver."""
    with pytest.MonkeyPatch.context() as patch:
        for file, names in {
            "carry": ["carry"],
            "control": ["job_cancel", "job_delete", "job_requeue"],
            "enqueue": ["job_enqueue"],
            "lease": ["lease_reclaim"],
            "marks": ["Marks"],
            "queue": ["queue_pause", "queue_resume"],
            "reserve": ["Walker"],
            "routine": ["Query", "Wakes"],
            "rows": ["OptionsBook"],
            "settle": ["job_settle", "job_settle_together"],
            "slots": ["Slots"],
            "step": ["Step"],
        }.items():
            module = importlib.import_module(f"{package}.{file}")
            for word in names:
                for place in places:
                    if hasattr(place, word):
                        patch.setattr(place, word, getattr(module, word))
        yield


@pytest.mark.parametrize(("mutation", "scenario"), RESERVE, ids=name)
def test_a_reserve_that_is_broken_fails_in_a_scenario(
    mutation: Mutation, scenario: Callable[[Meeting], None], tmp_path: Path
) -> None:
    with (
        mutant(tmp_path, mutation) as package,
        played_with(package),
        meeting(shared_schema()) as there,
        pytest.raises(Exception),  # noqa: B017, PT011 - a mutant may break in any way
    ):
        scenario(there)


def test_an_unmutated_copy_plays_its_scenarios(tmp_path: Path) -> None:
    # Else a mutant might fail for what the copying did to it.
    with mutant(tmp_path, None) as package, played_with(package):
        for scenario in {scenario for _, scenario in RESERVE}:
            with meeting(shared_schema()) as there:
                scenario(there)


# --- the contract: on its cases


def places(package: str) -> DriverFactory:
    """Return a factory of the copy's drivers on the shared schema."""
    make: Callable[[object], Driver] = importlib.import_module(package).PostgresDriver
    place = importlib.import_module(f"{package}.place").Place

    @contextmanager
    def make_place() -> Generator[OpenDriver]:
        schema = schema_with_orders()
        yield PlaceWithCallers(
            lambda: make(place(conninfo=schema.conninfo, schema=schema.name)),
            lambda: calling(OfPsycopg, schema),
        )

    return make_place


def test_every_mutation_of_the_contract_has_its_place() -> None:
    assert misplaced(CONTRACT) == []


@pytest.mark.slow
@pytest.mark.parametrize("mutation", CONTRACT, ids=name)
def test_a_rule_broken_in_the_driver_is_noticed(
    mutation: Mutation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "taskharbor_conformance.bench.WAKE_SECONDS", 0.5
    )  # what never comes need not be waited for

    with mutant(tmp_path, mutation) as package:
        noticed = first_failing(quick_first(mutation.rule), places(package))

    assert noticed, f"rule {mutation.rule}: {mutation.why}, and none of its cases fails"
