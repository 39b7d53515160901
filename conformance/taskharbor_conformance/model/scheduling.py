"""The rules of schedules and of who leads: ticks are the model's own, a period after the one before."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from taskharbor.driver import (
    UPKEEP,
    Enqueued,
    EnqueueStatus,
    Fired,
    Firing,
    LeaderRelease,
    LeaderTake,
    ScheduleCreate,
    ScheduleDeclare,
    ScheduleDelete,
    ScheduleDue,
    ScheduleFind,
    ScheduleFire,
    SchedulePause,
    ScheduleResume,
)
from taskharbor.job import NewJob
from taskharbor.schedule import Every, NewSchedule, Schedule, ScheduleRecord
from taskharbor_conformance.bench import STEADY
from taskharbor_conformance.model.drawn import QUEUES, TASKS, Draft, drafts, leases, workers
from taskharbor_conformance.model.machine import Machine, same

APPLICATION = "app"
DECLARED, BY_HAND = ("app/a", "app/b"), ("app/b", "c")
NAMES = ("app/a", "app/b", "c")

periods = st.sampled_from([timedelta(seconds=5), timedelta(seconds=30)])
untils = st.sampled_from([None, None, timedelta(seconds=60)])


def _told(answers: Sequence[Fired]) -> list[tuple[bool, list[Enqueued]]]:
    return [(answer.moved, list(answer.jobs)) for answer in answers]


class Scheduling(Machine):
    """Declares, creates, pauses, fires, leads."""

    # what is said of schedules

    @rule(
        names=st.lists(st.sampled_from(DECLARED), unique=True),
        period=periods,
        queue=st.sampled_from(QUEUES),
        generation=st.sampled_from([None, None, None, 1, 3]),
        force=st.booleans(),
    )
    def declare(
        self, names: list[str], period: timedelta, queue: str, generation: int | None, force: bool
    ) -> None:
        """Declare a set of schedules, perhaps one that was declared before."""
        job = NewJob(
            id="", task=TASKS[0], payload=b"1", codec="json", fingerprint=7, queue=queue, retry=STEADY
        )
        schedules = [
            NewSchedule(name=name, schedule=Schedule(trigger=Every(period)), job=job) for name in names
        ]
        request = ScheduleDeclare(
            application=APPLICATION,
            schedules=schedules,
            digest=msgspec.json.encode(schedules),
            generation=generation,
            force=force,
            now=self.book.now,
        )

        answer = self.ask(self.store.schedule_declare(request))

        expected, told = (
            (one.status, one.generation, list(one.added), list(one.changed), list(one.removed))
            for one in (self.timetable.declare(request), answer)
        )
        same(expected, told, "schedule_declare")
        self._check_schedules()

    @rule(name=st.sampled_from(BY_HAND), period=periods, draft=drafts, until=untils, replace=st.booleans())
    def create(
        self, name: str, period: timedelta, draft: Draft, until: timedelta | None, replace: bool
    ) -> None:
        """Create a schedule by hand, or change one."""
        schedule = Schedule(trigger=Every(period), until=None if until is None else self.book.now + until)
        new = NewSchedule(name=name, schedule=schedule, job=draft.job)
        request = ScheduleCreate(schedules=[new], replace=replace, now=self.book.now)

        (answer,) = self.ask(self.store.schedule_create(request))

        same(self.timetable.create(new, replace=replace), answer, "schedule_create")
        self._check_schedules()

    @precondition(lambda self: bool(self.timetable.schedules))
    @rule(
        names=st.lists(st.sampled_from([*NAMES, "unknown"]), min_size=1, max_size=2, unique=True),
        what=st.sampled_from(["pause", "pause", "resume", "resume", "delete"]),
        by=workers,
    )
    def change_by_hand(self, names: list[str], what: str, by: str) -> None:
        """Pause, resume or delete schedules."""
        now = self.book.now
        if what == "pause":
            paused = SchedulePause(names=names, by=by, reason="why", now=now)
            answers = self.ask(self.store.schedule_pause(paused))
            expected = self.timetable.pause(names, by, "why")
        elif what == "resume":
            answers = self.ask(self.store.schedule_resume(ScheduleResume(names=names, now=now)))
            expected = self.timetable.resume(names)
        else:
            answers = self.ask(self.store.schedule_delete(ScheduleDelete(names=names, now=now)))
            expected = self.timetable.delete(names)

        same(expected, list(answers), f"schedule_{what}")
        self._check_schedules()

    # ticks

    @precondition(lambda self: bool(self.timetable.schedules))
    @rule(
        limit=st.sampled_from([10, 10, 2, 1]),
        rounds=st.integers(1, 3),
        overlap=st.sampled_from(["allow", "skip", "queue one"]),
        by_old=st.sampled_from([False, False, True]),
        twice=st.booleans(),
    )
    def fire(self, limit: int, rounds: int, overlap: str, by_old: bool, twice: bool) -> None:
        """Look for what is due and move it on, as a leader does; perhaps as one of old, perhaps asked twice."""
        leader = self.timetable.leader
        fence = None if leader is None else leader.fence - by_old
        outdone = leader is not None and by_old
        for _ in range(rounds):
            firings = [self._plan(record, busy, overlap) for record, busy in self._due(limit)]
            request = ScheduleFire(firings=firings, fence=fence, now=self.book.now)

            answers = self.ask(self.store.schedule_fire(request))

            expected = [self._moved(firing, outdone=outdone) for firing in firings]
            same(expected, _told(answers), "schedule_fire")
            self._note_words(firings, answers)
            if twice and not outdone:
                again = self.ask(self.store.schedule_fire(request))
                same([(False, [])] * len(firings), _told(again), "what was read before it was written")
            self._check_schedules()

    def _note_words(self, firings: Sequence[Firing], answers: Sequence[Fired]) -> None:
        """A template may take the place of what a producer brought."""
        for firing, answer in zip(firings, answers, strict=True):
            for job, told in zip(firing.jobs, answer.jobs, strict=False):
                if told.status in (EnqueueStatus.CREATED, EnqueueStatus.REPLACED):
                    self.last_words[told.job_id] = job.payload

    def _due(self, limit: int) -> list[tuple[ScheduleRecord, bool]]:
        answer = self.ask(self.store.schedule_due(ScheduleDue(limit=limit, now=self.book.now)))

        expected = self.timetable.due()
        found = [(one.record.name, one.busy) for one in answer.due]
        of_each = [(name, self.timetable.busy(self.timetable.schedules[name])) for name in expected[:limit]]
        same(of_each, found, "schedule_due")
        same(self.book.now, answer.now, "the present")
        ended = len(expected) > limit
        same(timedelta(0) if ended else self.timetable.next_in(), answer.next_in, "next_in")
        return [(one.record, one.busy) for one in answer.due]

    def _plan(self, record: ScheduleRecord, busy: bool, overlap: str) -> Firing:
        """Return how a schedule moves on: past one tick, or the one that waits, or to its next one."""
        assert isinstance(record.schedule.trigger, Every)
        period, until = record.schedule.trigger.period, record.schedule.until
        jobs: list[NewJob] = []
        tick, after, next_at, overlapped = None, record.after, record.next_at, 0
        waiting = record.waiting_tick
        if waiting is not None and not busy:
            tick, waiting = waiting, None
            jobs = [self._job_of(record)]
        elif next_at is None:
            next_at = after + period
        else:
            after, next_at = next_at, next_at + period
            if not busy or overlap == "allow":
                tick, jobs = after, [self._job_of(record)]
            elif overlap == "skip" or waiting is not None:
                overlapped = 1
            waiting = after if busy and overlap == "queue one" else waiting
        ended = record.ended or (until is not None and next_at is not None and next_at > until)
        return Firing(
            name=record.name,
            revision=record.revision,
            jobs=jobs,
            last_tick=tick,
            after=after,
            next_at=None if ended else next_at,
            ended=ended,
            waiting_tick=waiting,
            overlapped=overlapped,
            missed=int(period.total_seconds()) % 2,
        )

    def _job_of(self, record: ScheduleRecord) -> NewJob:
        job_id = f"00000000-0000-7000-8000-{len(self.sent):012x}"
        self.sent[job_id] = msgspec.structs.replace(record.job, id=job_id)
        return self.sent[job_id]

    def _moved(self, firing: Firing, *, outdone: bool) -> tuple[bool, list[Enqueued]]:
        if outdone:
            return False, []
        if firing.last_tick is not None:
            tick = (firing.name, firing.last_tick)
            assert tick not in self.ticks, f"{tick} has its job already"
            self.ticks.add(tick)
        return True, self.timetable.fire(firing)

    @precondition(lambda self: bool(self.timetable.schedules))
    @rule(name=st.sampled_from(NAMES), times=st.integers(1, 2))
    def trigger(self, name: str, times: int) -> None:
        """Fire a schedule by hand, more than once as it was read: its ticks stay as they are."""
        found = self.ask(self.store.schedule_find(ScheduleFind(names=[name], now=self.book.now)))
        for record in found:
            firing = Firing(name=name, revision=record.revision, jobs=[self._job_of(record)])
            request = ScheduleFire(firings=[firing] * times, now=self.book.now)

            answers = self.ask(self.store.schedule_fire(request))

            expected: list[tuple[bool, list[Enqueued]]]
            expected = [self._moved(firing, outdone=False), (False, [])]
            same(expected[:times], _told(answers), "schedule_fire by hand")
            self._note_words([firing] * times, answers)
        self._check_schedules()

    # leadership

    @rule(worker=workers, ttl=leases, leave=st.booleans())
    def lead(self, worker: str, ttl: timedelta, leave: bool) -> None:
        """Ask to lead, and perhaps leave."""
        before = self.timetable.leader
        fence = None if before is None else before.fence
        taken = LeaderTake(role=UPKEEP, worker=worker, ttl=ttl, now=self.book.now)

        answer = self.ask(self.store.leader_take(taken))

        leader = self.timetable.lead(worker, ttl)
        if leader is not before:
            assert fence is None or fence < answer.fence, "a later leader has a greater fence"
            leader.fence = answer.fence
        same(
            (leader.worker, leader.fence, leader.since, leader.until),
            (answer.worker, answer.fence, answer.since, answer.expires_at),
            "leader_take",
        )
        if leave:
            left = self.ask(
                self.store.leader_release(LeaderRelease(role=UPKEEP, worker=worker, now=self.book.now))
            )
            same(self.timetable.leave(worker), left, "leader_release")

    # what a reader sees

    def _check_schedules(self) -> None:
        """The store has the schedules of the book, and their counts; a revision grows with whatever is written."""
        records = self.ask(self.store.schedule_find(ScheduleFind(now=self.book.now)))
        same(sorted(self.timetable.schedules), [record.name for record in records], "schedule_find")
        for record in records:
            one = self.timetable.schedules[record.name]
            expected = ScheduleRecord(
                name=one.new.name,
                application=one.application,
                schedule=one.new.schedule,
                job=one.new.job,
                revision=record.revision,
                created_at=one.created_at,
                after=one.after,
                next_at=one.next_at,
                ended=one.ended,
                waiting_tick=one.waiting,
                paused_at=None if one.paused is None else one.paused[0],
                paused_by="" if one.paused is None else one.paused[1],
                reason="" if one.paused is None else one.paused[2],
                last_tick=one.last_tick,
                last_job=one.last_job,
                fired=one.fired,
                missed=one.missed,
                overlapped=one.overlapped,
                kept_out=one.kept_out,
            )
            same(expected, record, f"schedule {record.name}")
            grown = record.revision > one.revision if one.written else record.revision == one.revision
            assert grown, f"{record.name}: written {one.written}, {one.revision} -> {record.revision}"
            one.written, one.revision = False, record.revision
