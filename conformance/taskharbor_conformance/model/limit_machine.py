"""A machine of limits, holds and turns: any order of verbs, on any driver, against the book of limits.

Jobs whose tasks have limits have partitions here: when a driver moves a plain job into a line is its own affair.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Sequence
from contextlib import AsyncExitStack, ExitStack
from datetime import timedelta
from typing import TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from taskharbor.driver import (
    Driver,
    HistoryPrune,
    HoldLift,
    HoldPlace,
    JobCancel,
    JobCount,
    JobEnqueue,
    JobFind,
    JobGet,
    JobRequeue,
    JobReserve,
    JobSettle,
    LeaseReclaim,
    LimitClear,
    LimitDeclare,
    LimitList,
    LimitSet,
    QueuePause,
    QueueResume,
    QueueTake,
    Reservation,
    Store,
)
from taskharbor.job import Delivery, JobState, NewJob
from taskharbor.limit import LimitTerms, RateTerms, Scope, ScopeKind
from taskharbor.settlement import Settlement
from taskharbor_conformance.bench import BUILD, burial, failure, new_job, release, snooze, success
from taskharbor_conformance.case import DriverFactory, opener
from taskharbor_conformance.model.limit_book import ZERO, LimitBook, LimitedJob
from taskharbor_conformance.model.machine import same

T = TypeVar("T")

QUEUES = ("mail", "images")
GOVERNED = ("resize", "send")
PLAIN = "count"
"""A task without partitions, and without limits of its own."""
KEYS = ("", "acme", "bolt")
SECOND = timedelta(seconds=1)
LEASE = timedelta(seconds=8)
RATES = (RateTerms(1, 6 * SECOND), RateTerms(1, 3 * SECOND, 2), RateTerms(3, 6 * SECOND, 3))
"""In all of them a whole burst takes six seconds to come back, so that none is ahead of what another allows."""

Kind = tuple[str, str, str | None]
kinds: st.SearchStrategy[Kind] = st.one_of(
    st.tuples(st.sampled_from(QUEUES), st.sampled_from(GOVERNED), st.sampled_from(KEYS)),
    st.tuples(st.sampled_from(QUEUES), st.just(PLAIN), st.none()),
)
drafts = st.tuples(
    kinds, st.sampled_from([5, 5, 5, 0]), st.sampled_from([0, 0, 0, 0, 2, 7]), st.integers(1, 4)
)
terms = st.builds(LimitTerms, st.sampled_from([None, 1, 2, 2, 3, 0]), st.sampled_from([None, None, *RATES]))
declarations = st.builds(LimitTerms, st.sampled_from([None, 1, 2, 4]), st.sampled_from([None, None, *RATES]))
task_scopes = st.builds(Scope, st.sampled_from([ScopeKind.TASK, ScopeKind.KEYS]), st.sampled_from(GOVERNED))
key_scopes = st.builds(Scope, st.just(ScopeKind.KEY), st.sampled_from(GOVERNED), st.sampled_from(KEYS))
queue_scopes = st.builds(Scope, st.just(ScopeKind.QUEUE), st.sampled_from(QUEUES))
held_scopes = st.builds(Scope, st.just(ScopeKind.TASK), st.sampled_from(GOVERNED)) | key_scopes
mostly_all = st.sampled_from([1000, 1000, 2, 1, 3, 0])
queue_lists = st.sampled_from([list(QUEUES), list(QUEUES), list(QUEUES)[::-1], ["mail"], ["images"]])


class LimitsMachine(RuleBasedStateMachine):
    """A store and the book of limits side by side. Get one for a driver from `limits_machine`."""

    def __init__(self) -> None:
        super().__init__()
        self.book = LimitBook()
        self.delivered: dict[str, Delivery] = {}
        self.tokens = 0
        self.loop = asyncio.new_event_loop()
        self.resources = AsyncExitStack()
        self.place = ExitStack()
        self.driver = self.make_driver()
        self.store: Store = self.ask(self.resources.enter_async_context(self.driver.connect()))

    def make_driver(self) -> Driver:
        """Return a driver on an empty store."""
        raise NotImplementedError("a machine is made by limits_machine(factory)")

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

    # producers, and time

    @initialize(some=st.lists(drafts, min_size=3, max_size=6))
    def begin(self, some: list[tuple[Kind, int, int, int]]) -> None:
        """Begin with a few jobs."""
        for draft in some:
            self.enqueue(draft)

    @rule(draft=drafts)
    def enqueue(self, draft: tuple[Kind, int, int, int]) -> None:
        """Store a few jobs of a kind."""
        (queue, task, partition), priority, later, count = draft
        jobs: list[NewJob] = []
        for _ in range(count):
            number = len(self.book.jobs) + 1
            run_in = later * SECOND if later else None
            job = new_job(
                id=f"00000000-0000-7000-8000-{number:012x}",
                queue=queue,
                task=task,
                partition=partition,
                priority=priority,
                run_in=run_in,
            )
            self.book.jobs[job.id] = LimitedJob(job, self.book.now + (run_in or ZERO))
            jobs.append(job)
        self.ask(self.store.job_enqueue(JobEnqueue(jobs=jobs, now=self.book.now)))

    @rule(by=st.sampled_from([1, 1, 2, 3, 4, 9]), more=st.sampled_from([0, 0, 1, 500_000]))
    def turn_the_clock(self, by: int, more: int) -> None:
        """Let time pass."""
        self.book.now += by * SECOND + timedelta(microseconds=more)

    # workers

    @rule(
        queues=queue_lists,
        quota=st.tuples(mostly_all, mostly_all),
        limit=mostly_all,
        partitioned=st.none() | mostly_all,
        bits=st.integers(0, 3),
    )
    def reserve(
        self, queues: list[str], quota: tuple[int, int], limit: int, partitioned: int | None, bits: int
    ) -> None:
        """Reserve what may run, under any limits of the request's own."""
        self._reserve(dict(zip(queues, quota, strict=False)), limit, partitioned, bits)

    @rule(count=st.sampled_from([1, 1, 2, 3, 1000]), bits=st.integers(0, 3))
    def reserve_of_all(self, count: int, bits: int) -> None:
        """Reserve a few jobs of any queue."""
        self._reserve(dict.fromkeys(QUEUES, 1000), count, None, bits)

    def _request(self, queues: dict[str, int], limit: int, partitioned: int | None, token: int) -> JobReserve:
        return JobReserve(
            queues=[QueueTake(name, quota) for name, quota in queues.items()],
            limit=limit,
            lease=LEASE,
            token=token,
            worker="anna",
            tasks=frozenset({*GOVERNED, PLAIN}),
            build=BUILD,
            guarded_limit=1000,
            solo=True,
            partitioned_limit=partitioned,
            now=self.book.now,
        )

    def _reserve(self, queues: dict[str, int], limit: int, partitioned: int | None, bits: int) -> None:
        self.tokens += 1
        request = self._request(queues, limit, partitioned, self.tokens << 2 | bits)

        answer: Reservation = self.ask(self.store.job_reserve(request))

        expected = self.book.reserve(request)
        got = [one.id for one in answer.deliveries]
        same(sorted(expected.ids), sorted(got), "reserved")
        same(self._by_line(expected.ids), self._by_line(got), "reserved of each line, in order")
        if expected.again is not None:
            assert answer.next_due_in is not None, (
                f"a job may be taken in {expected.again}, and None was told"
            )
            assert answer.next_due_in <= expected.again, "next_due_in is too great"
        self.delivered |= {one.id: one for one in answer.deliveries}

    def _by_line(self, ids: Sequence[str]) -> dict[tuple[str, int, str, str], list[str]]:
        lines: dict[tuple[str, int, str, str], list[str]] = {}
        for job_id in ids:
            new = self.book.jobs[job_id].new
            lines.setdefault((new.queue, new.priority, new.task, new.partition or ""), []).append(job_id)
        return lines

    @precondition(lambda self: bool(self.book.leases))
    @rule(data=st.data())
    def reserve_again(self, data: st.DataObject) -> None:
        """Repeat a reserve with its token, as after a lost answer."""
        token = data.draw(st.sampled_from(sorted(self.book.leases)), label="token")

        answer = self.ask(
            self.store.job_reserve(self._request(dict.fromkeys(QUEUES, 1000), 1000, None, token))
        )

        same(sorted(self.book.leases[token].ids), sorted(one.id for one in answer.deliveries), "still held")

    @precondition(lambda self: bool(self.book.leases))
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        """Settle some of what is held, each in its own way."""
        held = sorted(job_id for job_id, job in self.book.jobs.items() if job.token is not None)
        some = data.draw(st.lists(st.sampled_from(held), min_size=1, max_size=4, unique=True), label="jobs")
        asked = [self._end(job_id, data.draw(st.sampled_from(_ENDS), label="end")) for job_id in some]

        answers = self.ask(self.store.job_settle(JobSettle(settlements=asked, now=self.book.now)))

        expected = [self.book.state_told(self.book.jobs[job_id]) for job_id in some]
        same(expected, [one.state for one in answers], "job_settle")

    def _end(self, job_id: str, end: str) -> Settlement:
        job, delivery = self.book.jobs[job_id], self.delivered[job_id]
        self.book.leave(job)
        match end:
            case "fail" if job.attempt < 3:
                job.attempt += 1
                self.book.wait(job, 2 * SECOND)
                return failure(delivery, 2 * SECOND)
            case "snooze":
                self.book.wait(job, 5 * SECOND)
                return snooze(delivery, 5 * SECOND)
            case "release":
                self.book.wait(job, front=True)
                return release(delivery)
            case "bury":
                job.attempt += 1
                job.final = JobState.DEAD
                return burial(delivery)
            case _:
                job.attempt += 1
                job.final = JobState.SUCCEEDED
                return success(delivery)

    @rule()
    def reclaim(self) -> None:
        """Take back what has expired: nothing of it was started."""
        expired = [lease for lease in self.book.leases.values() if lease.expires_at <= self.book.now]
        ids = [job_id for lease in expired for job_id in lease.ids]

        answers = self.ask(
            self.store.lease_reclaim(LeaseReclaim(observed=timedelta(days=1), limit=1000, now=self.book.now))
        )

        same(sorted(ids), sorted(one.job_id for one in answers), "reclaimed")
        for job_id in ids:
            job = self.book.jobs[job_id]
            self.book.leave(job)
            self.book.wait(job, front=True)

    # operators

    @rule(scope=task_scopes | key_scopes | queue_scopes, new=terms)
    def set_limit(self, scope: Scope, new: LimitTerms) -> None:
        """Set limits by hand."""
        before = self.book.terms(scope)

        answer = self.ask(self.store.limit_set(LimitSet(scope=scope, terms=new, now=self.book.now)))

        same((before, before != new), (answer.before, answer.changed), "limit_set")
        self.book.overrides[scope] = new
        self.book.rules_changed()

    @rule(scope=task_scopes | key_scopes | queue_scopes)
    def clear_limit(self, scope: Scope) -> None:
        """Take back what was set by hand."""
        (answer,) = self.ask(self.store.limit_clear(LimitClear(scopes=[scope], now=self.book.now)))

        same(self.book.overrides.pop(scope, None) is not None, answer, "limit_clear")
        self.book.rules_changed()

    @rule(task=st.sampled_from(GOVERNED), whole=declarations, each=declarations)
    def declare(self, task: str, whole: LimitTerms, each: LimitTerms) -> None:
        """Declare, as a worker does when it starts."""
        limits = {Scope(ScopeKind.TASK, task): whole, Scope(ScopeKind.KEYS, task): each}

        self.ask(self.store.limit_declare(LimitDeclare(limits=limits, now=self.book.now)))

        self.book.declared |= limits
        self.book.rules_changed()

    @rule(scopes=st.lists(held_scopes, min_size=1, max_size=2, unique=True))
    def hold(self, scopes: list[Scope]) -> None:
        """Hold back."""
        answers = self.ask(self.store.hold_place(HoldPlace(scopes=scopes, now=self.book.now)))

        same([scope not in self.book.held for scope in scopes], list(answers), "hold_place")
        self.book.held |= set(scopes)

    @precondition(lambda self: bool(self.book.held))
    @rule(data=st.data())
    def lift(self, data: st.DataObject) -> None:
        """Let go."""
        scope = data.draw(st.sampled_from(sorted(self.book.held)), label="scope")

        answers = self.ask(self.store.hold_lift(HoldLift(scopes=[scope], now=self.book.now)))

        same([True], list(answers), "hold_lift")
        self.book.held.remove(scope)

    @rule(queue=st.sampled_from(QUEUES))
    def pause(self, queue: str) -> None:
        """Pause a queue."""
        answers = self.ask(self.store.queue_pause(QueuePause(queues=[queue], now=self.book.now)))

        same([queue not in self.book.paused], list(answers), "queue_pause")
        self.book.paused.add(queue)

    @precondition(lambda self: bool(self.book.paused))
    @rule()
    def resume(self) -> None:
        """Resume all queues."""
        answers = self.ask(self.store.queue_resume(QueueResume(queues=QUEUES, now=self.book.now)))

        same([queue in self.book.paused for queue in QUEUES], list(answers), "queue_resume")
        self.book.paused.clear()

    @precondition(lambda self: any(job.pending for job in self.book.jobs.values()))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """Cancel a job that waits."""
        waiting = sorted(job_id for job_id, job in self.book.jobs.items() if job.pending)
        job_id = data.draw(st.sampled_from(waiting), label="job")
        self.ask(self.store.job_cancel(JobCancel(ids=[job_id], now=self.book.now)))
        self.book.jobs[job_id].final = JobState.CANCELLED

    @precondition(lambda self: any(job.final is JobState.DEAD for job in self.book.jobs.values()))
    @rule()
    def requeue(self) -> None:
        """Requeue the dead letters: each goes back to its line."""
        dead = [job_id for job_id, job in self.book.jobs.items() if job.final is JobState.DEAD]
        self.ask(self.store.job_requeue(JobRequeue(ids=dead, now=self.book.now)))
        for job_id in dead:
            job = self.book.jobs[job_id]
            job.final, job.attempt = None, 0
            self.book.wait(job)

    @rule()
    def prune(self) -> None:
        """Remove what is over: nothing of it is in use."""
        self.ask(self.store.history_prune(HistoryPrune(now=self.book.now)))

    # looking

    @invariant()
    def every_job_is_shown_as_it_is(self) -> None:
        """Whatever limits and holds say."""
        ids = sorted(self.book.jobs)
        records = self.ask(self.store.job_get(JobGet(ids=ids, now=self.book.now)))
        got = {one.id: (one.state, one.partition) for one in records if one is not None}
        expected = {
            job_id: (self.book.state(job), job.new.partition) for job_id, job in self.book.jobs.items()
        }
        same(expected, got, "job_get")

    @rule(state=st.sampled_from([JobState.PARKED, JobState.READY]))
    def look(self, state: JobState) -> None:
        """Find and count jobs by state, and list the limits with what runs."""
        now = self.book.now
        found = self.ask(
            self.store.job_find(JobFind(states=frozenset({state}), limit=1000, payloads=False, now=now))
        )
        expected = sorted(job_id for job_id, job in self.book.jobs.items() if self.book.state(job) is state)
        same(expected, [one.id for one in found], "job_find")
        counted = self.ask(self.store.job_count(JobCount(now=now)))
        tally = Counter(
            (job.new.queue, job.new.task, self.book.state(job)) for job in self.book.jobs.values()
        )
        same(dict(tally), {(one.queue, one.task, one.state): one.count for one in counted}, "job_count")
        listed = self.ask(self.store.limit_list(LimitList(now=now)))
        for one in listed:
            same(self.book.running(one.scope), one.running, f"running of {one.scope}")
            same(self.book.terms(one.scope), one.terms, f"terms of {one.scope}")


_ENDS = ("succeed", "succeed", "succeed", "fail", "snooze", "release", "bury")


def limits_machine(factory: DriverFactory) -> type[LimitsMachine]:
    """Return a state machine of limits for the drivers of a factory, as `conformance_test` takes it."""

    class DriverMachine(LimitsMachine):
        def make_driver(self) -> Driver:
            return opener(factory, self.place)()

    return DriverMachine
