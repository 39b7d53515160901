"""How a flow's result is read: by its last task's type, or, where it ends in a list, part by part."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from taskharbor.call.call import Call
from taskharbor.call.graph import Each, Group, Node, Then, title
from taskharbor.call.parts import PARTS, read_parts
from taskharbor.codec import CodecBook, CodecError, found_codec
from taskharbor.errors import PayloadError, ResultNotKept
from taskharbor.flow import Failure, Success

_failure = msgspec.json.Decoder(Failure).decode


class Reader(Protocol):
    """What a flow's handle needs to know of its last step."""

    @property
    def name(self) -> str:
        """Return what its result comes from, for messages."""
        ...

    def read(self, data: bytes | None, codec: str, codecs: CodecBook) -> object:
        """Return a stored result.

        Raises:
            PayloadError: it does not fit the declared type, or its codec is not known.
            ResultNotKept: there is none.
        """
        ...


class CallReader:
    """Reads what one task returned."""

    def __init__(self, call: Call) -> None:
        self._callee = call.callee

    @property
    def name(self) -> str:
        """Return the task's name."""
        return self._callee.name

    def read(self, data: bytes | None, codec: str, codecs: CodecBook) -> object:
        """Return a stored result, decoded as the declared return type."""
        callee = self._callee
        if data is None:
            raise ResultNotKept(f"a step of task {callee.name!r} succeeded, and its result was not kept")
        found = found_codec(codec, callee.codec, codecs)
        if found is None:
            raise PayloadError(
                f"a result of task {callee.name!r} was written with the codec {codec!r}, which this harbor does not "
                "know; pass it as Harbor(codecs=[...])",
                task=callee.name,
            )
        return callee.read_result(data, found)


class ListReader:
    """Reads the list that many steps came to."""

    def __init__(self, name: str, members: Sequence[Reader] | Reader) -> None:
        self.name = name
        self._members = members

    def read(self, data: bytes | None, codec: str, codecs: CodecBook) -> object:
        """Return the list."""
        if data is None or codec != PARTS:
            raise PayloadError(
                f"the result of {self.name} is no list of parts: this is no flow of this shape",
                task=self.name,
            )
        parts = read_parts(data)
        readers: Iterable[Reader] = (
            self._members if isinstance(self._members, Sequence) else [self._members] * len(parts.inputs)
        )
        try:
            values = [
                _failure(part.value or b"") if part.failed else reader.read(part.value, part.codec, codecs)
                for part, reader in zip(parts.inputs, readers, strict=True)
            ]
        except (CodecError, msgspec.MsgspecError) as error:
            raise PayloadError(
                f"the result of {self.name} cannot be read: {error}", task=self.name
            ) from error
        if not parts.tolerant:
            return values
        return [
            value if part.failed else Success(value) for part, value in zip(parts.inputs, values, strict=True)
        ]


def reader_of(node: Node) -> Reader:
    """Return how the result of a flow is read."""
    while isinstance(node, Then):
        node = node.node
    if isinstance(node, Call):
        return CallReader(node)
    if isinstance(node, Each):
        return ListReader(title(node), reader_of(node.body))
    return _group_reader(node)


def _group_reader(group: Group) -> Reader:
    members = tuple(group.members)
    # Those of most groups are calls of one task, of which one reader does.
    first = members[0] if members else None
    if isinstance(first, Call) and all(
        isinstance(member, Call) and member.callee is first.callee for member in members
    ):
        return ListReader(title(group), CallReader(first))
    return ListReader(title(group), [reader_of(member) for member in members])
