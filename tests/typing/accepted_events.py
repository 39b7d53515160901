"""Listening, and telling of oneself, as every type checker must accept it. Never run.

`tests/test_typing.py` runs mypy, basedpyright, pyrefly and ty over it; `refused_events.py` is its counterpart.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import assert_type

from tests.typing.tasks import Receipt, Thumb, resize, send_email

from taskharbor import Context, Harbor, JobHandle
from taskharbor.control import Feed
from taskharbor.event import JobDead, JobEvent, JobRetrying, JobStarted, JobSucceeded, Tally
from taskharbor.report import LogLine, Progress
from taskharbor.telemetry import Finished, Subscription


def a_handler_tells(ctx: Context) -> None:
    ctx.progress(1, 10, "halfway")
    ctx.progress(0.5)
    ctx.progress(3, note="rows")
    ctx.log("a line")


async def handles_tell(handle: JobHandle[int]) -> None:
    assert_type(handle.progress(), Progress | None)
    assert_type(await handle.aprogress(), Progress | None)
    assert_type(handle.log(), tuple[LogLine, ...])
    assert_type(await handle.alog(), tuple[LogLine, ...])


def the_kinds_asked_for_are_those_one_gets(harbor: Harbor) -> None:
    assert_type(harbor.events(), Subscription[JobEvent])
    assert_type(harbor.events(queues=["mail"], size=10), Subscription[JobEvent])
    assert_type(harbor.events(kinds=JobDead), Subscription[JobDead])
    assert_type(harbor.events(kinds=(JobDead,)), Subscription[JobDead])
    assert_type(harbor.events(kinds=(JobDead, JobRetrying)), Subscription[JobDead | JobRetrying])
    assert_type(harbor.events(kinds=[JobDead, JobRetrying]), Subscription[JobEvent])
    three = harbor.events(kinds=(JobDead, JobRetrying, JobSucceeded))
    assert_type(three, Subscription[JobDead | JobRetrying | JobSucceeded])
    four = harbor.events(kinds=(JobDead, JobRetrying, JobSucceeded, JobStarted))
    assert_type(four, Subscription[JobDead | JobRetrying | JobSucceeded | JobStarted])


async def events_are_narrow(harbor: Harbor) -> None:
    with harbor.events(kinds=(JobDead, JobRetrying), tasks=["a"], when_full="wait") as failures:
        for failure in failures:
            assert_type(failure, JobDead | JobRetrying)
            assert_type(failure.error, str)
    async with harbor.events(kinds=JobDead) as dead:
        async for letter in dead:
            assert_type(letter.reason, str)
        assert_type(await dead.aget(timeout=timedelta(seconds=1)), JobDead | None)
        assert_type(dead.dropped, int)
    wider: Subscription[JobEvent] = harbor.events(kinds=JobDead)
    del wider


async def results_are_typed_by_their_task(harbor: Harbor) -> None:
    assert_type(harbor.results(resize), Subscription[Finished[Thumb]])
    with harbor.results(resize) as thumbs:
        for done in thumbs:
            assert_type(done.result, Thumb)
            assert_type(done.result.width, int)
            assert_type(done.job_id, str)
    async with harbor.results(send_email, when_full="drop_newest") as receipts:
        async for sent in receipts:
            assert_type(sent.result, Receipt)


async def the_feed_gives_events(harbor: Harbor) -> None:
    assert_type(harbor.feed(), Feed)
    with harbor.feed(reader="dashboard", after="cursor", keep=timedelta(minutes=1)) as feed:
        for event in feed:
            assert_type(event, JobEvent)
        assert_type(feed.cursor, str | None)
    async with harbor.feed() as beside:
        async for event in beside:
            assert_type(event, JobEvent)


async def statistics_are_tallies(harbor: Harbor) -> None:
    assert_type(harbor.statistics.read(tasks=["a"]), Sequence[Tally])
    assert_type(await harbor.statistics.aread(), Sequence[Tally])
