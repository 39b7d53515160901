"""A file of schedules: TOML or YAML, with a list `schedules`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

from taskharbor.declaring.entries import Declared, read_entry
from taskharbor.errors import DeploymentError, MissingExtraError, OptionError, nearest
from taskharbor.task import Registry

_LIST = "schedules"


def read_file(path: Path, registry: Registry) -> list[Declared]:
    """Return what a file declares, entry by entry.

    Raises:
        DeploymentError: it is not there, cannot be read, or is no TOML or YAML.
        MissingExtraError: it is YAML, and the extra `yaml` is not installed.
        OptionError: an entry cannot be; says which, where, and what was expected.
    """
    parse = {".toml": _toml, ".yaml": _yaml, ".yml": _yaml}.get(path.suffix.lower())
    if parse is None:
        raise OptionError(f"{path}: expected a file of schedules named *.toml, *.yaml or *.yml")
    try:
        whole = parse(path, path.read_bytes().decode())
    except UnicodeDecodeError as error:
        raise DeploymentError(f"{path} is not UTF-8: {error}; correct it") from error
    except OSError as error:
        raise DeploymentError(
            f"the schedules in {path} cannot be read: {error.strerror or error}; a relative path is looked for from "
            "the working directory, or from the folder of the settings that name it"
        ) from error
    return [
        read_entry(entry, registry, f"{path}: {_LIST}[{number}]{_named(entry)}")
        for number, entry in enumerate(_entries(path, whole))
    ]


def _entries(path: Path, whole: object) -> list[object]:
    if whole is None:  # an empty YAML file
        return []
    if not isinstance(whole, dict):
        raise OptionError(f"{path}: expected a list named `{_LIST}`, got {type(whole).__name__}")
    table = cast("dict[object, object]", whole)
    for key in table:
        if key != _LIST:
            raise OptionError(
                f"{path}: there is no key {key!r}{nearest(str(key), [_LIST])}; there is {_LIST}"
            )
    entries: object = table.get(_LIST) or []
    if not isinstance(entries, list):
        hint = f" ([[{_LIST}]] before each)" if path.suffix.lower() == ".toml" else ""
        raise OptionError(f"{path}: {_LIST}: expected a list of entries{hint}")
    return cast("list[object]", entries)


def _named(entry: object) -> str:
    name = cast("dict[object, object]", entry).get("name") if isinstance(entry, dict) else None
    return f" {name!r}" if isinstance(name, str) else ""


def _toml(path: Path, text: str) -> object:
    import tomllib

    try:
        return tomllib.loads(text)
    except (
        ValueError,
        RecursionError,
    ) as error:  # its own is a ValueError, as is that of a number with 5,000 digits
        raise DeploymentError(f"{path} is no TOML: {_why(error)}; correct it") from error


def _yaml(path: Path, text: str) -> object:
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError(
            f"{path} is YAML, and PyYAML is not installed; pip install 'taskharbor[yaml]', or write it as TOML",
            extra="yaml",
        ) from error
    load = cast("Callable[[str], object]", yaml.safe_load)
    try:
        return load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DeploymentError(f"{path} is no YAML: {_why(error)}; correct it") from error


def _why(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
