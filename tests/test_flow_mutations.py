"""The rules of flows are broken on purpose, in the memory driver, and the conformance suite has to notice."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskharbor_conformance import Case, cases
from tests.test_mutations import MEMORY, Mutation, first_failing, mutant_driver


def broken(file: str, old: str, new: str, why: str) -> Mutation:
    """Return a mutation of a file of the memory driver."""
    return Mutation("4.14", f"{MEMORY}{file}.py", old, new, why)


MUTATIONS = [
    # waiting, and advance
    broken("enqueue", "        if waits:\n            return\n", "", "a step that waits is reserved"),
    broken("tables", "if row.waits > 0:", "if False:", "a step that waits is not shown as waiting"),
    broken("advance", "if place not in row.inputs:", "if True:", "an input that is there counts again"),
    broken("advance", "        row.inputs[place] = given\n", "", "a result is not handed on"),
    broken(
        "advance",
        "if row is None or not _is_waiting(row):",
        "if row is None:",
        "a result is given to a step that is cancelled or told already",
    ),
    broken(
        "advance",
        "if row.job.run_in is not None:  # it counts from here",
        "if False:",
        "run_in counts from the enqueue",
    ),
    broken(
        "advance",
        "tables.make_due(row, max(now, micros(row.run_at)), NORMAL)",
        "tables.make_due(row, now, NORMAL)",
        "a step runs before its time",
    ),
    broken(
        "advance",
        "tables.make_due(row, max(now, micros(row.run_at)), NORMAL)",
        "tables.make_due(row, micros(row.run_at), NORMAL)",
        "a step overtakes those that were ready before it",
    ),
    broken(
        "advance",
        "Input(edge.slot, edge.index, row.result_codec, row.result)",
        'Input(edge.slot, edge.index, "json", row.result)',
        "the codec of a result is lost",
    ),
    broken(
        "advance",
        "Input(edge.slot, edge.index, row.result_codec, row.result)",
        "Input(edge.slot, edge.index, row.result_codec, row.result or None)",
        "an empty result is no result",
    ),
    broken(
        "advance",
        'return Input(ORDER, edge.index, "", None)',
        "return Input(0, edge.index, row.result_codec, row.result)",
        "what only waits is given the value",
    ),
    broken(
        "rows",
        "key=lambda one: (one.slot, one.index)",
        "key=lambda one: one.slot",
        "the members' results come in the order in which they were settled",
    ),
    broken("rows", "if step is None or not (", "if step is None or (", "a step is delivered as a plain job"),
    broken("enqueue", "for one in step.inputs}", "for one in ()}", "inputs from the start are lost"),
    # failure and resume
    broken(
        "advance", "        _fail(tables, flow, failure, now)", "        pass", "a dead step fails no flow"
    ),
    broken(
        "advance",
        "elif flow.state is FlowState.RUNNING:",
        "elif flow.state not in FLOW_ENDED:",
        "a flow fails twice, and on_failure is stored twice",
    ),
    broken(
        "advance",
        "elif flow.state is FlowState.RUNNING:",
        "else:",
        "a flow that was cancelled fails",
    ),
    broken("advance", "if flow.on_failure is not None:", "if False:", "on_failure is not stored"),
    broken(
        "lease",
        "tables.finish(row, JobState.DEAD, now, crash.reason)\n        step_ended(tables, row, now)",
        "tables.finish(row, JobState.DEAD, now, crash.reason)",
        "a step lost with its worker fails no flow",
    ),
    broken(
        "lease",
        "tables.finish(row, JobState.CANCELLED, now, row.cancel)\n        step_ended(tables, row, now)",
        "tables.finish(row, JobState.CANCELLED, now, row.cancel)",
        "a cancel carried out by a reclaim is no end of the flow",
    ),
    broken(
        "control", "        flow_resumed(tables, job.step.flow)", "        pass", "a requeue resumes no flow"
    ),
    broken(
        "advance",
        "    if dead:  # of those",
        "    if False:  # of those",
        "one requeue of two resumes the flow",
    ),
    broken(
        "advance",
        "row.final is JobState.DEAD and row.job.step is not None and not row.job.step.absorbers",
        "row.final is JobState.DEAD",
        "an absorbed failure keeps the flow failed",
    ),
    broken(
        "advance",
        "    if row.final is JobState.CANCELLED:\n        row.inputs = None\n    if _absorb",
        "    row.inputs = None\n    if _absorb",
        "a dead letter loses its inputs",
    ),
    broken(
        "control",
        "    if row.final is not JobState.DEAD:\n        return False\n",
        "",
        "a cancelled step can be requeued",
    ),
    broken(
        "control",
        "(flow is not None and flow.state not in FLOW_ENDED)",
        "True",
        "a step of a flow that has ended can be requeued",
    ),
    # absorbers, and the end
    broken("advance", "return bool(step.absorbers)", "return False", "an absorbed failure is the flow's too"),
    broken(
        "advance",
        "error=row.errors[-1] if row.final is JobState.DEAD and row.errors else None",
        "error=row.errors[-1] if row.errors else None",
        "a cancelled member tells of an error",
    ),
    broken("advance", "_succeed(tables, step.flow, now)", "pass", "a flow never ends"),
    broken("advance", "    if flow.absorbing:\n", "    if False:\n", "what is left over waits for ever"),
    broken("advance", "flow.finished = now", "pass", "nobody knows when a flow ended"),
    broken(
        "advance",
        "            row.cancel = reason",
        "            pass",
        "steps that run are not asked to stop",
    ),
    broken(
        "advance",
        "    if flow.state in FLOW_ENDED:\n        return False\n    _end(",
        "    _end(",
        "a flow ends twice",
    ),
    broken(
        "advance",
        "    if flow is None or flow.state in FLOW_ENDED:\n        return\n    _end(",
        "    if flow is None:\n        return\n    _end(",
        "a cancelled flow succeeds",
    ),
    broken("control", "    step_ended(tables, row, now)", "    pass", "cancelling a step leaves its flow"),
    broken("control", "    step_deleted(tables, row, now)", "    pass", "deleting a step leaves its flow"),
    broken(
        "advance",
        "    if row.final is not JobState.SUCCEEDED:\n        reason",
        "    if True:\n        reason",
        "deleting a success cancels its flow",
    ),
    broken(
        "advance", "        del tables.flows[flow.id]", "        pass", "a flow stays without its last step"
    ),
    broken(
        "advance",
        "            row.operations = (*row.operations, operation)",
        "            pass",
        "cancelling a flow is not recorded",
    ),
    # sequel
    broken(
        "settle",
        "            write_sequel(tables, row, settlement.sequel, now)",
        "            pass",
        "a success brings nothing",
    ),
    broken(
        "advance",
        "JobEnqueue(jobs=sequel.jobs, flows=sequel.flows)",
        "JobEnqueue(jobs=sequel.jobs)",
        "a success brings no flows",
    ),
    broken(
        "advance",
        "    if flow is None or flow.state in FLOW_ENDED:\n        return\n    enqueued_at",
        "    if flow is None:\n        return\n    enqueued_at",
        "a cancelled flow gets more steps",
    ),
    broken(
        "advance",
        "    if flow is None or flow.state in FLOW_ENDED:\n        return\n    enqueued_at",
        "    if flow is None or flow.state is not FlowState.RUNNING:\n        return\n    enqueued_at",
        "a failed flow gets no more steps",
    ),
    broken("advance", "_wait_for(tables, waiting, count, now)", "pass", "no step waits for more steps"),
    # enqueue, and looking
    broken(
        "enqueue",
        "    for flow in flows:\n        _insert_flow",
        "    for flow in flows[:1]:\n        _insert_flow",
        "only the first flow of a batch is stored",
    ),
    broken(
        "enqueue", "wanted = [*wanted, *(", "wanted = [*wanted] or [*(", "the keys of steps are not looked at"
    ),
    broken("flow", "flow.state in request.states", "True", "flows are found in any state"),
    broken("flow", "flow.name in request.names", "True", "flows are found under any name"),
    broken("flow", "range(request.limit)", "range(1000)", "a page of flows has no end"),
    broken("flow", "reverse=request.newest_first", "reverse=False", "flows are never found newest first"),
    broken("control", "waiting=counts[name, JobState.WAITING]", "waiting=0", "queues do not tell who waits"),
    broken(
        "find",
        "if request.flow else _order(tables)",
        "if False else _order(tables)",
        "steps are found of any flow",
    ),
    broken(
        "advance",
        "    tables.woken_jobs.add(flow.id)\n    if flow.on_failure",
        "    if flow.on_failure",
        "nobody is told that a flow has failed",
    ),
    broken(
        "advance",
        "    tables.woken_jobs.add(flow.id)\n\n\ndef _cancel_steps",
        "\n\ndef _cancel_steps",
        "nobody is told that a flow was cancelled",
    ),
    broken("upkeep", "        del tables.flows[flow_id]", "        pass", "flows are kept for ever"),
    broken("advance", "flow.expires = now + flow.retain", "flow.expires = now", "flows are not kept at all"),
]


def _name(mutation: Mutation) -> str:
    return mutation.why.replace(" ", "_")


def _cases() -> list[Case]:
    """Return the cases of flows; those with threads and thousands of steps come last."""
    found = [case for case in cases() if case.family.startswith("flow_")]
    return sorted(found, key=lambda case: ("flow_concurrency", "flow_large").count(case.family))


@pytest.mark.parametrize("mutation", MUTATIONS, ids=_name)
def test_a_rule_of_flows_broken_in_the_driver_is_noticed(
    mutation: Mutation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What never comes need not be waited for long.
    monkeypatch.setattr("taskharbor_conformance.bench.WAKE_SECONDS", 0.5)

    with mutant_driver(tmp_path, mutation) as factory:
        noticed = first_failing(_cases(), factory)

    assert noticed, f"{mutation.why}, and none of the cases of flows fails"
