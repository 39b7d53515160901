"""The rules of those who enqueue, and of time."""

from __future__ import annotations

from datetime import timedelta

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from taskharbor.driver import EnqueueStatus, JobEnqueue
from taskharbor.job import NewJob, OnConflict
from taskharbor_conformance.model.drawn import DEBOUNCED, TASKS, Draft, drafts, durations
from taskharbor_conformance.model.machine import Machine, same


class Producing(Machine):
    """Enqueues jobs, and turns the clock."""

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
        job = msgspec.structs.replace(draft.job, id=job_id, payload=job_id.encode(), run_at=run_at)
        if job.key == DEBOUNCED:
            job = msgspec.structs.replace(job, key_rule=draft.latest, on_conflict=OnConflict.REPLACE)
        self.sent[job_id] = job
        return self.sent[job_id]

    def _enqueue(self, jobs: list[NewJob], *, all_or_none: bool) -> None:
        request = JobEnqueue(jobs=jobs, all_or_none=all_or_none, now=self.book.now)

        answers = self.ask(self.store.job_enqueue(request))

        same(self.book.enqueue(jobs, all_or_none=all_or_none), list(answers), "job_enqueue")
        for job, answer in zip(jobs, answers, strict=True):
            if answer.status in (EnqueueStatus.CREATED, EnqueueStatus.REPLACED):
                self.last_words[answer.job_id] = job.payload

    # uniqueness

    @invariant()
    def of_a_key_that_is_replaced_one_job_waits_that_nobody_has_begun_with(self) -> None:
        """However many came, and in whatever order."""
        for task in TASKS:
            waiting = [
                job_id
                for job_id, job in self.book.jobs.items()
                if job.pending and not job.deliveries and (job.new.task, job.new.key) == (task, DEBOUNCED)
            ]
            assert len(waiting) <= 1, f"{waiting} of the task {task} wait side by side"

    # time

    @rule(by=durations | st.sampled_from([timedelta(minutes=1), timedelta(hours=1), timedelta(days=8)]))
    def turn_the_clock(self, by: timedelta) -> None:
        """Let time pass: a little, or enough for leases, keys and retention to end."""
        self.book.now += by
