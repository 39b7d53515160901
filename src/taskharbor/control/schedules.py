"""`harbor.schedules`: schedules in the store, looked at, made, paused, resumed, triggered and deleted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol, TypeVar

import msgspec

from taskharbor.answers import refuse_taken
from taskharbor.audit import Act
from taskharbor.call import Sent, Signature, refuse_on_loop
from taskharbor.control.acts import make_act, told_names
from taskharbor.control.asking import Asks, check_notes, text_list
from taskharbor.driver import (
    AuditWrite,
    CreateStatus,
    EnqueueStatus,
    Firing,
    ScheduleCreate,
    ScheduleDelete,
    ScheduleFind,
    ScheduleFire,
    SchedulePause,
    ScheduleResume,
    Store,
)
from taskharbor.errors import OptionError, ScheduleError, ScheduleNotFound, nearest
from taskharbor.job import new_job_id
from taskharbor.schedule import SCHEDULE_META, NewSchedule, Schedule, ScheduleRecord

T = TypeVar("T")

_PAGE = 1000
_ATTEMPTS = 20
"""How often a trigger is tried against a schedule that is written at the same time."""


class Template(Protocol):
    """Makes of a call what each tick's job is made of, with the name and all."""

    def __call__(
        self, signature: Signature[object], schedule: Schedule, name: str, description: str, /
    ) -> NewSchedule:
        """Return the schedule to be stored."""
        ...


