"""A step's place in its flow, as it is shown with the job: which flow, what it waits for, where its result goes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

from taskharbor.cli.filters import Filter
from taskharbor.cli.listing import pages
from taskharbor.errors import JobNotFound
from taskharbor.flow import FlowRecord, FlowState
from taskharbor.harbor import Harbor
from taskharbor.job import TERMINAL, JobRecord, JobState

MANY = 10
"""So many neighbours are shown one by one; the others are counted."""


def told_place(harbor: Harbor, record: JobRecord) -> Iterator[str]:
    """Yield the lines that tell of a step's place in its flow; none for a job of no flow."""
    if record.flow is None:
        return
    flow: FlowRecord | None = None
    with suppress(JobNotFound):  # a step can outlive its flow
        flow = harbor.flows.get(record.flow)
    yield f"{'flow':<12}{record.flow}{_told_flow(flow)}"
    if flow is not None and record.state is JobState.WAITING:
        yield from _told_waits(harbor, record, flow)
    after = dict.fromkeys(edge.job_id for edge in record.edges)
    for job_id in islice(after, MANY):
        yield f"{'result to':<12}{job_id}"
    if len(after) > MANY:
        yield f"{'result to':<12}{len(after) - MANY:,} more"


def _told_flow(flow: FlowRecord | None) -> str:
    if flow is None:
        return ""
    return f" ({flow.name}, {flow.state})" if flow.name else f" ({flow.state})"


def _told_waits(harbor: Harbor, record: JobRecord, flow: FlowRecord) -> Iterator[str]:
    left = record.waits
    for before in islice(_awaited(harbor, record.id, flow), MANY):
        why = f" ({before.reason})" if before.reason else ""
        yield f"{'waits for':<12}{before.id}  {before.task}  {before.state}{why}"
        left -= sum(edge.job_id == record.id for edge in before.edges)
    if left > 0:
        more = "more " if left < record.waits else ""
        yield f"{'waits for':<12}{left:,} {more}result{'s'[: left > 1]}"


def _awaited(harbor: Harbor, job_id: str, flow: FlowRecord) -> Iterator[JobRecord]:
    """Yield the steps that a step waits for, dead ones first."""
    wanted = [tuple(state for state in JobState if state not in TERMINAL)]
    if flow.state is FlowState.FAILED:  # else nobody waits for the dead: their failures were taken as values
        wanted.insert(0, (JobState.DEAD,))
    for states in wanted:
        for page in pages(harbor, Filter(states=states, flow=flow.id)):
            yield from (step for step in page if any(edge.job_id == job_id for edge in step.edges))
