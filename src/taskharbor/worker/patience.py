"""What a worker does while the store cannot be reached, at its start or later: wait, a little longer each time, and say
so once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from taskharbor.errors import StoreUnavailable
from taskharbor.worker.sight import Sight

logger = logging.getLogger("taskharbor.worker")

Q = TypeVar("Q")
T = TypeVar("T")

_FIRST_SECONDS = 0.1
_LONGEST_SECONDS = 5.0


class Patience:
    """Asks the store again and again until it answers. Every verb of the contract may be asked again safely."""

    def __init__(self, sight: Sight) -> None:
        self._sight = sight

    async def ask(
        self, verb: Callable[[Q], Awaitable[T]], request: Q, *, give_up: Callable[[], bool] | None = None
    ) -> T:
        """Return the store's answer, however long it takes.

        Raises:
            StoreUnavailable: it did not answer and `give_up` said to stop asking.
        """
        what = getattr(verb, "__name__", "a request")
        wait = _FIRST_SECONDS
        while True:
            try:
                answer = await verb(request)
            except StoreUnavailable as error:
                self._sight.lost()
                if give_up is not None and give_up():
                    raise
                if wait == _FIRST_SECONDS:
                    logger.warning(
                        "the store cannot be reached for %s; asking again until it can: %s", what, error
                    )
                await asyncio.sleep(wait * random.uniform(0.5, 1.0))
                wait = min(wait * 2, _LONGEST_SECONDS)
                continue
            self._sight.seen()
            if wait > _FIRST_SECONDS:
                logger.info("the store answers again (%s)", what)
            return answer


async def reached(ask: Callable[[], Awaitable[T]], enough: asyncio.Event) -> T:
    """Return what `ask` returns, however long the store cannot be reached.

    Raises:
        StoreUnavailable: it could not be when `enough` was set.
    """
    wait = _FIRST_SECONDS
    while True:
        try:
            answer = await ask()
        except StoreUnavailable as error:
            if wait == _FIRST_SECONDS and not enough.is_set():
                logger.warning("the store cannot be reached; the worker starts when it can: %s", error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(enough.wait(), wait * random.uniform(0.5, 1.0))
            if enough.is_set():
                raise
            wait = min(wait * 2, _LONGEST_SECONDS)
            continue
        if wait > _FIRST_SECONDS:
            logger.info("the store can be reached now")
        return answer
