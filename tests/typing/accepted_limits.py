"""What a task declares of limits and turns, as it is accepted.

`tests/test_typing.py` runs mypy, basedpyright, pyrefly and ty over it; `refused_limits.py` is its counterpart.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, assert_type
from uuid import UUID

import msgspec

from taskharbor import Batch, Context, JobHandle, MaxRunning, Rate, Unique, cron, task

MINUTE = timedelta(minutes=1)


class Order(msgspec.Struct):
    account: str
    lines: list[str]


# --- declared in @task: the key is checked when the module is imported ---------------------------------------


@task(max_running=10)
def crawl(url: str) -> int:
    return len(url)


@task(rate=Rate(100, per=MINUTE, burst=20, key=lambda args: args.tenant))
async def call(tenant: str, page: int = 0) -> str:
    return tenant


@task(
    rate=[Rate(1000, MINUTE), Rate(100, MINUTE, key="tenant")],
    max_running=(MaxRunning(50), MaxRunning(5, key="tenant")),
    fair="tenant",
    unique=Unique(key="tenant"),
)
def sync(context: Context, tenant: str) -> None: ...


@task(fair=("tenant", "image"), schedule=cron("@daily"))
def thumbnail(tenant: str = "all", image: UUID | None = None) -> None: ...


@task(batch=Batch(size=5), max_running=MaxRunning(1, key=lambda args: args.orders.account))
def ship(orders: list[Order]) -> None: ...


assert_type(call.enqueue("acme", page=2), JobHandle[str])
assert_type(crawl.s(url="u").enqueue(), JobHandle[int])


def by_tenant(args: Any) -> str:
    return str(args.tenant)


declared: list[Rate | MaxRunning] = [
    Rate(1, MINUTE, key=by_tenant),
    MaxRunning(1, by_tenant),
    Rate.each(5, MINUTE),
]


# --- over the task's own parameters: the function is checked here --------------------------------------------


@task(max_running=MaxRunning.each(1), rate=[Rate.each(5, per=MINUTE, burst=2), Rate(9, MINUTE)])
def book(account: str, cents: int) -> None: ...


@task
async def move(context: Context, order: Order, *, fast: bool = False) -> None: ...


def by_order(order: Order, *, fast: bool = False) -> tuple[str, bool]:
    return order.account, fast


book.limit_by(lambda account, cents: account)
book.limit_by(lambda account, cents: (account.upper(), cents + 1))
book.limit_by(lambda account, cents: None)
move.limit_by(lambda order, *, fast=False: order.account)
move.limit_by(by_order)
