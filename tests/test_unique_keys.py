"""The keys that calls come to by their arguments, and what is refused of them when the task is declared."""

# ruff: noqa: ARG005 - a key function takes all parameters, whichever it needs

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from enum import Enum
from typing import Any, NamedTuple, TypeAlias, TypedDict
from uuid import UUID

import msgspec
import pytest

from taskharbor import (
    Batch,
    Debounce,
    Harbor,
    OptionError,
    PayloadError,
    Registry,
    Task,
    TaskDefinitionError,
    Throttle,
    Unique,
    task,
)
from taskharbor.schedule import Every, Schedule
from tests.fixtures.support import untyped

MINUTE = timedelta(minutes=1)


class Plan(Enum):
    FREE = "free"


class Item(msgspec.Struct, frozen=True):
    sku: str
    price: float = 1.0

    @property
    def shelf(self) -> str:
        return self.sku[:1]


class Order(msgspec.Struct, frozen=True):
    account: str
    item: Item | None = None
    tags: list[str] = []


@dataclass
class Visit:
    user: UUID
    plan: Plan


class Spot(NamedTuple):
    x: int
    y: int


class Row(TypedDict):
    name: str


class Given(msgspec.Struct, frozen=True):
    """What the tasks here take."""

    order: Order = Order("ada", Item("s1"))
    visit: Visit = Visit(UUID(int=7), Plan.FREE)
    spot: Spot = Spot(1, 2)
    row: Row = msgspec.field(default_factory=lambda: Row(name="r"))
    number: int = 3
    either: int | str = "e"
    at: datetime = datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))
    price: float = 0.5
    anything: Any = "a"


GIVEN = Given()

Key: TypeAlias = str | tuple[str, ...] | Callable[[Any], object] | None
Cases: TypeAlias = list[tuple[Key, str]]


@pytest.fixture
def harbor() -> Iterator[Harbor]:
    with Harbor("memory://", registry=Registry()) as made:
        yield made


def declared(unique: Unique | Debounce | Throttle) -> Task[[], None]:
    """Return a task with many kinds of parameters, each with a default."""

    @task(registry=Registry(), unique=unique, name="shop.ship")
    def ship(
        order: Order = GIVEN.order,
        visit: Visit = GIVEN.visit,
        spot: Spot = GIVEN.spot,
        row: Row = GIVEN.row,
        number: int = GIVEN.number,
        either: int | str = GIVEN.either,
        at: datetime = GIVEN.at,
        price: float = GIVEN.price,
        anything: Any = GIVEN.anything,
    ) -> None: ...

    made: Task[[], None] = untyped(ship)
    return made


KEYS: Cases = [
    (None, "unique:[]"),
    ("number", "unique:[3]"),
    (("number", "at"), 'unique:[3,"2026-01-01T00:00:00Z"]'),
    ("either", 'unique:["e"]'),
    ("anything", 'unique:["a"]'),
    ("spot", "unique:[1,2]"),
    (lambda args: args.order.account, 'unique:["ada"]'),
    (lambda args: args.order.item.sku, 'unique:["s1"]'),
    (lambda args: args.order.item.shelf, 'unique:["s"]'),
    (lambda args: (args.visit.user, args.visit.plan), f'unique:["{UUID(int=7)}","free"]'),
    (lambda args: args.visit.plan.value, 'unique:["free"]'),
    (lambda args: args.spot.y, "unique:[2]"),
    (lambda args: args.spot[0], "unique:[1]"),
    (lambda args: args.row["name"], 'unique:["r"]'),
    (lambda args: args.order.account.upper(), 'unique:["ADA"]'),
    (lambda args: f"{args.order.account}-{args.number}", 'unique:["ada-3"]'),
    (lambda args: args.number + 1, "unique:[4]"),
    (lambda args: args.number > 2, "unique:[true]"),
    (lambda args: len(args.order.tags), "unique:[0]"),
    (lambda args: None if args.order.item is None else args.order.item.sku, 'unique:["s1"]'),
    (lambda args: args.order.account if args.number == 3 else args.order.nothing, 'unique:["ada"]'),
    (lambda args: getattr(args, "number"), "unique:[3]"),  # noqa: B009 - as one who computes the name would
    (lambda args: date(2026, 1, args.number), 'unique:["2026-01-03"]'),
    (lambda args: None, "unique:[null]"),
]


@pytest.mark.parametrize(("key", "expected"), KEYS)
def test_a_call_comes_to_its_key(harbor: Harbor, key: Key, expected: str) -> None:
    handle = declared(Unique(key=untyped(key))).enqueue()

    assert expected == harbor.jobs.get(handle.id).key


def _of_nothing() -> int:
    return 1


def _of_two(order: Order, number: int) -> int:
    return number


