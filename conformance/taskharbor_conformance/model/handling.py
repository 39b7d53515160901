"""The rules of people and of upkeep: what is done by hand, the register, retention; and that nothing is lost."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from taskharbor.driver import (
    HistoryPrune,
    JobDelete,
    JobRequeue,
    QueuePause,
    QueueResume,
    RequeueStatus,
    WorkerAnnounce,
    WorkerForget,
)
from taskharbor.job import JobState
from taskharbor.outcome import Snoozed
from taskharbor.settlement import settlement
from taskharbor_conformance.model.book import WHOLE_DAYS
from taskharbor_conformance.model.drawn import QUEUES, builds, queue_sets, task_sets, workers
from taskharbor_conformance.model.machine import same
from taskharbor_conformance.model.records import BookWorker
from taskharbor_conformance.model.working import Working


class Handling(Working):
    """Cancels, requeues, deletes, pauses, prunes."""

    # by hand

    @rule(data=st.data(), by=workers)
    def cancel(self, data: st.DataObject, by: str) -> None:
        """Cancel jobs in any state, running ones above all."""
        self._cancel(self.pick(data, JobState.RUNNING), by)

    @rule(data=st.data(), by=workers)
    def requeue(self, data: st.DataObject, by: str) -> None:
        """Requeue jobs in any state, ended ones above all."""
        job_ids = self.pick(data, JobState.DEAD, JobState.CANCELLED)
        request = JobRequeue(ids=job_ids, by=by, reason="again", now=self.book.now)

        answers = self.ask(self.store.job_requeue(request))

        expected = [self.book.requeue(job_id, by) for job_id in job_ids]
        same(expected, list(answers), "job_requeue")
        for job_id, status in zip(job_ids, answers, strict=True):
            if status is RequeueStatus.REQUEUED:
                del self.ended[job_id]

    @precondition(lambda self: len(self.book.jobs) > 3)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        """Delete a job in any state."""
        job_ids = self.pick(data)[:1]

        answers = self.ask(self.store.job_delete(JobDelete(ids=job_ids, now=self.book.now)))

        same([self.book.delete(job_id) for job_id in job_ids], list(answers), "job_delete")

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
        same(set(), self.book.outlived(WHOLE_DAYS), "jobs left by a prune that has no more to do")

    def _prune(self, limit: int) -> bool:
        outlived, free_keys = sorted(self.book.outlived()), self.book.free_keys()

        answer = self.ask(self.store.history_prune(HistoryPrune(limit=limit, now=self.book.now)))

        same(min(limit, len(free_keys)), answer.keys, "keys pruned")
        gone = [job_id for job_id, record in zip(outlived, self.get(outlived), strict=True) if record is None]
        same(len(gone), answer.jobs, "jobs pruned")
        for job_id in gone:
            self.book.remove(job_id)
        # Which keys went is not to be seen: a key that is free may be on record or not.
        for name in sorted(free_keys)[: answer.keys]:
            del self.book.keys[name]
        unfinished = bool(self.book.outlived(WHOLE_DAYS)) or len(free_keys) > answer.keys
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
