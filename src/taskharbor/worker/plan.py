"""What a worker does for one task: looked up once, so that the hot path only calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol

import msgspec

from taskharbor.codec import Codec, CodecError, conceals
from taskharbor.errors import PayloadError, PayloadTooLarge
from taskharbor.job import PAYLOAD_LIMIT, Delivery
from taskharbor.outcome import Succeeded
from taskharbor.task import Context, TaskDefinition
from taskharbor.task.fidelity import differ, first_change
from taskharbor.task.layer import Attempt


class Prepared(Protocol):
    """A delivery that can be run."""

    arguments: msgspec.Struct
    delivery: Delivery
    attempt: Attempt | None
    """What its layers see of it, if there are any around a handler in a thread."""

    @property
    def context(self) -> Context[object]:
        """Return what its handler sees of it."""
        ...


class UnfitResult(PayloadError):
    """A handler returned something else than it declares. It did its work, and would return the same again."""

    reason_of_death: ClassVar[str] = "it did not return what it declares"
    public: ClassVar[type[PayloadError]] = PayloadError
    """What it is called in the job's record."""


class ResultTooLarge(UnfitResult, PayloadTooLarge):
    """A handler returned more than is kept. Likewise."""

    reason_of_death = "its result is too large to keep"
    public = PayloadTooLarge


class TaskPlan:
    """How one task's payloads are read, its handler called and its results written."""

    def __init__(self, definition: TaskDefinition, codec: Codec) -> None:
        self.definition = definition
        self.is_async = definition.reading.is_async
        self.in_process = definition.options.run == "process"
        self.batch = definition.options.batch
        """How many jobs a call of it takes; None for one."""
        self._takes_context = definition.reading.takes_context
        self._spread = definition.spread
        self._fn = definition.fn
        coder = definition.coder(codec)
        self._codec_name = codec.name
        self.conceals = conceals(codec)
        """Messages do not quote its values."""
        self._encode = coder.encode
        self._check_result = coder.decode_result
        self.readers: dict[str, Callable[[bytes], msgspec.Struct]] = {codec.name: coder.decode_arguments}

    def call(self, run: Prepared) -> object:
        """Call the handler; for an async one this makes the coroutine."""
        return self._spread(self._fn, run.arguments, (run.context,) if self._takes_context else ())

    def succeeded(self, value: object, *, keep: bool) -> Succeeded:
        """Return the outcome of a handler that returned `value`; `keep` if the result is to be stored.

        Raises:
            UnfitResult: it is not of the declared type, or larger than a job's result may be.
        """
        try:
            data = self._encode(value)
            if keep:
                self.refuse_large(data)
            arrived = self._check_result(data)
            change = first_change(value, arrived) if differ(value, arrived) else None
            if change is not None:
                raise CodecError(change[1], path=change[0])
        except CodecError as error:
            raise UnfitResult(
                f"the result of task {self.definition.name!r} is not what it declares: {error} at {error.path} "
                f"(it returned a {type(value).__qualname__})",
                task=self.definition.name,
                path=error.path,
                reason=str(error),
            ) from error
        return Succeeded(data if keep else None, self._codec_name)

    def refuse_large(self, data: bytes) -> None:
        """Refuse a result that is larger than what is kept.

        Raises:
            ResultTooLarge: it is.
        """
        size = len(data)
        if size <= PAYLOAD_LIMIT:
            return
        raise ResultTooLarge(
            f"the result of task {self.definition.name!r} takes {size:,} bytes as {self._codec_name}, and at most "
            f"{PAYLOAD_LIMIT:,} are kept; keep what is large elsewhere (a file, an object store, a table of your own), "
            "and return the key that finds it",
            task=self.definition.name,
            size=size,
            limit=PAYLOAD_LIMIT,
        )
