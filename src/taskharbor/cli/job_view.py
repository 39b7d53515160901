"""One job as it is shown: its arguments and result as JSON where they can be read, everything else as it is stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from taskharbor.call.parts import PARTS
from taskharbor.cli.output import json_text, told_time
from taskharbor.cli.readable import compact, together, unreadable
from taskharbor.codec import Codec, found_codec
from taskharbor.errors import PayloadError
from taskharbor.harbor import Harbor
from taskharbor.job import JobRecord
from taskharbor.report import LogLine, Progress
from taskharbor.step import DeliveredStep


def for_programs(
    harbor: Harbor, record: JobRecord, inputs: Mapping[str, object] | None = None
) -> dict[str, object]:
    """Return a job for a line of JSON, with `inputs`, which tell what earlier steps gave it.

    `arguments` and `result` are there where they can be read; else `payload` and `result_payload`, in base64.
    """
    told, payload, result = bare_for_programs(record), record.payload, record.result
    arguments = _arguments(harbor, record)
    told.update({"payload": payload} if arguments is None else {"arguments": arguments})
    told.update(inputs or {})
    if result is not None:
        read = _result(harbor, record)
        told.update({"result_payload": result} if read is None else {"result": read})
    return told


def bare_for_programs(record: JobRecord) -> dict[str, object]:
    """Return a job for a line of JSON, without its arguments and its result."""
    told = msgspec.structs.asdict(record)
    for name in ("step", "payload", "result"):
        del told[name]
    told["edges"] = [msgspec.structs.asdict(edge) for edge in record.edges]
    # As `schema dump` has it: a number that large is rounded by jq.
    told["fingerprint"] = f"{record.fingerprint:016x}"
    return told


def for_people(
    harbor: Harbor, record: JobRecord, place: Iterable[str] = (), inputs: Iterable[str] = ()
) -> Iterator[str]:
    """Yield the lines that tell all of a job.

    Those in `place` tell its place in a flow, those in `inputs` what earlier steps gave it.
    """
    for name, value in _facts(record):
        if value:
            yield f"{name:<12}{value}"
    yield from place
    for name, value in sorted(record.meta.items()):
        yield f"{'meta':<12}{name} = {value}"
    yield from _told_arguments(harbor, record)
    yield from inputs
    if record.result is not None:
        read = _result(harbor, record)
        yield f"{'result':<12}" + (
            bytes(read).decode() if read is not None else unreadable(record.result, record.result_codec)
        )
    for one in record.log:
        yield f"{'log':<12}{told_time(one.at)}  {told_attempt(one, record)}{one.text}"
    for error in record.errors:
        by = f", {error.worker}" if error.worker else ""
        yield f"{'error':<12}attempt {error.attempt}, {told_time(error.at)}{by}"
        yield from _indented(error.traceback or f"{error.type}: {error.message}")
    for operation in record.operations:
        by = f" by {operation.by}" if operation.by else ""
        why = f": {operation.reason}" if operation.reason else ""
        yield f"{'operation':<12}{told_time(operation.at)}  {operation.verb}{by}{why}"


def _facts(record: JobRecord) -> Iterator[tuple[str, str]]:
    yield "job", record.id
    yield "task", record.task
    yield "state", f"{record.state} ({record.reason})" if record.reason else record.state
    yield "queue", record.queue
    yield "priority", str(record.priority)
    yield "attempts", f"{record.attempt} of {record.max_attempts}"
    yield "deliveries", str(record.deliveries)
    yield "crashes", f"{record.crashes}" if record.crashes else ""
    yield "key", record.key or ""
    yield "line", record.partition or ""
    yield "enqueued", told_time(record.enqueued_at)
    yield "run at", told_time(record.run_at)
    yield "due", told_time(record.due_at)
    yield "finished", told_time(record.finished_at)
    yield "worker", record.worker
    yield "lease until", told_time(record.lease_expires_at)
    yield "started", "yes" if record.started else ""
    yield "cancel", "asked for" if record.cancel_requested else ""
    yield "refused by", ", ".join(record.refused_by)
    yield "progress", "" if record.progress is None else told_progress(record.progress)


def told_progress(progress: Progress) -> str:
    """Return how far a job is: `30 of 120 (25%): rows`."""
    total = "" if progress.total is None else f" of {progress.total:,.12g}"
    part = "" if progress.fraction is None else f" ({progress.fraction:.0%})"
    note = f": {progress.note}" if progress.note else ""
    return f"{progress.done:,.12g}{total}{part}{note}"


def told_attempt(one: LogLine, record: JobRecord) -> str:
    """Return by which attempt a line was written, where there were several."""
    return f"[{one.attempt}] " if record.attempt > 1 or one.attempt > 1 else ""


def _told_arguments(harbor: Harbor, record: JobRecord) -> Iterator[str]:
    arguments = _arguments(harbor, record)
    if arguments is None:
        unread = unreadable(record.payload, record.codec) if record.payload else "none"
        yield f"{'payload':<12}{unread}"
        return
    try:
        named = msgspec.json.decode(arguments, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:  # JSON, and no object: written by nobody we know
        named = {}
    if not named and not (record.step and bytes(arguments) == b"{}"):
        yield f"{'arguments':<12}{'none' if bytes(arguments) == b'{}' else bytes(arguments).decode()}"
    for name, value in named.items():
        yield f"{'argument':<12}{name} = {bytes(value).decode()}"


def _indented(text: str) -> Iterator[str]:
    for one in text.rstrip().splitlines():
        yield f"    {one}"


def _arguments(harbor: Harbor, record: JobRecord) -> msgspec.Raw | None:
    if record.codec == "json":
        return compact(record.payload)
    definition = harbor.registry.find(record.task)
    if definition is None:
        return None
    try:
        return msgspec.Raw(json_text(_given(harbor, record)))
    except (PayloadError, TypeError, NotImplementedError):  # of another build, or of types without JSON
        return None


def _given(harbor: Harbor, record: JobRecord) -> dict[str, object]:
    """Return the arguments that a job was called with, without what earlier steps gave it."""
    step = record.step
    if step is None:
        return harbor.arguments_of(record)
    bare = msgspec.structs.replace(record, step=DeliveredStep(step.flow, step.holes, ()))
    names = {hole.parameter for hole in step.holes}
    return {name: value for name, value in harbor.arguments_of(bare).items() if name not in names}


def _result(harbor: Harbor, record: JobRecord) -> msgspec.Raw | None:
    if record.result is None:
        return None
    if record.result_codec == "json":
        return compact(record.result)
    if record.result_codec == PARTS:
        return together(record.result)
    definition = harbor.registry.find(record.task)
    codec = _codec(harbor, record)
    if definition is None or codec is None:
        return None
    try:
        return msgspec.Raw(json_text(definition.read_result(record.result, codec)))
    except (PayloadError, TypeError, NotImplementedError):
        return None


def _codec(harbor: Harbor, record: JobRecord) -> Codec | None:
    definition = harbor.registry.find(record.task)
    return found_codec(record.result_codec, None if definition is None else definition.codec, harbor.codecs)
