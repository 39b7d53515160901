"""Between the words of the contract and what the tables hold.

Instants leave the server as whole microseconds since 1970, and enter it as text in ISO form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from operator import attrgetter
from typing import NamedTuple, TypeAlias
from uuid import UUID

import msgspec

from taskharbor.clock import EPOCH, duration_micros, from_micros
from taskharbor.drivers.postgres.routine import Row
from taskharbor.job import Delivery, NewJob
from taskharbor.retry import RetryNumbers
from taskharbor.settlement import SOLO_CRASHES
from taskharbor.step import DeliveredStep

SOLO, FRONT, NORMAL, WAITING = range(4)
"""Lanes of one priority, in order. In the last stand steps that wait for others: no reserve looks there."""
LINES = 4
"""The lanes of jobs in lines are numbered from here on. A step that waits stands with all others."""
DEAD, LONG = -1, 0
"""The history's partitions that hold no single day's expiries: dead letters, and what is retained for long."""
BATCH_BYTES = 16 << 20
"""Payloads or results in one statement, at most; a larger one goes alone."""
_CACHED = 1000

_encoder = msgspec.json.Encoder()

# What a transaction writes becomes visible when it commits, and reserve must be able to tell from its start how early
# the jobs in it may be due (`marks`). So it has its number before it reads the clock. $1 is the tests' own present.
CLOCK = """clock AS MATERIALIZED (SELECT CASE WHEN pg_current_xact_id() IS NOT NULL
    THEN coalesce($1::text::timestamptz, clock_timestamp()) END AS now)"""


def lane_of(lane: str, part: str) -> str:
    """Return SQL for the number of a lane, given that of a plain job and the partition."""
    return f"{lane} + CASE WHEN {part} IS NULL THEN 0 ELSE {LINES} END"


def instant(moment: datetime | None) -> str | None:
    """Return a moment as a parameter."""
    return None if moment is None else moment.isoformat()


def micros_of(column: str) -> str:
    """Return SQL for a timestamp as whole microseconds, exact to the last one: a float of seconds is not, far ahead."""
    return (
        f"(date_part('epoch', date_trunc('minute', {column}))::bigint * 1000000::bigint"
        f" + date_part('microseconds', {column})::bigint)"
    )


def json_instant(column: str) -> str:
    """Return SQL for a timestamp as JSON has it, in UTC whatever the session's time zone is."""
    return f"""to_jsonb(to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))"""


def interval_of(micros: str) -> str:
    """Return SQL for so many microseconds as an interval."""
    return f"({micros})::float8 * interval '1 microsecond'"


def json_text(value: object) -> str:
    """Return a value as JSON."""
    return _encoder.encode(value).decode()


def real_ids(ids: Iterable[str]) -> list[str]:
    """Return those of the ids that the server can hold, in order of id, each once."""
    return sorted({job_id for job_id in ids if _is_id(job_id)})


def _is_id(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


# --- what jobs of one task have in common


class Options(msgspec.Struct, frozen=True):
    """What jobs of one task have in common, and only Python looks at: one column, read once for each text."""

    codec: str
    fingerprint: int
    retry: RetryNumbers
    key_ttl: timedelta
    keep_result: bool


_Shared: TypeAlias = tuple[str, int, RetryNumbers, timedelta, bool]
_shared: Callable[[NewJob], _Shared] = attrgetter(*Options.__struct_fields__)
"""Return those fields of a job that make its `Options`."""


_NOTHING = Options("", 0, RetryNumbers(), timedelta(0), keep_result=False)


class OptionsBook:
    """Options by their text, and their text by what they say."""

    def __init__(self) -> None:
        self._known: dict[str, Options] = {}
        self._texts: dict[Options, str] = {}
        self._decode = msgspec.json.Decoder(Options).decode

    def text(self, job: NewJob) -> str:
        """Return a job's options as they are stored."""
        options = Options(*_shared(job))
        text = self._texts.get(options)
        if text is None:
            if len(self._texts) >= _CACHED:
                self._texts.clear()
            text = self._texts[options] = json_text(options)
        return text

    def read(self, text: str) -> Options:
        """Return what a stored text says."""
        options = self._known.get(text)
        if options is None:
            if len(self._known) >= _CACHED:
                self._known.clear()
            options = self._known[text] = self._decode(text)
        return options


# --- reserved jobs

# Three instants that are nearly always one: what is the same as `run_at` is left out.
TAKEN_COLUMNS = f"""j.id::text AS id, j.task, j.queue, j.payload, j.options, j.attempt, j.deliveries, j.priority,
    {micros_of("j.run_at")} AS run_at,
    CASE WHEN j.enqueued_at <> j.run_at THEN {micros_of("j.enqueued_at")} END AS enqueued_at, j.timeout, j.key,
    j.meta::text AS meta, j.guarded, j.crashes, j.cancel IS NOT NULL AS cancelled, j.lane,
    CASE WHEN j.due <> j.run_at THEN {micros_of("j.due")} END AS due,
    CASE WHEN j.waits IS NOT NULL THEN json_build_array(j.flow, j.holes)::text END AS step"""
TAKEN_NAMES = (
    "id, task, queue, payload, options, attempt, deliveries, priority, run_at, enqueued_at, timeout, key, meta, "
    "guarded, crashes, cancelled, lane, due, step"
)


class Taken(NamedTuple):
    """Where in a row each of `TAKEN_NAMES` stands."""

    id: int = 0
    queue: int = 2
    priority: int = 7
    run_at: int = 8
    guarded: int = 13
    lane: int = 16
    due: int = 17
    step: int = 18


TAKEN = Taken()

_meta = msgspec.json.Decoder(dict[str, str])


def deliveries(
    book: OptionsBook, token: int, rows: Sequence[Row], steps: Mapping[str, DeliveredStep]
) -> list[Delivery]:
    """Return reserved jobs from rows that begin with `TAKEN_COLUMNS`, in their order; `steps` by the jobs' ids."""
    made: list[Delivery] = []
    last_text, shared = "", _NOTHING
    last, run_at = 0, EPOCH
    for row in rows:
        (
            job_id,
            task,
            queue,
            payload,
            options,
            attempt,
            reserved,
            priority,
            run_micros,
            enqueued_micros,
            timeout,
            key,
            meta,
            guarded,
            crashes,
            cancelled,
        ) = row[:16]
        if options != last_text:  # jobs of one batch have it in common, and the instant
            last_text, shared = options, book.read(options)
        if run_micros != last:
            last, run_at = run_micros, from_micros(run_micros)
        made.append(
            Delivery(
                job_id,
                token,
                task,
                queue,
                payload,
                shared.codec,
                shared.fingerprint,
                attempt + 1,
                reserved,  # the fence
                shared.retry,
                None if timeout is None else timedelta(microseconds=timeout),
                priority,
                run_at,
                run_at if enqueued_micros is None else from_micros(enqueued_micros),
                key,
                {} if meta is None else _meta.decode(meta),
                shared.keep_result,
                guarded,
                crashes >= SOLO_CRASHES,
                cancelled,
                steps.get(job_id) if steps else None,
            )
        )
    return made


def read_meta(text: str | None) -> dict[str, str]:
    """Return a job's metadata."""
    return {} if text is None else _meta.decode(text)


def as_duration(value: int) -> timedelta:
    """Return microseconds as a timedelta, never negative."""
    return timedelta(microseconds=max(value, 0))


def micros_text(duration: timedelta) -> str:
    """Return a duration as a parameter: whole microseconds."""
    return str(duration_micros(duration))
