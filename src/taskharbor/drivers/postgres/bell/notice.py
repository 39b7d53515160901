"""What a NOTIFY says: which queues and which jobs changed, and who tells it.

A payload is a JSON array in ASCII, so that it passes through databases of any encoding: sender, queues, jobs. A later
release may add to its end.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec

ANYBODY = "using"
"""Who rings for a caller's transaction: no bell in particular, so every one hears it, the one in this process, too."""
_LONGEST = 7900
"""Bytes. PostgreSQL refuses 8000."""


class Notice(msgspec.Struct, array_like=True, frozen=True):
    """What changed; None in place of names stands for any."""

    sender: str
    """Of one `Bell` in one process: it has woken its own already."""
    queues: list[str] | None
    jobs: list[str] | None


_decoder = msgspec.json.Decoder(Notice)


def read(payload: bytes) -> Notice | None:
    """Return what a payload says, or None if it is none of ours, or of a release that says it otherwise."""
    try:
        return _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def payloads(sender: str, queues: Sequence[str], jobs: Sequence[str]) -> list[str]:
    """Return what to send: one payload, or several where the names do not fit into one."""
    text = _written(sender, queues, jobs)
    if len(text) <= _LONGEST:
        return [text]
    if queues and jobs:
        return payloads(sender, queues, ()) + payloads(sender, (), jobs)
    names = queues or jobs
    if len(names) == 1:  # a name that fits nowhere
        return [for_everybody(sender)]
    half = len(names) // 2
    if queues:
        return payloads(sender, queues[:half], ()) + payloads(sender, queues[half:], ())
    return payloads(sender, (), jobs[:half]) + payloads(sender, (), jobs[half:])


def for_everybody(sender: str) -> str:
    """Return the payload that concerns all."""
    return _written(sender, None, None)


def _written(sender: str, queues: Sequence[str] | None, jobs: Sequence[str] | None) -> str:
    return json.dumps((sender, queues, jobs), separators=(",", ":"))
