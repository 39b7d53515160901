"""Checks of what is declared about queues that share a worker: weights, reserved slots, aging."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from taskharbor.call.options import check_name
from taskharbor.errors import OptionError, nearest

_MOST = 1000
"""A greater weight says the same as this, but lets the others wait for long."""
_SHORTEST = timedelta(milliseconds=1)
AGING_SHARE = 0.1
"""With aging, unless it says otherwise."""


def check_shares(
    weights: Mapping[str, int] | None,
    reserved: Mapping[str, int] | None,
    *,
    concurrency: int,
    queues: Sequence[str] | None,
) -> None:
    """Refuse weights and reserved slots that cannot be; `queues` are those served, None if that is not known yet.

    Raises:
        OptionError: says which, and what was expected.
    """
    for name, given, most in (("weights", weights, _MOST), ("reserved", reserved, concurrency)):
        if given is None:
            continue
        if not isinstance(given, Mapping):
            raise OptionError(
                f"{name}={given!r}: expected a mapping of queue to number, such as {{'mail': 3}}"
            )
        for queue, number in given.items():
            check_name(queue, name)
            if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= most:
                slots = " (all slots there are)" if name == "reserved" else ""
                raise OptionError(
                    f"{name}: {number!r} for queue {queue!r}: expected a whole number from 1 to {most}{slots}"
                )
            if queues is not None and queue not in queues:
                raise OptionError(
                    f"{name}: queue {queue!r} is not served here{nearest(queue, queues)}; this worker serves "
                    f"{', '.join(queues)}"
                )
    _check_room(reserved or {}, concurrency, queues)


def _check_room(reserved: Mapping[str, int], concurrency: int, queues: Sequence[str] | None) -> None:
    whole = sum(reserved.values())
    if whole > concurrency:
        raise OptionError(
            f"reserved={dict(reserved)!r} comes to {whole} slots, and the worker has {concurrency}; reserve fewer, or "
            "raise concurrency"
        )
    others = [queue for queue in queues or () if queue not in reserved]
    if others and whole == concurrency:
        raise OptionError(
            f"reserved={dict(reserved)!r} leaves none of the {concurrency} slots for {', '.join(others)}; reserve "
            "fewer, or raise concurrency"
        )


def check_aging(after: timedelta | None, share: float | None) -> None:
    """Refuse aging that cannot be.

    Raises:
        OptionError: says what was expected.
    """
    if after is not None and (not isinstance(after, timedelta) or after < _SHORTEST):
        raise OptionError(f"aging={after!r}: expected a timedelta of at least 1 ms, or None")
    if share is None:
        return
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
        raise OptionError(f"aging_share={share!r}: expected a number above 0 and at most 1")
    if after is None:
        raise OptionError(f"aging_share={share!r}: goes with aging, which was not given")
