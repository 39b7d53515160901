"""Worker processes, started by the command line as anybody would, and what the system says of them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from taskharbor import Harbor
from taskharbor.driver import Store, WorkerInfo, WorkerList

HERE = Path(__file__).resolve().parents[1]
"""Where the package `benchmarks` is."""
_START_SECONDS = 60.0
STOP_SECONDS = 60.0
_LOOK_SECONDS = 0.02


@contextmanager
def workers(
    harbor: Harbor, url: str, count: int = 1, variables: Mapping[str, str] | None = None
) -> Generator[list[int]]:
    """Give the ids of so many worker processes on a store, once they are ready; stop them at the end."""
    with ExitStack() as stack:
        started = [stack.enter_context(_worker(url, variables or {})) for _ in range(count)]
        deadline = time.monotonic() + _START_SECONDS
        while len(harbor.ask(_there)) < count:
            ended = [process.returncode for process in started if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                raise RuntimeError(f"the workers did not start; exit codes of those that ended: {ended}")
            time.sleep(_LOOK_SECONDS)
        yield [process.pid for process in started]


@contextmanager
def _worker(url: str, variables: Mapping[str, str]) -> Generator[subprocess.Popen[bytes]]:
    found = [str(HERE), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    process = subprocess.Popen(
        [
            sys.executable,
            *("-m", "taskharbor.cli", "worker", "--app=benchmarks.app:harbor"),
            *(f"--url={url}", "--log-level=warning"),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, found)), **variables},
        cwd=HERE,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)


async def _there(store: Store) -> list[WorkerInfo]:
    return list(await store.worker_list(WorkerList()))


def processor_seconds(pid: int) -> float:
    """Return how long a process has used a processor, to a hundredth of a second."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:  # no Linux
        minutes, _, seconds = _asked("time", pid).rpartition(":")
        return float(minutes) * 60 + float(seconds)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    """Return how much memory a process has, in MiB."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except OSError:  # no Linux
        return int(_asked("rss", pid)) / 1024
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _asked(what: str, pid: int) -> str:
    return subprocess.check_output(["/bin/ps", "-o", f"{what}=", "-p", str(pid)], text=True).strip()
