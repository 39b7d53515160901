"""Who decides what is asked for, by what was declared."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from taskharbor.job import Delivery
from taskharbor.worker.asking.apart import Apart
from taskharbor.worker.asking.whole import Open, Weighted
from taskharbor.worker.asking.words import Asking
from taskharbor.worker.execution import Execution
from taskharbor.worker.settings import WorkerSettings
from taskharbor.worker.shares import Shares


def asking_for(
    settings: WorkerSettings, queues: Sequence[str], execution: Execution, buffer: deque[Delivery]
) -> Asking:
    """Return who decides, by what was declared; `buffer` is where the jobs not started yet wait."""
    weights = settings.weights_of(queues)
    shares = None if weights is None else Shares(weights)
    if execution.slots is not None:
        return Apart(settings, queues, execution, execution.slots, buffer, shares)
    if shares is not None:
        return Weighted(settings, queues, execution, buffer, shares)
    return Open(settings, queues, execution, buffer)
