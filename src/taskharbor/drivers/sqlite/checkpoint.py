"""Folding the log back into the file, while nobody can write.

SQLite would do so by itself at every thousandth page or so, in whichever process has just committed, while others
write on. In all versions before 3.51.3 that has a race, rare, that damages the file: one connection ends a checkpoint,
another begins the next, and a third commits meanwhile and so begins the log anew
(https://www.sqlite.org/wal.html#walresetbug). Workers beside workers is what it takes. So our connections leave the log
alone, and after some megabytes one of them folds it, twice over:

1. While it reads, by a second connection. A reader keeps everybody from beginning the log anew; writers write on.
2. While it holds the lock of writers: what was committed meanwhile, which is little. Now all is folded, and the next
   commit begins the log anew.

So the race never has its third party. Other readers are never waited for: what they still read stays in the log.
"""

from __future__ import annotations

import os

from taskharbor.drivers.sqlite.connection import close, open_watch
from taskharbor.drivers.sqlite.place import Place

_DUE_BYTES = 16 << 20
_LARGE_BYTES = 64 << 20
"""As large the log's file stays once it was (`journal_size_limit`): beyond that, more is in use than was counted."""
_LARGE_DUE_BYTES = 4 << 20
"""Due after so much while it is large. A long reader may keep it so, and then trying is in vain."""
_BYTES_A_COMMIT = 24 << 10
_BYTES_A_ROW = 512
"""About what a commit writes at the least, and for each row it changes. Measured; only the order of size matters."""


class Checkpoints:
    """When this connection's share of the log is due to be folded. Each counts what it has written itself."""

    def __init__(self, place: Place) -> None:
        """Begin with nothing due."""
        self._place = place
        self._written = 0
        self._size = 0

    def note(self, rows: int) -> None:
        """Count a commit that changed so many rows."""
        size = self._log_bytes()
        # By its growth, which tells of large payloads; where it only writes over what was there, by the rows.
        self._written += max(size - self._size, rows * _BYTES_A_ROW, _BYTES_A_COMMIT)
        self._size = size

    def hurry(self) -> None:
        """Have it due at once: there is no room left, and the log may be what takes it."""
        self._written = _DUE_BYTES

    def due(self) -> bool:
        """Return whether to fold the log now. Asked once a commit."""
        return self._written >= _DUE_BYTES or (
            self._written >= _LARGE_DUE_BYTES and self._size > _LARGE_BYTES
        )

    def begin(self) -> None:
        """Count anew: the log is being folded."""
        self._written = 0

    def fold(self) -> None:
        """Fold the log as far as readers allow. Called inside a transaction of the caller's, reading or writing.

        Raises:
            sqlite3.Error: it cannot be done now.
        """
        connection = open_watch(self._place)
        try:
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        finally:
            close(connection)

    def _log_bytes(self) -> int:
        try:
            return os.stat(self._place.path + "-wal").st_size
        except OSError:
            return 0
