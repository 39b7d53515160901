"""PostgreSQL servers for tests: one that the environment names, or real ones that the suite starts and stops itself.

Never what happens to listen somewhere. What the suite starts lives in one temporary folder; a process of its own stops
it all and removes the folder when this one has ended, however it ended.
"""

from __future__ import annotations

import atexit
import functools
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from taskharbor.drivers.postgres.embedded import Server, find_binaries
from taskharbor.drivers.postgres.embedded.account import account_for
from taskharbor.drivers.postgres.embedded.binaries import usable_binaries
from taskharbor.errors import MissingExtraError
from tests.fixtures.support import SOURCES

VARIABLE = "TASKHARBOR_TEST_POSTGRES"
"""Holds what to connect to, as a URL; its server is never stopped, and nothing is made there but schemas of our own."""

PG15: Path | None = next((path for path in [Path("/usr/lib/postgresql/15/bin")] if path.is_dir()), None)
"""The programs of PostgreSQL 15, where Debian has put them."""

_LAX = {"fsync": "off", "max_connections": "200"}

# Reads the end of the file when the session has ended, whatever of, and then leaves nothing.
_UNDERTAKER = """
import pathlib, shutil, sys
from taskharbor.drivers.postgres.embedded import Server
folder = pathlib.Path(sys.argv[1])
sys.stdin.read()
for place in folder.glob("*/lock"):
    Server(place.parent).kill()
shutil.rmtree(folder, ignore_errors=True)
"""


class SessionServer(msgspec.Struct, frozen=True):
    """The server that the tests of a session share. Each test keeps to a schema of its own."""

    conninfo: str
    """A URL."""
    own: Server | None
    """None if the environment names it: nothing may be done to it then but with its tables."""


def new_schema_name() -> str:
    """Return a name that no other test has for its schema."""
    return f"test_{secrets.token_hex(6)}"


def missing(reason: str) -> None:
    """Skip the test or the module; fail where a CI runs it, which must not go green without a server."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason, allow_module_level=True)


def server(binaries: Path | None = None) -> SessionServer:
    """Return the session's server, started when it is first asked for.

    Args:
        binaries: of another PostgreSQL, such as `PG15`; by default the server is the one that the environment names,
            else the package's.
    """
    return _server(binaries)  # for the cache `server()` and `server(None)` would be two


@functools.cache
def _server(binaries: Path | None) -> SessionServer:
    named = os.environ.get(VARIABLE, "")
    if named and binaries is None:
        return SessionServer(named, None)
    started = _new(binaries, _LAX)
    return SessionServer(started.start(), started)


@contextmanager
def make_server(
    *, binaries: Path | None = None, fsync: bool = False, start: bool = True, **settings: str
) -> Generator[Server]:
    """Make a server for one test, which may stop, restart and kill it.

    Args:
        binaries: of another PostgreSQL, such as `PG15`.
        fsync: on for tests that cut the power; a killed process loses nothing without it.
        start: whether it is started already.
        settings: of PostgreSQL; `listen_addresses="127.0.0.1"` opens a free port, see `tcp_conninfo`.
    """
    made = _new(binaries, {**_LAX, "fsync": "on" if fsync else "off", **settings})
    try:
        if start:
            made.start()
        yield made
    finally:
        made.kill()
        made.stop()
        shutil.rmtree(made.folder, ignore_errors=True)


def new_folder() -> Path:
    """Return a path for a server's folder, where the server's user may get to; removed when the session ends."""
    return _home() / f"server-{secrets.token_hex(4)}"


@functools.cache
def package_binaries() -> Path:
    """Return the package's programs, or a copy of them that the server's user may read."""
    try:
        find_binaries()
    except MissingExtraError as error:
        missing(f"no PostgreSQL for the tests: set {VARIABLE}, or: {error}")
    return usable_binaries(None, account_for(), keep_in=_home())


def _new(binaries: Path | None, settings: dict[str, str]) -> Server:
    return Server(new_folder(), binaries=binaries or package_binaries(), settings=settings)


@functools.cache
def _home() -> Path:
    """Return the session's temporary folder, made with the process that will remove it."""
    # Short, and in /tmp: sockets have short names, and others than us may enter it.
    folder = Path(tempfile.mkdtemp(prefix="taskharbor-test-", dir="/tmp"))
    folder.chmod(0o711)
    undertaker = subprocess.Popen(
        [sys.executable, "-c", _UNDERTAKER, str(folder)],
        stdin=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
        cwd="/",
        start_new_session=True,  # Ctrl-C is for the tests; their end is what it waits for
    )

    @atexit.register
    def end() -> None:
        assert undertaker.stdin is not None
        undertaker.stdin.close()
        undertaker.wait()

    return folder
