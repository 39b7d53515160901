"""A way to a server that loses connections where a test says: before a statement, on its way, or with its answer.

It carries bytes between sockets in the file system, so that nothing but what the statement says is looked at. Drivers
on it must not prepare statements: then each one is sent with its text.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from enum import Enum, auto
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import parse_qs, urlsplit

from psycopg.conninfo import conninfo_to_dict

_READY = b"Z\x00\x00\x00\x05"
"""Begins the message by which the server says that a statement is done with; a letter follows."""

_SYNC = b"S\x00\x00\x00\x04"
"""Ends what is sent for a statement with parameters."""


class Cut(Enum):
    """Where a connection is lost."""

    BEFORE = auto()
    """The server never hears the statement."""
    ON_THE_WAY = auto()
    """It hears it, and carries it out while nobody listens any more."""
    ANSWER = auto()
    """It has carried it out, and the answer is lost."""


class Proxy:
    """Listens in a directory of its own, as a PostgreSQL server would."""

    def __init__(self, conninfo: str, folder: Path) -> None:
        words = conninfo_to_dict(conninfo)
        port = words["port"]
        self._server = f"{words['host']}/.s.PGSQL.{port}"
        parts = urlsplit(conninfo)
        assert parse_qs(parts.query).keys() == {"host", "port"}
        self.conninfo = f"{parts.scheme}://{parts.netloc}{parts.path}?host={folder}&port={port}"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{folder}/.s.PGSQL.{port}")
        self._listener.listen()
        self._lock = threading.Lock()
        self._words: bytes = b""
        self._cut = Cut.ANSWER
        self._times = 0
        self.cuts = 0
        """How many connections it has lost on purpose."""
        threading.Thread(target=self._accept, daemon=True).start()

    def lose(self, words: str, cut: Cut, *, times: int = 1) -> None:
        """Lose the connections of the next statements in which these words are."""
        with self._lock:
            self._words, self._cut, self._times = words.encode(), cut, times

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # or the thread that accepts would wait for ever
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(self._server)
            except OSError:
                client.close()
                continue
            carrier = _Carrier(self, client, server)
            for work in (carrier.carry_questions, carrier.carry_answers):
                threading.Thread(target=work, daemon=True).start()

    def meets(self, data: bytes) -> Cut | None:
        """Return what becomes of the connection that says this."""
        with self._lock:
            if not self._times or self._words not in data:
                return None
            self._times -= 1
            self.cuts += 1
            return self._cut


class _Carrier:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._answer_is_lost = False

    def carry_questions(self) -> None:
        def carry(data: bytes) -> bool:
            cut = self._proxy.meets(data)
            if cut is Cut.ANSWER:
                self._answer_is_lost = True
            if cut is not Cut.BEFORE:
                self._server.sendall(data)
            if cut is Cut.ON_THE_WAY:
                self._carry_the_rest(data)
                _close(self._client)
            return cut in (None, Cut.ANSWER)

        self._carry(self._client, carry)

    def _carry_the_rest(self, data: bytes) -> None:
        """Carry a statement to its end: one of several kilobytes comes in parts."""
        while not (data.endswith(_SYNC) or _is_whole_query(data)):
            more = self._client.recv(1 << 16)
            if not more:
                return
            self._server.sendall(more)
            data += more

    def carry_answers(self) -> None:
        lost = b""

        def carry(data: bytes) -> bool:
            nonlocal lost
            if not self._answer_is_lost:
                self._client.sendall(data)
                return True
            lost += data
            return _READY not in lost

        self._carry(self._server, carry)

    def _carry(self, source: socket.socket, carry: Callable[[bytes], bool]) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if not carry(data):
                    break
        _close(self._client)
        _close(self._server)


def _is_whole_query(data: bytes) -> bool:
    """Return whether these are whole statements without parameters."""
    while data[:1] == b"Q" and len(data) >= 5:
        data = data[1 + int.from_bytes(data[1:5]) :] if len(data) > int.from_bytes(data[1:5]) else b"?"
    return not data


def _close(end: socket.socket) -> None:
    # Not closed alone: the other thread may wait on it.
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


@contextmanager
def proxy_to(conninfo: str) -> Generator[Proxy]:
    """Return a way to a server."""
    # Sockets have short names.
    with TemporaryDirectory(prefix="th-proxy-", dir="/tmp") as folder:
        made = Proxy(conninfo, Path(folder))
        yield made
        made.close()
