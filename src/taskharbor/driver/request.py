"""What every request has in common.

One request struct per verb lets the contract grow without breaking a driver: a new field has a default that asks for
what was done before.
"""

from __future__ import annotations

from datetime import datetime

import msgspec


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Base of every request."""

    now: datetime | None = None
    """The instant to take for the present. None means the store's own clock; only tests pass one (rule 18)."""