REFUSED: Cases = [
    ("numbr", "there is no parameter 'numbr' (did you mean 'number'?)"),
    ("order", "'order' is Order, and a key is of str, int"),
    (("number", "price"), "'price' is float, and a key is of"),
    (lambda args: args.numbr, "there is no parameter 'numbr' (did you mean 'number'?)"),
    (lambda args: args["number"], "args.number, not args['number']"),
    (lambda args: args.order.acount, "'order' is Order, which has no 'acount' (did you mean 'account'?)"),
    (lambda args: args.order.item.sk, "'order.item' is Item, which has no 'sk' (did you mean 'sku'?)"),
    (lambda args: args.visit.usr, "'visit' is Visit, which has no 'usr' (did you mean 'user'?)"),
    (lambda args: args.spot.z, "'spot' is Spot, which has no 'z'; it has x, y"),
    (lambda args: args.row["nme"], "'row' is Row, which has no 'nme' (did you mean 'name'?)"),
    (lambda args: args.order.account.uper(), "'order.account' is str, which has no 'uper'"),
    (lambda args: args.order, "'order' is Order, and a key is of"),
    (lambda args: (args.number, args.order.item.price), "'order.item.price' is float, and a key is of"),
    (lambda args: args.order.tags, "'order.tags' is list[str], and a key is of"),
    (lambda args: args, "the key is all of the arguments"),
    (lambda args: 1.5, "there is a float in it"),
    (lambda args: [args.number], "there is a list in it"),
    (untyped(_of_nothing), "its key function has the parameters () (too many positional arguments)"),
    (untyped(_of_two), "task.unique_by(...) takes one over the parameters"),
]


@pytest.mark.parametrize(("key", "why"), REFUSED, ids=[why[:30] for _, why in REFUSED])
def test_what_can_be_no_key_is_refused_when_the_task_is_declared(key: Key, why: str) -> None:
    with pytest.raises(TaskDefinitionError) as caught:
        declared(Debounce(MINUTE, untyped(key)))

    assert str(caught.value).startswith("task 'shop.ship', unique: ")
    assert why in str(caught.value)


async def _later(args: Any) -> str:
    return str(args.number)


def test_a_key_function_is_no_coroutine_function() -> None:
    with pytest.raises(TaskDefinitionError, match="its key function is an `async def`"):
        declared(Unique(key=untyped(_later)))


def test_long_keys_are_hashed_and_still_tell_calls_apart(harbor: Harbor) -> None:
    @task(registry=Registry(), unique=Unique(key="text"))
    def note(text: str) -> None: ...

    first, again, other = (note.enqueue(text) for text in ("x" * 300, "x" * 300, "x" * 299 + "y"))

    key = harbor.jobs.get(first.id).key or ""
    assert key.startswith("unique:[#")
    assert len(key) < 100
    assert (False, True) == (again.created, other.created)


def test_no_key_of_a_callers_own_begins_as_a_derived_one() -> None:
    with pytest.raises(OptionError, match="made of the arguments of tasks with unique"):
        declared(Unique()).options(key="unique:[]")


UNFIT: Cases = [
    (lambda args: args.anything, "there is a list in it"),
    (lambda args: args.order.item.sku, "its function raised AttributeError"),
    (lambda args: 1 // (args.number - 3), "its function raised ZeroDivisionError"),
]


@pytest.mark.parametrize(("key", "why"), UNFIT, ids=[why for _, why in UNFIT])
def test_arguments_of_which_no_key_can_be_made_are_refused_at_the_enqueue(
    harbor: Harbor, key: Key, why: str
) -> None:
    with pytest.raises(PayloadError) as caught:
        untyped(declared(Unique(key=untyped(key)))).enqueue(order=Order("ada"), anything=["a"])

    assert why in str(caught.value)
    assert [] == list(harbor.jobs.find())


# --- over the task's own parameters --------------------------------------------------------------------------


@pytest.fixture
def load() -> Task[..., None]:
    @task(registry=Registry(), name="shop.load")
    def load(order: Order, region: int = 1, /, *more: str, fast: bool = False, **rest: int) -> None: ...

    made: Task[..., None] = untyped(load)
    return made


def test_a_function_over_the_tasks_own_parameters_makes_the_key(
    harbor: Harbor, load: Task[..., None]
) -> None:
    def key(
        order: Order, region: int = 1, /, *more: str, fast: bool = False, **rest: int
    ) -> tuple[str | int, ...]:
        return (order.account, region, *more, fast, *rest)

    load.unique_by(key)

    plain = load.enqueue(Order("ada"))
    full = load.enqueue(Order("ada"), 2, "x", "y", fast=True, extra=1)

    assert 'unique:["ada",1,false]' == harbor.jobs.get(plain.id).key
    assert 'unique:["ada",2,"x","y",true,"extra"]' == harbor.jobs.get(full.id).key


def test_it_is_the_key_of_what_the_task_declares(harbor: Harbor) -> None:
    @task(registry=Registry(), unique=Debounce(MINUTE))
    def draw(page: str, version: int) -> None: ...

    draw.unique_by(lambda page, version: page)
    first, other, last = draw.enqueue("a", 1), draw.enqueue("b", 1), draw.enqueue("a", 2)

    assert (first.id, True, False) == (last.id, other.created, last.created)
    assert b'{"page":"a","version":2}' == harbor.jobs.get(first.id).payload


def test_a_batch_handlers_key_is_made_of_one_payload(harbor: Harbor) -> None:
    @task(registry=Registry(), batch=Batch(10), unique=Unique(key=lambda args: args.orders.account))
    def ship(orders: list[Order]) -> None: ...

    first, again = ship.enqueue(Order("ada")), ship.enqueue(Order("ada", Item("s")))

    assert (first.id, 'unique:["ada"]') == (again.id, harbor.jobs.get(first.id).key)


def _of_one(order: Order) -> str:
    return order.account


def _of_what_is_not_there(order: Any, region: int = 1, /, *more: str, fast: bool = False, **rest: int) -> str:
    return str(order.acount)


def _of_a_struct(order: Order, region: int = 1, /, *more: str, fast: bool = False, **rest: int) -> Order:
    return order


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (_of_one, "its key function has the parameters (order: 'Order') ("),
        (_of_what_is_not_there, "did you mean 'account'?"),
        (_of_a_struct, "'order' is Order, and a key is of"),
    ],
)
def test_a_function_that_does_not_fit_the_parameters_is_refused(
    load: Task[..., None], key: Callable[..., Any], why: str
) -> None:
    with pytest.raises(TaskDefinitionError) as caught:
        load.unique_by(key)

    assert why in str(caught.value)


