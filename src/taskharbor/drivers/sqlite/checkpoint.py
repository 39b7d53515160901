"""Folding the log back into the file, while nobody can write.

SQLite would do so by itself at every thousandth page or so, in whichever process has just committed, while others
write on. In all versions before 3.51.3 that has a race, rare, that damages the file: one connection ends a checkpoint,
another begins the next, and a third commits meanwhile and so begins the log anew
(https://www.sqlite.org/wal.html#walresetbug). Workers beside workers is what it takes. So our connections leave the log
alone, and after some megabytes one of them takes the lock of writers, and has a second connection fold what is there.
Readers are never waited for.
"""

from __future__ import annotations

import logging
import os
import sqlite3

from taskharbor.drivers.sqlite.connection import close, open_watch
from taskharbor.drivers.sqlite.place import Place

logger = logging.getLogger("taskharbor.sqlite")

_DUE_BYTES = 16 << 20
_OVERDUE_BYTES = 64 << 20
"""As large the log may stay (`journal_size_limit`), however the bytes were counted."""
_BYTES_A_COMMIT = 24 << 10
_BYTES_A_ROW = 512
"""About what a commit writes at the least, and for each row it changes. Measured; only the order of size matters."""


class Checkpoints:
    """When this connection's share of the log is due to be folded. Each counts what it has written itself."""

    def __init__(self, place: Place) -> None:
        """Begin with nothing due."""
        self._place = place
        self._written = 0

    def note(self, rows: int) -> None:
        """Count a commit that changed so many rows."""
        self._written += max(_BYTES_A_COMMIT, rows * _BYTES_A_ROW)

    def hurry(self) -> None:
        """Have it due at once: there is no room left, and the log may be what takes it."""
        self._written = _DUE_BYTES

    def due(self) -> bool:
        """Return whether to fold the log now. Asked once a commit."""
        return self._written >= _DUE_BYTES or (self._written > 0 and self._log_bytes() >= _OVERDUE_BYTES)

    def fold(self) -> None:
        """Fold the log as far as readers allow. The caller holds the lock of writers. What fails is left for later."""
        self._written = 0
        try:
            connection = open_watch(self._place)
        except sqlite3.Error as error:
            logger.warning("the log of %s cannot be folded back now: %s", self._place.path, error)
            return
        try:
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            logger.warning("the log of %s cannot be folded back now: %s", self._place.path, error)
        finally:
            close(connection)

    def _log_bytes(self) -> int:
        try:
            return os.stat(self._place.path + "-wal").st_size
        except OSError:
            return 0
