"""The partitions that calls come to by their arguments, and what is refused of limits when the task is declared."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from enum import Enum
from typing import Any, TypeAlias
from uuid import UUID

import msgspec
import pytest

from taskharbor import (
    Batch,
    FlowError,
    Harbor,
    MaxRunning,
    OptionError,
    PayloadError,
    Rate,
    Registry,
    TaskDefinitionError,
    Unique,
    chain,
    every,
    task,
)
from taskharbor.drivers.memory import MemoryDriver
from taskharbor.job import JobRecord
from taskharbor.limit import KEYLESS, PARTITION_LIMIT, LimitTerms, RateTerms, Scope, ScopeKind
from taskharbor.task.key_value import NotAKeyError, write_partition
from taskharbor.task.limits import checked_limits
from taskharbor.testing import InlineHarbor
from taskharbor.upkeep.limits import declared_limits
from tests.fixtures.support import untyped

MINUTE = timedelta(minutes=1)


Mistaken: TypeAlias = Callable[[Any], Any] | str | tuple[str, ...]


class Plan(Enum):
    FREE = "free"


class Order(msgspec.Struct, frozen=True):
    account: str
    lines: list[str] = []


# --- how a partition is written


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("acme", "acme"),
        ("", KEYLESS),
        (None, KEYLESS),
        (7, "7"),
        (True, "true"),
        (Plan.FREE, "free"),
        (UUID(int=5), str(UUID(int=5))),
        (date(2026, 1, 2), "2026-01-02"),
        (datetime(2026, 1, 2, 3, tzinfo=timezone(timedelta(hours=1))), "2026-01-02T02:00:00Z"),
        (("acme", 3), "acme/3"),
        (("ac/me", "b"), r"ac\/me/b"),
        (("ac", "me/b"), r"ac/me\/b"),
        (("a", ("b", 1)), r"a/b\/1"),
        ("größe é", "größe é"),
    ],
)
def test_a_partition_is_plain_text(value: object, expected: str) -> None:
    assert expected == write_partition(value)


def test_a_long_one_or_one_not_for_reading_ends_in_a_digest() -> None:
    """It fits, and tells itself from others that begin alike."""
    alike = [
        write_partition(text)
        for text in ("x" * 201, "x" * 202, "x" * 199 + "\0", "x\0", "x\n", "x\ud800", "\udc00x")
    ]

    assert len(alike) == len(set(alike))
    assert all(one.isprintable() and len(one) <= PARTITION_LIMIT and "#" in one for one in alike)
    assert "x" * PARTITION_LIMIT == write_partition("x" * PARTITION_LIMIT)


def test_not_everything_makes_one() -> None:
    with pytest.raises(NotAKeyError, match="a float in it"):
        write_partition(1.5)


# --- what calls come to


def partition(harbor: Harbor, job_id: str) -> str | None:
    return record(harbor, job_id).partition


def record(harbor: Harbor, job_id: str) -> JobRecord:
    return harbor.look(job_id)


def test_jobs_stand_in_the_line_of_their_key() -> None:
    """By name, by names, by a function, by one over the parameters; without a key in one for the task."""
    registry = Registry()

    @task(registry=registry, fair="tenant")
    def by_name(tenant: str, size: int = 1) -> None: ...

    @task(registry=registry, rate=Rate(5, per=MINUTE, key=("tenant", "size")))
    def by_names(tenant: str, size: int = 1) -> None: ...

    @task(registry=registry, max_running=MaxRunning(1, key=lambda args: args.order.account))
    def by_function(order: Order) -> None: ...

    @task(registry=registry, max_running=MaxRunning.each(1))
    def by_parameters(tenant: str, size: int = 1) -> None: ...

    by_parameters.limit_by(lambda tenant, size=1: (tenant.upper(), size))

    @task(registry=registry, max_running=3)
    def as_one(tenant: str) -> None: ...

    @task(registry=registry)
    def plain(tenant: str) -> None: ...

    @task(registry=registry, batch=Batch(size=5), fair=lambda args: args.orders.account)
    def batched(orders: list[Order]) -> None: ...

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        jobs = [
            by_name.enqueue("acme"),
            by_names.enqueue("acme", size=2),
            by_function.options(priority=1).enqueue(Order("acme")),
            *harbor.enqueue_many([by_parameters.s("acme"), by_parameters.s("acme", 4)]),
            as_one.enqueue("acme"),
            plain.enqueue("acme"),
            batched.enqueue(Order("zebra")),
        ]
        found = [partition(harbor, job.id) for job in jobs]

    assert ["acme", "acme/2", "acme", "ACME/1", "ACME/4", KEYLESS, None, "zebra"] == found


def test_a_step_has_its_line_from_what_is_known_beforehand() -> None:
    registry = Registry()

    @task(registry=registry)
    def fetch(url: str) -> str:
        return url

    @task(registry=registry, fair="tenant")
    def store(text: str, tenant: str = "acme") -> str:
        return text

    @task(registry=registry, fair=lambda args: f"{args.text}")
    def by_text(text: str) -> str:
        return text

    @task(registry=registry)
    def by_name(text: str) -> str:
        return text

    by_name.limit_by(lambda text: text)

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        flow = chain(fetch.s("u"), store).enqueue()
        assert "acme" == partition(harbor, flow.id)
        for refused in (by_text, by_name):
            with pytest.raises(FlowError, match=r"is made of 'text', which comes from an earlier step"):
                chain(fetch.s("u"), refused).enqueue()


def test_a_drain_in_a_test_runs_all_that_is_due() -> None:
    """Limits keep nothing back there; partitions are as everywhere."""
    registry = Registry()

    @task(registry=registry, rate=Rate(1, MINUTE), max_running=MaxRunning(1, "tenant"))
    def call(tenant: str) -> str:
        return tenant

    with InlineHarbor(registry=registry) as harbor:
        jobs = [call.enqueue(tenant) for tenant in "aab"]
        harbor.drain()
        assert (
            ["a", "a", "b"] == [job.result() for job in jobs] == [partition(harbor, job.id) for job in jobs]
        )


def test_it_goes_along_with_uniqueness_and_schedules() -> None:
    registry = Registry()

    @task(registry=registry, unique=Unique(key="tenant"), fair="tenant")
    def sync(tenant: str = "all") -> None: ...

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        job = sync.enqueue("acme")
        assert partition(harbor, job.id) == "acme"
        harbor.schedules.create("often", sync.s(), every(MINUTE))
        assert harbor.schedules.get("often").job.partition == "all"


def test_a_key_that_cannot_be_made_is_told_at_the_enqueue() -> None:
    """Without the text of the function's own error, which may quote a payload."""
    registry = Registry()

    @task(registry=registry, fair=lambda args: args.order.lines[0])
    def ship(order: Order) -> None: ...

    @task(registry=registry, rate=Rate.each(5, MINUTE))
    def unfinished(order: Order) -> None: ...

    with Harbor(MemoryDriver(), registry=registry):
        with pytest.raises(
            PayloadError, match=r"make no key for its limits and turns: its function raised Index"
        ):
            ship.enqueue(Order("secret"))
        with pytest.raises(TaskDefinitionError, match=r"limits of each key, and no key: call its limit_by"):
            unfinished.enqueue(Order("a"))


