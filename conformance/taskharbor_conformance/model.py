"""One stateful Hypothesis model of the driver contract: any order of verbs, on any driver, against a simple book.

`contract_machine(factory)` gives a state machine class. Each of its runs opens a fresh store, carries out verbs
that Hypothesis picks, and compares every answer with `Book`, a second and deliberately naive reading of the rules: a
dict of jobs, a dict of leases, and sorting. After each step the whole store is read back and compared too. So the book
says what is right, the driver how it is done, and a failure comes shrunk to the fewest steps that show it.

    from hypothesis.stateful import run_state_machine_as_test

    def test_any_order_of_verbs_follows_the_contract():
        run_state_machine_as_test(contract_machine(MyDriver))

Time is passed in every request and only ever goes forward: the contract does not define what a clock that steps back
does. Backoff is without jitter, since no answer could be predicted otherwise.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar, assert_never

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from taskharbor.driver import (
    CancelRequest,
    CancelStatus,
    Counted,
    DeleteStatus,
    Driver,
    Enqueued,
    EnqueueStatus,
    HistoryPrune,
    JobCancel,
    JobCount,
    JobDelete,
    JobEnqueue,
    JobFind,
    JobGet,
    JobRequeue,
    JobReserve,
    JobSettle,
    LeaseExtend,
    LeaseHold,
    LeaseReclaim,
    QueueInfo,
    QueueList,
    QueuePause,
    QueueResume,
    QueueTake,
    Reclaimed,
    RequeueStatus,
    Store,
    WorkerAnnounce,
    WorkerForget,
    WorkerList,
)
from taskharbor.job import TERMINAL, AttemptError, Delivery, JobRecord, JobState, NewJob, OnConflict
from taskharbor.outcome import Cancelled, Failed, Outcome, Rejected, Released, Snoozed, Strayed, Succeeded
from taskharbor.retry import Retry, RetryNumbers
from taskharbor.settlement import Settled, SettleKind, Settlement, SettleStatus, settlement
from taskharbor_conformance.case import DriverFactory, opener

T = TypeVar("T")

START = datetime(2026, 1, 1, tzinfo=UTC)
ZERO = timedelta(0)
_WHOLE_DAYS = timedelta(days=2)

QUEUES = ("mail", "images")
TASKS = ("send", "resize", "count")
BUILDS = ("build-1", "build-2")
NEW_BUILD = "build-3"
"""A build that never refuses anything, so that every stray job has somebody who can take it."""
WORKERS = ("anna", "bert")
KEYS = ("k1", "k2")


# --- the book: what the rules say -------------------------------------------------------------------------


@dataclass
class BookJob:
    """One job as the rules see it."""

    new: NewJob
    run_at: datetime
    enqueued_at: datetime
    due: datetime
    guarded: bool
    front: bool = False
    attempt: int = 0
    deliveries: int = 0
    lost: int = 0
    crashes: int = 0
    stray: bool = False
    refused_by: frozenset[str] = frozenset()
    stray_reason: str = ""
    token: int | None = None
    settled_under: int | None = None
    cancel: str | None = None
    final: JobState | None = None
    finished_at: datetime | None = None
    reason: str = ""
    result: bytes | None = None
    result_codec: str = ""
    errors: list[tuple[int, str, datetime]] = field(default_factory=list[tuple[int, str, datetime]])
    operations: list[tuple[str, datetime, str]] = field(default_factory=list[tuple[str, datetime, str]])

    @property
    def pending(self) -> bool:
        """Return whether it waits to be reserved."""
        return self.final is None and self.token is None

    @property
    def solo(self) -> bool:
        """Return whether two workers died while running it (rule 4)."""
        return self.crashes >= 2

    @property
    def order(self) -> tuple[int, int, datetime, str]:
        """Return its place among all jobs: priority, lane, due, id (rule 10). Solo jobs come before the lanes."""
        lane = 0 if self.solo else 1 if self.front else 2
        return self.new.priority, lane, self.due, self.new.id

    def open_to(self, tasks: frozenset[str], build: str) -> bool:
        """Return whether a worker that knows `tasks` and is of `build` may take it (rule 16)."""
        return not self.stray or (self.new.task in tasks and build not in self.refused_by)


@dataclass
class BookLease:
    """One reserve's jobs."""

    token: int
    worker: str
    duration: timedelta
    expires_at: datetime
    ids: list[str]
    started: set[str] = field(default_factory=set[str])


@dataclass
class BookKey:
    """Who holds an idempotency key, and from when on it is free again."""

    job_id: str
    digest: bytes
    free_at: datetime | None = None


