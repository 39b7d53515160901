"""What a worker can be told, checked when it is told."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

import msgspec

from taskharbor.call.options import check_name
from taskharbor.errors import OptionError, nearest
from taskharbor.job import DEFAULT_QUEUE
from taskharbor.worker.sharing import check_aging, check_shares

logger = logging.getLogger("taskharbor.worker")

_SECOND = timedelta(seconds=1)


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one worker.

    Raises:
        OptionError: a value that cannot be; the message says what was expected.
    """

    queues: Sequence[str] | None = None
    """Which queues to serve; None means `default` and every queue that a registered task, or a declared
    schedule, names."""
    concurrency: int = 50
    """How many handlers may run at once, whatever their kind."""
    handler_processes: int = 2
    """How many processes run the handlers of `run="process"` tasks; each is started when first needed."""
    lease: timedelta = timedelta(seconds=30)
    """How long a job is kept from others without a sign of life; extended at a third of it."""
    grace: timedelta = timedelta(seconds=30)
    """How long a stop waits for running handlers before it cancels them."""
    halt: timedelta = timedelta(seconds=5)
    """How long a stop then waits for cancelled handlers to end."""
    prefetch: int | None = None
    """Unstarted jobs to hold beyond the free slots; None adapts it to a tenth of a second's work, so that long jobs
    are left to others and short ones never wait for the store."""
    weights: Mapping[str, int] | None = None
    """Shares of what this worker starts, by queue, over those that have jobs due; priorities then order the jobs within
    each queue. Queues that are not named have 1. None: priorities order the jobs of all queues together."""
    reserved: Mapping[str, int] | None = None
    """How many of the slots only this queue's jobs may take, by queue. The others share what is left."""
    aging: timedelta | None = None
    """Give `aging_share` of what is taken to jobs that have been due for longer than this, whatever their priority; the
    longest due first. None: strict priorities, which may starve the last of them."""
    aging_share: float | None = None
    """With `aging` only: above 0, at most 1. None: 0.1."""
    stall: timedelta = timedelta(seconds=60)
    """An event loop that has not turned for so long is blocked: all stacks are dumped, and see `owns_process`."""
    owns_process: bool = False
    """The process exists for this worker: a stalled loop ends it, so that another can take its jobs. In a process of
    the user's own, a stalled worker stops reserving and extending instead, until the loop turns again."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be."""
        if self.queues is not None:
            if isinstance(self.queues, str) or not self.queues:
                raise OptionError(
                    f"queues={self.queues!r}: expected a list of one or more queue names, or None for all"
                )
            for queue in self.queues:
                check_name(queue, "queues")
            if len(set(self.queues)) != len(self.queues):
                raise OptionError(f"queues={list(self.queues)!r}: a queue is named twice")
        for name, value, least in (
            ("concurrency", self.concurrency, 1),
            ("handler_processes", self.handler_processes, 1),
            ("prefetch", self.prefetch or 0, 0),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise OptionError(f"{name}={value!r}: expected a whole number of at least {least}")
        for name, duration, shortest in (
            ("lease", self.lease, _SECOND / 10),
            ("grace", self.grace, timedelta(0)),
            ("halt", self.halt, timedelta(0)),
            ("stall", self.stall, _SECOND / 10),
        ):
            if not isinstance(duration, timedelta) or duration < shortest:
                raise OptionError(
                    f"{name}={duration!r}: expected a timedelta of at least {shortest.total_seconds():g} s"
                )

        check_shares(self.weights, self.reserved, concurrency=self.concurrency, queues=self.queues)
        check_aging(self.aging, self.aging_share)

    def queues_served(self, declared: Iterable[str]) -> tuple[str, ...]:
        """Return the queues to serve, when tasks and schedules declare these. Warns of those that none declares.

        Raises:
            OptionError: a weight or reserved slots for a queue that is none of them, or no slot left for the others.
        """
        known = sorted(set(declared))
        if self.queues is None:
            found = tuple(sorted({DEFAULT_QUEUE, *known}))
            check_shares(self.weights, self.reserved, concurrency=self.concurrency, queues=found)
            return found
        for queue in self.queues:
            if queue not in known:
                logger.warning(
                    "serving queue %r, which no task or schedule here declares%s",
                    queue,
                    nearest(queue, known),
                )
        return tuple(self.queues)

    def weights_of(self, queues: Sequence[str]) -> dict[str, int] | None:
        """Return the weight of each of these queues; None without weights."""
        return None if self.weights is None else {queue: self.weights.get(queue, 1) for queue in queues}
