"""A graph folded for drawing: nodes that are alike become one, so that ten thousand members make one line.

A graph is given by the titles of its nodes, and for each of them the numbers of those before it. Nodes are alike that
have the same title, and come after, and before, nodes that are alike. Rows of nodes with the same title, each with no
neighbours but those in the row, are folded too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeAlias

import msgspec

FEW = 5
"""Up to so many nodes that are alike are drawn one by one."""
_ROUNDS = 50
"""After so many rounds whoever still seems alike is taken to be: neighbours further away than that tell them apart."""

Before: TypeAlias = Sequence[Sequence[int]]
_Colours: TypeAlias = Sequence[int]


class Fold(msgspec.Struct, frozen=True, kw_only=True):
    """A node of the folded graph."""

    members: tuple[int, ...]
    """The nodes that it stands for, each after those it comes after."""
    before: tuple[int, ...]
    """The numbers of the folds before it."""
    row: bool = False
    """Its members come one after the other, not side by side."""


def fold(titles: Sequence[str], before: Before, few: int = FEW) -> Sequence[Fold]:
    """Return a graph with what is alike folded, if it is more than `few`; each after those before it."""
    order = in_order(before)
    colours = _with_few_apart(_first_colours(titles, before, order), before, few)
    members: defaultdict[int, list[int]] = defaultdict(list)
    for node in order:
        members[colours[node]].append(node)
    numbers = {colour: number for number, colour in enumerate(members)}
    links: list[dict[int, None]] = [{} for _ in members]
    for node in order:
        for earlier in before[node]:
            links[numbers[colours[node]]][numbers[colours[earlier]]] = None
    folds = [
        Fold(members=tuple(some), before=tuple(links[number])) for number, some in enumerate(members.values())
    ]
    return _sorted(_with_rows(folds, titles, few))


def unfolded(before: Before) -> Sequence[Fold]:
    """Return a graph as it is, each node after those before it."""
    return _sorted([Fold(members=(node,), before=tuple(earlier)) for node, earlier in enumerate(before)])


def in_order(before: Before) -> Sequence[int]:
    """Return nodes, each after those before it; as far as that allows what follows comes next, else the lesser."""
    left = [len(earlier) for earlier in before]
    after = _after(before)
    ready = [node for node in range(len(before) - 1, -1, -1) if not left[node]]
    order: list[int] = []
    while ready:
        node = ready.pop()
        order.append(node)
        freed: list[int] = []
        for later in after[node]:
            left[later] -= 1
            if not left[later]:
                freed.append(later)
        ready.extend(reversed(freed))
    return order


def _after(before: Before) -> Sequence[Sequence[int]]:
    after: list[list[int]] = [[] for _ in before]
    for node, earlier in enumerate(before):
        for one in earlier:
            after[one].append(node)
    return after


def _first_colours(titles: Sequence[str], before: Before, order: Sequence[int]) -> _Colours:
    """Return colours that tell titles apart, and how far nodes are from the first and the last ones.

    The distance makes the folded graph one without circles, and spares most rounds.
    """
    after = _after(before)
    depth, height = [0] * len(titles), [0] * len(titles)
    for node in order:
        depth[node] = 1 + max((depth[earlier] for earlier in before[node]), default=0)
    for node in reversed(order):
        height[node] = 1 + max((height[later] for later in after[node]), default=0)
    return _numbered(list(zip(titles, depth, height, strict=True)))


def _with_few_apart(colours: _Colours, before: Before, few: int) -> _Colours:
    """Return colours refined until nodes of one colour have neighbours of the same; of a few, each has its own."""
    after = _after(before)
    for _ in range(_ROUNDS):
        told: list[Hashable] = [
            (
                colour,
                frozenset(colours[earlier] for earlier in before[node]),
                frozenset(colours[later] for later in after[node]),
            )
            for node, colour in enumerate(colours)
        ]
        refined = _numbered(told)
        if len(set(refined)) == len(set(colours)):
            refined = _apart(refined, few)
            if len(set(refined)) == len(set(colours)):
                return refined
        colours = refined
    return _apart(colours, few)


def _apart(colours: _Colours, few: int) -> _Colours:
    """Return colours of their own for those whose colour only a few have."""
    counts: defaultdict[int, int] = defaultdict(int)
    for colour in colours:
        counts[colour] += 1
    return _numbered([(colour, node if counts[colour] <= few else -1) for node, colour in enumerate(colours)])


def _numbered(told: Sequence[Hashable]) -> _Colours:
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(one, len(numbers)) for one in told]


def _with_rows(folds: Sequence[Fold], titles: Sequence[str], few: int) -> Sequence[Fold]:
    """Return folds with long rows of the same title made one."""
    after = _after([one.before for one in folds])

    def follows(number: int) -> int | None:
        """Return what alone comes after it, and after nothing else, and is a single node of the same title."""
        if len(after[number]) != 1:
            return None
        (later,) = after[number]
        if len(folds[later].before) != 1 or len(folds[later].members) != 1:
            return None
        return later if titles[folds[later].members[0]] == titles[folds[number].members[0]] else None

    head: dict[int, int] = {}
    rows: dict[int, list[int]] = {}
    followers = {number: follows(number) for number, one in enumerate(folds) if len(one.members) == 1}
    inner = set(followers.values())
    for number in followers:
        if number in inner:
            continue
        row = [number]
        while (later := followers.get(row[-1])) is not None:
            row.append(later)
        if len(row) > few:
            rows[number] = row
            head.update(dict.fromkeys(row, number))
    kept = [number for number in range(len(folds)) if head.get(number, number) == number]
    places = {number: place for place, number in enumerate(kept)}
    return [
        Fold(
            members=tuple(member for one in rows.get(number, [number]) for member in folds[one].members),
            before=_places(folds[number].before, head, places),
            row=number in rows,
        )
        for number in kept
    ]


def _places(numbers: Sequence[int], head: Mapping[int, int], places: Mapping[int, int]) -> tuple[int, ...]:
    return tuple(places[head.get(number, number)] for number in numbers)


def _sorted(folds: Sequence[Fold]) -> Sequence[Fold]:
    order = in_order([one.before for one in folds])
    places = {number: place for place, number in enumerate(order)}
    return [
        msgspec.structs.replace(
            folds[number], before=tuple(sorted(places[earlier] for earlier in folds[number].before))
        )
        for number in order
    ]
