"""What a process pays: importing the library, and a worker with nothing to do. Measured in fresh interpreters.

The children report on themselves: what a parent sees through its own bookkeeping would need another dependency.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from statistics import median

import msgspec

from benchmarks.measure import Figures, Floor, Measure, Settings, Theme

_IDLE_SECONDS = 10.0

_IMPORT = """
import sys, time
began = time.perf_counter()
__import__(sys.argv[1])
print((time.perf_counter() - began) * 1000)
"""

_IDLE = """
import os, subprocess, sys, time
from taskharbor import Harbor, task

@task
async def noop(to: str, n: int) -> int:
    return n

def resident():
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:  # no Linux
        return int(subprocess.check_output(["ps", "-o", "rss=", "-p", str(os.getpid())])) / 1024

url, seconds = sys.argv[1], float(sys.argv[2])
with Harbor(url) as harbor, harbor.worker_thread():
    time.sleep(1.0)  # what a start costs is not what idling costs
    wall, cpu = time.perf_counter(), time.process_time()
    time.sleep(seconds)
    share = (time.process_time() - cpu) / (time.perf_counter() - wall)
    print(share * 100, resident())
"""


@contextmanager
def theme(settings: Settings) -> Generator[Theme]:
    """Open the theme."""

    with (
        tempfile.TemporaryDirectory(prefix="taskharbor-bench-") as cache,
        import_time("taskharbor") as imported,
    ):

        def importing() -> Figures:
            return {"import": imported()}

        def idling() -> Figures:
            share, resident = _child(cache, _IDLE, f"{settings.driver}://", str(_IDLE_SECONDS))
            return {"cpu": share, "rss": resident}

        def most(bound: float) -> Floor:
            return Floor(bound=bound, of="figure", at_least=False)

        yield Theme(
            name="process",
            subjects=[importing, idling],
            measures=[
                Measure(name="import taskharbor", unit="ms", ours="import", better="less", floor=most(100)),
                Measure(name="idle worker, CPU", unit="%", ours="cpu", better="less", floor=most(1)),
                Measure(name="idle worker, memory", unit="MiB", ours="rss", better="less", floor=most(45)),
            ],
            warm_up=False,
            rounds=2,
        )


@contextmanager
def import_time(module: str) -> Generator[Callable[[], float]]:
    """Give a function that imports a module in fresh interpreters and returns how many milliseconds one takes."""
    with tempfile.TemporaryDirectory(prefix="taskharbor-bench-") as cache:
        _child(cache, _IMPORT, module)  # compiles what is imported
        # Several, since a round is long for the sake of what else is in it.
        yield lambda: median(_child(cache, _IMPORT, module)[0] for _ in range(5))


def _child(cache: str, program: str, *arguments: str) -> list[float]:
    # Compiled once, as any installed package is, whatever this environment says of bytecode.
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
    )
    return msgspec.convert(done.stdout.split(), list[float], strict=False)
