"""100,000 dead letters: filtered, rehearsed, requeued, exported and purged, in memory that does not grow with them.

Each command runs in a process of its own, whose memory at its most is compared with what the same takes for a few.
Prints what each took: `pytest -m slow -s tests/test_cli_many.py`.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import msgspec
import pytest

from taskharbor import Harbor, Registry, task
from taskharbor.driver import JobReserve, JobSettle, QueueTake
from taskharbor.job import AttemptError, new_token
from taskharbor.settlement import SettleKind, Settlement
from tests.fixtures.support import SOURCES
from tests.support.chaos_stores import STORES, chaos_store
from tests.support.work import ENOUGH

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for memory")]

MANY = 100_000
FEW = 1_000
CHUNK = 1_000
GROWTH_MB = 24
"""So much more than for a few a command may take for all: pages of the interpreter and caches of the store; 100,000
records alone would be hundreds."""

APPLICATION = """
from taskharbor import Harbor, task

@task(name="row.load")
def load(row: int) -> None: ...

harbor = Harbor("memory://")
"""


# The system's own account of a child's memory begins with that of the process that started it.
_COMMAND = """
import sys
from pathlib import Path
from taskharbor.cli.entry import run
code = run(sys.argv[1:])
print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0], file=sys.stderr)
sys.exit(code)
"""


class Took(msgspec.Struct, frozen=True):
    """How a command ended, what it printed, and what it took."""

    code: int
    out: Path
    seconds: float
    peak_mb: float

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.out.read_text(encoding="utf-8").splitlines()]


class Cemetery:
    """A store with dead letters. One in a hundred has arguments that no longer fit; one in ten died of a KeyError."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        (folder / "app.py").write_text(APPLICATION, encoding="utf-8")

    def fill(self, count: int) -> None:
        """Bury jobs, as workers do, a thousand at a time."""
        registry = Registry()

        @task(name="row.load", registry=registry)
        def load(row: int | str) -> None: ...

        with Harbor(self.url, registry=registry) as harbor:
            for begin in range(0, count, CHUNK):
                rows = range(begin, begin + CHUNK)
                harbor.enqueue_many([load.s(str(row) if row % 100 == 0 else row) for row in rows])
                self._bury(harbor)

    def _bury(self, harbor: Harbor) -> None:
        request = JobReserve(
            queues=[QueueTake("default", CHUNK)],
            limit=CHUNK,
            lease=ENOUGH,
            token=new_token(),
            worker="gravedigger",
            tasks=frozenset({"row.load"}),
            build="test",
            guarded_limit=0,
            solo=False,
        )
        reserved = harbor.ask(lambda store: store.job_reserve(request))
        settlements = [
            Settlement(
                delivery.id,
                delivery.token,
                SettleKind.BURY,
                error=AttemptError(
                    attempt=1,
                    type="KeyError" if number % 10 == 0 else "ValueError",
                    message=f"row {number} is bad",
                    traceback="Traceback: " + "x" * 1_000,
                ),
                reason="all attempts have failed",
                charge=True,
            )
            for number, delivery in enumerate(reserved.deliveries)
        ]
        harbor.ask(lambda store: store.job_settle(JobSettle(settlements=settlements)))

    def run(self, *arguments: str, app: bool = False) -> Took:
        """Run a command in a process of its own."""
        out = self.folder / "out"
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("TASKHARBOR_")
        }
        begun = time.perf_counter()
        with out.open("wb") as stdout:
            ended = subprocess.run(
                [
                    *(sys.executable, "-c", _COMMAND),
                    *(["--app", "app.py"] if app else []),
                    *("--url", self.url),
                    *arguments,
                ],
                cwd=self.folder,
                env={**environment, "PYTHONPATH": str(SOURCES)},
                stdout=stdout,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        seconds = time.perf_counter() - begun
        assert ended.returncode in (0, 1), ended.stderr
        took = Took(ended.returncode, out, seconds, int(ended.stderr.split()[-1]) / 1024)
        print(f"{' '.join(arguments)[:60]:<60} {took.seconds:6.1f} s  {took.peak_mb:6.1f} MB")
        return took


@pytest.fixture(params=STORES)
def cemetery(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Cemetery]:
    with chaos_store(request.param, tmp_path) as store:
        yield Cemetery(store.url, tmp_path)


@pytest.mark.timeout(900)
def test_a_hundred_thousand_dead_letters_are_handled_in_the_memory_of_a_page(cemetery: Cemetery) -> None:
    file = cemetery.folder / "dead.jsonl.gz"
    cemetery.fill(FEW)
    few = {
        "export": cemetery.run("dlq", "export", str(file), "--arguments").peak_mb,
        "dry run": cemetery.run("dlq", "requeue", "--all", "--dry-run", "--json", app=True).peak_mb,
        "requeue": cemetery.run("dlq", "requeue", "--all", "--yes").peak_mb,
        "purge": cemetery.run("jobs", "delete", "--all", "--task", "row.load", "--yes").peak_mb,
    }
    cemetery.fill(MANY)

    filtered = cemetery.run(
        "dlq", "list", "--error", "KeyError", "--text", "ROW 50 ", "--limit", "1000", "--json"
    ).lines()
    export = cemetery.run("dlq", "export", str(file), "--arguments", "--yes")
    rehearsal = cemetery.run("dlq", "requeue", "--all", "--dry-run", "--json", app=True)
    groups = Counter[bool]()
    for group in rehearsal.lines():
        groups[bool(group["runs"])] += int(str(group["count"]))
    some = cemetery.run("dlq", "requeue", "--all", "--error", "KeyError", "--yes")
    told_some = some.out.read_text(encoding="utf-8")
    rest = cemetery.run("dlq", "requeue", "--all", "--yes")
    told_rest = rest.out.read_text(encoding="utf-8")
    purge = cemetery.run("jobs", "delete", "--all", "--task", "row.load", "--yes")

    assert 100 == len({line["id"] for line in filtered})
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        ids = {json.loads(line)["id"] for line in lines}
    assert MANY == len(ids)
    assert {True: MANY * 99 // 100, False: MANY // 100} == dict(groups)
    assert ("10,000 requeued\n", "90,000 requeued\n") == (told_some, told_rest)
    assert f"{MANY:,} deleted\n" == purge.out.read_text(encoding="utf-8")
    grown = {
        "export": export.peak_mb - few["export"],
        "dry run": rehearsal.peak_mb - few["dry run"],
        "requeue": rest.peak_mb - few["requeue"],
        "purge": purge.peak_mb - few["purge"],
    }
    assert {} == {name: growth for name, growth in grown.items() if growth > GROWTH_MB}
