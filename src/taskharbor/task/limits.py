"""What a task declares of limits and turns: how many jobs run at once, how many start in a time, whose turn it is.

They hold on all workers together, in the store (rules 24 and 25). What is set by hand goes before them.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from enum import Enum
from types import CodeType, FunctionType
from typing import TypeAlias, TypeVar, cast

import msgspec

from taskharbor.clock import duration_micros
from taskharbor.errors import OptionError
from taskharbor.limit import LimitTerms, RateTerms
from taskharbor.task.unique import Key, check_key, check_named

_MOST = 1_000_000_000
_LONGEST = timedelta(days=3650)


class Later(Enum):
    """A key that comes below the declaration, by `task.limit_by(...)`."""

    LIMIT_BY = "limit_by"


class Rate(msgspec.Struct, frozen=True):
    """So many jobs in such a time, spread evenly: `@task(rate=Rate(100, per=timedelta(minutes=1)))`.

    In any span of time *t* at most `burst + t * limit / per` of them start, on all workers together. (The algorithm is
    GCRA, of ITU-T I.371.)
    """

    limit: int
    per: timedelta
    burst: int = 1
    """How many may start at one instant after a quiet time."""
    key: Key | Later | None = None
    """What tells calls apart, each with a rate of its own; None for the whole task."""

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            OptionError: a number or a duration out of bounds.
        """
        _check_count("Rate(limit", self.limit)
        _check_count("Rate(burst", self.burst)
        per: object = self.per
        if not isinstance(per, timedelta) or not timedelta(0) < per <= _LONGEST:
            raise OptionError(f"Rate(per={per!r}): expected a timedelta above zero, at most 3650 days")
        if duration_micros(per) < self.limit:
            raise OptionError(
                f"Rate({self.limit}, per={per!r}): expected at least a microsecond for each job; a limit as wide as "
                "that keeps nothing back"
            )
        _check_own_key("Rate", self.key)

    @classmethod
    def each(cls, limit: int, per: timedelta, burst: int = 1) -> Rate:
        """Return one for each key, where `task.limit_by(...)` tells the key."""
        return cls(limit, per, burst, Later.LIMIT_BY)

    @property
    def terms(self) -> RateTerms:
        """Return its numbers."""
        return RateTerms(self.limit, self.per, self.burst)


class MaxRunning(msgspec.Struct, frozen=True):
    """So many jobs at the same instant: `@task(max_running=MaxRunning(1, key="account"))`.

    Counted are jobs that workers have leased, on all of them together. A worker that was killed has them until they are
    taken back, at most a lease later.
    """

    limit: int
    key: Key | Later | None = None
    """What tells calls apart, each with a limit of its own; None for the whole task."""

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            OptionError: a number out of bounds.
        """
        _check_count("MaxRunning(limit", self.limit)
        _check_own_key("MaxRunning", self.key)

    @classmethod
    def each(cls, limit: int) -> MaxRunning:
        """Return one for each key, where `task.limit_by(...)` tells the key."""
        return cls(limit, Later.LIMIT_BY)


class Limits(msgspec.Struct, frozen=True):
    """What a task declares, put together."""

    task: LimitTerms = LimitTerms()
    """Of the task as a whole."""
    keys: LimitTerms = LimitTerms()
    """Of each key."""
    key: Key | Later | None = None
    """What makes a job's partition; None: all jobs of the task stand in one line."""


_Word = TypeVar("_Word", Rate, MaxRunning)
Rates: TypeAlias = Rate | Iterable[Rate]
MostRunning: TypeAlias = int | MaxRunning | Iterable[MaxRunning]


def checked_limits(rate: Rates | None, max_running: MostRunning | None, fair: Key | None) -> Limits | None:
    """Return what `@task(rate=..., max_running=..., fair=...)` declares; None if it is nothing.

    Raises:
        OptionError: something else was given, two for the same, or keys that differ.
    """
    if rate is None and max_running is None and fair is None:
        return None
    if isinstance(max_running, int):
        _check_count("max_running", max_running)
        max_running = MaxRunning(max_running)
    rates = _sorted_out("rate", rate, Rate)
    most = _sorted_out("max_running", max_running, MaxRunning)
    if fair is not None:
        check_named(f"fair={fair!r}", fair)
    keys = [one.key for one in (rates[1], most[1]) if one is not None]
    if fair is not None:
        keys.append(fair)
    for key in keys[1:]:
        if not _same(keys[0], key):
            raise OptionError(
                "the keys of rate=, max_running= and fair= differ, and a task's jobs stand in lines by one of them; "
                "give each the same names, or the same function"
            )
    return Limits(_terms(rates[0], most[0]), _terms(rates[1], most[1]), keys[0] if keys else None)


def _sorted_out(
    option: str, given: _Word | Iterable[_Word] | None, kind: type[_Word]
) -> tuple[_Word | None, _Word | None]:
    """Return what is declared of the whole task, and of each key."""
    value: object = given
    found: tuple[object, ...] = ()
    if isinstance(value, Iterable) and not isinstance(value, str):
        found = tuple(cast("Iterable[object]", value))
    elif value is not None:
        found = (value,)
    whole: _Word | None = None
    each: _Word | None = None
    for one in found:
        if not isinstance(one, kind):
            wanted = (
                "Rate(100, per=timedelta(minutes=1))" if kind is Rate else "a whole number, MaxRunning(10)"
            )
            raise OptionError(
                f"{option}={one!r}: expected {wanted}, or a list of two, one of them with a key"
            )
        if (whole if one.key is None else each) is not None:
            raise OptionError(
                f"{option}: there are two {'without' if one.key is None else 'with'} a key; a list has one for the "
                "task as a whole and one for each key"
            )
        if one.key is None:
            whole = one
        else:
            each = one
    return whole, each


def _terms(rate: Rate | None, most: MaxRunning | None) -> LimitTerms:
    return LimitTerms(
        max_running=None if most is None else most.limit, rate=None if rate is None else rate.terms
    )


def _same(one: object, other: object) -> bool:
    """Return whether two keys are the same, as are two lambdas of one text."""
    if isinstance(one, str):
        one = (one,)
    if isinstance(other, str):
        other = (other,)
    if one == other:
        return True
    if not (isinstance(one, FunctionType) and isinstance(other, FunctionType)):
        return False
    return (
        one.__globals__ is other.__globals__
        and _text(one.__code__) == _text(other.__code__)
        and (one.__closure__, one.__defaults__, one.__kwdefaults__)
        == (other.__closure__, other.__defaults__, other.__kwdefaults__)
    )


def _text(code: CodeType) -> tuple[object, ...]:
    """Return what a function does, without where it stands."""
    of_it = cast("tuple[object, ...]", code.co_consts)
    # With their types, since 1 and True are equal.
    consts = [_text(const) if isinstance(const, CodeType) else repr(const) for const in of_it]
    # Names of its own variables count for nothing.
    return code.co_code, code.co_names, code.co_freevars, code.co_argcount, code.co_kwonlyargcount, consts


def _check_count(what: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST:
        hint = "; to stop a task, hold it back: taskharbor limits hold task:NAME" if value == 0 else ""
        raise OptionError(
            f"{what}={value!r}{')' if '(' in what else ''}: expected a whole number from 1{hint}"
        )


def _check_own_key(where: str, key: object) -> None:
    if not isinstance(key, Later):
        check_key(where, key)
