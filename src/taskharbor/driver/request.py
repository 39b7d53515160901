"""What every request has in common.

One request struct per verb lets the contract grow without breaking a driver: a new field has a default that asks for
what was done before.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from taskharbor.audit import Act


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Base of every request."""

    now: datetime | None = None
    """The instant to take for the present. None means the store's own clock; only tests pass one (rule 18)."""
    act: Act | None = None
    """Whose act it is, where a person asked for it: written into the audit trail in the same step (rule 26), with how
    many things the request named, and how many it changed (`taskharbor.driver.auditing.counted`)."""
