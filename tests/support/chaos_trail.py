"""The trail of a chaos test: the file to which each start of a handler appends a line, whatever happens to it next."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tests.support.work import eventually


class Line(msgspec.Struct, frozen=True):
    """One line of the trail."""

    kind: str
    job_id: str
    attempt: int
    fence: int
    pid: int
    at: int
    """Its place in the file, in bytes: what was written later stands further back."""


class Trail:
    """The file to which each handler appends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: list[Line] = []
        self._read = 0
        path.touch()

    def size(self) -> int:
        """Return how many bytes have been written."""
        return self._path.stat().st_size

    def lines(self, kind: str = "start") -> list[Line]:
        """Return what was written so far, in order."""
        with self._path.open("rb") as file:
            file.seek(self._read)
            for raw in file:
                if not raw.endswith(b"\n"):  # it lies across two pages, and the second is being written
                    break
                name, job_id, attempt, fence, pid = raw.decode().split()
                self._lines.append(Line(name, job_id, int(attempt), int(fence), int(pid), self._read))
                self._read += len(raw)
        return [line for line in self._lines if line.kind == kind]

    def forget(self) -> None:
        """Leave out of account what was written so far."""
        self.lines()
        self._lines.clear()

    def pids(self) -> set[int]:
        """Return which processes have written."""
        return {line.pid for line in self.lines()}

    def await_lines(self, count: int, kind: str = "start") -> list[Line]:
        """Wait until there are so many, and return them."""
        eventually(lambda: len(self.lines(kind)) >= count, f"{count} lines {kind!r}")
        return self.lines(kind)
