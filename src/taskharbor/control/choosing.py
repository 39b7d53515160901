"""Which jobs are meant: the filters that `harbor.jobs.find` and `harbor.jobs.count` take, checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TypedDict, cast

from typing_extensions import Unpack

from taskharbor.call.options import check_limit, check_sought
from taskharbor.control.asking import name_set
from taskharbor.driver import JobCount, JobFind
from taskharbor.errors import OptionError, nearest
from taskharbor.job import JobState


class JobFilters(TypedDict, total=False):
    """Which jobs. What is left out means any; several narrow it down together."""

    queues: Iterable[str]
    tasks: Iterable[str]
    error: str
    """Only jobs whose last error is of this type: its qualified name, or the last part of it, as `ValueError`."""
    text: str
    """Only jobs with this text in their reason or in their last error's message; case does not matter (of A to Z)."""
    enqueued_since: datetime | None
    """Only those enqueued at this instant, which is aware, or later; the three below likewise."""
    enqueued_before: datetime | None
    finished_since: datetime | None
    """Only jobs that have ended, dead letters among them."""
    finished_before: datetime | None


_NAMES = tuple(JobFilters.__annotations__)
_TEXTS = ("error", "text")
_TIMES = ("enqueued_since", "enqueued_before", "finished_since", "finished_before")


def find_request(
    states: Iterable[JobState],
    key: str | None,
    flow: str,
    after: str,
    limit: int,
    *,
    newest_first: bool,
    payloads: bool = True,
    **filters: Unpack[JobFilters],
) -> JobFind:
    """Return the question as the contract has it.

    Raises:
        OptionError: a filter that does not exist, or a value that cannot be.
    """
    check_limit(limit)
    for name, text in (("key", key or ""), ("flow", flow), ("after", after)):
        check_sought(text, name)
    _check(filters)
    return JobFind(
        states=state_set(states),
        key=key,
        flow=flow,
        after=after,
        limit=limit,
        newest_first=newest_first,
        payloads=payloads,
        queues=name_set(filters.get("queues", ()), "queues"),
        tasks=name_set(filters.get("tasks", ()), "tasks"),
        error=filters.get("error", ""),
        text=filters.get("text", ""),
        enqueued_since=_utc(filters.get("enqueued_since")),
        enqueued_before=_utc(filters.get("enqueued_before")),
        finished_since=_utc(filters.get("finished_since")),
        finished_before=_utc(filters.get("finished_before")),
    )


def state_set(states: Iterable[JobState]) -> frozenset[JobState]:
    """Return states as a set; raises `OptionError` for what is none."""
    names = name_set(states, "states")
    try:
        return frozenset(JobState(state) for state in names)
    except ValueError as error:
        raise OptionError(f"states: {error}; expected some of {', '.join(JobState)}") from error


def count_request(**filters: Unpack[JobFilters]) -> JobCount:
    """Return the question as the contract has it; raises `OptionError` as `find_request`."""
    _check(filters)
    return JobCount(
        queues=name_set(filters.get("queues", ()), "queues"),
        tasks=name_set(filters.get("tasks", ()), "tasks"),
        error=filters.get("error", ""),
        text=filters.get("text", ""),
        enqueued_since=_utc(filters.get("enqueued_since")),
        enqueued_before=_utc(filters.get("enqueued_before")),
        finished_since=_utc(filters.get("finished_since")),
        finished_before=_utc(filters.get("finished_before")),
    )


def _check(filters: JobFilters) -> None:
    given = cast("Mapping[str, object]", filters)
    for name, value in given.items():
        if name not in _NAMES:
            raise OptionError(
                f"there is no filter {name!r}{nearest(name, _NAMES)}; there are {', '.join(_NAMES)}"
            )
        if name in _TEXTS:
            check_sought(value, name)
        if (
            name in _TIMES
            and value is not None
            and not (isinstance(value, datetime) and value.tzinfo is not None)
        ):
            raise OptionError(
                f"{name}={value!r}: expected an instant with a time zone, as datetime.now(UTC) - timedelta(hours=2)"
            )


def _utc(at: datetime | None) -> datetime | None:
    return None if at is None else at.astimezone(UTC)
