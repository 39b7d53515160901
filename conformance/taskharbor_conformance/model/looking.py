"""What a reader sees, compared with the book: by filters, and as a whole after each step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from taskharbor.driver import Counted, JobCount, JobFilter, JobFind, QueueInfo, QueueList, WorkerList
from taskharbor.job import TERMINAL, JobRecord, JobState
from taskharbor_conformance.model.drawn import KEYS, QUEUES, TASKS
from taskharbor_conformance.model.machine import Machine, same
from taskharbor_conformance.model.records import BookJob

TIMES = ("enqueued_since", "enqueued_before", "finished_since", "finished_before")


def _matches(job: BookJob, wanted: JobFilter) -> bool:
    """Return whether a job is as a filter asks."""
    last = job.errors[-1][1] if job.errors else ""
    return (
        job.new.queue in (wanted.queues or QUEUES)
        and job.new.task in (wanted.tasks or TASKS)
        and wanted.error in ("", last, last.rpartition(".")[2])
        and _lies_between(job.enqueued_at, wanted.enqueued_since, wanted.enqueued_before)
        and _lies_between(job.finished_at, wanted.finished_since, wanted.finished_before)
    )


def _lies_between(moment: datetime | None, since: datetime | None, before: datetime | None) -> bool:
    if moment is None:
        return since is None and before is None
    return (since is None or moment >= since) and (before is None or moment < before)


class Looking(Machine):
    """Looks for jobs, and checks the whole store."""

    # what a reader sees

    @rule(
        states=st.frozensets(st.sampled_from(JobState), max_size=3),
        queues=st.frozensets(st.sampled_from(QUEUES), max_size=1),
        tasks=st.frozensets(st.sampled_from(TASKS), max_size=2),
        key=st.none() | st.sampled_from(KEYS),
        error=st.sampled_from(["", "", "ValueError", "WorkerLost", "taskharbor.WorkerLost", "Lost"]),
        since=st.dictionaries(st.sampled_from(TIMES), st.sampled_from([0, 1, 5, 30]), max_size=2),
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
        error: str,
        since: dict[str, int],
        data: st.DataObject,
        limit: int,
        newest_first: bool,
    ) -> None:
        """Look for jobs by any filter, and count them."""
        after = data.draw(st.sampled_from(["", *sorted(self.sent)]), label="after")
        times = {name: self.book.now - timedelta(seconds=seconds) for name, seconds in since.items()}
        request = JobFind(
            states=states,
            queues=queues,
            tasks=tasks,
            key=key,
            error=error,
            enqueued_since=times.get("enqueued_since"),
            enqueued_before=times.get("enqueued_before"),
            finished_since=times.get("finished_since"),
            finished_before=times.get("finished_before"),
            after=after,
            limit=limit,
            newest_first=newest_first,
            now=self.book.now,
        )
        counting = JobCount(**{name: getattr(request, name) for name in JobCount.__struct_fields__})

        found = self.ask(self.store.job_find(request))
        counted = self.ask(self.store.job_count(counting))

        here = [job for _, job in sorted(self.book.jobs.items()) if _matches(job, request)]
        expected = [
            job.new.id
            for job in here
            if (not after or job.new.id < after if newest_first else job.new.id > after)
            and self.book.state(job) in (states or JobState)
            and (key is None or job.new.key == key)
        ]
        if newest_first:
            expected.reverse()
        same(expected[:limit], [record.id for record in found], "job_find")
        same(self._counted(here), list(counted), "job_count")

    def _counted(self, jobs: Iterable[BookJob]) -> list[Counted]:
        counts = Counter((job.new.queue, job.new.task, self.book.state(job)) for job in jobs)
        return [Counted(*name, count) for name, count in sorted(counts.items())]

    @invariant()
    def every_job_is_accounted_for(self) -> None:
        """Every job ever stored is there as the book says, or was deleted or pruned."""
        known = sorted(self.sent)
        records = self.get(known)
        for job_id, record in zip(known, records, strict=True):
            if record is None:
                assert job_id not in self.book.jobs, f"{job_id} is lost"
                self.ended.pop(job_id, None)
                continue
            assert job_id in self.book.jobs, f"{job_id} is there, though it was refused or removed"
            self._check_record(self.book.jobs[job_id], record)
            # Whatever the book says: accepted arguments are there until later ones were told to have replaced them.
            if job_id in self.last_words:  # else a schedule brought it
                same(self.last_words[job_id], record.payload, f"what {job_id} was last told to be")
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
        same(expected, seen, f"record of {job.new.id}")
        same(job.errors, [(error.attempt, error.type, error.at) for error in record.errors], "errors")
        same(job.operations, [(act.verb, act.at, act.by) for act in record.operations], "operations")
        if state is JobState.PARKED:
            same(job.stray_reason, record.reason, "why it is parked")
        elif job.reason == "...":  # the store's own words
            assert record.reason, "a dead letter says why"
        elif state in TERMINAL:
            same(job.reason, record.reason, "reason")

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
        same(expected, [(w.worker, w.tasks, w.build, w.seen_at, w.running) for w in listed], "worker_list")

    def _running(self, worker: str) -> int:
        return sum(len(lease.ids) for lease in self.book.leases.values() if lease.worker == worker)

    @invariant()
    def queues_add_up(self) -> None:
        """job_count and queue_list say the same as the records."""
        counted = self.ask(self.store.job_count(JobCount(now=self.book.now)))
        listed = self.ask(self.store.queue_list(QueueList(now=self.book.now)))

        same(self._counted(self.book.jobs.values()), list(counted), "job_count")
        same(list(self._queues()), list(listed), "queue_list")

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
