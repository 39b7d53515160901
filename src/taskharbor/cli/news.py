"""What is new of a job between one look at it and the next."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from taskharbor.cli.job_view import told_progress
from taskharbor.cli.output import told_time
from taskharbor.job import JobRecord, JobState
from taskharbor.report import LogLine, Progress


class News(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is new of one job: one of state, progress and a line of its log."""

    id: str
    task: str
    state: JobState | None = None
    attempt: int = 0
    """Attempts charged so far, beside a state."""
    reason: str = ""
    progress: Progress | None = None
    log: LogLine | None = None


def news_of(before: JobRecord | None, now: JobRecord) -> Iterator[News]:
    """Yield what has changed since a job was looked at before; all that there is, if it was not."""
    known = None if before is None or not before.log else (before.log[-1].fence, before.log[-1].number)
    for one in now.log:
        if known is None or (one.fence, one.number) > known:
            yield News(id=now.id, task=now.task, log=one)
    if now.progress is not None and (before is None or before.progress != now.progress):
        yield News(id=now.id, task=now.task, progress=now.progress)
    if before is None or (before.state, before.attempt) != (now.state, now.attempt):
        yield News(id=now.id, task=now.task, state=now.state, attempt=now.attempt, reason=now.reason)


def told_news(news: News) -> str:
    """Return news as a line for people."""
    head = f"{news.id}  {news.task}  "
    if news.log is not None:
        return f"{head}{told_time(news.log.at)}  {news.log.text}"
    if news.progress is not None:
        return f"{head}{told_progress(news.progress)}"
    attempts = f" after {news.attempt} attempt{'s'[: news.attempt > 1]}" if news.attempt else ""
    why = f": {news.reason}" if news.reason else ""
    return f"{head}{news.state}{attempts}{why}"
