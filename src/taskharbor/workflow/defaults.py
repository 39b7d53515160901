"""Options for all the steps of a flow that do not say otherwise, or for those that come first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

import msgspec

from taskharbor.call import Call, Each, Group, Node, Options, Then

_Change: TypeAlias = Callable[[Node], Node]
_replace = msgspec.structs.replace


def for_all(node: Node, options: Options) -> Node:
    """Return a node whose calls have `options` for what they leave open."""

    def change(inner: Node) -> Node:
        return _walk(inner, leaf, change)

    def leaf(inner: Node) -> Node:
        if isinstance(inner, Call):
            return _call(inner, options)
        if isinstance(inner, Group):
            return _group(inner, change)
        if isinstance(inner, Each):
            return _replace(inner, body=change(inner.body))
        return _replace(inner, before=tuple(map(change, inner.before)), node=change(inner.node))

    return change(node)


def for_first(node: Node, options: Options) -> Node:
    """Return a node whose calls that wait for no other have `options` for what they leave open."""

    def change(inner: Node) -> Node:
        return _walk(inner, leaf, lambda later: later)

    def leaf(inner: Node) -> Node:
        if isinstance(inner, Call):
            return _call(inner, options)
        if isinstance(inner, Group):
            return _group(inner, change)
        if isinstance(inner, Each):
            return inner
        return _replace(inner, before=tuple(map(change, inner.before)))

    return change(node)


def _walk(node: Node, leaf: _Change, later: _Change) -> Node:
    """Change what a chain begins with by `leaf`, and each node after that by `later`; a chain may be very long."""
    links: list[Then] = []
    while isinstance(node, Then) and len(node.before) == 1:
        links.append(node)
        (node,) = node.before
    node = leaf(node)
    for link in reversed(links):
        node = Then((node,), link.places, later(link.node))
    return node


def _call(call: Call, options: Options) -> Call:
    return _replace(call, options=call.options.over(options))


def _group(group: Group, change: _Change) -> Group:
    members = group.members
    if isinstance(members, tuple):
        return _replace(group, members=tuple(map(change, members)))
    return _replace(group, members=_Changed(members, change))


class _Changed(Iterable[Node]):
    """Members that are changed as they are read."""

    def __init__(self, members: Iterable[Node], change: _Change) -> None:
        self._members = members
        self._change = change

    def __iter__(self) -> Iterator[Node]:
        return map(self._change, self._members)
