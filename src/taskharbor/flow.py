"""A flow: several jobs that wait for one another's results, stored together. Its states, its record, its failures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Generic

import msgspec
from typing_extensions import TypeVar

from taskharbor.job import AttemptError, JobState, NewJob, new_job_id
from taskharbor.step import Edge, Input, Step

R = TypeVar("R")


class FlowState(StrEnum):
    """Where a flow stands as a whole."""

    RUNNING = "running"
    FAILED = "failed"
    """One of its steps is a dead letter, and what waits for that stays waiting. Not the end: requeueing the dead step
    resumes the flow."""
    SUCCEEDED = "succeeded"
    """Its last step has succeeded."""
    CANCELLED = "cancelled"
    """It was cancelled, or one of its steps was cancelled or deleted; nothing of it will run any more."""


FLOW_ENDED = frozenset({FlowState.SUCCEEDED, FlowState.CANCELLED})


class NewFlow(msgspec.Struct, frozen=True, kw_only=True):
    """A flow to be stored, as the producer hands it to the driver."""

    id: str
    """The id of its last step, on which all the others come to bear."""
    name: str = ""
    meta: dict[str, str] = {}
    steps: Iterable[NewJob]
    """All its jobs, each with its `step`, in any order. Large: read it in parts; it can be read more than once."""
    keyed: tuple[NewJob, ...] = ()
    """Those of its steps that have an idempotency key."""
    own_key: bool = False
    """The key of its last step is the flow's: who stores it again is told of the one that is there."""
    on_failure: NewJob | None = None
    """The job to store whenever the flow comes to be `failed`, under an id of its own each time, with a `FlowFailure`
    as JSON for an input of slot 0. It has a `step`, for its hole, and is not part of the graph."""
    absorbing: bool = False
    """Some of its steps have absorbers: others may be left over when its last step has succeeded."""


class FlowRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the store knows of a flow as a whole, at one instant."""

    id: str
    name: str
    meta: dict[str, str]
    state: FlowState
    enqueued_at: datetime
    finished_at: datetime | None = None
    reason: str = ""
    """Why it failed or was cancelled."""
    steps: Mapping[JobState, int] = {}
    """How many of its steps are in each state, as long as they are kept; `flow_find` does not count them."""


class Sequel(msgspec.Struct, frozen=True, kw_only=True):
    """What a success brings with it: written in the same step as the success, or not at all."""

    jobs: tuple[NewJob, ...] = ()
    """To be enqueued. One whose key is taken is left out."""
    flows: tuple[NewFlow, ...] = ()
    """To be enqueued. One with a step whose key is taken is left out."""
    steps: tuple[NewJob, ...] = ()
    """More steps for the flow that the job is a step of. Left out if that flow has ended."""
    waits: Mapping[str, int] = {}
    """By how many inputs more (or, at -1, less) each of these steps of the flow waits from now on."""


class Failure(msgspec.Struct, frozen=True, kw_only=True, tag="failure"):
    """What a member of `group(..., allow_failures=True)` came to that did not succeed."""

    job_id: str
    """The step that failed, of those that make up the member."""
    task: str
    error_type: str = ""
    """The last error's qualified class name; empty if it was cancelled."""
    error_message: str = ""
    reason: str = ""
    """Why it is dead, or was cancelled."""
    attempts: int = 0


class Success(msgspec.Struct, Generic[R], frozen=True, tag="success"):
    """What a member of `group(..., allow_failures=True)` came to that did succeed."""

    value: R


class FlowFailure(msgspec.Struct, frozen=True, kw_only=True):
    """What an `on_failure` task is told: which flow failed, by which of its steps, and why."""

    flow_id: str
    name: str
    meta: dict[str, str]
    job_id: str
    """The step that is a dead letter now. Requeueing it resumes the flow."""
    task: str
    error_type: str = ""
    error_message: str = ""
    reason: str = ""
    attempts: int = 0


FORMAT = "json"
"""What failures are told in: a format that every harbor reads."""
_encode = msgspec.json.Encoder().encode


def failed_input(edge: Edge, failure: Failure) -> Input:
    """Return what a step's failure is to one of its absorbers."""
    return Input(edge.slot, edge.index, FORMAT, _encode(failure), failed=True)


def failure_of(*, job_id: str, task: str, error: AttemptError | None, reason: str, attempts: int) -> Failure:
    """Return what is told of a step that ended dead or cancelled; `error` is the last of its attempts' errors."""
    return Failure(
        job_id=job_id,
        task=task,
        error_type="" if error is None else error.type,
        error_message="" if error is None else error.message,
        reason=reason,
        attempts=attempts,
    )


def failure_job(
    template: NewJob, failure: Failure, *, flow_id: str, name: str, meta: dict[str, str]
) -> NewJob:
    """Return the job that tells of a flow's failure, made of its `on_failure`."""
    told = FlowFailure(
        flow_id=flow_id,
        name=name,
        meta=meta,
        job_id=failure.job_id,
        task=failure.task,
        error_type=failure.error_type,
        error_message=failure.error_message,
        reason=failure.reason,
        attempts=failure.attempts,
    )
    step = msgspec.structs.replace(
        template.step or Step(flow=""), inputs=(Input(0, 0, FORMAT, _encode(told)),)
    )
    return msgspec.structs.replace(template, id=new_job_id(), step=step)
