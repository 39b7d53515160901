"""What successes bring with them, written in their transaction once they have been settled.

Keys are asked for by all of them together, in order of name: two that settle at once never wait for each other's. One
that a transaction holds which has not ended is not waited for long, and nothing is left out for it: the transaction is
rolled back, and what wants that key is settled later, apart from the rest (`apart`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from taskharbor.driver import JobEnqueue
from taskharbor.drivers.postgres.admitting import take_keys
from taskharbor.drivers.postgres.advance import lock_waiting, wait_for
from taskharbor.drivers.postgres.enqueue import job_enqueue
from taskharbor.drivers.postgres.falling import locked_flows
from taskharbor.drivers.postgres.routine import Routine
from taskharbor.drivers.postgres.step import Step
from taskharbor.drivers.postgres.storing import add
from taskharbor.drivers.postgres.uniqueness import enqueue_ruled, is_ruled
from taskharbor.flow import FLOW_ENDED, Sequel
from taskharbor.job import NewJob


def write_sequels(
    step: Step,
    brings: Sequence[tuple[str | None, Sequel]],
    risen: Sequence[str],
    foreseen: Collection[str] | None = None,
) -> Routine[None]:
    """Store what successes bring with them.

    Args:
        step: what a verb works with.
        brings: each with the flow that its job is a step of.
        risen: steps that the same successes have let go: they may come to wait again.
        foreseen: jobs that are locked: see `enqueue_ruled`.

    Raises:
        Unforeseen: in `enqueue_ruled`.
    """
    jobs = [job for _, sequel in brings for job in sequel.jobs]
    flows = [flow for _, sequel in brings for flow in sequel.flows]
    free = JobEnqueue(
        jobs=[job for job in jobs if job.key is None], flows=[flow for flow in flows if not flow.keyed]
    )
    keyed = JobEnqueue(
        jobs=sorted((job for job in jobs if job.key is not None), key=_name),
        flows=[flow for flow in flows if flow.keyed],
    )
    if free.jobs or free.flows:
        yield from job_enqueue(step, free)
    if is_ruled(keyed):
        yield from enqueue_ruled(step, keyed, foreseen)
    elif keyed.jobs or keyed.flows:
        yield from job_enqueue(step, keyed)
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
        wanted = {(job.task, job.key): job for job in reversed(steps) if job.key is not None}
        if wanted:
            yield from take_keys(step, wanted)
        created = yield from add(step, steps, keyed=False, held=bool(wanted))
        step.wakes.queues.update(
            {job.queue for job in steps if job.id in created and not (job.step and job.step.waits)}
        )
    more: Counter[str] = Counter()
    for sequel in going:
        more.update(sequel.waits)
    if more:
        yield from wait_for(step, more, risen)


def names_wanted(sequel: Sequel | None) -> list[tuple[str, str]]:
    """Return the keys that what a success brings is to have, each with its task, in order."""
    if sequel is None:
        return []
    keyed = [job for job in sequel.jobs if job.key is not None]
    return sorted({_name(job) for job in [*keyed, *(job for flow in sequel.flows for job in flow.keyed)]})


def _name(job: NewJob) -> tuple[str, str]:
    return job.task, job.key or ""
