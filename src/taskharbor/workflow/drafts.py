"""Steps on the way to be made: what a step takes, where its result goes, and how many results it waits for."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from taskharbor.call import Call, Each, Group, Node, Then
from taskharbor.call.expansion import Expansion
from taskharbor.job import NewJob
from taskharbor.step import Edge, Hole, Input


class Kind(msgspec.Struct, frozen=True):
    """What the result of a node is to those that take it."""

    many: bool = False
    """The results of many steps, as a list."""
    tolerant: bool = False


class Target(msgspec.Struct):
    """A place where a result goes: a hole of a step, or its order alone."""

    draft: Draft
    slot: int
    place: int | None = None
    """Which of the slot's inputs it is, where that is known from the start."""

    def edge(self, index: int) -> Edge:
        """Return the dependency of a result, of which there are many if `place` leaves that open."""
        return Edge(self.draft.id, self.slot, index if self.place is None else self.place)


class Draft(msgspec.Struct):
    """A step whose job is made when all is known of it."""

    id: str
    number: int
    """Counts the drafts of a flow: what ids differ in is the same in two flows of one shape."""
    call: Call | None = None
    """None for the steps that only gather or expand: their `job` is there."""
    job: NewJob | None = None
    waits: int = 0
    orders: int = 0
    """Steps that it only waits for."""
    ranges: int = 0
    """Lists that it only waits for: each is a slot of its own, numbered from `ORDER` downwards."""
    edges: list[Edge] = []
    leads: list[tuple[int, int, int]] = []
    """The edges, by the number of the step that each leads to."""
    absorbers: tuple[Edge, ...] = ()
    holes: list[Hole] = []
    inputs: list[Input] = []
    """What is known already of a list that other results belong to."""
    told: list[bytes] = []
    """The values of `inputs` and of the expansion's list, the same in every codec; for what tells flows apart."""
    expansion: Expansion | None = None

    def lead_to(self, targets: Sequence[Target], index: int) -> None:
        """Have its result go to the targets, each of which waits for one more."""
        for target in targets:
            edge = target.edge(index)
            target.draft.waits += 1
            self.edges.append(edge)
            self.leads.append((target.draft.number, edge.slot, edge.index))


def drafts_of(targets: Sequence[Target]) -> list[Draft]:
    """Return the steps that targets are of, each once."""
    return list({target.draft.number: target.draft for target in targets}.values())


def kind_of(node: Node) -> Kind:
    """Return what the result of a node is to those that take it."""
    while isinstance(node, Then):
        node = node.node
    if isinstance(node, Group):
        return Kind(many=True, tolerant=node.tolerant)
    return Kind(many=isinstance(node, Each))
