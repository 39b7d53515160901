"""Which folder a URL of the embedded server names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec

from taskharbor.errors import DriverURLError, redacted

_USAGE = (
    "expected postgresql+embedded:///relative/folder or postgresql+embedded:////absolute/folder, a folder that "
    "TaskHarbor makes and keeps a PostgreSQL server in"
)


class EmbeddedPlace(msgspec.Struct, frozen=True):
    """A folder, and what else its URL says."""

    folder: Path
    """Absolute."""
    query: dict[str, str]
    """The settings after the `?`, unread."""

    def __repr__(self) -> str:
        return f"<EmbeddedPlace {str(self.folder)!r}>"  # a setting may be a URL with a password

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("folder", str(self.folder))]


def open_embedded_folder(url: str) -> EmbeddedPlace:
    """Return the folder that a URL names, as SQLite's URLs name files: three slashes, then a relative path.

    Raises:
        DriverURLError: it names none.
    """
    rest, _, query = url.partition("://")[2].partition("?")
    host, slash, path = rest.partition("/")
    path = unquote(path)
    if host:
        raise DriverURLError(f"{redacted(url)!r}: {_USAGE}. For a server that runs already use postgresql://")
    if not slash or not path.strip("/") or "\x00" in path:
        raise DriverURLError(f"{redacted(url)!r} names no folder; {_USAGE}")
    return EmbeddedPlace(Path(os.path.abspath(path)), dict(parse_qsl(query, keep_blank_values=True)))
