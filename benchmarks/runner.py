"""Running subjects in turn: a machine's mood changes by the second, so what is compared is measured side by side.

The subjects of a theme run one after the other, round by round, each round beginning with another of them. Medians are
compared, and the ratio of each single round tells the spread.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from statistics import median

from benchmarks.measure import Line, Measure, Settings, Theme


def steps(theme: Theme, settings: Settings) -> int:
    """Return how many runs a theme takes, for the progress bar."""
    return len(theme.subjects) * (_rounds(theme, settings) + theme.warm_up)


def run(
    theme: Theme, settings: Settings, step: Callable[[], None]
) -> tuple[list[Line], Mapping[str, Sequence[float]]]:
    """Run a theme and return a line a measure, and all figures; `step` is called after each run of a subject."""
    samples: dict[str, list[float]] = {}
    rounds = _rounds(theme, settings)
    for number in range(-1 if theme.warm_up else 0, rounds):
        first = number % len(theme.subjects)
        for subject in [*theme.subjects[first:], *theme.subjects[:first]]:
            gc.collect()
            figures = subject()
            if number >= 0:
                for name, value in figures.items():
                    samples.setdefault(name, []).append(value)
            step()
    return [_line(theme.name, measure, samples, settings) for measure in theme.measures], samples


def _rounds(theme: Theme, settings: Settings) -> int:
    return settings.rounds if theme.rounds is None else min(theme.rounds, settings.rounds)


def _line(theme: str, measure: Measure, samples: Mapping[str, Sequence[float]], settings: Settings) -> Line:
    ours = samples[measure.ours]
    if measure.minus is not None:
        ours = [value - less for value, less in zip(ours, samples[measure.minus], strict=True)]
    ceilings = None if measure.ceiling is None else samples[measure.ceiling]
    # Neighbours only ever slow a round down, so the best is what the machine can do.
    typical = median if not settings.best else max if measure.better == "more" else min
    mine = typical(ours)
    ceiling = None if ceilings is None else typical(ceilings)
    ratio = None if ceiling is None else _ratio(measure, mine, ceiling)
    spread = (
        ours
        if ceilings is None
        else [_ratio(measure, value, theirs) for value, theirs in zip(ours, ceilings, strict=True)]
    )
    floor = measure.floor if measure.floor is not None and measure.floor.applies(ceiling) else None
    judged = ratio if floor is not None and floor.of == "ratio" else mine
    return Line(
        theme=theme,
        name=measure.name,
        unit=measure.unit,
        ours=mine,
        ceiling=ceiling,
        ratio=ratio,
        lowest=min(spread),
        highest=max(spread),
        floor=None if floor is None else str(floor),
        met=None if floor is None or judged is None else floor.met_by(judged),
    )


def _ratio(measure: Measure, ours: float, ceiling: float) -> float:
    return ours / ceiling if measure.better == "more" else ceiling / ours
