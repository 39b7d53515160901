"""How jobs that are watched are shown: lines; on a terminal bars, with the lines above them."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from taskharbor.cli.job_view import told_progress
from taskharbor.cli.news import News, told_news
from taskharbor.cli.output import json_line, line, plain
from taskharbor.job import TERMINAL, JobRecord

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress, TaskID

_BARS = 10
"""So many jobs have a bar at once; the others get theirs when one of these has ended."""


class View(Protocol):
    """Where it is shown."""

    def tell(self, news: News, /) -> None:
        """Show what is new."""
        ...

    def update(self, record: JobRecord, /) -> None:
        """Show how a job stands now."""
        ...


@contextmanager
def display(*, as_json: bool) -> Generator[View]:
    """Give a view on standard output for as long as jobs are watched."""
    if as_json or not sys.stdout.isatty():
        yield _Lines(as_json=as_json)
        return
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    with bars_on(console) as bars:
        yield _Bars(bars, console)


def bars_on(console: Console) -> Progress:
    """Return the bars, not begun: the id of a job on a line of its own, to be copied, and its bar beneath."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Column
    from rich.text import Text

    class Stacked(Progress):
        def get_renderables(self) -> Iterator[RenderableType]:
            for bar in self.tasks:
                yield Text(bar.description, overflow="fold")
                yield self.make_tasks_table([bar])

    # Texts come out of a store: none of them is markup.
    columns = (
        BarColumn(bar_width=30),
        TimeElapsedColumn(),
        TextColumn("{task.fields[told]}", markup=False, table_column=Column(overflow="fold")),
    )
    return Stacked(*columns, console=console, refresh_per_second=4)


class _Lines:
    """Lines, one for each change."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def tell(self, news: News) -> None:
        if self._as_json:
            json_line(news)
        else:
            line(told_news(news))

    def update(self, record: JobRecord) -> None:
        """Nothing stands still here that could be changed."""


class _Bars:
    """A bar for each job that has not ended. How far it is stands there; all else is told above."""

    def __init__(self, bars: Progress, console: Console) -> None:
        self._bars = bars
        self._console = console
        self._by_job: dict[str, TaskID] = {}

    def tell(self, news: News) -> None:
        if news.progress is None:
            self._console.print(plain(told_news(news)), soft_wrap=True)

    def update(self, record: JobRecord) -> None:
        bar = self._by_job.get(record.id)
        if record.state in TERMINAL:
            if bar is not None:
                self._bars.remove_task(self._by_job.pop(record.id))
            return
        said = record.progress
        told = "" if said is None else plain(told_progress(said))
        if bar is None:
            if len(self._by_job) >= _BARS:
                return
            self._by_job[record.id] = bar = self._bars.add_task(
                plain(f"{record.id}  {record.task}"), total=None, told=told
            )
        part = None if said is None else said.fraction
        self._bars.update(
            bar, total=None if part is None else 1.0, completed=part or 0.0, told=f"{record.state}  {told}"
        )
