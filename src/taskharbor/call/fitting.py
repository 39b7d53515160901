"""Whether a link can be called with the results before it, and how messages tell of both."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from taskharbor.call.graph import Placeholder, result_of
from taskharbor.errors import FlowError

_SHOWN = 80


def shown(thing: object) -> str:
    """Return how a message shows what was given by mistake: enough to know it again, since it may be data."""
    told = repr(thing)
    return told if len(told) <= _SHOWN else f"{told[: _SHOWN - 3]}..."


def title_of(places: tuple[Placeholder, ...]) -> str:
    """Return what placeholders stand for."""
    return " and ".join(result_of(place) for place in places)


def check_parameters(link: object, take: Callable[..., object], places: tuple[Placeholder, ...]) -> None:
    """Refuse a function of other parameters, before it runs: what it raises itself is its own.

    Raises:
        FlowError: it cannot be called with that many results, by position.
    """
    try:
        parameters = inspect.signature(take)
    except (TypeError, ValueError):  # written in C, say: it will tell
        return
    try:
        parameters.bind(*places)
    except TypeError as error:
        raise FlowError(
            f"{link!r} cannot follow {title_of(places)}: it is called with {len(places)} "
            f"result{'s' if len(places) > 1 else ''}, by position: {error}"
        ) from error
