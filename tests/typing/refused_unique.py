"""What a task cannot declare of its calls being unique: one a line, each marked `# E`. Nothing else here is wrong.

Never run. `tests/test_typing.py` runs mypy, basedpyright, pyrefly and ty over it; `accepted_unique.py` is its
counterpart.
"""

from __future__ import annotations

from datetime import timedelta

from taskharbor import Debounce, Throttle, Unique, chain, cron, task
from tests.typing.accepted_unique import Order, bill, by_order, crop, index, load, pay, ship, tidy
from tests.typing.tasks import fetch, parse

MINUTE = timedelta(minutes=1)

# --- declarations --------------------------------------------------------------------------------------------

task(unique="account")  # E
task(unique=Unique)  # E
task(unique=lambda args: args.account)  # E
task(unique=True)  # E
Unique("account")  # E
Unique(key=5)  # E
Unique(key=["account"])  # E
Unique(key=("account", 5))  # E
Unique(key=lambda args: 1.5)  # E
Unique(states={"runing"})  # E
Unique(states={1, 2})  # E
Unique(window=60)  # E
Unique(on_conflict="merge")  # E
Debounce()  # E
Debounce(5)  # E
Debounce(MINUTE, at_most=600)  # E
Debounce(MINUTE, on_conflict="raise")  # E
Throttle()  # E
Throttle("1m")  # E
Throttle(per=MINUTE, window=MINUTE)  # E


# --- functions over the task's own parameters ----------------------------------------------------------------


def by_lines(order: Order, *, fast: bool = False) -> list[str]:
    return order.lines if fast else []


load.unique_by("account")  # E
load.unique_by(lambda account: account)  # E
load.unique_by(lambda account, region, more: account)  # E
load.unique_by(lambda account, region: account.uper())  # E
load.unique_by(lambda account, region: region.account)  # E
load.unique_by(lambda account, region: (account, 1.5))  # E
load.unique_by(lambda account, region: [account])  # E
load.unique_by(by_order)  # E
ship.unique_by(lambda order, *, fast=False: order.acount)  # E
ship.unique_by(lambda order, *, fast=False: order)  # E
ship.unique_by(by_lines)  # E
bill.unique_by(lambda context, account, day: account)  # E
crop.unique_by(lambda image, *, width=100: image.hexx)  # E
index.unique_by(lambda account, plan: plan.name.nope)  # E
tidy.unique_by(lambda account: account)  # E
pay.options().unique_by(lambda account, cents=0: account)  # E

# --- calls ---------------------------------------------------------------------------------------------------

pay.options(on_conflict="merge")  # E
chain(fetch.s("u"), parse).configure(key="k", on_conflict="replace")  # E

# --- schedules -----------------------------------------------------------------------------------------------

task(schedule="0 8 * * *")  # E
task(schedule=["@daily"])  # E
task(schedule=cron)  # E
task(schedule=MINUTE)  # E
