"""What producers tell: that jobs were stored, or made ready again."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from datetime import UTC, datetime
from itertools import islice

from taskharbor.driver import Enqueued, EnqueueStatus, JobEnqueue, JobGet, RequeueStatus, Store
from taskharbor.event import JobEnqueued, JobRequeued
from taskharbor.job import new_job_id
from taskharbor.telemetry.hub import Hub

TOLD_BY_PRODUCERS = frozenset[type]({JobEnqueued, JobRequeued})

_PART = 1000
"""Events that are made at a time: a flow may have more steps than should be held in memory twice."""


def tell_enqueued(hub: Hub, request: JobEnqueue, answers: Sequence[Enqueued]) -> None:
    """Tell of the jobs that an enqueue has stored, steps of flows too; of none that was there before."""
    if not hub.wants(JobEnqueued):
        return
    events = _enqueued(request, answers)
    while part := list(islice(events, _PART)):
        hub.publish(part)


def _enqueued(request: JobEnqueue, answers: Sequence[Enqueued]) -> Generator[JobEnqueued]:
    jobs = len(request.jobs)
    for job, answer in zip(request.jobs, answers[:jobs], strict=True):
        if answer.status is EnqueueStatus.CREATED:
            yield _event(job.id, job.task, job.queue, None)
    for flow, answer in zip(request.flows, answers[jobs:], strict=True):
        if answer.status is EnqueueStatus.CREATED:
            for step in flow.steps:
                yield _event(step.id, step.task, step.queue, flow.id)


def _event(job_id: str, task: str, queue: str, flow: str | None) -> JobEnqueued:
    return JobEnqueued(
        id=new_job_id(), at=datetime.now(UTC), job_id=job_id, task=task, queue=queue, flow=flow
    )


async def tell_requeued(hub: Hub, store: Store, ids: Sequence[str], answers: Sequence[RequeueStatus]) -> None:
    """Tell of the jobs that were requeued."""
    if not hub.wants(JobRequeued):
        return
    again = [job_id for job_id, status in zip(ids, answers, strict=True) if status is RequeueStatus.REQUEUED]
    for begin in range(0, len(again), _PART):
        records = await store.job_get(JobGet(ids=again[begin : begin + _PART]))
        hub.publish(
            [
                JobRequeued(
                    id=new_job_id(),
                    at=datetime.now(UTC),
                    job_id=record.id,
                    task=record.task,
                    queue=record.queue,
                    flow=record.flow,
                )
                for record in records
                if record is not None
            ]
        )
