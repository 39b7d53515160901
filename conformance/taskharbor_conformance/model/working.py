"""The rules of workers: reserve, leases, settle, and crashes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from taskharbor.driver import (
    AgedTake,
    JobCancel,
    JobReserve,
    JobSettle,
    LeaseExtend,
    LeaseHold,
    LeaseReclaim,
    QueueTake,
)
from taskharbor.job import Delivery
from taskharbor.outcome import Outcome
from taskharbor.settlement import Settlement, settlement
from taskharbor_conformance.model.book import ZERO
from taskharbor_conformance.model.drawn import (
    NEW_BUILD,
    QUEUES,
    TASKS,
    aging,
    builds,
    leases,
    mostly_all,
    outcomes,
    queue_sets,
    task_sets,
    workers,
)
from taskharbor_conformance.model.machine import Machine, delivery_of, job_of, same


class Working(Machine):
    """Reserves, extends, settles, dies, and is reclaimed."""

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
        aged=aging,
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
        aged: AgedTake | None,
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
                aged=aged,
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
        same(expected.ids, [delivery.id for delivery in answer.deliveries], "reserved, in order")
        same(expected.held_back, answer.held_back, "held_back")
        if expected.ids:
            same(self.book.now + request.lease, answer.expires_at, "expires_at")
        for delivery in answer.deliveries:
            same(delivery_of(self.book.jobs[delivery.id], request.token), delivery, "delivery")
        if not expected.may_be_sooner:
            same(expected.due_in, answer.next_due_in, "next_due_in")
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

        same(sorted(lease.ids), sorted(delivery.id for delivery in answer.deliveries), "still held")
        same(lease.expires_at, answer.expires_at, "expires_at of a repeated reserve")
        for delivery in answer.deliveries:
            same(delivery_of(self.book.jobs[delivery.id], lease.token), delivery, "delivery")

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
        same(self.book.now + request.lease, answer.expires_at, "expires_at")
        same(sorted(lost), sorted(answer.lost), "lost")
        same(sorted(cancels, key=job_of), sorted(answer.cancels, key=job_of), "cancels")
        if known is None or live:
            same(known is not None, answer.known_worker, "known_worker")
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
        same(sum(sizes), len(answers), "jobs of leases reclaimed whole")
        assert not sizes or sum(sizes) - max(sizes) < limit, f"{sizes} jobs a lease, for a limit of {limit}"
        assert sum(sizes) >= limit or len(took) == len(may), "an expired lease was passed over"
        expected = [fate for lease in may if lease.token in took for fate in self.book.reclaim(lease)]
        same(sorted(expected, key=job_of), sorted(answers, key=job_of), "reclaimed")

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
        asked = settlement(outcome, delivery_of(job, job.token or 0))
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

        same([self.book.settle(asked) for asked in settlements], list(answers), "job_settle")

    def _cancel(self, job_ids: list[str], by: str) -> None:
        request = JobCancel(ids=job_ids, reason=f"asked by {by}", by=by, now=self.book.now)

        answers = self.ask(self.store.job_cancel(request))

        expected = [self.book.cancel(job_id, request.reason, by) for job_id in job_ids]
        same(expected, list(answers), "job_cancel")
