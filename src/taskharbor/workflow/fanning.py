"""The same for every element of a list that is known only when the flow runs: `each`."""

from __future__ import annotations

from typing import Generic, cast

from typing_extensions import TypeVar, override

from taskharbor.call import Each, Flow, Link, Placeholder, Step, apply, shown, title
from taskharbor.errors import FlowError

A = TypeVar("A")
B = TypeVar("B")


def each(link: Step[A, B], /) -> Link[list[A], list[B]]:
    """Return a link from a list to the list of what `link` makes of each element, in order.

    The elements' steps are made when the list is there, and run side by side. An empty list makes an empty list.

        chain(urls.s(site), each(fetch), each(chain(parse, store)), report)
        each(fetch).s(["https://a", "https://b"]).enqueue()

    Args:
        link: a task, or a chain of tasks, whose first parameter takes an element and whose others have defaults; or a
            function from an element to a signature. The function runs once, now, with a placeholder for any element.
            Give it a name and types: type checkers infer nothing from a lambda here.

    Raises:
        FlowError: it is nothing of the kind, or it used the placeholder as if it were the value.
    """
    return _ForEach(link)


class _ForEach(Generic[A, B]):
    """The link that `each` makes."""

    __slots__ = ("_body", "_element")

    def __init__(self, link: Step[A, B]) -> None:
        self._element = Placeholder("an element of a list")
        self._body = apply(link, self._element)

    @override
    def __repr__(self) -> str:
        return f"each({title(self._body)})"

    def s(self, value: list[A], /) -> Flow[list[B]]:
        """Return the flow over a list, or over what stands for one.

        Raises:
            FlowError: it is neither.
        """
        return Flow(Each(self._items(value), self._element, self._body))

    def _items(self, value: object) -> object:
        if isinstance(value, Placeholder):
            return value
        if not isinstance(value, list):
            raise FlowError(f"{self!r} takes a list, and got {shown(value)}")
        items = list(cast("list[object]", value))
        if any(isinstance(element, Placeholder) for element in items):
            raise FlowError(
                f"{self!r} takes a list, or one result that will be a list; it got a list with results in it that are "
                "not there yet: join those with group()"
            )
        return items
