"""Which jobs of a batch are stored, and what each is told: one decision for every driver's `job_enqueue`.

A driver says which ids it has and who holds which keys; the rules are here (rules 4.1 and 4.9).
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import NamedTuple

from taskharbor.driver.store import Enqueued, EnqueueStatus
from taskharbor.flow import NewFlow
from taskharbor.job import NewJob, OnConflict

_CREATED = EnqueueStatus.CREATED  # looking up the member of an enum costs as much as making an answer


class Holder(NamedTuple):
    """Who holds an idempotency key."""

    job_id: str
    digest: bytes


class Admission(NamedTuple):
    """What is to be done with a batch."""

    answers: list[Enqueued]
    """One a job, in order, then one a flow."""
    new: list[NewJob]
    """The jobs to be stored, in order."""
    flows: list[NewFlow]
    """The flows to be stored, in order."""


def admit(
    jobs: Sequence[NewJob],
    *,
    known: Container[str],
    holders: Mapping[tuple[str, str], Holder],
    all_or_none: bool,
    flows: Sequence[NewFlow] = (),
) -> Admission:
    """Decide for a batch.

    Args:
        jobs: the batch.
        known: ids that are stored already; asked for ids of the batch only.
        holders: who holds, at this instant, the keys that jobs and steps of the batch want, by task and key.
        all_or_none: as in `JobEnqueue`.
        flows: of the batch, too.
    """
    answers: list[Enqueued] = []
    new: dict[str, NewJob] = {}
    taken: dict[tuple[str, str], Holder] = {}
    refused = False
    for job in jobs:
        answer = _answer(job, known, new, holders, taken)
        answers.append(answer)
        if answer.status is _CREATED:
            new[job.id] = job
            if job.key is not None:
                taken[job.task, job.key] = Holder(job.id, job.digest)
        else:
            refused = refused or _refuses(job, answer)
    new_flows: dict[str, NewFlow] = {}
    for flow in flows:
        answer = _answer_flow(flow, known, new_flows, holders, taken)
        answers.append(answer)
        if answer.status is _CREATED:
            new_flows[flow.id] = flow
            taken.update({(j.task, j.key or ""): Holder(j.id, j.digest) for j in flow.keyed})
        else:
            refused = refused or _refuses_flow(flow, answer)
    if not (refused and all_or_none):
        return Admission(answers, list(new.values()), list(new_flows.values()))
    told = [
        answer
        if _refuses(job, answer) or answer.job_id not in new
        else Enqueued(EnqueueStatus.LEFT_OUT, job.id)
        for job, answer in zip(jobs, answers[: len(jobs)], strict=True)
    ]
    told += [
        answer
        if _refuses_flow(flow, answer) or answer.job_id not in new_flows
        else Enqueued(EnqueueStatus.LEFT_OUT, flow.id)
        for flow, answer in zip(flows, answers[len(jobs) :], strict=True)
    ]
    return Admission(told, [], [])


def _answer_flow(
    flow: NewFlow,
    known: Container[str],
    new: Container[str],
    holders: Mapping[tuple[str, str], Holder],
    taken: Mapping[tuple[str, str], Holder],
) -> Enqueued:
    if flow.id in new or flow.id in known:
        return Enqueued(EnqueueStatus.EXISTING, flow.id)
    for job in flow.keyed:
        name = (job.task, job.key or "")
        holder = holders.get(name) or taken.get(name)
        if holder is not None:
            # The flow's own key is its last step's. A step's can be shared with no other flow.
            same = flow.own_key and job.id == flow.id and holder.digest == job.digest
            status = EnqueueStatus.EXISTING if same else EnqueueStatus.CONFLICT
            return Enqueued(status, holder.job_id, job.id)
    return Enqueued(_CREATED, flow.id)


def _refuses_flow(flow: NewFlow, answer: Enqueued) -> bool:
    """Return whether this answer is a reason to store nothing, where all or none was asked."""
    if answer.status is EnqueueStatus.CONFLICT:
        return True
    return (
        answer.status is EnqueueStatus.EXISTING
        and answer.job_id != flow.id
        and any(job.id == answer.step and job.on_conflict is OnConflict.RAISE for job in flow.keyed)
    )


def _answer(
    job: NewJob,
    known: Container[str],
    new: Container[str],
    holders: Mapping[tuple[str, str], Holder],
    taken: Mapping[tuple[str, str], Holder],
) -> Enqueued:
    if job.id in new or job.id in known:
        return Enqueued(EnqueueStatus.EXISTING, job.id)
    if job.key is not None:
        name = (job.task, job.key)
        holder = holders.get(name) or taken.get(name)
        if holder is not None:
            same = holder.digest == job.digest
            return Enqueued(EnqueueStatus.EXISTING if same else EnqueueStatus.CONFLICT, holder.job_id)
    return Enqueued(_CREATED, job.id)


def _refuses(job: NewJob, answer: Enqueued) -> bool:
    """Return whether this answer is a reason to store nothing, where all or none was asked."""
    return answer.status is EnqueueStatus.CONFLICT or (
        answer.status is EnqueueStatus.EXISTING
        and job.on_conflict is OnConflict.RAISE
        and answer.job_id != job.id
    )
