"""What a verb's routine works with."""

from __future__ import annotations

from typing import NamedTuple

from taskharbor.drivers.postgres.routine import Wakes
from taskharbor.drivers.postgres.rows import OptionsBook
from taskharbor.drivers.postgres.slots import Slots


class Step(NamedTuple):
    """What a verb's routine works with."""

    now: str | None
    """The present for this verb, where a test gives one; None means the server's clock."""
    book: OptionsBook
    slots: Slots
    wakes: Wakes
    repeated: bool = False
    """It was asked before, and what became of that is unknown."""
    joined: bool = False
    """It is part of a caller's transaction: what it locks stays locked for as long as that may last."""
