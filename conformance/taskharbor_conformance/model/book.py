"""The book: what the rules say of each verb, in a second and deliberately naive reading."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import assert_never

import msgspec

from taskharbor.driver import (
    CancelRequest,
    CancelStatus,
    DeleteStatus,
    Enqueued,
    EnqueueStatus,
    JobReserve,
    LeaseExtend,
    Reclaimed,
    RequeueStatus,
)
from taskharbor.job import REPLACEABLE, JobState, KeyRule, NewJob, OnConflict
from taskharbor.settlement import Settled, SettleKind, Settlement, SettleStatus
from taskharbor_conformance.model.records import BookJob, BookKey, BookLease, BookWorker, Taken

START = datetime(2026, 1, 1, tzinfo=UTC)
ZERO = timedelta(0)
WHOLE_DAYS = timedelta(days=2)
"""How much longer a driver that removes whole days at once may keep a job."""


class Book:
    """All jobs, leases, keys, queues and workers, and what each verb does to them."""

    def __init__(self) -> None:
        self.now = START
        self.jobs: dict[str, BookJob] = {}
        self.gone: set[str] = set()
        self.leases: dict[int, BookLease] = {}
        self.keys: dict[tuple[str, str], BookKey] = {}
        self.paused: dict[str, tuple[datetime, str, str]] = {}
        self.workers: dict[str, BookWorker] = {}
        self._before: dict[str, BookJob] = {}
        """What was stored before the batch in hand."""

    # what a reader sees

    def state(self, job: BookJob) -> JobState:
        """Return the state a user sees now."""
        if job.final is not None:
            return job.final
        if job.token is not None:
            return JobState.RUNNING
        if not any(job.open_to(worker.tasks, worker.build) for worker in self.live_workers()) and job.stray:
            return JobState.PARKED
        if job.due > self.now:
            return JobState.RETRYING if job.attempt else JobState.SCHEDULED
        return JobState.READY

    def live_workers(self) -> list[BookWorker]:
        """Return the workers heard within their ttl."""
        return [worker for worker in self.workers.values() if worker.seen_at + worker.ttl > self.now]

    def key_holder(self, task: str, key: str) -> BookKey | None:
        """Return who holds a key now."""
        holder = self.keys.get((task, key))
        free = holder is None or (holder.free_at is not None and holder.free_at <= self.now)
        return None if free else holder

    # what the verbs do

    def enqueue(self, jobs: Sequence[NewJob], *, all_or_none: bool) -> list[Enqueued]:
        """Store jobs, first those before in the same batch, and return the answers."""
        before = dict(self.jobs), dict(self.keys)
        self._before = before[0]
        answers = [self._enqueue_one(job) for job in jobs]
        refused = [
            answer.status is EnqueueStatus.CONFLICT
            # Not its own id: that is the same request, asked again after a lost answer.
            or (
                answer.status is EnqueueStatus.EXISTING
                and job.on_conflict is OnConflict.RAISE
                and answer.job_id != job.id
            )
            for job, answer in zip(jobs, answers, strict=True)
        ]
        if all_or_none and any(refused):
            self.jobs, self.keys = before
            # Whoever is the reason says so; what leans on a job that is not stored is left out with it.
            return [
                answer
                if reason
                or (answer.status is not EnqueueStatus.REPLACED and answer.job_id in self.jobs)
                or self._holds_key(answer.job_id, answer.status)
                else Enqueued(EnqueueStatus.LEFT_OUT, job.id)
                for job, answer, reason in zip(jobs, answers, refused, strict=True)
            ]
        self.gone -= self.jobs.keys()
        return answers

    def _holds_key(self, job_id: str, status: EnqueueStatus) -> bool:
        # Its record may be gone: a key has a time of its own.
        kept_out = status in (EnqueueStatus.EXISTING, EnqueueStatus.CONFLICT)
        return kept_out and any(key.job_id == job_id for key in self.keys.values())

    def _enqueue_one(self, new: NewJob) -> Enqueued:
        if new.id in self.jobs:
            return Enqueued(EnqueueStatus.EXISTING, new.id)
        if new.key is not None:
            holder = self.key_holder(new.task, new.key)
            if holder is not None:
                answer = self._meet(new, holder)
                if answer is not None:
                    return answer
            self.keys[new.task, new.key] = BookKey(new.id, new.digest)
        run_at = new.run_at or self.now + (new.run_in or ZERO)
        self.jobs[new.id] = BookJob(
            new, run_at, self.now, max(run_at, self.now), guarded=new.retry.max_attempts == 1
        )
        return Enqueued(EnqueueStatus.CREATED, new.id)

    def _meet(self, new: NewJob, holder: BookKey) -> Enqueued | None:
        """Return the answer for a job whose key another holds; None if it is stored, and the key its own (rule 20)."""
        job = self.jobs.get(holder.job_id)
        rule = new.key_rule
        if new.on_conflict is OnConflict.REPLACE:
            rule = rule or KeyRule(states=tuple(REPLACEABLE))
            if job is None or self.state(job) not in REPLACEABLE or not self._sees(rule, job):
                return None
            self._replace(job, new)
            return Enqueued(EnqueueStatus.REPLACED, holder.job_id)
        if rule is not None and (job is None or not self._sees(rule, job)):
            return None
        same = holder.digest == new.digest
        return Enqueued(EnqueueStatus.EXISTING if same else EnqueueStatus.CONFLICT, holder.job_id)

    def _sees(self, rule: KeyRule, job: BookJob) -> bool:
        young = rule.window is not None and self.now - job.enqueued_at < rule.window
        return young or self.state(job) in rule.states

    def _replace(self, job: BookJob, new: NewJob) -> None:
        # What stands between, of the same batch, was never stored: it is as if the last had come alone.
        before = self._before.get(job.new.id)
        run_at = new.run_at or self.now + (new.run_in or ZERO)
        due = max(run_at, self.now)
        if new.key_rule is not None and new.key_rule.latest is not None:
            latest = job.enqueued_at + new.key_rule.latest
            run_at, due = min(run_at, latest), min(due, latest)
            if due < self.now:
                due = self.now if before is None or not self._stays(before, new) else before.due
        # Another book job: the batch may yet be refused, and this one is what was there before.
        self.jobs[job.new.id] = replace(
            job,
            new=msgspec.structs.replace(new, id=job.new.id),
            run_at=run_at,
            due=due,
            guarded=(before is not None and before.guarded) or new.retry.max_attempts == 1,
            front=False,
            stray=False,
            refused_by=frozenset(),
            stray_reason="",
            reason="",
        )
        self.keys[new.task, new.key or ""] = BookKey(job.new.id, new.digest)

    def _stays(self, job: BookJob, new: NewJob) -> bool:
        """Return whether a job that is due already stays in its lane when another takes its place."""
        same = (job.new.queue, job.new.priority) == (new.queue, new.priority)
        return same and job.due <= self.now and not job.stray and (job.solo or not job.front)

    def reserve(self, request: JobReserve) -> Taken:
        """Lease the next jobs and return what the answer should be."""
        left = {take.name: take.limit for take in request.queues}
        guarded_left, solo_left = request.guarded_limit, 1 if request.solo else 0
        taken: list[str] = []
        held_back = False
        in_order = self._in_order(left, request.tasks, request.build)
        for job in self._aged(in_order, request):
            if left[job.new.queue] <= 0:
                continue
            if job.guarded and guarded_left <= 0:
                break
            if request.aged is None or len(taken) >= min(request.aged.limit, request.limit):
                break
            guarded_left -= job.guarded
            left[job.new.queue] -= 1
            taken.append(job.new.id)
        for job in in_order:
            if job.new.id in taken:
                continue
            if job.due > self.now or left[job.new.queue] <= 0 or (job.solo and not solo_left):
                continue
            if len(taken) >= request.limit:
                break
            if job.guarded and guarded_left <= 0:
                held_back = True
                break
            guarded_left -= job.guarded
            solo_left -= job.solo
            left[job.new.queue] -= 1
            taken.append(job.new.id)
        if taken:
            self.leases[request.token] = BookLease(
                request.token, request.worker, request.lease, self.now + request.lease, list(taken)
            )
        for job_id in taken:
            job = self.jobs[job_id]
            job.token, job.settled_under = request.token, None
            job.deliveries += 1
        later = [job for job in in_order if job.pending]
        due_in = min((max(job.due - self.now, ZERO) for job in later), default=None)
        limited = held_back or len(taken) >= request.limit or min(left.values()) <= 0
        solo_left = any(job.solo for job in later)
        return Taken(taken, held_back, due_in, limited or solo_left, solo_left)

    def _aged(self, jobs: Iterable[BookJob], request: JobReserve) -> list[BookJob]:
        """Return those due for longer than a reserve says, the longest first (rule 21)."""
        if request.aged is None:
            return []
        before = self.now - request.aged.after
        aged = [job for job in jobs if job.due < before and job.new.priority > 0 and not job.solo]
        return sorted(aged, key=lambda job: (job.due, job.new.id))

    def _in_order(self, queues: Iterable[str], tasks: frozenset[str], build: str) -> list[BookJob]:
        names = set(queues) - set(self.paused)
        open_jobs = [
            job
            for job in self.jobs.values()
            if job.pending and job.new.queue in names and job.open_to(tasks, build)
        ]
        return sorted(open_jobs, key=lambda job: job.order)

    def extend(self, request: LeaseExtend) -> tuple[list[int], list[CancelRequest]]:
        """Keep leases and return the lost tokens and the pending cancels."""
        lost: list[int] = []
        cancels: list[CancelRequest] = []
        for hold in request.leases:
            lease = self.leases.get(hold.token)
            if lease is None:
                lost.append(hold.token)
                continue
            lease.duration = request.lease
            lease.expires_at = self.now + request.lease
            lease.started |= set(hold.started) & set(lease.ids)
            for job_id in lease.ids:
                reason = self.jobs[job_id].cancel
                if reason is not None:
                    cancels.append(CancelRequest(job_id, reason))
        return lost, cancels

    def reclaimable(self, observed: timedelta) -> list[BookLease]:
        """Return the leases that may be taken back by one who has seen the store for so long (rule 5)."""
        return [
            lease
            for lease in self.leases.values()
            if lease.expires_at <= self.now and lease.duration <= observed
        ]

    def reclaim(self, lease: BookLease) -> list[Reclaimed]:
        """Take a lease back whole and return what becomes of its jobs."""
        answers: list[Reclaimed] = []
        for job_id in list(lease.ids):
            job = self.jobs[job_id]
            started = job_id in lease.started
            self._leave(job)
            fate = self._crash(job, started=started)
            answers.append(
                Reclaimed(
                    job_id=job_id, task=job.new.task, queue=job.new.queue, worker=lease.worker, fate=fate
                )
            )
        return answers

    def _crash(self, job: BookJob, *, started: bool) -> SettleKind:
        job.guarded = True
        job.lost = 0 if started else job.lost + 1
        job.attempt += started
        job.crashes += started
        dead = job.attempt >= job.new.retry.max_attempts if started else job.lost >= 10
        if started or dead:
            job.errors.append((job.attempt, "taskharbor.WorkerLost", self.now))
        if job.cancel is not None:
            self._finish(job, JobState.CANCELLED, job.cancel)
            return SettleKind.CANCEL
        if dead:
            self._finish(job, JobState.DEAD, "...")
            return SettleKind.BURY
        if started:
            self._wait(job, job.new.retry.backoff(job.attempt))
            return SettleKind.RETRY
        self._wait(job, ZERO, front=True)
        return SettleKind.RELEASE

    def settle(self, asked: Settlement) -> Settled:
        """Write one settlement and return the answer."""
        job = self.jobs.get(asked.job_id)
        if job is None:
            return Settled(SettleStatus.STALE)
        if job.token != asked.token:
            already = job.settled_under == asked.token
            return Settled(SettleStatus.ALREADY if already else SettleStatus.STALE)
        self._leave(job)
        job.settled_under = asked.token
        job.attempt += asked.charge
        if asked.error is not None:
            job.errors.append((asked.error.attempt, asked.error.type, self.now))
        if job.cancel is not None and asked.kind is not SettleKind.SUCCEED:
            self._finish(job, JobState.CANCELLED, job.cancel)
        else:
            self._write(job, asked)
        return Settled(SettleStatus.SETTLED, self.state(job))

    def _write(self, job: BookJob, asked: Settlement) -> None:
        match asked.kind:
            case SettleKind.SUCCEED:
                job.result, job.result_codec = asked.result, asked.codec
                self._finish(job, JobState.SUCCEEDED)
            case SettleKind.BURY:
                self._finish(job, JobState.DEAD, asked.reason)
            case SettleKind.CANCEL:
                self._finish(job, JobState.CANCELLED, asked.reason)
            case SettleKind.RETRY | SettleKind.SNOOZE:
                job.lost = 0
                self._wait(job, asked.after or ZERO)
            case SettleKind.RELEASE:
                self._wait(job, ZERO, front=True)
            case SettleKind.STRAY:
                job.stray, job.stray_reason = True, asked.reason
                if asked.refused_by is not None:
                    job.refused_by |= {asked.refused_by}
                self._wait(job, ZERO)
            case _:
                assert_never(asked.kind)

    def cancel(self, job_id: str, reason: str, by: str) -> CancelStatus:
        """Cancel a job, or ask its worker to."""
        job = self.jobs.get(job_id)
        if job is None:
            return CancelStatus.MISSING
        if job.final is not None:
            return CancelStatus.FINISHED
        job.operations.append(("cancel", self.now, by))
        if job.token is not None:
            job.cancel = reason if job.cancel is None else job.cancel
            return CancelStatus.REQUESTED
        self._finish(job, JobState.CANCELLED, reason)
        return CancelStatus.CANCELLED

    def requeue(self, job_id: str, by: str) -> RequeueStatus:
        """Make a dead or cancelled job ready again."""
        job = self.jobs.get(job_id)
        if job is None:
            return RequeueStatus.MISSING
        if job.final not in (JobState.DEAD, JobState.CANCELLED):
            return RequeueStatus.NOT_DEAD
        if job.new.key is not None:
            holder = self.key_holder(job.new.task, job.new.key)
            if holder is not None and holder.job_id != job_id:
                return RequeueStatus.KEY_TAKEN
            self.keys[job.new.task, job.new.key] = BookKey(job_id, job.new.digest)
        job.final, job.finished_at, job.reason = None, None, ""
        job.attempt = job.lost = 0
        job.operations.append(("requeue", self.now, by))
        self._wait(job, max(job.run_at - self.now, ZERO))  # never early, whoever asks
        return RequeueStatus.REQUEUED

    def delete(self, job_id: str) -> DeleteStatus:
        """Remove a job and the key it holds."""
        job = self.jobs.get(job_id)
        if job is None:
            return DeleteStatus.MISSING
        if job.token is not None:
            return DeleteStatus.RUNNING
        self.remove(job_id)
        name = (job.new.task, job.new.key or "")
        if name in self.keys and self.keys[name].job_id == job_id:
            del self.keys[name]
        return DeleteStatus.DELETED

    def remove(self, job_id: str) -> None:
        """Take a job out of the book."""
        del self.jobs[job_id]
        self.gone.add(job_id)

    def outlived(self, by: timedelta = ZERO) -> set[str]:
        """Return the jobs whose retention ended so long ago, or longer (rule 17)."""
        return {
            job_id
            for job_id, job in self.jobs.items()
            if job.final in (JobState.SUCCEEDED, JobState.CANCELLED)
            and job.finished_at is not None
            and job.finished_at + job.new.retain + by <= self.now
        }

    def free_keys(self) -> set[tuple[str, str]]:
        """Return the keys on record whose time is over (rule 9)."""
        return {
            name for name, key in self.keys.items() if key.free_at is not None and key.free_at <= self.now
        }

    # small steps

    def _leave(self, job: BookJob) -> None:
        assert job.token is not None
        lease = self.leases[job.token]
        lease.ids.remove(job.new.id)
        if not lease.ids:
            del self.leases[lease.token]
        job.token = None

    def _wait(self, job: BookJob, after: timedelta, *, front: bool = False) -> None:
        job.due = self.now + after
        job.front = front

    def _finish(self, job: BookJob, state: JobState, reason: str = "") -> None:
        job.final, job.finished_at, job.reason, job.cancel = state, self.now, reason, None
        if job.new.key is not None:
            key = self.keys.get((job.new.task, job.new.key))
            if key is not None and key.job_id == job.new.id:
                key.free_at = self.now + job.new.key_ttl