@dataclass
class BookWorker:
    """One worker on the register."""

    tasks: frozenset[str]
    build: str
    ttl: timedelta
    seen_at: datetime


@dataclass
class Taken:
    """What a reserve should answer."""

    ids: list[str]
    held_back: bool
    due_in: timedelta | None
    """How long until the next job of these queues is due."""
    may_be_sooner: bool
    """A limit ended the reserve: the worker may be told to look again before that."""
    solo_left: bool
    """Solo jobs are left, which count or not."""


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
                if reason or answer.job_id in self.jobs or self._holds_key(answer.job_id)
                else Enqueued(EnqueueStatus.LEFT_OUT, job.id)
                for job, answer, reason in zip(jobs, answers, refused, strict=True)
            ]
        self.gone -= self.jobs.keys()
        return answers

    def _holds_key(self, job_id: str) -> bool:
        # Its record may be gone: a key has a time of its own.
        return any(key.job_id == job_id for key in self.keys.values())

    def _enqueue_one(self, new: NewJob) -> Enqueued:
        if new.id in self.jobs:
            return Enqueued(EnqueueStatus.EXISTING, new.id)
        if new.key is not None:
            holder = self.key_holder(new.task, new.key)
            if holder is not None:
                same = holder.digest == new.digest
                return Enqueued(EnqueueStatus.EXISTING if same else EnqueueStatus.CONFLICT, holder.job_id)
            self.keys[new.task, new.key] = BookKey(new.id, new.digest)
        run_at = new.run_at or self.now + (new.run_in or ZERO)
        self.jobs[new.id] = BookJob(
            new, run_at, self.now, max(run_at, self.now), guarded=new.retry.max_attempts == 1
        )
        return Enqueued(EnqueueStatus.CREATED, new.id)

    def reserve(self, request: JobReserve) -> Taken:
        """Lease the next jobs and return what the answer should be."""
        left = {take.name: take.limit for take in request.queues}
        guarded_left, solo_left = request.guarded_limit, 1 if request.solo else 0
        taken: list[str] = []
        held_back = False
        in_order = self._in_order(left, request.tasks, request.build)
        for job in in_order:
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


# --- what is drawn ----------------------------------------------------------------------------------------

SECONDS = (1, 2, 5, 10, 30)
durations = st.sampled_from([timedelta(seconds=seconds) for seconds in SECONDS])
leases = st.sampled_from([timedelta(seconds=5), timedelta(seconds=30)])
queue_sets = st.lists(st.sampled_from(QUEUES), min_size=1, unique=True)
task_sets = st.frozensets(st.sampled_from(TASKS))
builds = st.sampled_from(BUILDS)
workers = st.sampled_from(WORKERS)
mostly_all = st.sampled_from([10, 2, 1, 10, 10, 0])

retries = st.builds(
    RetryNumbers,
    max_attempts=st.sampled_from([3, 5, 2, 1]),
    base_seconds=st.sampled_from([0.0, 2.0]),
    factor=st.just(2.0),
    cap_seconds=st.just(5.0),
    jitter=st.just(False),
)


class Draft(msgspec.Struct, frozen=True):
    """A job to be, before it has an id and a time."""

    job: NewJob
    id_prefix: int
    """Ids are not always made in the order in which jobs are enqueued."""
    run_at_in: timedelta | None


drafts = st.builds(
    Draft,
    job=st.builds(
        NewJob,
        id=st.just(""),
        task=st.sampled_from(TASKS),
        payload=st.sampled_from([b"1", b"2"]),
        digest=st.sampled_from([b"1", b"1", b"2"]),
        codec=st.just("json"),
        fingerprint=st.just(7),
        queue=st.sampled_from(QUEUES),
        priority=st.sampled_from([5, 5, 5, 0, 9]),
        run_in=st.none() | st.none() | durations,
        retry=retries,
        timeout=st.none() | durations,
        meta=st.sampled_from([{}, {"tenant": "a"}]),
        key=st.none() | st.sampled_from(KEYS),
        key_ttl=st.sampled_from([timedelta(seconds=10), ZERO, timedelta(days=1)]),
        on_conflict=st.sampled_from(OnConflict),
        keep_result=st.booleans(),
        retain=st.sampled_from([timedelta(seconds=30), ZERO, timedelta(days=7)]),
    ),
    id_prefix=st.integers(0, 3),
    run_at_in=st.none() | st.sampled_from([timedelta(seconds=n) for n in (-30, -1, 0, 1, 30)]),
)

