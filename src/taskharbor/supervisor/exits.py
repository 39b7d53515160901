"""The codes with which a TaskHarbor process ends, for scripts, service managers and the supervisor."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Why a process ended. Part of the public command line: a code keeps its meaning."""

    OK = 0
    """It did what was asked; a worker drained."""
    FAILED = 1
    """An error without a code of its own."""
    USAGE = 2
    """The command line is wrong. Starting it again changes nothing."""
    DEPLOYMENT = 3
    """What runs is not what was meant: a missing package, a wrong URL. Starting it again changes nothing."""
    UNAVAILABLE = 4
    """The store cannot be reached. Try again later."""
    UNFINISHED = 5
    """A worker stopped, and a handler would not end; its job stays leased until another worker reclaims it."""
    STALLED = 75
    """A worker's event loop did not turn for longer than `stall`; its stacks are in the log."""
    RECYCLE = 79
    """A worker drained after `max_jobs` or beyond `max_memory`, and asks to be started afresh."""
    ORDERED = 80
    """A worker was told from afar to end, for good. Only for the supervisor: without one, that is `OK`."""
    INTERRUPTED = 130
    """Ended by Ctrl-C, as shells count it: 128 + SIGINT."""
