"""Reserve under concurrency, step by step: who holds what open while whom reserves, on a real server.

Each test writes its steps down. No job may be reserved twice (`Meeting` sees to that), and once everybody has committed
any worker finds all that is ready: what came late at once, what others had locked within two seconds.
Nothing waits: transactions end when the test says so, and the marks' clock is turned by hand.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator
from contextlib import closing
from datetime import timedelta

import pytest

from taskharbor.driver import JobCancel, JobRequeue, QueuePause, QueueResume
from taskharbor.drivers.postgres.control import job_cancel, job_requeue
from taskharbor.drivers.postgres.marks import Marks, Position, Seen
from taskharbor.drivers.postgres.queue import queue_pause, queue_resume
from taskharbor.drivers.postgres.routine import Query, Routine
from taskharbor.job import Delivery, new_token
from taskharbor.retry import RetryNumbers
from taskharbor.settlement import Settlement
from taskharbor_conformance.bench import BUILD, burial, failure, new_job, release, stray
from tests.support.postgres import make_server
from tests.support.postgres_place import SharedSchema, shared_schema
from tests.support.postgres_walk import MANY, Held, Meeting, Taker, meeting
from tests.support.work import eventually

AT_ONCE = timedelta(0)
MICRO = timedelta(microseconds=1)
ONCE = RetryNumbers(max_attempts=1)
"""Of jobs that are guarded."""


@pytest.fixture
def there() -> Generator[Meeting]:
    with meeting(shared_schema()) as met:
        yield met


# --- producers that commit late


def test_a_job_whose_producer_commits_between_two_scans_is_found_by_the_second(there: Meeting) -> None:
    producer, worker = there.party(), there.taker()
    there.take(worker)
    producer.begin()  # 1. it has its number, and has read the clock
    (late,) = producer.put()
    assert [] == there.take(worker)  # 2. a scan to the end; nobody with a greater number has ended
    producer.commit()  # 3.

    assert [late] == there.take(worker)


def test_a_job_that_commits_after_later_ones_were_taken_is_found(there: Meeting) -> None:
    slow, quick, worker = there.party(), there.party(), there.taker()
    there.take(worker)
    slow.begin()  # 1. due first
    (late,) = slow.put()
    (later,) = quick.put()  # 2. due later, and committed
    assert [later] == there.take(worker)  # 3. the scan lists the slow one as under way
    assert [] == there.take(worker)
    slow.commit()  # 4.

    assert [late] == there.take(worker)


def test_a_producer_that_reads_the_clock_long_after_it_has_its_number_is_found(there: Meeting) -> None:
    slow, quick, worker = there.party(), there.party(), there.taker()
    slow.begin()
    slow.number()  # 1.
    (early,) = quick.put()
    assert [early] == there.take(worker)  # 2.
    assert [] == there.take(worker)
    (late,) = slow.put()  # 3. reads the clock only now
    (later,) = quick.put()
    assert [later] == there.take(worker)  # 4.
    slow.commit()  # 5.

    assert [late] == there.take(worker)


def test_a_producer_that_began_before_the_workers_first_scan_is_found(there: Meeting) -> None:
    slow, quick, worker = there.party(), there.party(), there.taker()
    slow.begin()  # 1.
    (late,) = slow.put()
    (early,) = quick.put()
    assert [early] == there.take(worker)  # 2. the first scan
    for _ in range(3):
        assert [] == there.take(worker)
    slow.commit()  # 3.

    assert [late] == there.take(worker)


def test_producers_that_stay_open_while_thousands_pass_are_found(there: Meeting) -> None:
    quick, worker = there.party(), there.taker()
    there.take(worker)
    slow = [there.party() for _ in range(3)]
    late: list[str] = []
    for producer in slow:
        producer.begin()
        late += producer.put()
        there.take(worker)
    for _ in range(10):
        passed = quick.put_some(100)
        assert sorted(passed) == sorted(there.take(worker))
        assert [] == there.take(worker)
    for number, producer in enumerate(slow):
        producer.commit()
        assert [late[number]] == there.take(worker)


def test_a_producer_that_rolls_back_costs_a_scan_and_nothing_else(there: Meeting) -> None:
    producer, worker = there.party(), there.taker()
    there.take(worker)
    producer.begin()
    producer.put()
    there.take(worker)
    producer.roll_back()

    there.finds_all(worker, seconds=0)
    assert {} == there.held


def test_jobs_of_savepoints_come_with_their_transaction(there: Meeting) -> None:
    # Each savepoint has a number of its own; it is the transaction's that counts.
    slow, quick, worker = there.party(), there.party(), there.taker()
    there.take(worker)
    slow.begin()
    late: list[str] = []
    for name in ("one", "two", "three"):
        slow.do(f"SAVEPOINT {name}")  # 1.
        late += slow.put()
        slow.do(f"RELEASE {name}")
        quick.put()
        assert 1 == len(there.take(worker))  # 2. in between
    slow.do("SAVEPOINT four")
    slow.put()
    slow.do("ROLLBACK TO four")
    assert [] == there.take(worker)
    slow.commit()  # 3.

    assert sorted(late) == sorted(there.take(worker))


def test_thousands_of_savepoints_are_no_matter(there: Meeting) -> None:
    # More than a backend has room for, so that the snapshot is "overflowed".
    slow, quick, worker = there.party(), there.party(), there.taker()
    there.take(worker)
    slow.begin()
    (late,) = slow.put()
    slow.do("CREATE TEMPORARY TABLE trifle (n integer) ON COMMIT DROP")
    slow.do(
        "DO $$ BEGIN FOR i IN 1..300 LOOP BEGIN INSERT INTO trifle VALUES (i); EXCEPTION WHEN others THEN NULL; END; "
        "END LOOP; END $$"
    )
    quick.put()
    assert 1 == len(there.take(worker))
    assert [] == there.take(worker)
    slow.commit()

    assert [late] == there.take(worker)


def test_a_held_reader_hides_nothing(there: Meeting) -> None:
    reader, slow, quick, worker = there.party(), there.party(), there.party(), there.taker()
    reader.begin(isolation="REPEATABLE READ")
    reader.do("SELECT count(*) FROM job")
    passed = [job_id for _ in range(5) for job_id in quick.put()]
    assert sorted(passed) == sorted(there.take(worker))
    slow.begin()
    (late,) = slow.put()
    assert [] == there.take(worker)
    (later,) = quick.put()
    assert [later] == there.take(worker)
    slow.commit()

    assert [late] == there.take(worker)


def test_a_held_writer_that_has_enqueued_itself_is_found_at_its_end(there: Meeting) -> None:
    writer, quick, worker = there.party(), there.party(), there.taker()
    writer.begin()
    late = writer.put()
    there.take(worker)
    for _ in range(5):
        (passed,) = quick.put()
        assert [passed] == there.take(worker)
        late += writer.put()
    writer.commit()

    there.finds_all(worker, seconds=0)
    assert set(late) <= there.held.keys()


def orders() -> list[str]:
    """Return ways in which the steps of a slow producer fall between four of others.

    N its number, P its job, C its commit; S a scan, J a job that is committed at once, and a scan.
    """
    found: list[str] = []
    for places in itertools.combinations(range(7), 3):
        own, others = iter("NPC"), iter("SJSJ")
        found.append("".join(next(own if number in places else others) for number in range(7)))
    return found


def test_in_whatever_order_the_steps_come_the_late_job_is_found(there: Meeting) -> None:
    slow, quick, worker = there.party(), there.party(), there.taker()
    for order in orders():
        there.start_anew()
        late: list[str] = []
        slow.begin()
        for step in order:
            match step:
                case "N":
                    slow.number()
                case "P":
                    late = slow.put()
                case "C":
                    slow.commit()
                case "J":
                    quick.put()
                    there.take(worker)
                case _:
                    there.take(worker)
        there.finds_all(worker, seconds=0)
        assert set(late) <= there.held.keys(), order


# --- statements that stand still between their snapshot and the rest


def test_what_commits_behind_a_scans_snapshot_is_found_by_the_next_one(there: Meeting) -> None:
    producer, other, worker = there.party(), there.party(), there.taker()
    there.take(worker)
    scan = Held(worker, worker.reserve)  # 1. its snapshot is taken; it has no number yet
    (late,) = producer.put()  # 2. whole, in between, with a smaller number than the scan will have
    other.begin()
    other_late = other.put()
    scan.go_on()  # 3.
    assert {} == there.held

    assert [late] == there.take(worker)
    other.commit()
    assert other_late == there.take(worker)


def test_jobs_that_another_worker_takes_behind_the_snapshot_are_not_taken_twice(there: Meeting) -> None:
    producer, one, two = there.party(), there.taker(), there.taker()
    jobs = producer.put_some(10)
    slow = Held(one, lambda: there.note(one.reserve(6)))  # 1. it sees all ten as free
    assert 6 == len(there.take(two, 6))  # 2. and six are gone before it comes to them
    slow.go_on()  # 3.

    there.finds_all(one)
    assert sorted(jobs) == sorted(there.held)


def test_jobs_that_another_worker_takes_and_gives_back_behind_the_snapshot_are_taken_once(
    there: Meeting,
) -> None:
    producer, one, two = there.party(), there.taker(), there.taker()
    jobs = producer.put_some(4)
    slow = Held(one, lambda: there.note(one.reserve()))  # 1.
    there.take(two)  # 2.
    two.settle(*map(release, there.let_go(jobs)))  # 3. free again, but other rows, due later
    slow.go_on()  # 4.

    there.finds_all(one)
    assert sorted(jobs) == sorted(there.held)


def test_a_job_whose_row_is_written_anew_behind_the_snapshot_is_not_lost(there: Meeting) -> None:
    # The row that the scan locks is the new one, which its snapshot does not show, so that it cannot be taken by it.
    producer, waiter, one, two = there.party(), there.party(), there.taker(), there.taker()
    jobs = producer.put_some(3)
    slow = Held(one, lambda: there.note(one.reserve()))  # 1.
    waiter.do(
        f"UPDATE job SET awaited = true WHERE id = '{sorted(jobs)[1]}'"
    )  # 2. as one who waits for it does
    slow.go_on()  # 3.
    assert 2 <= len(there.held)
    there.take(two)

    there.finds_all(one)
    there.finds_all(two)
    assert sorted(jobs) == sorted(there.held)


def test_a_limit_reached_beyond_a_row_written_anew_does_not_lose_it(there: Meeting) -> None:
    producer, waiter, worker = there.party(), there.party(), there.taker()
    jobs = sorted(producer.put_some(6))
    slow = Held(worker, lambda: there.note(worker.reserve(3)))
    waiter.do(f"UPDATE job SET awaited = true WHERE id = '{jobs[0]}'")
    slow.go_on()
    while there.take(worker, 3):
        pass

    there.finds_all(worker)
    assert jobs == sorted(there.held)


# --- rows that others hold


def test_rows_that_a_reserver_locks_and_rolls_back_are_found_within_two_seconds(there: Meeting) -> None:
    producer, one, two = there.party(), there.taker(), there.taker()
    jobs = sorted(producer.put_some(6))
    one.begin()
    assert 3 == len(one.reserve(3).deliveries)  # 1. the first three, not committed
    answer = two.reserve()  # 2. walks past them
    assert jobs[3:] == sorted(there.note(answer))
    assert timedelta(0) < (answer.next_due_in or AT_ONCE) <= timedelta(seconds=1)
    assert [] == there.take(two)
    one.roll_back()  # 3.

    there.finds_all(two)
    assert jobs == sorted(there.held)


def test_rows_locked_while_there_was_a_backlog_are_found_when_it_is_over(there: Meeting) -> None:
    producer, someone, worker = there.party(), there.party(), there.taker()
    jobs = sorted(producer.put_some(12))
    someone.begin()
    someone.lock(jobs[:2])  # 1.
    for _ in range(3):
        assert 3 == len(there.take(worker, 3))  # 2. each ends at its limit
    assert [jobs[11]] == there.take(worker, 3)  # 3. the end
    someone.roll_back()  # 4.

    there.finds_all(worker)
    assert jobs == sorted(there.held)


def test_a_cancel_under_way_that_is_rolled_back_leaves_the_job_to_be_found(there: Meeting) -> None:
    producer, someone, worker = there.party(), there.party(), there.taker()
    (job_id,) = producer.put()
    someone.begin()
    someone.verb(job_cancel, JobCancel(ids=[job_id], by="me", reason="no"))  # 1. deleted, not committed
    assert [] == there.take(worker)  # 2.
    assert [] == there.take(worker)
    someone.roll_back()  # 3.

    there.finds_all(worker)
    assert [job_id] == list(there.held)


def test_a_job_being_marked_as_awaited_is_found(there: Meeting) -> None:
    producer, waiter, worker = there.party(), there.party(), there.taker()
    (job_id,) = producer.put()
    waiter.begin()
    waiter.do(f"UPDATE job SET awaited = true WHERE id = '{job_id}'")  # 1.
    assert [] == there.take(worker)  # 2.
    assert [] == there.take(worker)
    waiter.commit()  # 3.

    there.finds_all(worker)
    assert [job_id] == list(there.held)


@pytest.mark.parametrize("end", [release, failure])
def test_jobs_given_back_by_a_settle_that_commits_late_are_found(
    end: Callable[[Delivery], Settlement], there: Meeting
) -> None:
    producer, one, two = there.party(), there.taker(), there.taker()
    jobs = producer.put_some(3)
    there.take(one)
    there.take(two)
    one.begin()
    one.settle(*map(end, there.let_go(jobs)))  # 1.
    (other,) = producer.put()
    assert [other] == there.take(two)  # 2.
    assert [] == there.take(two)
    one.commit()  # 3.

    assert sorted(jobs) == sorted(there.take(two))


def test_jobs_given_back_by_a_reclaim_that_commits_late_are_found(there: Meeting) -> None:
    producer, someone, dead, worker = there.party(), there.party(), there.taker(), there.taker()
    jobs = producer.put_some(3)
    there.take(dead, lease=MICRO)
    there.take(worker)
    someone.begin()
    assert sorted(jobs) == sorted(someone.reclaim())  # 1.
    there.let_go(jobs)
    (other,) = producer.put()
    assert [other] == there.take(worker)  # 2.
    assert [] == there.take(worker)
    someone.commit()  # 3.

    assert sorted(jobs) == sorted(there.take(worker))


def test_jobs_requeued_by_a_transaction_that_commits_late_are_found(there: Meeting) -> None:
    producer, someone, worker = there.party(), there.party(), there.taker()
    (job_id,) = producer.put()
    there.take(worker)
    worker.settle(*map(burial, there.let_go([job_id])))
    someone.begin()
    someone.verb(job_requeue, JobRequeue(ids=[job_id], by="me", reason="again"))
    (other,) = producer.put()
    assert [other] == there.take(worker)
    assert [] == there.take(worker)
    someone.commit()

    assert [job_id] == there.take(worker)


def test_two_workers_and_one_batch_share_it_without_a_rest(there: Meeting) -> None:
    producer, one, two = there.party(), there.taker(), there.taker()
    jobs = producer.put_some(20)  # all due at the same instant
    one.begin()
    first = one.reserve(7)
    there.note(first)
    while there.take(two, 2):  # walks past the seven each time
        pass
    one.commit()

    there.finds_all(two)
    assert sorted(jobs) == sorted(there.held)


# --- limits, quotas, guarded and solo jobs


def test_a_batch_due_at_one_instant_is_taken_in_order_of_id_however_small_the_limit(there: Meeting) -> None:
    producer, worker = there.party(), there.taker()
    jobs = sorted(producer.put_some(7))

    taken = [job_id for _ in range(7) for job_id in there.take(worker, 1)]

    assert jobs == taken


def test_a_backlog_behind_a_quota_is_taken_without_a_pause(there: Meeting) -> None:
    producer, worker = there.party(), there.taker()
    jobs = producer.put_some(20)
    answers = [worker.reserve(10, queues={"default": 4, "other": 10}) for _ in range(5)]

    assert [4] * 5 == [len(there.note(answer)) for answer in answers]
    assert [AT_ONCE] * 5 == [answer.next_due_in for answer in answers]
    assert sorted(jobs) == sorted(there.held)


def test_a_backlog_cut_by_the_limit_beside_a_quota_is_taken_without_a_pause(there: Meeting) -> None:
    producer, worker = there.party(), there.taker()
    for queue in ("here", "there"):
        producer.put(*(new_job(queue=queue) for _ in range(12)))
    taken = [len(there.take(worker, 6, queues={"here": 2, "there": 100})) for _ in range(6)]

    assert [6, 6, 6, 2, 2, 2] == taken


def test_a_backlog_beside_the_quota_of_an_empty_queue_is_taken_without_a_pause(there: Meeting) -> None:
    producer, worker = there.party(), there.taker()
    producer.put(*(new_job(queue="there") for _ in range(12)))

    assert [6, 6, 0] == [len(there.take(worker, 6, queues={"here": 2, "there": 100})) for _ in range(3)]


def test_a_quota_counts_over_all_priorities(there: Meeting) -> None:
    producer, worker = there.party(), there.taker()
    first = producer.put(*(new_job(priority=priority) for priority in (4, 4, 4)))
    producer.put(*(new_job(priority=priority) for priority in (5, 5, 5)))
    taken = there.take(worker, 10, queues={"default": 4, "other": 10})

    assert 4 == len(taken)
    assert set(first) < set(taken)


def test_of_solo_jobs_at_several_priorities_one_is_taken(there: Meeting) -> None:
    producer, worker = there.party(), there.taker()
    (second,) = producer.put(new_job(priority=5))
    (first,) = producer.put(new_job(priority=4))
    producer.do("UPDATE job SET lane = 0, crashes = 2, guarded = true")

    assert [[first], [second]] == [there.take(worker), there.take(worker)]


def test_several_queues_with_quotas_and_a_late_commit(there: Meeting) -> None:
    queues = {"here": 2, "there": 3, "elsewhere": 100}
    slow, quick, worker = there.party(), there.party(), there.taker()
    there.take(worker, queues=queues)
    slow.begin()
    late = [job_id for queue in queues for job_id in slow.put(new_job(queue=queue))]
    for queue in queues:
        quick.put(*(new_job(queue=queue) for _ in range(4)))
    for _ in range(4):
        there.take(worker, 20, queues=queues)
    slow.commit()

    there.finds_all(worker, seconds=0, queues=queues)
    assert 15 == len(there.held)
    assert set(late) <= there.held.keys()


def test_guarded_jobs_beyond_what_is_allowed_are_found_when_it_is(there: Meeting) -> None:
    producer, worker = there.party(), there.taker()
    guarded = sorted(producer.put(*(new_job(retry=ONCE) for _ in range(3))))
    plain = producer.put_some(3)
    answer = worker.reserve(guarded_limit=1)
    assert guarded[:1] == there.note(answer)
    assert answer.held_back
    assert [] == there.take(worker, guarded_limit=0)

    there.finds_all(worker, seconds=0)
    assert sorted(guarded + plain) == sorted(there.held)


def test_solo_jobs_passed_over_are_found_when_the_worker_is_idle(there: Meeting) -> None:
    producer, worker = there.party(), there.taker()
    solo = sorted(producer.put_some(3))
    producer.do("UPDATE job SET lane = 0, crashes = 2, guarded = true")
    plain = producer.put_some(3)
    assert sorted(plain) == sorted(there.take(worker, solo=False))
    assert [] == there.take(worker, solo=False)

    assert [solo[:1], solo[1:2], solo[2:]] == [there.take(worker) for _ in range(3)]


def test_a_paused_queue_loses_nothing(there: Meeting) -> None:
    slow, quick, someone, worker = there.party(), there.party(), there.party(), there.taker()
    both = {"here": MANY, "there": MANY}
    there.take(worker, queues=both)
    slow.begin()
    (late,) = slow.put(new_job(queue="here"))
    there.take(worker, queues=both)
    someone.verb(queue_pause, QueuePause(queues=["here"], by="me", reason="look"))
    for _ in range(3):  # the marks of the other queue move on
        (passed,) = quick.put(new_job(queue="there"))
        quick.put(new_job(queue="here"))
        assert [passed] == there.take(worker, queues=both)
    slow.commit()
    assert [] == there.take(worker, queues=both)
    someone.verb(queue_resume, QueueResume(queues=["here"]))

    there.finds_all(worker, seconds=0, queues=both)
    assert late in there.held
    assert 7 == len(there.held)


# --- strays


def test_a_kind_of_strays_that_commits_after_a_later_one_is_met(there: Meeting) -> None:
    # Its number is the smaller one, so that the greatest number does not tell of it.
    producer, one, two, worker = there.party(), there.taker(), there.taker(), there.taker()
    producer.put_some(2)
    (first,) = there.take(one, 1)
    (second,) = there.take(two, 1)
    one.begin()
    one.settle(stray(there.held.pop(first), refused_by="build-one"))  # 1. has its number
    two.settle(
        stray(there.held.pop(second), refused_by="build-two")
    )  # 2. has a greater one, and is committed
    assert [second] == there.take(worker)  # 3.
    one.commit()  # 4.

    assert [first] == there.take(worker)


def test_a_stray_lane_not_known_yet_is_not_passed_over(there: Meeting) -> None:
    # Had the plain jobs been taken first, the strays before them would have waited.
    producer, one, worker = there.party(), there.taker(), there.taker()
    there.take(worker)
    (job_id,) = producer.put(new_job(priority=1))
    there.take(one)
    one.settle(stray(there.held.pop(job_id), refused_by="build-one"))
    producer.put(new_job(priority=5))

    assert [job_id] == there.take(worker, 1)


def test_a_kind_of_strays_that_is_dropped_and_one_that_comes_are_noticed(there: Meeting) -> None:
    producer, worker = there.party(), there.taker()
    for build in ("build-one", "build-two", "build-three"):
        (job_id,) = producer.put()
        assert [job_id] == there.take(worker)
        worker.settle(stray(there.held.pop(job_id), refused_by=build))
        assert [job_id] == there.take(worker)
        worker.settle(burial(there.held.pop(job_id)))
        producer.do("DELETE FROM history")
        producer.do("DELETE FROM stray")


def test_a_stray_that_commits_late_into_a_lane_already_walked_is_found(there: Meeting) -> None:
    producer, one, worker = there.party(), there.taker(), there.taker()
    jobs = producer.put_some(2)
    there.take(one)
    first, second = (there.held.pop(job_id) for job_id in jobs)
    one.settle(stray(first, refused_by="build-one"))
    assert [first.id] == there.take(worker)
    one.begin()
    one.settle(stray(second, refused_by="build-one"))
    (passed,) = producer.put()
    assert [passed] == there.take(worker)
    assert [] == there.take(worker)
    one.commit()

    assert [second.id] == there.take(worker)


def test_a_build_that_refused_a_stray_does_not_meet_it(there: Meeting) -> None:
    producer, worker = there.party(), there.taker()
    (job_id,) = producer.put()
    there.take(worker)
    worker.settle(stray(there.held.pop(job_id), refused_by=BUILD))

    assert [] == there.take(worker)
    assert [job_id] == there.take(worker, build="another")


# --- answers lost, connections lost, clocks


def test_a_reserve_whose_answer_was_lost_gives_the_same_jobs_again(there: Meeting) -> None:
    producer, worker = there.party(), there.taker()
    jobs = sorted(producer.put_some(4))
    token = new_token()
    worker.reserve(2, token=token)  # the answer is lost
    worker.walker.marks.restart()

    assert jobs[:2] == there.take(worker, 4, token=token)
    assert jobs[2:] == there.take(worker)


def test_a_reserve_given_up_before_its_answer_came_loses_nothing(there: Meeting) -> None:
    producer, worker = there.party(), there.taker()
    there.take(worker)
    producer.put_some(2)
    walk = worker.walker.walk(worker.step, worker.request(1))
    worker.ask(alone(next(walk)))  # written, and nobody hears of it
    walk.close()
    (left,) = there.ready()

    assert [left] == there.take(worker)


def test_after_a_lost_connection_everything_is_scanned_again(there: Meeting) -> None:
    producer, worker = there.party(), there.taker()
    (early,) = producer.put()
    there.take(worker)
    there.take(worker)
    producer.do(
        f"UPDATE job SET token = NULL WHERE id = '{early}'"
    )  # as a server that lost the lease would have it
    there.held.clear()
    assert [] == there.take(worker)
    worker.walker.marks.restart()

    assert [early] == there.take(worker)


def test_jobs_due_later_are_found_when_their_time_has_come(there: Meeting) -> None:
    producer, worker = there.party(), there.taker()
    soon, later = timedelta(milliseconds=30), timedelta(hours=1)
    (first,) = producer.put(new_job(run_in=soon))
    producer.put(new_job(run_in=later))
    answer = worker.reserve()
    if not answer.deliveries:
        assert (answer.next_due_in or later) <= soon
    there.note(answer)

    eventually(lambda: bool(there.held or there.take(worker)), "the job's time")
    assert [first] == list(there.held)
    assert timedelta(minutes=59) < (worker.reserve().next_due_in or AT_ONCE) <= later


# --- what all of it rests on


def alone(query: Query) -> Routine[None]:
    """Return a routine of one statement."""
    yield query


def next_is_whole(worker: Taker) -> bool:
    """Return whether the next scan begins at the beginning of every lane."""
    worker.walker.marks.begin([])
    return worker.walker.marks.whole


def checked_clock(schema: SharedSchema) -> str:
    """Make a clock that fails where the transaction has no number yet, and return its name."""
    schema.ask(
        """CREATE OR REPLACE FUNCTION checked_clock() RETURNS timestamptz LANGUAGE plpgsql VOLATILE AS $$ BEGIN
            IF pg_current_xact_id_if_assigned() IS NULL THEN
                RAISE EXCEPTION 'the clock is read before the transaction has its number'; END IF;
            RETURN clock_timestamp(); END $$"""
    )
    return f'"{schema.name}".checked_clock()'


def test_every_statement_that_makes_a_job_due_has_its_number_before_it_reads_the_clock(
    there: Meeting,
) -> None:
    clock = checked_clock(there.schema)
    party, worker = there.party(), there.taker()
    for one in (party, worker):
        one.change = lambda sql: sql.replace("clock_timestamp()", clock) if " AS now)" in sql else sql

    party.put()  # plain
    party.put(new_job(key="key"))
    there.take(worker, lease=MICRO)
    jobs = list(there.held)
    worker.settle(release(there.held.pop(jobs[0])))
    party.reclaim()
    there.held.clear()
    there.take(worker)
    worker.settle(*(failure(delivery, after=AT_ONCE) for delivery in there.let_go(list(there.held))))
    there.take(worker)
    worker.settle(*(burial(delivery) for delivery in there.let_go(list(there.held))))
    party.verb(job_requeue, JobRequeue(ids=jobs, by="me", reason="again"))
    there.take(worker)
    worker.settle(*(stray(delivery, refused_by=BUILD) for delivery in there.let_go(list(there.held))))

    assert sorted(jobs) == there.ready()


def test_a_clock_without_a_number_would_be_noticed(there: Meeting) -> None:
    clock = checked_clock(there.schema)

    with pytest.raises(Exception, match="before the transaction has its number"):
        there.party().do(f"SELECT {clock}")


def test_a_scan_has_a_number_of_its_own_given_after_it_read_the_clock(there: Meeting) -> None:
    producer, worker = there.party(), there.taker()
    noted: list[tuple[int, int]] = []

    class Noting(Marks):
        def _note_running(self, seen: Seen) -> tuple[Position, bool]:
            noted.append((seen.own, seen.now))
            return super()._note_running(seen)

    worker.walker.marks = Noting()
    for _ in range(3):
        producer.begin()
        before = producer.number()
        ((clock,),) = producer.do("SELECT (extract(epoch FROM clock_timestamp()) * 1e6)::bigint")
        producer.commit()
        there.take(worker)
        assert noted[-1][0] > before
        assert noted[-1][1] >= clock
    assert sorted(set(noted)) == noted


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_prepared_transactions_are_under_way_until_they_are_committed() -> None:
    with (
        make_server(max_prepared_transactions="5") as server,
        closing(SharedSchema(conninfo=server.conninfo)) as schema,
        meeting(schema) as there,
    ):
        slow, quick, worker = there.party(), there.party(), there.taker()
        there.take(worker)
        slow.begin()
        (late,) = slow.put()
        slow.do("PREPARE TRANSACTION 'late'")
        (later,) = quick.put()
        assert [later] == there.take(worker)
        assert [] == there.take(worker)
        slow.do("COMMIT PREPARED 'late'")

        assert [late] == there.take(worker)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_server_that_was_started_anew_is_scanned_from_the_beginning() -> None:
    with (
        make_server() as server,
        closing(SharedSchema(conninfo=server.conninfo)) as schema,
        meeting(schema) as there,
    ):
        producer, worker = there.party(), there.taker()
        producer.put()
        there.take(worker)
        behind = producer.put()
        earlier = f"UPDATE \"{there.schema.name}\".job SET due = due - interval '1 hour' WHERE token IS NULL"
        producer.connection.execute(earlier.encode())
        assert [] == there.take(worker)
        server.kill()
        server.start()
        again = Taker(there.schema, "again")
        again.walker = worker.walker  # as with a pool that replaced its connections unnoticed

        assert behind == there.take(again)
        again.connection.close()
