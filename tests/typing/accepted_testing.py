"""Uses of `taskharbor.testing` that every type checker must accept. Never run."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from typing import assert_type

from tests.typing.tasks import Deps, Receipt, Thumb, registry, resize, send_email, send_letter

from taskharbor import Harbor, WorkerCounts
from taskharbor.testing import (
    EnqueuedCall,
    InlineHarbor,
    ManualClock,
    assert_enqueued,
    assert_not_enqueued,
    enqueued,
)


def is_to_a(call: EnqueuedCall[Receipt]) -> bool:
    return call.arguments["to"] == "a@b.c"


def looks(harbor: InlineHarbor) -> None:
    assert_type(enqueued(send_email), list[EnqueuedCall[Receipt]])
    assert_type(enqueued(resize, harbor=harbor)[0].handle.result(), Thumb)
    assert_type(assert_enqueued(send_email.s(to="a@b.c")), EnqueuedCall[Receipt])
    assert_type(assert_enqueued(send_email, where=is_to_a, count=2), EnqueuedCall[Receipt])
    assert_enqueued(send_letter, where=lambda call: call.priority == 3)
    assert_enqueued(send_email.options(queue="mail", run_in=timedelta(hours=1)).s("a@b.c"))
    assert_enqueued(resize, queue="default", priority=5, run_at=datetime.now(UTC), key="k", meta={"by": "me"})
    assert_not_enqueued(resize.s(1), harbor=harbor)
    assert_not_enqueued(send_letter, run_in=timedelta(0))


def fakes() -> AbstractContextManager[Deps]:
    raise NotImplementedError


def harbors(application: Harbor, deps: Deps) -> None:
    with InlineHarbor(registry=registry, deps=fakes, raise_errors=True) as harbor:
        assert_type(harbor, InlineHarbor)
        assert_type(harbor.clock, ManualClock)
        assert_type(harbor.clock.advance(timedelta(hours=1)), datetime)
        assert_type(harbor.drain(), WorkerCounts)
        assert_type(harbor.drain(within=timedelta(days=1), raise_errors=False).settled, dict[str, int])
    with InlineHarbor.like(application, deps=lambda: nullcontext(deps)) as harbor:
        harbor.fail_next(send_email, ConnectionError("gone"), times=2, after=True)
        harbor.fail_next_enqueue(times=2, stored=True)
    with harbor.everywhere() as same:
        assert_type(same, InlineHarbor)


async def on_a_loop() -> None:
    async with InlineHarbor(clock=ManualClock()) as harbor:
        assert_type(await harbor.adrain(within=timedelta(hours=1)), WorkerCounts)
