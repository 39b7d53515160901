"""`taskharbor jobs show` of steps: what earlier steps gave them, and what is to come."""

from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta
from typing import Any

import pytest

from taskharbor import FlowFailure, JobState, JsonCodec, MsgpackCodec, Retry, chain, chord, task
from taskharbor.cli import input_view
from taskharbor.codec import Codec
from tests.test_cli_flows import Studio, studios

HOUR = timedelta(hours=1)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Generator[Studio]:
    yield from studios(monkeypatch, capsys, "memory://")


def arguments(studio: Studio, job_id: str) -> list[str]:
    """Return the lines that tell a job's arguments."""
    lines = studio.run("jobs", "show", job_id).out.splitlines()
    return [line for line in lines if line.startswith(("argument", "payload", " " * 14))]


def in_json(studio: Studio, job_id: str) -> dict[str, Any]:
    told: dict[str, Any] = studio.run("jobs", "show", job_id, "--json").lines()[0]
    return told


def by_task(studio: Studio, flow_id: str) -> dict[str, str]:
    return {step.task: step.id for step in studio.harbor.flows.steps(flow_id)}


def test_a_dead_step_shows_what_it_was_given_and_by_which_step(alone: Studio) -> None:
    alone.torn = {5}
    flow_id = alone.ran(alone.brighten.s(4).then(alone.resize))
    first = by_task(alone, flow_id)["image.brighten"]

    assert [f"argument    image = 5  from step image.brighten ({first})"] == arguments(alone, flow_id)
    told = in_json(alone, flow_id)
    given = {"parameter": "image", "index": 0, "from": first, "task": "image.brighten", "failed": False}
    assert [{**given, "value": 5}] == told["inputs"]
    assert ({}, False, False) == (told["arguments"], "step" in told, "waiting_for" in told)


def test_what_is_to_come_is_told_by_the_step_that_it_comes_from(alone: Studio) -> None:
    flow_id = alone.ran(alone.brighten.options(run_in=HOUR).s(4).then(alone.resize))
    first = by_task(alone, flow_id)["image.brighten"]

    assert [f"argument    image: waiting for step image.brighten ({first}), scheduled"] == arguments(
        alone, flow_id
    )
    told = in_json(alone, flow_id)
    assert [] == told["inputs"]
    assert [{"parameter": "image", "index": 0, "from": first, "task": "image.brighten"}] == told[
        "waiting_for"
    ]


def test_a_list_is_told_as_far_as_it_is_there(alone: Studio) -> None:
    members = [alone.resize.s(1), alone.brighten.options(run_in=HOUR).s(1), alone.resize.s(3)]
    flow_id = alone.ran(chord(members, alone.sheet))
    later = by_task(alone, flow_id)["image.brighten"]
    one, three = (step.id for step in alone.harbor.flows.steps(flow_id, [JobState.SUCCEEDED]))

    assert [
        "argument    images = 2 results so far",
        f"              [0] 1  from step image.resize ({one})",
        f"              [2] 3  from step image.resize ({three})",
    ] == arguments(alone, flow_id)
    assert [{"parameter": "images", "index": 1, "from": later, "task": "image.brighten"}] == in_json(
        alone, flow_id
    )["waiting_for"]


def test_a_list_of_which_nothing_is_there_is_waited_for(alone: Studio) -> None:
    flow_id = alone.store(chord([alone.resize.s(1), alone.resize.s(2)], alone.sheet))

    assert ["argument    images: waiting for 2 results"] == arguments(alone, flow_id)


def test_of_a_long_list_some_are_told_and_the_others_counted(
    alone: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input_view, "MANY", 2)

    @task(name="image.torn", retry=Retry(max_attempts=1), registry=alone.registry)
    def torn(images: list[int]) -> None:
        raise ValueError(images)

    flow_id = alone.ran(chord([alone.resize.s(number) for number in range(5)], torn))

    told = arguments(alone, flow_id)
    assert ["argument    images = 5 results", "              3 more"] == [told[0], told[-1]]
    assert 4 == len(told)
    assert list(range(5)) == [given["value"] for given in in_json(alone, flow_id)["inputs"]]


def test_a_step_that_has_succeeded_tells_where_its_arguments_came_from(alone: Studio) -> None:
    flow_id = alone.ran(alone.brighten.s(4).then(alone.resize))
    first = by_task(alone, flow_id)["image.brighten"]

    assert [f"argument    image: no longer kept  from step image.brighten ({first})"] == arguments(
        alone, flow_id
    )


def test_an_on_failure_job_shows_what_it_was_told(alone: Studio) -> None:
    @task(name="image.tell", retry=Retry(max_attempts=1), registry=alone.registry)
    def tell(failure: FlowFailure, to: str = "me") -> None:
        raise ValueError(to)

    alone.torn = {1}
    flow_id = alone.ran(chain(alone.resize.s(1), alone.brighten).configure(on_failure=tell))
    (job,) = alone.harbor.jobs.find(tasks=["image.tell"])

    given, failed = arguments(alone, job.id)
    assert 'argument    to = "me"' == given
    assert failed.startswith('argument    failure = {"')
    assert f'"flow_id":"{flow_id}"' in failed


@pytest.mark.parametrize("codec", [JsonCodec(), MsgpackCodec()])
def test_what_only_a_codec_of_the_application_reads_is_shown_through_it(alone: Studio, codec: Codec) -> None:
    @task(name="image.packed", codec=codec, registry=alone.registry)
    def packed(image: int) -> dict[str, int]:
        return {"of": image}

    @task(name="image.torn", codec=codec, retry=Retry(max_attempts=1), registry=alone.registry)
    def torn(found: dict[str, int], by: int) -> None:
        raise ValueError(found)

    flow_id = alone.ran(chain(packed.s(4), lambda found: torn.s(found, by=2)))
    first = by_task(alone, flow_id)["image.packed"]

    assert [
        "argument    by = 2",
        f'argument    found = {{"of":4}}  from step image.packed ({first})',
    ] == arguments(alone, flow_id)
    assert {"by": 2} == in_json(alone, flow_id)["arguments"]


def test_a_plain_job_tells_of_no_inputs(alone: Studio) -> None:
    with alone.harbor:
        job_id = alone.brighten.enqueue(1).id

    assert ["argument    image = 1"] == arguments(alone, job_id)
    assert not {"inputs", "waiting_for", "step"} & set(in_json(alone, job_id))
