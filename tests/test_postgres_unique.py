"""Uniqueness on PostgreSQL: whoever comes between a look and a lock, no key has two, and nothing accepted is lost.

What the rules are is the conformance suite's; here it is tried with others in the way, step by step.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Unpack

import pytest
from psycopg.errors import LockNotAvailable, SerializationFailure

from taskharbor.driver import (
    CancelStatus,
    Enqueued,
    EnqueueStatus,
    JobCancel,
    JobDelete,
    JobEnqueue,
    JobRequeue,
    JobSettle,
    ProducerStore,
)
from taskharbor.drivers.postgres import PostgresDriver
from taskharbor.drivers.postgres.control import job_cancel, job_delete, job_requeue
from taskharbor.drivers.postgres.settle import job_settle_together
from taskharbor.drivers.postgres.uniqueness import try_enqueue, worth_a_try
from taskharbor.flow import Sequel
from taskharbor.job import LIVE, Delivery, JobState, KeyRule, NewJob, OnConflict, new_job_ids
from taskharbor.settlement import Settlement, SettleStatus
from taskharbor_conformance.bench import HOUR, JobFields, burial, failure, new_job, release, success
from tests.support.postgres_place import shared_schema
from tests.support.postgres_walk import Blocked, Meeting, Party, Taker, meeting
from tests.test_postgres_reserve import checked_clock
from tests.test_postgres_reserve_at_random import Story

CREATED, REPLACED, EXISTING = EnqueueStatus.CREATED, EnqueueStatus.REPLACED, EnqueueStatus.EXISTING
LOCK, CLAIM, SEQUEL = "ORDER BY coalesce(waits", "digest, ttl, was, until)", "SAVEPOINT admission"
"""Words of the statements that lock those who hold keys, and that take the keys; and of what comes before a sequel."""
WAITS = KeyRule(states=(JobState.READY, JobState.SCHEDULED, JobState.RETRYING, JobState.PARKED))
LIVES = KeyRule(states=tuple(sorted(LIVE)))
HELD_BY = "SELECT job_id::text, expires_at IS NULL FROM key WHERE name = 'k'"


@pytest.fixture
def there() -> Generator[Meeting]:
    with meeting(shared_schema()) as met:
        yield met


def latest(what: bytes = b"new", **fields: Unpack[JobFields]) -> NewJob:
    """Return a job that takes the place of the one that has the key `k`."""
    fields["payload"] = what
    fields["on_conflict"] = OnConflict.REPLACE
    return unique(None, **fields)


def put_off(**fields: Unpack[JobFields]) -> NewJob:
    """Return one that does, an hour from now, but not later than a second after the first of them came."""
    fields["on_conflict"], fields["run_in"] = OnConflict.REPLACE, HOUR
    return unique(KeyRule(states=WAITS.states, latest=timedelta(seconds=1)), **fields)


def unique(rule: KeyRule | None = LIVES, **fields: Unpack[JobFields]) -> NewJob:
    """Return a job of the key `k`, whose arguments do not count."""
    fields.setdefault("key", "k")
    fields["digest"], fields["key_rule"] = b"", rule
    return new_job(**fields)


def stored(party: Party, *jobs: NewJob) -> list[str]:
    """Store jobs that nothing keeps out, and return their ids."""
    answers = party.enqueue(*jobs)
    assert [CREATED] * len(jobs) == [answer.status for answer in answers]
    return [answer.job_id for answer in answers]


def payloads(there: Meeting) -> list[bytes]:
    """Return those of the jobs that have not ended, in the order in which they came."""
    return [bytes(row[0]) for row in there.schema.ask("SELECT payload FROM job ORDER BY enqueued_at, id")]


# --- whoever comes between the look and the lock


def reserved(there: Meeting, holder: str, worker: Taker) -> None:
    assert there.take(worker) == [holder]


def cancelled(there: Meeting, holder: str, worker: Taker) -> None:
    assert there.party().verb(job_cancel, JobCancel(ids=[holder], by="me")) == [CancelStatus.CANCELLED]


def deleted(there: Meeting, holder: str, worker: Taker) -> None:
    there.party().verb(job_delete, JobDelete(ids=[holder]))


def settled(there: Meeting, holder: str, worker: Taker) -> None:
    reserved(there, holder, worker)
    worker.settle(*map(success, there.let_go([holder])))


@pytest.mark.parametrize("happens", [reserved, cancelled, deleted, settled])
def test_what_can_be_replaced_no_more_when_it_is_locked_leaves_the_key_to_a_new_job(
    happens: Callable[[Meeting, str, Taker], None], there: Meeting
) -> None:
    producer, worker = there.party(), there.taker()
    (holder,) = stored(producer, unique(payload=b"old"))
    producer.just_before(LOCK, lambda: happens(there, holder, worker))
    job = latest()

    (answer,) = producer.enqueue(job)

    assert Enqueued(CREATED, job.id) == answer
    assert ([b"old", b"new"] if happens is reserved else [b"new"]) == payloads(there)
    assert [(job.id, True)] == there.schema.ask(HELD_BY)


def test_of_two_who_replace_the_second_waits_and_is_the_latest(there: Meeting) -> None:
    one, two = there.party(), there.party()
    (holder,) = stored(one, unique())
    one.begin()
    (first,) = one.enqueue(latest(b"one"))
    waiting = Blocked(two, lambda: two.enqueue(latest(b"two")))
    one.commit()

    assert ([Enqueued(REPLACED, holder)] * 2) == [first, *waiting.answer()]
    assert [b"two"] == payloads(there)


@pytest.mark.parametrize("commits", [True, False])
def test_a_key_that_a_callers_transaction_holds_is_waited_for(commits: bool, there: Meeting) -> None:
    caller, producer = there.party(), there.party()
    caller.begin()
    (holder,) = stored(caller, unique(payload=b"old"))
    job = latest()
    waiting = Blocked(producer, lambda: producer.enqueue(job))
    (caller.commit if commits else caller.roll_back)()

    assert [Enqueued(REPLACED, holder) if commits else Enqueued(CREATED, job.id)] == waiting.answer()
    assert [b"new"] == payloads(there)


def test_a_holder_that_is_handed_back_before_it_is_locked_keeps_others_out(there: Meeting) -> None:
    producer, worker = there.party(), there.taker()
    (holder,) = stored(producer, unique(WAITS))
    there.take(worker)
    producer.just_before(LOCK, lambda: worker.settle(*map(release, there.let_go([holder]))))

    (answer,) = producer.enqueue(unique(WAITS, payload=b"new"))

    assert Enqueued(EXISTING, holder) == answer
    assert [holder] == there.take(worker)


def test_a_dead_holder_that_is_requeued_before_the_key_is_taken_keeps_others_out(there: Meeting) -> None:
    producer, worker = there.party(), there.taker()
    (holder,) = stored(producer, unique())
    there.take(worker)
    worker.settle(*map(burial, there.let_go([holder])))
    request = JobRequeue(ids=[holder], by="me", reason="again")
    producer.just_before(CLAIM, lambda: there.party().verb(job_requeue, request))

    (answer,) = producer.enqueue(unique(payload=b"new"))

    assert Enqueued(EXISTING, holder) == answer
    assert [(holder, True)] == there.schema.ask(HELD_BY)


def test_a_key_that_somebody_takes_before_it_is_claimed_is_his(there: Meeting) -> None:
    producer, other = there.party(), there.party()
    (free,) = stored(other, unique(key="other", payload=b"old"))
    taken: list[str] = []
    producer.just_before(CLAIM, lambda: taken.extend(stored(other, unique(payload=b"his"))))

    answers = producer.enqueue(latest(key="other"), unique(payload=b"late"))

    assert [Enqueued(REPLACED, free), Enqueued(EXISTING, *taken)] == answers
    assert [b"new", b"his"] == payloads(there)


def test_nobody_takes_a_job_that_is_about_to_be_replaced(there: Meeting) -> None:
    producer, worker = there.party(), there.taker()
    (holder,) = stored(producer, unique(payload=b"old"))
    taken: list[str] = []
    producer.just_before(CLAIM, lambda: taken.extend(there.take(worker)))

    (answer,) = producer.enqueue(latest())

    assert (Enqueued(REPLACED, holder), []) == (answer, taken)
    worker.seconds += 2
    there.take(worker)
    assert b"new" == there.held[holder].payload


def test_another_one_that_has_the_key_when_the_first_is_locked_is_locked_too(there: Meeting) -> None:
    producer, other, worker = there.party(), there.party(), there.taker()
    (holder,) = stored(producer, unique(payload=b"old"))
    taken: list[str] = []
    second: list[str] = []

    def change_hands() -> None:
        deleted(there, holder, worker)
        second.extend(stored(other, unique(payload=b"second")))
        producer.just_before(CLAIM, lambda: taken.extend(there.take(worker)))

    producer.just_before(LOCK, change_hands)

    (answer,) = producer.enqueue(latest())

    assert (Enqueued(REPLACED, *second), []) == (answer, taken)
    assert [b"new"] == payloads(there)


# --- keys that are handed over


@pytest.mark.parametrize("end", [success, burial])
def test_who_ends_after_his_key_was_handed_over_touches_it_no_more(
    end: Callable[[Delivery], Settlement], there: Meeting
) -> None:
    producer, worker = there.party(), there.taker()
    (holder,) = stored(producer, unique(WAITS))
    there.take(worker)
    job = unique(WAITS, payload=b"new")
    producer.begin()
    producer.enqueue(job)
    (delivery,) = there.let_go([holder])
    settling = Blocked(worker, lambda: worker.settle(end(delivery)))
    producer.commit()
    settling.answer()

    assert [(job.id, True)] == there.schema.ask(HELD_BY)
    assert [b"new"] == payloads(there)


def test_a_hand_over_that_is_rolled_back_leaves_the_key_to_whoever_had_it(there: Meeting) -> None:
    producer, worker = there.party(), there.taker()
    (holder,) = stored(producer, unique(WAITS))
    there.take(worker)
    producer.begin()
    producer.enqueue(unique(WAITS))
    producer.roll_back()
    worker.settle(*map(success, there.let_go([holder])))

    assert [(holder, False)] == there.schema.ask(HELD_BY)


# --- what is replaced is found, wherever marks are


@pytest.mark.parametrize(
    "fields", [{}, {"queue": "other"}, {"priority": 0}], ids=["where it was", "elsewhere", "before others"]
)
def test_a_job_replaced_by_who_commits_late_is_found_at_once(fields: JobFields, there: Meeting) -> None:
    slow, quick, worker = there.party(), there.party(), there.taker()
    both = {"default": 100, "other": 100}
    (holder,) = stored(quick, unique(run_in=HOUR))
    there.take(worker, queues=both)
    slow.begin()
    slow.enqueue(latest(**fields))  # 1. due now
    (later,) = quick.put()  # 2. due later, and committed
    assert [later] == there.take(worker, queues=both)  # 3.
    assert [] == there.take(worker, queues=both)
    slow.commit()  # 4.

    assert [holder] == there.take(worker, queues=both)
    assert b"new" == there.held[holder].payload


@pytest.mark.parametrize("fields", [{}, {"priority": 0}], ids=["where it was", "before others"])
def test_a_job_put_off_as_often_as_it_may_be_is_found_behind_no_mark(
    fields: JobFields, there: Meeting
) -> None:
    producer, worker = there.party(), there.taker()
    (holder,) = stored(producer, unique())
    there.schema.ask("UPDATE job SET enqueued_at = enqueued_at - interval '1 hour'")
    there.take(worker, queues={"default": 0})
    (first,) = producer.put(new_job(priority=0))
    assert [first] == there.take(worker, 1)  # its mark is past all that was due an hour ago

    (answer,) = producer.enqueue(put_off(**fields))

    assert REPLACED == answer.status
    assert [holder] == there.take(worker)


def test_ready_again_and_again_it_keeps_its_place(there: Meeting) -> None:
    producer, worker = there.party(), there.taker()
    (holder,) = stored(producer, unique())
    (other,) = producer.put()
    there.schema.ask("UPDATE job SET enqueued_at = enqueued_at - interval '1 hour'")

    for _ in range(3):
        producer.enqueue(put_off())

    assert [holder, other] == there.take(worker)


def test_a_replacement_has_its_number_before_it_reads_the_clock(there: Meeting) -> None:
    clock = checked_clock(there.schema)
    producer = there.party()
    (holder,) = stored(producer, unique(run_in=HOUR))
    changed: list[str] = []

    def change(sql: str) -> str:
        if "UPDATE taskharbor.job j SET queue" in sql:
            changed.append(sql)
            return sql.replace("clock_timestamp()", clock)
        return sql

    producer.change = change
    producer.enqueue(latest())

    assert [holder] == there.ready()
    assert 1 == len(changed)
    assert "pg_current_xact_id()" in changed[0].partition("clock_timestamp()")[0]


# --- nobody waits for one who waits for him


def test_a_success_that_replaces_a_job_locks_it_in_order(there: Meeting) -> None:
    """Whoever cancels both has the first, and waits for the second: which is what he has to find locked already."""
    producer, worker, someone = there.party(), there.taker(), there.party()
    first, second = new_job_ids(2)
    stored(producer, unique(id=first, run_in=HOUR), new_job(id=second))
    assert [second] == there.take(worker)
    (delivery,) = there.let_go([second])
    waiting: list[Blocked[object]] = []
    cancel = JobCancel(ids=[first, second], by="me")

    def both() -> object:
        someone.begin()
        answers = someone.verb(job_cancel, cancel)
        someone.commit()
        return answers

    worker.just_before(SEQUEL, lambda: waiting.append(Blocked(someone, both)))
    worker.begin()
    told = success(delivery, sequel=Sequel(jobs=(latest(b"sequel", run_in=HOUR),)))
    worker.verb(job_settle_together, JobSettle(settlements=[told]))
    worker.commit()

    assert [CancelStatus.CANCELLED, CancelStatus.FINISHED] == waiting[0].answer()
    assert [b"sequel"] == [
        bytes(row[0]) for row in there.schema.ask("SELECT payload FROM history WHERE state = 'cancelled'")
    ]


def test_a_success_that_comes_upon_a_job_too_late_lets_go_of_what_it_has_locked(there: Meeting) -> None:
    """The key is taken while it is being written, by a job that somebody locks before the one that succeeds."""
    producer, worker, someone = there.party(), there.taker(), there.party()
    first, second = new_job_ids(2)
    stored(producer, new_job(id=second))
    (delivery,) = there.let_go([*there.take(worker)])
    waiting: list[Blocked[object]] = []

    def both() -> object:
        someone.begin()
        answers = someone.verb(job_cancel, JobCancel(ids=[first, second], by="me"))
        someone.commit()
        return answers

    def come_between() -> None:
        stored(producer, unique(id=first, run_in=HOUR))
        waiting.append(Blocked(someone, both))

    worker.just_before(SEQUEL, come_between)
    worker.begin()
    told = success(delivery, sequel=Sequel(jobs=(latest(b"sequel", run_in=HOUR),)))
    (answer,) = worker.verb(job_settle_together, JobSettle(settlements=[told]))
    worker.commit()

    assert SettleStatus.SETTLED == answer.status
    assert [CancelStatus.CANCELLED, CancelStatus.REQUESTED] == waiting[0].answer()
    assert [b"sequel"] == [bytes(row[0]) for row in there.schema.ask("SELECT payload FROM job")]


KEYS = [f"key-{number}" for number in range(5)]


def enqueue_at_random(store: ProducerStore, seed: int, accepted: dict[str, list[bytes]]) -> None:
    """Enqueue batches of unique jobs and of replacements, over few keys, in whatever order they come."""
    chance = random.Random(seed)
    for turn in range(25):
        jobs: list[NewJob] = []
        for place, key in enumerate(chance.sample(KEYS, chance.randint(1, 4))):
            replaces = chance.random() < 0.6
            jobs.append(
                unique(
                    chance.choice([WAITS, LIVES]),
                    key=key,
                    payload=f"{seed} {turn} {place}".encode(),
                    on_conflict=OnConflict.REPLACE if replaces else OnConflict.EXISTING,
                )
            )
        answers = store.job_enqueue(JobEnqueue(jobs=jobs))
        for job, answer in zip(jobs, answers, strict=True):
            if answer.status in (CREATED, REPLACED):
                accepted.setdefault(answer.job_id, []).append(job.payload)


def disturb_at_random(there: Meeting, over: threading.Event, ran: dict[str, bytes]) -> None:
    """Reserve, settle, give back and cancel, until it is over."""
    chance = random.Random(1)
    worker = Taker(there.schema, "disturbing")
    ends: list[Callable[[Delivery], Settlement]] = [success, success, burial, failure, release]
    while not over.is_set():
        for delivery in worker.reserve(3).deliveries:
            ran[delivery.id] = delivery.payload
            if chance.random() < 0.2:
                worker.verb(job_cancel, JobCancel(ids=[delivery.id], by="me"))
            worker.settle(chance.choice(ends)(delivery))
        idle = worker.do("SELECT id::text FROM job WHERE token IS NULL ORDER BY random() LIMIT 2")
        if idle and chance.random() < 0.3:
            worker.begin()
            worker.verb(job_cancel, JobCancel(ids=[row[0] for row in idle], by="me"))
            worker.commit()
    worker.connection.close()


def test_whoever_meets_at_few_keys_none_waits_in_a_circle_and_nothing_accepted_is_lost(
    there: Meeting,
) -> None:
    accepted: list[dict[str, list[bytes]]] = [{} for _ in range(3)]
    ran: dict[str, bytes] = {}
    over = threading.Event()
    ((before,),) = there.schema.ask(
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )
    driver = PostgresDriver(there.schema.place)
    try:
        with driver.connect_blocking() as store, ThreadPoolExecutor(4) as pool:
            disturbing = pool.submit(disturb_at_random, there, over, ran)
            enqueuing = [
                pool.submit(enqueue_at_random, store, seed, mine) for seed, mine in enumerate(accepted)
            ]
            try:
                for one in enqueuing:
                    one.result(60)
            finally:
                over.set()
            disturbing.result(60)
    finally:
        driver.close()

    there.schema.ask("SELECT pg_stat_force_next_flush()")
    ((deadlocks,),) = there.schema.ask(
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )
    assert 0 == deadlocks - before
    stored = {
        str(row[0]): bytes(row[1])
        for row in there.schema.ask("SELECT id, payload FROM job UNION ALL SELECT id, payload FROM history")
    }
    told: dict[str, list[bytes]] = {}
    for mine in accepted:
        for job_id, what in mine.items():
            told.setdefault(job_id, []).extend(what)
    assert stored.keys() == told.keys()
    assert [] == [job_id for job_id, payload in stored.items() if payload not in told[job_id]]
    assert [] == [job_id for job_id, payload in ran.items() if payload not in told[job_id]]
    # Whoever took a key from one that waits had no rule against it: so of those who wait none has a key in vain.
    waiting = there.schema.ask(
        "SELECT j.key FROM job j WHERE token IS NULL GROUP BY j.key HAVING count(*) > 1 "
        "AND bool_and(NOT EXISTS (SELECT FROM key k WHERE k.job_id = j.id))"
    )
    assert [] == waiting


def test_a_transaction_with_one_snapshot_is_told_to_begin_anew(there: Meeting) -> None:
    caller, other = there.party(), there.party()
    caller.step = caller.step._replace(joined=True)
    stored(other, unique())
    caller.begin(isolation="REPEATABLE READ")
    caller.do("SELECT count(*) FROM job")
    other.enqueue(latest(b"other"))

    with pytest.raises(SerializationFailure):
        caller.enqueue(latest(b"caller"))
    caller.roll_back()

    assert [b"other"] == payloads(there)


def test_one_job_takes_a_look_and_a_statement_where_nobody_has_its_key_and_two_looks_where_it_is_kept_out(
    there: Meeting,
) -> None:
    producer = there.party()
    producer.verb(try_enqueue, JobEnqueue(jobs=[unique(key="first")]))
    sent: list[str] = []

    def change(sql: str) -> str:
        sent.append(sql)
        return sql

    producer.change = change
    request = JobEnqueue(jobs=[unique(key="second")])
    (free,) = producer.verb(try_enqueue, request)
    took = len(sent)
    (kept_out,) = producer.verb(try_enqueue, JobEnqueue(jobs=[unique(key="second")]))

    assert (CREATED, 2) == (free.status, took)
    assert (Enqueued(EXISTING, free.job_id), 4) == (kept_out, len(sent))
    assert worth_a_try(request)
    assert [] == producer.verb(try_enqueue, JobEnqueue(jobs=[latest(key="second")]))


def test_one_job_whose_key_is_taken_behind_the_look_is_looked_at_again(there: Meeting) -> None:
    producer, other = there.party(), there.party()
    producer.just_before("INSERT INTO taskharbor.key", lambda: stored(other, unique()))

    assert [] == producer.verb(try_enqueue, JobEnqueue(jobs=[unique()]))


def test_one_job_asked_again_after_a_lost_answer_was_created(there: Meeting) -> None:
    producer = there.party()
    request = JobEnqueue(jobs=[unique()])
    first = producer.verb(try_enqueue, request)
    producer.step = producer.step._replace(repeated=True)

    assert first == producer.verb(try_enqueue, request)
    assert CREATED == first[0].status


# --- at random


class ReplacingStory(Story):
    """A chance order of steps in which producers replace their jobs, at other priorities, and commit late or not."""

    def produce(self, chance: random.Random) -> None:
        """Let a producer do as any does, or replace."""
        producer = chance.choice(self.producers)
        key = f"{self.producers.index(producer)} {chance.randrange(2)}"
        leased = self.there.schema.ask(
            "SELECT 1 FROM key JOIN job ON job.id = key.job_id WHERE name = %s AND token IS NOT NULL", (key,)
        )
        if chance.random() < 0.5 or leased:  # whoever settles it would wait for the producer
            super().produce(chance)
            return
        if producer not in self._open:
            producer.begin()
            self._open[producer] = lambda: None
        self.locks = True
        producer.do("SAVEPOINT mine")
        producer.do("SET LOCAL lock_timeout = '30ms'")
        try:
            producer.enqueue(latest(key=key, priority=chance.choice([0, 4, 9])))
        except LockNotAvailable:  # somebody has locked it
            producer.do("ROLLBACK TO mine")
        if chance.random() < 0.5:
            self._end(producer, commit=chance.random() < 0.8)


@pytest.mark.parametrize(
    "seeds",
    [
        pytest.param(range(8), id="short"),
        pytest.param(range(8, 500), id="long", marks=[pytest.mark.slow, pytest.mark.timeout(3000)]),
    ],
)
def test_no_order_of_steps_takes_what_is_replaced_twice_or_leaves_it(seeds: range) -> None:
    with meeting(shared_schema()) as there:
        parties = [there.party() for _ in range(6)]
        takers = [there.taker() for _ in range(3)]
        for seed in seeds:
            chance = random.Random(seed)
            there.start_anew()
            story = ReplacingStory(there, parties, takers)
            try:
                try:
                    for _ in range(chance.randint(10, 45)):
                        story.happen(chance)
                finally:
                    story.end()
                there.finds_all(chance.choice(takers))
            except AssertionError as error:
                raise AssertionError(f"seed {seed}: {error}") from error
