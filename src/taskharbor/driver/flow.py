"""Whole flows: look at them, and cancel them. They are stored by `job_enqueue`, and advance within `job_settle`.

What a driver keeps to, beside the rules of single jobs:

- A step that waits for inputs is `waiting`: no reserve finds it, and it is due from the moment when the last of them
  came (`run_in` counts from there, `run_at` is never early).
- *Advance.* The settle that writes a step's success writes, for each of its edges, an input of the step that waits, and
  takes one from what that waits for. An input that is there already (same step, slot and index) is not written or
  counted again, and none is written for a step that is not waiting any more. A step that succeeded keeps no inputs.
- *Failure.* A step that ends dead or cancelled, by whatever verb, sends a `Failure` to its absorbers, which counts like
  a result. Without any, a dead one makes a running flow `failed`, and has its `on_failure` job stored; a cancelled one
  cancels the whole flow. So does deleting one that has not succeeded.
- *End.* The success of its last step makes a flow `succeeded`; steps that are left over are cancelled. A flow that was
  cancelled has no step that waits or is ready; those that run are asked to stop, and nothing comes of what they return.
- *Resume.* Requeueing a dead step of a failed flow makes that `running` again if it was the last such step. Cancelled
  steps, and those of a flow that has ended, cannot be requeued.
- A flow that has ended is removed with the retention of its last step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from taskharbor.driver.control import CancelStatus
from taskharbor.driver.request import Request
from taskharbor.flow import FlowRecord, FlowState


class FlowGet(Request, frozen=True, kw_only=True):
    """Look flows up by id, and count their steps."""

    ids: Sequence[str]


class FlowFind(Request, frozen=True, kw_only=True):
    """Look for flows, by id, which is by time of enqueue. An empty filter means any."""

    states: frozenset[FlowState] = frozenset()
    names: frozenset[str] = frozenset()
    after: str = ""
    """Only ids beyond this: the last one of the page before."""
    limit: int = 100
    newest_first: bool = False
    """From the greatest id down; `after` then asks for lesser ones."""


class FlowCancel(Request, frozen=True, kw_only=True):
    """End flows: all that waits or is ready is cancelled, what runs is asked to stop. Recorded on the steps."""

    ids: Sequence[str]
    reason: str = ""
    by: str = ""


class FlowControl(Protocol):
    """The verbs for whole flows."""

    async def flow_get(self, request: FlowGet, /) -> Sequence[FlowRecord | None]:
        """Return one record an id, in order; None where there is no such flow."""
        ...

    async def flow_find(self, request: FlowFind, /) -> Sequence[FlowRecord]:
        """Return the matching flows in order of id, upwards or downwards, at most `limit`."""
        ...

    async def flow_cancel(self, request: FlowCancel, /) -> Sequence[CancelStatus]:
        """End flows and return one answer each, in order: REQUESTED where some steps still run."""
        ...