# --- what is declared


def test_limits_of_the_task_and_of_each_key_are_told_apart() -> None:
    declared = checked_limits(
        [Rate(100, MINUTE, key="tenant"), Rate(1000, MINUTE, burst=7)], MaxRunning(5, key="tenant"), "tenant"
    )

    assert declared is not None
    assert LimitTerms(rate=RateTerms(1000, MINUTE, 7)) == declared.task
    assert LimitTerms(5, RateTerms(100, MINUTE, 1)) == declared.keys
    assert checked_limits(None, None, None) is None


def test_each_name_of_a_task_has_its_limits() -> None:
    """Jobs enqueued under a former name stand in lines of that name."""
    registry = Registry()

    @task(registry=registry, name="new", aliases=["old"], max_running=2)
    def work() -> None: ...

    found = declared_limits(registry)

    assert {LimitTerms(2)} == {found[Scope(ScopeKind.TASK, name)] for name in ("new", "old")}
    assert {LimitTerms()} == {found[Scope(ScopeKind.KEYS, name)] for name in ("new", "old")}


def test_lambdas_of_one_text_are_one_key() -> None:
    """Whatever they call their argument; others are not."""
    checked_limits(Rate(1, MINUTE, key=lambda args: args.a), None, lambda call: call.a)
    checked_limits(None, MaxRunning(1, key="a"), ("a",))
    others: list[Callable[[Any], Any] | str] = [lambda args: args.b, lambda args: (args.a, 1), "a"]
    for other in others:
        with pytest.raises(OptionError, match=r"the keys of rate=, max_running= and fair= differ"):
            checked_limits(Rate(1, MINUTE, key=lambda args: args.a), None, other)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Rate(0, MINUTE), "Rate(limit=0): expected a whole number from 1; to stop a task, hold it"),
        (lambda: Rate(True, MINUTE), "Rate(limit=True)"),
        (lambda: Rate(1, timedelta(0)), "expected a timedelta above zero"),
        (lambda: Rate(1, untyped(60)), "Rate(per=60): expected a timedelta"),
        (lambda: Rate(2_000_000, timedelta(seconds=1)), "at least a microsecond for each job"),
        (lambda: Rate(1, MINUTE, burst=0), "Rate(burst=0)"),
        (lambda: Rate(1, MINUTE, key=untyped(5)), "Rate(key=5): expected a parameter's name"),
        (lambda: MaxRunning(untyped("5")), "MaxRunning(limit='5')"),
        (lambda: MaxRunning(1, key=()), "MaxRunning(key=())"),
        (lambda: task(max_running=0), "max_running=0: expected a whole number from 1"),
        (lambda: task(max_running=untyped("5")), "max_running='5': expected a whole number, MaxRunning(10)"),
        (lambda: task(rate=untyped(5)), "rate=5: expected Rate(100, per="),
        (lambda: task(rate=untyped([MaxRunning(5)])), "rate=MaxRunning("),
        (lambda: task(rate=[Rate(1, MINUTE), Rate(2, MINUTE)]), "there are two without a key"),
        (
            lambda: task(max_running=[MaxRunning(1, key="a"), MaxRunning(2, key="a")]),
            "there are two with a key",
        ),
        (lambda: task(fair=untyped(True)), "fair=True: expected a parameter's name"),
    ],
)
def test_what_cannot_be_declared_is_refused(make: Callable[[], object], told: str) -> None:
    with pytest.raises(OptionError) as refused:
        make()

    assert told in str(refused.value)


