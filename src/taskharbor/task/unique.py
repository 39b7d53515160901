"""What a task declares of its calls being unique: which of them count as the same, and what becomes of the second.

A declaration comes to a key for each call, derived from its arguments (`keying`), and a rule that says for how long the
job that has the key keeps others out (rule 20). A call with a key of its own, `options(key=...)`, has that one instead.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import date, timedelta
from enum import Enum
from typing import Any, Literal, TypeAlias, assert_never, cast
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from taskharbor.call import OnConflictName
from taskharbor.errors import OptionError, nearest
from taskharbor.job import LIVE, REPLACEABLE, TERMINAL, JobState, KeyRule, OnConflict

KeyPart: TypeAlias = str | int | UUID | date | Enum | None
"""What a key is made of. (A bool is an int, a datetime a date.)"""
KeyValue: TypeAlias = KeyPart | tuple[KeyPart, ...]
"""What a key function returns."""
# What a function takes here are the arguments of whatever is decorated: no checker can know their types yet. They are
# checked when the task is declared, and by checkers where the function is given to `task.unique_by` instead.
Key: TypeAlias = str | tuple[str, ...] | Callable[[Any], KeyValue]
"""A parameter's name, several, or a function of the arguments, which are attributes: `lambda args: args.account`.

Such a function is run once when the task is declared, on stand-ins that know the parameters' types, and then for each
call. It has no effects, and returns the same for the same arguments."""
StateName: TypeAlias = Literal[
    "waiting", "scheduled", "ready", "parked", "running", "retrying", "succeeded", "dead", "cancelled"
]

_LONGEST = timedelta(days=3650)


class Unique(msgspec.Struct, frozen=True, kw_only=True):
    """One job at a time for each key: `@task(unique=Unique(key="account"))`.

    Other arguments under the same key are the same request: only the key counts.
    """

    key: Key | None = None
    """What tells calls apart; None for one job of the whole task."""
    states: Collection[JobState | StateName] | None = None
    """In which of its states a job keeps others out; None for as long as it is live. An ended state counts as long as
    the task's `retain`."""
    window: timedelta | None = None
    """Also for so long after it was enqueued, whatever became of it, unless it was deleted. The job can be looked up as
    long, if `retain` is shorter."""
    on_conflict: OnConflictName = "existing"
    """`existing`: the call answers with the job that is there, `created=False`. `raise`: `DuplicateJob`. `replace`: its
    arguments, options and time take the place of those of the job that is there, as long as no worker has it;
    else the call is a new job, so that nothing accepted is lost."""

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            OptionError: an unknown state, a window out of bounds, or states that cannot be replaced.
        """
        check_key("Unique", self.key)
        if self.states is not None:
            _check_states(self.states)
        if self.window is not None:
            _check_duration("Unique(window", self.window)
        if self.on_conflict not in tuple(OnConflict):
            raise OptionError(
                f"Unique(on_conflict={self.on_conflict!r}): expected 'existing', 'raise' or 'replace'"
            )
        if self.on_conflict != "replace":
            return
        fixed = sorted(set(self.states or ()) - REPLACEABLE)
        if fixed:
            raise OptionError(
                f"Unique(states=..., on_conflict='replace'): a job that is {' or '.join(fixed)} cannot be replaced; "
                f"leave out {' and '.join(map(repr, map(str, fixed)))}, or on_conflict"
            )
        if self.window is not None:
            raise OptionError(
                "Unique(window=..., on_conflict='replace'): a window keeps others out, and 'replace' lets each of them "
                "in; leave one of them out, or see Throttle and Debounce"
            )


class Debounce(msgspec.Struct, frozen=True):
    """Calls that come in a row become one job, with the arguments of the last: `@task(unique=Debounce(wait))`.

    Each call puts the start off, and takes the place of the one before. Once a worker has that job, or a call says when
    it is to start (`run_at`, `run_in`), nothing is put off: the former is followed by a job of its own.
    """

    wait: timedelta
    """How long it is quiet before the job starts."""
    key: Key | None = None
    """What tells rows apart; None for one of the whole task."""
    at_most: timedelta | None = None
    """The start is put off to so long after the first call, at the most; None for no end to it."""

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            OptionError: a duration out of bounds.
        """
        _check_duration("Debounce(wait", self.wait)
        check_key("Debounce", self.key)
        if self.at_most is None:
            return
        _check_duration("Debounce(at_most", self.at_most)
        if self.at_most < self.wait:
            raise OptionError(
                f"Debounce(at_most={self.at_most!r}): expected no less than the wait, {self.wait!r}"
            )


