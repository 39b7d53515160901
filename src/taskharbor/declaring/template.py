"""A call and a schedule, made into what a store keeps: encoded, checked and named as an enqueue would."""

from __future__ import annotations

import hashlib
from typing import NamedTuple, cast

import msgspec
from msgspec import UNSET

from taskharbor.call import Call, Signature
from taskharbor.call.options import check_name, check_note
from taskharbor.codec import Codec
from taskharbor.errors import OptionError
from taskharbor.schedule import NewSchedule, Schedule
from taskharbor.task import TaskDefinition

_plainly = msgspec.json.Encoder(order="deterministic").encode


class Template(NamedTuple):
    """A schedule to be stored, and a digest of it that is the same in each process."""

    new: NewSchedule
    digest: bytes
    """Of the arguments it has in what was asked for, not the payload: an encrypted one differs each time."""


def template(
    signature: Signature[object], schedule: Schedule, name: str | None, description: str, codec: Codec
) -> Template:
    """Return what each tick's job is made of.

    Args:
        signature: the call; its own options come before the task's.
        schedule: when.
        name: printable, with no slash at its ends; None takes the task's.
        description: for people.
        codec: the harbor's; a task's own comes first.

    Raises:
        OptionError: no signature of one task, no schedule, a name that cannot be, or a `run_at` or `run_in`.
        PayloadError: the arguments do not fit the task's signature.
    """
    call = _call(signature)
    name = call.callee.name if name is None else name
    where = f"schedule {name!r} of task {call.callee.name!r}"
    check_name(name, "name")
    if name.startswith("/") or name.endswith("/"):
        raise OptionError(f"name={name!r}: expected no slash at its ends")
    if description:
        check_note(description, f"{where}: description")
    _check_schedule(schedule, where)
    for option in ("run_at", "run_in"):
        if getattr(call.options, option) is not UNSET:
            raise OptionError(
                f"{where}: {option} was given, and its ticks are what its jobs run at; leave it out"
            )
    job = call.callee.new_job(call.arguments, call.options, codec, check=True)
    new = NewSchedule(
        name=name, schedule=schedule, job=msgspec.structs.replace(job, id=""), description=description
    )
    definition = cast("TaskDefinition", call.callee)
    arguments = definition.arguments_digest(call.arguments, job.payload, codec)
    plain = msgspec.structs.replace(new, job=msgspec.structs.replace(new.job, payload=arguments, digest=b""))
    return Template(new, hashlib.sha256(_plainly(plain)).digest()[:16])


def _check_schedule(schedule: object, where: str) -> None:
    if not isinstance(schedule, Schedule):
        raise OptionError(f"{where}: expected what cron(...) or every(...) makes, got {schedule!r}")


def _call(signature: object) -> Call:
    if not isinstance(signature, Signature):
        raise OptionError(
            f"schedule({signature!r}, ...): expected a signature, which task.s(...) makes without calling the task"
        )
    call = cast("Signature[object]", signature).sendable
    if not isinstance(call, Call):
        raise OptionError(
            f"schedule({signature!r}, ...): a schedule makes one job a tick, and this is a flow; declare a task that "
            "enqueues the flow, and schedule that"
        )
    return call
