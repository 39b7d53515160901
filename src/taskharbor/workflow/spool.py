"""The steps of a flow on their way to the store: few in memory, many in a file without a name.

So a producer's memory stays flat however large the flow is, and a store can read the steps as often as it has to.
"""

from __future__ import annotations

import tempfile
import threading
import weakref
from collections.abc import Iterator
from typing import IO

import msgspec

from taskharbor.job import NewJob

_HELD = 2_000
"""Steps that are held in memory."""
_READ = 1 << 20

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(NewJob).decode


class Spool:
    """Jobs that were put in once, and can be read many times, by one reader after the other."""

    def __init__(self) -> None:
        self._held: list[NewJob] = []
        self._file: IO[bytes] | None = None
        self._size = 0
        self._count = 0
        self._lock = threading.Lock()

    def add(self, job: NewJob) -> None:
        """Put a job in."""
        self._count += 1
        self._held.append(job)
        if len(self._held) >= _HELD:
            self._put_down()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[NewJob]:
        """Yield the jobs in order."""
        if self._file is not None:
            yield from self._read(self._file)
        yield from self._held

    def _put_down(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="taskharbor-")  # noqa: SIM115 - open as long as we are
            weakref.finalize(self, self._file.close)
        for job in self._held:
            data = _encode(job)
            self._size += self._file.write(len(data).to_bytes(4) + data)
        self._file.flush()
        self._held.clear()

    def _read(self, file: IO[bytes]) -> Iterator[NewJob]:
        # By place, since readers share the file's own position. (Not every system has `os.pread`.)
        place, rest = 0, b""
        while place < self._size:
            with self._lock:
                file.seek(place)
                data = rest + file.read(_READ)
            place += len(data) - len(rest)
            begin = 0
            while (body := begin + 4) <= len(data):
                end = body + int.from_bytes(data[begin:body])
                if end > len(data):
                    break
                yield _decode(data[body:end])
                begin = end
            rest = data[begin:]
