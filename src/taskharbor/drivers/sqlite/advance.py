"""How flows advance: what the ends of steps mean to the steps that wait for them, and to their flows.

It is gathered while the rows of those that end are still there, and written in the same transaction, after these have
moved. How many statements that takes depends on what ended, never on how large the flows are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from taskharbor.driver import JobEnqueue
from taskharbor.drivers.sqlite.ending import cancel_flow, fail_flows, succeed_flows
from taskharbor.drivers.sqlite.enqueue import insert, job_enqueue, known_ids
from taskharbor.drivers.sqlite.inputs import Place, add_inputs, remove_inputs
from taskharbor.drivers.sqlite.leaving import Fall
from taskharbor.drivers.sqlite.routine import Query, Routine
from taskharbor.drivers.sqlite.rows import LINES, NORMAL, NUMBERS, TEXTS, WAITING, Step, json_text, read_json
from taskharbor.flow import Failure, NewFlow, failed_input, failure_of
from taskharbor.job import AttemptError, JobState, NewJob
from taskharbor.settlement import Settlement
from taskharbor.step import ORDER, Edge, Input

_SUCCEEDED = """SELECT json_group_array(json_array(j.id, j.flow, j.step -> 0))
    FROM json_each(?) e CROSS JOIN taskharbor_job j ON j.id = e.value WHERE j.step IS NOT NULL"""
_FALLEN = """SELECT json_group_array(json_array(j.id, j.flow, j.step -> 1, j.errors -> '$[#-1]'))
    FROM json_each(?) e CROSS JOIN {} j ON j.id = e.value WHERE j.step IS NOT NULL"""
_OPEN_FLOWS = """SELECT json_group_array(id) FROM taskharbor_flow
    WHERE id IN (SELECT value FROM json_each(?)) AND state IN ('running', 'failed')"""
_WAITING = f"""SELECT json_group_array(json_array(j.id, j.waits, j.queue))
    FROM json_each(?) e CROSS JOIN taskharbor_job j ON j.id = e.value AND j.lane = {WAITING}"""  # noqa: S608 - our own constants
_THERE = """SELECT json_group_array(e.key) FROM json_each(?) e CROSS JOIN taskharbor_input i
    ON i.job_id = e.value ->> 0 AND i.slot = e.value ->> 1 AND i.idx = e.value ->> 2"""
# Apart from what makes steps ready: this leaves the index alone that reserve walks.
_COUNT = """UPDATE taskharbor_job SET waits = e.value ->> 1
    FROM json_each(?) e WHERE taskharbor_job.id = e.value ->> 0"""
_READY = f"""UPDATE taskharbor_job SET waits = 0, lane = {NORMAL} + iif(part IS NULL, 0, {LINES}),
    run_at = coalesce(?2 + (step ->> 3), run_at),
    due = max(?2, coalesce(?2 + (step ->> 3), run_at))
    WHERE id IN (SELECT value FROM json_each(?1))"""  # noqa: S608 - our own constants


class _Succeeded(msgspec.Struct, array_like=True, frozen=True):
    """A step as `_SUCCEEDED` gives it."""

    id: str
    flow: str | None
    edges: tuple[Edge, ...]


class _Fallen(msgspec.Struct, array_like=True, frozen=True):
    """A step as `_FALLEN` gives it."""

    id: str
    flow: str | None
    absorbers: tuple[Edge, ...]
    error: AttemptError | None
    """Of the last attempt that failed before."""


class _Waiting(msgspec.Struct, array_like=True, frozen=True):
    """A step that waits, as `_WAITING` gives it."""

    id: str
    waits: int
    queue: str


_succeeded = msgspec.json.Decoder(list[_Succeeded])
_fallen = msgspec.json.Decoder(list[_Fallen])
_waiting = msgspec.json.Decoder(list[_Waiting])


class Advance:
    """What the ends of steps come to, within one transaction."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self._inputs: dict[Place, Input] = {}
        self._waits: Counter[str] = Counter()
        """By how many inputs more, or less, steps wait."""
        self._emptied: list[str] = []
        """Steps that keep no inputs."""
        self._jobs: list[NewJob] = []
        self._flows: list[NewFlow] = []
        self._grown: list[tuple[str, Settlement]] = []
        """Flows that get more steps, or whose steps wait for more, and by which success."""
        self._succeeded: list[str] = []
        self._failed: dict[str, Failure] = {}
        self._cancelled: dict[str, str] = {}

    def succeed(self, settlements: Sequence[Settlement], *, steps: bool) -> Routine[None]:
        """Note successes; their jobs are live still. `steps` says whether there may be steps among them."""
        for settlement in settlements:
            sequel = settlement.sequel
            if sequel is not None:
                self._jobs += sequel.jobs
                self._flows += sequel.flows
        if not steps:
            return
        by_id = {settlement.job_id: settlement for settlement in settlements}
        ended = read_json((yield Query(_SUCCEEDED, (json_text(list(by_id)),))), _succeeded)
        for job in ended:
            settlement = by_id[job.id]
            self._emptied.append(job.id)
            if job.flow is None:
                continue
            for edge in job.edges:
                self._give(edge, _result(edge, settlement))
            if job.flow == job.id:
                self._succeeded.append(job.flow)
            if settlement.sequel is not None:
                self._grown.append((job.flow, settlement))

    def fall(self, falls: Sequence[Fall], table: str = "taskharbor_job") -> Routine[None]:
        """Note ends that are no successes; their jobs are in that table still."""
        if not falls:
            return
        ids = json_text([fall.job_id for fall in falls])
        found = {job.id: job for job in read_json((yield Query(_FALLEN.format(table), (ids,))), _fallen)}
        for fall in falls:
            job = found[fall.job_id]
            failure = failure_of(
                job_id=fall.job_id,
                task=fall.task,
                error=(fall.error or job.error) if fall.state is JobState.DEAD else None,
                reason=fall.reason,
                attempts=fall.attempts,
            )
            if fall.state is JobState.CANCELLED:
                self._emptied.append(job.id)
            for edge in job.absorbers:
                self._give(edge, failed_input(edge, failure))
            if job.absorbers or job.flow is None:
                continue
            if fall.state is JobState.CANCELLED:
                self._cancelled.setdefault(job.flow, fall.reason)
            elif job.flow not in self._cancelled:
                self._failed.setdefault(job.flow, failure)

    def _give(self, edge: Edge, given: Input) -> None:
        self._inputs.setdefault(Place(edge.job_id, edge.slot, edge.index), given)

    def write(self) -> Routine[None]:
        """Write it all down; the rows of what ended have moved."""
        if self._jobs or self._flows:
            yield from job_enqueue(self._step, JobEnqueue(jobs=self._jobs, flows=self._flows))
        if self._grown:
            yield from self._grow()
        if self._emptied:
            yield from remove_inputs(self._emptied)
        if self._inputs or self._waits:
            yield from self._hand_on()
        if self._succeeded:
            yield from succeed_flows(self._succeeded, self._step)
        if self._failed:
            yield from fail_flows(self._failed, self._step)
        for flow, reason in self._cancelled.items():
            yield from cancel_flow(flow, reason, self._step)

    def _grow(self) -> Routine[None]:
        """Store more steps for flows that have not ended."""
        flows = json_text(list({flow for flow, _ in self._grown}))
        still_open = read_json((yield Query(_OPEN_FLOWS, (flows,))), TEXTS)
        steps: list[NewJob] = []
        for flow, settlement in self._grown:
            if flow in still_open and settlement.sequel is not None:
                steps += settlement.sequel.steps
                self._waits.update(settlement.sequel.waits)
        if steps:
            known = yield from known_ids([job.id for job in steps])
            yield from insert([job for job in steps if job.id not in known], self._step)

    def _hand_on(self) -> Routine[None]:
        """Write inputs of steps that wait, and let those be ready that wait for nothing more."""
        targets = list({place.job_id for place in self._inputs}.union(self._waits))
        waiting = {job.id: job for job in read_json((yield Query(_WAITING, (json_text(targets),))), _waiting)}
        inputs = [(place, given) for place, given in self._inputs.items() if place.job_id in waiting]
        if inputs:
            places = json_text([place for place, _ in inputs])
            there = read_json((yield Query(_THERE, (places,))), NUMBERS)
            if there:
                again = set(there)
                inputs = [one for number, one in enumerate(inputs) if number not in again]
            yield from add_inputs(inputs)
        came = Counter(place.job_id for place, _ in inputs)
        left = {job.id: job.waits + self._waits[job.id] - came[job.id] for job in waiting.values()}
        ready = [job_id for job_id, waits in left.items() if waits <= 0]
        counts = [each for each in left.items() if each[1] > 0 and each[1] != waiting[each[0]].waits]
        if counts:
            yield Query(_COUNT, (json_text(counts),))
        if ready:
            yield Query(_READY, (json_text(ready), self._step.now))
            self._step.wakes.queues.update(waiting[job_id].queue for job_id in ready)


def _result(edge: Edge, settlement: Settlement) -> Input:
    if edge.slot <= ORDER:
        return Input(ORDER, edge.index, "", None)
    return Input(edge.slot, edge.index, settlement.codec, settlement.result)
