"""What a handler tells of its work while it runs: how far it is, and lines for the job's log.

Bounded, and kept with the job: they survive a retry, a crash and a dead letter, and go when the job's record goes.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

NOTE_LIMIT = 200
"""Characters of a progress note that are kept."""
LINE_LIMIT = 1_000
"""Characters of one line of a job's log that are kept."""
LOG_LIMIT = 200
"""Lines of a job's log that are kept: the last ones."""


class Progress(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How far a job is, as its handler last said."""

    done: float
    """In whatever unit the handler counts; 0 or more."""
    total: float | None = None
    """Of how much; None where that is not known."""
    note: str = ""
    at: datetime
    """When it was said, by the worker's clock."""

    @property
    def fraction(self) -> float | None:
        """Return how much is done, from 0 to 1; None where the total is not known, or nothing."""
        return min(max(self.done / self.total, 0.0), 1.0) if self.total else None


class LogLine(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One line of a job's log."""

    fence: int
    """Of the delivery that wrote it (`ctx.fence`); lines are ordered by it, then by their number."""
    number: int
    """Its place among the lines of that delivery, from 1."""
    attempt: int
    at: datetime
    """When it was written, by the worker's clock."""
    text: str


class Report(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one running job has told since its last report."""

    job_id: str
    token: int
    """Of the lease it runs under: who has lost it reports no more."""
    progress: Progress | None = None
    """The latest; None leaves what is stored."""
    lines: tuple[LogLine, ...] = ()
    """New ones, in order. One that is stored already is not stored again."""