attempt_errors = st.builds(
    AttemptError, attempt=st.just(0), type=st.sampled_from(["ValueError", "OSError"]), message=st.just("no")
)
outcomes: st.SearchStrategy[Outcome] = st.one_of(
    st.builds(Succeeded, st.none() | st.just(b"3"), st.just("json")),
    st.builds(
        Failed,
        attempt_errors,
        st.none() | st.just(Retry.never),
        st.none() | st.just(ZERO) | durations,
    ),
    st.builds(Snoozed, st.just(ZERO) | durations),
    st.builds(Rejected, attempt_errors, st.just("rejected")),
    st.builds(Cancelled, st.just("stopped")),
    st.builds(Released, st.booleans()),
    st.builds(Strayed, st.just("not mine"), st.none() | builds),
)


# --- the machine: verbs in any order ----------------------------------------------------------------------


class ContractMachine(RuleBasedStateMachine):
    """Carries out verbs on a store and in the book, and compares. Get one for a driver from `contract_machine`."""

    def __init__(self) -> None:
        super().__init__()
        self.book = Book()
        self.sent: dict[str, NewJob] = {}
        self.delivered: list[Delivery] = []
        self.ended: dict[str, JobRecord] = {}
        self.tokens = 0
        self.loop = asyncio.new_event_loop()
        self.resources = AsyncExitStack()
        self.place = ExitStack()
        self.driver = self.make_driver()
        self.store: Store = self.ask(self.resources.enter_async_context(self.driver.connect()))

    def make_driver(self) -> Driver:
        """Return a driver on an empty store."""
        raise NotImplementedError("a machine is made by contract_machine(factory)")

    def teardown(self) -> None:
        """Close the store, the driver and the loop."""
        try:
            self.ask(self.resources.aclose())
        finally:
            self.place.close()
            self.loop.close()

    def ask(self, verb: Awaitable[T]) -> T:
        """Run one verb to its end on this machine's loop."""
        return self.loop.run_until_complete(verb)

    def pick(self, data: st.DataObject, *states: JobState) -> list[str]:
        """Draw one to three different jobs, of which the first is in one of `states` if there is any such."""
        likely = sorted(job_id for job_id, job in self.book.jobs.items() if self.book.state(job) in states)
        all_of_them = [*sorted(self.book.jobs), *sorted(self.book.gone)[:2]]
        first = data.draw(st.sampled_from(likely or all_of_them), label="job")
        others = data.draw(st.lists(st.sampled_from(all_of_them), max_size=2), label="and")
        return list(dict.fromkeys([first, *others]))

    # enqueue

    @initialize(drafts=st.lists(drafts, min_size=3, max_size=8))
    def begin(self, drafts: list[Draft]) -> None:
        """Begin with a few jobs, so that no verb finds an empty store."""
        self.enqueue(drafts, all_or_none=False)

    @rule(drafts=st.lists(drafts, min_size=1, max_size=4), all_or_none=st.booleans())
    def enqueue(self, drafts: list[Draft], all_or_none: bool) -> None:
        """Enqueue new jobs, some of whose keys are taken, by others or by one another."""
        self._enqueue([self._new_job(draft) for draft in drafts], all_or_none=all_or_none)

    @rule(data=st.data(), draft=st.none() | drafts, all_or_none=st.booleans())
    def enqueue_again(self, data: st.DataObject, draft: Draft | None, all_or_none: bool) -> None:
        """Send a job once more, as after a lost answer, alone or with a new one."""
        again = self.sent[data.draw(st.sampled_from(sorted(self.sent)), label="job")]
        fresh = [] if draft is None else [self._new_job(draft)]
        self._enqueue([*fresh, again], all_or_none=all_or_none)

    def _new_job(self, draft: Draft) -> NewJob:
        job_id = f"0000000{draft.id_prefix}-0000-7000-8000-{len(self.sent):012x}"
        run_at = None
        if draft.job.run_in is None and draft.run_at_in is not None:
            run_at = self.book.now + draft.run_at_in
        self.sent[job_id] = msgspec.structs.replace(draft.job, id=job_id, run_at=run_at)
        return self.sent[job_id]

    def _enqueue(self, jobs: list[NewJob], *, all_or_none: bool) -> None:
        request = JobEnqueue(jobs=jobs, all_or_none=all_or_none, now=self.book.now)

        answers = self.ask(self.store.job_enqueue(request))

        _same(self.book.enqueue(jobs, all_or_none=all_or_none), list(answers), "job_enqueue")

    # time

    @rule(by=durations | st.sampled_from([timedelta(minutes=1), timedelta(hours=1), timedelta(days=8)]))
    def turn_the_clock(self, by: timedelta) -> None:
        """Let time pass: a little, or enough for leases, keys and retention to end."""
        self.book.now += by

    # reserve

    @rule(
        queues=queue_sets,
        quota=st.tuples(mostly_all, mostly_all),
        limit=mostly_all,
        lease=leases,
        worker=workers,
        tasks=task_sets | st.just(frozenset(TASKS)),
        build=builds,
        guarded_limit=mostly_all,
        solo=st.booleans(),
    )
    def reserve(
        self,
        queues: list[str],
        quota: tuple[int, int],
        limit: int,
        lease: timedelta,
        worker: str,
        tasks: frozenset[str],
        build: str,
        guarded_limit: int,
        solo: bool,
    ) -> None:
        """Reserve what may run, under any limits."""
        takes = [QueueTake(name, most) for name, most in zip(queues, quota, strict=False)]
        self._reserve(
            JobReserve(
                queues=takes,
                limit=limit,
                lease=lease,
                token=self._new_token(),
                worker=worker,
                tasks=tasks,
                build=build,
                guarded_limit=guarded_limit,
                solo=solo,
                now=self.book.now,
            )
        )

    def _reserve_all(
        self, worker: str, lease: timedelta, limit: int = 1000, queues: Sequence[str] = QUEUES
    ) -> Sequence[Delivery]:
        return self._reserve(self._all_of(worker, lease, self._new_token(), limit, queues))

    def _all_of(
        self, worker: str, lease: timedelta, token: int, limit: int = 1000, queues: Sequence[str] = QUEUES
    ) -> JobReserve:
        return JobReserve(
            queues=[QueueTake(queue, 1000) for queue in queues],
            limit=limit,
            lease=lease,
            token=token,
            worker=worker,
            tasks=frozenset(TASKS),
            build=NEW_BUILD,
            guarded_limit=1000,
            solo=True,
            now=self.book.now,
        )

    def _new_token(self) -> int:
        # Distinct, and no counter: tokens are compared for equality only.
        self.tokens += 1
        return self.tokens * 0x1E3779B97F4A7C15 % 2**63

    def _reserve(self, request: JobReserve) -> Sequence[Delivery]:
        answer = self.ask(self.store.job_reserve(request))

        expected = self.book.reserve(request)
        _same(expected.ids, [delivery.id for delivery in answer.deliveries], "reserved, in order")
        _same(expected.held_back, answer.held_back, "held_back")
        if expected.ids:
            _same(self.book.now + request.lease, answer.expires_at, "expires_at")
        for delivery in answer.deliveries:
            _same(_delivery(self.book.jobs[delivery.id], request.token), delivery, "delivery")
        if not expected.may_be_sooner:
            _same(expected.due_in, answer.next_due_in, "next_due_in")
        elif expected.due_in is not None and not expected.solo_left:
            assert answer.next_due_in is not None, "a job will be due, but next_due_in is None"
            assert answer.next_due_in <= expected.due_in, "next_due_in is too great"
        self.delivered.extend(answer.deliveries)
        return answer.deliveries

    @precondition(lambda self: bool(self.book.leases))
    @rule(data=st.data())
    def reserve_again(self, data: st.DataObject) -> None:
        """Repeat a reserve with its token, as after a lost answer: it returns what is still held, and no more."""
        lease = self.book.leases[data.draw(st.sampled_from(list(self.book.leases)), label="token")]
        request = self._all_of(lease.worker, lease.duration, lease.token)

        answer = self.ask(self.store.job_reserve(request))

        _same(sorted(lease.ids), sorted(delivery.id for delivery in answer.deliveries), "still held")
        _same(lease.expires_at, answer.expires_at, "expires_at of a repeated reserve")
        for delivery in answer.deliveries:
            _same(_delivery(self.book.jobs[delivery.id], lease.token), delivery, "delivery")

    # leases

    @rule(data=st.data(), worker=workers, lease=leases)
    def extend(self, data: st.DataObject, worker: str, lease: timedelta) -> None:
        """Extend some leases of a worker, old and gone ones among them, and report some starts."""
        own = [token for token, held in self.book.leases.items() if held.worker == worker]
        gone = sorted({d.token for d in self.delivered} - set(self.book.leases))
        holds: list[LeaseHold] = []
        for tokens in (own, gone[-3:]):
            for token in data.draw(st.lists(st.sampled_from(tokens), unique=True)) if tokens else []:
                # A report may name jobs that are settled, or were never under this lease.
                own_jobs = self.book.leases[token].ids if token in self.book.leases else []
                jobs = st.sampled_from([*own_jobs, *sorted(self.sent)])
                holds.append(LeaseHold(token, data.draw(st.lists(jobs, unique=True, max_size=5))))
        self._extend(LeaseExtend(worker=worker, leases=holds, lease=lease, now=self.book.now))

    def _extend(self, request: LeaseExtend) -> None:
        known = self.book.workers.get(request.worker)
        live = known in self.book.live_workers()

        answer = self.ask(self.store.lease_extend(request))

        lost, cancels = self.book.extend(request)
        _same(self.book.now + request.lease, answer.expires_at, "expires_at")
        _same(sorted(lost), sorted(answer.lost), "lost")
        _same(sorted(cancels, key=_of_job), sorted(answer.cancels, key=_of_job), "cancels")
        if known is None or live:
            _same(known is not None, answer.known_worker, "known_worker")
        # An entry that outlived its ttl may have been dropped by the store, or be heard again.
        if known is not None and answer.known_worker:
            known.seen_at = self.book.now
        elif known is not None:
            del self.book.workers[request.worker]

    @rule(
        observed=st.sampled_from([ZERO, timedelta(seconds=5), timedelta(minutes=1), timedelta(days=1)]),
        limit=st.sampled_from([1, 2, 1000]),
    )
    def reclaim(self, observed: timedelta, limit: int) -> None:
        """Reclaim what expired, having watched the store for longer or shorter."""
        self._reclaim(observed, limit)

    def _reclaim(self, observed: timedelta, limit: int) -> None:
        may = self.book.reclaimable(observed)
        of_job = {job_id: lease for lease in may for job_id in lease.ids}

        answers = self.ask(
            self.store.lease_reclaim(LeaseReclaim(observed=observed, limit=limit, now=self.book.now))
        )

        for answer in answers:
            assert answer.job_id in of_job, f"{answer.job_id} was under no lease that may be reclaimed"
        took = {of_job[answer.job_id].token for answer in answers}
        sizes = [len(lease.ids) for lease in may if lease.token in took]
        # Whole leases, one at least, none begun once the limit is reached, and all of them below it.
        _same(sum(sizes), len(answers), "jobs of leases reclaimed whole")
        assert not sizes or sum(sizes) - max(sizes) < limit, f"{sizes} jobs a lease, for a limit of {limit}"
        assert sum(sizes) >= limit or len(took) == len(may), "an expired lease was passed over"
        expected = [fate for lease in may if lease.token in took for fate in self.book.reclaim(lease)]
        _same(sorted(expected, key=_of_job), sorted(answers, key=_of_job), "reclaimed")

    @rule(
        rounds=st.sampled_from([1, 1, 2, 2, 10]),
        worker=workers,
        queues=queue_sets,
        limit=st.integers(1, 4),
        starts=st.sampled_from([0, 1, 4]),
        cancel=st.sampled_from([False, False, True]),
    )
    def crash(
        self, rounds: int, worker: str, queues: list[str], limit: int, starts: int, cancel: bool
    ) -> None:
        """A worker reserves a few jobs, may report the start of some, and dies; again and again."""
        lease = timedelta(seconds=5)
        for _ in range(rounds):
            taken = self._reserve_all(worker, lease, limit, queues)
            if taken and starts:
                hold = LeaseHold(taken[0].token, [delivery.id for delivery in taken[:starts]])
                self._extend(LeaseExtend(worker=worker, leases=[hold], lease=lease, now=self.book.now))
            if taken and cancel:
                self._cancel([taken[-1].id], worker)
            self.book.now += lease
            self._reclaim(timedelta(seconds=5), 1000)

    # settle

    @rule(
        worker=workers,
        lease=leases,
        limit=st.integers(1, 4),
        ends=st.lists(outcomes, min_size=4, max_size=4),
        cancel=st.sampled_from([False, False, True]),
    )
    def work(self, worker: str, lease: timedelta, limit: int, ends: list[Outcome], cancel: bool) -> None:
        """Reserve a few jobs and settle them in one batch; the first of them may be cancelled in between."""
        taken = self._reserve_all(worker, lease, limit)
        if taken and cancel:
            self._cancel([taken[0].id], worker)
        self._settle([settlement(end, delivery) for end, delivery in zip(ends, taken, strict=False)])

    @precondition(lambda self: bool(self.book.leases))
    @rule(data=st.data(), outcome=outcomes, twice=st.booleans())
    def settle_held(self, data: st.DataObject, outcome: Outcome, twice: bool) -> None:
        """Settle a job that is held, and perhaps repeat it, as after a lost answer."""
        held = sorted(job_id for job_id, job in self.book.jobs.items() if job.token is not None)
        job = self.book.jobs[data.draw(st.sampled_from(held), label="job")]
        asked = settlement(outcome, _delivery(job, job.token or 0))
        for _ in range(1 + twice):
            self._settle([asked])

    @precondition(lambda self: bool(self.delivered))
    @rule(data=st.data())
    def settle_any(self, data: st.DataObject) -> None:
        """Settle deliveries in a batch: held ones, lost ones, and some that were settled before."""
        some = st.lists(
            st.sampled_from(self.delivered[-12:]), min_size=1, max_size=4, unique_by=lambda one: one.id
        )
        self._settle(
            [settlement(data.draw(outcomes), delivery) for delivery in data.draw(some, label="deliveries")]
        )

    def _settle(self, settlements: list[Settlement]) -> None:
        answers = self.ask(self.store.job_settle(JobSettle(settlements=settlements, now=self.book.now)))

        _same([self.book.settle(asked) for asked in settlements], list(answers), "job_settle")

    # by hand

    @rule(data=st.data(), by=workers)
    def cancel(self, data: st.DataObject, by: str) -> None:
        """Cancel jobs in any state, running ones above all."""
        self._cancel(self.pick(data, JobState.RUNNING), by)

    def _cancel(self, job_ids: list[str], by: str) -> None:
        request = JobCancel(ids=job_ids, reason=f"asked by {by}", by=by, now=self.book.now)

        answers = self.ask(self.store.job_cancel(request))

        expected = [self.book.cancel(job_id, request.reason, by) for job_id in job_ids]
        _same(expected, list(answers), "job_cancel")

    @rule(data=st.data(), by=workers)
    def requeue(self, data: st.DataObject, by: str) -> None:
        """Requeue jobs in any state, ended ones above all."""
        job_ids = self.pick(data, JobState.DEAD, JobState.CANCELLED)
        request = JobRequeue(ids=job_ids, by=by, reason="again", now=self.book.now)

        answers = self.ask(self.store.job_requeue(request))

        expected = [self.book.requeue(job_id, by) for job_id in job_ids]
        _same(expected, list(answers), "job_requeue")
        for job_id, status in zip(job_ids, answers, strict=True):
            if status is RequeueStatus.REQUEUED:
                del self.ended[job_id]

    @precondition(lambda self: len(self.book.jobs) > 3)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        """Delete a job in any state."""
        job_ids = self.pick(data)[:1]

        answers = self.ask(self.store.job_delete(JobDelete(ids=job_ids, now=self.book.now)))

        _same([self.book.delete(job_id) for job_id in job_ids], list(answers), "job_delete")

    @rule(queues=queue_sets, by=workers)
    def pause(self, queues: list[str], by: str) -> None:
        """Pause queues, some of them for the second time."""
        self.ask(
            self.store.queue_pause(QueuePause(queues=queues, by=by, reason="repairs", now=self.book.now))
        )
        for queue in queues:
            self.book.paused.setdefault(queue, (self.book.now, by, "repairs"))

    @rule(queues=st.just(QUEUES) | queue_sets)
    def resume(self, queues: Sequence[str]) -> None:
        """Resume queues, whether or not they were paused."""
        self.ask(self.store.queue_resume(QueueResume(queues=queues, now=self.book.now)))
        for queue in queues:
            self.book.paused.pop(queue, None)

    # upkeep

    @rule(
        worker=workers,
        tasks=task_sets,
        build=builds,
        ttl=st.sampled_from([timedelta(seconds=10), timedelta(days=30)]),
        stop=st.booleans(),
    )
    def register(self, worker: str, tasks: frozenset[str], build: str, ttl: timedelta, stop: bool) -> None:
        """Put a worker on the register, or replace its entry; or take it off, whether or not it is there."""
        if stop:
            self.ask(self.store.worker_forget(WorkerForget(workers=[worker], now=self.book.now)))
            self.book.workers.pop(worker, None)
            return
        request = WorkerAnnounce(
            worker=worker, queues=QUEUES, tasks=tasks, build=build, ttl=ttl, now=self.book.now
        )
        self.ask(self.store.worker_announce(request))
        self.book.workers[worker] = BookWorker(tasks, build, ttl, self.book.now)

    @rule(limit=st.sampled_from([1, 2, 1000]))
    def prune(self, limit: int) -> None:
        """Remove what has outlived its retention, in small or large steps."""
        more = True
        while more:
            more = self._prune(limit)
        # A driver may remove whole days at once, and so keep a job up to two days longer.
        _same(set(), self.book.outlived(_WHOLE_DAYS), "jobs left by a prune that has no more to do")

    def _prune(self, limit: int) -> bool:
        outlived, free_keys = sorted(self.book.outlived()), self.book.free_keys()

        answer = self.ask(self.store.history_prune(HistoryPrune(limit=limit, now=self.book.now)))

        _same(min(limit, len(free_keys)), answer.keys, "keys pruned")
        gone = [
            job_id for job_id, record in zip(outlived, self._get(outlived), strict=True) if record is None
        ]
        _same(len(gone), answer.jobs, "jobs pruned")
        for job_id in gone:
            self.book.remove(job_id)
        # Which keys went is not to be seen: a key that is free may be on record or not.
        for name in sorted(free_keys)[: answer.keys]:
            del self.book.keys[name]
        unfinished = bool(self.book.outlived(_WHOLE_DAYS)) or len(free_keys) > answer.keys
        assert answer.more or not unfinished, "more is left than `more` says"
        return answer.more

    @precondition(lambda self: len(self.sent) > 12)
    @rule()
    def lose_nothing(self) -> None:
        """Whatever happened before, a worker that knows everything finds each job that is still to be done."""
        self.resume(QUEUES)
        for _ in range(2):
            self.book.now += timedelta(days=1)
            self._reclaim(timedelta(days=1), 1_000_000)
        left = {job_id for job_id, job in self.book.jobs.items() if job.final is None}
        while left:
            taken = self._reserve_all("anna", timedelta(seconds=5))
            assert taken, f"nobody can reserve {sorted(left)}"
            left -= {delivery.id for delivery in taken}
            self._settle([settlement(Snoozed(timedelta(seconds=1)), delivery) for delivery in taken])

    # what a reader sees

    @rule(
        states=st.frozensets(st.sampled_from(JobState), max_size=3),
        queues=st.frozensets(st.sampled_from(QUEUES), max_size=1),
        tasks=st.frozensets(st.sampled_from(TASKS), max_size=2),
        key=st.none() | st.sampled_from(KEYS),
        data=st.data(),
        limit=st.integers(1, 5),
        newest_first=st.booleans(),
    )
    def look(
        self,
        states: frozenset[JobState],
        queues: frozenset[str],
        tasks: frozenset[str],
        key: str | None,
        data: st.DataObject,
        limit: int,
        newest_first: bool,
    ) -> None:
        """Look for jobs by any filter, and count them."""
        after = data.draw(st.sampled_from(["", *sorted(self.sent)]), label="after")
        request = JobFind(
            states=states,
            queues=queues,
            tasks=tasks,
            key=key,
            after=after,
            limit=limit,
            newest_first=newest_first,
            now=self.book.now,
        )

        found = self.ask(self.store.job_find(request))
        counted = self.ask(self.store.job_count(JobCount(queues=queues, tasks=tasks, now=self.book.now)))

        here = [
            job
            for _, job in sorted(self.book.jobs.items())
            if job.new.queue in (queues or QUEUES) and job.new.task in (tasks or TASKS)
        ]
        expected = [
            job.new.id
            for job in here
            if (not after or job.new.id < after if newest_first else job.new.id > after)
            and self.book.state(job) in (states or JobState)
            and (key is None or job.new.key == key)
        ]
        if newest_first:
            expected.reverse()
        _same(expected[:limit], [record.id for record in found], "job_find")
        _same(self._counted(here), list(counted), "job_count")

    def _counted(self, jobs: Iterable[BookJob]) -> list[Counted]:
        counts = Counter((job.new.queue, job.new.task, self.book.state(job)) for job in jobs)
        return [Counted(*name, count) for name, count in sorted(counts.items())]

    def _get(self, ids: Iterable[str]) -> Sequence[JobRecord | None]:
        return self.ask(self.store.job_get(JobGet(ids=list(ids), now=self.book.now)))

    @invariant()
    def every_job_is_accounted_for(self) -> None:
        """Every job ever stored is there as the book says, or was deleted or pruned."""
        known = sorted(self.sent)
        records = self._get(known)
        for job_id, record in zip(known, records, strict=True):
            if record is None:
                assert job_id not in self.book.jobs, f"{job_id} is lost"
                self.ended.pop(job_id, None)
                continue
            assert job_id in self.book.jobs, f"{job_id} is there, though it was refused or removed"
            self._check_record(self.book.jobs[job_id], record)
            before = self.ended.get(job_id)
            assert before in (None, record), f"{job_id} had ended and changed: {before} -> {record}"
            if record.state in TERMINAL:
                self.ended[job_id] = record

    def _check_record(self, job: BookJob, record: JobRecord) -> None:
        lease = None if job.token is None else self.book.leases[job.token]
        state = self.book.state(job)
        expected: dict[str, object] = {
            "id": job.new.id,
            "task": job.new.task,
            "queue": job.new.queue,
            "state": state,
            "priority": job.new.priority,
            "due_at": job.due if job.final is None and job.token is None else None,
            "run_at": job.run_at,
            "enqueued_at": job.enqueued_at,
            "finished_at": job.finished_at,
            "attempt": job.attempt,
            "max_attempts": job.new.retry.max_attempts,
            "deliveries": job.deliveries,
            "guarded": job.guarded,
            "crashes": job.crashes,
            "worker": "" if lease is None else lease.worker,
            "lease_expires_at": None if lease is None else lease.expires_at,
            "started": lease is not None and job.new.id in lease.started,
            "cancel_requested": job.cancel is not None,
            "refused_by": tuple(sorted(job.refused_by)),
            "key": job.new.key,
            "meta": job.new.meta,
            "payload": job.new.payload,
            "codec": job.new.codec,
            "fingerprint": job.new.fingerprint,
            "result": job.result,
            "result_codec": job.result_codec,
            "keep_result": job.new.keep_result,
        }
        seen = {name: getattr(record, name) for name in expected}
        _same(expected, seen, f"record of {job.new.id}")
        _same(job.errors, [(error.attempt, error.type, error.at) for error in record.errors], "errors")
        _same(job.operations, [(act.verb, act.at, act.by) for act in record.operations], "operations")
        if state is JobState.PARKED:
            _same(job.stray_reason, record.reason, "why it is parked")
        elif job.reason == "...":  # the store's own words
            assert record.reason, "a dead letter says why"
        elif state in TERMINAL:
            _same(job.reason, record.reason, "reason")

    @invariant()
    def no_job_is_under_two_leases(self) -> None:
        """Each job is held under one lease at most, and the store counts as many as the book."""
        held = [job_id for lease in self.book.leases.values() for job_id in lease.ids]
        listed = self.ask(self.store.worker_list(WorkerList(now=self.book.now)))

        assert len(held) == len(set(held))
        expected = [
            (name, worker.tasks, worker.build, worker.seen_at, self._running(name))
            for name, worker in sorted(self.book.workers.items())
            if worker in self.book.live_workers()
        ]
        _same(expected, [(w.worker, w.tasks, w.build, w.seen_at, w.running) for w in listed], "worker_list")

    def _running(self, worker: str) -> int:
        return sum(len(lease.ids) for lease in self.book.leases.values() if lease.worker == worker)

    @invariant()
    def queues_add_up(self) -> None:
        """job_count and queue_list say the same as the records."""
        counted = self.ask(self.store.job_count(JobCount(now=self.book.now)))
        listed = self.ask(self.store.queue_list(QueueList(now=self.book.now)))

        _same(self._counted(self.book.jobs.values()), list(counted), "job_count")
        _same(list(self._queues()), list(listed), "queue_list")

    def _queues(self) -> Iterator[QueueInfo]:
        for name in sorted(QUEUES):
            states = Counter(self.book.state(job) for job in self.book.jobs.values() if job.new.queue == name)
            pause = self.book.paused.get(name)
            if pause is None and not set(states) - TERMINAL:
                continue
            yield QueueInfo(
                name=name,
                paused=pause is not None,
                paused_at=None if pause is None else pause[0],
                paused_by="" if pause is None else pause[1],
                reason="" if pause is None else pause[2],
                ready=states[JobState.READY],
                scheduled=states[JobState.SCHEDULED] + states[JobState.RETRYING],
                parked=states[JobState.PARKED],
                running=states[JobState.RUNNING],
            )


