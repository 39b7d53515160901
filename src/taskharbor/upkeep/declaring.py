"""What a worker does with its application's declarations when it starts: has them stored, and says what came of it."""

from __future__ import annotations

import logging
from typing import Final

from taskharbor.driver import DeclareStatus, ScheduleDeclare, Store
from taskharbor.schedule import DEFAULT_APPLICATION

logger = logging.getLogger("taskharbor.upkeep")

_NAMELESS: Final = (
    ". If another application without a name of its own uses this store, each removes what the other declares: name "
    "them, by Harbor(application=...) or TASKHARBOR_APPLICATION"
)


async def declare(store: Store, request: ScheduleDeclare) -> None:
    """Have declarations stored; an outdated set changes nothing, and the worker goes on.

    Raises:
        StoreUnavailable: the store cannot be reached.
    """
    answer = await store.schedule_declare(request)
    nameless = request.application == DEFAULT_APPLICATION
    if answer.status is DeclareStatus.OUTDATED and request.generation is not None:
        logger.warning(
            "the schedules of application %r stay as they are: generation %d is there, and this worker's is %d. That "
            "is right while an old version is being replaced. If this is the version to run, raise its generation",
            request.application,
            answer.generation,
            request.generation,
        )
        return
    if answer.status is DeclareStatus.OUTDATED:
        logger.warning(
            "the schedules of application %r stay as they are: generation %d is there, and this worker's set was "
            "declared before it. That is right while an old version is being replaced. If this is the version to run "
            "(a rollback, a revert), run `taskharbor schedules declare --force` with it, or number your generations%s",
            request.application,
            answer.generation,
            _NAMELESS if nameless else "",
        )
        return
    if answer.contested:
        logger.warning(
            "two different sets of schedules of application %r bear generation %d, and this worker's stands now: "
            "number each deployment",
            request.application,
            answer.generation,
        )
    if answer.added or answer.changed:
        logger.info(
            "schedules of application %r, generation %d: %d added, %d changed",
            request.application,
            answer.generation,
            len(answer.added),
            len(answer.changed),
        )
    if answer.removed:
        logger.log(
            logging.WARNING if nameless else logging.INFO,
            "schedules declared no more by application %r were removed: %s%s",
            request.application,
            ", ".join(answer.removed),
            _NAMELESS if nameless else "",
        )
