"""When schedules fire, and what becomes of each tick. Nothing here reads a clock or asks a store.

    zone.py       time zones: the offset at an instant, and when it changes
    crontab.py    the ticks of a cron expression on the clocks of a zone, forwards and backwards
    intervals.py  the ticks of a fixed period
    times.py      the ticks of a schedule, and those that are late
    making.py     cron(...) and every(...): what is refused, and why
    plan.py       the one decision: misfires, overlaps, limits

Cronsim reads the expressions and walks calendars; it is imported when the first expression is read. Time zones are this
room's: instants are what ticks are, and walls only show them.
"""

from taskharbor.scheduling.making import cron, every
from taskharbor.scheduling.plan import plan, tick_id
from taskharbor.scheduling.times import ticks

__all__ = ["cron", "every", "plan", "tick_id", "ticks"]
