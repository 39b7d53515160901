"""What a task cannot declare of limits and turns: one a line, each marked `# E`. Nothing else here is wrong.

Never run. `tests/test_typing.py` runs mypy, basedpyright, pyrefly and ty over it; `accepted_limits.py` is its
counterpart.
"""

from __future__ import annotations

from datetime import timedelta

from tests.typing.accepted_limits import Order, book, call, crawl, move

from taskharbor import MaxRunning, Rate, task

MINUTE = timedelta(minutes=1)

# --- declarations --------------------------------------------------------------------------------------------

task(max_running="10")  # E
task(max_running=1.5)  # E
task(max_running=Rate(1, MINUTE))  # E
task(rate=100)  # E
task(rate=Rate)  # E
task(rate=[100])  # E
task(fair=True)  # E
task(fair=5)  # E
task(fair=["tenant"])  # E
Rate(100)  # E
Rate(100, 60)  # E
Rate(100, per="1m")  # E
Rate(100, MINUTE, burst="2")  # E
Rate(100, MINUTE, key=5)  # E
Rate(100, MINUTE, key=lambda args: 1.5)  # E
Rate.each(100)  # E
Rate.each(100, MINUTE, key="tenant")  # E
MaxRunning()  # E
MaxRunning("5")  # E
MaxRunning(5, key=["tenant"])  # E
MaxRunning(5, per=MINUTE)  # E

# --- functions over the task's own parameters ----------------------------------------------------------------


def by_lines(order: Order, *, fast: bool = False) -> list[str]:
    return order.lines if fast else []


book.limit_by("account")  # E
book.limit_by(lambda account: account)  # E
book.limit_by(lambda account, cents, more: account)  # E
book.limit_by(lambda account, cents: account.uper())  # E
book.limit_by(lambda account, cents: (account, 1.5))  # E
move.limit_by(lambda order, *, fast=False: order.acount)  # E
move.limit_by(lambda order, *, fast=False: order)  # E
move.limit_by(by_lines)  # E
call.limit_by(lambda tenant: tenant)  # E
crawl.options().limit_by(lambda url: url)  # E
crawl.options(max_running=5)  # E
