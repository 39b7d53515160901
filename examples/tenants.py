"""Tenants that share a queue: a giant beside small ones, one job at a time an account, a rate, and an operator."""

import sys
import tempfile
import threading
from collections import Counter
from datetime import timedelta
from pathlib import Path

from taskharbor import Harbor, MaxRunning, Rate, task

PATIENCE = timedelta(minutes=1)
order: list[str] = []
together: Counter[str] = Counter()
most: Counter[str] = Counter()
lock = threading.Lock()


@task(fair=lambda args: args.tenant)
def thumbnail(tenant: str, image: int) -> None:
    """Tenants take turns, job by job."""
    with lock:
        order.append(tenant)


@task(max_running=MaxRunning(1, key=lambda args: args.account))
def book(account: str, cents: int) -> None:
    """One at a time for each account, on all workers together; as many accounts at once as there are slots."""
    with lock:
        together[account] += 1
        most[account] = max(most[account], together[account])
    with lock:
        together[account] -= 1


@task(rate=Rate(50, per=timedelta(seconds=1), burst=5))
def call_api(page: int) -> int:
    """Call an API that allows so many calls a second: what is over it waits in the store, and costs no attempt."""
    return page


def main() -> None:
    """Show each of the three, then do what an operator does."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Harbor(f"sqlite:///{Path(folder) / 'tenants.db'}") as harbor,
    ):
        harbor.enqueue_many([thumbnail.s("giant", number) for number in range(1000)])
        harbor.enqueue_many([thumbnail.s("small", number) for number in range(10)])
        harbor.run_until_idle(concurrency=1)
        last = max(place for place, tenant in enumerate(order) if tenant == "small")
        print(f"the small one's 10 jobs were through after {last + 1} of {len(order)}")

        jobs = [
            book.enqueue(account, 5) for account in ("ada", "bob", "ada", "bob", "ada") for _ in range(20)
        ]
        calls = [call_api.enqueue(page) for page in range(20)]
        with harbor.worker_thread(), harbor.worker_thread():
            for job in (*jobs, *calls):
                job.result(timeout=PATIENCE)
            if set(most.values()) != {1}:
                sys.exit(f"an account had more than one job at once: {most}")
            print("one at a time for each of", sorted(most))

        # An API is down: hold its calls back, by hand, without a deploy; and let them go later.
        harbor.limits.hold(call_api, by="ada", reason="their maintenance window")
        held = call_api.enqueue(1)
        print(held.status().state.value)
        harbor.limits.lift(call_api, by="ada")
        # They allow less from now on. Workers need no restart.
        harbor.limits.set(
            call_api, rate=Rate(10, per=timedelta(seconds=1)), by="ada", reason="their new contract"
        )
        harbor.run_until_idle()
        print(held.status().state.value)

        for entry in harbor.audit.find():
            print(entry.by, entry.action, entry.target, entry.reason)


if __name__ == "__main__":
    main()
