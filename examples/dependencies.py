"""Dependencies of handlers: built once by each worker, handed to each job, closed when the worker stops."""

import sqlite3
import threading
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta

from taskharbor import Context, Harbor, task


class Deps:
    """What the handlers of this application share."""

    def __init__(self) -> None:
        """Open the database."""
        self.db = sqlite3.connect(":memory:", check_same_thread=False)
        self.lock = threading.Lock()  # Sync handlers run in several threads, and share this object.

    def close(self) -> None:
        """Close the database."""
        self.db.close()


@contextmanager
def lifespan() -> Generator[Deps]:
    """Build the dependencies before the first job and close them after the last."""
    deps = Deps()
    deps.db.execute("CREATE TABLE visit (page TEXT PRIMARY KEY, count INTEGER)")
    print("opened")
    try:
        yield deps
    finally:
        deps.close()
        print("closed")


# The first parameter is injected by the worker and no part of the call: `count_visit.enqueue("home")`.
@task
def count_visit(ctx: Context[Deps], page: str) -> int:
    """Count a visit and return how many there were."""
    with ctx.deps.lock, ctx.deps.db as db:
        db.execute(
            "INSERT INTO visit VALUES (?, 1) ON CONFLICT (page) DO UPDATE SET count = count + 1", (page,)
        )
        (count,) = db.execute("SELECT count FROM visit WHERE page = ?", (page,)).fetchone()
    return int(count)


def main() -> None:
    """Count three visits."""
    with Harbor("memory://", deps=lifespan) as harbor, harbor.worker_thread():
        for page in ("home", "about", "home"):
            visits = count_visit.enqueue(page).result(timeout=timedelta(seconds=5))
            print(page, visits)


if __name__ == "__main__":
    main()