class Throttle(msgspec.Struct, frozen=True):
    """One job in so long a time; calls in between answer with it: `@task(unique=Throttle(timedelta(minutes=1)))`.

    The time runs from when the job was enqueued, whatever became of it, unless it was deleted. The job can be looked up
    as long, if the task's `retain` is shorter.
    """

    per: timedelta
    key: Key | None = None
    """What tells calls apart; None for one of the whole task."""

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            OptionError: a duration out of bounds.
        """
        _check_duration("Throttle(per", self.per)
        check_key("Throttle", self.key)


Uniqueness: TypeAlias = Unique | Debounce | Throttle


class Terms(msgspec.Struct, frozen=True):
    """What a declaration means for a job, but for its key."""

    rule: KeyRule
    on_conflict: OnConflict = OnConflict.EXISTING
    key_ttl: timedelta = timedelta(0)
    """At least."""
    run_in: timedelta | None = None
    """Where a call does not say when it starts."""


def terms_of(declared: Uniqueness, asked: OnConflictName | UnsetType, retain: timedelta) -> Terms:
    """Return what a declaration means for a call that asks for something else on a conflict, or for nothing.

    Raises:
        OptionError: a call cannot ask for that.
    """
    match declared:
        case Unique():
            return _of_unique(declared, asked, retain)
        case Debounce():
            if asked not in (UNSET, "replace"):
                raise OptionError(
                    f"on_conflict={asked!r}: a task that is declared with Debounce(...) replaces the call before; give "
                    "this one a key of its own, or leave on_conflict out"
                )
            rule = KeyRule(states=tuple(sorted(REPLACEABLE)), latest=declared.at_most)
            return Terms(rule, OnConflict.REPLACE, run_in=declared.wait)
        case Throttle():
            if asked == "replace":
                raise OptionError(
                    "on_conflict='replace': a task that is declared with Throttle(...) keeps calls out for a time; "
                    "give this one a key of its own, or leave on_conflict out"
                )
            on_conflict = OnConflict.EXISTING if asked is UNSET else OnConflict(asked)
            return Terms(KeyRule(window=declared.per), on_conflict, key_ttl=declared.per)
        case _:
            assert_never(declared)


def _of_unique(declared: Unique, asked: OnConflictName | UnsetType, retain: timedelta) -> Terms:
    on_conflict = OnConflict(declared.on_conflict if asked is UNSET else asked)
    replaces = declared.on_conflict == "replace"
    states = frozenset(
        map(JobState, declared.states) if declared.states is not None else (REPLACEABLE if replaces else LIVE)
    )
    if on_conflict is OnConflict.REPLACE:
        return Terms(KeyRule(states=tuple(sorted(states & REPLACEABLE))), on_conflict)
    # An ended job holds its key for that long only.
    ended = retain if states & TERMINAL else timedelta(0)
    rule = KeyRule(states=tuple(sorted(states)), window=declared.window)
    return Terms(rule, on_conflict, key_ttl=max(ended, declared.window or timedelta(0)))


def check_declared(given: object) -> None:
    """Refuse what is no declaration.

    Raises:
        OptionError: it is none.
    """
    if given is None or isinstance(given, (Unique, Debounce, Throttle)):
        return
    call = "; call it" if isinstance(given, type) and issubclass(given, (Unique, Debounce, Throttle)) else ""
    raise OptionError(f"unique={given!r}: expected Unique(...), Debounce(...) or Throttle(...){call}")


def check_key(where: str, key: object) -> None:
    """Refuse what can be no key of any task.

    Raises:
        OptionError: it is neither names nor a function.
    """
    if key is not None:
        check_named(f"{where}(key={key!r})", key)


def check_named(told: str, key: object) -> None:
    """Refuse what names no key; raises `OptionError`. `told` is how it was given."""
    if callable(key) or (isinstance(key, str) and key):
        return
    if (
        isinstance(key, tuple)
        and key
        and all(isinstance(name, str) for name in cast("tuple[object, ...]", key))
    ):
        return
    raise OptionError(
        f"{told}: expected a parameter's name, a tuple of names, or a function of the arguments, such as "
        "lambda args: args.account"
    )


def _check_states(states: object) -> None:
    if isinstance(states, str) or not isinstance(states, Collection) or not states:
        raise OptionError(
            f"Unique(states={states!r}): expected a set of states, such as {{'scheduled', 'ready'}}; leave it out for "
            "as long as a job is live"
        )
    known = [state.value for state in JobState]
    for state in cast("Collection[object]", states):
        if state not in known:
            raise OptionError(
                f"Unique(states=...): there is no state {state!r}{nearest(str(state), known)}; expected of "
                f"{', '.join(known)}"
            )


def _check_duration(what: str, value: object) -> None:
    if not isinstance(value, timedelta) or not timedelta(0) < value <= _LONGEST:
        raise OptionError(f"{what}={value!r}): expected a timedelta above 0 and up to {_LONGEST.days} days")
