"""What reserves know of the store beside its jobs, and ask again only where it has changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from taskharbor.driver import JobReserve
from taskharbor.driver.limiting import Rules
from taskharbor.drivers.postgres.routine import Routine
from taskharbor.drivers.postgres.rules import read_rules
from taskharbor.drivers.postgres.stray import Stray, strays


class Knowledge(NamedTuple):
    """Which kinds of strays there are, and which limits and holds are in force."""

    strays: Mapping[int, Stray] = {}
    revision: int = 0
    rules: Rules = Rules({}, {})

    @property
    def kinds(self) -> str:
        """Return the kinds of strays, as the server writes them."""
        return ",".join(map(str, sorted(self.strays)))

    @property
    def words(self) -> str:
        """Return what the server is asked to compare."""
        return f"{self.kinds};{self.revision}"

    def open_to(self, request: JobReserve) -> list[int]:
        """Return the kinds that a worker may take, plain jobs among them."""
        return [0, *(s.number for s in self.strays.values() if s.open_to(request.tasks, request.build))]


def read_knowledge() -> Routine[Knowledge]:
    """Ask for all of it."""
    known = yield from read_rules()
    return Knowledge((yield from strays()), known.revision, known.rules)
