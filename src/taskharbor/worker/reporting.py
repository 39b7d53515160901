"""What running jobs tell (`ctx.progress`, `ctx.log`), on its way to the store.

All of a worker's jobs together are reported about twice a second, in one round trip, and nothing is asked while nothing
was told. What a handler told last is written before its outcome, while its lease still stands. Reports are worth less
than outcomes: a store that does not take them is given up on soon, and the outcomes go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Sequence
from time import monotonic as _monotonic

import msgspec

from taskharbor.driver import JobReport, Store
from taskharbor.errors import StoreError, StoreUnavailable
from taskharbor.report import Progress, Report
from taskharbor.worker.run import Run

logger = logging.getLogger("taskharbor.worker")

EVERY_SECONDS = 0.5
_PATIENCE_SECONDS = 2.0
"""How long the store is given for one report."""
_TROUBLE_SECONDS = 5.0
"""After a failure no outcome waits for a report for so long. More than the two above together: while running jobs tell
anything, it is their reports that find out whether the store takes them again, and outcomes never wait for that."""
_AGAIN_SECONDS = 0.05
_MOST_REPORTS = 500
_MOST_LINES = 2_000
"""In one report: about two megabytes at most."""


class Reporting:
    """Gathers what the running jobs of one worker tell, and has it written."""

    def __init__(
        self,
        store: Store,
        on_progress: Callable[[Run, Progress], None],
        *,
        worker: str,
        monotonic: Callable[[], float] = _monotonic,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """Prepare it for the running loop.

        Args:
            store: the worker's own.
            on_progress: called on the loop with each progress that is about to be reported, once.
            worker: its name.
            monotonic: the clock, in seconds.
            pause: waits so many seconds.
        """
        self._store = store
        self._on_progress = on_progress
        self._worker = worker
        self._monotonic = monotonic
        self._pause = pause
        self._loop = asyncio.get_running_loop()
        self._news = deque[Run]()
        self._woken = asyncio.Event()
        self._wake_sent = False
        self._last = dict[tuple[str, int], Report]()
        """What ended jobs told last, by job and lease."""
        self._writing = asyncio.Lock()
        self._trouble_at: float | None = None
        """When the store last failed to take a report; None once it took one again."""
        self._lost = False
        """Since it began to fail last words were lost, which has been told."""
        self.owed = False
        """Jobs have ended whose words have to be written before their outcomes."""

    def hear(self, run: Run) -> None:
        """Note that a run has something to tell. Callable from any thread."""
        self._news.append(run)
        if not self._wake_sent:
            self._wake_sent = True
            with contextlib.suppress(RuntimeError):  # the loop has closed
                self._loop.call_soon_threadsafe(self._woken.set)

    def last_words(self, run: Run) -> None:
        """Take what a run that has ended told last. Even if that is nothing, a report of it may be under way."""
        report = self._take(run)
        if report is not None:
            self._keep(self._last.get(_key(report)), report)
        self.owed = True

    async def run(self) -> None:
        """Report what is told until cancelled."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            # Before the look: who tells something after it sends for us again.
            self._wake_sent = False
            async with self._writing:
                taken = [(run, report) for run in self._heard() if (report := self._take(run)) is not None]
                if taken and not await self._write([report for _, report in taken]):
                    self._give_back(taken)
            await self._pause(EVERY_SECONDS)

    async def write_last(self) -> None:
        """Write what ended jobs told last; return when nothing that they told is on its way any more.

        Whatever happens, within some seconds; and at once while the store is known to be in trouble.
        """
        # Before the lock, too: who holds it may be finding out that the store still does not answer.
        if self._troubled or (self._trouble_at is not None and self._writing.locked()):
            self._lose(self._taken_last())
            return
        async with self._writing:
            reports = self._taken_last()
            if self._troubled or (reports and not await self._write(reports, again=True)):
                self._lose(reports)

    @property
    def _troubled(self) -> bool:
        return self._trouble_at is not None and self._monotonic() - self._trouble_at < _TROUBLE_SECONDS

    def _taken_last(self) -> Sequence[Report]:
        self.owed = False
        reports, self._last = self._last, {}
        return list(reports.values())

    def _lose(self, reports: Sequence[Report]) -> None:
        if reports and not self._lost:
            self._lost = True
            logger.warning(
                "what %d jobs of worker %s told last is lost; so is what others tell last till reports are taken again",
                len(reports),
                self._worker,
            )

    def _heard(self) -> Generator[Run]:
        seen = set[Run]()
        while self._news:
            run = self._news.popleft()
            if run not in seen:
                seen.add(run)
                yield run

    def _take(self, run: Run) -> Report | None:
        told = run.told
        report = None if told is None else told.take()
        progress = None if report is None else report.progress
        # One that was given back has been announced already.
        if told is not None and progress is not None and progress is not told.announced:
            told.announced = progress
            self._on_progress(run, progress)
        return report

    def _give_back(self, taken: Sequence[tuple[Run, Report]]) -> None:
        for run, report in taken:
            if (
                run.ended
            ):  # meanwhile: its words go with its outcome, and what it told since has been taken already
                self._keep(report, self._last.get(_key(report)))
                self.owed = True
            elif run.told is not None:
                run.told.give_back(report)
                self.hear(run)

    def _keep(self, earlier: Report | None, later: Report | None) -> None:
        """Keep what one run told, in two parts, to be written before its outcome."""
        if earlier is not None and later is not None:
            later = msgspec.structs.replace(
                later, progress=later.progress or earlier.progress, lines=(*earlier.lines, *later.lines)
            )
        report = later or earlier
        if report is not None:
            self._last[_key(report)] = report

    async def _write(self, reports: Sequence[Report], *, again: bool = False) -> bool:
        """Return whether they were written; those whose lease is gone are not, which is as it should be."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                for part in _parts(reports):
                    await self._ask(JobReport(reports=part), again=again)
        except Exception as error:  # noqa: BLE001 - whatever it is, no outcome may wait for it
            self._note_trouble(error)
            return False
        self._trouble_at, self._lost = None, False
        return True

    async def _ask(self, request: JobReport, *, again: bool) -> None:
        try:
            await self._store.job_report(request)
        except StoreUnavailable:
            if not again:
                raise
            await asyncio.sleep(_AGAIN_SECONDS)
            await self._store.job_report(request)

    def _note_trouble(self, error: Exception) -> None:
        if self._trouble_at is None:
            logger.warning(
                "what jobs of worker %s tell of themselves cannot be written now: %s",
                self._worker,
                str(error) or "no answer",
                exc_info=None if isinstance(error, (StoreError, TimeoutError)) else error,
            )
        self._trouble_at = self._monotonic()


def _key(report: Report) -> tuple[str, int]:
    return report.job_id, report.token


def _parts(reports: Sequence[Report]) -> Generator[Sequence[Report]]:
    """Yield reports in parts of a bounded size."""
    part: list[Report] = []
    lines = 0
    for report in reports:
        if part and (len(part) >= _MOST_REPORTS or lines + len(report.lines) > _MOST_LINES):
            yield part
            part, lines = [], 0
        part.append(report)
        lines += len(report.lines)
    yield part
