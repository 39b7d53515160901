"""The right of way for heartbeats: whoever keeps leases writes before others who wait for the file's lock.

SQLite's lock has no line before it; each release is a lottery. With a dozen writers and long transactions a heartbeat
could lose it until its leases had expired. So while one waits, it holds a shared lock on the file's directory; others
look for that before they begin, by trying for an exclusive one. The kernel drops locks with their process. One that is
stopped in the middle holds others up for a moment only: after that the sign is not heeded for a while.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time

_PATIENCE_SECONDS = 0.5
"""How long others wait: longer than a heartbeat takes, shorter than anybody should notice."""
_UNHEEDED_SECONDS = 10.0


class Courtesy:
    """One connection's part."""

    def __init__(self, path: str) -> None:
        """Prepare it for a file; without a word where directories cannot be locked."""
        self._folder: int | None = None
        self._waits_since: float | None = None
        self._heeds_from = 0.0
        if sys.platform != "win32":
            with contextlib.suppress(OSError):
                self._folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_CLOEXEC)

    def claim(self) -> None:
        """Be let through from now on. Asked again before each try: somebody may just have been looking."""
        self._lock(shared=True)

    def waive(self) -> None:
        """Be let through no more."""
        self._unlock()

    def somebody_first(self) -> bool:
        """Return whether to let somebody else begin before."""
        now = time.monotonic()
        if self._folder is None or now < self._heeds_from:
            return False
        if self._lock(shared=False):
            self._unlock()
            self._waits_since = None
            return False
        if self._waits_since is None:
            self._waits_since = now
        if now - self._waits_since > _PATIENCE_SECONDS:  # whoever it is does not get on
            self._waits_since = None
            self._heeds_from = now + _UNHEEDED_SECONDS
            return False
        return True

    def close(self) -> None:
        """Let go of the directory."""
        folder, self._folder = self._folder, None
        if folder is not None:
            os.close(folder)

    def _lock(self, *, shared: bool) -> bool:
        if self._folder is not None:
            try:
                _flock(self._folder, shared=shared)
            except OSError:
                return False
        return True

    def _unlock(self) -> None:
        if self._folder is not None:
            with contextlib.suppress(OSError):
                _flock(self._folder, shared=None)


def _flock(folder: int, *, shared: bool | None) -> None:
    """Lock a directory, or unlock it (None); raise `OSError` at once if somebody holds another lock on it."""
    if sys.platform != "win32":
        import fcntl

        how = fcntl.LOCK_UN if shared is None else fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(folder, how | fcntl.LOCK_NB)
