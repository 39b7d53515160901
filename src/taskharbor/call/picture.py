"""A flow drawn: its steps with states and times, and what each waits for; as Mermaid, as DOT, or in parts to draw."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime

import msgspec

from taskharbor.call.expansion import EACH, read_expansion
from taskharbor.call.folding import fold, in_order, unfolded
from taskharbor.job import TERMINAL, AttemptError, JobRecord, JobState
from taskharbor.step import Edge


class FlowStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a stored flow."""

    id: str
    task: str
    queue: str
    state: JobState
    attempt: int
    """Attempts charged so far."""
    max_attempts: int
    waits: int
    """How many results are to come yet before it may run."""
    enqueued_at: datetime
    begun_at: datetime | None
    """When it could first run: the last of what it waits for had ended; None while it is waiting."""
    finished_at: datetime | None
    reason: str
    """Why it is parked, dead or cancelled."""
    error: AttemptError | None
    """Of the last attempt that failed."""
    after: tuple[str, ...]
    """The steps whose results it takes or waits for, of those that are still kept; or the `each` that made it."""


class FlowPart(msgspec.Struct, frozen=True, kw_only=True):
    """What is drawn as one: a step, or many that are alike."""

    steps: tuple[FlowStep, ...]
    after: tuple[int, ...]
    """The numbers of the parts that it comes after."""
    row: bool
    """The steps come one after the other, not side by side."""

    @property
    def title(self) -> str:
        """Return what it is called: `resize`, `resize x 10,000`."""
        task, count = self.steps[0].task, len(self.steps)
        return f"{task} x {count:,}{' in a row' * self.row}" if count > 1 else task

    @property
    def counts(self) -> Mapping[JobState, int]:
        """Return how many steps are in each state, as states go; never zero."""
        found = Counter(step.state for step in self.steps)
        return {state: found[state] for state in JobState if state in found}

    @property
    def told_state(self) -> str:
        """Return its state, or how many steps are in which: `9,998 succeeded, 2 dead`."""
        if len(self.steps) == 1:
            return self.steps[0].state.value
        return ", ".join(f"{count:,} {state}" for state, count in self.counts.items())

    @property
    def state(self) -> JobState:
        """Return the state of all its steps that matters most."""
        return min(self.counts, key=_WEIGHT.index)


class FlowGraph(msgspec.Struct, frozen=True):
    """The steps of a flow that are still kept, each after those it waits for."""

    id: str
    steps: tuple[FlowStep, ...]

    def parts(self, *, folded: bool = True) -> Sequence[FlowPart]:
        """Return what is to be drawn, each after those it comes after: many steps that are alike are one part.

        Alike are steps of the same task that come after, and before, steps that are alike, whatever their states.
        """
        numbers = {step.id: number for number, step in enumerate(self.steps)}
        before = [[numbers[earlier] for earlier in step.after] for step in self.steps]
        folds = fold([step.task for step in self.steps], before) if folded else unfolded(before)
        return [
            FlowPart(steps=tuple(self.steps[member] for member in one.members), after=one.before, row=one.row)
            for one in folds
        ]

    def mermaid(self, *, folded: bool = True) -> str:
        """Return it as a Mermaid flowchart (https://mermaid.js.org); `folded` as for `parts`."""
        parts = self.parts(folded=folded)
        lines = ["flowchart LR"]
        lines += [
            f'    s{number}["{_escaped(part.title)}<br/>{part.told_state}"]:::{part.state}'
            for number, part in enumerate(parts, 1)
        ]
        lines += [f"    s{before} --> s{number}" for before, number in _links(parts)]
        lines += [f"    classDef {state} {_COLOURS[state][0]}" for state in _present(parts)]
        return "\n".join(lines) + "\n"

    def dot(self, *, folded: bool = True) -> str:
        """Return it in Graphviz's DOT language (https://graphviz.org/doc/info/lang.html); `folded` as for `parts`."""
        parts = self.parts(folded=folded)
        lines = ["digraph flow {", "    rankdir=LR;", "    node [shape=box, style=filled];"]
        for number, part in enumerate(parts, 1):
            label = part.title.replace("\\", "\\\\").replace('"', '\\"')
            colour = _COLOURS[part.state][1]
            lines.append(f'    s{number} [label="{label}\\n{part.told_state}", fillcolor="{colour}"];')
        lines += [f"    s{before} -> s{number};" for before, number in _links(parts)]
        return "\n".join([*lines, "}"]) + "\n"


