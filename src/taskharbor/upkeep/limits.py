"""What a worker does with the limits that its tasks declare: has them written down when it starts (rule 24)."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable
from typing import Final

from taskharbor.driver import LimitDeclare, LimitList, Store
from taskharbor.errors import StoreUnavailable
from taskharbor.limit import LimitTerms, Scope, ScopeKind
from taskharbor.task import TaskDefinition

logger = logging.getLogger("taskharbor.upkeep")

_FIRST_SECONDS: Final = 1.0
_LONGEST_SECONDS: Final = 60.0


class DeclaredLimits:
    """One worker's declarations. A worker works without them, too, for they may be in the store from others."""

    def __init__(self, store: Store, tasks: Iterable[TaskDefinition], worker: str) -> None:
        """Prepare it; `tasks` are gone through anew at each declaration, since some may be declared later."""
        self._store = store
        self._tasks = tasks
        self._worker = worker

    async def declare(self) -> None:
        """Have them written down; what the store holds of these tasks and the code declares no more is taken back.

        Raises:
            StoreUnavailable: the store cannot be reached.
        """
        declared = declared_limits(self._tasks)
        known = await self._store.limit_list(LimitList())
        limits = {scope: terms for scope, terms in declared.items() if terms}
        gone = [one.scope for one in known if one.declared and not declared.get(one.scope, one.declared)]
        limits.update(dict.fromkeys(gone, LimitTerms()))
        if any(one.declared != limits[one.scope] for one in known if one.scope in limits) or (
            limits.keys() - {one.scope for one in known}
        ):
            await self._store.limit_declare(LimitDeclare(limits=limits))
            logger.info(
                "worker %s has declared limits: %s", self._worker, ", ".join(map(str, sorted(limits)))
            )

    async def declare_at_start(self) -> bool:
        """Declare, and return whether that went well; else it is to be tried again, and the log says why.

        Raises:
            StoreUnavailable: the store cannot be reached.
        """
        try:
            await self.declare()
        except StoreUnavailable:
            raise
        except Exception:  # whatever it is, the worker can go on with what others have declared
            logger.exception(
                "worker %s cannot declare the limits of its tasks, and tries again; meanwhile those hold that are in "
                "the store",
                self._worker,
            )
            return False
        return True

    async def declare_by_and_by(self) -> None:
        """Declare, however often it has to be tried."""
        wait = _FIRST_SECONDS
        while True:
            try:
                await self.declare()
            except Exception as error:  # noqa: BLE001 - tried again
                logger.debug("worker %s cannot declare limits: %s", self._worker, error)
                await asyncio.sleep(wait * random.uniform(0.5, 1.0))
                wait = min(wait * 2, _LONGEST_SECONDS)
            else:
                return


def declared_limits(tasks: Iterable[TaskDefinition]) -> dict[Scope, LimitTerms]:
    """Return what the code says of tasks, by scope: under all their names, terms without any limit included."""
    found: dict[Scope, LimitTerms] = {}
    for definition in tasks:
        for name in (definition.name, *definition.aliases):
            declared = None if definition.partitioned is None else definition.partitioned.declared
            # Jobs that were enqueued under a former name stand in lines of that name, and have limits of their own.
            found[Scope(ScopeKind.TASK, name)] = LimitTerms() if declared is None else declared.task
            found[Scope(ScopeKind.KEYS, name)] = LimitTerms() if declared is None else declared.keys
    return found
