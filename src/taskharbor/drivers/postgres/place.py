"""Which database a URL names, and how it is to be used."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode

import msgspec
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from taskharbor.errors import DriverURLError, nearest, redacted

_SETTINGS = ("listen", "pool_size", "prepare", "schema")
_USAGE = (
    "expected postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with libpq's own settings, and ours: ?schema=NAME, "
    "?pool_size=N, ?prepare=off behind a pooler, ?listen=URL for wake-ups past it"
)
_LIBPQ = (
    "application_name", "channel_binding", "connect_timeout", "dbname", "host", "hostaddr", "keepalives", "options",
    "passfile", "password", "port", "service", "sslcert", "sslkey", "sslmode", "sslrootcert", "target_session_attrs",
    "user",
)  # fmt: skip
_LONGEST_NAME = 63
"""Bytes of an identifier that PostgreSQL keeps."""
_BOUNDED_NAME = "abcdefghijklmnopqrstuvwxyz0123456789_-"


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """One database, and how it is to be used."""

    conninfo: str
    """As libpq takes it: a URL, or words."""
    schema: str = "taskharbor"
    """Where our tables are."""
    listen: str = ""
    """A way past the pooler, for LISTEN, which needs a connection of its own; by default the same."""
    prepare: bool = True
    """Prepare statements on the server. Off behind a pooler that hands connections on after each transaction."""
    pool_size: int = 10
    """Connections at most, for each event loop, and for blocking producers."""
    migrate: bool = False
    """Bring the tables to the version wanted at first use, instead of refusing to work."""

    @property
    def name(self) -> str:
        """Return what messages call it; without the password."""
        words = conninfo_to_dict(self.conninfo)
        host = words.get("host") or words.get("hostaddr") or "the default host"
        port = f":{words['port']}" if "port" in words else ""
        return f"the database {words.get('dbname') or words.get('user') or ''!r} on {host}{port}"


def from_url(url: str) -> Place:
    """Return the place that a URL names.

    Raises:
        DriverURLError: it names none.
    """
    base, _, query = url.partition("?")
    ours: dict[str, str] = {}
    theirs: list[tuple[str, str]] = []
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in _SETTINGS:
            ours[name] = value
        else:
            theirs.append((name, value))
    # urlencode writes a space as +, which libpq takes for a plus.
    conninfo = base + ("?" + urlencode(theirs).replace("+", "%20") if theirs else "")
    place = Place(conninfo=_checked(url, conninfo, [name for name, _ in theirs]))
    return with_settings(url, place, ours)


def with_settings(url: str, place: Place, words: Mapping[str, str]) -> Place:
    """Return a place used as the settings of its URL say.

    Raises:
        DriverURLError: one of them is unknown, or cannot be.
    """

    def refused(name: str, expected: str) -> DriverURLError:
        return DriverURLError(f"{redacted(url)!r}: {name}={redacted(words[name])!r}: expected {expected}")

    for name in words:
        if name not in _SETTINGS:
            raise DriverURLError(
                f"{redacted(url)!r}: unknown setting {name!r}{nearest(name, _SETTINGS)}; {_USAGE}"
            )
    schema = words.get("schema", place.schema)
    if not 0 < len(schema.encode()) <= _LONGEST_NAME or not set(schema) <= set(_BOUNDED_NAME):
        raise refused("schema", "a name of at most 63 small letters, digits, _ and -")
    if words.get("prepare", "on") not in ("on", "off"):
        raise refused("prepare", "on or off")
    size = words.get("pool_size", str(place.pool_size))
    if not size.isdecimal() or not 2 <= int(size) <= 1000:
        raise refused("pool_size", "a number from 2 to 1000")
    return msgspec.structs.replace(
        place,
        schema=schema,
        prepare=words.get("prepare", "on") == "on",
        pool_size=int(size),
        listen=_checked(url, words["listen"], []) if "listen" in words else place.listen,
    )


def _checked(url: str, conninfo: str, names: list[str]) -> str:
    try:
        conninfo_to_dict(conninfo)
    except ProgrammingError as error:
        said = str(error).strip().splitlines()[0]
        unknown = next((nearest(name, (*_SETTINGS, *_LIBPQ)) for name in names if f'"{name}"' in said), "")
        raise DriverURLError(f"{redacted(url)!r}: {redacted(said)}{unknown}; {_USAGE}") from None
    return conninfo
