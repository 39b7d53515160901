"""The file's part: `taskharbor.toml`, or `[tool.taskharbor]` in pyproject.toml, nearest upwards."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final, cast
from urllib.parse import quote

import msgspec

from taskharbor.errors import DeploymentError, OptionError, nearest
from taskharbor.settings.declared import NAMES, WORKER_TABLE, kind_of, table_of
from taskharbor.settings.environment import CONFIG_VARIABLE

OWN: Final = "taskharbor.toml"
SHARED: Final = "pyproject.toml"
_TABLE: Final = "tool.taskharbor"
_FILE_SCHEMES: Final = ("sqlite", "postgresql+embedded")


class SettingsFile(msgspec.Struct, frozen=True):
    """What one file sets."""

    path: Path
    values: Mapping[str, object]
    """By the setting's name, as TOML has them: nothing is checked yet but the names."""

    def __repr__(self) -> str:
        """Show no value: there may be a password among them."""
        return f"<{type(self).__name__} {self.path}: {', '.join(self.values)}>"

    def place(self, name: str) -> str:
        """Return where in the file a setting stands: `/srv/shop/taskharbor.toml [worker]`."""
        tables = [_TABLE] if self.path.name == SHARED else []
        table = ".".join([*tables, *filter(None, [table_of(name)])])
        return f"{self.path} [{table}]" if table else str(self.path)


def named_file(path: Path) -> SettingsFile:
    """Return what the file that `TASKHARBOR_CONFIG` names sets.

    Raises:
        DeploymentError: it cannot be read, is no TOML, or is a pyproject.toml without our table.
        OptionError: it has a key that is no setting.
    """
    try:
        table = _table(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DeploymentError(f"{CONFIG_VARIABLE} names {path}, and there is no such file") from error
    if table is None:
        raise DeploymentError(f"{CONFIG_VARIABLE} names {path}, which has no table [{_TABLE}]")
    return SettingsFile(path, _values(path, table))


def nearest_file(folder: Path) -> SettingsFile | None:
    """Return what the nearest file sets, from a folder upwards; None if there is none.

    Raises:
        DeploymentError: the nearest one cannot be read or is no TOML; or two of them lie in one folder.
        OptionError: it has a key that is no setting.
    """
    for place in (folder, *folder.parents):
        found = list(_found_in(place))
        if len(found) > 1:
            raise DeploymentError(
                f"both {OWN} and [{_TABLE}] of {SHARED} in {place} set something; keep one of them"
            )
        if found:
            path, table = found[0]
            return SettingsFile(path, _values(path, table))
    return None


def _found_in(folder: Path) -> Iterator[tuple[Path, dict[str, object]]]:
    for name in (OWN, SHARED):
        path = folder / name
        try:
            path.stat()
        except (
            OSError
        ):  # not there; or in a folder that this user may not look into, which is none of its own
            continue
        table = _table(path)
        if table is not None:
            yield path, table


def _table(path: Path) -> dict[str, object] | None:
    """Return the table of a file that is ours; None if a pyproject.toml has none."""
    try:
        about = path.stat()
        return _read(path, about.st_mtime_ns, about.st_size)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise DeploymentError(
            f"the settings in {path} cannot be read: {error.strerror or error}; let this user read it, or name "
            f"another file in {CONFIG_VARIABLE}"
        ) from error


# A worker is made in a moment and may be made often; a file is read again when it changes.
@lru_cache(maxsize=32)
def _read(path: Path, _changed: int, _size: int) -> dict[str, object] | None:
    text = path.read_bytes()
    if path.name == SHARED and b"taskharbor" not in text:
        return None  # most of them: without paying for the parser
    import tomllib

    try:
        whole: dict[str, object] = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DeploymentError(f"{path} is no TOML: {error}; correct it") from error
    if path.name != SHARED:
        return whole
    tool = whole.get("tool")
    table = cast("dict[str, object]", tool).get("taskharbor") if isinstance(tool, dict) else None
    if table is None:
        return None
    if not isinstance(table, dict):
        raise OptionError(f"{path}: tool.taskharbor is no table; expected [{_TABLE}]")
    return cast("dict[str, object]", table)


def _values(path: Path, table: Mapping[str, object]) -> dict[str, object]:
    """Return each setting by its name, refusing what is none."""
    prefix = f"{_TABLE}." if path.name == SHARED else ""
    values: dict[str, object] = {}
    for key, value in table.items():
        if key != WORKER_TABLE:
            _check_key(path, prefix.removesuffix("."), key, "")
            values[key] = value
            continue
        if not isinstance(value, dict):
            # Without what stands there: it may be a URL, with its password.
            raise OptionError(f"{path}: {prefix}{key} is no table; expected [{prefix}{key}]")
        for inner, setting in cast("dict[str, object]", value).items():
            _check_key(path, prefix + WORKER_TABLE, inner, WORKER_TABLE)
            values[inner] = setting
    url, app = values.get("url"), values.get("app")
    if isinstance(url, str):
        values["url"] = _url_beside(path, url)
    if isinstance(app, str):
        values["app"] = _app_beside(path, app)
    schedules = values.get("schedules")
    if isinstance(schedules, str):
        values["schedules"] = str(path.absolute().parent / schedules)
    return values


def _check_key(path: Path, shown: str, key: str, table: str) -> None:
    there = f"{path} [{shown}]" if shown else str(path)
    if key in NAMES and table_of(key) == table:
        return
    if key in NAMES:
        whose = f"in the table [{shown + '.' if shown else ''}{WORKER_TABLE}]" if not table else "above it"
        raise OptionError(f"{there}: {key!r} does not stand here but {whose}; it is {kind_of(key)}")
    known = [name for name in NAMES if table_of(name) == table]
    known += [] if table else [WORKER_TABLE]
    # `concurency` at the top is meant for the worker's table: all names are compared.
    hint = nearest(key, known) or nearest(key, NAMES)
    raise OptionError(f"{there}: there is no setting {key!r}{hint}; there are {', '.join(known)}")


def _url_beside(path: Path, url: str) -> str:
    """Return a URL whose relative path means the file's own folder, not wherever a process was started."""
    scheme, separator, rest = url.partition(":///")
    if (
        not separator
        or scheme.lower() not in _FILE_SCHEMES
        or rest.startswith(("/", ":memory:", "?"))
        or not rest
    ):
        return url
    if Path(rest).is_absolute():  # C:/jobs.db
        return url
    return f"{scheme}:///{quote(str(path.absolute().parent))}/{rest}"


def _app_beside(path: Path, app: str) -> str:
    """Return an application whose relative file lies beside the file that names it; a module stays as it is."""
    if not re.search(r"[/\\]|\.py(?::|$)", app) or Path(app).is_absolute():
        return app
    return str(path.absolute().parent / app)
