"""Uses of `taskharbor.testing` that every type checker must refuse: one a line, each marked `# E`. Never run."""

from __future__ import annotations

from datetime import timedelta

from tests.typing.tasks import Receipt, Thumb, resize, send_email

from taskharbor.testing import (
    EnqueuedCall,
    InlineHarbor,
    assert_enqueued,
    assert_not_enqueued,
    enqueued,
)


def is_sent(call: EnqueuedCall[Receipt]) -> bool:
    return call.handle.result().id != ""


def plain(to: str) -> Receipt:
    raise NotImplementedError


def looks(harbor: InlineHarbor) -> None:
    assert_enqueued(send_email.s(to=5))  # E
    assert_enqueued(send_email.s(whom="a@b.c"))  # E
    assert_enqueued(send_email(to="a@b.c"))  # E
    assert_enqueued("mail.send")  # E
    assert_enqueued(plain)  # E
    assert_enqueued(send_email, count="2")  # E
    assert_enqueued(send_email, run_in=3600)  # E
    assert_enqueued(send_email, where="to")  # E
    assert_enqueued(resize, where=is_sent)  # E
    assert_enqueued(send_email, whom="a@b.c")  # E
    assert_not_enqueued(send_email.s())  # E
    assert_not_enqueued(send_email, count=1)  # E
    enqueued(plain)  # E
    enqueued(send_email.s("a@b.c"))  # E
    thumbs: list[EnqueuedCall[Thumb]] = enqueued(send_email)  # E
    _ = thumbs


async def harbors(harbor: InlineHarbor) -> None:
    harbor.drain(within=60)  # E
    harbor.fail_next(plain, OSError())  # E
    harbor.fail_next(send_email, "gone")  # E
    harbor.clock.advance(60)  # E
    InlineHarbor("memory://")  # E
    InlineHarbor(deps=5)  # E
    harbor.clock = timedelta(0)  # E
