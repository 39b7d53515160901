"""The bare worker for lone jobs, as a process: woken by NOTIFY, it takes a job, runs it and settles it.

python -m benchmarks.postgres.lone CONNINFO SCHEMA
"""

from __future__ import annotations

import sys

import psycopg

from benchmarks.app import arrived
from benchmarks.fixtures import on_own_loop
from benchmarks.postgres.bare import Bare

READY = "ready"
"""Printed once it listens."""


async def serve(conninfo: str, schema: str) -> None:
    """Take jobs as they come, until cancelled."""
    bare = Bare(conninfo, schema)
    async with (
        await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as listening,
        await psycopg.AsyncConnection.connect(conninfo, autocommit=True) as working,
    ):
        await listening.execute(f"LISTEN {schema}".encode())
        print(READY, flush=True)
        async for _ in listening.notifies():
            await bare.take_one(working, arrived.fn)


if __name__ == "__main__":
    on_own_loop(lambda: serve(*sys.argv[1:]))
