"""Outcomes that somebody's open transaction keeps from being written: asked again until it has ended.

Such a transaction holds a key that a success wants for what it brings, or the job itself. That says nothing about the
outcome: it is never given up for it, and its lease is kept for as long. Others are written meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Sequence

from taskharbor.driver import JobSettle, Store
from taskharbor.settlement import Settled, Settlement, SettleStatus

logger = logging.getLogger("taskharbor.worker")

_FIRST_SECONDS = 0.05
_LONGEST_SECONDS = 1.0
_TELL_AFTER = 5
"""Vain rounds in a row, a few seconds, after which it is told."""
_NAMED = 10


class Later:
    """Asks for what is held again, a little later each time."""

    def __init__(
        self,
        store: Store,
        on_settled: Callable[[Sequence[Settlement], Sequence[Settled]], None],
        on_refused: Callable[[Sequence[Settlement]], None],
        portion: Callable[[Sequence[Settlement]], int],
    ) -> None:
        """Prepare it.

        Args:
            store: the worker's own.
            on_settled: called with settlements and what became of them, one each, in order; adds those still held.
            on_refused: called with those that the store has refused altogether.
            portion: returns how many of the first of these are asked together.
        """
        self._store = store
        self._on_settled = on_settled
        self._on_refused = on_refused
        self._portion = portion
        self._waiting: list[Settlement] = []
        self._added = asyncio.Event()
        self._given_up = asyncio.Event()

    def add(self, settlements: Sequence[Settlement]) -> None:
        """Take over what is held."""
        self._waiting.extend(settlements)
        self._added.set()

    def give_up(self) -> None:
        """Ask for each once more, and leave what is held then to the expiry of its lease."""
        self._given_up.set()

    async def run(self) -> None:
        """Ask until cancelled."""
        vain = 0
        while True:
            if not self._waiting:
                vain = 0
                self._added.clear()
                await self._added.wait()
            await self._pause(min(_FIRST_SECONDS * 2**vain, _LONGEST_SECONDS))
            before, self._waiting = self._waiting, []
            while before:
                count = self._portion(before)
                part, before = before[:count], before[count:]
                await self._ask(part)
            vain = min(vain + 1, 30) if self._waiting else 0
            if self._given_up.is_set():
                self._leave()
            elif vain == _TELL_AFTER:
                logger.warning(
                    "%d outcomes wait to be written: a transaction that has not ended holds the job, or a key that is "
                    "to be enqueued with its success (%s)",
                    len(self._waiting),
                    _named(self._waiting),
                )

    async def _ask(self, part: Sequence[Settlement]) -> None:
        try:
            answers = await self._store.job_settle(JobSettle(settlements=part))
        except Exception:  # noqa: BLE001 - whatever it is, the sifting finds out which of them it is about, and tells
            self._on_refused(part)
            return
        self._on_settled(part, answers)

    def _leave(self) -> None:
        if not self._waiting:
            return
        left, self._waiting = self._waiting, []
        logger.error(
            "the outcomes of %d jobs cannot be written, since a transaction that has not ended holds what they need; "
            "they run again when their leases expire: %s",
            len(left),
            _named(left),
        )
        self._on_settled(left, [Settled(SettleStatus.STALE)] * len(left))

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._given_up.wait(), seconds * random.uniform(0.5, 1.0))


def _named(settlements: Sequence[Settlement]) -> str:
    return ", ".join(settlement.job_id for settlement in settlements[:_NAMED])