def contract_machine(factory: DriverFactory) -> type[ContractMachine]:
    """Return a state machine of the contract for the drivers of a factory, as `conformance_test` takes it.

    The factory is called once a run and has to give an empty place. Run the machine with
    `hypothesis.stateful.run_state_machine_as_test`, or collect its `TestCase`.
    """

    class DriverMachine(ContractMachine):
        def make_driver(self) -> Driver:
            return opener(factory, self.place)()

    return DriverMachine


def _delivery(job: BookJob, token: int) -> Delivery:
    return Delivery(
        id=job.new.id,
        token=token,
        task=job.new.task,
        queue=job.new.queue,
        payload=job.new.payload,
        codec=job.new.codec,
        fingerprint=job.new.fingerprint,
        attempt=job.attempt + 1,
        fence=job.deliveries,
        retry=job.new.retry,
        timeout=job.new.timeout,
        priority=job.new.priority,
        run_at=job.run_at,
        enqueued_at=job.enqueued_at,
        key=job.new.key,
        meta=job.new.meta,
        keep_result=job.new.keep_result,
        guarded=job.guarded,
        solo=job.solo,
        cancel_requested=job.cancel is not None,
    )


def _of_job(answer: CancelRequest | Reclaimed) -> str:
    return answer.job_id


def _same(expected: T, got: T, what: str) -> None:
    assert expected == got, f"{what}: the contract says {expected!r}, the store said {got!r}"