def by_tenant(tenant: str, size: float) -> str:
    return f"{tenant}/{size}"


MISTAKEN: list[tuple[Mistaken, str]] = [
    ("tennant", "there is no parameter 'tennant' (did you mean 'tenant'?)"),
    (("tenant", "size"), "'size' is float, and a key is of"),
    (lambda args: args.tennant, "there is no parameter 'tennant'"),
    (lambda args: args, "the key is all of the arguments"),
    (untyped(by_tenant), "task.limit_by(...) takes one over the parameters"),
]


@pytest.mark.parametrize(("key", "told"), MISTAKEN)
def test_a_key_is_checked_when_the_task_is_declared(key: Any, told: str) -> None:
    with pytest.raises(TaskDefinitionError) as refused:

        @task(registry=Registry(), name="send", fair=key)
        def send(tenant: str, size: float = 1.0) -> None: ...

    assert "task 'send', limits: " in str(refused.value)
    assert told in str(refused.value)


def test_a_task_has_one_key() -> None:
    @task(registry=Registry(), fair="tenant")
    def send(tenant: str) -> None: ...

    with pytest.raises(TaskDefinitionError, match=r"it has a key already"):
        send.limit_by(lambda tenant: tenant)

    @task(registry=Registry())
    def other(tenant: str) -> None: ...

    other.limit_by(lambda tenant: tenant)
    with pytest.raises(TaskDefinitionError, match=r"it has a key already"):
        other.limit_by(lambda tenant: tenant)
