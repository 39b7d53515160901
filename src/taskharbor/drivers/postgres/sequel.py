"""What a success brings with it, written in its transaction once it has been settled."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from psycopg.errors import LockNotAvailable

from taskharbor.driver import JobEnqueue
from taskharbor.drivers.postgres.admitting import take_keys
from taskharbor.drivers.postgres.advance import lock_waiting, wait_for
from taskharbor.drivers.postgres.enqueue import job_enqueue
from taskharbor.drivers.postgres.falling import locked_flows
from taskharbor.drivers.postgres.routine import Query, Routine
from taskharbor.drivers.postgres.step import Step
from taskharbor.drivers.postgres.storing import add
from taskharbor.flow import FLOW_ENDED, Sequel

logger = logging.getLogger("taskharbor.postgres")

_PATIENCE = "1s"
"""How long a success waits for a key that a transaction holds which has not ended."""
_WAIT = "SELECT set_config('lock_timeout', $1::text, true)"


def write_sequels(
    step: Step, brings: Sequence[tuple[str | None, Sequel]], risen: Sequence[str]
) -> Routine[None]:
    """Store what successes bring with them.

    Args:
        step: what a verb works with.
        brings: each with the flow that its job is a step of.
        risen: steps that the same successes have let go: they may come to wait again.
    """
    free = [sequel for _, sequel in brings if not _keyed(sequel)]
    jobs = [job for sequel in free for job in sequel.jobs]
    flows = [flow for sequel in free for flow in sequel.flows]
    if jobs or flows:
        yield from job_enqueue(step, JobEnqueue(jobs=jobs, flows=flows))
    for _, sequel in brings:
        if _keyed(sequel):
            yield from _enqueue_keyed(step, sequel)
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


def _keyed(sequel: Sequel) -> bool:
    return any(job.key is not None for job in sequel.jobs) or any(flow.keyed for flow in sequel.flows)


def _enqueue_keyed(step: Step, sequel: Sequel) -> Routine[None]:
    """Enqueue what has keys. One that somebody is about to take counts as taken: the success does not wait for it."""
    ((patience,),) = yield Query("SELECT current_setting('lock_timeout')")
    yield Query("SAVEPOINT sequel")
    try:
        yield Query(_WAIT, (_PATIENCE,))
        yield from job_enqueue(step, JobEnqueue(jobs=sequel.jobs, flows=sequel.flows))
    except LockNotAvailable:
        yield Query("ROLLBACK TO SAVEPOINT sequel")
        logger.warning(
            "what a job asked to be enqueued with its success was left out: a transaction that has not ended holds a "
            "key of it (%s)",
            ", ".join(
                sorted({job.task for job in (*sequel.jobs, *(j for f in sequel.flows for j in f.keyed))})
            ),
        )
    yield Query("RELEASE SAVEPOINT sequel")
    yield Query(_WAIT, (patience,))
