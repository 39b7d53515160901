"""A flow as it is stored: its steps, spooled; its key; and the job to store if it fails."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import UNSET

from taskharbor.call import FlowCall, FlowOptions
from taskharbor.call.expansion import COLLECT
from taskharbor.codec import Codec
from taskharbor.errors import FlowError
from taskharbor.flow import NewFlow
from taskharbor.job import NewJob, OnConflict
from taskharbor.step import Step
from taskharbor.workflow.making import Maker
from taskharbor.workflow.spool import Spool
from taskharbor.workflow.walking import Walk

_replace = msgspec.structs.replace
_BETWEEN = "\x1f"
"""Stands between a flow's name, which cannot have it, and its key."""


def lower(
    flow: FlowCall, codec: Codec, *, check: bool, flow_id: str = "", meta: dict[str, str] | None = None
) -> NewFlow:
    """Return a flow as it is stored.

    Args:
        flow: what is to be stored.
        codec: the harbor's.
        check: decode each payload once.
        flow_id: from `new_job_ids`; "" makes one.
        meta: the flow's, instead of what its options say; what is new in it goes to every step as well.

    Raises:
        FlowError: steps that cannot be joined so.
        PayloadError: arguments do not fit a signature.
    """
    options = flow.options
    given = options.meta if meta is None else meta
    added = {name: text for name, text in given.items() if options.meta.get(name) != text}
    maker = Maker(codec, check=check, digest=options.key is not UNSET, meta=added)
    walk = Walk(maker, flow_id)
    spool = Spool()
    try:
        for job in walk.steps(flow.node):
            # The last of them comes last.
            spool.add(_keyed(job, options, maker) if job.id == walk.flow else job)
    except RecursionError as error:
        raise FlowError(
            "the flow is nested too deeply; a long chain is written with chain(...) or .then(...), from the first step"
        ) from error
    _refuse_shared_keys(maker.keyed)
    return NewFlow(
        id=walk.flow,
        name=options.name,
        meta=given,
        steps=spool,
        keyed=tuple(maker.keyed),
        own_key=options.key is not UNSET,
        on_failure=_on_failure(options, Maker(codec, check=check, meta=added)),
        absorbing=walk.absorbing,
    )


def _refuse_shared_keys(keyed: Sequence[NewJob]) -> None:
    met: set[tuple[str, str | None]] = set()
    for job in keyed:
        if (job.task, job.key) in met:
            raise FlowError(
                f"two steps {job.task!r} of the flow have the key {job.key!r}, and one of them alone could be stored"
            )
        met.add((job.task, job.key))


def _keyed(job: NewJob, options: FlowOptions, maker: Maker) -> NewJob:
    """Return the last step with the flow's key, if it has one."""
    if options.key is UNSET:
        return job
    if job.key is not None:
        raise FlowError(
            f"the flow has a key, and so has its last step {job.task!r}, which holds the flow's; leave one of them out"
        )
    key = options.key
    if job.task == COLLECT:
        if not options.name:
            raise FlowError(
                "a key has the scope of the flow's last task, and this flow ends in a list that no task makes; give "
                "the flow a name as well, which is the scope then"
            )
        key = f"{options.name}{_BETWEEN}{key}"
    job = _replace(job, key=key, digest=maker.digest)
    if options.key_ttl is not UNSET:
        job = _replace(job, key_ttl=options.key_ttl)
    if options.on_conflict is not UNSET:
        job = _replace(job, on_conflict=OnConflict(options.on_conflict))
    maker.keyed.append(job)
    return job


def _on_failure(options: FlowOptions, maker: Maker) -> NewJob | None:
    """Return the job to store when the flow fails; its only input is the failure."""
    if options.on_failure is None:
        return None
    call, place = options.on_failure
    (job,) = Walk.with_place(maker, place).steps(call)
    holes = () if job.step is None else job.step.holes
    if any(hole.many for hole in holes):
        raise FlowError(
            f"on_failure: {call.callee.name!r} takes the failure within a list; it has to be a whole argument"
        )
    return _replace(
        job, step=Step(flow="", holes=tuple(_replace(hole, slot=0, many=False) for hole in holes))
    )
