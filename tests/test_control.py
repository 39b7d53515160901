"""`harbor.jobs.find` and `count` by error, text and time; what cannot be asked; `harbor.workers`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from taskharbor import BlockingCallError, Harbor, JobState, OptionError, Registry, Retry, task
from taskharbor.control import JobFilters
from tests.support.work import HOUR


@pytest.fixture
def harbor() -> Iterator[Harbor]:
    """A harbor with two dead letters of different errors, and a job that waits."""
    registry = Registry()

    @task(name="row.load", registry=registry, retry=Retry(max_attempts=1))
    def load(row: int) -> None:
        raise (KeyError if row % 2 else ValueError)(f"row {row} is bad")

    @task(name="mail.send", queue="mail", registry=registry)
    def send() -> None: ...

    with Harbor("memory://", registry=registry) as made:
        load.enqueue(1)
        load.enqueue(2)
        made.run_until_idle()
        send.enqueue()
        yield made


@pytest.mark.parametrize("text", ["\ud800", "a\x00"])
def test_text_that_no_store_can_hold_is_refused_where_it_is_looked_for(harbor: Harbor, text: str) -> None:
    for look in (
        lambda: harbor.jobs.find(text=text),
        lambda: harbor.jobs.find(key=text),
        lambda: harbor.jobs.find(flow=text),
        lambda: harbor.jobs.find(after=text),
        lambda: harbor.jobs.count(error=text),
        lambda: harbor.jobs.count(queues=[text]),
        lambda: harbor.jobs.get(text),
        lambda: harbor.jobs.cancel([text]),
        lambda: harbor.flows.get(text),
        lambda: harbor.flows.steps(text),
        lambda: harbor.flows.find(after=text),
        lambda: harbor.statistics.read(tasks=[text]),
        lambda: harbor.feed(reader=text),
        lambda: harbor.feed(after=text),
    ):
        with pytest.raises(OptionError, match="nothing in any store has it"):
            look()


@pytest.mark.parametrize("limit", [0, 10**19, True])
def test_a_limit_that_no_store_can_count_to_is_refused(harbor: Harbor, limit: int) -> None:
    with pytest.raises(OptionError, match=r"expected 1 to 2,147,483,647"):
        harbor.jobs.find(limit=limit)
    with pytest.raises(OptionError, match=r"expected 1 to 2,147,483,647"):
        harbor.flows.find(limit=limit)


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (JobFilters(error="KeyError"), 1),
        (JobFilters(error="builtins.KeyError"), 0),
        (JobFilters(text="ROW 2"), 1),
        (JobFilters(queues=["mail"]), 1),
        (JobFilters(finished_since=datetime.now(UTC) - HOUR), 2),
        (JobFilters(finished_before=datetime.now(UTC) - HOUR), 0),
        (JobFilters(enqueued_since=datetime.now(UTC) - HOUR, enqueued_before=None), 3),
        (JobFilters(enqueued_before=datetime.now(UTC) - HOUR), 0),
    ],
)
def test_find_and_count_agree_on_what_a_filter_lets_through(
    harbor: Harbor, filters: JobFilters, found: int
) -> None:
    async def from_a_loop() -> tuple[int, int]:
        counted = await harbor.jobs.acount(**filters)
        return len(await harbor.jobs.afind(**filters)), sum(some.count for some in counted)

    assert found == len(harbor.jobs.find(**filters))
    assert found == sum(some.count for some in harbor.jobs.count(**filters))
    assert (found, found) == asyncio.run(from_a_loop())


@pytest.mark.parametrize(
    ("filters", "why"),
    [
        ({"eror": "KeyError"}, r"there is no filter 'eror' \(did you mean 'error'\?\)"),
        ({"text": 3}, "text=3: expected text"),
        ({"enqueued_since": datetime(2030, 1, 1)}, "expected an instant with a time zone"),  # noqa: DTZ001
        ({"finished_before": HOUR}, "expected an instant with a time zone"),
        ({"queues": "mail"}, "queues='mail': expected a list of names"),
    ],
)
def test_what_cannot_be_asked_is_refused(harbor: Harbor, filters: dict[str, object], why: str) -> None:
    with pytest.raises(OptionError, match=why):
        harbor.jobs.find(**filters)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(OptionError, match=why):
        harbor.jobs.count(**filters)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_filters_narrow_down_together_with_states(harbor: Harbor) -> None:
    assert ["row.load"] == [job.task for job in harbor.jobs.find(states=[JobState.DEAD], error="ValueError")]
    assert [] == harbor.jobs.find(states=[JobState.READY], error="ValueError")


def test_live_workers_are_listed(harbor: Harbor) -> None:
    async def from_a_loop() -> list[str]:
        with pytest.raises(BlockingCallError, match=r"harbor\.workers\.alist"):
            harbor.workers.list()
        return [worker.worker for worker in await harbor.workers.alist()]

    with harbor.worker_thread(queues=["elsewhere"], lease=timedelta(seconds=5)):
        (worker,) = harbor.workers.list()
        again = asyncio.run(from_a_loop())

    assert (["elsewhere"], [worker.worker]) == (list(worker.queues), again)
    assert [] == harbor.workers.list()
