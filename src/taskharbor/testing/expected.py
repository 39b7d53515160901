"""What a test expects of a call, and what keeps another call from being it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TypeVar, cast

import msgspec
from msgspec import UNSET, UnsetType

from taskharbor.call import Call, Options, Signature
from taskharbor.errors import OptionError
from taskharbor.job import JobRecord, NewJob
from taskharbor.retry import RetryNumbers
from taskharbor.task import Task, TaskDefinition
from taskharbor.task.fidelity import differ
from taskharbor.testing.calls import EnqueuedCall, codec_of, told_arguments, told_value
from taskharbor.testing.inline import InlineHarbor

R = TypeVar("R")


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Options that a call was to be enqueued with; None for any."""

    queue: str | None = None
    priority: int | None = None
    run_at: datetime | None = None
    run_in: timedelta | None = None
    key: str | None = None
    meta: Mapping[str, str] | None = None
    """These at least."""
    timeout: timedelta | UnsetType | None = UNSET
    """UNSET for any, since None lifts it."""
    retry: RetryNumbers | None = None
    key_ttl: timedelta | None = None
    on_conflict: str | None = None

    def misfits(self, call: EnqueuedCall, job: NewJob | None) -> Iterator[str]:
        """Yield what is otherwise, in words; `job` as it was handed in."""
        for name, wanted, found in (
            ("queue", self.queue, call.queue),
            ("priority", self.priority, call.priority),
            ("run_at", self.run_at, call.run_at),
            ("run_in", self.run_in, call.run_at - call.enqueued_at),
            ("key", self.key, call.key),
        ):
            if wanted is not None and wanted != found:
                yield f"{name} is {_told(found)}, not {_told(wanted)}"
        for name, text in (self.meta or {}).items():
            if call.meta.get(name) != text:
                yield f"meta[{name!r}] is {call.meta.get(name)!r}, not {text!r}"
        if job is not None:
            yield from self._misfits_of(job)

    def _misfits_of(self, job: NewJob) -> Iterator[str]:
        if self.timeout is not UNSET and self.timeout != job.timeout:
            yield f"timeout is {_told(job.timeout)}, not {_told(self.timeout)}"
        for name, wanted, found in (
            ("key_ttl", self.key_ttl, job.key_ttl),
            ("on_conflict", self.on_conflict, job.on_conflict.value),
        ):
            if wanted is not None and wanted != found:
                yield f"{name} is {_told(found)}, not {_told(wanted)}"
        if self.retry is not None:
            for name, number in msgspec.structs.asdict(self.retry).items():
                if number != getattr(job.retry, name):
                    yield f"{name} of retry is {_told(getattr(job.retry, name))}, not {_told(number)}"

    def __str__(self) -> str:
        """Return it as keywords."""
        fields = msgspec.structs.asdict(self).items()
        given = [(name, value) for name, value in fields if value is not None and value is not UNSET]
        if self.timeout is None:
            given.append(("timeout", None))
        return ", ".join(f"{name}={_told(value)}" for name, value in given)


class Expected:
    """One expectation: a task, perhaps with arguments, options, and a condition."""

    def __init__(
        self,
        harbor: InlineHarbor,
        what: Signature[R] | Task[..., R],
        where: Callable[[EnqueuedCall[R]], bool] | None,
        wanted: Wanted,
    ) -> None:
        """Read what a test wrote.

        Raises:
            OptionError: neither a call nor a task.
            PayloadError: the arguments expected do not fit the signature, so no job can have them.
        """
        self._harbor = harbor
        self._arguments: Mapping[str, object] | None = None
        self._payload: bytes | None = None
        self._wanted = [wanted]
        # A job of the task is a call of its return type.
        self._where = cast("Callable[[EnqueuedCall], bool] | None", where)
        if isinstance(what, Task):
            self.definition = what.definition
            return
        call = _single_call(what)
        if not isinstance(call.callee, TaskDefinition):
            raise OptionError(f"{what!r}: expected a call of a task of TaskHarbor's own")
        self.definition = call.callee
        codec = codec_of(harbor, self.definition)
        job = self.definition.new_job(call.arguments, _plain(call.options), codec, check=True)
        self._payload = job.payload
        self._arguments = self.definition.read_arguments(job.payload, codec)
        self._wanted.append(_wanted_of(call.options, job))

    def misfits(self, record: JobRecord, call: EnqueuedCall) -> list[str]:
        """Return in words why a call is not the one expected; empty if it is."""
        if not self.definition.answers_to(call.task):
            return [f"it is another task than {self.definition.name!r}"]
        found = [*self._argument_misfits(record, call)]
        for wanted in self._wanted:
            found += wanted.misfits(call, self._harbor.as_enqueued(record.id))
        if not found and self._where is not None and not self._where(call):
            found.append("`where` returned False")
        return found

    def _argument_misfits(self, record: JobRecord, call: EnqueuedCall) -> Iterator[str]:
        if self._arguments is None or record.payload == self._payload:
            return
        for name, value in self._arguments.items():
            if name not in call.arguments:
                yield f"{name} is not there yet"
            elif differ(call.arguments[name], value) or _bools(call.arguments[name]) != _bools(value):
                yield f"{name} is {told_value(call.arguments[name])}, not {told_value(value)}"
        for name in call.arguments.keys() - self._arguments.keys():
            yield f"{name} is {told_value(call.arguments[name])}, and was not expected"

    def __str__(self) -> str:
        """Return it as one would write it."""
        arguments = "..." if self._arguments is None else told_arguments(self._arguments)
        options = ", ".join(filter(None, map(str, self._wanted)))
        where = ", where ..." if self._where is not None else ""
        return f"{self.definition.name}({arguments}){f' with {options}' if options else ''}{where}"


def _single_call(what: object) -> Call:
    if not isinstance(what, Signature):
        raise OptionError(
            f"{what!r}: expected a call, such as send_email.s(to='a@b.c'), or a task alone for any of its calls"
        )
    node = what.node
    if not isinstance(node, Call):
        raise OptionError(
            f"{what!r} is a flow of several calls; expect each step by its own call, or by its task"
        )
    return node


def _plain(options: Options) -> Options:
    """Return options for encoding alone: with a key there would be more to it."""
    return msgspec.structs.replace(options, key=UNSET, key_ttl=UNSET, on_conflict=UNSET)


def _wanted_of(options: Options, job: NewJob) -> Wanted:
    """Return what options say; `job` is made with them."""
    return Wanted(
        queue=None if options.queue is UNSET else options.queue,
        priority=None if options.priority is UNSET else options.priority,
        run_at=None if options.run_at is UNSET else options.run_at,
        run_in=None if options.run_in is UNSET else options.run_in,
        key=None if options.key is UNSET else options.key,
        meta=None if options.meta is UNSET else options.meta,
        timeout=options.timeout,
        retry=None if options.retry is UNSET else job.retry,
        key_ttl=None if options.key_ttl is UNSET else options.key_ttl,
        on_conflict=None if options.on_conflict is UNSET else options.on_conflict,
    )


def _bools(value: object) -> object:
    """Return where in a value there are booleans, which are equal to numbers."""
    if isinstance(value, dict):
        return {key: _bools(one) for key, one in cast("dict[object, object]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_bools(one) for one in cast("Sequence[object]", value)]
    if isinstance(value, msgspec.Struct):
        return [_bools(getattr(value, name)) for name in value.__struct_fields__]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [_bools(getattr(value, field.name)) for field in dataclasses.fields(value)]
    return isinstance(value, bool)


def _told(value: object) -> str:
    return str(value) if isinstance(value, (datetime, timedelta)) else told_value(value)
