"""From a drafted step to its job: its arguments without holes, its place in the flow, and what tells flows apart."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from types import GenericAlias
from typing import cast

import msgspec
from msgspec import UNSET

from taskharbor.call import Call, Placeholder
from taskharbor.call.expansion import write_expansion
from taskharbor.codec import Codec, CodecError, decoder_of, encoder_of
from taskharbor.errors import FlowError, PayloadError
from taskharbor.job import PAYLOAD_LIMIT, NewJob
from taskharbor.step import Step
from taskharbor.task.digest import plain
from taskharbor.workflow.drafts import Draft, Target

_replace = msgspec.structs.replace


class Maker:
    """Makes the jobs of one flow."""

    def __init__(
        self, codec: Codec, *, check: bool, digest: bool = False, meta: Mapping[str, str] | None = None
    ) -> None:
        """Prepare it; `codec` is the harbor's. `digest` is for flows with a key, `meta` goes to every step."""
        self._codec = codec
        self._check = check
        self._meta = meta
        self._hash = hashlib.sha256() if digest else None
        self.keyed: list[NewJob] = []

    def within(self) -> Maker:
        """Return one for the body of an `each`, which counts for what tells flows apart."""
        inner = Maker(self._codec, check=self._check, meta=self._meta)
        inner._hash = self._hash
        return inner

    def made(self, draft: Draft, flow: str) -> NewJob:
        """Return the job of a step of which all is known.

        Raises:
            PayloadError: arguments do not fit a signature.
            FlowError: they hold a placeholder somewhere within.
        """
        job = draft.job
        if draft.call is not None:
            job = self._job(draft.call, draft)
        elif draft.expansion is not None and job is not None:
            job = _replace(job, payload=write_expansion(draft.expansion))
        if job is None:
            raise AssertionError("a draft is of a call, or has its job")
        step = Step(
            flow=flow,
            waits=draft.waits,
            edges=tuple(draft.edges),
            absorbers=draft.absorbers,
            holes=tuple(draft.holes),
            inputs=tuple(draft.inputs),
        )
        if self._hash is not None:
            self._hash.update(_told(job, draft))
            if draft.call is None or draft.call.options.key is UNSET:
                job = _replace(job, key=None, digest=b"")
        # What others wait for has to be kept until they have it, whatever the task declares.
        keep = job.keep_result or any(edge.slot >= 0 for edge in draft.edges)
        job = _replace(job, id=draft.id, step=step, keep_result=keep)
        if self._meta:
            job = _replace(job, meta={**self._meta, **job.meta})
        if job.key is not None:
            self.keyed.append(job)
        return job

    def _job(self, call: Call, draft: Draft) -> NewJob:
        names = frozenset(hole.parameter for hole in draft.holes)
        options = call.options
        if options.on_conflict == "replace":
            raise FlowError(
                f"{call.callee.name!r}: a step of a flow replaces no job, for other steps may wait for that one; leave "
                "on_conflict='replace' out of its options"
            )
        if self._hash is not None and options.key is UNSET:
            options = _replace(options, key="-")  # for the digest that comes with a key
        try:
            return call.callee.new_job(
                call.arguments,
                options,
                self._codec,
                check=self._check,
                job_id=draft.id,
                holes=names,
                step=True,
            )
        except PayloadError as error:
            if Placeholder.__qualname__ in str(error):
                raise FlowError(
                    f"an argument of {call.callee.name!r} holds the result of an earlier step somewhere within; it can "
                    "only be passed on as a whole argument, or as an element of a list or a tuple that is one"
                ) from error
            raise

    def pattern(self, draft: Draft) -> NewJob | None:
        """Return a job whose queue and priority are those for a step that serves this one."""
        if draft.job is not None or draft.call is None:
            return draft.job
        return self._job(draft.call, draft)

    def listed(self, draft: Draft, items: object, uses: Sequence[Target]) -> tuple[str, bytes]:
        """Return the list that an `each` is given, checked against the parameter that its elements fill."""
        taker = next((use for use in uses if use.draft.call is not None and use.place is None), None)
        call = None if taker is None else taker.draft.call
        name, data = self.encoded(draft, items, call)
        if len(data) > PAYLOAD_LIMIT:
            raise FlowError(
                f"the list given to each(...) takes {len(data):,} bytes, and a job carries at most {PAYLOAD_LIMIT:,}; "
                "keep what is large elsewhere, and pass the keys that find it"
            )
        if self._check and taker is not None and call is not None:
            parameter = taker.draft.holes[taker.slot].parameter
            kind = GenericAlias(list, (call.callee.parameter_type(parameter),))
            try:
                decoder_of(call.callee.codec or self._codec, cast("type[object]", kind))(data)
            except CodecError as error:
                raise PayloadError(
                    f"the list given to each(...) does not fit the parameter {parameter!r} of task "
                    f"{call.callee.name!r}: {error} at {error.path}",
                    task=call.callee.name,
                    path=error.path,
                    reason=str(error),
                ) from error
        return name, data

    def encoded(self, draft: Draft, items: object, taker: Call | None) -> tuple[str, bytes]:
        """Return a value that a step is given, as it is stored for a call that takes it: codec and bytes."""
        own = None if taker is None else taker.callee.codec
        codec = own or self._codec
        try:
            data = encoder_of(codec)(items)
            if self._hash is not None:
                draft.told.append(plain(items, data, codec))
        except CodecError as error:
            raise FlowError(f"{items!r:.80} cannot be sent: {error} at {error.path}") from error
        return codec.name, data

    @property
    def digest(self) -> bytes:
        """Return what tells flows with other steps or arguments apart."""
        return b"" if self._hash is None else self._hash.digest()[:16]


def internal(pattern: NewJob | None, task: str, codec: str, payload: bytes) -> NewJob:
    """Return a job of one of our own tasks, to be run where the steps beside it are."""
    job = NewJob(id="", task=task, payload=payload, codec=codec, fingerprint=0)
    if pattern is None:
        return job
    return _replace(job, queue=pattern.queue, priority=pattern.priority, retain=pattern.retain)


def _told(job: NewJob, draft: Draft) -> bytes:
    """Return what of a step makes it another one, whatever ids there are."""
    inputs = [(given.slot, given.index) for given in draft.inputs]
    takes: list[tuple[int, int]] = []
    if draft.expansion is not None:
        takes = [(edge.slot, edge.index) for edge in draft.expansion.elements]
    return msgspec.msgpack.encode(
        (draft.number, job.task, job.digest, draft.holes, inputs, draft.told, draft.leads, draft.waits, takes)
    )
