"""Schedules as they are shown: when they fire, what they call, what became of their ticks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import msgspec

from taskharbor.cli.output import json_text, told_time
from taskharbor.cli.readable import compact
from taskharbor.cli.values import told_age, told_duration
from taskharbor.codec import found_codec
from taskharbor.driver import WorkerInfo
from taskharbor.errors import PayloadError, UnknownTaskError
from taskharbor.harbor import Harbor
from taskharbor.schedule import Cron, Misfire, Schedule, ScheduleRecord
from taskharbor.scheduling import ticks

HEADERS = ("schedule", "task", "when", "next", "in", "last", "fired", "kept out", "state")
_NAMED = 3
"""Schedules that a remark names, at most."""


def row(record: ScheduleRecord, now: datetime) -> Sequence[str]:
    """Return what a table tells of a schedule."""
    following = upcoming(record, 1)
    return (
        record.name,
        record.job.task,
        told_when(record.schedule),
        told_time(following[0]) if following else "",
        _told_wait(following[0], now) if following else "",
        told_time(record.last_tick),
        f"{record.fired:,}",
        f"{record.kept_out:,}" if record.kept_out else "",
        told_state(record, now),
    )


def upcoming(record: ScheduleRecord, count: int) -> Sequence[datetime]:
    """Return the next ticks that a schedule has not dealt with; none while it is paused."""
    if record.paused_at is not None or record.ended:
        return []
    return list(islice(ticks(record.schedule, record.after), count))


def told_when(schedule: Schedule) -> str:
    """Return when a schedule fires, as one would write it."""
    trigger = schedule.trigger
    if isinstance(trigger, Cron):
        return trigger.expression if trigger.tz == "UTC" else f"{trigger.expression} ({trigger.tz})"
    start = "" if trigger.start is None else f" from {told_time(trigger.start)}"
    return f"every {told_duration(trigger.period)}{start}"


def told_state(record: ScheduleRecord, now: datetime) -> str:
    """Return whether a schedule fires, and if not why; "" if it does."""
    if record.paused_at is not None:
        by = f" by {record.paused_by}" if record.paused_by else ""
        why = f": {record.reason}" if record.reason else ""
        return f"paused {told_age(now - record.paused_at)} ago{by}{why}"
    if record.ended:
        return "ended"
    if record.waiting_tick is not None:
        return f"the tick of {told_time(record.waiting_tick)} waits for job {record.last_job}"
    return ""


def unserved(records: Sequence[ScheduleRecord], workers: Sequence[WorkerInfo]) -> Iterator[str]:
    """Yield a remark for each queue of these schedules that no live worker serves."""
    waiting = [record for record in records if record.paused_at is None and not record.ended]
    served = {queue for worker in workers for queue in worker.queues}
    for queue in sorted({record.job.queue for record in waiting} - served):
        names = [record.name for record in waiting if record.job.queue == queue]
        more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
        yield f"No live worker serves the queue {queue!r}: jobs of {', '.join(names[:_NAMED])}{more} wait there."


def for_programs(
    harbor: Harbor, record: ScheduleRecord, count: int, *, whole: bool = True
) -> dict[str, object]:
    """Return a schedule for a line of JSON, with its next ticks; `whole` with the arguments of its call."""
    told = msgspec.structs.asdict(record)
    told["upcoming"] = upcoming(record, count)
    if record.next_at is None:  # the store computes none: whoever leads writes it down
        told["next_at"] = next(iter(upcoming(record, 1)), None)
    del told["job"]
    told["call"] = _call(harbor, record) if whole else {"task": record.job.task, "queue": record.job.queue}
    return told


def for_people(harbor: Harbor, record: ScheduleRecord, count: int) -> Iterator[str]:
    """Yield the lines that tell all of a schedule."""
    now = datetime.now(UTC)
    for name, value in _facts(harbor, record, now):
        if value:
            yield f"{name:<12}{value}"
    for number, tick in enumerate(upcoming(record, count)):
        yield f"{'' if number else 'next':<12}{_told_tick(record, tick)}  {_told_wait(tick, now)}"


def _facts(harbor: Harbor, record: ScheduleRecord, now: datetime) -> Iterator[tuple[str, str]]:
    schedule, job = record.schedule, record.job
    limit = f", at most {schedule.catch_up:,}" if schedule.misfire is Misfire.CATCH_UP else ""
    yield "schedule", record.name
    yield "description", record.description
    yield "declared by", record.application or ""
    yield "state", told_state(record, now)
    yield "when", told_when(schedule)
    yield "until", told_time(schedule.until)
    yield "if late", f"{schedule.misfire.value}{limit}, beyond {told_duration(schedule.grace)}"
    yield "overlap", schedule.overlap.value
    yield "task", job.task
    yield "queue", f"{job.queue}, priority {job.priority}"
    yield "arguments", json_text(_arguments(harbor, record)).decode()
    for name, value in sorted(job.meta.items()):
        yield "meta", f"{name} = {value}"
    yield "created", told_time(record.created_at)
    yield "last tick", told_time(record.last_tick)
    yield "last job", record.last_job or ""
    counts = (
        (record.fired, "fired"),
        (record.missed, "missed"),
        (record.overlapped, "let go for overlap"),
        (record.kept_out, "kept out by a key"),
    )
    yield "ticks", ", ".join(f"{count:,} {what}" for count, what in counts)


def _call(harbor: Harbor, record: ScheduleRecord) -> dict[str, object]:
    job = record.job
    return {
        "task": job.task,
        "queue": job.queue,
        "priority": job.priority,
        "meta": job.meta,
        "arguments": _arguments(harbor, record),
    }


def _arguments(harbor: Harbor, record: ScheduleRecord) -> object:
    """Return the arguments of a schedule's call: as its task declares them where that is known, else as they stand."""
    job = record.job
    try:
        definition = harbor.task(job.task)
        codec = found_codec(job.codec, definition.codec, harbor.codecs)
        if codec is not None:
            return definition.read_arguments(job.payload, codec)
    except (UnknownTaskError, PayloadError):
        pass
    read = compact(job.payload) if job.codec == "json" else None
    return f"{len(job.payload)} bytes of {job.codec}" if read is None else read


def _told_tick(record: ScheduleRecord, tick: datetime) -> str:
    trigger = record.schedule.trigger
    if not isinstance(trigger, Cron) or trigger.tz == "UTC":
        return told_time(tick)
    return f"{told_time(tick)}  {tick.astimezone(ZoneInfo(trigger.tz)):%Y-%m-%d %H:%M:%S %Z}"


def _told_wait(tick: datetime, now: datetime) -> str:
    wait = tick - now
    return f"in {told_age(wait)}" if wait >= timedelta(0) else f"due for {told_age(-wait)}"
