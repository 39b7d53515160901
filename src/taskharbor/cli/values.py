"""Values as they are written on a command line: durations, sizes, instants, lists."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import typer

_UNITS = {
    "w": timedelta(weeks=1),
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
    "us": timedelta(microseconds=1),
}
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_DURATION = re.compile("".join(rf"(?:(?P<{unit}>{_NUMBER}){unit})?" for unit in _UNITS))
_SIZE = re.compile(rf"(?P<number>{_NUMBER})(?:(?P<unit>[KMGT])(?:i?B)?|B)", re.IGNORECASE)


def duration(text: str) -> timedelta:
    """Return the duration written as `30s`, `5m`, `1h30m`, `500ms`.

    Raises:
        BadParameter: it is written otherwise. A bare number is refused: nobody knows its unit.
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None or not found[0]:
        raise typer.BadParameter(_no_duration(text))
    try:
        return sum(
            (unit * float(found[name]) for name, unit in _UNITS.items() if found[name]), start=timedelta(0)
        )
    except OverflowError as error:
        raise typer.BadParameter(f"{text!r} is longer than can be counted") from error


def _no_duration(text: str) -> str:
    if re.fullmatch(_NUMBER, text.strip()):
        return f"{text!r} has no unit; write {text.strip()}s for seconds, {text.strip()}m for minutes"
    return f"{text!r} is no duration; write 30s, 5m, 1h30m or 500ms (w, d, h, m, s, ms, us, the longer ones first)"


def told_duration(length: timedelta) -> str:
    """Return a duration as `duration` reads it: `1h30m`."""
    parts: list[str] = []
    for name, unit in _UNITS.items():
        if name == "w":  # "7d" reads better than "1w"
            continue
        count, length = divmod(length, unit)
        if count:
            parts.append(f"{count}{name}")
    return "".join(parts) or "0s"


def told_length(length: timedelta) -> str:
    """Return a duration as people read it, in its two largest units: `340ms`, `1.2s`, `14m3s`, `3d4h`."""
    seconds = max(length.total_seconds(), 0)
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 59.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}m{whole % 60}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60}m"
    return f"{whole // 86400}d{whole % 86400 // 3600}h"


def told_age(age: timedelta) -> str:
    """Return how long ago something was, in whole seconds at least: `0s`, `14m3s`; clocks differ by less than that."""
    seconds = max(int(age.total_seconds()), 0)
    return f"{seconds}s" if seconds < 60 else told_length(timedelta(seconds=seconds))


def size(text: str) -> int:
    """Return the bytes in a size written as `512M` or `1.5G`, by 1024.

    Raises:
        BadParameter: it is written otherwise.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no size; write 512M or 1.5G (K, M, G, T, by 1024)")
    return int(float(found["number"]) * 1024 ** (" KMGT".index((found["unit"] or " ").upper())))


def told_size(count: int) -> str:
    """Return so many bytes as people read them: `56.4M`; the largest unit of which there is one, to a tenth."""
    number, unit = float(count), "B"
    for larger in "KMGT":
        if number < 1024:
            break
        number, unit = number / 1024, larger
    return f"{number:.1f}".removesuffix(".0") + unit


def instant(text: str) -> datetime:
    """Return the instant written in ISO 8601, with its zone.

    Raises:
        BadParameter: it is written otherwise, or has no zone.
    """
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is no instant; write ISO 8601 with a zone, such as 2030-01-31T08:00Z"
        ) from error
    if found.tzinfo is None:
        raise typer.BadParameter(f"{text!r} has no zone; append Z for UTC, or such as +02:00")
    return found


def listed(given: Iterable[str] | None) -> Sequence[str]:
    """Return names that were given one by one, separated by commas, or both ways."""
    return [name.strip() for text in given or () for name in text.split(",") if name.strip()]


def pairs(given: Iterable[str] | None) -> dict[str, str]:
    """Return what was written as `name=value`.

    Raises:
        BadParameter: there is no `=`, or a name comes twice.
    """
    found: dict[str, str] = {}
    for text in given or ():
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise typer.BadParameter(f"{text!r}: expected name=value")
        if name in found:
            raise typer.BadParameter(f"{name!r} is given twice")
        found[name] = value
    return found
