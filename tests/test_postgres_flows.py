"""Flows in PostgreSQL: those who meet at one step that waits, forced into every order; and how it advances in SQL."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator

import msgspec
import pytest

from taskharbor.driver import (
    CancelStatus,
    FlowCancel,
    FlowGet,
    JobCancel,
    JobDelete,
    JobEnqueue,
    JobGet,
    JobRequeue,
    JobSettle,
    RequeueStatus,
)
from taskharbor.drivers.postgres.control import job_cancel, job_delete, job_requeue
from taskharbor.drivers.postgres.enqueue import job_enqueue
from taskharbor.drivers.postgres.flow import flow_cancel, flow_get
from taskharbor.drivers.postgres.look import job_get
from taskharbor.drivers.postgres.settle import TOGETHER, job_settle, job_settle_together
from taskharbor.flow import FlowRecord, FlowState, NewFlow
from taskharbor.job import Delivery, JobRecord, JobState
from taskharbor.settlement import Settled, SettleStatus
from taskharbor_conformance.bench import burial, new_job, success
from taskharbor_conformance.graphs import chain, chord, failure_template, ids_of, told_of, values_of
from tests.support.postgres_place import SharedSchema, shared_schema
from tests.support.postgres_walk import Held, Meeting, Party, Taker, meeting
from tests.support.work import eventually

S = FlowState


@pytest.fixture
def met() -> Generator[Meeting]:
    with meeting(shared_schema()) as met:
        yield met


def put(party: Party, *flows: NewFlow) -> None:
    """Store flows."""
    party.begin()
    party.verb(job_enqueue, JobEnqueue(jobs=(), flows=flows))
    party.commit()


def record(party: Party, flow: NewFlow) -> FlowRecord:
    (found,) = party.verb(flow_get, FlowGet(ids=[flow.id]))
    assert found is not None
    return found


def job(party: Party, job_id: str) -> JobRecord:
    (found,) = party.verb(job_get, JobGet(ids=[job_id]))
    assert found is not None
    return found


def settle(party: Party, *deliveries: Delivery) -> list[Settled]:
    """Write successes; each has its id for a result."""
    written = [success(delivery, delivery.id.encode()) for delivery in deliveries]
    answers = list(party.verb(job_settle, JobSettle(settlements=written)))
    rest = [one for one, answer in zip(written, answers, strict=True) if answer is TOGETHER]
    if rest:  # as the store does
        later = iter(party.verb(job_settle_together, JobSettle(settlements=rest)))
        answers = [next(later) if answer is TOGETHER else answer for answer in answers]
    return answers


def bury(party: Party, *deliveries: Delivery) -> list[Settled]:
    request = JobSettle(settlements=[burial(delivery) for delivery in deliveries])
    return list(party.verb(job_settle_together, request))


class Waiting:
    """A verb that somebody has asked for, and that waits for another's lock."""

    def __init__(self, schema: SharedSchema, call: Callable[[], object]) -> None:
        self._error: BaseException | None = None
        self.answer: object = None

        def run() -> None:
            try:
                self.answer = call()
            except BaseException as error:  # noqa: BLE001 - told to whoever waits
                self._error = error

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        waits = f"""SELECT 1 FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted
            AND a.query LIKE '%{schema.name}%'"""
        eventually(lambda: bool(schema.ask(waits.replace("%", "%%"), ())), "somebody to wait for a lock")

    def end(self) -> object:
        """Return what was answered, once the other has let go."""
        self._thread.join(20)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error
        return self.answer


def taken(taker: Taker, count: int) -> list[Delivery]:
    deliveries = sorted(taker.reserve(count).deliveries, key=lambda delivery: delivery.id)
    assert len(deliveries) == count
    return deliveries


# --- one after the other


def test_a_chain_runs_step_by_step_with_the_results_handed_on(met: Meeting) -> None:
    taker = met.taker()
    flow = chain(new_job(), new_job(), new_job())
    put(taker, flow)

    for number in range(3):
        (delivery,) = taken(taker, 1)
        assert delivery.id == ids_of(flow)[number]
        assert values_of(delivery) == [ids_of(flow)[number - 1].encode()] * min(number, 1)
        assert [SettleStatus.SETTLED] == [one.status for one in settle(taker, delivery)]

    told = record(taker, flow)
    assert (S.SUCCEEDED, {JobState.SUCCEEDED: 3}) == (told.state, told.steps)
    assert [] == met.schema.ask("SELECT * FROM input")


def test_a_hint_that_is_missing_changes_nothing(met: Meeting) -> None:
    taker = met.taker()
    flow = chord(2)
    put(taker, flow)
    one, other = taken(taker, 2)
    unsaid = [msgspec.structs.replace(success(delivery), step=False) for delivery in (one, other)]

    (answer,) = taker.verb(job_settle, JobSettle(settlements=unsaid[:1]))
    again = taker.verb(job_settle_together, JobSettle(settlements=unsaid))

    assert answer is TOGETHER
    assert [SettleStatus.SETTLED] * 2 == [told.status for told in again]
    assert JobState.READY is job(taker, flow.id).state


