"""What became of calls that were sent, read from the store's answers."""

from __future__ import annotations

from collections.abc import Sequence

from taskharbor.call import Call, FlowCall, Sent, title
from taskharbor.driver import Enqueued, EnqueueStatus, JobEnqueue
from taskharbor.errors import DuplicateJob, KeyConflict, StoreError
from taskharbor.flow import NewFlow
from taskharbor.job import NewJob, OnConflict

_CREATED = EnqueueStatus.CREATED  # looking up the member of an enum costs as much as making a `Sent`


def read_answers(
    calls: Sequence[Call | FlowCall], request: JobEnqueue, answers: Sequence[Enqueued]
) -> list[Sent]:
    """Return what became of each call, in order.

    Raises:
        DuplicateJob: a key is taken, and its call asked to be told.
        KeyConflict: a key is taken by a job with other arguments, or by one that its call cannot replace.
    """
    jobs = request.jobs
    left_out = refuse_taken(jobs, answers[: len(jobs)])
    for call, flow, answer in zip(
        (call for call in calls if isinstance(call, FlowCall)),
        request.flows,
        answers[len(jobs) :],
        strict=True,
    ):
        left_out = _refuse_taken_flow(call, flow, answer) or left_out
    if left_out:
        raise StoreError("the store kept none of the jobs and did not say why; this is a bug in its driver")
    ids = iter([(answer, job.id) for job, answer in zip(jobs, answers, strict=False)])
    if not request.flows:
        return [_told(answer, mine) for answer, mine in ids]
    flow_ids = iter(
        [(answer, flow.id) for flow, answer in zip(request.flows, answers[len(jobs) :], strict=True)]
    )
    return [_told(*next(flow_ids if isinstance(call, FlowCall) else ids)) for call in calls]


def _told(answer: Enqueued, mine: str) -> Sent:
    return Sent(answer.job_id, answer.status is _CREATED or answer.job_id == mine)


def _refuse_taken_flow(call: FlowCall, flow: NewFlow, answer: Enqueued) -> bool:
    """Raise what it means that a flow's key, or one of its steps', is taken; return whether it was left out."""
    if answer.status is _CREATED or answer.job_id == flow.id:
        return answer.status is EnqueueStatus.LEFT_OUT
    taken = next((job for job in flow.keyed if job.id == answer.step), None)
    if taken is not None and not (flow.own_key and taken.id == flow.id):
        raise DuplicateJob(
            f"the key {taken.key!r} of the step {taken.task!r} of the flow is taken by job {answer.job_id}; a step is "
            "part of one flow only, so nothing of this one was stored",
            job_id=answer.job_id,
        )
    key = "" if taken is None or taken.key is None else taken.key
    if answer.status is EnqueueStatus.CONFLICT:
        raise KeyConflict(
            f"the key {key!r} of the flow that ends in {title(call.node)!r} is taken by {answer.job_id} with other "
            "steps or arguments; the same key has to mean the same request",
            job_id=answer.job_id,
            task=title(call.node),
            key=key,
        )
    if taken is not None and taken.on_conflict is OnConflict.RAISE:
        raise DuplicateJob(
            f"the key {key!r} of the flow that ends in {title(call.node)!r} is taken by {answer.job_id}",
            job_id=answer.job_id,
        )
    return answer.status is EnqueueStatus.LEFT_OUT


def refuse_taken(jobs: Sequence[NewJob], answers: Sequence[Enqueued]) -> bool:
    """Raise what it means that a job's key is taken, as `read_answers` does; return whether some job was left out."""
    left_out = False
    for job, answer in zip(jobs, answers, strict=True):
        if answer.status is _CREATED:
            continue
        if answer.status is EnqueueStatus.CONFLICT:
            why = (
                "which is a step of a flow and cannot be replaced, since other steps wait for it"
                if job.on_conflict is OnConflict.REPLACE
                else "with other arguments; the same key has to mean the same request"
            )
            raise KeyConflict(
                f"the key {job.key!r} of task {job.task!r} is taken by job {answer.job_id} {why}",
                job_id=answer.job_id,
                task=job.task,
                key=job.key or "",
            )
        mine = answer.job_id == job.id  # asked again after a cut connection
        if answer.status is EnqueueStatus.EXISTING and job.on_conflict is OnConflict.RAISE and not mine:
            raise DuplicateJob(
                f"the key {job.key!r} of task {job.task!r} is taken by job {answer.job_id}",
                job_id=answer.job_id,
            )
        if answer.status is EnqueueStatus.LEFT_OUT:
            left_out = True
    return left_out
