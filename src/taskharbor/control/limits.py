"""`harbor.limits`: limits set by hand, and tasks and keys held back, while workers run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from msgspec import UNSET, UnsetType

from taskharbor.audit import Act
from taskharbor.call import refuse_on_loop
from taskharbor.clock import duration_micros, told_duration
from taskharbor.control.acts import make_act, told_names
from taskharbor.control.asking import Asks
from taskharbor.control.scopes import ScopeLike, held_scopes, scope_of, scopes_of
from taskharbor.driver import (
    HoldLift,
    HoldList,
    HoldPlace,
    LimitClear,
    LimitList,
    LimitSet,
    LimitSetAnswer,
    Store,
)
from taskharbor.errors import OptionError
from taskharbor.limit import HoldRecord, LimitRecord, LimitTerms, RateTerms, Scope
from taskharbor.task import Rate

T = TypeVar("T")
_MOST = 1_000_000_000


class Limits:
    """Limits, and what is held back. Every method has an `a` form for event loops.

    A scope is written `queue:mail`, `task:send`, `keys:send` (each key of the task on its own) or `key:send:acme`, or
    is a task itself. What is set by hand stands in the place of what code declares, for all workers at once, until it
    is cleared.
    """

    def __init__(self, asks: Asks, tasks: Callable[[], Iterable[str]]) -> None:
        """Made by the harbor, which tells the names of its tasks."""
        self._asks = asks
        self._tasks = tasks

    def list(self) -> Sequence[LimitRecord]:
        """Return every scope that has limits, declared or set by hand, sorted, with how many jobs of it run."""
        return self._block("list", lambda store: store.limit_list(LimitList()))

    async def alist(self) -> Sequence[LimitRecord]:
        """Return every scope that has limits; the async form of `list`."""
        return await self._asks.aask(lambda store: store.limit_list(LimitList()))

    def get(self, scope: ScopeLike) -> LimitRecord:
        """Return the limits of one scope; an empty record if it has none.

        Raises:
            OptionError: there is no such scope.
        """
        wanted = self._scope(scope)
        return self._block("get", lambda store: _one(store, wanted))

    async def aget(self, scope: ScopeLike) -> LimitRecord:
        """Return the limits of one scope; the async form of `get`."""
        wanted = self._scope(scope)
        return await self._asks.aask(lambda store: _one(store, wanted))

    def set(
        self,
        scope: ScopeLike,
        *,
        max_running: int | UnsetType | None = UNSET,
        rate: Rate | RateTerms | UnsetType | None = UNSET,
        by: str = "",
        reason: str = "",
    ) -> LimitSetAnswer:
        """Set the limits of a scope by hand, from now on and for all workers; return what was in force before.

        Args:
            scope: what they are on.
            max_running: how many of its jobs may be leased at the same instant; 0 stops them, None lifts the limit.
            rate: how many of them may start in a time, as `Rate(100, per=timedelta(minutes=1))`; None lifts it.
                What is not given of the two stays as it is in force.
            by: who; by default the user whose process this is.
            reason: why; shown to whoever lists the limits.

        Raises:
            OptionError: there is no such scope, nothing is set, or a number cannot be.
        """
        wanted, change = self._scope(scope), _change(max_running, rate)
        act = make_act("limits.set", str(wanted), by=by, reason=reason)
        return self._block("set", lambda store: _set(store, wanted, change, act))

    async def aset(
        self,
        scope: ScopeLike,
        *,
        max_running: int | UnsetType | None = UNSET,
        rate: Rate | RateTerms | UnsetType | None = UNSET,
        by: str = "",
        reason: str = "",
    ) -> LimitSetAnswer:
        """Set the limits of a scope by hand; the async form of `set`."""
        wanted, change = self._scope(scope), _change(max_running, rate)
        act = make_act("limits.set", str(wanted), by=by, reason=reason)
        return await self._asks.aask(lambda store: _set(store, wanted, change, act))

    def clear(self, *scopes: ScopeLike, by: str = "", reason: str = "") -> Sequence[bool]:
        """Take back what was set by hand: what code declares is in force again. Return of each whether there was any.

        Raises:
            OptionError: none is named, or there is no such scope.
        """
        request = self._clear(scopes, by, reason)
        return self._block("clear", lambda store: store.limit_clear(request))

    async def aclear(self, *scopes: ScopeLike, by: str = "", reason: str = "") -> Sequence[bool]:
        """Take back what was set by hand; the async form of `clear`."""
        request = self._clear(scopes, by, reason)
        return await self._asks.aask(lambda store: store.limit_clear(request))

    def hold(self, *scopes: ScopeLike, by: str = "", reason: str = "") -> Sequence[bool]:
        """Hold back tasks, or single keys of tasks: from now on no worker takes their jobs. What runs goes on.

        Return of each whether it was not held back before; where it was, the first reason stands.

        Raises:
            OptionError: none is named, or one is no task and no key of one.
        """
        request = self._hold(scopes, by, reason)
        return self._block("hold", lambda store: store.hold_place(request))

    async def ahold(self, *scopes: ScopeLike, by: str = "", reason: str = "") -> Sequence[bool]:
        """Hold back tasks, or single keys of tasks; the async form of `hold`."""
        request = self._hold(scopes, by, reason)
        return await self._asks.aask(lambda store: store.hold_place(request))

    def lift(self, *scopes: ScopeLike, by: str = "", reason: str = "") -> Sequence[bool]:
        """Let go of what is held back, and return of each whether it was.

        Raises:
            OptionError: none is named, or one is no task and no key of one.
        """
        request = self._lift(scopes, by, reason)
        return self._block("lift", lambda store: store.hold_lift(request))

    async def alift(self, *scopes: ScopeLike, by: str = "", reason: str = "") -> Sequence[bool]:
        """Let go of what is held back; the async form of `lift`."""
        request = self._lift(scopes, by, reason)
        return await self._asks.aask(lambda store: store.hold_lift(request))

    def holds(self) -> Sequence[HoldRecord]:
        """Return what is held back, sorted by scope."""
        return self._block("holds", lambda store: store.hold_list(HoldList()))

    async def aholds(self) -> Sequence[HoldRecord]:
        """Return what is held back; the async form of `holds`."""
        return await self._asks.aask(lambda store: store.hold_list(HoldList()))

    def _scope(self, given: ScopeLike) -> Scope:
        return scope_of(given, self._tasks())

    def _clear(self, given: Sequence[ScopeLike], by: str, reason: str) -> LimitClear:
        scopes = scopes_of(given, self._tasks())
        return LimitClear(scopes=scopes, act=_act("limits.clear", scopes, by, reason))

    def _hold(self, given: Sequence[ScopeLike], by: str, reason: str) -> HoldPlace:
        scopes = held_scopes(given, self._tasks())
        act = _act("limits.hold", scopes, by, reason)
        return HoldPlace(scopes=scopes, by=act.by, reason=reason, act=act)

    def _lift(self, given: Sequence[ScopeLike], by: str, reason: str) -> HoldLift:
        scopes = held_scopes(given, self._tasks())
        return HoldLift(scopes=scopes, act=_act("limits.lift", scopes, by, reason))

    def _block(self, name: str, work: Callable[[Store], Awaitable[T]]) -> T:
        refuse_on_loop(f"harbor.limits.{name}()", f"harbor.limits.a{name}(...)")
        return self._asks.ask(work)


def told_terms(terms: LimitTerms) -> str:
    """Return limits as people read them: `at most 5 running, 100/1m (burst 20)`; "none" if there are none."""
    parts: list[str] = []
    if terms.max_running is not None:
        parts.append(f"at most {terms.max_running:,} running")
    if terms.rate is not None:
        rate = terms.rate
        parts.append(
            f"{rate.limit}/{told_duration(rate.per)}" + (f" (burst {rate.burst})" if rate.burst > 1 else "")
        )
    return ", ".join(parts) or "none"


Change = Callable[[LimitTerms], LimitTerms]


def _change(max_running: int | UnsetType | None, rate: Rate | RateTerms | UnsetType | None) -> Change:
    """Return what makes new limits of those in force."""
    if max_running is UNSET and rate is UNSET:
        raise OptionError(
            "no limit was given: say max_running=, rate=, or both; None lifts one, and clear(...) goes back to what "
            "code declares"
        )
    if max_running is not UNSET and max_running is not None:
        _check_count("max_running", max_running, 0)
    terms = rate if rate is UNSET else _rate_terms(rate)

    def change(before: LimitTerms) -> LimitTerms:
        return LimitTerms(
            max_running=before.max_running if max_running is UNSET else max_running,
            rate=before.rate if terms is UNSET else terms,
        )

    return change


def _rate_terms(rate: Rate | RateTerms | None) -> RateTerms | None:
    if isinstance(rate, Rate):
        if rate.key is not None:
            raise OptionError(
                f"rate={rate!r}: a task's code says what its keys are; limit each of them with the scope keys:TASK"
            )
        return rate.terms
    if rate is None:
        return None
    if not _are_terms(rate):
        raise OptionError(f"rate={rate!r}: expected Rate(100, per=timedelta(minutes=1)), or None for none")
    _check_count("rate.limit", rate.limit, 1)
    _check_count("rate.burst", rate.burst, 1)
    if duration_micros(rate.per) < rate.limit:
        raise OptionError(f"rate={rate!r}: expected a time of at least a microsecond for each job")
    return rate


def _are_terms(rate: object) -> bool:
    return isinstance(rate, RateTerms)


def _check_count(what: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _MOST:
        raise OptionError(f"{what}={value!r}: expected a whole number from {least} to {_MOST:,}")


async def _one(store: Store, scope: Scope) -> LimitRecord:
    for record in await store.limit_list(LimitList()):
        if record.scope == scope:
            return record
    return LimitRecord(scope=scope)


async def _set(store: Store, scope: Scope, change: Change, act: Act) -> LimitSetAnswer:
    before = (await _one(store, scope)).terms
    terms = change(before)
    told = Act(
        id=act.id,
        action=act.action,
        target=act.target,
        by=act.by,
        reason=act.reason,
        details={"before": told_terms(before), "after": told_terms(terms)},
    )
    return await store.limit_set(LimitSet(scope=scope, terms=terms, by=act.by, reason=act.reason, act=told))


def _act(action: str, scopes: Sequence[Scope], by: str, reason: str) -> Act:
    return make_act(action, told_names([str(scope) for scope in scopes]), by=by, reason=reason)
