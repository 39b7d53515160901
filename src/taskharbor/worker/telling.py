"""What a worker tells of its jobs: events for those who listen, in this process or by the feed; counts for all.

Told after the fact, and only what is a fact: a job has ended so when the store has said that it has. What is to be told
of its end is noted when its outcome is handed in, since the store's answer names the job alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from taskharbor.driver import JobGet, Reclaimed, Store
from taskharbor.event import Ending, JobProgressed, JobStarted
from taskharbor.job import Delivery, JobRecord, JobState, new_job_id, new_job_ids
from taskharbor.report import Progress
from taskharbor.settlement import Settled, SettleKind, Settlement, SettleStatus
from taskharbor.telemetry import Hub, Tallies
from taskharbor.telemetry.announcing import TOLD_BY_PRODUCERS
from taskharbor.telemetry.endings import EVENTS, Ended, event_of
from taskharbor.telemetry.events import KINDS
from taskharbor.telemetry.news import News, StoredResult
from taskharbor.worker.journal import Journal
from taskharbor.worker.run import Run

_ENDINGS = {
    SettleKind.RETRY: Ending.RETRYING,
    SettleKind.SNOOZE: Ending.SNOOZED,
    SettleKind.RELEASE: Ending.RELEASED,
    SettleKind.BURY: Ending.DEAD,
    SettleKind.CANCEL: Ending.CANCELLED,
    SettleKind.STRAY: Ending.PARKED,
}
_KINDS = frozenset[type]({StoredResult}) | KINDS - TOLD_BY_PRODUCERS
"""What workers tell."""
_SUCCEED = SettleKind.SUCCEED
_SUCCEEDED = Ending.SUCCEEDED.value
_STALE = SettleStatus.STALE

_Noted: TypeAlias = tuple[str, str, int, str | None, float | None]
"""Of a delivery whose outcome is on its way: task, queue, attempt, flow, seconds that its handler ran."""


class Telling:
    """What one worker tells."""

    def __init__(self, hub: Hub, journal: Journal, tallies: Tallies, *, worker: str) -> None:
        """Prepare it, on the worker's loop, where all but `began` is called."""
        self._hub = hub
        self._journal = journal
        self._tallies = tallies
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self._begun: list[tuple[Delivery, datetime]] = []
        """Handlers on the loop of whose begin nobody was told yet."""
        self._noted: dict[tuple[str, int], _Noted] = {}
        self._hurried = False

    @property
    def heeded(self) -> bool:
        """Return whether anybody listens."""
        return self._hub.active or self._journal.watched

    def began(self, run: Run) -> None:
        """Tell that a handler began in its thread."""
        if self._journal.watched or self._hub.wants(JobStarted):
            event = self._started(run.delivery, datetime.now(UTC), new_job_id())
            with run.shelter():
                self._publish([event])

    def began_on_loop(self, run: Run) -> None:
        """Tell that a handler began on the loop: in its next turn, with all others that begin in this one."""
        if self._journal.watched or self._hub.wants(JobStarted):
            if not self._begun:
                self._loop.call_soon(self._tell_begun)
            self._begun.append((run.delivery, datetime.now(UTC)))

    def _tell_begun(self) -> None:
        begun, self._begun = self._begun, []
        if begun:
            ids = new_job_ids(len(begun))
            self._publish(
                [
                    self._started(delivery, at, new_id)
                    for (delivery, at), new_id in zip(begun, ids, strict=True)
                ]
            )

    def _started(self, delivery: Delivery, at: datetime, event_id: str) -> JobStarted:
        return JobStarted(
            id=event_id,
            at=at,
            job_id=delivery.id,
            task=delivery.task,
            queue=delivery.queue,
            flow=_flow(delivery),
            worker=self._worker,
            attempt=delivery.attempt,
            waited=max(at - delivery.enqueued_at, timedelta(0)),  # two clocks
        )

    def progressed(self, run: Run, progress: Progress) -> None:
        """Tell how far a handler is."""
        if not (self._journal.watched or self._hub.wants(JobProgressed)):
            return
        self._tell_begun()
        delivery = run.delivery
        event = JobProgressed(
            id=new_job_id(),
            at=datetime.now(UTC),
            job_id=delivery.id,
            task=delivery.task,
            queue=delivery.queue,
            flow=_flow(delivery),
            worker=self._worker,
            attempt=delivery.attempt,
            progress=progress,
        )
        self._publish([event])

    def note(self, delivery: Delivery, seconds: float | None) -> None:
        """Note what will have to be told of a delivery whose outcome is handed in; its handler ran for so long."""
        step = delivery.step
        self._noted[delivery.id, delivery.token] = (
            delivery.task,
            delivery.queue,
            delivery.attempt,
            None if step is None else step.flow or None,
            seconds,
        )

    def ended(self, settlements: Sequence[Settlement], answers: Sequence[Settled]) -> None:
        """Count, and tell of, deliveries that the store says have ended so. One answer each, in order."""
        taken, heeded = self._noted.pop, self.heeded
        # Added up here first: most of a batch are of one kind, and this is done for every job there is.
        sums: dict[tuple[str, str, str], list[float]] = {}
        told: list[tuple[Settlement, str, _Noted]] = []
        for written, answer in zip(settlements, answers, strict=True):
            noted = taken((written.job_id, written.token), None)
            if noted is None or answer.status is _STALE:
                continue
            if written.kind is _SUCCEED:
                ending = _SUCCEEDED
            elif answer.state is JobState.CANCELLED:  # the store has the last word
                ending = Ending.CANCELLED.value
            else:
                ending = _ENDINGS[written.kind].value
            added = sums.get((noted[1], noted[0], ending))
            if added is None:
                added = sums[noted[1], noted[0], ending] = [0, 0.0]
            added[0] += 1
            added[1] += noted[4] or 0.0
            if heeded:
                told.append((written, ending, noted))
        minute = self._tallies.minute()
        for (queue, task, ending), (count, seconds) in sums.items():
            self._tallies.note(minute, queue, task, ending, seconds, int(count))
        if told:
            self._tell_of(told)

    def _tell_of(self, ended: Sequence[tuple[Settlement, str, _Noted]]) -> None:
        self._tell_begun()
        news: list[News] = []
        results, now = self._hub.wants(StoredResult), datetime.now(UTC)
        for (written, value, noted), event_id in zip(ended, new_job_ids(len(ended)), strict=True):
            ending = Ending(value)
            if self._journal.watched or self._hub.wants(EVENTS[ending]):
                facts = self._facts(written, noted)
                news.append(event_of(ending, facts, event_id=event_id, at=now))
            if results and written.result is not None:
                news.append(
                    StoredResult(
                        job_id=written.job_id,
                        task=noted[0],
                        queue=noted[1],
                        data=written.result,
                        codec=written.codec,
                    )
                )
        self._publish(news)

    def _facts(self, written: Settlement, noted: _Noted) -> Ended:
        task, queue, attempt, flow, seconds = noted
        return Ended(
            job_id=written.job_id,
            task=task,
            queue=queue,
            flow=flow,
            worker=self._worker,
            attempt=attempt,
            ran=None if seconds is None else timedelta(seconds=seconds),
            error="" if written.error is None else written.error.type,
            reason=written.reason,
            next_in=written.after or timedelta(0),
        )

    async def reclaimed(self, store: Store, reclaimed: Sequence[Reclaimed]) -> None:
        """Count, and tell of, jobs that were taken from workers that are gone."""
        minute = self._tallies.minute()
        for job in reclaimed:
            self._tallies.note(minute, job.queue, job.task, _ENDINGS[job.fate].value, 0.0)
        if not (reclaimed and self.heeded):
            return
        records = await store.job_get(JobGet(ids=[job.job_id for job in reclaimed]))
        now = datetime.now(UTC)
        self._publish(
            [
                event_of(_ENDINGS[job.fate], _lost(job, record), event_id=event_id, at=now)
                for job, record, event_id in zip(reclaimed, records, new_job_ids(len(records)), strict=True)
                if record is not None
            ]
        )

    # --- listeners that asked to be waited for

    @property
    def full(self) -> bool:
        """Return whether somebody listens who has to be waited for: then nothing more may come to an end here."""
        return self._hub.active and not self._hurried and self._hub.full(_KINDS)

    async def room(self) -> None:
        """Wait until nobody has to be waited for any more."""
        await self._hub.room(_KINDS, enough=lambda: self._hurried)

    def hurry(self) -> None:
        """Wait for no listener any more: the worker stops."""
        self._hurried = True

    def _publish(self, news: Sequence[News]) -> None:
        if self._hub.active:
            self._hub.publish(news)
        if self._journal.watched:
            self._journal.add([one for one in news if not isinstance(one, StoredResult)])


def _flow(delivery: Delivery) -> str | None:
    return None if delivery.step is None else delivery.step.flow or None


def _lost(job: Reclaimed, record: JobRecord) -> Ended:
    """Return what is known of a delivery that ended with its worker."""
    charged = job.fate is not SettleKind.RELEASE
    due = record.due_at
    return Ended(
        job_id=job.job_id,
        task=job.task,
        queue=job.queue,
        flow=record.flow,
        worker=job.worker,
        attempt=max(record.attempt, 1) if charged else record.attempt + 1,
        ran=None,
        error=record.errors[-1].type if charged and record.errors else "",
        reason=record.reason,
        next_in=timedelta(0) if due is None else max(due - datetime.now(UTC), timedelta(0)),
    )
