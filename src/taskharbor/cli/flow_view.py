"""One flow as it is shown: what is known of the whole, and its steps drawn as a graph, or listed."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import TypeAlias

import msgspec

from taskharbor.call import FlowGraph, FlowStep
from taskharbor.call.picture import FlowPart
from taskharbor.cli.lanes import Row, in_plain, rows
from taskharbor.cli.output import line, plain, told_time
from taskharbor.cli.tables import styled, table, width
from taskharbor.cli.values import told_length
from taskharbor.flow import FlowRecord
from taskharbor.job import JobState

MANY = 20
"""So many dead steps of those that are drawn as one are told one by one; the others are counted."""
_GAP = "  "

_Cell: TypeAlias = Sequence[tuple[str, str]]
"""Texts, each with the state that it looks like."""


def for_programs(flow: FlowRecord, graph: FlowGraph) -> dict[str, object]:
    """Return a flow for a line of JSON: `steps` counts them by state, `graph` tells each of them."""
    return {**msgspec.structs.asdict(flow), "graph": graph.steps}


def show_head(flow: FlowRecord) -> None:
    """Print what is known of a flow as a whole."""
    _fact("flow", (flow.id, ""))
    _fact("name", (flow.name, ""))
    _fact("state", (flow.state, flow.state), (f" ({flow.reason})" if flow.reason else "", ""))
    for name, value in sorted(flow.meta.items()):
        _fact("meta", (f"{name} = {value}", ""))
    _fact("steps", *_told_counts([(state, flow.steps[state]) for state in JobState if state in flow.steps]))
    _fact("enqueued", (told_time(flow.enqueued_at), ""))
    _fact("finished", (told_time(flow.finished_at), ""))
    _fact("took", (_length(flow.enqueued_at, flow.finished_at), ""))


def show_steps(graph: FlowGraph, stalled: Callable[[FlowStep], str]) -> None:
    """Print every step of a flow in a table, each after those that it waits for; `stalled` says why one is ready."""
    now = datetime.now(UTC)
    table(
        ("id", "state", "task", "attempts", "took", "why", "last error"),
        [
            (
                step.id,
                step.state.value,
                step.task,
                f"{step.attempt}/{step.max_attempts}",
                _took([step], now),
                _why(step) or stalled(step),
                _told_error(step) if step.state in _TELLING else "",
            )
            for step in graph.steps
        ],
    )


def show_graph(graph: FlowGraph, stalled: Callable[[FlowStep], str]) -> None:
    """Print the graph of a flow: a line a step, or for many that are alike, beside the lines that join them.

    `stalled` says of a step why it is ready for long.
    """
    now = datetime.now(UTC)
    parts = graph.parts()
    drawn = list(rows([part.after for part in parts], lambda number: _mark(parts[number])))
    lines = max((len(row.lines) for row in drawn), default=0)
    cells = [_cells(part, now) for part in parts]
    columns = [max(_width(row[place]) for row in cells) for place in range(len(cells[0]))] if cells else []
    room = width()
    if room is not None and lines + sum(columns) + len(_GAP) * len(columns) > room:
        columns = columns[:-1]  # ids: who needs them finds them elsewhere
    drawing = str if _has_boxes() else in_plain
    for row in drawn:
        if row.node is None:
            line(drawing(row.lines))
            continue
        part = parts[row.node]
        styled(_row(row, part, drawing(row.lines).ljust(lines), cells[row.node], columns))
        for beneath in _beneath(part, graph.id, stalled):
            styled([(f"{drawing(row.beneath).ljust(lines)}{_GAP}  ", ""), *beneath])


def _fact(name: str, *parts: tuple[str, str]) -> None:
    if any(text for text, _ in parts):
        styled([(f"{name:<12}", ""), *parts])


def _row(
    row: Row, part: FlowPart, lines: str, cells: Sequence[_Cell], columns: Sequence[int]
) -> Iterator[tuple[str, str]]:
    place = row.lines.index(_mark(part))
    yield lines[:place], ""
    yield lines[place], part.state
    yield lines[place + 1 :], ""
    for cell, room in zip(cells, columns, strict=False):
        yield _GAP, ""
        yield from cell
        yield " " * (room - _width(cell)), ""


def _cells(part: FlowPart, now: datetime) -> Sequence[_Cell]:
    attempts = sum(step.attempt for step in part.steps)
    one = part.steps[0] if len(part.steps) == 1 else None
    waits = f" for {one.waits:,}" if one is not None and one.state is JobState.WAITING else ""
    return (
        [(part.title, "")],
        [(part.state, part.state), (waits, "")] if one is not None else _told_counts(part.counts.items()),
        [(f"{attempts:,} attempt{'' if attempts == 1 else 's'}" if attempts else "", "")],
        [(_took(part.steps, now), "")],
        [(one.id if one is not None else "", "")],
    )


def _beneath(part: FlowPart, flow_id: str, stalled: Callable[[FlowStep], str]) -> Iterator[_Cell]:
    """Yield what is told beneath a step: why it died, or has to be tried again, or does not run."""
    if len(part.steps) == 1:
        (step,) = part.steps
        for told in (_why(step) or stalled(step), _told_error(step) if step.state in _TELLING else ""):
            if told:
                yield [(told, step.state)]
        return
    dead = [step for step in part.steps if step.state is JobState.DEAD]
    for step in islice(dead, MANY):
        yield [(f"{step.id}{_GAP}dead", "dead"), (f"{_GAP}{_told_error(step) or step.reason}", "")]
    if len(dead) > MANY:
        more = f"taskharbor jobs list --flow {flow_id} --state dead --limit {len(dead)}"
        yield [(f"{len(dead) - MANY:,} more dead: {more}", "dead")]
    for why, count in Counter(why for step in part.steps if (why := stalled(step))).most_common():
        yield [(f"{count:,} ready", "ready"), (f"{_GAP}{why}", "")]


_TELLING = frozenset({JobState.DEAD, JobState.RETRYING})
"""States in which the last error matters."""


def _why(step: FlowStep) -> str:
    return step.reason if step.state is not JobState.WAITING else ""


def _told_error(step: FlowStep) -> str:
    return f"{step.error.type}: {step.error.message}" if step.error is not None else ""


def _told_counts(counts: Iterable[tuple[JobState, int]]) -> _Cell:
    told: list[tuple[str, str]] = []
    for state, count in counts:
        told += [(", " if told else "", ""), (f"{count:,} {state}", state)]
    return told


def _mark(part: FlowPart) -> str:
    return "○" if part.state in (JobState.WAITING, JobState.SCHEDULED, JobState.READY) else "●"


def _took(steps: Sequence[FlowStep], now: datetime) -> str:
    """Return how long steps took, from when the first could run to when the last had ended; or have taken so far."""
    some = [step for step in steps if step.attempt or step.state is not JobState.CANCELLED]  # those never ran
    begun = min((step.begun_at for step in some if step.begun_at is not None), default=None)
    if begun is None or begun > now:
        return ""
    finished = [step.finished_at for step in some if step.finished_at is not None]
    return _length(begun, max(finished) if len(finished) == len(some) else None, now)


def _length(begin: datetime, end: datetime | None, now: datetime | None = None) -> str:
    if end is not None:
        return told_length(end - begin)
    return f"{told_length((now or datetime.now(UTC)) - begin)} so far"


def _width(cell: _Cell) -> int:
    return sum(len(plain(text)) for text, _ in cell)


def _has_boxes() -> bool:
    """Return whether lines and corners can be printed."""
    try:
        "●○│─├┬┴┼╮╯".encode(sys.stdout.encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
