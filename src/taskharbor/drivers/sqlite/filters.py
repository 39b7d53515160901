"""Filters of jobs as SQL: which rows of which table, and by which index they are found.

No payload is read for a row that does not match: those stand before the errors in a row, and large ones fill pages of
their own, which SQLite walks to reach what is behind. Dead letters are found by an index that holds all that a filter
asks; of the others an error or a reason can be said of few, which have an index of their own.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from taskharbor.clock import micros
from taskharbor.driver import JobFilter
from taskharbor.drivers.sqlite.routine import Cell
from taskharbor.drivers.sqlite.rows import json_text
from taskharbor.drivers.sqlite.states import LIST


class Source(msgspec.Struct, frozen=True):
    """A table of jobs, and where in it stands what is filtered by."""

    table: str
    reason: str
    error: str
    message: str
    index: str
    telling: str = ""
    """What the index holds rows of, as its own condition says; "" for all."""
    ended: bool = True


_LAST = "errors ->> '$[#-1].{}'"

LIVE = Source(
    table="taskharbor_job",
    reason="stray_reason",
    error=_LAST.format("type"),
    message=_LAST.format("message"),
    index="taskharbor_job_look",
    telling="(errors IS NOT NULL OR stray_reason IS NOT NULL)",
    ended=False,
)
HISTORY = Source(
    table="taskharbor_history",
    reason="reason",
    error=_LAST.format("type"),
    message=_LAST.format("message"),
    index="taskharbor_history_look",
    telling="(errors IS NOT NULL OR reason IS NOT NULL)",
)
DEAD = Source(
    table="taskharbor_dead",
    reason="reason",
    error="error",
    message="message",
    index="taskharbor_dead_look",
)


def may_match(source: Source, wanted: JobFilter) -> bool:
    """Return whether a table can hold anything that is asked for: live jobs have not finished."""
    return source.ended or (wanted.finished_since is None and wanted.finished_before is None)


def index_for(source: Source, wanted: JobFilter) -> str:
    """Return what follows the table's name, to have it read by the index that knows of errors and reasons."""
    return f" INDEXED BY {source.index}" if wanted.error or wanted.text else ""


def conditions(source: Source, wanted: JobFilter) -> list[str]:
    """Return what a row of a table has to meet, by the parameters that `values` gives."""
    met: list[str] = []
    if wanted.queues:
        met.append(f"queue IN {LIST.format('queues')}")
    if wanted.tasks:
        met.append(f"task IN {LIST.format('tasks')}")
    if wanted.enqueued_since is not None:
        met.append("enqueued_at >= :in_since")
    if wanted.enqueued_before is not None:
        met.append("enqueued_at < :in_before")
    if wanted.finished_since is not None:
        met.append("finished_at >= :out_since")
    if wanted.finished_before is not None:
        met.append("finished_at < :out_before")
    if source.telling and (wanted.error or wanted.text):
        met.append(source.telling)
    if wanted.error:
        met.append(_of_type(source.error, wanted.error))
    if wanted.text:
        met.append(f"({_says(source.reason)} OR {_says(source.message)})")
    return met


def _of_type(column: str, error: str) -> str:
    whole = f"{column} = :error"
    if "." in error:  # no last part of anything
        return whole
    return f"({whole} OR substr({column}, -length(:error) - 1) = '.' || :error)"


def _says(column: str) -> str:
    # SQLite's lower() is for A to Z alone, as the contract has it. LIKE would read % and _ as more than they are.
    return f"instr(lower({column}), lower(:text)) > 0"


def values(wanted: JobFilter) -> dict[str, Cell]:
    """Return the parameters of the conditions."""
    return {
        "queues": json_text(sorted(wanted.queues)),
        "tasks": json_text(sorted(wanted.tasks)),
        "in_since": _instant(wanted.enqueued_since),
        "in_before": _instant(wanted.enqueued_before),
        "out_since": _instant(wanted.finished_since),
        "out_before": _instant(wanted.finished_before),
        "error": wanted.error,
        "text": wanted.text,
    }


def _instant(moment: datetime | None) -> int | None:
    return None if moment is None else micros(moment)
