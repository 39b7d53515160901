"""Durations and sizes as people write them: `30s`, `1h30m`, `512M`. The command line reads them so, too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta

from taskharbor import clock

told_duration = clock.told_duration
"""Writes a duration as `duration` reads it."""

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
        ValueError: it is written otherwise. A bare number is refused: nobody knows its unit.
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None or not found[0]:
        raise ValueError(_no_duration(text))
    try:
        return sum(
            (unit * float(found[name]) for name, unit in _UNITS.items() if found[name]), start=timedelta(0)
        )
    except OverflowError as error:
        raise ValueError(f"{text!r} is longer than can be counted") from error


def _no_duration(text: str) -> str:
    if re.fullmatch(_NUMBER, text.strip()):
        return f"{text!r} has no unit; write {text.strip()}s for seconds, {text.strip()}m for minutes"
    return f"{text!r} is no duration; write 30s, 5m, 1h30m or 500ms (w, d, h, m, s, ms, us, the longer ones first)"


def size(text: str) -> int:
    """Return the bytes in a size written as `512M` or `1.5G`, by 1024.

    Raises:
        ValueError: it is written otherwise.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no size; write 512M or 1.5G (K, M, G, T, by 1024)")
    return int(float(found["number"]) * 1024 ** (" KMGT".index((found["unit"] or " ").upper())))


def numbers(text: str) -> dict[str, int]:
    """Return the numbers by name written as `mail=3,default=1`.

    Raises:
        ValueError: it is written otherwise, or names one twice.
    """
    found: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, separator, number = (word.strip() for word in part.partition("="))
        if not (separator and name and re.fullmatch("[0-9]{1,9}", number)):
            raise ValueError(f"{part!r} is no name with a whole number; write mail=3,default=1")
        if name in found:
            raise ValueError(f"{name!r} is named twice")
        found[name] = int(number)
    if not found:
        raise ValueError("nothing is named; write mail=3,default=1")
    return found


def told_numbers(given: Mapping[str, int]) -> str:
    """Return numbers by name as `numbers` reads them."""
    return ",".join(f"{name}={number}" for name, number in given.items())


def told_size(count: int) -> str:
    """Return so many bytes as people read them: `56.4M`; the largest unit of which there is one, to a tenth."""
    number, unit = float(count), "B"
    for larger in "KMGT":
        if number < 1024:
            break
        number, unit = number / 1024, larger
    return f"{number:.1f}".removesuffix(".0") + unit
