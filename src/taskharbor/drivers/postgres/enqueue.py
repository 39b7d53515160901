"""job_enqueue: jobs without a key by one statement; jobs with one by one more only if some key is taken.

Where it matters in which state whoever has a key is, `uniqueness` decides.
"""

from __future__ import annotations

from collections.abc import Sequence

from taskharbor.driver import Enqueued, EnqueueStatus, Holder, JobEnqueue, admit
from taskharbor.drivers.postgres.admitting import HOLDERS, STORED, TAKE_BACK_KEYS, enqueue_flows
from taskharbor.drivers.postgres.batches import bulky
from taskharbor.drivers.postgres.routine import Query, Routine, plain_array, text_array
from taskharbor.drivers.postgres.step import Step
from taskharbor.drivers.postgres.storing import add
from taskharbor.drivers.postgres.uniqueness import enqueue_ruled, is_ruled
from taskharbor.job import NewJob

_CREATED = EnqueueStatus.CREATED  # looking up the member of an enum costs as much as making an answer

_TAKE_BACK = "DELETE FROM taskharbor.job WHERE id = ANY ($1::text::uuid[])"


def needs_transaction(request: JobEnqueue) -> bool:
    """Return whether it may come to more than one statement that have to be written together."""
    jobs = request.jobs
    if request.flows or any([job.step is not None for job in jobs]):  # noqa: C419 - quicker
        return True
    if len(jobs) == 1:
        return is_ruled(request)
    return any(job.key is not None for job in jobs) or bulky(jobs)


def job_enqueue(step: Step, request: JobEnqueue) -> Routine[Sequence[Enqueued]]:
    """Store jobs and flows and return one answer each: for the jobs in order, then for the flows."""
    jobs = request.jobs
    answers: Sequence[Enqueued]
    if request.flows:
        answers = yield from (enqueue_ruled if is_ruled(request) else enqueue_flows)(step, request)
    elif any(job.key is not None for job in jobs):
        answers = yield from (enqueue_ruled if is_ruled(request) else _with_keys)(step, request)
    else:
        created = yield from add(step, jobs, keyed=False)
        if len(created) == len(jobs):  # as a rule
            answers = [Enqueued(_CREATED, job.id) for job in jobs]
        else:
            known = {job.id for job in jobs}.difference(created)
            answers = admit(jobs, known=known, holders={}, all_or_none=request.all_or_none).answers
    if step.repeated:
        # An id is made for one call: what is stored under it was written by the first asking, whose answer was lost.
        asked = [*(job.id for job in jobs), *(flow.id for flow in request.flows)]
        answers = [
            Enqueued(_CREATED, own)
            if answer.status is EnqueueStatus.EXISTING and answer.job_id == own
            else answer
            for own, answer in zip(asked, answers, strict=True)
        ]
    step.wakes.queues.update(
        {job.queue for job, answer in zip(jobs, answers, strict=False) if answer.status is _CREATED}
    )
    return answers


def _with_keys(step: Step, request: JobEnqueue) -> Routine[list[Enqueued]]:
    """Take the keys and store the jobs; where some were taken before, look who has them, and decide again."""
    jobs = request.jobs
    first: dict[tuple[str, str], NewJob] = {}
    for job in jobs:
        if job.key is not None:
            first.setdefault((job.task, job.key), job)
    # Two of a batch that want one key cannot both be asked for it at once.
    sent = [job for job in jobs if job.key is None or first[job.task, job.key] is job]
    created = yield from add(step, sent, keyed=True)
    while True:
        if len(created) == len(jobs):  # as a rule
            return [Enqueued(_CREATED, job.id) for job in jobs]
        rest = {job.id for job in jobs} - created
        ids = plain_array(sorted(rest))
        known = {row[0] for row in (yield Query(STORED, (ids,)))}
        wanted = [(job.task, job.key) for job in jobs if job.key is not None and job.id in rest]
        holders: dict[tuple[str, str], Holder] = {}
        if wanted:
            tasks, names = zip(*wanted, strict=True)
            rows = yield Query(HOLDERS, (step.now, text_array(tasks), text_array(names)))
            holders = {
                (task, name): Holder(job_id, bytes.fromhex(digest))
                for task, name, job_id, digest in rows
                # Taken a moment ago by this very batch: those come to it as `taken` in `admit`.
                if job_id not in created
            }
        found = admit(jobs, known=known, holders=holders, all_or_none=request.all_or_none)
        missing = [job for job in found.new if job.id not in created]
        if not found.new and created:
            ids = plain_array(sorted(created))
            tasks, names = zip(*first, strict=True)
            yield Query(TAKE_BACK_KEYS, (ids, text_array(tasks), text_array(names)))
            yield Query(_TAKE_BACK, (ids,))
        if not missing:
            return found.answers
        # Whoever had their keys has given them up meanwhile.
        created |= yield from add(step, missing, keyed=True)
