"""Pictures of the figures, as SVG files without a program to draw them: lines over x, and bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor, log10
from pathlib import Path
from statistics import median

from benchmarks.measure import Plot

_WIDTH, _HEIGHT = 720, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 90, 20, 44, 60
_BAR_HEIGHT, _BAR_LABEL = 26, 190
_COLOURS = ("#2a6fbb", "#d1662b", "#3f8f4f", "#8a56ac", "#c0a020")
_TEXT = 'font-family="sans-serif" font-size="12" fill="#444"'


def draw(plot: Plot, samples: Mapping[str, Sequence[float]], folder: Path) -> Path:
    """Draw the medians of a plot's figures into a file and return its path."""
    typical = {name: median(values) for name, values in samples.items()}
    svg = _bars(plot, typical) if plot.bars else _lines(plot, typical)
    path = folder / f"{plot.name}.svg"
    path.write_text(svg, encoding="utf-8")
    return path


def _lines(plot: Plot, typical: Mapping[str, float]) -> str:
    curves = [(label, [typical[name] for name in names if name in typical]) for label, names in plot.lines]
    top = max((value for _, values in curves for value in values), default=1.0)
    steps, begin, end = _steps(top), min(plot.at), max(plot.at)

    def x(value: float) -> float:
        return _LEFT + (value - begin) / ((end - begin) or 1) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - value / steps[-1] * (_HEIGHT - _TOP - _BOTTOM)

    parts = [_words(_LEFT, 20, plot.title, 'font-weight="bold"')]
    for step in steps:
        parts.append(f'<path d="M{_LEFT} {y(step):.1f}H{_WIDTH - _RIGHT}" stroke="#ddd"/>')
        parts.append(_words(_LEFT - 8, y(step) + 4, _number(step), 'text-anchor="end"'))
    parts += [
        _words(x(step), _HEIGHT - _BOTTOM + 18, _number(step), 'text-anchor="middle"')
        for step in _steps(end)
        if begin <= step <= end
    ]
    parts.append(
        _words((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - _BOTTOM + 36, plot.x, 'text-anchor="middle"')
    )
    parts.append(_words(_LEFT - 8, _TOP - 8, plot.y, 'text-anchor="end"'))
    for number, (label, values) in enumerate(curves):
        colour = _COLOURS[number % len(_COLOURS)]
        points = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in zip(plot.at, values, strict=False))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        at = _LEFT + number * 160
        parts.append(f'<rect x="{at}" y="{_HEIGHT - 18}" width="12" height="12" fill="{colour}"/>')
        parts.append(_words(at + 18, _HEIGHT - 8, label))
    return _svg(_HEIGHT, parts)


def _bars(plot: Plot, typical: Mapping[str, float]) -> str:
    top = max(typical[name] for _, name in plot.bars)
    height = _TOP + len(plot.bars) * _BAR_HEIGHT + 10
    parts = [_words(10, 20, f"{plot.title} ({plot.y})", 'font-weight="bold"')]
    for number, (label, name) in enumerate(plot.bars):
        y = _TOP + number * _BAR_HEIGHT
        width = typical[name] / top * (_WIDTH - _BAR_LABEL - 100)
        colour = _COLOURS[1] if "bare" in label else _COLOURS[0]
        parts.append(_words(_BAR_LABEL - 8, y + 13, label, 'text-anchor="end"'))
        parts.append(f'<rect x="{_BAR_LABEL}" y="{y}" width="{width:.1f}" height="18" fill="{colour}"/>')
        parts.append(_words(_BAR_LABEL + width + 6, y + 13, _number(typical[name])))
    return _svg(height, parts)


def _steps(top: float) -> list[float]:
    """Return round numbers from 0 to at least `top`, some five of them."""
    rough = (top or 1.0) / 5
    unit = 10 ** floor(log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    return [step * number for number in range(ceil((top or 1.0) / step) + 1)]


def _svg(height: int, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
        f'height="{height}">\n<rect width="100%" height="100%" fill="#fff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _words(x: float, y: float, text: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {_TEXT} {more}>{escape(text)}</text>'


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2g}"
