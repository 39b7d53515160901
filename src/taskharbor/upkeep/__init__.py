"""Work that keeps the store in order, never as jobs of the queue itself: it has to work when nothing else does.

    upkeep.py      by every worker: expired leases are taken from the dead
    leading.py     by one at a time, who leads: schedules are fired, and what has outlived its retention is pruned
    leadership.py  whether this worker is the one
    scheduler.py   firing what is due
    declaring.py   at a worker's start: the application's schedules are stored
    limits.py      and the limits that its tasks declare

Who leads holds a lease in the store, under a fence that grows with each leader. It is asked for at a third of its ten
seconds and given back at a worker's end. A worker that was stopped and comes back late still believes that it leads,
for a moment: what it writes then carries an old fence and changes nothing. And each firing names the revision of its
schedule, so that of two that were planned from the same state one is void: a tick has one job, whoever died between.
"""

from taskharbor.upkeep.declaring import declare
from taskharbor.upkeep.leadership import Leadership
from taskharbor.upkeep.leading import Leading
from taskharbor.upkeep.limits import DeclaredLimits
from taskharbor.upkeep.scheduler import Scheduler
from taskharbor.upkeep.upkeep import Upkeep

__all__ = ["DeclaredLimits", "Leadership", "Leading", "Scheduler", "Upkeep", "declare"]
