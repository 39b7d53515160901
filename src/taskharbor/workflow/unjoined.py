"""Calls side by side that nothing joins yet: what `gather` makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from taskharbor.call import Node, Placeholder, Then, apply, title
from taskharbor.errors import FlowError


class Unjoined:
    """Calls side by side, to be joined by `then`."""

    __slots__ = ("_before",)

    def __init__(self, before: tuple[Node, ...]) -> None:
        """Made by `gather`."""
        self._before = before

    @override
    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {', '.join(map(title, self._before))}>"

    if not TYPE_CHECKING:  # a type checker knows already that there are no such methods

        def __getattr__(self, name: str) -> object:
            if name in {"enqueue", "aenqueue", "s"}:
                raise FlowError(
                    f"{self!r} is no flow yet; finish it with .then(...), which says what takes the results"
                )
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self
            )

    def _joined(self, link: object) -> Node:
        places = tuple(Placeholder(title(node)) for node in self._before)
        return Then(self._before, places, apply(link, *places))
