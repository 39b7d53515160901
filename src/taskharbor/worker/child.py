"""What runs in the child processes of `run="process"` tasks, and what goes over the pipe to them and back."""

from __future__ import annotations

import contextlib
import importlib
import signal
import sys
from typing import Protocol, TypeAlias

import msgspec

from taskharbor.codec import CodecError, concealed
from taskharbor.errors import TaskHarborError
from taskharbor.job import AttemptError, Delivery
from taskharbor.outcome import Reject, RetryLater, Snooze, describe
from taskharbor.report import Report
from taskharbor.task import Context, Task, TaskDefinition
from taskharbor.task.context import IN_CHILD
from taskharbor.task.definition import Coder
from taskharbor.task.wire import WIRE
from taskharbor.worker.child_words import ChildWords


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What a child is told."""

    module: str
    qualname: str
    arguments: bytes
    worker: str
    delivery: Delivery
    """Without its payload."""
    conceals: bool
    """What it is about is encrypted in the store: its result is not to be quoted."""


class Returned(msgspec.Struct, frozen=True, tag=True):
    """The handler returned."""

    value: bytes


class Raised(msgspec.Struct, frozen=True, tag=True):
    """The handler raised, or the child could not call it."""

    error: AttemptError
    kinds: tuple[str, ...]
    """Qualified names along the exception's MRO: how `Retry.on` finds its policy in the parent."""
    after_seconds: float | None = None
    """From `RetryLater`."""
    snooze_seconds: float | None = None
    reject: str | None = None


class Words(msgspec.Struct, frozen=True, tag=True):
    """The handler told something of itself, and goes on."""

    report: Report


Answer: TypeAlias = Returned | Raised

encode_request = msgspec.msgpack.Encoder().encode
_decode_request = msgspec.msgpack.Decoder(Request).decode
_encode_answer = msgspec.msgpack.Encoder().encode
decode_answer: msgspec.msgpack.Decoder[Answer | Words] = msgspec.msgpack.Decoder(Answer | Words)


class Pipe(Protocol):
    """The end of a pipe; its class differs between systems."""

    def send_bytes(self, data: bytes, /) -> None: ...
    def poll(self) -> bool: ...
    def recv_bytes(self) -> bytes: ...
    def close(self) -> None: ...


def kind_name(kind: type[BaseException]) -> str:
    """Return an exception class's name as parent and child both know it."""
    # What the worker's program runs as `__main__`, a child knows by another name.
    return f"{kind.__module__.replace('__mp_main__', '__main__')}.{kind.__qualname__}"


def _leave_to_the_worker(_number: int, _frame: object) -> None:
    """Do nothing: the worker ends its children."""


def child_main(pipe: Pipe) -> None:
    """Serve jobs until the pipe closes. Runs in the child."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # Ctrl-C, and a service manager's stop of the whole group, are for the worker, which drains. Heard and not
        # heeded, rather than ignored: programs that a handler starts would go on ignoring it.
        with contextlib.suppress(ValueError):
            signal.signal(number, _leave_to_the_worker)
    while True:
        try:
            request = _decode_request(pipe.recv_bytes())
        except (EOFError, OSError):
            return
        words = ChildWords(lambda report: _send_words(pipe, report))
        answer = _encode_answer(_serve(request, words))
        words.end()
        try:
            pipe.send_bytes(answer)
        except OSError:
            return


def _send_words(pipe: Pipe, report: Report) -> None:
    # Never beside the answer, which is sent when the thread that sends words has ended.
    with contextlib.suppress(OSError):
        pipe.send_bytes(_encode_answer(Words(report)))


def _serve(request: Request, words: ChildWords) -> Answer:
    try:
        definition = _find(request)
        coder = definition.coder(WIRE)
        context = Context(None, request.delivery, IN_CHILD, words.hear)
        value = definition.spread(
            definition.fn,
            coder.decode_arguments(request.arguments),
            (context,) if definition.reading.takes_context else (),
        )
        return Returned(_result(coder, value, quote=not request.conceals))
    except BaseException as error:  # noqa: BLE001 - sys.exit and its like end the attempt, not the child
        return _raised(error, request)


def _result(coder: Coder, value: object, *, quote: bool) -> bytes:
    try:
        data = coder.encode(value)
        coder.decode_result(data)
    except CodecError as error:
        if quote:
            raise
        raise concealed(error) from None
    return data


def _raised(error: BaseException, request: Request) -> Raised:
    return Raised(
        describe(error, attempt=request.delivery.attempt, worker=request.worker),
        tuple(kind_name(kind) for kind in type(error).__mro__),
        after_seconds=error.after.total_seconds() if isinstance(error, RetryLater) else None,
        snooze_seconds=error.for_.total_seconds() if isinstance(error, Snooze) else None,
        reject=error.reason if isinstance(error, Reject) else None,
    )


def _find(request: Request) -> TaskDefinition:
    module = sys.modules.get(request.module) or importlib.import_module(request.module)
    found: object = module
    for part in request.qualname.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, Task):
        raise TaskHarborError(
            f"{request.module}.{request.qualname} is no task in the child process; run='process' needs the decorated "
            "function under its own name in its module"
        )
    return found.definition
