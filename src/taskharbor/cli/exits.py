"""With which code an error ends the process. The codes themselves are shared with the supervisor."""

from __future__ import annotations

from taskharbor.errors import DeploymentError, StoreError, TaskHarborError, UsageError
from taskharbor.supervisor.exits import Exit

__all__ = ["MEANINGS", "Exit", "code_of"]

MEANINGS = {
    Exit.OK: "It did what was asked. A worker drained.",
    Exit.FAILED: "Something that was asked could not be done: no such job, a job that is not dead, a key that is "
    "taken, a store that is not up to date (`migrate --check`), ids that nobody reads. What could be done was done. "
    "A `--dry-run` found jobs that could not run, or to which it could not be done; a job that was watched has not "
    "succeeded.",
    Exit.USAGE: "The command line is wrong: an unknown option, a value that cannot be, arguments that do not fit the "
    "task, a question that nobody is there to answer.",
    Exit.DEPLOYMENT: "What runs is not what was meant: the application cannot be imported, a URL that no driver knows, "
    "a missing package, an unknown task, a store that is not there, or cannot be used as it is.",
    Exit.UNAVAILABLE: "The store cannot be reached now. Try again. (A worker waits for it, unless "
    "`--until-idle` was asked for.)",
    Exit.UNFINISHED: "A worker stopped, and a handler would not end. Its job stays leased until another worker "
    "reclaims it.",
    Exit.STALLED: "A worker's event loop was blocked for longer than `--stall`, and the watchdog ended the process.",
    Exit.RECYCLE: "A worker without a supervisor drained after `--max-jobs` or beyond `--max-memory`: start it again.",
    Exit.ORDERED: "A worker was told to end by `workers drain` or `workers stop`; its supervisor starts it no more. "
    "(Without one, that is 0.)",
    Exit.INTERRUPTED: "Ended by Ctrl-C. (A worker drains at the first one instead; `jobs watch` without ids and "
    "`events --follow` end well by it.)",
}
"""What each code means, for the page."""


def code_of(error: TaskHarborError) -> Exit:
    """Return the code for an error, by what the caller can do about it."""
    match error:
        case UsageError():
            return Exit.USAGE
        case DeploymentError():
            return Exit.DEPLOYMENT
        case StoreError():
            return Exit.UNAVAILABLE
        case _:
            return Exit.FAILED
