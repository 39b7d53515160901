"""`harbor.retention`: rules on how long ended jobs are kept, and removing what is kept no longer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import TypeVar

from taskharbor.audit import Act
from taskharbor.call import refuse_on_loop
from taskharbor.call.options import check_duration
from taskharbor.clock import told_duration
from taskharbor.control.acts import make_act
from taskharbor.control.asking import Asks
from taskharbor.control.scopes import NamedTask, task_name
from taskharbor.driver import (
    HistoryPrune,
    Pruned,
    RetentionList,
    RetentionRecord,
    RetentionRule,
    RetentionSet,
    Store,
)
from taskharbor.errors import OptionError
from taskharbor.job import TERMINAL, JobState

T = TypeVar("T")
_MOST = 1_000_000_000_000


class RetentionRules:
    """Rules of retention, and pruning by hand. Every method has an `a` form for event loops.

    A rule shortens what jobs say of themselves (`retain`), and never lengthens it; without one for them, dead letters
    are kept until a person deletes them. Workers apply the rules about every ten minutes.
    """

    def __init__(self, asks: Asks) -> None:
        """Made by the harbor."""
        self._asks = asks

    def list(self) -> Sequence[RetentionRecord]:
        """Return the rules, sorted by task and state, each with who set it, and why."""
        return self._block("list", lambda store: store.retention_list(RetentionList()))

    async def alist(self) -> Sequence[RetentionRecord]:
        """Return the rules; the async form of `list`."""
        return await self._asks.aask(lambda store: store.retention_list(RetentionList()))

    def set(
        self,
        state: JobState,
        *,
        task: NamedTask | str = "",
        keep_for: timedelta | None = None,
        keep_last: int | None = None,
        by: str = "",
        reason: str = "",
    ) -> bool:
        """Set a rule, in the place of the one for its task and state, and return whether that changed anything.

        Args:
            state: which jobs: succeeded, cancelled or dead ones.
            task: of which task, by its name; empty for every task that has no rule of its own for the state.
            keep_for: no longer than this after they ended.
            keep_last: of each task no more than these, the ones that ended last.
            by: who; by default the user whose process this is.
            reason: why.

        Raises:
            OptionError: the rule says nothing, or what cannot be.
        """
        request = _set(_rule(state, task, keep_for, keep_last), by, reason)
        return _only(self._block("set", lambda store: store.retention_set(request)))

    async def aset(
        self,
        state: JobState,
        *,
        task: NamedTask | str = "",
        keep_for: timedelta | None = None,
        keep_last: int | None = None,
        by: str = "",
        reason: str = "",
    ) -> bool:
        """Set a rule; the async form of `set`."""
        request = _set(_rule(state, task, keep_for, keep_last), by, reason)
        return _only(await self._asks.aask(lambda store: store.retention_set(request)))

    def remove(self, state: JobState, *, task: NamedTask | str = "", by: str = "", reason: str = "") -> bool:
        """Remove the rule for a task and state, and return whether there was one; raises as `set`."""
        request = _remove(state, task, by, reason)
        return _only(self._block("remove", lambda store: store.retention_set(request)))

    async def aremove(
        self, state: JobState, *, task: NamedTask | str = "", by: str = "", reason: str = ""
    ) -> bool:
        """Remove the rule for a task and state; the async form of `remove`."""
        request = _remove(state, task, by, reason)
        return _only(await self._asks.aask(lambda store: store.retention_set(request)))

    def prune(
        self,
        *,
        rules: bool = True,
        by: str = "",
        reason: str = "",
        told: Callable[[Pruned], object] | None = None,
    ) -> Pruned:
        """Remove what is kept no longer, as workers do by themselves, and return how much that was.

        Args:
            rules: apply the rules as well, which reads the whole history.
            by: who; by default the user whose process this is.
            reason: why.
            told: called after each step with what it removed.
        """
        act = make_act("retention.prune", _told_prune(rules=rules), by=by, reason=reason)
        return self._block("prune", lambda store: _prune(store, act, told, rules=rules))

    async def aprune(
        self,
        *,
        rules: bool = True,
        by: str = "",
        reason: str = "",
        told: Callable[[Pruned], object] | None = None,
    ) -> Pruned:
        """Remove what is kept no longer; the async form of `prune`."""
        act = make_act("retention.prune", _told_prune(rules=rules), by=by, reason=reason)
        return await self._asks.aask(lambda store: _prune(store, act, told, rules=rules))

    def _block(self, name: str, work: Callable[[Store], Awaitable[T]]) -> T:
        refuse_on_loop(f"harbor.retention.{name}()", f"harbor.retention.a{name}(...)")
        return self._asks.ask(work)


def told_rule(rule: RetentionRule) -> str:
    """Return what a rule keeps, as people read it: `30d`, `the last 1,000`; "all" if it keeps everything."""
    parts: list[str] = []
    if rule.keep_for is not None:
        parts.append(told_duration(rule.keep_for))
    if rule.keep_last is not None:
        parts.append(f"the last {rule.keep_last:,}")
    return ", ".join(parts) or "all"


def _told_prune(*, rules: bool) -> str:
    return "what jobs and rules keep no longer" if rules else "what jobs keep no longer"


def _rule(
    state: JobState, task: NamedTask | str, keep_for: timedelta | None, keep_last: int | None
) -> RetentionRule:
    if keep_for is None and keep_last is None:
        raise OptionError("no rule was given: say keep_for=, keep_last=, or both; remove(...) takes one back")
    if keep_for is not None:
        check_duration(keep_for, "keep_for")
    if keep_last is not None and (
        isinstance(keep_last, bool) or not isinstance(keep_last, int) or not 0 <= keep_last <= _MOST
    ):
        raise OptionError(f"keep_last={keep_last!r}: expected a whole number from 0")
    return RetentionRule(
        task=task_name(task) if task else "", state=_state(state), keep_for=keep_for, keep_last=keep_last
    )


def _state(state: JobState) -> JobState:
    ended = [one for one in JobState if one in TERMINAL]
    if state not in ended:
        raise OptionError(f"state={str(state)!r}: expected one in which jobs have ended: {', '.join(ended)}")
    return JobState(state)


def _set(rule: RetentionRule, by: str, reason: str) -> RetentionSet:
    act = make_act("retention.set", _told_of(rule), by=by, reason=reason, details={"keep": told_rule(rule)})
    return RetentionSet(rules=[rule], by=act.by, reason=reason, act=act)


def _remove(state: JobState, task: NamedTask | str, by: str, reason: str) -> RetentionSet:
    rule = RetentionRule(task=task_name(task) if task else "", state=_state(state))
    act = make_act("retention.remove", _told_of(rule), by=by, reason=reason)
    return RetentionSet(rules=[rule], by=act.by, reason=reason, act=act)


def _told_of(rule: RetentionRule) -> str:
    return f"{rule.state.value} jobs of {rule.task or 'all other tasks'}"


def _only(answers: Sequence[bool]) -> bool:
    (answer,) = answers
    return answer


async def _prune(store: Store, act: Act, told: Callable[[Pruned], object] | None, *, rules: bool) -> Pruned:
    jobs = keys = 0
    while True:
        step = await store.history_prune(HistoryPrune(rules=rules, act=act))
        jobs, keys = jobs + step.jobs, keys + step.keys
        if told is not None:
            told(step)
        if not step.more:
            return Pruned(jobs=jobs, keys=keys)