# --- two at once


def test_two_members_that_are_settled_at_once_both_count(met: Meeting) -> None:
    one, other = met.taker(), met.taker()
    flow = chord(2)
    put(one, flow)
    first, second = taken(one, 2)

    one.begin()
    settle(one, first)
    waiting = Waiting(met.schema, lambda: settle(other, second))
    one.commit()
    waiting.end()

    assert (JobState.READY, 0) == (job(one, flow.id).state, job(one, flow.id).waits)
    (callback,) = taken(one, 1)
    assert [first.id.encode(), second.id.encode()] == values_of(callback)


def test_a_settle_that_is_rolled_back_leaves_the_other_alone(met: Meeting) -> None:
    one, other = met.taker(), met.taker()
    flow = chord(2)
    put(one, flow)
    first, second = taken(one, 2)

    one.begin()
    settle(one, first)
    waiting = Waiting(met.schema, lambda: settle(other, second))
    one.roll_back()
    waiting.end()

    assert (JobState.WAITING, 1) == (job(one, flow.id).state, job(one, flow.id).waits)
    settle(one, first)
    assert JobState.READY is job(one, flow.id).state


@pytest.mark.parametrize("rounds", [20])
def test_many_who_settle_members_at_once_lose_none(rounds: int, met: Meeting) -> None:
    takers = [met.taker() for _ in range(4)]
    flows = [chord(rounds * len(takers)) for _ in range(3)]
    put(takers[0], *flows)
    deliveries = taken(takers[0], len(flows) * rounds * len(takers))
    errors: list[BaseException] = []

    def work(taker: Taker, mine: list[Delivery]) -> None:
        try:
            for number in range(0, len(mine), 3):
                settle(taker, *mine[number : number + 3])
        except BaseException as error:  # noqa: BLE001 - told below
            errors.append(error)

    threads = [
        threading.Thread(target=work, args=(taker, deliveries[number :: len(takers)]))
        for number, taker in enumerate(takers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert [] == errors
    assert [0, 0, 0] == [job(takers[0], flow.id).waits for flow in flows]
    for callback in taken(takers[0], 3):
        assert len(values_of(callback)) == rounds * len(takers)


def test_a_step_that_is_cancelled_while_a_member_is_settled_gets_nothing(met: Meeting) -> None:
    one, other = met.taker(), met.party()
    flow = chord(2)
    put(one, flow)
    first, _ = taken(one, 2)

    other.begin()
    assert [CancelStatus.REQUESTED] == other.verb(flow_cancel, FlowCancel(ids=[flow.id], reason="enough"))
    waiting = Waiting(met.schema, lambda: settle(one, first))
    other.commit()

    assert [
        Settled(SettleStatus.SETTLED, JobState.SUCCEEDED)
    ] == waiting.end()  # a valid success beats a cancel
    assert (S.CANCELLED, "enough") == (record(one, flow).state, record(one, flow).reason)
    assert JobState.CANCELLED is job(one, flow.id).state
    assert [] == met.schema.ask("SELECT * FROM input")


def test_a_cancel_while_a_member_is_settled_ends_the_rest(met: Meeting) -> None:
    one, other = met.taker(), met.party()
    flow = chord(2)
    put(one, flow)
    first, second = taken(one, 2)

    one.begin()
    settle(one, first)
    other.begin()
    request = FlowCancel(ids=[flow.id], reason="enough")
    waiting = Waiting(met.schema, lambda: other.verb(flow_cancel, request))
    one.commit()
    assert [CancelStatus.REQUESTED] == waiting.end()
    other.commit()

    assert JobState.CANCELLED is job(one, flow.id).state
    assert JobState.SUCCEEDED is job(one, first.id).state
    assert job(one, second.id).cancel_requested
    assert [] == met.schema.ask("SELECT * FROM input")


def test_a_step_that_is_deleted_while_a_member_is_settled_ends_the_flow(met: Meeting) -> None:
    one, other = met.taker(), met.party()
    flow = chord(2)
    put(one, flow)
    first, _ = taken(one, 2)

    other.begin()
    other.verb(job_delete, JobDelete(ids=[flow.id]))
    waiting = Waiting(met.schema, lambda: settle(one, first))
    other.commit()
    waiting.end()

    assert [None] == one.verb(flow_get, FlowGet(ids=[flow.id]))
    assert [] == met.schema.ask("SELECT * FROM input")
    assert [] == met.schema.ask("SELECT * FROM flow")


def test_of_two_members_that_die_at_once_one_tells(met: Meeting) -> None:
    one, other = met.taker(), met.taker()
    flow = chord(2)
    flow = msgspec.structs.replace(flow, on_failure=failure_template())
    put(one, flow)
    first, second = taken(one, 2)

    one.begin()
    bury(one, first)
    other.begin()
    waiting = Waiting(met.schema, lambda: bury(other, second))
    one.commit()
    waiting.end()
    other.commit()

    assert record(one, flow).state is S.FAILED
    assert first.id in record(one, flow).reason
    (told,) = taken(one, 1)
    assert (flow.id, first.id) == (told_of(told).flow_id, told_of(told).job_id)


def test_a_member_that_dies_while_another_is_requeued_makes_it_failed_again(met: Meeting) -> None:
    one, other = met.taker(), met.taker()
    flow = chord(2)
    put(one, flow)
    first, second = taken(one, 2)
    one.begin()
    bury(one, first)
    one.commit()

    one.begin()
    assert [RequeueStatus.REQUEUED] == one.verb(job_requeue, JobRequeue(ids=[first.id]))
    assert record(one, flow).state is S.RUNNING
    other.begin()
    waiting = Waiting(met.schema, lambda: bury(other, second))
    one.commit()
    waiting.end()
    other.commit()

    assert (S.FAILED, True) == (record(one, flow).state, second.id in record(one, flow).reason)


def test_a_requeue_that_waits_for_another_death_leaves_it_failed(met: Meeting) -> None:
    one, other = met.taker(), met.taker()
    flow = chord(3)
    put(one, flow)
    first, second, third = taken(one, 3)
    one.begin()
    bury(one, first)
    one.commit()

    one.begin()
    bury(one, second)
    # Its death left the flow's row alone; somebody who resumes the flow has it, and waits for none of ours.
    one.do(f"SELECT FROM flow WHERE id = '{flow.id}' FOR UPDATE")
    other.begin()
    waiting = Waiting(met.schema, lambda: other.verb(job_requeue, JobRequeue(ids=[first.id])))
    one.commit()
    assert [RequeueStatus.REQUEUED] == waiting.end()
    other.commit()

    assert record(one, flow).state is S.FAILED
    one.verb(job_requeue, JobRequeue(ids=[second.id]))
    assert (S.RUNNING, "") == (record(one, flow).state, record(one, flow).reason)
    settle(one, third, *taken(one, 2))
    assert JobState.READY is job(one, flow.id).state


def test_cancelling_one_step_cancels_the_flow(met: Meeting) -> None:
    party = met.taker()
    flow = chain(new_job(), new_job(), new_job())
    put(party, flow)

    party.begin()
    assert [CancelStatus.CANCELLED] == party.verb(job_cancel, JobCancel(ids=[ids_of(flow)[1]], reason="no"))
    party.commit()

    assert (S.CANCELLED, {JobState.CANCELLED: 3}) == (record(party, flow).state, record(party, flow).steps)


# --- the order of locks


@pytest.mark.parametrize("verb", ["flow", "callback", "delete"])
def test_who_ends_a_flow_locks_its_members_before_those_who_wait_for_them(verb: str, met: Meeting) -> None:
    """As a settle does, whichever id is the lower."""
    holder, canceller = met.taker(), met.party()
    callback = new_job()
    flow = chord(2, callback)
    put(holder, flow)
    first, _ = taken(holder, 2)
    assert callback.id < first.id
    calls: dict[str, Callable[[], object]] = {
        "flow": lambda: canceller.verb(flow_cancel, FlowCancel(ids=[flow.id])),
        "callback": lambda: canceller.verb(job_cancel, JobCancel(ids=[callback.id])),
        "delete": lambda: canceller.verb(job_delete, JobDelete(ids=[callback.id])),
    }

    holder.begin()
    holder.lock([first.id])
    canceller.begin()
    waiting = Waiting(met.schema, calls[verb])
    holder.do(f"SELECT FROM job WHERE id = '{callback.id}' FOR UPDATE NOWAIT")
    settle(holder, first)
    holder.commit()
    waiting.end()
    canceller.commit()

    assert [] == met.schema.ask("SELECT * FROM input")
    assert JobState.SUCCEEDED is job(holder, first.id).state


def test_batches_with_members_of_the_same_flows_do_not_wait_for_each_other(met: Meeting) -> None:
    """Each has a success in one of two flows, and in the other a failure that is absorbed."""
    one, other = met.taker(), met.taker()
    flows = [chord(2, tolerant=True), chord(2, tolerant=True)]
    put(one, *flows)
    found = {delivery.id: delivery for delivery in taken(one, 4)}
    (low, low_2, _), (high, high_2, _) = map(ids_of, flows)
    first = JobSettle(settlements=[success(found[high]), burial(found[low])])
    second = JobSettle(settlements=[success(found[low_2]), burial(found[high_2])])

    one.begin()
    standing = Held(one, lambda: one.verb(job_settle_together, first))  # before it writes anything
    other.begin()
    waiting = Waiting(met.schema, lambda: other.verb(job_settle_together, second))
    standing.go_on()
    one.commit()
    waiting.end()
    other.commit()

    assert [JobState.READY] * 2 == [job(one, flow.id).state for flow in flows]
