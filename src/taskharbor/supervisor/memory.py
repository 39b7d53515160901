"""How much memory this process holds, for recycling it in time."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from taskharbor.errors import UnsupportedError

_STATM = Path("/proc/self/statm")


def resident_bytes() -> int:
    """Return the bytes of memory that this process holds now; where /proc does not tell, the most it has ever held.

    Raises:
        UnsupportedError: on Windows.
    """
    if sys.platform == "win32":
        raise UnsupportedError(
            "max_memory: Windows does not say how much memory a process holds; use max_jobs"
        )
    try:
        # Pages: total, resident, shared, ... (proc(5)).
        return int(_STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return (
            peak if sys.platform == "darwin" else peak * 1024
        )  # getrusage(2): bytes there, kilobytes elsewhere
