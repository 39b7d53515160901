"""The one decision of an enqueue: what is stored, replaced and handed over, and what each is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from taskharbor.driver import EnqueueStatus, Holder, admit, looks_at_holder, replacement_times
from taskharbor.driver.admission import Admission
from taskharbor.flow import NewFlow
from taskharbor.job import JobState, KeyRule, NewJob, OnConflict
from taskharbor.step import Step

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
NAME = ("mail.send", "k")
RUNNING_ONLY = KeyRule(states=(JobState.RUNNING,))
CREATED, REPLACED, EXISTING, CONFLICT, LEFT_OUT = (
    EnqueueStatus.CREATED,
    EnqueueStatus.REPLACED,
    EnqueueStatus.EXISTING,
    EnqueueStatus.CONFLICT,
    EnqueueStatus.LEFT_OUT,
)


def job(
    job_id: str,
    *,
    key: str | None = "k",
    digest: bytes = b"",
    rule: KeyRule | None = None,
    on_conflict: OnConflict = OnConflict.EXISTING,
    run_in: timedelta | None = None,
    run_at: datetime | None = None,
    step: Step | None = None,
) -> NewJob:
    return NewJob(
        id=job_id,
        task="mail.send",
        payload=job_id.encode(),
        codec="json",
        fingerprint=1,
        key=key,
        digest=digest,
        key_rule=rule,
        on_conflict=on_conflict,
        run_in=run_in,
        run_at=run_at,
        step=step,
    )


def replacing(job_id: str, rule: KeyRule | None = None, run_in: timedelta | None = None) -> NewJob:
    return job(job_id, rule=rule, on_conflict=OnConflict.REPLACE, run_in=run_in)


def held(state: JobState | None = JobState.READY, *, step: bool = False) -> dict[tuple[str, str], Holder]:
    return {NAME: Holder("old", b"", state, None if state is None else NOW - MINUTE, step)}


def decide(
    *jobs: NewJob,
    holders: dict[tuple[str, str], Holder] | None = None,
    known: frozenset[str] = frozenset(),
    flows: tuple[NewFlow, ...] = (),
    all_or_none: bool = False,
) -> Admission:
    return admit(jobs, known=known, holders=holders or {}, flows=flows, all_or_none=all_or_none, now=NOW)


def told(admission: Admission) -> list[tuple[EnqueueStatus, str]]:
    return [(answer.status, answer.job_id) for answer in admission.answers]


def flow(*keyed: NewJob, last: str = "flow") -> NewFlow:
    return NewFlow(id=last, steps=keyed, keyed=keyed)


def test_a_batch_that_replaces_a_stored_job_and_hands_its_key_over_says_both() -> None:
    admission = decide(replacing("a"), job("b", rule=RUNNING_ONLY), holders=held())

    assert told(admission) == [(REPLACED, "old"), (CREATED, "b")]
    assert {job_id: one.payload for job_id, one in admission.replaced.items()} == {"old": b"a"}
    assert [one.id for one in admission.new] == ["b"]
    assert admission.handed_over == {NAME: "old"}


def test_a_key_that_several_of_a_batch_take_over_is_taken_from_the_stored_one_once() -> None:
    admission = decide(job("a", rule=RUNNING_ONLY), job("b", rule=RUNNING_ONLY), holders=held())

    assert told(admission) == [(CREATED, "a"), (CREATED, "b")]
    assert admission.handed_over == {NAME: "old"}


def test_a_key_that_is_free_is_handed_over_by_nobody() -> None:
    admission = decide(job("a"), job("b", rule=RUNNING_ONLY))

    assert told(admission) == [(CREATED, "a"), (CREATED, "b")]
    assert admission.handed_over == {}


def test_who_takes_the_place_of_one_that_took_a_key_over_does_not_touch_the_stored_one() -> None:
    admission = decide(job("a", rule=RUNNING_ONLY), replacing("b"), holders=held(JobState.READY))

    assert told(admission) == [(CREATED, "a"), (REPLACED, "a")]
    assert admission.replaced == {}
    assert [(one.id, one.payload) for one in admission.new] == [("a", b"b")]


def test_of_several_replacements_the_last_is_kept_under_the_id_of_the_replaced_one() -> None:
    admission = decide(replacing("a"), replacing("b"), replacing("a"), holders=held())

    assert told(admission) == [(REPLACED, "old")] * 3
    assert [(one.id, one.payload) for one in admission.replaced.values()] == [("old", b"a")]


@pytest.mark.parametrize("known", [frozenset({"a"}), frozenset[str]()])
def test_an_id_that_is_stored_or_in_the_batch_already_is_no_second_job(known: frozenset[str]) -> None:
    before = [] if known else [job("a")]

    admission = decide(*before, replacing("a"), known=known)

    assert told(admission)[-1] == (EXISTING, "a")
    assert len(admission.new) == len(before)


def test_all_or_none_that_is_refused_leaves_every_list_empty() -> None:
    refused = job("c", key="other", digest=b"2")
    holders = held() | {("mail.send", "other"): Holder("theirs", b"1")}

    admission = decide(
        replacing("a"), job("b", rule=RUNNING_ONLY), refused, holders=holders, all_or_none=True
    )

    assert told(admission) == [(LEFT_OUT, "a"), (LEFT_OUT, "b"), (CONFLICT, "theirs")]
    assert admission[1:] == ([], [], {}, {})


def test_a_flow_meets_whoever_has_its_key_after_the_jobs_of_the_batch() -> None:
    step = job("flow", step=Step(flow="flow"))

    admission = decide(job("a", rule=RUNNING_ONLY), flows=(flow(step),), holders=held())

    assert told(admission) == [(CREATED, "a"), (CONFLICT, "a")]
    assert admission.flows == []


def test_a_step_is_conflict_for_a_replacement_and_keeps_its_key_from_everybody() -> None:
    step = held(JobState.SUCCEEDED, step=True)

    admission = decide(replacing("a"), job("b", rule=RUNNING_ONLY), holders=step)

    assert told(admission) == [(CONFLICT, "old"), (EXISTING, "old")]


def test_a_job_with_inputs_takes_nobodys_place_and_is_stored_whole() -> None:
    given = msgspec.structs.replace(replacing("a"), step=Step(flow=""))

    admission = decide(given, holders=held())

    assert told(admission) == [(CREATED, "a")]
    assert admission.new == [given]
    assert admission.handed_over == {NAME: "old"}


def test_explicit_keys_and_derived_ones_of_a_task_are_one_set_of_names() -> None:
    admission = decide(job("a", digest=b"1"), job("b", rule=RUNNING_ONLY), job("c", digest=b"1"))

    assert told(admission) == [(CREATED, "a"), (CREATED, "b"), (CONFLICT, "b")]


@pytest.mark.parametrize("on_conflict", [OnConflict.EXISTING, OnConflict.RAISE])
def test_without_a_rule_the_holders_state_is_not_looked_at(on_conflict: OnConflict) -> None:
    plain = job("a", on_conflict=on_conflict)

    admission = decide(plain, holders=held(None))

    assert not looks_at_holder(plain)
    assert told(admission) == [(EXISTING, "old")]


def test_with_a_rule_and_to_replace_it_is() -> None:
    assert looks_at_holder(job("a", rule=RUNNING_ONLY))
    assert looks_at_holder(replacing("a"))
    assert not looks_at_holder(msgspec.structs.replace(replacing("a"), key=None))


def test_where_a_record_is_gone_a_replacement_is_stored() -> None:
    admission = decide(replacing("a"), holders=held(None))

    assert told(admission) == [(CREATED, "a")]
    assert admission.handed_over == {NAME: "old"}


@pytest.mark.parametrize(
    ("run_in", "latest", "enqueued_ago", "run_at", "due_at"),
    [
        (5, None, 1, 5, 5),
        (5, 60, 1, 5, 5),
        (5, 4, 1, 3, 3),
        (5, 1, 1, 0, 0),
        (5, 1, 9, -8, -8),
        (None, None, 1, 0, 0),
        (None, 3, 9, -6, -6),
        (-7, None, 9, -7, 0),
        (-7, 60, 9, -7, 0),
        (-7, 1, 3, -7, -2),
    ],
)
def test_a_replacement_is_due_at_its_own_time_but_never_after_its_latest(
    run_in: int | None, latest: int | None, enqueued_ago: int, run_at: int, due_at: int
) -> None:
    at = None if run_in is None else NOW + run_in * MINUTE
    rule = None if latest is None else KeyRule(latest=latest * MINUTE)

    times = replacement_times(
        job("a", rule=rule, run_at=at), enqueued_at=NOW - enqueued_ago * MINUTE, now=NOW
    )

    assert times == (NOW + run_at * MINUTE, NOW + due_at * MINUTE)


def test_in_a_batch_a_replacement_begins_no_later_than_its_latest() -> None:
    rule = KeyRule(states=(JobState.SCHEDULED,), latest=MINUTE)

    admission = decide(replacing("a", rule, MINUTE), replacing("b", rule, 5 * MINUTE))

    assert told(admission) == [(CREATED, "a"), (REPLACED, "a")]
    assert [(one.payload, one.run_at, one.run_in) for one in admission.new] == [(b"b", NOW + MINUTE, None)]
