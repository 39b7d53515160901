"""Finding the driver for a URL, and saying what to do when there is none.

An entry point of the group `taskharbor.drivers` is named by its URL scheme and is a function from the whole URL to a
driver; `docs/driver-contract.md` shows one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import reduce
from importlib import import_module
from typing import TYPE_CHECKING, cast

from taskharbor.driver import Driver
from taskharbor.drivers.memory import MemoryDriver
from taskharbor.errors import DeploymentError, DriverURLError, MissingExtraError, nearest, redacted

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINTS = "taskharbor.drivers"

OpenDriver = Callable[[str], Driver]


def _open_memory(url: str) -> Driver:
    rest = url.partition("://")[2]
    if rest.strip("/"):
        raise DriverURLError(
            f"the URL {redacted(url)!r}: memory:// takes nothing after it, since each harbor has its own store"
        )
    return MemoryDriver()


def _open_sqlite(url: str) -> Driver:
    try:
        from taskharbor.drivers.sqlite import open_driver as open_sqlite
    except (
        ModuleNotFoundError
    ) as error:  # some distributions split it off; some builds of Python come without
        raise MissingExtraError(
            f"sqlite:// needs Python's own sqlite3 module, which this Python lacks ({error}); install it (Alpine: "
            "apk add python3 py3-sqlite; a Python you built yourself: with libsqlite3-dev there)",
            extra="sqlite",
        ) from error
    return open_sqlite(url)


def _open_postgres(url: str) -> Driver:
    try:
        from taskharbor.drivers.postgres import open_driver as open_postgres
    except ImportError as error:  # psycopg raises its own where its binary part does not load
        raise MissingExtraError(
            f"postgresql:// needs psycopg, which cannot be imported here ({error}); install it: "
            "pip install 'taskharbor[postgres]'",
            extra="postgres",
        ) from error
    return open_postgres(url)


_LATER = frozenset({"redis", "rediss"})
_OWN: dict[str, OpenDriver] = {
    "memory": _open_memory,
    "sqlite": _open_sqlite,
    "postgresql": _open_postgres,
    "postgres": _open_postgres,
    "postgresql+embedded": _open_postgres,
}


def available_drivers() -> dict[str, str]:
    """Return the URL schemes that can be opened, each with where its driver comes from."""
    found = {point.name: point.value for point in _announced()}
    return dict(sorted({**found, **dict.fromkeys(_OWN, "taskharbor")}.items()))


def open_driver(url: str | Driver) -> Driver:
    """Return the driver itself, or the one for a URL.

    Raises:
        DriverURLError: it is neither, or no driver answers to its scheme.
        MissingExtraError: the driver is there but a package it needs is not.
    """
    if isinstance(url, str):
        return driver_for(url)
    if not callable(getattr(url, "connect", None)):
        raise DriverURLError(f"Harbor({url!r}): expected a driver's URL such as 'memory://', or a driver")
    return url


def driver_for(url: str) -> Driver:
    """Return a driver for a URL such as `memory://`.

    Raises:
        DriverURLError: it is no URL, or no driver answers to its scheme.
        MissingExtraError: the driver is there but a package it needs is not.
    """
    scheme, separator, _ = url.partition("://")
    scheme = scheme.lower() if separator else ""
    if not scheme:
        raise DriverURLError(
            f"{redacted(url)!r} is not a driver URL; expected SCHEME://..., such as memory:// (known here: {_known()})"
        )
    own = _OWN.get(scheme)
    if own is not None:
        return own(url)
    for point in _announced():
        if point.name == scheme:
            return _load(point)(url)
    if scheme in _LATER:
        raise DriverURLError(f"{scheme}:// has no driver in this release yet (known here: {_known()})")
    raise DriverURLError(
        f"no driver answers to {scheme}:// (known here: {_known()}){nearest(scheme, list(available_drivers()))}; "
        f"a package brings one by an entry point of the group {ENTRY_POINTS!r}"
    )


def _announced() -> Iterable[EntryPoint]:
    from importlib import metadata  # slow to import, and only needed for other people's drivers

    return metadata.entry_points(group=ENTRY_POINTS)


def _load(point: EntryPoint) -> OpenDriver:
    try:
        module = import_module(point.module)
    except ModuleNotFoundError as error:
        package = point.dist.name if point.dist is not None else "its package"
        raise MissingExtraError(
            f"the driver for {point.name}:// comes with {package}, which needs the module {error.name!r} that is not "
            f"installed; see which extra of {package} brings it, as in pip install '{package}[{point.name}]'",
            extra=point.name,
        ) from error
    try:
        return cast("OpenDriver", reduce(getattr, point.attr.split("."), cast("object", module)))
    except AttributeError as error:
        raise DeploymentError(
            f"the driver for {point.name}:// is announced as {point.value!r}, and there is no such thing in it; "
            "the package that announces it is broken, or another version than its metadata say"
        ) from error


def _known() -> str:
    return ", ".join(f"{scheme}://" for scheme in available_drivers())
