"""What running jobs tell of themselves: progress, and lines for their logs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from taskharbor.driver.request import Request
from taskharbor.report import Report


class JobReport(Request, frozen=True, kw_only=True):
    """Keep what running jobs have told.

    Of a job's lines the last `LOG_LIMIT` are kept at least, and are what a look-up tells; a line whose fence and number
    are stored already is not stored again, so asking again is safe. Of two progresses the later asked stands.
    """

    reports: Sequence[Report]


class JobReports(Protocol):
    """The verb by which workers hand on what their jobs tell.

    What was told goes with the job: it survives retry, dead letter and requeue, and is gone once `job_get` does not
    know the job any more. Storage of it may be freed later, by `history_prune`.
    """

    async def job_report(self, request: JobReport, /) -> Sequence[bool]:
        """Store what each tells, in order, and return whether it was: False if the job is not held by that token."""
        ...
