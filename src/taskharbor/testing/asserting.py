"""Looking at what was enqueued, and assertions on it. They read the store, so they tell of what was stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import cast

from typing_extensions import TypeVar

from taskharbor.call import Signature, current_dispatcher
from taskharbor.errors import OptionError
from taskharbor.task import Task
from taskharbor.testing.calls import EnqueuedCall, calls_in, calls_of
from taskharbor.testing.expected import Expected, Wanted
from taskharbor.testing.inline import InlineHarbor, definition_of

R = TypeVar("R")

_LISTED = 10


def enqueued(task: Task[..., R], *, harbor: InlineHarbor | None = None) -> list[EnqueuedCall[R]]:
    """Return the calls of a task, in the order in which they were enqueued, whatever became of them since.

    Args:
        task: whose calls; steps of flows are among them.
        harbor: where to look, by default the current harbor.

    Raises:
        OptionError: what is no task; or the current harbor is no `InlineHarbor`.
        NoHarborError: there is no current harbor.
    """
    definition = definition_of(task, "enqueued")
    return [
        cast("EnqueuedCall[R]", call) for _, call in calls_of(_place(harbor, definition.name), definition)
    ]


def assert_enqueued(
    what: Signature[R] | Task[..., R],
    *,
    where: Callable[[EnqueuedCall[R]], bool] | None = None,
    count: int | None = None,
    queue: str | None = None,
    priority: int | None = None,
    run_at: datetime | None = None,
    run_in: timedelta | None = None,
    key: str | None = None,
    meta: Mapping[str, str] | None = None,
    harbor: InlineHarbor | None = None,
) -> EnqueuedCall[R]:
    """Assert that a call was enqueued, and return it, the first if there are several. It may have run since.

    Args:
        what: a call, `send_email.s(to="a@b.c")`, whose arguments are compared decoded, defaults filled in, and with it
            what it says by `.options(...)`, each option; or a task, for a call with any arguments.
        where: a condition on the call: `where=lambda call: call.arguments["to"] == "a@b.c"`.
        count: how often, exactly; by default at least once.
        queue: the queue it waits in, or waited in.
        priority: its priority.
        run_at: its earliest start.
        run_in: the time from its enqueue to its earliest start.
        key: its idempotency key.
        meta: metadata that it has, among other.
        harbor: where to look, by default the current harbor.

    Raises:
        AssertionError: there is none, or another number of them; lists what was enqueued instead, the nearest first.
        PayloadError: the arguments do not fit the task's signature.
        OptionError: neither a call of one task nor a task; or the current harbor is no `InlineHarbor`.
        NoHarborError: there is no current harbor.
    """
    __tracebackhide__ = True
    if count is not None and (isinstance(count, bool) or count < 1):
        raise OptionError(f"count={count!r}: expected 1 or more; for none there is assert_not_enqueued")
    wanted = Wanted(queue=queue, priority=priority, run_at=run_at, run_in=run_in, key=key, meta=meta)
    place, expected = _expected(what, where, wanted, harbor)
    found, others = _divided(place, expected)
    if found and count in (None, len(found)):
        return cast("EnqueuedCall[R]", found[0])
    raise AssertionError(_told_missing(expected, len(found), count, others))


def assert_not_enqueued(
    what: Signature[R] | Task[..., R],
    *,
    where: Callable[[EnqueuedCall[R]], bool] | None = None,
    queue: str | None = None,
    priority: int | None = None,
    run_at: datetime | None = None,
    run_in: timedelta | None = None,
    key: str | None = None,
    meta: Mapping[str, str] | None = None,
    harbor: InlineHarbor | None = None,
) -> None:
    """Assert that no such call was enqueued; the arguments are those of `assert_enqueued`.

    It sees what the store holds. A job that is not kept any more passes unseen: one that was deleted, one of a task
    with `retain=timedelta(0)` once it has run, and others once the clock was turned beyond their retention.

    Raises:
        AssertionError: there is one; shows it.
        PayloadError: the arguments do not fit the task's signature.
        OptionError: neither a call of one task nor a task; or the current harbor is no `InlineHarbor`.
        NoHarborError: there is no current harbor.
    """
    __tracebackhide__ = True
    wanted = Wanted(queue=queue, priority=priority, run_at=run_at, run_in=run_in, key=key, meta=meta)
    place, expected = _expected(what, where, wanted, harbor)
    found, _ = _divided(place, expected)
    if found:
        shown = "".join(f"\n  {call} [{call.state}]" for call in found[:_LISTED])
        raise AssertionError(f"{len(found)} enqueued as {expected}, and none was expected:{shown}")


def _expected(
    what: Signature[R] | Task[..., R],
    where: Callable[[EnqueuedCall[R]], bool] | None,
    wanted: Wanted,
    harbor: InlineHarbor | None,
) -> tuple[InlineHarbor, Expected]:
    place = _place(harbor, getattr(what, "name", "...") if harbor is None else "")
    return place, Expected(place, what, where, wanted)


def _place(harbor: InlineHarbor | None, task: str) -> InlineHarbor:
    found = current_dispatcher(task) if harbor is None else harbor
    if not isinstance(found, InlineHarbor):
        raise OptionError(
            f"the harbor is {found!r}; expected an InlineHarbor, in which what was enqueued can be looked at: open one "
            "around the test (`with InlineHarbor() as harbor:`), or use the fixture inline_harbor"
        )
    return found


def _divided(
    harbor: InlineHarbor, expected: Expected
) -> tuple[list[EnqueuedCall], list[tuple[EnqueuedCall, list[str]]]]:
    """Return the calls that are as expected, and the others, each with why it is not, nearest first."""
    found: list[EnqueuedCall] = []
    others: list[tuple[EnqueuedCall, list[str]]] = []
    own = calls_of(harbor, expected.definition)
    foreign = ((r, c) for r, c in calls_in(harbor) if not expected.definition.answers_to(c.task))
    for record, call in (*own, *foreign):
        misfits = expected.misfits(record, call)
        if misfits:
            others.append((call, misfits))
        else:
            found.append(call)
    same = expected.definition.answers_to
    others.sort(key=lambda one: (not same(one[0].task), len(one[1])))
    return found, others


def _told_missing(
    expected: Expected, found: int, count: int | None, others: list[tuple[EnqueuedCall, list[str]]]
) -> str:
    head = f"nothing was enqueued as {expected}" if not found else f"{found} enqueued as {expected}"
    if count is not None:
        head += f"; expected {count}"
    if not others:
        return head if found else f"{head}; nothing at all was"
    shown = [f"  {call}: {'; '.join(misfits)}" for call, misfits in others[:_LISTED]]
    if len(others) > _LISTED:
        shown.append(f"  and {len(others) - _LISTED} others")
    return "\n".join([f"{head}. What else was, nearest first:", *shown])
