"""Settling past locks that others hold for long: a caller's open transaction holds a key, or a job that has one.

A success that brings jobs with keys waits for such a lock only briefly. Then those of its batch that want none are
written, and those that do in halves, and those in halves, until what is locked out stands alone: that is answered with
`HELD`, and nothing of it is written or left out.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import TypeAlias

from psycopg.errors import LockNotAvailable

from taskharbor.driver import JobSettle
from taskharbor.drivers.postgres import settle
from taskharbor.drivers.postgres.desk import AsyncDesk
from taskharbor.drivers.postgres.routine import Routine
from taskharbor.drivers.postgres.sequel import names_wanted
from taskharbor.drivers.postgres.step import Step
from taskharbor.errors import StoreUnavailable
from taskharbor.settlement import Settled, SettleStatus

_PATIENCE = timedelta(milliseconds=300)
"""Enough for what others write at this moment; and less than it takes the server to look for a deadlock."""
_LITTLE = timedelta(milliseconds=20)
"""Once it is known that somebody holds a lock."""
_MOST = 20
"""Refusals, after which what has not been asked is held as well: a whole table may be locked."""
_HELD = Settled(SettleStatus.HELD)

_Verb: TypeAlias = Callable[[Step, JobSettle], Routine[Sequence[Settled]]]
_Ask: TypeAlias = Callable[[_Verb, JobSettle], Awaitable[Sequence[Settled]]]
"""Has a verb's routine carried out in a transaction."""


async def job_settle(desk: AsyncDesk, request: JobSettle) -> Sequence[Settled]:
    """Return one answer each, in order. As a rule, that is one statement."""
    together = partial(desk.ask, together=True)
    if _wants_keys(request):
        return await _settle_briefly(together, request)
    try:
        return await _settle(desk, request)
    except StoreUnavailable as error:
        if not _can_be_parted(error, request):
            raise
    return await _settle_apart(together, request)


async def _settle(desk: AsyncDesk, request: JobSettle) -> Sequence[Settled]:
    """Settle all by one statement, and what that leaves in a transaction."""
    if settle.needs_transaction(request):
        return await desk.ask(settle.job_settle_together, request, together=True)
    answers = await desk.ask(settle.job_settle, request)
    rest = [
        settlement
        for settlement, answer in zip(request.settlements, answers, strict=True)
        if answer is settle.TOGETHER
    ]
    if not rest:  # as a rule
        return answers
    whole = JobSettle(settlements=rest, now=request.now)
    later = iter(await desk.ask(settle.job_settle_together, whole, together=True))
    return [next(later) if answer is settle.TOGETHER else answer for answer in answers]


def _wants_keys(request: JobSettle) -> bool:
    """Return whether some of these bring jobs with keys."""
    return any(names_wanted(s.sequel) for s in request.settlements if s.sequel is not None)


def _can_be_parted(error: BaseException, request: JobSettle) -> bool:
    """Return whether it was refused since a lock was waited for in vain, and may be settled apart."""
    if not (isinstance(error, StoreUnavailable) and isinstance(error.__cause__, LockNotAvailable)):
        return False
    return len({s.job_id for s in request.settlements}) == len(request.settlements)


async def _settle_briefly(ask: _Ask, request: JobSettle) -> Sequence[Settled]:
    """Settle all together; where somebody's lock is in the way, apart."""
    try:
        return await ask(partial(settle.job_settle_unless_held, patience=_PATIENCE), request)
    except StoreUnavailable as error:
        if not _can_be_parted(error, request):
            raise
    return await _settle_apart(ask, request)


async def _settle_apart(ask: _Ask, request: JobSettle) -> Sequence[Settled]:
    """Settle what can be settled, and answer the rest with `HELD`. No job is named twice."""
    answers: dict[str, Settled] = {}
    names = {s.job_id: names_wanted(s.sequel) for s in request.settlements}
    free = [s for s in request.settlements if not names[s.job_id]]
    # Those that want the same key stand together, and so do those that are locked out.
    wanting = sorted((s for s in request.settlements if names[s.job_id]), key=lambda s: names[s.job_id])
    groups = [group for group in (wanting, free) if group]
    held: set[tuple[str, str]] = set()
    refusals = 0
    while groups and refusals < _MOST:
        group = [s for s in groups.pop() if held.isdisjoint(names[s.job_id])]
        if not group:
            continue
        part = JobSettle(settlements=group, now=request.now)
        try:
            found = await ask(partial(settle.job_settle_unless_held, patience=_LITTLE), part)
        except StoreUnavailable as error:
            if not _can_be_parted(error, part):
                raise
            refusals += 1
            if len(group) == 1:
                held.update(names[group[0].job_id])
            else:
                middle = len(group) // 2
                halves = [group[middle:], group[:middle]]
                random.shuffle(halves)  # each is the first at times, should there be no time for both
                groups += halves
            continue
        answers.update((s.job_id, answer) for s, answer in zip(group, found, strict=True))
    return [answers.get(s.job_id, _HELD) for s in request.settlements]
