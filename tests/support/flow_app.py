"""Tasks for tests of flows: each computes something of what it is given, so that a wrong result shows."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import timedelta

from taskharbor import Context, Failure, FlowFailure, Registry, Retry, Snooze, Success, task
from taskharbor.codec import MsgpackCodec

registry = Registry()

AT_ONCE = Retry(max_attempts=4, base=timedelta(0))
ONCE = Retry(max_attempts=1)

_lock = threading.Lock()
_met: Counter[str] = Counter()
told: list[FlowFailure] = []
"""What `tell` was told."""


def forget() -> None:
    """Begin anew."""
    with _lock:
        _met.clear()
    told.clear()


def meetings(name: str) -> int:
    """Return how often a name was met."""
    with _lock:
        return _met[name]


def meet(name: str) -> int:
    """Count a name, and return how often it was met by now."""
    with _lock:
        _met[name] += 1
        return _met[name]


@task(registry=registry)
async def number(value: int) -> int:
    """Return it."""
    return value


@task(registry=registry)
def double(value: int, plus: int = 0) -> int:
    """Return twice the value, and more."""
    return 2 * value + plus


@task(registry=registry, codec=MsgpackCodec())
async def packed(value: int) -> int:
    """Return it, in another format."""
    return value


@task(registry=registry)
async def subtract(left: int, right: int) -> int:
    """Return the difference: the order of arguments shows."""
    return left - right


@task(registry=registry)
async def upto(count: int) -> list[int]:
    """Return the numbers below."""
    return list(range(count))


@task(registry=registry)
async def add_up(values: list[int]) -> int:
    """Return the sum."""
    return sum(values)


@task(registry=registry)
async def add_all(first: int, more: list[int]) -> int:
    """Return the sum of all."""
    return first + sum(more)


@task(registry=registry)
async def total(*values: int) -> int:
    """Return the sum."""
    return sum(values)


@task(registry=registry)
async def write(values: list[int]) -> str:
    """Return them as text: their order shows."""
    return ",".join(map(str, values))


@task(registry=registry)
async def flatten(values: list[list[int]]) -> list[int]:
    """Return the numbers of all lists."""
    return [value for inner in values for value in inner]


@task(registry=registry)
async def describe(results: list[Success[int] | Failure]) -> str:
    """Return what each came to."""
    return " ".join(
        str(result.value) if isinstance(result, Success) else result.error_type for result in results
    )


@task(registry=registry, retry=AT_ONCE)
async def stumble(value: int, name: str, times: int = 1) -> int:
    """Fail so many times, then return the value."""
    if meet(name) <= times:
        raise ConnectionError(name)
    return value


@task(registry=registry)
async def doze(value: int, name: str) -> int:
    """Snooze once, then return the value."""
    if meet(name) == 1:
        raise Snooze(timedelta(0))
    return value


@task(registry=registry, retry=ONCE)
async def refuse(value: int) -> int:
    """Fail for good."""
    raise ValueError(f"no {value}")


@task(registry=registry, retry=ONCE)
async def refuse_once(value: int, name: str) -> int:
    """Fail for good; succeed when it is requeued."""
    if meet(name) == 1:
        raise ValueError(f"no {value}")
    return value


@task(registry=registry)
async def tell(failure: FlowFailure, prefix: str = "") -> None:
    """Note what failed."""
    told.append(failure)
    meet(f"{prefix}told")


@task(registry=registry, keep_result=False)
async def unkept(value: int) -> int:
    """Return what nobody means to keep."""
    return value


@task(registry=registry, retry=AT_ONCE)
async def follow(ctx: Context, name: str, fail: int = 0) -> int:
    """Ask for more on success; fail so many times first."""
    ctx.enqueue_on_success(note.s(f"{name}-job"), number.s(1).then(double).then(note_value))
    if meet(name) <= fail:
        raise ConnectionError(name)
    return 1


@task(registry=registry)
async def note(name: str) -> None:
    """Count a name."""
    meet(name)


@task(registry=registry)
async def note_value(value: int) -> None:
    """Count a value."""
    meet(f"value-{value}")


@task(registry=registry, retry=ONCE, run="process")
def follow_in_process(ctx: Context) -> None:
    """Ask for more where that cannot be."""
    ctx.enqueue_on_success(note.s("never"))
