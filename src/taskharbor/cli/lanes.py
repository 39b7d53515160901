"""A graph as rows of text, a row a node, with lines beside them: which node comes after which.

●    split        Each line that goes down stands in a lane of its own, until it reaches its node. As `git log
├─╮  ·            --graph` draws, upside down.
● │  resize
│ ●  hash
├─╯  ·
○    sheet
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

_GAP = " "
_PLAIN = str.maketrans("●○│─├┬┴┼╮╯", "*o|-+++++/")


class Row(msgspec.Struct, frozen=True):
    """One line of the drawing."""

    lines: str
    node: int | None = None
    """The number of the node whose row this is; None where lines only meet or part."""
    beneath: str = ""
    """The lines for whatever else is written about the node, beneath it."""


def rows(before: Sequence[Sequence[int]], mark: Callable[[int], str]) -> Iterator[Row]:
    """Yield the rows of a graph.

    Args:
        before: for each node the numbers of those before it, which are all less than its own.
        mark: what stands for a node: one character.
    """
    after: list[list[int]] = [[] for _ in before]
    for node, earlier in enumerate(before):
        for one in earlier:
            after[one].append(node)
    lanes: list[int | None] = []
    """Which node the line in each lane goes to."""
    ended: int | None = None
    """The lane of the row above, if it stops there."""
    for node in range(len(before)):
        coming = [lane for lane, target in enumerate(lanes) if target == node]
        if len(coming) > 1:
            yield Row(_joined(lanes, coming, ("├", "┴", "╯")))
        place = coming[0] if coming else _free(lanes, 0)
        if not coming and place == ended:  # or it would seem to follow
            yield Row(_GAP.join(map(_line, lanes)).rstrip())
        ended = None if after[node] else place
        for lane in coming[1:]:
            lanes[lane] = None
        lanes[place] = after[node][0] if after[node] else None
        shown = [_line(target) for target in lanes]
        beneath = _GAP.join(shown).rstrip()
        shown[place] = mark(node)
        yield Row(_GAP.join(shown).rstrip(), node, beneath)
        parting = [place]
        for later in after[node][1:]:
            lane = _free(lanes, parting[-1] + 1)
            lanes[lane] = later
            parting.append(lane)
        if len(parting) > 1:
            yield Row(_joined(lanes, parting, ("├", "┬", "╮")))
        while lanes and lanes[-1] is None:
            lanes.pop()


def in_plain(text: str) -> str:
    """Return lines drawn without characters that old terminals lack."""
    return text.translate(_PLAIN)


def _line(target: int | None) -> str:
    return " " if target is None else "│"


def _free(lanes: list[int | None], begin: int) -> int:
    """Return a free lane, from `begin` on."""
    for lane in range(begin, len(lanes)):
        if lanes[lane] is None:
            return lane
    lanes += [None] * (max(begin, len(lanes)) + 1 - len(lanes))
    return len(lanes) - 1


def _joined(lanes: Sequence[int | None], met: Sequence[int], corners: tuple[str, str, str]) -> str:
    """Return a row in which the lanes `met` are joined; `corners` are those at the first, within, and at the last."""
    first, within, last = corners
    shown = ""
    for lane, target in enumerate(lanes):
        inside = met[0] < lane < met[-1]
        if lane == met[0]:
            shown += first
        elif lane == met[-1]:
            shown += last
        elif lane in met:
            shown += within
        elif inside:
            shown += "─" if target is None else "┼"
        else:
            shown += _line(target)
        shown += "─" if met[0] <= lane < met[-1] else _GAP
    return shown.rstrip()
