"""The cursors of a feed whose events are numbered in the order they were appended in: for drivers that have it so."""

from __future__ import annotations

import re

import msgspec

from taskharbor.errors import OptionError

_LARGEST = (1 << 63) - 1
_CURSOR = re.compile(r"(?P<driver>[a-z]+):(?P<feed>[0-9a-f]{1,16}):(?P<number>[0-9]{1,19})")


class FeedCursor(msgspec.Struct, frozen=True):
    """A place between two events. Its text is what readers hold, and none of their business."""

    driver: str
    feed: int
    """Drawn at random when the store was made: what another store numbered, or this one before it was made anew, means
    nothing here."""
    number: int
    """Of the last event before it; 0 is the beginning."""

    def text(self) -> str:
        """Return what a reader is given."""
        return f"{self.driver}:{self.feed:x}:{self.number}"

    @classmethod
    def read(cls, text: str, driver: str) -> FeedCursor:
        """Return the place that a cursor of this driver names.

        Raises:
            OptionError: it is none.
        """
        found = _CURSOR.fullmatch(text)
        if found is not None and found["driver"] == driver and int(found["number"]) <= _LARGEST:
            return cls(driver, int(found["feed"], 16), int(found["number"]))
        shown = text if len(text) <= 60 else f"{text[:60]}..."
        raise OptionError(
            f"{shown!r} is no cursor of a feed of the driver {driver!r}; pass one that this feed gave "
            "(`event_watch` and each page that is read do), or '' for the oldest event that is kept"
        )
