"""What an operator can do by hand, in blocking and `a` forms: `harbor.jobs`, `.queues`, `.workers`, `.schedules`,
`.statistics`, and `.feed(...)`.

asking.py    how they reach the store, and the checks that they share
choosing.py  which jobs: the filters of `find` and `count`
jobs.py queues.py workers.py schedules.py statistics.py feed.py    a file for each
"""

from taskharbor.control.asking import Asks, id_list, name_set, not_found
from taskharbor.control.choosing import JobFilters
from taskharbor.control.feed import Feed, Feeds
from taskharbor.control.jobs import Jobs
from taskharbor.control.queues import Queues
from taskharbor.control.schedules import Schedules
from taskharbor.control.statistics import Statistics
from taskharbor.control.workers import Workers

__all__ = [
    "Asks",
    "Feed",
    "Feeds",
    "JobFilters",
    "Jobs",
    "Queues",
    "Schedules",
    "Statistics",
    "Workers",
    "id_list",
    "name_set",
    "not_found",
]
