"""When a failed attempt is tried again: how often, after what wait, and which exceptions are treated apart.

The wait before attempt n+1 is drawn evenly from 0 to `min(cap, base * factor**(n-1))`: exponential backoff with full
jitter, as described at https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ .
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import timedelta
from typing import ClassVar

import msgspec

from taskharbor.errors import OptionError

# Past this no policy means anything: it is where integers of every store still fit.
MAX_ATTEMPTS = 32_000
_LONGEST = timedelta(days=3650)


class RetryNumbers(msgspec.Struct, frozen=True, gc=False):
    """The part of a policy that is stored with each job, so that any worker's upkeep can apply it after a crash."""

    max_attempts: int = 5
    """Attempts in all: 1 means no retry."""
    base_seconds: float = 1.0
    factor: float = 2.0
    cap_seconds: float = 3600.0
    jitter: bool = True

    def backoff(self, attempt: int, *, draw: float | None = None) -> timedelta:
        """Return the wait after failed attempt number `attempt` (from 1).

        `draw` in [0, 1) replaces the random number, for tests. Always within 0 and the cap.
        """
        try:
            ceiling = min(self.cap_seconds, self.base_seconds * self.factor ** max(attempt - 1, 0))
        except OverflowError:
            ceiling = self.cap_seconds if self.base_seconds else 0.0
        if not self.jitter:
            return timedelta(seconds=ceiling)
        # Jitter spreads load; nobody gains by guessing it.
        return timedelta(seconds=ceiling * (random.random() if draw is None else draw))


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """A task's retry policy.

    Attributes:
        max_attempts: attempts in all, not extra tries; 1 means no retry.
        base: the longest wait after the first failed attempt.
        factor: by how much that grows with each further one.
        cap: no wait is longer than this.
        jitter: draw the wait evenly from 0 to its ceiling (True), or always wait the ceiling.
        on: policies for exception types, the nearest class in the exception's MRO winning. `Retry.never` makes the
            first failure of that type a dead letter. Stays with the task: it is refused in `options(retry=...)`.

    Raises:
        OptionError: a number that cannot be, such as `max_attempts=0`.
    """

    max_attempts: int = 5
    base: timedelta = timedelta(seconds=1)
    factor: float = 2.0
    cap: timedelta = timedelta(hours=1)
    jitter: bool = True
    on: Mapping[type[BaseException], Retry] = {}

    never: ClassVar[Retry]

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be."""
        if (
            isinstance(self.max_attempts, bool)
            or not isinstance(self.max_attempts, int)
            or not 1 <= self.max_attempts <= MAX_ATTEMPTS
        ):
            raise OptionError(
                f"Retry(max_attempts={self.max_attempts!r}): expected 1 to {MAX_ATTEMPTS}; "
                "it counts all attempts, so 1 means no retry"
            )
        for name, value in (("base", self.base), ("cap", self.cap)):
            if not isinstance(value, timedelta) or not timedelta(0) <= value <= _LONGEST:
                raise OptionError(
                    f"Retry({name}={value!r}): expected a timedelta from 0 to {_LONGEST.days} days"
                )
        if (
            isinstance(self.factor, bool)
            or not isinstance(self.factor, (int, float))
            or not 1 <= self.factor <= 1000
        ):
            raise OptionError(f"Retry(factor={self.factor!r}): expected a number from 1 to 1000")
        if not isinstance(self.jitter, bool):
            raise OptionError(f"Retry(jitter={self.jitter!r}): expected True or False")
        if not isinstance(self.on, Mapping):
            raise OptionError(f"Retry(on={self.on!r}): expected a dict of exception class to Retry")
        for kind, policy in self.on.items():
            if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                raise OptionError(f"Retry(on={{{kind!r}: ...}}): the keys are exception classes")
            if not isinstance(policy, Retry) or policy.on:
                raise OptionError(
                    f"Retry(on={{{kind.__name__}: ...}}): expected a Retry without an `on` of its own"
                )

    def numbers(self) -> RetryNumbers:
        """Return what is stored with each job."""
        return RetryNumbers(
            max_attempts=self.max_attempts,
            base_seconds=self.base.total_seconds(),
            factor=self.factor,
            cap_seconds=self.cap.total_seconds(),
            jitter=self.jitter,
        )

    def policy_for(self, error: BaseException) -> Retry | None:
        """Return the `on` policy of the nearest class in the error's MRO, or None when none applies."""
        if self.on:
            for kind in type(error).__mro__:
                policy = self.on.get(kind)
                if policy is not None:
                    return policy
        return None


Retry.never = Retry(max_attempts=1)
