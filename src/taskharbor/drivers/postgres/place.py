"""Which database a URL names, and how it is to be used."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any
from urllib.parse import unquote

import msgspec
from psycopg import ProgrammingError, pq
from psycopg.conninfo import conninfo_to_dict

from taskharbor.errors import DriverURLError, OptionError, nearest, redacted

_SETTINGS = ("listen", "pool_size", "prepare", "schema")
_USAGE = (
    "expected postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with libpq's own settings, and ours: ?schema=NAME, "
    "?pool_size=N, ?prepare=off behind a pooler, ?listen=URL for wake-ups past it"
)
_ENCODE = (
    "in a user or password, @ is written %40, / is %2F, : is %3A, % is %25, and a space %20 (Python: "
    "urllib.parse.quote(password, safe=''))"
)
_SCHEMES = ("postgresql", "postgres")
_NAME = re.compile(r"[a-z0-9_-]{1,63}")
"""A schema's: none that PostgreSQL would cut off, and none that needs more than quotes."""
_RESERVED = re.compile(r"pg_.*|information_schema")
_A_SCHEMA = "a name of at most 63 small letters, digits, _ and -, and none of PostgreSQL's own"
_PORTS = re.compile(r"[0-9]{0,5}(,[0-9]{0,5})*", re.ASCII)
_COUNTS = ("connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count")


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

    def __post_init__(self) -> None:
        """Check the schema's name, since statements are written with it."""
        if not _usable(self.schema):
            raise OptionError(f"schema={self.schema!r}: expected {_A_SCHEMA}")

    def __repr__(self) -> str:
        return f"<Place {self.name}, schema {self.schema!r}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("name", self.name), ("schema", self.schema)]  # not each field, and so the password

    @property
    def name(self) -> str:
        """Return what messages call it; without the password."""
        words = conninfo_to_dict(self.conninfo)
        called = words.get("dbname") or words.get("user")
        what = "the default database" if called is None else f"the database {redacted(str(called))!r}"
        host = words.get("host") or words.get("hostaddr") or "the default host"
        port = f":{words['port']}" if "port" in words else ""
        return f"{what} on {host}{port}"

    @property
    def listening(self) -> Place:
        """Return the place as the connection reaches it that hears wake-ups."""
        return msgspec.structs.replace(self, conninfo=self.listen) if self.listen else self


def from_url(url: str) -> Place:
    """Return the place that a URL names.

    Raises:
        DriverURLError: it names none.
    """
    base, query = _divided(url)
    ours: dict[str, str] = {}
    theirs: list[str] = []
    for name, text in _parts(query):
        if name in _SETTINGS:
            ours[name] = unquote(text.partition("=")[2])
        else:
            _check_known(url, name, text)
            theirs.append(text)
    # What is libpq's stays as it is written: it reads a + as a plus, and others would not.
    conninfo = base + ("?" + "&".join(theirs) if theirs else "")
    _check(url, conninfo)
    return with_settings(url, Place(conninfo=conninfo), ours)


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
    if not _usable(schema):
        raise refused("schema", _A_SCHEMA)
    if words.get("prepare", "on") not in ("on", "off"):
        raise refused("prepare", "on or off")
    size = words.get("pool_size", str(place.pool_size))
    if not size.isdecimal() or not 2 <= int(size) <= 1000:
        raise refused("pool_size", "a number from 2 to 1000")
    listen = words.get("listen", "")
    if listen:
        listen_base, listen_query = _divided(listen)
        for name, text in _parts(listen_query):
            _check_known(listen, name, text, in_listen=True)
        listen = listen_base + ("?" + listen_query if listen_query else "")
        _check(listen, listen)
    return msgspec.structs.replace(
        place,
        schema=schema,
        prepare=words.get("prepare", "on") == "on",
        pool_size=int(size),
        listen=listen or place.listen,
    )


def _usable(schema: str) -> bool:
    return _NAME.fullmatch(schema) is not None and _RESERVED.fullmatch(schema) is None


def _divided(url: str) -> tuple[str, str]:
    """Return a URL's parts before and after the `?`, its scheme as libpq knows it."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in _SCHEMES:
        raise DriverURLError(f"expected a URL, and this is none of PostgreSQL's; {_USAGE}")
    # As libpq does it: user and password come to their end with an @, if one stands before the first slash.
    authority = rest.partition("/")[0]
    credentials = authority.partition("@")[0] + "@" if "@" in authority else ""
    base, _, query = rest.removeprefix(credentials).partition("?")
    if "@" in base:
        raise DriverURLError(f"{redacted(url)!r}: an @ too many: {_ENCODE}; {_USAGE}")
    return f"{scheme.lower()}://{credentials}{base}", query


def _parts(query: str) -> Iterator[tuple[str, str]]:
    """Yield each setting's name, and its text as it stands there."""
    for text in query.split("&"):
        if text:
            yield unquote(text.partition("=")[0]), text


@cache
def _known() -> frozenset[str]:
    return frozenset(option.keyword.decode() for option in pq.Conninfo.get_defaults()) | {"ssl"}


def _check_known(url: str, name: str, text: str, *, in_listen: bool = False) -> None:
    if name in _known() and "=" in text:
        return
    if in_listen and name in _SETTINGS:
        shown = f" {name!r}, which belongs to the URL that has ?listen="
    elif "=" in text and re.fullmatch(r"\w{1,40}", name):
        shown = f" {name!r}{nearest(name, [*_SETTINGS, *sorted(_known())])}"
    else:
        shown = f" (an & in a value is written %26; {_ENCODE})"  # not shown: it may be a piece of a password
    raise DriverURLError(f"{redacted(url)!r}: unknown setting{shown}; {_USAGE}")


def _understood(conninfo: str) -> tuple[Mapping[str, object], str]:
    """Return what libpq reads, or else what it complains of; but not its quotations: they may be of a password."""
    try:
        return conninfo_to_dict(conninfo), ""
    except ProgrammingError as error:
        return {}, str(error).replace('"]"', "]").partition('"')[0].strip().rstrip(":")


def _check(url: str, conninfo: str) -> None:
    """Check that libpq understands it."""
    words, complaint = _understood(conninfo)
    if complaint:
        raise DriverURLError(f"{redacted(url)!r}: {complaint}; {_ENCODE}; {_USAGE}")
    port = str(words.get("port", ""))
    if not _PORTS.fullmatch(port) or any(int(each or 1) not in range(1, 65536) for each in port.split(",")):
        raise DriverURLError(
            f"{redacted(url)!r}: expected a port from 1 to 65535 after the host; {_ENCODE}; {_USAGE}"
        )
    for name in _COUNTS:
        if not re.fullmatch(r"-?[0-9]+", str(words.get(name, "0"))):
            raise DriverURLError(f"{redacted(url)!r}: {name}={words[name]!r}: expected a whole number")
