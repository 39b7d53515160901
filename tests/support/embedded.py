"""Folders with an embedded PostgreSQL, and other processes that use it. POSIX."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg

from taskharbor.drivers.postgres.embedded import Server
from tests.fixtures.support import SOURCES
from tests.support.postgres import new_folder, package_binaries
from tests.support.work import ENOUGH

QUICK = {"fsync": "off"}


def ask(conninfo: str, question: str) -> object:
    """Return the one value that a statement brings."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        row = connection.execute(question.encode()).fetchone()
    assert row is not None
    return row[0]


def do(conninfo: str, *statements: str) -> None:
    """Run statements, each committed."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def server_in(folder: Path, **settings: str) -> Server:
    """Return the server of a folder, as one of its users."""
    return Server(folder, binaries=package_binaries(), settings={**QUICK, **settings})


@contextmanager
def cleaned(*folders: Path) -> Generator[None]:
    """Leave no server and no files behind."""
    try:
        yield
    finally:
        for folder in folders:
            server_in(folder).kill()
            shutil.rmtree(folder, ignore_errors=True)


@functools.cache
def template() -> Path:
    """Return a stopped server's folder: a copy of it spares a test the making."""
    folder = new_folder()
    server = server_in(folder)
    server.start()
    server.stop()
    return folder


@contextmanager
def made(folder: Path | None = None) -> Generator[Path]:
    """Make a folder with a cluster in it; nobody uses it yet."""
    folder = folder or new_folder()
    with cleaned(folder):
        subprocess.run(["cp", "-a", template(), folder], check=True)
        yield folder


USER = """
import os, sys
from pathlib import Path
from taskharbor.drivers.postgres.embedded import Server
import taskharbor.errors
folder, binaries, uid = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
if uid >= 0:
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
server = Server(folder, binaries=binaries, settings={"fsync": "off"})

def hear():
    assert sys.stdin.readline(), "the test has ended"

def say(*words):
    print(*words, flush=True)
"""
STAYS = "server.start(); say(server.pid); hear(); server.stop(); say('left'); hear()"


class User:
    """A process that uses a server."""

    def __init__(self, folder: Path, program: str = STAYS, *, uid: int = -1) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", USER + program, folder, package_binaries(), str(uid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(SOURCES)},
            cwd="/",
            start_new_session=True,
        )
        self.pid = self._process.pid

    def hear(self) -> str:
        """Return the next line it says."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line, f"process {self.pid} says nothing more"
        return line

    def say(self) -> None:
        """Have it go on."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        self._process.kill()
        self._process.wait()

    def end(self) -> int:
        """Wait for its end; return its exit code."""
        return self._process.wait(ENOUGH.total_seconds())

    def close(self) -> None:
        """Leave nothing of it."""
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with closing(pipe):
                pass


@contextmanager
def users(folder: Path, number: int = 1, program: str = STAYS) -> Generator[list[User]]:
    """Start processes that use a server at once."""
    started: list[User] = []
    try:
        started.extend(User(folder, program) for _ in range(number))
        yield started
    finally:
        for user in started:
            user.close()


@contextmanager
def user(folder: Path, program: str = STAYS, *, uid: int = -1) -> Generator[User]:
    """Start one process that uses a server."""
    with closing(User(folder, program, uid=uid)) as started:
        yield started