_WEIGHT = (
    JobState.DEAD,
    JobState.PARKED,
    JobState.RETRYING,
    JobState.RUNNING,
    JobState.READY,
    JobState.SCHEDULED,
    JobState.WAITING,
    JobState.CANCELLED,
    JobState.SUCCEEDED,
)
"""What matters most comes first."""
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


def _present(parts: Iterable[FlowPart]) -> list[JobState]:
    found = {part.state for part in parts}
    return [state for state in JobState if state in found]


def _links(parts: Sequence[FlowPart]) -> Iterator[tuple[int, int]]:
    for number, part in enumerate(parts, 1):
        for before in part.after:
            yield before + 1, number


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")


def draw(flow_id: str, records: Iterable[JobRecord]) -> FlowGraph:
    """Return a flow's graph from the records of its steps."""
    known = {record.id: record for record in sorted(records, key=lambda record: record.id)}
    after: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for record in known.values():
        for edge in record.edges:
            if edge.job_id in known:
                after[edge.job_id][record.id] = None
    _join_expansions(known, after)
    numbers = {job_id: number for number, job_id in enumerate(known)}
    ids = list(known)
    order = in_order([[numbers[before] for before in after[job_id]] for job_id in ids])
    return FlowGraph(
        flow_id,
        tuple(
            _step(known[ids[number]], [known[before] for before in after[ids[number]]]) for number in order
        ),
    )


def _join_expansions(known: Mapping[str, JobRecord], after: defaultdict[str, dict[str, None]]) -> None:
    """Let what an `each` made come after it; and what is to follow that, as long as it made nothing.

    Nothing is stored of either, since neither waits for the other's result. But an `each` has holes of its own where
    the results go, and what it made takes nothing from elsewhere.
    """
    outs = {record.id: _outs(record) for record in known.values() if record.task == EACH}
    if not outs:
        return
    owners = {(edge.job_id, edge.slot): job_id for job_id, out in outs.items() for edge in out}
    makers: defaultdict[str, dict[str, None]] = defaultdict(dict)
    """For each step those of type `each` whose results it takes."""
    for (target, _), job_id in owners.items():
        makers[target][job_id] = None
    last: defaultdict[str, list[str]] = defaultdict(list)
    before: defaultdict[str, list[str]] = defaultdict(list)
    """For each step those before it, but for what was made by an `each`."""
    for record in known.values():
        for edge in record.edges:
            maker = owners.get((edge.job_id, edge.slot))
            if maker is None:
                before[edge.job_id].append(record.id)
            else:
                last[maker].append(record.id)
    for job_id, out in outs.items():
        made = dict.fromkeys(last[job_id])
        left = list(made)
        while left:
            step = left.pop()
            for earlier in (*before[step], *makers[step]):
                if earlier not in made:
                    made[earlier] = None
                    left.append(earlier)
        first = [step for step in made if not before[step] and not makers[step]]
        for step in first or [edge.job_id for edge in out if edge.job_id in known]:
            after[step][job_id] = None


def _outs(record: JobRecord) -> Sequence[Edge]:
    try:
        return read_expansion(record.payload).out
    except msgspec.MsgspecError:  # of another release
        return ()


def _step(record: JobRecord, before: Sequence[JobRecord]) -> FlowStep:
    begun: datetime | None = None
    if record.state is not JobState.WAITING:
        ends = [one.finished_at for one in before if one.finished_at is not None]
        begun = max([record.enqueued_at, record.run_at, *ends])
        if record.finished_at is not None and (begun > record.finished_at or record.waits):
            begun = None
    return FlowStep(
        id=record.id,
        task=record.task,
        queue=record.queue,
        state=record.state,
        attempt=record.attempt,
        max_attempts=record.max_attempts,
        waits=record.waits,
        enqueued_at=record.enqueued_at,
        begun_at=begun,
        finished_at=record.finished_at if record.state in TERMINAL else None,
        reason=record.reason,
        error=record.errors[-1] if record.errors else None,
        after=tuple(one.id for one in before),
    )
