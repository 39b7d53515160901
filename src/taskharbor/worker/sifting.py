"""Outcomes that the store refuses while it answers all else: found among their neighbours, and made dead letters.

A result can be such that a store never takes it: too slow to write under its `statement_timeout`, or refused by a
trigger. It must not keep the outcomes of other jobs from being written, however often it is tried.

    halve    a refused batch is asked in halves, and those in halves, until what is refused stands alone
    ask      one alone is asked again, until it is clear that the fault is its own
    bury     then its job becomes a dead letter, with a short error in place of the outcome
    leave    and if even that is refused, it is left to the expiry of its lease

The fault is its own if others of its kind are written between its refusals. That a store answers other verbs is not
enough: while one table is locked, or a disk is full, it refuses the outcomes of all jobs alike, and they have to wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from time import monotonic as _monotonic

from taskharbor.driver import JobGet, JobSettle, Store
from taskharbor.errors import StoreError, StoreUnavailable
from taskharbor.outcome import REASON_LIMIT, bounded
from taskharbor.settlement import Settled, SettleKind, Settlement, SettleStatus, refused_letter

logger = logging.getLogger("taskharbor.worker")

FEW = 3
"""How often one is refused, others of its kind being written before each time, until its fault is clear."""
SHORTEST = timedelta(seconds=30)
"""And for how long at least: somebody may hold a lock on the job."""
ALONE = timedelta(minutes=5)
"""The only outcome there is has no others to be compared with. It is at fault if it is refused for so long, while the
store was seen without a break."""
_FIRST_SECONDS = 0.1
_LONGEST_SECONDS = 5.0
_NAMED = 10
"""Jobs that one line of the log names."""


class _Group:
    """Outcomes that are asked together."""

    def __init__(self, settlements: Sequence[Settlement]) -> None:
        self.settlements = settlements
        self.kind = settlements[0].kind
        """For one alone: of the outcome that was refused, also once a letter stands for it."""
        self.letter_of = ""
        """The task, if this is the dead letter in place of an outcome."""
        self.since: float | None = None
        """When it was first refused alone."""
        self.written = 0
        """How many of its kind had been written at the last refusal."""
        self.counted = 0
        """Refusals before which others of its kind were written."""


class Sifting:
    """Takes over what the store refuses, so that a worker's other outcomes flow on."""

    def __init__(
        self,
        store: Store,
        on_settled: Callable[[Sequence[Settlement], Sequence[Settled]], None],
        *,
        worker: str,
        observed: Callable[[], timedelta],
        monotonic: Callable[[], float] = _monotonic,
        pause: Callable[[float], Awaitable[None]] | None = None,
    ) -> None:
        """Prepare it.

        Args:
            store: the worker's own.
            on_settled: called with settlements and what became of them, one each, in order.
            worker: its name.
            observed: for how long the store has been seen without a break.
            monotonic: the clock, in seconds.
            pause: waits so many seconds; by default less if it is told to give up.
        """
        self._store = store
        self._on_settled = on_settled
        self._worker = worker
        self._observed = observed
        self._monotonic = monotonic
        self._pause = pause or self._wait
        self._groups = deque[_Group]()
        self._written = Counter[SettleKind]()
        """Outcomes that were written while some were refused."""
        self._added = asyncio.Event()
        self._given_up = asyncio.Event()

    @property
    def idle(self) -> bool:
        """Return whether nothing is refused at present."""
        return not self._groups

    def add(self, settlements: Sequence[Settlement]) -> None:
        """Take over a batch that was refused."""
        self._groups.append(_Group(settlements))
        self._added.set()

    def note_written(self, settlements: Sequence[Settlement]) -> None:
        """Hear of outcomes that were written elsewhere. While it is idle it need not."""
        self._written.update(settlement.kind for settlement in settlements)

    def give_up(self) -> None:
        """Ask each once more, and leave what is refused to the expiry of its lease."""
        self._given_up.set()

    async def run(self) -> None:
        """Sift until cancelled."""
        wait = _FIRST_SECONDS
        while True:
            if not self._groups:
                wait = _FIRST_SECONDS
                self._added.clear()
                await self._added.wait()
            if await self._ask(self._groups[0]):
                wait = _FIRST_SECONDS
            elif not self._given_up.is_set():
                await self._pause(wait * random.uniform(0.5, 1.0))
                wait = min(wait * 2, _LONGEST_SECONDS)

    async def _ask(self, group: _Group) -> bool:
        """Ask for one group; return whether the store could be reached for it."""
        written_before = self._written[group.kind]
        try:
            answers = await self._store.job_settle(JobSettle(settlements=group.settlements))
        except StoreUnavailable as error:
            if self._given_up.is_set():
                self._leave(group, error)
            elif len(group.settlements) > 1:
                self._halve(group)
            elif self._is_at_fault(group, written_before, error):
                await self._bury(group, error)
            else:
                self._groups.rotate(-1)
            return False
        except Exception as error:  # noqa: BLE001 - one that the store chokes on must not take the others with it
            if len(group.settlements) > 1:
                self._halve(group)
                return True
            return await self._bury(group, error)
        self._groups.popleft()
        self.note_written(group.settlements)
        if group.letter_of and answers[0].status is SettleStatus.SETTLED:
            logger.error(
                "job %s (task %r) is a dead letter: the store refused its outcome",
                group.settlements[0].job_id,
                group.letter_of,
            )
        self._on_settled(group.settlements, answers)
        return True

    def _halve(self, group: _Group) -> None:
        # Behind the others: if one alone is bad, a half that is refused is followed by one that is taken.
        self._groups.popleft()
        middle = len(group.settlements) // 2
        self._groups.extend((_Group(group.settlements[:middle]), _Group(group.settlements[middle:])))

    def _is_at_fault(self, group: _Group, written_before: int, error: Exception) -> bool:
        """Note that the one was refused, and return whether the fault is its own.

        `written_before`: how many of its kind had been written when it was asked.
        """
        now = self._monotonic()
        if group.since is None:
            group.since = now
        elif written_before > group.written:
            group.counted += 1
            if group.counted == 1 and not group.letter_of:
                logger.warning(
                    "the store refuses the outcome of job %s and takes those of others: %s",
                    group.settlements[0].job_id,
                    error,
                )
        group.written = self._written[group.kind]
        lasted = timedelta(seconds=now - group.since)
        if group.counted >= FEW:
            return lasted >= SHORTEST
        return len(self._groups) == 1 and min(lasted, self._observed()) >= ALONE

    async def _bury(self, group: _Group, error: Exception) -> bool:
        """Put a dead letter in the place of an outcome, or leave the job if that cannot be, or was refused as well.

        Returns whether the store could be reached.
        """
        refused = group.settlements[0]
        is_bug = not isinstance(error, StoreError)  # and so no verdict on the job
        if is_bug or group.letter_of:
            self._leave(group, error)
            return True
        try:
            (job,) = await self._store.job_get(JobGet(ids=[refused.job_id]))
        except StoreUnavailable:
            self._groups.rotate(-1)
            return False
        why = bounded(str(error), REASON_LIMIT)
        letter = (
            None
            if job is None
            else refused_letter(refused, attempt=job.attempt + 1, worker=self._worker, why=why)
        )
        if job is None or letter is None:
            self._leave(group, error)
            return True
        burial = _Group([letter])
        burial.kind, burial.letter_of = group.kind, job.task
        self._groups[0] = burial
        return True

    def _leave(self, group: _Group, error: Exception) -> None:
        self._groups.popleft()
        logger.error(
            "the outcomes of %d jobs cannot be written; they run again when their leases expire: %s (%s)",
            len(group.settlements),
            ", ".join(settlement.job_id for settlement in group.settlements[:_NAMED]),
            error,
            exc_info=None if isinstance(error, StoreError) else error,
        )
        self._on_settled(group.settlements, [Settled(SettleStatus.STALE)] * len(group.settlements))

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._given_up.wait(), seconds)
