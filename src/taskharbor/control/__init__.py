"""What an operator can do by hand, in blocking and `a` forms: `harbor.jobs`, `.queues`, `.workers`, `.schedules`,
`.limits`, `.retention`, `.audit`, `.statistics`, and `.feed(...)`.

asking.py    how they reach the store, and the checks that they share
acts.py      whose act it is: what they do is written into the audit trail with what it did
scopes.py    what a limit is on, as people write it
choosing.py  which jobs: the filters of `find` and `count`
jobs.py queues.py workers.py schedules.py limits.py retention.py audit.py statistics.py feed.py    a file for each
"""

from taskharbor.control.acts import make_act, told_names, user
from taskharbor.control.asking import Asks, check_notes, id_list, name_set, not_found
from taskharbor.control.audit import AuditFilters, AuditTrail
from taskharbor.control.choosing import JobFilters
from taskharbor.control.feed import Feed, Feeds
from taskharbor.control.jobs import Jobs
from taskharbor.control.limits import Limits, told_terms
from taskharbor.control.queues import Queues
from taskharbor.control.retention import RetentionRules, told_rule
from taskharbor.control.schedules import Schedules
from taskharbor.control.scopes import NamedTask, ScopeLike, held_scopes, scope_of, scopes_of, task_name
from taskharbor.control.statistics import Statistics
from taskharbor.control.workers import Workers

__all__ = [
    "Asks",
    "AuditFilters",
    "AuditTrail",
    "Feed",
    "Feeds",
    "JobFilters",
    "Jobs",
    "Limits",
    "NamedTask",
    "Queues",
    "RetentionRules",
    "Schedules",
    "ScopeLike",
    "Statistics",
    "Workers",
    "check_notes",
    "held_scopes",
    "id_list",
    "make_act",
    "name_set",
    "not_found",
    "scope_of",
    "scopes_of",
    "task_name",
    "told_names",
    "told_rule",
    "told_terms",
    "user",
]
