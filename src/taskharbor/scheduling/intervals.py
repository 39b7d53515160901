"""The ticks of a fixed period: instants, whatever clocks on walls do. All of it is arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from taskharbor.clock import EPOCH
from taskharbor.schedule import Every


def forwards(trigger: Every, after: datetime) -> Iterator[datetime]:
    """Yield the ticks after an instant, in order; there are none after the year 9999."""
    number = max(number_at(trigger, after) + 1, 0)
    try:
        while True:
            yield tick_at(trigger, number)
            number += 1
    except OverflowError:
        return


def number_at(trigger: Every, instant: datetime) -> int:
    """Return the number of the last tick up to an instant, itself included: 0 is the first, -1 is before it."""
    return max((instant - (trigger.start or EPOCH)) // trigger.period, -1)


def tick_at(trigger: Every, number: int) -> datetime:
    """Return the tick of that number."""
    return (trigger.start or EPOCH) + number * trigger.period
