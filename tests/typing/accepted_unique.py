"""What a task declares of its calls being unique, and when it is called by itself, as they are accepted.

`tests/test_typing.py` runs mypy, basedpyright, pyrefly and ty over it; `refused_unique.py` is its counterpart.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from enum import Enum
from typing import Any, assert_type
from uuid import UUID

import msgspec

from taskharbor import (
    Context,
    Debounce,
    JobHandle,
    JobState,
    SyncTask,
    Throttle,
    Unique,
    cron,
    every,
    task,
)

MINUTE = timedelta(minutes=1)


class Plan(Enum):
    FREE = "free"
    PAID = "paid"


class Order(msgspec.Struct):
    account: str
    lines: list[str]


# --- declared in @task: the key is checked when the module is imported ---------------------------------------


@task(unique=Unique())
def tidy() -> None: ...


@task(unique=Unique(key="account", on_conflict="raise"))
def pay(account: str, cents: int = 0) -> int:
    return cents


@task(unique=Unique(key=("account", "day"), states={"scheduled", JobState.READY}, window=MINUTE))
async def bill(context: Context, account: UUID, day: date) -> str:
    return f"{account} {day}"


@task(unique=Unique(key=lambda args: args.order.account, on_conflict="replace"))
async def ship(order: Order, *, fast: bool = False) -> None: ...


@task(unique=Debounce(MINUTE, key=lambda args: (args.account, args.plan), at_most=10 * MINUTE))
def index(account: str, plan: Plan) -> None: ...


@task(unique=Throttle(MINUTE))
def refresh(account: str | None, at: datetime) -> None: ...


assert_type(tidy, SyncTask[[], None])
assert_type(pay.options(on_conflict="replace").enqueue("a", cents=1), JobHandle[int])
assert_type(bill.s(UUID(int=1), day=date(2026, 1, 1)).enqueue(), JobHandle[str])


def by_account(args: Any) -> str:
    return str(args.account)


declared: list[Unique | Debounce | Throttle] = [Unique(key=by_account), Debounce(MINUTE, by_account)]


# --- over the task's own parameters: the function is checked here --------------------------------------------


@task
def load(account: str, region: int) -> None: ...


@task(unique=Debounce(MINUTE))
async def crop(context: Context, image: UUID, *, width: int = 100) -> None: ...


def by_order(order: Order, *, fast: bool = False) -> tuple[str, bool]:
    return order.account, fast


def by_plan(account: str, plan: Plan) -> Plan | None:
    return plan if account else None


load.unique_by(lambda account, region: account)
load.unique_by(lambda account, region: (account.upper(), region + 1))
load.unique_by(lambda account, region: None)
load.unique_by(lambda account, region: f"{account}-{region}")
pay.unique_by(lambda account, cents=0: account)
crop.unique_by(lambda image, *, width=100: (image, width))
ship.unique_by(lambda order, *, fast=False: order.account)
ship.unique_by(by_order)
index.unique_by(by_plan)
refresh.unique_by(lambda account, at: (account, at))
tidy.unique_by(lambda: "all")


# --- schedules -----------------------------------------------------------------------------------------------


@task(schedule=cron("0 8 * * *", tz="Europe/Paris"))
def report(day: date | None = None) -> None: ...


@task(schedule=[every(MINUTE), cron("@daily")], unique=Unique())
async def sweep(context: Context, limit: int = 100) -> int:
    return limit


assert_type(sweep.options(run_in=MINUTE).enqueue(5), JobHandle[int])
assert_type(sweep.enqueue(limit=5).created, bool)
