"""Rows and jobs in one transaction: with the harbor on your application's own SQLite file, both are stored or neither.

Without that one of two things happens some day: the order is stored, and the program dies before the job is; or the job
runs, and the order was rolled back.
"""

import sqlite3
from contextlib import closing, nullcontext
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from taskharbor import Context, Harbor, task


@task
def send_receipt(ctx: Context[Path], order: str) -> str:
    """Write the receipt of an order. It is there: the job was stored with it."""
    with closing(sqlite3.connect(ctx.deps)) as db:
        (cents,) = db.execute("SELECT cents FROM orders WHERE number = ?", (order,)).fetchone()
    return f"order {order}: {cents / 100:.2f} paid"


def place_order(harbor: Harbor, db: sqlite3.Connection, number: str, cents: int) -> None:
    """Store an order and the job that sends its receipt, or neither. Raises ValueError for an order of nothing."""
    # `with db` commits at the end, or rolls back. `harbor.using(db)` sends the enqueues of the block through its
    # transaction, which stays yours.
    with db, harbor.using(db):
        db.execute("INSERT INTO orders VALUES (?, ?)", (number, cents))
        send_receipt.enqueue(number)
        if cents <= 0:
            raise ValueError(f"order {number} is an order of nothing")


def main(path: Path) -> None:
    """Place an order, and another that is rolled back."""
    with (
        Harbor(f"sqlite:///{path}", deps=lambda: nullcontext(path)) as harbor,
        closing(sqlite3.connect(path)) as db,
    ):
        db.execute("CREATE TABLE orders (number TEXT PRIMARY KEY, cents INTEGER)")

        place_order(harbor, db, "A-1", 1250)
        try:
            place_order(harbor, db, "A-2", 0)
        except ValueError as error:
            print(f"{error}; it was rolled back, and its job with it")

        (orders,) = db.execute("SELECT count(*) FROM orders").fetchone()
        jobs = harbor.jobs.find()
        print(f"{orders} order, {len(jobs)} job")
        with harbor.worker_thread():
            print(send_receipt.handle(jobs[0].id).result(timeout=timedelta(seconds=10)))


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        main(Path(folder) / "shop.db")
