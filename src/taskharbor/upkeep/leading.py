"""What one worker at a time does for all: fire schedules, and prune. Every worker asks whether it is the one.

It runs on the thread that keeps leases, so that handlers which block their loop stop no schedule. Who does not lead
asks the store a third of a lease apart, and nothing else. Who leads has a connection of its own for the work, so that
no lease waits behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final

from taskharbor.driver import Driver, HistoryPrune, Store
from taskharbor.errors import StoreUnavailable
from taskharbor.upkeep.leadership import Leadership
from taskharbor.upkeep.scheduler import Scheduler, Told

logger = logging.getLogger("taskharbor.upkeep")

_PRUNE_SECONDS: Final = 60.0
_RULES_SECONDS: Final = 600.0
"""Between two times that rules of retention are applied, which read the history."""
_LOOK_SECONDS: Final = 1.0
"""The longest time between two looks at the schedules: they are created, and clocks are set, without telling."""
_RETRY_SECONDS: Final = 1.0
_RELEASE_SECONDS: Final = 2.0
"""What a store is given to answer at the end."""


class Leading:
    """One worker's share. Everything but `jobs` belongs to the loop that `run` was started on."""

    def __init__(
        self,
        driver: Driver,
        *,
        worker: str,
        leadership: Leadership | None = None,
        told: Told = lambda _jobs, _answers: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare it; nothing is asked before `run`. `told` hears of jobs that were made, on that loop."""
        self._driver = driver
        self._worker = worker
        self._monotonic = monotonic
        self._leadership = Leadership(worker) if leadership is None else leadership
        self._scheduler = Scheduler(self._leadership, told, monotonic=monotonic)
        self._work: asyncio.Task[None] | None = None
        self._look = asyncio.Event()
        self._rounds: list[asyncio.Future[None]] = []
        self._ended = False
        self._follows = False
        """Another leads, as the store said last."""
        self._failed: set[str] = set()
        """What has failed last time, and was logged."""

    async def run(self, store: Store) -> None:
        """Ask, lead while that is granted, and give it back when cancelled."""
        try:
            while True:
                await self._attempt("leadership", lambda: self._elect(store))
                # Spread out, so that many workers do not ask in step.
                await asyncio.sleep(self._leadership.every.total_seconds() * random.uniform(0.8, 1.0))
        finally:
            self._ended = True
            await self._rest()
            self._answer_rounds()
            with contextlib.suppress(Exception):  # the lease ends by itself
                await asyncio.wait_for(self._leadership.release(store), _RELEASE_SECONDS)

    @property
    def jobs(self) -> int:
        """Return how many jobs firing has made here so far, on any thread."""
        return self._scheduler.jobs

    async def round(self) -> None:
        """Have all fired that is due now; returns at once where another leads."""
        if self._ended or self._follows:
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._rounds.append(done)
        self._look.set()
        await done

    async def _elect(self, store: Store) -> None:
        leads = await self._leadership.ask(store)
        self._follows = not leads
        if leads and (self._work is None or self._work.done()):
            logger.debug("worker %s leads: it fires schedules and prunes", self._worker)
            self._work = asyncio.get_running_loop().create_task(self._lead(), name="taskharbor-leading")
        elif not leads:
            await self._rest()
            self._answer_rounds()

    async def _lead(self) -> None:
        while self._leadership.fence is not None:
            if not await self._attempt("schedules", self._lead_on):
                await asyncio.sleep(_RETRY_SECONDS)
        logger.debug("worker %s does not lead any more", self._worker)

    async def _lead_on(self) -> None:
        async with self._driver.connect() as store:
            prune_at = self._monotonic()
            # Soon, since leaders may change often; not at once, since some change as soon as they lead.
            rules_at = prune_at + _PRUNE_SECONDS
            while self._leadership.fence is not None:
                self._look.clear()
                rounds, self._rounds = self._rounds, []
                try:
                    fired = await self._scheduler.fire_due(store)
                except BaseException:
                    self._rounds = rounds + self._rounds
                    raise
                for done in rounds:
                    if not done.done():
                        done.set_result(None)
                self._failed.discard("schedules")
                wait = _LOOK_SECONDS
                if fired.next_in is not None:
                    wait = min(wait, max(fired.next_in.total_seconds(), 0.0))
                if self._monotonic() >= prune_at:
                    rules = self._monotonic() >= rules_at
                    if (await store.history_prune(HistoryPrune(rules=rules))).more:
                        wait = 0.0
                    else:
                        prune_at = self._monotonic() + _PRUNE_SECONDS * random.uniform(0.8, 1.2)
                        if rules:
                            rules_at = self._monotonic() + _RULES_SECONDS * random.uniform(0.8, 1.2)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._look.wait(), wait)

    async def _attempt(self, what: str, step: Callable[[], Awaitable[None]]) -> bool:
        """Take a step, and return whether it went well. A failure is logged once, and never ends the whole."""
        try:
            await step()
        except Exception as error:  # whatever it is, it is tried again
            if what not in self._failed:
                known = isinstance(error, StoreUnavailable)
                logger.warning(
                    "%s: worker %s tries again: %s",
                    what,
                    self._worker,
                    error,
                    exc_info=None if known else error,
                )
            self._failed.add(what)
            return False
        self._failed.discard(what)
        return True

    async def _rest(self) -> None:
        work, self._work = self._work, None
        if work is not None:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    def _answer_rounds(self) -> None:
        rounds, self._rounds = self._rounds, []
        for done in rounds:
            if not done.done():
                done.set_result(None)
