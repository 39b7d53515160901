"""What a worker does with its application's declarations when it starts: has them stored, and says what came of it."""

from __future__ import annotations

import logging

from taskharbor.driver import DeclareStatus, ScheduleDeclare, Store

logger = logging.getLogger("taskharbor.upkeep")


async def declare(store: Store, request: ScheduleDeclare) -> None:
    """Have declarations stored; an outdated set changes nothing, and the worker goes on.

    Raises:
        StoreUnavailable: the store cannot be reached.
    """
    answer = await store.schedule_declare(request)
    if answer.status is DeclareStatus.OUTDATED:
        logger.warning(
            "the schedules of application %r are those of generation %d, which was declared later than this worker's; "
            "they stay. That is right while an old version is being replaced; after a rollback, run "
            "`taskharbor schedules declare --force` with this version, or raise its generation",
            request.application,
            answer.generation,
        )
        return
    if answer.added or answer.changed:
        logger.info(
            "schedules of application %r, generation %d: %d added, %d changed",
            request.application,
            answer.generation,
            len(answer.added),
            len(answer.changed),
        )
    if answer.removed:
        logger.info(
            "schedules declared no more by application %r were removed: %s",
            request.application,
            ", ".join(answer.removed),
        )
