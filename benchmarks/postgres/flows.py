"""Flows: what a step costs beside a plain job, in a large chord and in many chains; and a producer's memory."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager

from benchmarks.fixtures import IN_FLIGHT, registry
from benchmarks.measure import Figures, Floor, Measure, Settings, Theme
from benchmarks.postgres.server import Bench, bench_server, schema_of
from taskharbor import Harbor, Signature, chord, task

_MEMBERS = 10_000
_CHAINS, _STEPS = 1_000, 10
_FEW, _MANY = 10_000, 100_000
_CHORD = Floor(bound=0.5, of="ratio")
_CHAIN = Floor(bound=0.3, of="ratio")
_FLAT = Floor(bound=0.9, of="ratio")

# A process of its own for each: the most memory it ever held says nothing of what came before.
_PRODUCE = """
import resource, sys
from benchmarks.postgres.flows import produce
from taskharbor import Harbor
from benchmarks.fixtures import registry

with Harbor(sys.argv[1], registry=registry):
    produce(int(sys.argv[2]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@task(registry=registry)
async def member(n: int) -> int:
    """Do nothing."""
    return n


@task(registry=registry)
async def count_up(values: list[int]) -> int:
    """Return how many came in."""
    return len(values)


def produce(members: int) -> None:
    """Enqueue a chord of so many members, which are made one by one."""
    chord((member.s(n) for n in range(members)), count_up).enqueue()


@contextmanager
def theme(settings: Settings) -> Generator[Theme]:
    """Open the theme: each run fills a schema of its own."""
    with bench_server(settings) as bench:
        yield Theme(
            name="flows",
            subjects=[
                _drain(bench, "plain", _MEMBERS, lambda harbor: _send(harbor, _plain())),
                _drain(bench, "chord", _MEMBERS + 1, lambda _: produce(_MEMBERS)),
                _drain(bench, "chains", _CHAINS * _STEPS, lambda harbor: _send(harbor, _chains())),
                *(_memory(bench, members) for members in (_FEW, _MANY)),
            ],
            measures=[
                Measure(
                    name=f"drain of a chord of {_MEMBERS:,} : as many plain jobs",
                    unit="jobs/s",
                    ours="chord",
                    ceiling="plain",
                    floor=_CHORD,
                ),
                Measure(
                    name=f"drain of {_CHAINS:,} chains of {_STEPS} : as many plain jobs",
                    unit="jobs/s",
                    ours="chains",
                    ceiling="plain",
                    floor=_CHAIN,
                ),
                Measure(
                    name=f"enqueue of a chord of {_MEMBERS:,} : as many plain jobs",
                    unit="jobs/s",
                    ours="chord enqueue",
                    ceiling="plain enqueue",
                ),
                Measure(
                    name=f"most memory of a producer of {_MANY:,} members : of {_FEW:,}",
                    unit="MiB",
                    ours=f"memory {_MANY}",
                    ceiling=f"memory {_FEW}",
                    better="less",
                    floor=_FLAT,
                ),
            ],
        )


def _send(harbor: Harbor, signatures: Iterable[Signature[int]]) -> None:
    harbor.enqueue_many(signatures)


def _plain() -> Iterable[Signature[int]]:
    return (member.s(n) for n in range(_MEMBERS))


def _chains() -> Iterable[Signature[int]]:
    for n in range(_CHAINS):
        flow: Signature[int] = member.s(n)
        for _ in range(_STEPS - 1):
            flow = flow.then(member)
        yield flow


def _drain(bench: Bench, name: str, jobs: int, fill: Callable[[Harbor], None]) -> Callable[[], Figures]:
    def run() -> Figures:
        with bench.schema() as url, Harbor(url, registry=registry) as harbor:
            began = time.perf_counter()
            fill(harbor)
            filled = time.perf_counter()
            bench.steady(f"{schema_of(url)}.job")
            begin = time.perf_counter()
            harbor.run_until_idle(concurrency=IN_FLIGHT)
            ended = time.perf_counter()
        return {name: jobs / (ended - begin), f"{name} enqueue": jobs / (filled - began)}

    return run


def _memory(bench: Bench, members: int) -> Callable[[], Figures]:
    def run() -> Figures:
        with bench.schema() as url:
            told = subprocess.check_output([sys.executable, "-c", _PRODUCE, url, str(members)], text=True)
        return {f"memory {members}": float(told)}

    return run
