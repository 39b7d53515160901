"""Where a running handler stands: the lines it is at, seen from another thread.

Files, lines and names of functions only: no values. What is looked at goes on meanwhile, so a stack may be torn; it is
told as it was read.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TypeAlias

_DEPTH = 12
"""Frames that are told, the innermost."""
_OURS = str(Path(__file__).parent.parent)
_LAYERS = str(Path(_OURS, "worker", "surrounding.py"))
"""What calls a handler within its layers."""

Look: TypeAlias = Callable[[], str]


def here() -> Look:
    """Return what tells, from any thread and at any later time, where the job that called this stands by then."""
    ident = threading.get_ident()
    root = _coroutine()

    def look() -> str:
        # Of a coroutine that runs right now the loop's thread tells more.
        suspended = root is not None and not getattr(root, "cr_running", False)
        return _told(list(_awaited(root) if suspended else _frames_of_thread(ident)))

    return look


def _coroutine() -> object:
    """Return the coroutine of the asyncio task that this runs in; None if it runs in none."""
    if "asyncio" not in sys.modules:  # slow to import, and where nobody has, no task can be running
        return None
    import asyncio

    try:
        task = asyncio.current_task()
    except RuntimeError:
        return None
    return None if task is None else task.get_coro()


def _awaited(root: object) -> Iterator[tuple[FrameType, int]]:
    """Yield the frames of a suspended coroutine, the outermost first: each awaits the next."""
    current: object = root
    while current is not None:
        frame: object = getattr(current, "cr_frame", None) or getattr(current, "gi_frame", None)
        if isinstance(frame, FrameType):
            yield frame, frame.f_lineno
        current = getattr(current, "cr_await", None) or getattr(current, "gi_yieldfrom", None)


def _frames_of_thread(ident: int) -> Iterator[tuple[FrameType, int]]:
    frame = sys._current_frames().get(ident)  # pyright: ignore[reportPrivateUsage]
    yield from reversed(list(traceback.walk_stack(frame)))


def _told(frames: list[tuple[FrameType, int]]) -> str:
    # From the handler's own on: before it come the program, its loop or thread, and our own up to the last layer.
    within = [place for place, (frame, _) in enumerate(frames) if frame.f_code.co_filename == _LAYERS]
    begin = within[-1] if within else 0
    while begin < len(frames) - 1 and _is_ours(frames[begin][0]):
        begin += 1
    shown = frames[begin:][-_DEPTH:]
    return "".join(traceback.StackSummary.extract(iter(shown)).format()) or "  nobody can tell where\n"


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_OURS)
