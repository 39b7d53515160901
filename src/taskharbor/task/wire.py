"""What goes over the pipe to a child of `run="process"` and back: MessagePack, whatever a payload is stored in."""

from __future__ import annotations

from taskharbor.codec import MsgpackCodec
from taskharbor.errors import TaskDefinitionError
from taskharbor.task.arguments import check_types
from taskharbor.task.reading import Reading

WIRE = MsgpackCodec()
"""How arguments and results travel."""

write = WIRE.encoder()
"""Encode what is to travel; raises `CodecError` for what cannot."""


def check_wire(task: str, reading: Reading) -> None:
    """Check that the arguments and the result of a task can travel.

    Raises:
        TaskDefinitionError: one of its types cannot.
    """
    try:
        check_types(task, reading.parameters, reading.returns, WIRE)
    except TaskDefinitionError as error:
        raise TaskDefinitionError(
            f'{error} (run="process" hands arguments and results over in MessagePack, whatever they are stored in)'
        ) from error
