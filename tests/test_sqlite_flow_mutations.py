"""What the SQLite driver does for flows, broken on purpose: the conformance suite has to notice.

As in `test_sqlite_mutations`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.test_mutations import Mutation, first_failing, misplaced, one_in_six, quick_first
from tests.test_sqlite_mutations import broken, mutant_driver

MUTATIONS = [
    # stored
    broken(
        "4.14",
        "enqueue",
        "return WAITING if step.waits else ready,",
        "return ready,",
        "no step waits for another",
    ),
    broken("4.9", "enqueue", "for job in flow.keyed)]", "for job in ())]", "the keys of steps are not asked"),
    broken("4.14", "enqueue", "add_inputs(_given(jobs))", "add_inputs(())", "what a step was given is lost"),
    broken(
        "4.14",
        "walk",
        "AND priority = ? AND lane = ?",
        "AND priority = ? AND iif(lane = 3, 2, lane) = ?",
        "a step that waits is taken",
    ),
    # handed on
    broken(
        "4.14",
        "advance",
        " - came[job.id] for job",
        " for job",
        "no input that came in is counted",
    ),
    broken(
        "4.14",
        "advance",
        "Counter(place.job_id for place, _ in inputs)",
        "Counter(place.job_id for place in self._inputs)",
        "an input that is there already is counted again",
    ),
    broken(
        "4.14",
        "advance",
        "due = max(?2, coalesce(?2 + (step ->> 3), run_at))",
        "due = max(?2, run_at)",
        "a step does not wait for its run_in",
    ),
    broken(
        "4.14",
        "advance",
        "due = max(?2, coalesce(?2 + (step ->> 3), run_at))",
        "due = coalesce(?2 + (step ->> 3), ?2)",
        "a step is ready before its run_at",
    ),
    broken(
        "4.14",
        "advance",
        "settlement.codec, settlement.result)",
        '"json", settlement.result)',
        "a result is handed on under another codec",
    ),
    broken("4.14", "settle", "count(j.step) FROM", "0 FROM", "a batch of successes is handed on to nobody"),
    broken(
        "4.14",
        "settle",
        "        if kinds & _STEP:\n",
        "        if False:\n",
        "a mixed batch is handed on to nobody",
    ),
    broken(
        "4.14",
        "settle",
        "leaving.steps_succeeded = steps",
        "leaving.steps_succeeded = False",
        "nobody knows any more what flow a success was of",
    ),
    # what a success brings with it
    broken(
        "4.13", "advance", "self._jobs += sequel.jobs", "pass", "a job asked for on success is not stored"
    ),
    broken(
        "4.13", "advance", "self._flows += sequel.flows", "pass", "a flow asked for on success is not stored"
    ),
    broken(
        "4.14",
        "advance",
        "if flow in still_open and settlement.sequel is not None:",
        "if settlement.sequel is not None:",
        "a flow that has ended grows",
    ),
    broken(
        "4.14",
        "advance",
        "self._waits.update(settlement.sequel.waits)",
        "pass",
        "nobody waits for the steps that were added",
    ),
    # failures
    broken(
        "4.14",
        "advance",
        "if job.absorbers or job.flow is None:",
        "if job.flow is None:",
        "a failure that is taken as a value is the flow's as well",
    ),
    broken(
        "4.14",
        "advance",
        "                self._cancelled.setdefault(job.flow, fall.reason)\n",
        "                pass\n",
        "a cancelled step does not cancel its flow",
    ),
    broken(
        "4.14",
        "advance",
        "                self._failed.setdefault(job.flow, failure)\n",
        "                pass\n",
        "a dead step does not fail its flow",
    ),
    broken("4.14", "lease", "advance.fall(leaving.falls)", "advance.fall([])", "a crash fails no flow"),
    broken(
        "4.14",
        "control",
        "advance.fall([fall], table)",
        "advance.fall([], table)",
        "deleting a step does not cancel its flow",
    ),
    broken(
        "4.14",
        "ending",
        "        if on_failure is not None:\n",
        "        if False:\n",
        "on_failure is not told",
    ),
    broken(
        "4.14",
        "ending",
        "json_each(?)) AND state = 'running'",
        "json_each(?))",
        "on_failure is told of each dead step",
    ),
    # resume
    broken(
        "4.14",
        "control",
        "if is_step and not (found == JobState.DEAD and (yield from _is_open(flow))):",
        "if False:",
        "a cancelled step is requeued",
    ),
    broken(
        "4.14",
        "control",
        "yield from resume_flow(flow, step)",
        "pass",
        "a flow stays failed although its dead step was requeued",
    ),
    broken(
        "4.14",
        "ending",
        "AND json_array_length(step, '$[1]') = 0 ORDER BY id LIMIT 1)",
        "AND 0 ORDER BY id LIMIT 1)",
        "one requeue of two dead steps is enough",
    ),
    broken(
        "4.14",
        "ending",
        "AND json_array_length(step, '$[1]') = 0 ORDER BY id LIMIT 1)",
        "ORDER BY id LIMIT 1)",
        "a failure that was taken as a value keeps its flow failed",
    ),
    # ends
    broken(
        "4.14",
        "ending",
        "        if absorbing:\n",
        "        if False:\n",
        "what failures left over waits for ever",
    ),
    broken("4.14", "ending", "    if running:\n", "    if False:\n", "running steps are not asked to stop"),
    broken(
        "4.8", "ending", "    if note is not None:\n", "    if False:\n", "a cancel is not noted on the steps"
    ),
    broken(
        "4.14",
        "ending",
        "_OPEN = \"state IN ('running', 'failed')\"",
        "_OPEN = \"state = 'running'\"",
        "a failed flow cannot be cancelled",
    ),
    broken(
        "4.17",
        "upkeep",
        "SELECT id FROM taskharbor_flow WHERE expires_at <= ?",
        "SELECT id FROM taskharbor_flow WHERE expires_at <= 0 * ?",
        "flows are kept for ever",
    ),
    broken(
        "4.14", "find", 'where.append("flow = :flow")', "pass", "the steps of a flow are not told from others"
    ),
]


def test_every_mutation_has_its_place() -> None:
    assert misplaced(MUTATIONS) == []


@pytest.mark.parametrize("mutation", one_in_six(MUTATIONS))
def test_a_rule_of_flows_broken_in_the_driver_is_noticed(
    mutation: Mutation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskharbor_conformance.bench.WAKE_SECONDS", 0.5)

    with mutant_driver(tmp_path, mutation) as factory:
        noticed = first_failing(quick_first(mutation.rule), factory)

    assert noticed, f"rule {mutation.rule}: {mutation.why}, and none of its cases fails"
