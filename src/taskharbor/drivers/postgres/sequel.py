"""What a success brings with it, written in its transaction once it has been settled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from taskharbor.driver import JobEnqueue
from taskharbor.drivers.postgres.admitting import take_keys
from taskharbor.drivers.postgres.advance import lock_waiting, wait_for
from taskharbor.drivers.postgres.enqueue import job_enqueue
from taskharbor.drivers.postgres.falling import locked_flows
from taskharbor.drivers.postgres.routine import Routine
from taskharbor.drivers.postgres.step import Step
from taskharbor.drivers.postgres.storing import add
from taskharbor.flow import FLOW_ENDED, Sequel


def write_sequels(
    step: Step, brings: Sequence[tuple[str | None, Sequel]], risen: Sequence[str]
) -> Routine[None]:
    """Store what successes bring with them.

    Args:
        step: what a verb works with.
        brings: each with the flow that its job is a step of.
        risen: steps that the same successes have let go: they may come to wait again.
    """
    jobs = [job for _, sequel in brings for job in sequel.jobs]
    flows = [flow for _, sequel in brings for flow in sequel.flows]
    if jobs or flows:
        yield from job_enqueue(step, JobEnqueue(jobs=jobs, flows=flows))
    grown = {flow for flow, sequel in brings if flow and (sequel.steps or sequel.waits)}
    if not grown:
        return
    # Jobs are locked before flows.
    yield from lock_waiting([job_id for _, sequel in brings for job_id in sequel.waits])
    states = yield from locked_flows(grown)
    going = [sequel for flow, sequel in brings if flow in states and states[flow] not in FLOW_ENDED]
    steps = [job for sequel in going for job in sequel.steps]
    if steps:
        # They belong to a flow that is there: one whose key is taken is stored all the same, or the flow would not end.
        keyed = {(job.task, job.key): job for job in reversed(steps) if job.key is not None}
        if keyed:
            yield from take_keys(step, keyed)
        created = yield from add(step, steps, keyed=False, held=bool(keyed))
        step.wakes.queues.update(
            {job.queue for job in steps if job.id in created and not (job.step and job.step.waits)}
        )
    more: Counter[str] = Counter()
    for sequel in going:
        more.update(sequel.waits)
    if more:
        yield from wait_for(step, more, risen)
