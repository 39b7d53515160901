"""Flows for cases: small graphs of steps, and what a delivery of one shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from taskharbor.flow import FlowFailure, NewFlow
from taskharbor.job import Delivery, NewJob, new_job_ids
from taskharbor.step import ORDER, Edge, Hole, Input, Step
from taskharbor_conformance.bench import new_job

VALUE = Hole("value", 0)
VALUES = Hole("values", 0, many=True)


def new_step(job: NewJob, step: Step) -> NewJob:
    """Return a job as a step."""
    return msgspec.structs.replace(job, step=step)


def new_flow(
    *steps: NewJob,
    name: str = "",
    meta: dict[str, str] | None = None,
    on_failure: NewJob | None = None,
    absorbing: bool = False,
    own_key: bool = True,
) -> NewFlow:
    """Return a flow of these steps, which say what its id is; a key of the last is the flow's if `own_key`."""
    (flow_id,) = {job.step.flow for job in steps if job.step is not None}
    return NewFlow(
        id=flow_id,
        name=name,
        meta=meta or {},
        steps=steps,
        keyed=tuple(job for job in steps if job.key is not None),
        own_key=own_key,
        on_failure=on_failure,
        absorbing=absorbing,
    )


def chain_steps(*jobs: NewJob) -> list[NewJob]:
    """Return steps that take each the result of the one before."""
    flow_id = jobs[-1].id
    return [
        new_step(
            job,
            Step(
                flow=flow_id,
                waits=min(place, 1),
                holes=(VALUE,) if place else (),
                edges=(Edge(jobs[place + 1].id, 0),) if place + 1 < len(jobs) else (),
            ),
        )
        for place, job in enumerate(jobs)
    ]


def chain(*jobs: NewJob, name: str = "", on_failure: NewJob | None = None) -> NewFlow:
    """Return a flow of jobs one after the other; two, if none is given."""
    return new_flow(*chain_steps(*(jobs or (new_job(), new_job()))), name=name, on_failure=on_failure)


def chord(
    members: int | Sequence[NewJob],
    callback: NewJob | None = None,
    *,
    tolerant: bool = False,
    on_failure: NewJob | None = None,
) -> NewFlow:
    """Return a flow of members side by side and a callback that takes the list of their results, and comes last.

    Args:
        members: jobs, or how many.
        callback: the last step.
        tolerant: the callback takes failures too.
        on_failure: as in `NewFlow`.
    """
    jobs = [new_job(id=job_id) for job_id in new_job_ids(members)] if isinstance(members, int) else members
    last = callback or new_job()
    steps: list[NewJob] = []
    for index, job in enumerate(jobs):
        edge = (Edge(last.id, 0, index),)
        steps.append(new_step(job, Step(flow=last.id, edges=edge, absorbers=edge if tolerant else ())))
    hole = Hole("values", 0, many=True, tolerant=tolerant)
    steps.append(new_step(last, Step(flow=last.id, waits=len(jobs), holes=(hole,))))
    return new_flow(*steps, on_failure=on_failure, absorbing=tolerant)


def failure_template(queue: str = "default") -> NewJob:
    """Return an `on_failure` job."""
    job = new_job(task="mail.failed", queue=queue)
    return new_step(job, Step(flow="", holes=(Hole("failed", 0),)))


def ids_of(flow: NewFlow) -> list[str]:
    """Return the ids of a flow's steps, in order."""
    return [job.id for job in flow.steps]


def inputs_of(delivery: Delivery) -> list[Input]:
    """Return what came in for a step, but for what it only waited for."""
    assert delivery.step is not None, "a step of a flow is delivered as one"
    return [one for one in delivery.step.inputs if one.slot != ORDER]


def values_of(delivery: Delivery) -> list[bytes | None]:
    """Return the values that came in for a step, in the order of its holes' slots and of their lists."""
    return [one.value for one in inputs_of(delivery)]


def told_of(delivery: Delivery) -> FlowFailure:
    """Return what an `on_failure` job is told."""
    (told,) = inputs_of(delivery)
    assert (0, "json", False) == (told.slot, told.codec, told.failed)
    return msgspec.json.decode(told.value or b"", type=FlowFailure)


class Stream(Iterable[NewJob]):
    """Steps that are made anew whenever they are read, as those of large flows are: no list of them exists."""

    def __init__(self, steps: Sequence[NewJob]) -> None:
        self._steps = steps

    def __iter__(self) -> Iterator[NewJob]:
        """Read them from the first."""
        return iter(self._steps)
