"""All settings together: what the environment says over what the file says over the defaults, and which said it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final, cast

import msgspec

from taskharbor.call.options import check_name
from taskharbor.errors import OptionError, redacted
from taskharbor.settings.declared import (
    DURATIONS,
    LISTS,
    NAMES,
    NUMBERED,
    SHORTEST,
    SIZES,
    Settings,
    kind_of,
    type_of,
    variable_of,
)
from taskharbor.settings.environment import CONFIG_VARIABLE, from_environment
from taskharbor.settings.file import SettingsFile, named_file, nearest_file
from taskharbor.settings.text import duration, numbers, size, told_duration, told_numbers, told_size

ARGUMENT: Final = "argument"
DEFAULT: Final = "default"
_LONGEST: Final = timedelta(days=3650)


class Shown(msgspec.Struct, frozen=True):
    """One setting, as it may be shown to anybody."""

    name: str
    value: str
    """As it would be written; without secrets; "" for what is not set and has no value by itself."""
    origin: str
    """`argument`, `environment TASKHARBOR_URL`, `file /srv/shop/taskharbor.toml [worker]`, or `default`."""


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting, and where it came from."""

    settings: Settings
    origins: Mapping[str, str]
    """By the setting's name; worded as `Shown.origin`."""
    file: Path | None
    """The file that was read, whatever it sets; None if there is none."""

    def given(self, name: str) -> bool:
        """Return whether somebody set it: it does not stand at its default."""
        return self.origins[name] != DEFAULT

    def shown(self) -> list[Shown]:
        """Return every setting in words, in their declared order, without secrets."""
        return [Shown(name, told(name, getattr(self.settings, name)), self.origins[name]) for name in NAMES]

    def __repr__(self) -> str:
        """Show no password."""
        values = ", ".join(f"{one.name}={one.value} ({one.origin})" for one in self.shown())
        return f"Loaded({values})"


def load_settings(
    arguments: Mapping[str, object] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Loaded:
    """Read every setting that there is.

    Args:
        arguments: what was passed in code or on a command line, by name, of the setting's own type (durations as
            timedelta); None leaves a setting to the rest.
        environment: by default `os.environ`.
        folder: where the search for a file begins, by default the working directory.

    Raises:
        OptionError: a name that is no setting, or a value that cannot be; says where it stands, what was expected and
            what came.
        DeploymentError: the file cannot be read or is no TOML.
    """
    environment = os.environ if environment is None else environment
    texts = from_environment(environment)
    file = _file(environment, folder)
    values: dict[str, object] = {}
    origins = dict.fromkeys(NAMES, DEFAULT)
    if file is not None:
        for name, value in file.values.items():
            values[name] = _from_file(name, value, f"{file.place(name)} {name}")
            origins[name] = f"file {file.place(name)}"
    for name, text in texts.items():
        values[name] = _from_text(name, text, variable_of(name))
        origins[name] = f"environment {variable_of(name)}"
    for name, value in (arguments or {}).items():
        if value is not None:
            values[name] = _converted(name, value, name)
            origins[name] = ARGUMENT
    return Loaded(
        settings=msgspec.convert(values, Settings, builtin_types=(timedelta,)),
        origins=origins,
        file=None if file is None else file.path,
    )


def _file(environment: Mapping[str, str], folder: Path | None) -> SettingsFile | None:
    named = environment.get(CONFIG_VARIABLE, "")
    if named:
        return named_file(Path(named).absolute())
    try:
        return nearest_file(Path.cwd() if folder is None else folder.absolute())
    except FileNotFoundError:  # the working directory itself was removed
        return None


def _from_text(name: str, text: str, where: str) -> object:
    if name in LISTS:
        names = [part.strip() for part in text.split(",") if part.strip()]
        return _converted(name, names, where)
    if name == "log_level":  # logging itself writes them in capitals, and knows `warn`
        text = {"warn": "warning"}.get(text.lower(), text.lower())
    return _converted(name, _parsed(name, text, where), where, strict=False)


def _from_file(name: str, value: object, where: str) -> object:
    if name in DURATIONS or name in SIZES:
        if not isinstance(value, str):
            raise _refusal(name, value, where, "it has to be text with a unit, in quotes")
        return _converted(name, _parsed(name, value, where), where)
    return _converted(name, value, where)


def _parsed(name: str, text: str, where: str) -> object:
    try:
        if name in DURATIONS:
            return duration(text)
        if name in SIZES:
            return size(text)
        if name in NUMBERED:
            return numbers(text)
    except ValueError as error:
        raise _refusal(name, text, where, str(error)) from error
    return text


def _converted(name: str, value: object, where: str, *, strict: bool = True) -> object:
    """Return a value in its setting's type, once it is one that can be."""
    try:
        found: object = msgspec.convert(value, type_of(name), strict=strict, builtin_types=(timedelta,))
    except msgspec.ValidationError as error:
        said = str(error).partition(" - at `")[0]
        # Of bounds the kind of setting tells; of types, what was got.
        raise _refusal(name, value, where, said if ", got " in said else "") from error
    if isinstance(found, timedelta) and not SHORTEST.get(name, timedelta(0)) <= found <= _LONGEST:
        least = told_duration(SHORTEST.get(name, timedelta(0)))
        raise _refusal(name, value, where, f"it has to be at least {least} and at most {_LONGEST.days}d")
    if name in LISTS:
        _check_names(name, value, where, msgspec.convert(found, tuple[str, ...] | None))
    if name in NUMBERED:
        _check_names(name, value, where, list(msgspec.convert(found, dict[str, int] | None) or ()) or None)
    return found


def _check_names(name: str, value: object, where: str, found: Sequence[str] | None) -> None:
    if found is None:
        return
    if not found:
        raise _refusal(name, value, where, "it is empty; leave it out for all")
    if len(set(found)) != len(found):
        raise _refusal(name, value, where, "one of them is named twice")
    for one in found:
        try:
            check_name(one, name)
        except OptionError as error:
            raise _refusal(name, value, where, str(error)) from error


def _refusal(name: str, value: object, where: str, why: str = "") -> OptionError:
    # Whatever the setting: a URL may stand at the wrong one, and `why` may quote it.
    shown = str(value) if isinstance(value, (int, float)) else repr(redacted(told(name, value)))
    return OptionError(f"{where} = {shown}: expected {kind_of(name)}{'; ' if why else ''}{redacted(why)}")


def told(name: str, value: object) -> str:
    """Return a setting's value as it would be written, without secrets; "" for None."""
    if value is None:
        return ""
    if name == "url":
        return redacted(str(value))
    if isinstance(value, timedelta):
        return told_duration(value)
    if name in SIZES and isinstance(value, int):
        return told_size(value)
    if isinstance(value, Mapping):
        return told_numbers(cast("Mapping[str, int]", value))
    if isinstance(value, (list, tuple)):
        parts: list[object] = [*value]
        return ",".join(map(str, parts))
    return str(value)
