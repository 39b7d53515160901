"""A worker inside an asyncio program of your own: it shares the loop, and stops with its block."""

import asyncio
from datetime import timedelta

from taskharbor import Harbor, task


@task
async def greet(name: str) -> str:
    """Take a moment to greet somebody."""
    await asyncio.sleep(0.05)
    return f"hello, {name}"


async def main() -> None:
    """Start a worker, send it jobs, wait for their results."""
    async with Harbor("memory://") as harbor, harbor.worker(concurrency=10) as worker:
        # On an event loop every blocking call has a form that begins with `a`.
        jobs = [await greet.aenqueue(name) for name in ("Ada", "Grace", "Radia")]
        for job in jobs:
            print(await job.aresult(timeout=timedelta(seconds=5)))
    # Leaving the block drained the worker, so its counts are final.
    print(worker.counts.settled)


if __name__ == "__main__":
    asyncio.run(main())