class Schedules:
    """Schedules in the store, declared ones and those created at run time. Every method has an `a` form.

    A declared schedule's name is `application/name`; wherever a name is asked for, `name` alone will do if it fits one
    schedule only.
    """

    def __init__(self, asks: Asks, template: Template) -> None:
        """Made by the harbor."""
        self._asks = asks
        self._template = template

    def list(self, *, application: str | None = None) -> Sequence[ScheduleRecord]:
        """Return all schedules, or those of one application, sorted by name."""
        return self._block("list", lambda store: _all(store, application))

    async def alist(self, *, application: str | None = None) -> Sequence[ScheduleRecord]:
        """Return all schedules; the async form of `list`."""
        return await self._asks.aask(lambda store: _all(store, application))

    def get(self, name: str) -> ScheduleRecord:
        """Return what the store knows of a schedule.

        Raises:
            ScheduleNotFound: it has none of that name.
            ScheduleError: several fit the name; says which.
        """
        return self._block("get", lambda store: _one(store, name))

    async def aget(self, name: str) -> ScheduleRecord:
        """Return what the store knows of a schedule; the async form of `get`."""
        return await self._asks.aask(lambda store: _one(store, name))

    def create(
        self,
        name: str,
        signature: Signature[object],
        schedule: Schedule,
        *,
        description: str = "",
        replace: bool = False,
        by: str = "",
        reason: str = "",
    ) -> ScheduleRecord:
        """Create a schedule at run time, and return it. No declaration ever removes it.

        Args:
            name: unique in the store.
            signature: the call that each tick makes: `report.s(region="eu")`, or `report.options(...).s(...)`.
            schedule: made by `cron(...)` or `every(...)`.
            description: for people.
            replace: change the one that is there under the name, if that was created at run time too.
            by: who, for the audit trail; by default the user whose process this is.
            reason: why, for the audit trail.

        Raises:
            ScheduleError: the name is taken.
            OptionError: a name, call or schedule that cannot be.
        """
        made = self._new(signature, schedule, name, description)
        act = make_act("schedules.create", made.name, by=by, reason=reason)
        return self._block("create", lambda store: _create(store, made, act, replace=replace))

    async def acreate(
        self,
        name: str,
        signature: Signature[object],
        schedule: Schedule,
        *,
        description: str = "",
        replace: bool = False,
        by: str = "",
        reason: str = "",
    ) -> ScheduleRecord:
        """Create a schedule at run time; the async form of `create`."""
        made = self._new(signature, schedule, name, description)
        act = make_act("schedules.create", made.name, by=by, reason=reason)
        return await self._asks.aask(lambda store: _create(store, made, act, replace=replace))

    def pause(self, *names: str, reason: str = "", by: str = "") -> Sequence[ScheduleRecord]:
        """Let schedules fire no more until they are resumed, and return them; ticks that pass meanwhile are let go.

        Raises:
            ScheduleNotFound: there is none of a name; nothing was paused.
            ScheduleError: several fit a name; nothing was paused.
        """
        check_notes(reason, by)
        some = _some(names)
        return self._block("pause", lambda store: _pause(store, some, reason, by))

    async def apause(self, *names: str, reason: str = "", by: str = "") -> Sequence[ScheduleRecord]:
        """Let schedules fire no more until they are resumed; the async form of `pause`."""
        check_notes(reason, by)
        some = _some(names)
        return await self._asks.aask(lambda store: _pause(store, some, reason, by))

    def resume(self, *names: str, reason: str = "", by: str = "") -> Sequence[ScheduleRecord]:
        """Let schedules fire again, from now on, and return them; raises as `pause`."""
        check_notes(reason, by)
        some = _some(names)
        return self._block("resume", lambda store: _resume(store, some, reason, by))

    async def aresume(self, *names: str, reason: str = "", by: str = "") -> Sequence[ScheduleRecord]:
        """Let schedules fire again; the async form of `resume`."""
        check_notes(reason, by)
        some = _some(names)
        return await self._asks.aask(lambda store: _resume(store, some, reason, by))

    def trigger(self, name: str, *, reason: str = "", by: str = "") -> Sent:
        """Make a schedule's job now, beside its ticks, paused or not, and return its id.

        Where the job's key is taken, as with a task's `unique=`, it does what an enqueue of the call would: where that
        answers with the job that has the key, `created` is False, and the id is that job's.

        Raises:
            ScheduleNotFound: there is none of that name.
            ScheduleError: several fit the name; or it was changed again and again meanwhile.
            DuplicateJob: the key is taken, and the call asked to be told (`on_conflict="raise"`).
            KeyConflict: the key is taken by a job with other arguments, or by one that the call cannot replace.
        """
        check_notes(reason, by)
        return self._block("trigger", lambda store: _trigger(store, name, reason, by))

    async def atrigger(self, name: str, *, reason: str = "", by: str = "") -> Sent:
        """Make a schedule's job now, beside its ticks; the async form of `trigger`."""
        check_notes(reason, by)
        return await self._asks.aask(lambda store: _trigger(store, name, reason, by))

    def delete(self, *names: str, force: bool = False, reason: str = "", by: str = "") -> Sequence[str]:
        """Delete schedules, and return their whole names; jobs that they have made stay.

        Args:
            *names: which.
            force: delete declared ones too, as of an application that is no more; the next generation that declares
                them brings them back.
            reason: why, for the audit trail.
            by: who; by default the user whose process this is.

        Raises:
            ScheduleNotFound: there is none of a name; nothing was deleted.
            ScheduleError: one is declared, and `force` was not said; or several fit a name. Nothing was deleted.
        """
        check_notes(reason, by)
        some = _some(names)
        return self._block("delete", lambda store: _delete(store, some, reason, by, force=force))

    async def adelete(
        self, *names: str, force: bool = False, reason: str = "", by: str = ""
    ) -> Sequence[str]:
        """Delete schedules; the async form of `delete`."""
        check_notes(reason, by)
        some = _some(names)
        return await self._asks.aask(lambda store: _delete(store, some, reason, by, force=force))

    def _new(
        self, signature: Signature[object], schedule: Schedule, name: str, description: str
    ) -> NewSchedule:
        if isinstance(name, str) and "/" in name:
            raise OptionError(
                f"name={name!r}: a slash stands in names of declared schedules, after their application's; expected a "
                "name without"
            )
        return self._template(signature, schedule, name, description)

    def _block(self, name: str, work: Callable[[Store], Awaitable[T]]) -> T:
        refuse_on_loop(f"harbor.schedules.{name}()", f"harbor.schedules.a{name}(...)")
        return self._asks.ask(work)


async def _all(store: Store, application: str | None) -> Sequence[ScheduleRecord]:
    found: list[ScheduleRecord] = []
    while True:
        after = found[-1].name if found else None
        page = await store.schedule_find(ScheduleFind(application=application, after=after, limit=_PAGE))
        found += page
        if len(page) < _PAGE:
            return found


async def _one(store: Store, name: str) -> ScheduleRecord:
    (record,) = await _found(store, [name])
    return record


