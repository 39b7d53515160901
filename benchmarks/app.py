"""What the worker processes of the benchmarks run: `taskharbor worker --app benchmarks.app:harbor --url ...`."""

from __future__ import annotations

import os
import struct
import time
from functools import cache

from benchmarks.fixtures import registry
from taskharbor import Harbor, task

PIPE_VARIABLE = "TASKHARBOR_BENCH_PIPE"
"""Names the pipe that `arrived` writes to."""
INSTANT = struct.Struct("=q")

harbor = Harbor("memory://", registry=registry)


@task(registry=registry)
async def arrived() -> None:
    """Tell when the handler began. The monotonic clock is one for all processes of a machine."""
    os.write(_pipe(), INSTANT.pack(time.monotonic_ns()))


@cache
def _pipe() -> int:
    return os.open(os.environ[PIPE_VARIABLE], os.O_WRONLY)
