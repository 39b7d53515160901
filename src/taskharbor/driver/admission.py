"""Which jobs of a batch are stored, and what each is told: one decision for every driver's `job_enqueue`.

A driver says which ids it has and who holds which keys; the rules are here (rules 4.1, 4.9 and 4.20).
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec

from taskharbor.driver.store import Enqueued, EnqueueStatus
from taskharbor.flow import NewFlow
from taskharbor.job import REPLACEABLE, JobState, KeyRule, NewJob, OnConflict

_CREATED = EnqueueStatus.CREATED  # looking up the member of an enum costs as much as making an answer


class Holder(NamedTuple):
    """Who holds an idempotency key."""

    job_id: str
    digest: bytes
    state: JobState | None = None
    """None where it was not looked up, since no job that wants the key has a rule for it (`looks_at_holder`)."""
    enqueued_at: datetime | None = None
    step: bool = False
    """It is a step of a flow."""


Name = tuple[str, str]
"""A task and a key."""


class Admission(NamedTuple):
    """What is to be done with a batch."""

    answers: list[Enqueued]
    """One a job, in order, then one a flow."""
    new: list[NewJob]
    """The jobs to be stored, in order."""
    flows: list[NewFlow]
    """The flows to be stored, in order."""
    replaced: dict[str, NewJob]
    """What takes the place of jobs that are stored, by their ids."""
    handed_over: dict[Name, str]
    """Keys to be taken from the jobs that have them, which keep others out no more: each with who had it. The new job
    has it from now on."""


REPLACE_RULE = KeyRule(states=tuple(sorted(REPLACEABLE)))
"""What `OnConflict.REPLACE` means where no rule is given."""


def rule_of(job: NewJob) -> KeyRule | None:
    """Return the rule by which a job sees whoever holds its key."""
    if job.key_rule is None and job.on_conflict is OnConflict.REPLACE:
        return REPLACE_RULE
    return job.key_rule


def looks_at_holder(job: NewJob) -> bool:
    """Return whether the answer depends on the state or the age of whoever holds the job's key."""
    return job.key is not None and rule_of(job) is not None


def admit(
    jobs: Sequence[NewJob],
    *,
    known: Container[str],
    holders: Mapping[tuple[str, str], Holder],
    all_or_none: bool,
    flows: Sequence[NewFlow] = (),
    now: datetime | None = None,
) -> Admission:
    """Decide for a batch.

    Args:
        jobs: the batch.
        known: ids that are stored already; asked for ids of the batch only.
        holders: who holds, at this instant, the keys that jobs and steps of the batch want, by task and key.
        all_or_none: as in `JobEnqueue`.
        flows: of the batch, too.
        now: the present; needed where any job `looks_at_holder`.
    """
    answers: list[Enqueued] = []
    new: dict[str, NewJob] = {}
    taken: dict[Name, Holder] = {}
    replaced: dict[str, NewJob] = {}
    handed_over: dict[Name, str] = {}
    refused = False
    for job in jobs:
        answer = _answer(job, known, new, holders, taken, now)
        answers.append(answer)
        if answer.status is _CREATED:
            new[job.id] = job
            if job.key is not None:
                name = (job.task, job.key)
                if name in holders and name not in taken:
                    handed_over[name] = holders[name].job_id
                taken[name] = Holder(job.id, job.digest, JobState.READY, now)
        elif answer.status is EnqueueStatus.REPLACED:
            _replace(job, answer.job_id, new, replaced)
            name = (job.task, job.key or "")
            held = taken.get(name) or holders[name]
            taken[name] = held._replace(digest=job.digest)
        else:
            refused = refused or _refuses(job, answer)
    new_flows: dict[str, NewFlow] = {}
    for flow in flows:
        answer = _answer_flow(flow, known, new_flows, holders, taken)
        answers.append(answer)
        if answer.status is _CREATED:
            new_flows[flow.id] = flow
            taken.update(
                {
                    (j.task, j.key or ""): Holder(j.id, j.digest, JobState.WAITING, now, step=True)
                    for j in flow.keyed
                }
            )
        else:
            refused = refused or _refuses_flow(flow, answer)
    if not (refused and all_or_none):
        return Admission(answers, list(new.values()), list(new_flows.values()), replaced, handed_over)
    told = [
        answer
        if _refuses(job, answer) or not (answer.job_id in new or answer.status is EnqueueStatus.REPLACED)
        else Enqueued(EnqueueStatus.LEFT_OUT, job.id)
        for job, answer in zip(jobs, answers[: len(jobs)], strict=True)
    ]
    told += [
        answer
        if _refuses_flow(flow, answer) or answer.job_id not in new_flows
        else Enqueued(EnqueueStatus.LEFT_OUT, flow.id)
        for flow, answer in zip(flows, answers[len(jobs) :], strict=True)
    ]
    return Admission(told, [], [], {}, {})


def _replace(job: NewJob, job_id: str, new: dict[str, NewJob], replaced: dict[str, NewJob]) -> None:
    """Put a job in the place of another, be it stored already or of the same batch."""
    (new if job_id in new else replaced)[job_id] = msgspec.structs.replace(job, id=job_id)


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
    holders: Mapping[Name, Holder],
    taken: Mapping[Name, Holder],
    now: datetime | None,
) -> Enqueued:
    if job.id in new or job.id in known:
        return Enqueued(EnqueueStatus.EXISTING, job.id)
    if job.key is not None:
        name = (job.task, job.key)
        holder = taken.get(name) or holders.get(name)
        if holder is not None and _keeps_out(holder, rule_of(job), now):
            if job.on_conflict is OnConflict.REPLACE and holder.state in REPLACEABLE and not holder.step:
                return Enqueued(EnqueueStatus.REPLACED, holder.job_id)
            same = holder.digest == job.digest and not (job.on_conflict is OnConflict.REPLACE and holder.step)
            return Enqueued(EnqueueStatus.EXISTING if same else EnqueueStatus.CONFLICT, holder.job_id)
    return Enqueued(_CREATED, job.id)


def _keeps_out(holder: Holder, rule: KeyRule | None, now: datetime | None) -> bool:
    """Return whether whoever holds a key keeps a job with that rule out."""
    if rule is None or holder.state is None or holder.step:
        return True
    if holder.state in rule.states:
        return True
    if rule.window is None or holder.enqueued_at is None or now is None:
        return False
    return now < holder.enqueued_at + rule.window


def _refuses(job: NewJob, answer: Enqueued) -> bool:
    """Return whether this answer is a reason to store nothing, where all or none was asked."""
    return answer.status is EnqueueStatus.CONFLICT or (
        answer.status is EnqueueStatus.EXISTING
        and job.on_conflict is OnConflict.RAISE
        and answer.job_id != job.id
    )