async def _found(store: Store, names: Iterable[str]) -> Sequence[ScheduleRecord]:
    """Return the schedules that are meant, each once, in the order in which they were named."""
    wanted = list(dict.fromkeys(names))
    there = {record.name: record for record in await store.schedule_find(ScheduleFind(names=wanted))}
    short = [name for name in wanted if name not in there]
    everything = {record.name: record for record in await _all(store, None)} if short else {}
    for name in short:
        fitting = [whole for whole in everything if _own_name(whole) == name]
        if not fitting:
            known = [*everything, *(_own_name(whole) for whole in everything)]
            raise ScheduleNotFound(f"there is no schedule {name!r}{nearest(name, known)}", name=name)
        if len(fitting) > 1:
            raise ScheduleError(
                f"{name!r} fits several schedules; say which: {', '.join(fitting)}", name=name
            )
        there[name] = everything[fitting[0]]
    return list({there[name].name: there[name] for name in wanted}.values())


def _own_name(whole: str) -> str:
    """Return a schedule's name without its application's, which has no slash; its own may have some."""
    before, slash, after = whole.partition("/")
    return after if slash else before


async def _create(store: Store, made: NewSchedule, act: Act, *, replace: bool) -> ScheduleRecord:
    (status,) = await store.schedule_create(ScheduleCreate(schedules=[made], replace=replace, act=act))
    record = await _one(store, made.name)
    if status is CreateStatus.EXISTING:
        told = (
            "declared by an application, which alone may change it" if record.application else "there already"
        )
        hint = "" if record.application else "; pass replace=True (--replace) to change it"
        raise ScheduleError(f"the schedule {made.name!r} is {told}{hint}", name=made.name)
    return record


async def _pause(store: Store, names: Sequence[str], reason: str, by: str) -> Sequence[ScheduleRecord]:
    whole = [record.name for record in await _found(store, names)]
    act = _act("schedules.pause", whole, reason, by)
    await store.schedule_pause(SchedulePause(names=whole, reason=reason, by=by, act=act))
    return await _found(store, whole)


async def _resume(store: Store, names: Sequence[str], reason: str, by: str) -> Sequence[ScheduleRecord]:
    whole = [record.name for record in await _found(store, names)]
    act = _act("schedules.resume", whole, reason, by)
    await store.schedule_resume(ScheduleResume(names=whole, act=act))
    return await _found(store, whole)


async def _delete(store: Store, names: Sequence[str], reason: str, by: str, *, force: bool) -> Sequence[str]:
    found = await _found(store, names)
    declared = [record for record in found if record.application is not None]
    if declared and not force:
        raise ScheduleError(
            f"the schedule {declared[0].name!r} is declared by the application {declared[0].application!r}: take it "
            "out of its code, or pause it; force=True (--force) deletes it until a later generation declares it again",
            name=declared[0].name,
        )
    whole = [record.name for record in found]
    act = _act("schedules.delete", whole, reason, by)
    await store.schedule_delete(ScheduleDelete(names=whole, act=act))
    return whole


async def _trigger(store: Store, name: str, reason: str, by: str) -> Sent:
    job_id = new_job_id()
    record = await _one(store, name)
    # Firing is not one step with writing it down: what is meant stands in the trail before, what came of it after.
    act = _act("schedules.trigger", [record.name], reason, by)
    await store.audit_write(AuditWrite(act=act, named=1, changed=0))
    for _ in range(_ATTEMPTS):
        job = msgspec.structs.replace(
            record.job, id=job_id, meta={**record.job.meta, SCHEDULE_META: record.name}
        )
        firing = Firing(name=record.name, revision=record.revision, jobs=[job])
        (answer,) = await store.schedule_fire(ScheduleFire(firings=[firing]))
        if answer.moved:
            if any(one.status is EnqueueStatus.CREATED for one in answer.jobs):
                await store.audit_write(AuditWrite(act=act, named=0, changed=1))
            _ = refuse_taken(firing.jobs, answer.jobs)
            (stored,) = answer.jobs
            return Sent(stored.job_id, stored.status is EnqueueStatus.CREATED)
        record = await _one(store, name)
    raise ScheduleError(
        f"the schedule {name!r} was changed by others {_ATTEMPTS} times while it was to be triggered; try again",
        name=name,
    )


def _act(action: str, names: Sequence[str], reason: str, by: str) -> Act:
    return make_act(action, told_names(names), by=by, reason=reason)


def _some(names: Sequence[str]) -> Sequence[str]:
    if not names:
        raise OptionError("no schedule was named; name one or more")
    return text_list(names, "names", "names of schedules, one by one")
