"""From a tree of calls to the steps of a flow: which job waits for which, and where each result goes.

It goes from the end to the beginning, since a step has to know who waits for its result: first the steps that follow
are drafted, then those that they take their results from. Whoever is drafted says how many inputs it waits for; when
all that it takes is drafted, its job is made. The members of a group that comes first are made one by one, so that a
producer's memory does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Self, cast

from taskharbor.call import Call, Each, Group, Node, Placeholder, Then
from taskharbor.call.expansion import COLLECT, EACH, EXPANSION, OUT, Expansion
from taskharbor.call.parts import PARTS
from taskharbor.errors import FlowError
from taskharbor.job import NewJob, new_job_id
from taskharbor.step import ORDER, Edge, Hole, Input
from taskharbor.workflow.drafts import Draft, Kind, Target, drafts_of, kind_of
from taskharbor.workflow.making import Maker, internal


class Walk:
    """The steps of one flow."""

    def __init__(self, maker: Maker, flow: str = "") -> None:
        """Prepare it; `flow` is the flow's id, if it is known already."""
        self._maker = maker
        self._local: Iterator[int] | None = None
        """Numbers for local ids, within an `each`."""
        self._kinds: dict[int, Kind] = {}
        self._uses: dict[int, list[Target]] = {}
        self._numbers = count()
        self.flow = flow
        self.absorbing = False

    @classmethod
    def with_place(cls, maker: Maker, place: Placeholder) -> Self:
        """Return one for a node in which a placeholder stands for what comes from outside."""
        walk = cls(maker)
        walk._kinds[id(place)] = Kind()
        walk._uses[id(place)] = []
        return walk

    def steps(self, node: Node) -> Iterator[NewJob]:
        """Yield the jobs of a flow; its id is known as soon as the first of them is."""
        for draft in self._one(node, (), 0, (), first=True):
            yield self._maker.made(draft, self.flow)

    # --- nodes: each yields its drafts, those that come first one by one

    def _one(
        self,
        node: Node,
        targets: Sequence[Target],
        index: int,
        absorbers: tuple[Edge, ...],
        *,
        first: bool = False,
    ) -> Iterator[Draft]:
        """Draft a node so that it comes to one result: what gives many is gathered."""
        kind = kind_of(node)
        if not kind.many:
            yield from self._node(node, targets, index, absorbers, first=first)
            return
        gather = self._draft(first=first)
        gather.holes = [Hole("items", 0, many=True, tolerant=kind.tolerant)]
        gather.lead_to(targets, index)
        gather.absorbers = absorbers
        pattern: NewJob | None = None
        for draft in self._node(node, (Target(gather, 0),), 0, absorbers):
            pattern = pattern or self._maker.pattern(draft)
            yield draft
        gather.job = internal(pattern, COLLECT, PARTS, b"")
        yield gather

    def _node(
        self,
        node: Node,
        targets: Sequence[Target],
        index: int,
        absorbers: tuple[Edge, ...],
        *,
        first: bool = False,
    ) -> Iterator[Draft]:
        """Draft a node whose result, or results, go to the targets."""
        held: list[list[Draft]] = []
        while isinstance(node, Then):  # a chain is as deep as it is long
            for place, before in zip(node.places, node.before, strict=True):
                self._kinds[id(place)] = kind_of(before)
                self._uses[id(place)] = []
            follows = list(self._step(node.node, targets, index, absorbers, first=first))
            held.append(follows)
            first = False
            # What takes nothing of another step of what follows begins it, and waits for all that comes before.
            # Of an empty group there is nothing to wait; so those do that take its empty list.
            begin = [draft for draft in follows if not draft.waits] if follows else drafts_of(targets)
            results = [self._taken(place, begin) for place in node.places]
            index = 0
            if len(node.before) != 1:
                for before, uses in zip(node.before, results, strict=True):
                    yield from self._node(before, uses, 0, absorbers)
                break
            node, targets = node.before[0], results[0]
        else:
            yield from self._step(node, targets, index, absorbers, first=first)
        for drafts in reversed(held):
            yield from drafts

    def _step(
        self,
        node: Node,
        targets: Sequence[Target],
        index: int,
        absorbers: tuple[Edge, ...],
        *,
        first: bool,
    ) -> Iterator[Draft]:
        if isinstance(node, Call):
            draft = self._draft(first=first)
            draft.call = node
            draft.lead_to(targets, index)
            draft.absorbers = absorbers
            draft.holes = self._holes(node, draft)
            yield draft
        elif isinstance(node, Group):
            for place, member in enumerate(node.members):
                inner = absorbers
                if node.tolerant:
                    self.absorbing = True
                    inner = tuple(target.edge(place) for target in targets)
                yield from self._one(member, targets, place, inner)
        elif isinstance(node, Each):
            yield self._each(node, targets, absorbers)
        else:
            yield from self._node(node, targets, index, absorbers, first=first)

    def _each(
        self,
        node: Each,
        targets: Sequence[Target],
        absorbers: tuple[Edge, ...],
    ) -> Draft:
        draft = self._draft(first=False)
        draft.absorbers = absorbers
        inner = Walk.with_place(self._maker.within(), node.element)
        inner._local = self._local or count(1)
        out = Target(Draft(OUT, -1), 0)
        bodies = [inner._maker.made(one, "") for one in inner._one(node.body, (out,), 0, absorbers)]
        if inner._maker.keyed:
            raise FlowError(
                f"the step {inner._maker.keyed[0].task!r} within each(...) has a key: all its jobs would share it, and "
                "only one of them be stored; leave the key out"
            )
        self.absorbing = self.absorbing or inner.absorbing
        codec, items = "", None
        if isinstance(node.items, Placeholder):
            kind, use = self._use(node.items, draft)
            draft.holes = [Hole("items", use, kind.many, kind.tolerant)]
        else:
            codec, items = self._maker.listed(draft, node.items, inner._uses[id(node.element)])
        draft.expansion = Expansion(
            body=tuple(bodies),
            elements=tuple(
                Edge(use.draft.id, use.slot, use.place or 0) for use in inner._uses[id(node.element)]
            ),
            out=tuple(target.edge(0) for target in targets),
            codec=codec,
            items=items,
        )
        for target in targets:  # until it is known how many there are, they wait for this one
            target.draft.waits += 1
            draft.leads.append((target.draft.number, target.slot, 0))
        draft.job = internal(bodies[0], EACH, EXPANSION, b"")
        return draft

    # --- what takes which result

    def _holes(self, call: Call, draft: Draft) -> list[Hole]:
        holes: list[Hole] = []
        for name in call.arguments.__struct_fields__:
            value = cast("object", getattr(call.arguments, name))
            if isinstance(value, Placeholder):
                kind, slot = self._use(value, draft, len(holes))
                holes.append(Hole(name, slot, kind.many, kind.tolerant))
            elif isinstance(value, (list, tuple)):
                elements = cast("Sequence[object]", value)
                if any(isinstance(element, Placeholder) for element in elements):
                    self._list(call, elements, draft, len(holes))
                    holes.append(Hole(name, len(holes), many=True))
        return holes

    def _list(self, call: Call, elements: Sequence[object], draft: Draft, slot: int) -> None:
        """Let a list, or `*args`, be filled element by element."""
        for place, element in enumerate(elements):
            if not isinstance(element, Placeholder):
                draft.inputs.append(Input(slot, place, *self._maker.encoded(draft, element, call)))
                continue
            kind, _ = self._use(element, draft, slot, place)
            if kind.many:
                raise FlowError(
                    f"{element!r} is a list, and stands within another; pass it on as an argument of its own"
                )

    def _use(
        self, place: Placeholder, draft: Draft, slot: int = 0, at: int | None = None
    ) -> tuple[Kind, int]:
        kind = self._kinds.get(id(place))
        if kind is None:
            raise FlowError(
                f"{place!r} is used where it cannot be: it belongs to another flow, or stands outside of the "
                "each(...) whose body uses it; a body can take its element alone, so pass on what else it needs with "
                "the elements"
            )
        self._uses[id(place)].append(Target(draft, slot, at))
        return kind, slot

    def _taken(self, place: Placeholder, begin: Sequence[Draft]) -> list[Target]:
        """Return where the result goes: to those that take it, and, for the order's sake, to the others that begin."""
        many = self._kinds.pop(id(place)).many
        uses = self._uses.pop(id(place))
        taking = {use.draft.number for use in uses}
        for draft in begin:
            if draft.number in taking:
                continue
            if many:
                draft.ranges += 1
                uses.append(Target(draft, ORDER - draft.ranges))
            else:
                uses.append(Target(draft, ORDER, draft.orders))
                draft.orders += 1
        return uses

    # --- drafts

    def _draft(self, *, first: bool) -> Draft:
        job_id = new_job_id() if self._local is None else f"@{next(self._local)}"
        if first:
            self.flow = job_id = self.flow or job_id
        return Draft(job_id, next(self._numbers), edges=[], leads=[], holes=[], inputs=[])
