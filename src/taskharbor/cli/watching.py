"""Follows jobs by looking at them again and again: what is new is told, until all have ended."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import timedelta

from taskharbor.cli.acting import batches
from taskharbor.cli.exits import Exit
from taskharbor.cli.listing import look_up
from taskharbor.cli.news import news_of
from taskharbor.cli.output import note
from taskharbor.cli.watch_view import display
from taskharbor.control import not_found
from taskharbor.errors import StoreUnavailable
from taskharbor.harbor import Harbor
from taskharbor.job import TERMINAL, JobRecord, JobState


def watch_jobs(harbor: Harbor, ids: Sequence[str], every: timedelta, *, as_json: bool) -> Exit:
    """Tell what happens to jobs until all have ended. Once the store was there, it may be away for a while.

    Returns:
        `Exit.OK` if all have succeeded; `Exit.FAILED` if one has not, or is not there; `Exit.INTERRUPTED` after Ctrl-C.
    """
    seen: dict[str, JobRecord] = {}
    left = dict.fromkeys(ids)
    well = True
    watcher = _Watcher(harbor)
    try:
        with display(as_json=as_json) as view:
            while True:
                for job_id, record in watcher.look(tuple(left)):
                    if record is None:
                        note(_told_gone(job_id) if job_id in seen else str(not_found(job_id)))
                        well = False
                        del left[job_id]
                        continue
                    for news in news_of(seen.get(job_id), record):
                        view.tell(news)
                    view.update(record)
                    seen[job_id] = record
                    if record.state in TERMINAL:
                        well &= record.state is JobState.SUCCEEDED
                        del left[job_id]
                if not left:
                    return Exit.OK if well else Exit.FAILED
                time.sleep(every.total_seconds())
    except KeyboardInterrupt:
        note(f"No longer watched: {len(left):,} job{'s'[: len(left) != 1]} had not ended.")
        return Exit.INTERRUPTED


class _Watcher:
    """Looks at jobs; where the store cannot be reached for a while, it sees nothing, and says so once."""

    def __init__(self, harbor: Harbor) -> None:
        self._harbor = harbor
        self._reached = False
        self._away = False

    def look(self, ids: Sequence[str]) -> Iterator[tuple[str, JobRecord | None]]:
        """Yield what is there under each id.

        Raises:
            StoreUnavailable: the store was never reached.
        """
        for batch in batches(ids):
            try:
                records = look_up(self._harbor, batch)
            except StoreUnavailable as error:
                if not self._reached:
                    raise
                if not self._away:
                    note(f"{error}; it is looked for again until it is back")
                self._away = True
                return
            self._reached, self._away = True, False
            yield from zip(batch, records, strict=True)


def _told_gone(job_id: str) -> str:
    return f"{job_id}  is there no more: it was deleted, or has ended and its task retains nothing"
