"""`harbor.arguments_of` of steps: what earlier steps gave them, as far as it is there."""

from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta

import pytest

from taskharbor import (
    Codec,
    Failure,
    Flow,
    FlowFailure,
    Harbor,
    JobState,
    JsonCodec,
    MsgpackCodec,
    PayloadError,
    Registry,
    Retry,
    Success,
    chain,
    chord,
    group,
    task,
)

registry = Registry()
once = Retry(max_attempts=1)


@task(registry=registry)
def one(value: int) -> int:
    return value


@task(registry=registry, keep_result=False)
def quiet(value: int) -> int:
    return value


@task(registry=registry, retry=once)
def torn(value: int, by: int = 1) -> int:
    raise ValueError(f"no {value * by}")


@task(registry=registry, retry=once)
def gathered(values: list[int], name: str) -> int:
    raise ValueError(name)


@task(registry=registry, retry=once)
def judged(results: list[Success[int] | Failure]) -> int:
    raise ValueError(len(results))


@task(registry=registry, retry=once)
def told(failure: FlowFailure, prefix: str = "") -> None:
    raise ValueError(prefix)


@pytest.fixture(params=[JsonCodec(), MsgpackCodec()], ids=["json", "msgpack"])
def harbor(request: pytest.FixtureRequest) -> Generator[Harbor]:
    codec: Codec = request.param
    with Harbor("memory://", registry=registry, codec=codec) as harbor:
        yield harbor


def ran(harbor: Harbor, flow: Flow[object]) -> str:
    flow_id = flow.enqueue().id
    harbor.run_until_idle()
    return flow_id


def arguments(harbor: Harbor, job_id: str) -> dict[str, object]:
    return harbor.arguments_of(harbor.jobs.get(job_id))


def test_a_dead_step_tells_what_it_was_given(harbor: Harbor) -> None:
    flow_id = ran(harbor, chain(one.s(3), lambda value: torn.s(value, by=2)))

    assert {"value": 3, "by": 2} == arguments(harbor, flow_id)


def test_a_list_is_told_once_all_of_it_is_there(harbor: Harbor) -> None:
    later = timedelta(hours=1)
    whole = ran(harbor, chord([one.s(1), one.s(2)], lambda values: gathered.s(values, "a")))
    part = ran(
        harbor, chord([one.s(1), one.options(run_in=later).s(2)], lambda values: gathered.s(values, "b"))
    )

    assert {"values": [1, 2], "name": "a"} == arguments(harbor, whole)
    assert {"name": "b"} == arguments(harbor, part)


def test_failures_that_were_taken_as_values_are_told_as_such(harbor: Harbor) -> None:
    flow_id = ran(harbor, chord(group(one.s(1), torn.s(2), allow_failures=True), judged))

    (results,) = arguments(harbor, flow_id).values()

    assert isinstance(results, list)
    assert Success(1) == results[0]
    assert isinstance(results[1], Failure)


def test_what_an_on_failure_job_was_told_is_told(harbor: Harbor) -> None:
    flow_id = ran(harbor, chain(torn.s(1), one).configure(on_failure=lambda it: told.s(it, prefix="a")))
    (job,) = harbor.jobs.find(tasks=[told.name])

    given = arguments(harbor, job.id)

    assert isinstance(given["failure"], FlowFailure)
    assert (flow_id, "a") == (given["failure"].flow_id, given["prefix"])


def test_a_waiting_and_a_succeeded_step_tell_what_they_were_called_with(harbor: Harbor) -> None:
    flow_id = ran(harbor, chain(one.s(1), one, torn))
    waiting = chain(torn.s(1), lambda value: torn.s(value, by=7)).enqueue().id
    second, first = (step for step in harbor.flows.steps(flow_id) if step.id != flow_id)

    assert {"value": 1} == arguments(harbor, first.id)
    assert {} == arguments(harbor, second.id)
    assert {"by": 7} == arguments(harbor, waiting)
    assert [JobState.SUCCEEDED, JobState.WAITING] == [second.state, harbor.jobs.get(waiting).state]


def test_what_does_not_fit_todays_signature_is_refused(harbor: Harbor) -> None:
    flow_id = ran(harbor, chain(one.s(3), lambda value: torn.s(value, by=2)))
    other = Registry()

    @task(name=torn.name, registry=other)
    def changed(value: str, by: int) -> None:
        raise NotImplementedError

    del changed
    with pytest.raises(PayloadError, match=r"Expected `str`.*\$\.value"):
        Harbor(harbor.driver, registry=other).arguments_of(harbor.jobs.get(flow_id))
