"""The words of a benchmark: figures, what is compared with what, and the floors that were promised."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

Figures: TypeAlias = Mapping[str, float]
"""Name to value, as measured by one run of a subject."""
Run: TypeAlias = Callable[[], Figures]
"""One round of one subject. What it prepares is not in its figures."""
Clock: TypeAlias = Literal["wall", "cpu"]
Better: TypeAlias = Literal["more", "less"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How large, how often, and on which store."""

    driver: str
    jobs: int
    rounds: int
    clock: Clock = "wall"
    """For work that never waits: the wall's, or the processor time of this process, which neighbours leave alone."""
    best: bool = False
    """Compare the best rounds instead of the medians."""
    directory: str | None = None
    """Where stores in files are made; None: where temporary files are."""
    binaries: Path | None = None
    """The programs of the PostgreSQL to start; None: the package's."""
    large: bool = False
    """Also what takes many minutes."""
    minutes: float = 10.0
    """How long a soak lasts."""


class Floor(msgspec.Struct, frozen=True, kw_only=True):
    """A promise of the issue: the bound of a ratio or of a figure."""

    bound: float
    of: Literal["ratio", "figure"]
    at_least: bool = True
    """False: at most."""
    where_ceiling: float | None = None
    """Promised only where the ceiling's own figure reaches this."""

    def applies(self, ceiling: float | None) -> bool:
        """Return whether anything was promised beside such a ceiling."""
        return self.where_ceiling is None or (ceiling is not None and ceiling >= self.where_ceiling)

    def met_by(self, value: float) -> bool:
        """Return whether the promise is kept."""
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self) -> str:
        what = "ratio " if self.of == "ratio" else ""
        return f"{what}{'≥' if self.at_least else '≤'} {self.bound:,g}"


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table: a figure of ours, and what it is compared with."""

    name: str
    unit: str
    ours: str
    """Name of the figure."""
    ceiling: str | None = None
    """Name of the figure it is compared with, or None."""
    minus: str | None = None
    """Name of a figure to subtract, round by round: then the line shows a difference."""
    better: Better = "more"
    floor: Floor | None = None


class Plot(msgspec.Struct, frozen=True, kw_only=True):
    """One picture of a theme's figures: lines over x, or bars."""

    name: str
    """Of the file."""
    title: str
    y: str
    """What the figures are of."""
    x: str = ""
    at: Sequence[float] = ()
    """Where on the x axis the figures of a line stand."""
    lines: Sequence[tuple[str, Sequence[str]]] = ()
    """What each line is called, and the names of its figures."""
    bars: Sequence[tuple[str, str]] = ()
    """What each bar is called, and the name of its figure."""


class Theme(msgspec.Struct, frozen=True, kw_only=True):
    """Subjects that run in turn in one process, and the measures read from their figures."""

    name: str
    subjects: Sequence[Run]
    measures: Sequence[Measure]
    plots: Sequence[Plot] = ()
    warm_up: bool = True
    """Whether each subject runs once before it counts."""
    rounds: int | None = None
    """How often, where the settings' number would take too long."""


ThemeOf: TypeAlias = Callable[[Settings], AbstractContextManager[Theme]]
"""A theme's module opens it: what it prepares lives until the block ends."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one measure: medians over the rounds, and how far the rounds lay apart."""

    theme: str
    name: str
    unit: str
    ours: float
    ceiling: float | None
    ratio: float | None
    """Share of the ceiling's speed that was reached, whichever way the unit runs: 1 is as fast."""
    lowest: float
    """Of the ratio over the rounds; of the figure where there is no ratio."""
    highest: float
    floor: str | None
    met: bool | None
