"""A call of a task, not yet sent: which task, with which arguments, under which options.

A call knows no store and no wire format. The dispatcher that sends it chooses the codec and has the callee encode the
arguments with it.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from taskharbor.call.options import Options
from taskharbor.codec import Codec
from taskharbor.job import NewJob


class Callee(Protocol):
    """What a call needs to know of its task."""

    @property
    def name(self) -> str:
        """Return the task's name."""
        ...

    def answers_to(self, name: str) -> bool:
        """Return whether jobs stored under that name are its own: its name, or one of its aliases."""
        ...

    @property
    def codec(self) -> Codec | None:
        """Return the task's own codec, which comes before the harbor's."""
        ...

    @property
    def keep_result(self) -> bool:
        """Return whether results are stored."""
        ...

    @property
    def surrounds_enqueue(self) -> bool:
        """Return whether it has middleware of its own around its enqueues."""
        ...

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
        """Return the job to store.

        `check` decodes the payload once more, strictly, so that what no handler could read is refused here. `job_id` is
        from `new_job_ids`, which makes many at once for less; None makes one. `holes` are parameters that are left out
        of the payload, to be filled when the job is delivered. A `step` of a flow has no key but its own.

        Raises:
            PayloadError: the arguments do not fit the signature.
            PayloadTooLarge: they take more than `PAYLOAD_LIMIT` bytes.
            OptionError: the options go against what the task declares.
        """
        ...

    def parameter_type(self, name: str) -> object:
        """Return the type of a parameter; None if there is none of that name."""
        ...

    def read_result(self, data: bytes, codec: Codec) -> object:
        """Return a stored result, decoded as the declared return type.

        Raises:
            PayloadError: it does not fit.
        """
        ...


class Call(msgspec.Struct, frozen=True):
    """One call."""

    callee: Callee
    arguments: msgspec.Struct
    options: Options
