"""A flow drawn: its steps with states and times, and what each waits for; as text, Mermaid or DOT."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

import msgspec

from taskharbor.job import TERMINAL, JobRecord, JobState


class FlowStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a stored flow."""

    id: str
    task: str
    queue: str
    state: JobState
    attempt: int
    """Attempts charged so far."""
    waits: int
    """How many results are to come yet before it may run."""
    enqueued_at: datetime
    begun_at: datetime | None
    """When it could first run: the last of what it waits for had ended; None while it is waiting."""
    finished_at: datetime | None
    reason: str
    after: tuple[str, ...]
    """The steps whose results it takes or waits for, of those that are still kept."""


class FlowGraph(msgspec.Struct, frozen=True):
    """The steps of a flow that are still kept, each after those it waits for."""

    id: str
    steps: tuple[FlowStep, ...]

    def mermaid(self) -> str:
        """Return it as a Mermaid flowchart (https://mermaid.js.org)."""
        names = {step.id: f"s{number}" for number, step in enumerate(self.steps, 1)}
        lines = ["flowchart LR"]
        lines += [
            f'    {names[step.id]}["{_escaped(step.task)}<br/>{step.state}"]:::{step.state}'
            for step in self.steps
        ]
        lines += [f"    {names[before]} --> {names[step.id]}" for step in self.steps for before in step.after]
        lines += [f"    classDef {state} {_COLOURS[state][0]}" for state in _present(self.steps)]
        return "\n".join(lines) + "\n"

    def dot(self) -> str:
        """Return it in Graphviz's DOT language (https://graphviz.org/doc/info/lang.html)."""
        names = {step.id: f"s{number}" for number, step in enumerate(self.steps, 1)}
        lines = ["digraph flow {", "    rankdir=LR;", "    node [shape=box, style=filled];"]
        for step in self.steps:
            label = step.task.replace("\\", "\\\\").replace('"', '\\"')
            lines.append(
                f'    {names[step.id]} [label="{label}\\n{step.state}", fillcolor="{_COLOURS[step.state][1]}"];'
            )
        lines += [f"    {names[before]} -> {names[step.id]};" for step in self.steps for before in step.after]
        return "\n".join([*lines, "}"]) + "\n"


_COLOURS = {
    JobState.WAITING: ("fill:#eeeeee,stroke:#999999", "#eeeeee"),
    JobState.SCHEDULED: ("fill:#e3ecf7,stroke:#6b8fb5", "#e3ecf7"),
    JobState.READY: ("fill:#d6e6f7,stroke:#3b77b0", "#d6e6f7"),
    JobState.PARKED: ("fill:#f0e6f7,stroke:#8a5fb0", "#f0e6f7"),
    JobState.RUNNING: ("fill:#fff3c4,stroke:#c79a00", "#fff3c4"),
    JobState.RETRYING: ("fill:#ffe0b3,stroke:#d07c00", "#ffe0b3"),
    JobState.SUCCEEDED: ("fill:#d5f0d8,stroke:#3f9a4a", "#d5f0d8"),
    JobState.DEAD: ("fill:#f7d0d0,stroke:#b03030", "#f7d0d0"),
    JobState.CANCELLED: ("fill:#dddddd,stroke:#666666", "#dddddd"),
}


def _present(steps: Sequence[FlowStep]) -> list[JobState]:
    found = {step.state for step in steps}
    return [state for state in JobState if state in found]


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")


def draw(flow_id: str, records: Sequence[JobRecord]) -> FlowGraph:
    """Return a flow's graph from the records of its steps."""
    known = {record.id: record for record in records}
    after: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for record in records:
        for edge in record.edges:
            if edge.job_id in known:
                after[edge.job_id][record.id] = None
    return FlowGraph(
        flow_id,
        tuple(
            _step(known[job_id], [known[before] for before in after[job_id]])
            for job_id in _sorted(known, after)
        ),
    )


def _sorted(known: dict[str, JobRecord], after: dict[str, dict[str, None]]) -> list[str]:
    """Return the ids, each after those it waits for, and otherwise as they were made."""
    left = {job_id: len(after[job_id]) for job_id in known}
    ready = sorted((job_id for job_id, count in left.items() if not count), reverse=True)
    order: list[str] = []
    while ready:
        job_id = ready.pop()
        order.append(job_id)
        freed: list[str] = []
        for later in {edge.job_id for edge in known[job_id].edges if edge.job_id in left}:
            left[later] -= 1
            if not left[later]:
                freed.append(later)
        ready.extend(sorted(freed, reverse=True))
    return order


def _step(record: JobRecord, before: Sequence[JobRecord]) -> FlowStep:
    begun: datetime | None = None
    if record.state is not JobState.WAITING:
        ends = [one.finished_at for one in before if one.finished_at is not None]
        begun = max([record.enqueued_at, *ends])
        if record.finished_at is not None and (begun > record.finished_at or record.waits):
            begun = None
    return FlowStep(
        id=record.id,
        task=record.task,
        queue=record.queue,
        state=record.state,
        attempt=record.attempt,
        waits=record.waits,
        enqueued_at=record.enqueued_at,
        begun_at=begun,
        finished_at=record.finished_at if record.state in TERMINAL else None,
        reason=record.reason,
        after=tuple(one.id for one in before),
    )
