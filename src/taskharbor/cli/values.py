"""Values as they are written on a command line: durations, sizes, instants, lists."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import typer

from taskharbor.errors import OptionError
from taskharbor.settings import text as text_values

told_duration = text_values.told_duration
told_size = text_values.told_size
told_numbers = text_values.told_numbers


def duration(text: str) -> timedelta:
    """Return the duration written as `30s`, `5m`, `1h30m`, `500ms`.

    Raises:
        BadParameter: it is written otherwise. A bare number is refused: nobody knows its unit.
    """
    try:
        return text_values.duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


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
    try:
        return text_values.size(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def numbers(text: str) -> dict[str, int]:
    """Return the numbers by name written as `mail=3,default=1`.

    Raises:
        BadParameter: it is written otherwise, or names one twice.
    """
    try:
        return text_values.numbers(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


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


def narrowing(option: str, given: Iterable[str] | None, *, commas: bool = True) -> Sequence[str]:
    """Return the names that an option narrows down to, with commas between them or not; none where it was not given.

    Raises:
        OptionError: it was given and names nothing, as `--queue "$QUEUE"` of a variable that is not set. Taken for not
            given, it would mean all.
    """
    found: list[str] = []
    for text in given or ():
        names = listed([text]) if commas else [text]
        if not any(name.strip() for name in names):
            raise OptionError(f"{option} {text!r} names nothing; leave it out for all")
        found.extend(names)
    return found


def narrowed(option: str, given: str | None) -> str | None:
    """Return the text that an option narrows down to; None where it was not given. Raises as `narrowing`."""
    if given is not None and not given.strip():
        raise OptionError(f"{option} {given!r} names nothing; leave it out for all")
    return given


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
