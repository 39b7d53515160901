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
    """None where it was not looked up, since no job that wants the key has a rule for it (`looks_at_holder`); and where
    it was, but its record is kept no more: only its key is."""
    enqueued_at: datetime | None = None
    step: bool = False
    """It has a `Step`: it is one of a flow, or was given inputs."""
    tried: bool = False
    """It has used an attempt, so that if it is put off it is retrying, not scheduled."""


Name = tuple[str, str]
"""A task and a key."""


class Admission(NamedTuple):
    """What is to be done with a batch."""

    answers: list[Enqueued]
    """One a job, in order, then one a flow."""
    new: list[NewJob]
    """The jobs to be stored, in order. Where several have one key, the last of them has it from now on."""
    flows: list[NewFlow]
    """The flows to be stored, in order."""
    replaced: dict[str, NewJob]
    """What takes the place of jobs that are stored, by their ids, which these have too. Their keys' digests and times
    are these jobs' from now on."""
    handed_over: dict[Name, str]
    """Keys to be taken from the jobs that have them, which keep others out no more: each with who had it. The new job
    has it from now on. Who had it may be in `replaced` as well: that comes first."""


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
    taken: dict[Name, Holder | NewJob] = {}
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
                if name in holders:
                    handed_over[name] = holders[name].job_id
                taken[name] = job
        elif answer.status is EnqueueStatus.REPLACED:
            name = (job.task, job.key or "")
            holder = _holder_of(name, holders, taken, now) or holders[name]
            (new if answer.job_id in new else replaced)[answer.job_id] = _in_place_of(holder, job, now)
            taken[name] = holder._replace(digest=job.digest, state=_waits(job, now, holder))
        else:
            refused = refused or _refuses(job, answer)
    new_flows: dict[str, NewFlow] = {}
    for flow in flows:
        answer = _answer_flow(flow, known, new_flows, holders, taken, now)
        answers.append(answer)
        if answer.status is _CREATED:
            new_flows[flow.id] = flow
            taken.update({(job.task, job.key or ""): job for job in flow.keyed})
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


def replacement_times(job: NewJob, *, enqueued_at: datetime, now: datetime) -> tuple[datetime, datetime]:
    """Return the `run_at` and the `due_at` of a job whose place this one takes.

    They are those of a job that comes now, but never later than its rule's `latest` after `enqueued_at`. Where that has
    passed, `due_at` is in the past. The store then leaves the row due since when it was, if it is due already and stays
    in its lane: replaced again and again, it keeps its place in the order. Else it is due now.
    """
    run_at = _run_at(job, now)
    due_at = max(run_at, now)
    if job.key_rule is None or job.key_rule.latest is None:
        return run_at, due_at
    last = enqueued_at + job.key_rule.latest
    return min(run_at, last), min(due_at, last)


def _run_at(job: NewJob, now: datetime) -> datetime:
    if job.run_in is not None:
        return now + job.run_in
    return now if job.run_at is None else job.run_at


def _in_place_of(holder: Holder, job: NewJob, now: datetime | None) -> NewJob:
    """Return a job under the id of the one it replaces, of the same batch or stored before it."""
    latest = None if job.key_rule is None else job.key_rule.latest
    if latest is None or now is None or holder.enqueued_at != now:
        return msgspec.structs.replace(job, id=holder.job_id)
    run_at, _ = replacement_times(job, enqueued_at=now, now=now)
    return msgspec.structs.replace(job, id=holder.job_id, run_at=run_at, run_in=None)


def _waits(job: NewJob, now: datetime | None, replaced: Holder | None = None) -> JobState | None:
    """Return the state that a job is in once it is stored, or in the place of another."""
    if job.step is not None and job.step.waits:
        return JobState.WAITING
    if now is None:  # then nobody asks
        return None
    due_at = _run_at(job, now)
    if replaced is not None and replaced.enqueued_at is not None:
        _, due_at = replacement_times(job, enqueued_at=replaced.enqueued_at, now=now)
    if due_at <= now:
        return JobState.READY
    return JobState.RETRYING if replaced is not None and replaced.tried else JobState.SCHEDULED


def _holder_of(
    name: Name, holders: Mapping[Name, Holder], taken: Mapping[Name, Holder | NewJob], now: datetime | None
) -> Holder | None:
    """Return who has a key at this place of the batch."""
    before = taken.get(name)
    if isinstance(before, NewJob):  # made only here, as most keys of a batch are met once
        return Holder(before.id, before.digest, _waits(before, now), now, step=before.step is not None)
    return before or holders.get(name)


def _answer_flow(
    flow: NewFlow,
    known: Container[str],
    new: Container[str],
    holders: Mapping[Name, Holder],
    taken: Mapping[Name, Holder | NewJob],
    now: datetime | None,
) -> Enqueued:
    if flow.id in new or flow.id in known:
        return Enqueued(EnqueueStatus.EXISTING, flow.id)
    for job in flow.keyed:
        name = (job.task, job.key or "")
        holder = _holder_of(name, holders, taken, now)
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
    taken: Mapping[Name, Holder | NewJob],
    now: datetime | None,
) -> Enqueued:
    if job.id in new or job.id in known:
        return Enqueued(EnqueueStatus.EXISTING, job.id)
    if job.key is not None:
        name = (job.task, job.key)
        holder = _holder_of(name, holders, taken, now)
        if holder is not None:
            status = _meets(job, holder, now)
            return Enqueued(status, job.id if status is _CREATED else holder.job_id)
    return Enqueued(_CREATED, job.id)


def _meets(job: NewJob, holder: Holder, now: datetime | None) -> EnqueueStatus:
    """Return what becomes of a job whose key another has."""
    keeps_out = _keeps_out(holder, rule_of(job), now)
    if job.on_conflict is OnConflict.REPLACE:
        if holder.step:
            return EnqueueStatus.CONFLICT
        # What cannot be replaced keeps nobody out: the latest arguments would be lost. What has inputs is stored whole.
        replaces = keeps_out and holder.state in REPLACEABLE and job.step is None
        return EnqueueStatus.REPLACED if replaces else _CREATED
    if not keeps_out:
        return _CREATED
    return EnqueueStatus.EXISTING if holder.digest == job.digest else EnqueueStatus.CONFLICT


def _keeps_out(holder: Holder, rule: KeyRule | None, now: datetime | None) -> bool:
    """Return whether whoever holds a key keeps a job with that rule out."""
    if rule is None or holder.step:
        return True
    if holder.state is None:  # its record is gone, and with it what a rule could look at
        return False
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
