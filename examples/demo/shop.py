"""A shop's rows and tasks, for the examples of web applications: nothing here knows that there is a web."""

import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from taskharbor import Context, Harbor, task


@dataclass(frozen=True)
class Order:
    """What somebody buys."""

    item: str
    cents: int


@dataclass(frozen=True)
class Placed:
    """An order that is kept, and the job that sends its receipt."""

    order: int
    job: str


@dataclass(frozen=True)
class Report:
    """What all orders come to."""

    orders: int
    cents: int


@contextmanager
def connect(path: Path) -> Generator[sqlite3.Connection]:
    """Open a connection to the shop's file, whose transactions begin with the right to write."""
    with closing(sqlite3.connect(path, isolation_level="IMMEDIATE")) as db:
        db.execute("CREATE TABLE IF NOT EXISTS orders (number INTEGER PRIMARY KEY, item TEXT, cents INTEGER)")
        yield db


def place_order(harbor: Harbor, path: Path, order: Order) -> Placed:
    """Keep an order together with the job for its receipt, or neither. Raises ValueError for an order of nothing."""
    # `with db` commits at the end, or rolls back. The enqueue goes through its transaction.
    with connect(path) as db, harbor.using(db), db:
        number = db.execute(
            "INSERT INTO orders (item, cents) VALUES (?, ?)", (order.item, order.cents)
        ).lastrowid
        assert number is not None
        job = send_receipt.enqueue(number)
        if order.cents <= 0:
            raise ValueError("an order has to cost something")
    return Placed(number, job.id)


@task(name="shop.send_receipt")
def send_receipt(ctx: Context[Path], number: int) -> str:
    """Write the receipt of an order. It is there: the job was stored with it."""
    with connect(ctx.deps) as db:
        item, cents = db.execute("SELECT item, cents FROM orders WHERE number = ?", (number,)).fetchone()
    return f"{item}: {cents / 100:.2f} paid"


@task(name="shop.add_up")
def add_up(ctx: Context[Path]) -> Report:
    """Add up all orders."""
    with connect(ctx.deps) as db:
        rows = db.execute("SELECT cents FROM orders").fetchall()
    total = 0
    for done, (cents,) in enumerate(rows, 1):
        total += cents
        ctx.progress(done, len(rows))  # as often as one likes: the worker writes it down now and then
    return Report(len(rows), total)
