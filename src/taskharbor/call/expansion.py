"""What `each` is stored as: the steps of its body, once, to be made for each element when the list is known.

In the body, ids are local, `@1` and so on; what follows the body is `OUT`. A worker that runs the step gives real ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from taskharbor.flow import Sequel
from taskharbor.job import NewJob, new_job_ids
from taskharbor.step import Edge, Input, Step

COLLECT = "taskharbor.collect"
"""The task that only gathers what came in, into a list."""
EACH = "taskharbor.each"
"""The task that makes the steps of an `each`."""
EXPANSION = "taskharbor.expansion"
"""The format of its payload."""
OUT = "@out"
"""The id of whatever follows the body."""

_replace = msgspec.structs.replace


class Expansion(msgspec.Struct, frozen=True, kw_only=True):
    """The body of an `each`, and where it stands."""

    body: tuple[NewJob, ...]
    elements: tuple[Edge, ...]
    """Which steps of the body take the element."""
    out: tuple[Edge, ...]
    """The steps that take the list of results."""
    codec: str = ""
    items: bytes | None = None
    """The list, where it was known from the start."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Expansion).decode


def write_expansion(expansion: Expansion) -> bytes:
    """Return it as bytes."""
    return _encode(expansion)


def read_expansion(data: bytes) -> Expansion:
    """Return what `write_expansion` wrote."""
    return _decode(data)


def expand(expansion: Expansion, elements: Sequence[tuple[str, bytes]], flow: str) -> Sequel:
    """Return the steps of all elements, and what it means for those that wait for the list.

    Args:
        expansion: the body, with real ids for all that is outside of it.
        elements: codec and bytes of each.
        flow: the flow's id.
    """
    body = expansion.body
    new_ids = iter(new_job_ids(len(elements) * len(body)))
    steps: list[NewJob] = []
    for index, (codec, value) in enumerate(elements):
        ids = {job.id: next(new_ids) for job in body}
        given: dict[str, list[Input]] = {}
        for use in expansion.elements:
            given.setdefault(use.job_id, []).append(Input(use.slot, use.index, codec, value))
        steps += [_made(job, ids, expansion.out, index, flow, tuple(given.get(job.id, ()))) for job in body]
    waits: dict[str, int] = {}
    for edge in expansion.out:  # each of them waits for this step, and from now on for the elements' instead
        waits[edge.job_id] = waits.get(edge.job_id, 0) + len(elements) - 1
    return Sequel(steps=tuple(steps), waits=waits)


def _made(
    job: NewJob,
    ids: Mapping[str, str],
    out: Sequence[Edge],
    index: int,
    flow: str,
    given: tuple[Input, ...],
) -> NewJob:
    step = job.step or Step(flow=flow)
    edges: list[Edge] = []
    for edge in step.edges:
        if edge.job_id == OUT:
            edges += [Edge(one.job_id, one.slot, index) for one in out]
        else:
            edges.append(_renamed(edge, ids))
    return _replace(
        job,
        id=ids[job.id],
        payload=_inner(job.payload, ids) if job.task == EACH else job.payload,
        step=_replace(
            step,
            flow=flow,
            edges=tuple(edges),
            absorbers=tuple(_renamed(edge, ids) for edge in step.absorbers),
            inputs=step.inputs + given,
        ),
    )


def _inner(payload: bytes, ids: Mapping[str, str]) -> bytes:
    """Return the payload of an `each` within the body, with real ids for those of the body around it."""
    inner = read_expansion(payload)
    return write_expansion(
        _replace(
            inner,
            out=tuple(_renamed(edge, ids) for edge in inner.out),
            body=tuple(_within(job, ids) for job in inner.body),
        )
    )


def _within(job: NewJob, ids: Mapping[str, str]) -> NewJob:
    step = job.step
    if step is None:
        return job
    return _replace(
        job,
        payload=_inner(job.payload, ids) if job.task == EACH else job.payload,
        step=_replace(
            step,
            edges=tuple(_renamed(edge, ids) for edge in step.edges),
            absorbers=tuple(_renamed(edge, ids) for edge in step.absorbers),
        ),
    )


def _renamed(edge: Edge, ids: Mapping[str, str]) -> Edge:
    name = ids.get(edge.job_id)
    return edge if name is None else Edge(name, edge.slot, edge.index)
