"""A task without its static types: what the registry holds, calls are made of, and workers run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, cast

import msgspec
from msgspec import UNSET

from taskharbor.call import Options
from taskharbor.codec import Codec, CodecBook, CodecError, Encode, JsonCodec, decoder_of, encoder_of
from taskharbor.errors import PayloadError, PayloadTooLarge
from taskharbor.job import PAYLOAD_LIMIT, NewJob, new_job_id
from taskharbor.schedule import Schedule
from taskharbor.task import wire
from taskharbor.task.arguments import (
    Binder,
    arguments_type,
    check_types,
    fingerprint,
    json_schema,
    spread_for,
)
from taskharbor.task.binding import arguments_decoder
from taskharbor.task.digest import Digests
from taskharbor.task.fidelity import differ, first_change
from taskharbor.task.layer import Middleware
from taskharbor.task.limits import Limits
from taskharbor.task.options import NO_OPTIONS, TaskOptions, given_fields
from taskharbor.task.partial import Partial
from taskharbor.task.reading import Handler, Reading
from taskharbor.task.unique import Unique, Uniqueness
from taskharbor.task.upgrading import Upgrade

if TYPE_CHECKING:
    from taskharbor.task.keying import Keyed
    from taskharbor.task.partitioning import Partitioned

_replace = msgspec.structs.replace


class Coder(msgspec.Struct, frozen=True):
    """One task's encoder and decoders in one codec."""

    encode: Encode
    decode_arguments: Callable[[bytes], msgspec.Struct]
    decode_result: Callable[[bytes], object]
    blank: NewJob
    """What all jobs have in common that are called without options: copying it is quicker than filling one in."""


