"""A step: what a job has beside its own when it is part of a flow. What it waits for, and where its result goes."""

from __future__ import annotations

import msgspec

ORDER = -1
"""The slot of inputs without a value: the step only waits for them. So are all slots below."""


class Edge(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A dependency, as its earlier step has it: where the result goes."""

    job_id: str
    """The step that waits for it."""
    slot: int
    """Which of that step's holes it fills; `ORDER` if none."""
    index: int = 0
    """Its place in the list, where many fill one hole."""


class Input(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A result that came in for a step: the same dependency, as its later step has it."""

    slot: int
    index: int
    codec: str
    value: bytes | None
    """None where the earlier step keeps no result, and for `ORDER`."""
    failed: bool = False
    """The earlier step came to no result, and `value` is a `Failure`, as JSON."""


class Hole(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An argument that is not there yet: filled from inputs when the step is delivered."""

    parameter: str
    slot: int
    many: bool = False
    """It takes a list: the inputs of its slot, in order of their index."""
    tolerant: bool = False
    """Its values are told as `Success` or `Failure`."""


class Step(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What makes a job to be stored a step of a flow."""

    flow: str
    """The flow's id, which is the id of its last step; empty for a job of no flow that is given inputs."""
    waits: int = 0
    """How many inputs are to come yet. A step that waits for none may run at once; a job's `run_in` counts from the
    moment when the last of them came."""
    edges: tuple[Edge, ...] = ()
    absorbers: tuple[Edge, ...] = ()
    """Where its failure goes, as a value; without any, its failure is the flow's."""
    holes: tuple[Hole, ...] = ()
    inputs: tuple[Input, ...] = ()
    """What has come in already; not counted in `waits`."""


class DeliveredStep(msgspec.Struct, frozen=True, gc=False):
    """What a worker needs of a step beside the job. By place, in this order."""

    flow: str
    """Empty for a job of no flow that is given inputs."""
    holes: tuple[Hole, ...]
    inputs: tuple[Input, ...]
    """In order of slot and index."""
