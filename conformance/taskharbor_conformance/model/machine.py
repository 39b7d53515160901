"""A store and the book side by side: what every rule of the machine needs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from contextlib import AsyncExitStack, ExitStack
from datetime import datetime
from typing import TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from taskharbor.driver import CancelRequest, Driver, JobGet, Reclaimed, Store
from taskharbor.job import Delivery, JobRecord, JobState, NewJob
from taskharbor_conformance.model.book import Book
from taskharbor_conformance.model.records import BookJob
from taskharbor_conformance.model.timetable import Timetable

T = TypeVar("T")


class Machine(RuleBasedStateMachine):
    """A store and the book, and what was sent, delivered, ended and fired so far."""

    def __init__(self) -> None:
        super().__init__()
        self.book = Book()
        self.timetable = Timetable(self.book)
        self.ticks: set[tuple[str, datetime]] = set()
        self.sent: dict[str, NewJob] = {}
        self.last_words: dict[str, bytes] = {}
        """By the id that was answered, the payload last accepted under it."""
        self.delivered: list[Delivery] = []
        self.ended: dict[str, JobRecord] = {}
        self.tokens = 0
        self.loop = asyncio.new_event_loop()
        self.resources = AsyncExitStack()
        self.place = ExitStack()
        self.driver = self.make_driver()
        self.store: Store = self.ask(self.resources.enter_async_context(self.driver.connect()))

    def make_driver(self) -> Driver:
        """Return a driver on an empty store."""
        raise NotImplementedError("a machine is made by contract_machine(factory)")

    def teardown(self) -> None:
        """Close the store, the driver and the loop."""
        try:
            self.ask(self.resources.aclose())
        finally:
            self.place.close()
            self.loop.close()

    def ask(self, verb: Awaitable[T]) -> T:
        """Run one verb to its end on this machine's loop."""
        return self.loop.run_until_complete(verb)

    def pick(self, data: st.DataObject, *states: JobState) -> list[str]:
        """Draw one to three different jobs, of which the first is in one of `states` if there is any such."""
        likely = sorted(job_id for job_id, job in self.book.jobs.items() if self.book.state(job) in states)
        all_of_them = [*sorted(self.book.jobs), *sorted(self.book.gone)[:2]]
        first = data.draw(st.sampled_from(likely or all_of_them), label="job")
        others = data.draw(st.lists(st.sampled_from(all_of_them), max_size=2), label="and")
        return list(dict.fromkeys([first, *others]))

    def get(self, ids: Iterable[str]) -> Sequence[JobRecord | None]:
        """Look jobs up."""
        return self.ask(self.store.job_get(JobGet(ids=list(ids), now=self.book.now)))


def delivery_of(job: BookJob, token: int) -> Delivery:
    """Return how a job should be delivered by a reserve."""
    return Delivery(
        id=job.new.id,
        token=token,
        task=job.new.task,
        queue=job.new.queue,
        payload=job.new.payload,
        codec=job.new.codec,
        fingerprint=job.new.fingerprint,
        attempt=job.attempt + 1,
        fence=job.deliveries,
        retry=job.new.retry,
        timeout=job.new.timeout,
        priority=job.new.priority,
        run_at=job.run_at,
        enqueued_at=job.enqueued_at,
        key=job.new.key,
        meta=job.new.meta,
        keep_result=job.new.keep_result,
        guarded=job.guarded,
        solo=job.solo,
        cancel_requested=job.cancel is not None,
    )


def job_of(answer: CancelRequest | Reclaimed) -> str:
    """Return the job that an answer is about."""
    return answer.job_id


def same(expected: T, got: T, what: str) -> None:
    """Check what the store said against the book."""
    assert expected == got, f"{what}: the contract says {expected!r}, the store said {got!r}"