def test_a_task_has_one_key() -> None:
    ship = declared(Unique(key="number"))

    with pytest.raises(TaskDefinitionError, match="it has a key already"):
        ship.unique_by(untyped(_of_two))


# --- declarations that cannot be -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Unique(states=untyped({"runing"})), "no state 'runing' (did you mean 'running'?)"),
        (lambda: Unique(states=untyped("ready")), "expected a set of states"),
        (lambda: Unique(states=[]), "expected a set of states"),
        (lambda: Unique(window=timedelta(0)), "Unique(window=datetime.timedelta(0)): expected a timedelta"),
        (lambda: Unique(on_conflict=untyped("merge")), "expected 'existing', 'raise' or 'replace'"),
        (
            lambda: Unique(states={"ready", "running"}, on_conflict="replace"),
            "a job that is running cannot be replaced; leave out 'running'",
        ),
        (lambda: Unique(window=MINUTE, on_conflict="replace"), "a window keeps others out"),
        (lambda: Unique(key=untyped(["a"])), "expected a parameter's name, a tuple of names"),
        (lambda: Unique(key=""), "expected a parameter's name"),
        (lambda: Debounce(untyped(5)), "Debounce(wait=5): expected a timedelta"),
        (lambda: Debounce(MINUTE, at_most=MINUTE / 2), "expected no less than the wait"),
        (lambda: Throttle(timedelta(0)), "Throttle(per=datetime.timedelta(0)): expected a timedelta"),
        (lambda: task(unique=untyped("account")), "expected Unique(...), Debounce(...) or Throttle(...)"),
        (lambda: task(unique=untyped(Unique)), "Throttle(...); call it"),
    ],
)
def test_what_cannot_be_declared_is_refused(make: Callable[[], object], why: str) -> None:
    with pytest.raises(OptionError) as caught:
        make()

    assert why in str(caught.value)


# --- schedules -----------------------------------------------------------------------------------------------

HOURLY = Schedule(trigger=Every(timedelta(hours=1)))
DAILY = Schedule(trigger=Every(timedelta(days=1)))


def test_a_task_tells_when_it_is_called_by_itself() -> None:
    @task(registry=Registry(), schedule=[HOURLY, DAILY])
    def sweep(limit: int = 1) -> None: ...

    @task(registry=Registry(), schedule=HOURLY)
    async def tidy() -> None: ...

    assert ((HOURLY, DAILY), (HOURLY,)) == (sweep.definition.schedules, tidy.definition.schedules)


def test_a_schedule_cannot_call_a_task_that_needs_arguments() -> None:
    with pytest.raises(TaskDefinitionError, match="'day', 'hour' have no default; give them one, or leave"):

        @task(registry=Registry(), schedule=HOURLY)
        def report(day: date, hour: int, minute: int = 0) -> None: ...


@pytest.mark.parametrize(
    ("schedule", "why"),
    [
        ("@daily", "schedule='@daily': expected cron(...) or every(...)"),
        ([HOURLY, 5], "schedule=5: expected cron(...) or every(...)"),
        ([HOURLY, HOURLY], "the same is there twice"),
    ],
)
def test_what_is_no_schedule_is_refused(schedule: Any, why: str) -> None:
    with pytest.raises(OptionError) as caught:
        task(schedule=schedule)

    assert why in str(caught.value)