class TaskDefinition:
    """One declared function: its name, signature, options, and how its arguments and results become bytes."""

    def __init__(
        self,
        fn: Handler,
        reading: Reading,
        *,
        name: str,
        aliases: tuple[str, ...],
        options: TaskOptions,
        codec: Codec | None,
        middleware: tuple[Middleware, ...] = (),
        upgrade: Upgrade | None = None,
        schedules: tuple[Schedule, ...] = (),
        unique: Uniqueness | None = None,
        limits: Limits | None = None,
    ) -> None:
        """Check that the signature can be carried, and prepare what every call needs.

        Raises:
            TaskDefinitionError: a parameter or the result has no codec; or no key can be made as declared.
        """
        check_types(name, reading.parameters, reading.returns, codec or JsonCodec())
        if options.run == "process":
            wire.check_wire(name, reading)
        self.fn = fn
        self.module_spec: object = getattr(
            sys.modules.get(str(getattr(fn, "__module__", ""))), "__spec__", None
        )
        """Of the run of the module that declared it; tells a reload from a second task of the name."""
        self.reading = reading
        self.name = name
        self.aliases = aliases
        self.options = options
        self.codec = codec
        """The task's own codec; None leaves it to the harbor."""
        self.middleware = middleware
        """Layers around this task alone, within the harbor's."""
        self.surrounds_enqueue = any(layer.surrounds_enqueue for layer in middleware)
        """Some of them are around its enqueues."""
        self.upgrade = upgrade
        """What makes today's arguments of those that were stored under another signature; see `upgrading`."""
        self.schedules = schedules
        """When it is called by itself; declared by the worker of an application."""
        self.keyed = None if unique is None else self._keyed(unique)
        """How its calls come to keys by themselves; None if they do not."""
        self.partitioned = None if limits is None else self._partitioned(limits)
        """Its limits, and how its calls come to their partitions; None if it has neither limits nor turns."""
        self.arguments_type = arguments_type(name, reading.parameters)
        self.bind = Binder(name, self.arguments_type, reading.public)
        self.spread = spread_for(reading.parameters)
        self._met: Codec | None = None
        """The harbor's codec that the task's own was last looked at beside."""
        self._coders: dict[str, tuple[Codec, Coder]] = {}
        self._partials: dict[frozenset[str], Partial] = {}
        self._last_given: tuple[Options, dict[str, object]] = NO_OPTIONS, {}

    @property
    def keep_result(self) -> bool:
        """Return whether results are stored."""
        return self.options.keep_result

    def unique_by(self, key: Callable[..., object]) -> None:
        """Give it the key that a function over its parameters returns.

        Raises:
            TaskDefinitionError: it has one, or the function cannot make one.
        """
        self.keyed = (self.keyed or self._keyed(Unique())).by(key)

    def _keyed(self, unique: Uniqueness) -> Keyed:
        from taskharbor.task.keying import Keyed  # which most applications do without

        return Keyed(self.name, self.reading.parameters, unique, self.options.retain)

    def limit_by(self, key: Callable[..., object]) -> None:
        """Give it the partitions that a function over its parameters returns.

        Raises:
            TaskDefinitionError: it has them, or the function cannot make one.
        """
        self.partitioned = (self.partitioned or self._partitioned(Limits())).by(key)

    def _partitioned(self, limits: Limits) -> Partitioned:
        from taskharbor.task.partitioning import Partitioned  # which most applications do without

        return Partitioned(self.name, self.reading.parameters, limits)

    def answers_to(self, name: str) -> bool:
        """Return whether jobs stored under that name are its own."""
        return name == self.name or name in self.aliases

    @cached_property
    def fingerprint(self) -> int:
        """Return 63 bits that tell whether two builds agree on the payload."""
        return fingerprint(self.arguments_type)

    def schema(self) -> dict[str, object]:
        """Return the JSON Schema of the arguments."""
        return json_schema(self.arguments_type)

    def coder(self, codec: Codec) -> Coder:
        """Return this task's encoder and decoders in a codec, made once for each codec.

        Raises:
            TaskDefinitionError: the codec cannot carry one of its types.
        """
        known = self._coders.get(codec.name)
        if known is not None and known[0] is codec:
            return known[1]
        if codec is not self.codec and type(codec) is not JsonCodec:  # which was checked at declaration
            check_types(self.name, self.reading.parameters, self.reading.returns, codec)
        coder = Coder(
            encoder_of(codec),
            arguments_decoder(self.reading.parameters, self.arguments_type, codec),
            decoder_of(codec, cast("type[object]", self.reading.returns)),
            self._blank(codec.name),
        )
        self._coders[codec.name] = codec, coder
        return coder

    def new_job(
        self,
        arguments: msgspec.Struct,
        options: Options,
        codec: Codec,
        *,
        check: bool,
        job_id: str | None = None,
        holes: frozenset[str] = frozenset(),
        step: bool = False,
    ) -> NewJob:
        """Return the job to store; see `Callee.new_job`."""
        if self.codec is not None and codec is not self._met:
            CodecBook((codec, self.codec))  # refuses two of one name: a worker could not have both
            self._met = codec
        codec = self.codec or codec
        coder = self.coder(codec)
        decode = coder.decode_arguments
        if holes:
            partial = self.partial(holes)
            arguments, decode = partial.of(arguments), partial.decoder(codec)
        try:
            payload = coder.encode(arguments)
            if check and self.options.run == "process":
                wire.write(arguments)  # which may hold less than what is stored
            if len(payload) > PAYLOAD_LIMIT:
                raise self._too_large(len(payload), codec)
            arrived = decode(payload) if check else arguments
            if arrived is not arguments and differ(arguments, arrived):
                self.refuse_change("arguments", arguments, arrived)
        except CodecError as error:
            raise self.unfit("arguments", error) from error
        job = _replace(coder.blank, id=job_id or new_job_id(), payload=payload, meta={})
        if options is not NO_OPTIONS:
            job = self._with_options(job, arguments, options, codec)
        if self.partitioned is not None:
            job = _replace(job, partition=self.partitioned.of(arguments, holes))
        if self.keyed is None or step or options.key is not UNSET:
            return job
        return self.keyed.apply(job, arguments, options)

    def _blank(self, codec: str) -> NewJob:
        mine = self.options
        return NewJob(
            id="",
            task=self.name,
            payload=b"",
            codec=codec,
            fingerprint=self.fingerprint,
            queue=mine.queue,
            priority=mine.priority,
            retry=mine.retry.numbers(),
            timeout=mine.timeout,
            key_ttl=mine.key_ttl,
            keep_result=mine.keep_result,
            retain=mine.retain,
        )

    def _with_options(self, job: NewJob, arguments: msgspec.Struct, options: Options, codec: Codec) -> NewJob:
        last, given = self._last_given
        if last is not options:  # calls of one batch often share theirs
            given = given_fields(options)
            self._last_given = options, given
        if options.key is not UNSET:
            given = {**given, "digest": self._digests.of(arguments, job.payload, codec)}
        return _replace(job, **given)

    def arguments_digest(self, arguments: msgspec.Struct, payload: bytes, codec: Codec) -> bytes:
        """Return 16 bytes that tell arguments apart, of which `payload` is what its codec, or the harbor's, made."""
        return self._digests.of(arguments, payload, self.codec or codec)

    @cached_property
    def _digests(self) -> Digests:
        return Digests(self.reading.parameters)

    def partial(self, holes: frozenset[str]) -> Partial:
        """Return the arguments' type without some parameters, made once."""
        known = self._partials.get(holes)
        if known is None:
            known = self._partials[holes] = Partial(self.name, self.reading.parameters, holes)
        return known

    @cached_property
    def parameter_names(self) -> frozenset[str]:
        """Return the names of the parameters that cross the wire."""
        return frozenset(parameter.name for parameter in self.reading.parameters)

    def parameter_type(self, name: str) -> object:
        """Return the type of a parameter; None if there is none of that name."""
        return next((p.type for p in self.reading.parameters if p.name == name), None)

    def read_arguments(self, data: bytes, codec: Codec) -> dict[str, object]:
        """Return stored arguments by parameter name; raises `PayloadError` if they do not fit."""
        try:
            return msgspec.structs.asdict(self.coder(codec).decode_arguments(data))
        except CodecError as error:
            raise self.unfit("arguments", error) from error

    def read_result(self, data: bytes, codec: Codec) -> object:
        """Return a stored result, decoded as the declared return type."""
        try:
            return self.coder(codec).decode_result(data)
        except CodecError as error:
            raise self.unfit("result", error) from error

    def refuse_change(self, what: str, sent: object, arrived: object) -> None:
        """Raise `PayloadError` if a value would arrive as something else than was sent."""
        change = first_change(sent, arrived)
        if change is not None:
            raise self.unfit(what, CodecError(change[1], path=change[0]))

    def _too_large(self, size: int, codec: Codec) -> PayloadTooLarge:
        return PayloadTooLarge(
            f"the arguments of task {self.name!r} take {size:,} bytes as {codec.name}, and a job carries at most "
            f"{PAYLOAD_LIMIT:,}; keep what is large elsewhere (a file, an object store, a table of your own), and pass "
            "the key that finds it",
            task=self.name,
            size=size,
            limit=PAYLOAD_LIMIT,
        )

    def unfit(self, what: str, error: CodecError) -> PayloadError:
        """Return the error of arguments, or a result, that do not fit the signature."""
        return PayloadError(
            f"the {what} of task {self.name!r} {'do' if what == 'arguments' else 'does'} not fit its signature: "
            f"{error} at {error.path}",
            task=self.name,
            path=error.path,
            reason=str(error),
        )
