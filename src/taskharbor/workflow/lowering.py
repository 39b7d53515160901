"""From a tree of calls to the steps of a flow: which job waits for which, and where each result goes.

It goes from the end to the beginning, since a step has to know who waits for its result: first the steps that follow
are drafted, then those that they take their results from. Whoever is drafted says how many inputs it waits for; when
all that it takes is drafted, its job is made. The members of a group that comes first are made one by one, so that a
producer's memory does not grow with their number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import count
from types import GenericAlias
from typing import Self, cast

import msgspec
from msgspec import UNSET

from taskharbor.call import Call, Each, FlowCall, FlowOptions, Group, Node, Placeholder, Then
from taskharbor.call.expansion import COLLECT, EACH, EXPANSION, OUT, Expansion, write_expansion
from taskharbor.call.parts import PARTS
from taskharbor.codec import Codec, CodecError
from taskharbor.errors import FlowError, PayloadError
from taskharbor.flow import NewFlow
from taskharbor.job import PAYLOAD_LIMIT, NewJob, OnConflict, new_job_id
from taskharbor.step import ORDER, Edge, Hole, Input, Step
from taskharbor.workflow.spool import Spool

_replace = msgspec.structs.replace
_BETWEEN = "\x1f"
"""Stands between a flow's name, which cannot have it, and its key."""


class _Kind(msgspec.Struct, frozen=True):
    """What the result of a node is to those that take it."""

    many: bool = False
    """The results of many steps, as a list."""
    tolerant: bool = False


class _Target(msgspec.Struct):
    """A place where a result goes: a hole of a step, or its order alone."""

    draft: _Draft
    slot: int
    place: int | None = None
    """Which of the slot's inputs it is, where that is known from the start."""

    def edge(self, index: int) -> Edge:
        """Return the dependency of a result, of which there are many if `place` leaves that open."""
        return Edge(self.draft.id, self.slot, index if self.place is None else self.place)


class _Draft(msgspec.Struct):
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
    expansion: Expansion | None = None

    def lead_to(self, targets: Sequence[_Target], index: int) -> None:
        """Have its result go to the targets, each of which waits for one more."""
        for target in targets:
            edge = target.edge(index)
            target.draft.waits += 1
            self.edges.append(edge)
            self.leads.append((target.draft.number, edge.slot, edge.index))


class Lowering:
    """The steps of one flow."""

    def __init__(self, codec: Codec, *, check: bool, digest: bool = False) -> None:
        """Prepare it; `codec` is the harbor's. `digest` is for flows with a key."""
        self._codec = codec
        self._check = check
        self._hash = hashlib.sha256() if digest else None
        self._local: Iterator[int] | None = None
        """Numbers for local ids, within an `each`."""
        self._kinds: dict[int, _Kind] = {}
        self._uses: dict[int, list[_Target]] = {}
        self._numbers = count()
        self.flow = ""
        self.absorbing = False
        self.keyed: list[NewJob] = []

    @classmethod
    def with_place(cls, codec: Codec, place: Placeholder, *, check: bool) -> Self:
        """Return one for a node in which a placeholder stands for what comes from outside."""
        lowering = cls(codec, check=check)
        lowering._kinds[id(place)] = _Kind()
        lowering._uses[id(place)] = []
        return lowering

    def steps(self, node: Node) -> Iterator[NewJob]:
        """Yield the jobs of a flow; its id is known as soon as the first of them is."""
        for draft in self._one(node, (), 0, (), first=True):
            yield self._made(draft)

    # --- nodes: each yields its drafts, those that come first one by one

    def _one(
        self,
        node: Node,
        targets: Sequence[_Target],
        index: int,
        absorbers: tuple[Edge, ...],
        *,
        first: bool = False,
    ) -> Iterator[_Draft]:
        """Draft a node so that it comes to one result: what gives many is gathered."""
        kind = _kind_of(node)
        if not kind.many:
            yield from self._node(node, targets, index, absorbers, first=first)
            return
        gather = self._draft(first=first)
        gather.holes = [Hole("items", 0, many=True, tolerant=kind.tolerant)]
        gather.lead_to(targets, index)
        gather.absorbers = absorbers
        pattern: NewJob | None = None
        for draft in self._node(node, (_Target(gather, 0),), 0, absorbers):
            pattern = pattern or self._pattern(draft)
            yield draft
        gather.job = _internal(pattern, COLLECT, PARTS, b"")
        yield gather

    def _node(
        self,
        node: Node,
        targets: Sequence[_Target],
        index: int,
        absorbers: tuple[Edge, ...],
        *,
        first: bool = False,
    ) -> Iterator[_Draft]:
        """Draft a node whose result, or results, go to the targets."""
        held: list[list[_Draft]] = []
        while isinstance(node, Then):  # a chain is as deep as it is long
            for place, before in zip(node.places, node.before, strict=True):
                self._kinds[id(place)] = _kind_of(before)
                self._uses[id(place)] = []
            follows = list(self._step(node.node, targets, index, absorbers, first=first))
            held.append(follows)
            first = False
            # What takes nothing of another step of what follows begins it, and waits for all that comes before.
            # Of an empty group there is nothing to wait; so those do that take its empty list.
            begin = [draft for draft in follows if not draft.waits] if follows else _drafts(targets)
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
        targets: Sequence[_Target],
        index: int,
        absorbers: tuple[Edge, ...],
        *,
        first: bool,
    ) -> Iterator[_Draft]:
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
        targets: Sequence[_Target],
        absorbers: tuple[Edge, ...],
    ) -> _Draft:
        draft = self._draft(first=False)
        draft.absorbers = absorbers
        inner = Lowering.with_place(self._codec, node.element, check=self._check)
        inner._local = self._local or count(1)
        inner._hash = self._hash
        out = _Target(_Draft(OUT, -1), 0)
        bodies = [inner._made(one) for one in inner._one(node.body, (out,), 0, absorbers)]
        if inner.keyed:
            raise FlowError(
                f"the step {inner.keyed[0].task!r} within each(...) has a key: all its jobs would share it, and only "
                "one of them be stored; leave the key out"
            )
        self.absorbing = self.absorbing or inner.absorbing
        codec, items = "", None
        if isinstance(node.items, Placeholder):
            kind, use = self._use(node.items, draft)
            draft.holes = [Hole("items", use, kind.many, kind.tolerant)]
        else:
            codec, items = self._listed(node.items, inner._uses[id(node.element)])
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
        draft.job = _internal(bodies[0], EACH, EXPANSION, b"")
        return draft

    # --- what takes which result

    def _holes(self, call: Call, draft: _Draft) -> list[Hole]:
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

    def _list(self, call: Call, elements: Sequence[object], draft: _Draft, slot: int) -> None:
        """Let a list, or `*args`, be filled element by element."""
        for place, element in enumerate(elements):
            if not isinstance(element, Placeholder):
                draft.inputs.append(Input(slot, place, *self._encoded(element, call)))
                continue
            kind, _ = self._use(element, draft, slot, place)
            if kind.many:
                raise FlowError(
                    f"{element!r} is a list, and stands within another; pass it on as an argument of its own"
                )

    def _use(
        self, place: Placeholder, draft: _Draft, slot: int = 0, at: int | None = None
    ) -> tuple[_Kind, int]:
        kind = self._kinds.get(id(place))
        if kind is None:
            raise FlowError(
                f"{place!r} is used where it cannot be: it belongs to another flow, or stands outside of the "
                "each(...) whose body uses it; a body can take its element alone, so pass on what else it needs with "
                "the elements"
            )
        self._uses[id(place)].append(_Target(draft, slot, at))
        return kind, slot

    def _taken(self, place: Placeholder, begin: Sequence[_Draft]) -> list[_Target]:
        """Return where the result goes: to those that take it, and, for the order's sake, to the others that begin."""
        many = self._kinds.pop(id(place)).many
        uses = self._uses.pop(id(place))
        taking = {use.draft.number for use in uses}
        for draft in begin:
            if draft.number in taking:
                continue
            if many:
                draft.ranges += 1
                uses.append(_Target(draft, ORDER - draft.ranges))
            else:
                uses.append(_Target(draft, ORDER, draft.orders))
                draft.orders += 1
        return uses

    # --- jobs

    def _draft(self, *, first: bool) -> _Draft:
        job_id = new_job_id() if self._local is None else f"@{next(self._local)}"
        draft = _Draft(job_id, next(self._numbers), edges=[], leads=[], holes=[], inputs=[])
        if first:
            self.flow = draft.id
        return draft

    def _made(self, draft: _Draft) -> NewJob:
        job = draft.job
        if draft.call is not None:
            job = self._job(draft.call, draft)
        elif draft.expansion is not None and job is not None:
            job = _replace(job, payload=write_expansion(draft.expansion))
        if job is None:
            raise AssertionError("a draft is of a call, or has its job")
        step = Step(
            flow=self.flow,
            waits=draft.waits,
            edges=tuple(draft.edges),
            absorbers=draft.absorbers,
            holes=tuple(draft.holes),
            inputs=tuple(draft.inputs),
        )
        if self._hash is not None:
            self._hash.update(_told(job, draft))
            if draft.call is None or draft.call.options.key is UNSET:
                job = _replace(job, key=None, digest=b"")
        # What others wait for has to be kept until they have it, whatever the task declares.
        keep = job.keep_result or any(edge.slot >= 0 for edge in draft.edges)
        job = _replace(job, id=draft.id, step=step, keep_result=keep)
        if job.key is not None:
            self.keyed.append(job)
        return job

    def _job(self, call: Call, draft: _Draft) -> NewJob:
        names = frozenset(hole.parameter for hole in draft.holes)
        options = call.options
        if self._hash is not None and options.key is UNSET:
            options = _replace(options, key="-")  # for the digest that comes with a key
        try:
            return call.callee.new_job(
                call.arguments, options, self._codec, check=self._check, job_id=draft.id, holes=names
            )
        except PayloadError as error:
            if Placeholder.__qualname__ in str(error):
                raise FlowError(
                    f"an argument of {call.callee.name!r} holds the result of an earlier step somewhere within; it can "
                    "only be passed on as a whole argument, or as an element of a list or a tuple that is one"
                ) from error
            raise

    def _pattern(self, draft: _Draft) -> NewJob | None:
        """Return a job whose queue and priority are those for a step that serves this one."""
        if draft.job is not None or draft.call is None:
            return draft.job
        return self._job(draft.call, draft)

    def _listed(self, items: object, uses: Sequence[_Target]) -> tuple[str, bytes]:
        """Return the list that an `each` is given, checked against the parameter that its elements fill."""
        taker = next((use for use in uses if use.draft.call is not None and use.place is None), None)
        call = None if taker is None else taker.draft.call
        name, data = self._encoded(items, call)
        if len(data) > PAYLOAD_LIMIT:
            raise FlowError(
                f"the list given to each(...) takes {len(data):,} bytes, and a job carries at most {PAYLOAD_LIMIT:,}; "
                "keep what is large elsewhere, and pass the keys that find it"
            )
        if self._check and taker is not None and call is not None:
            parameter = taker.draft.holes[taker.slot].parameter
            kind = GenericAlias(list, (call.callee.parameter_type(parameter),))
            try:
                (call.callee.codec or self._codec).decoder(cast("type[object]", kind))(data)
            except CodecError as error:
                raise PayloadError(
                    f"the list given to each(...) does not fit the parameter {parameter!r} of task "
                    f"{call.callee.name!r}: {error} at {error.path}",
                    task=call.callee.name,
                    path=error.path,
                    reason=str(error),
                ) from error
        return name, data

    def _encoded(self, items: object, taker: Call | None) -> tuple[str, bytes]:
        """Return a value as it is stored for a call that takes it, in that task's codec: name and bytes."""
        own = None if taker is None else taker.callee.codec
        codec = own or self._codec
        try:
            return codec.name, codec.encoder()(items)
        except CodecError as error:
            raise FlowError(f"{items!r:.80} cannot be sent: {error} at {error.path}") from error

    @property
    def digest(self) -> bytes:
        """Return what tells flows with other steps or arguments apart."""
        return b"" if self._hash is None else self._hash.digest()[:16]


def lower(flow: FlowCall, codec: Codec, *, check: bool) -> NewFlow:
    """Return a flow as it is stored.

    Raises:
        FlowError: steps that cannot be joined so.
        PayloadError: arguments do not fit a signature.
    """
    options = flow.options
    lowering = Lowering(codec, check=check, digest=options.key is not UNSET)
    spool = Spool()
    try:
        for job in lowering.steps(flow.node):
            # The last of them comes last.
            spool.add(_keyed(job, options, lowering) if job.id == lowering.flow else job)
    except RecursionError as error:
        raise FlowError(
            "the flow is nested too deeply; a long chain is written with chain(...) or .then(...), from the first step"
        ) from error
    _refuse_shared_keys(lowering.keyed)
    return NewFlow(
        id=lowering.flow,
        name=options.name,
        meta=options.meta,
        steps=spool,
        keyed=tuple(lowering.keyed),
        own_key=options.key is not UNSET,
        on_failure=_on_failure(options, codec, check=check),
        absorbing=lowering.absorbing,
    )


def _drafts(targets: Sequence[_Target]) -> list[_Draft]:
    return list({target.draft.number: target.draft for target in targets}.values())


def _refuse_shared_keys(keyed: Sequence[NewJob]) -> None:
    met: set[tuple[str, str | None]] = set()
    for job in keyed:
        if (job.task, job.key) in met:
            raise FlowError(
                f"two steps {job.task!r} of the flow have the key {job.key!r}, and one of them alone could be stored"
            )
        met.add((job.task, job.key))


def _keyed(job: NewJob, options: FlowOptions, lowering: Lowering) -> NewJob:
    """Return the last step with the flow's key, if it has one."""
    if options.key is UNSET:
        return job
    if job.key is not None:
        raise FlowError(
            f"the flow has a key, and so has its last step {job.task!r}, which holds the flow's; leave one of them out"
        )
    key = options.key
    if job.task == COLLECT:
        if not options.name:
            raise FlowError(
                "a key has the scope of the flow's last task, and this flow ends in a list that no task makes; give "
                "the flow a name as well, which is the scope then"
            )
        key = f"{options.name}{_BETWEEN}{key}"
    job = _replace(job, key=key, digest=lowering.digest)
    if options.key_ttl is not UNSET:
        job = _replace(job, key_ttl=options.key_ttl)
    if options.on_conflict is not UNSET:
        job = _replace(job, on_conflict=OnConflict(options.on_conflict))
    lowering.keyed.append(job)
    return job


def _on_failure(options: FlowOptions, codec: Codec, *, check: bool) -> NewJob | None:
    """Return the job to store when the flow fails; its only input is the failure."""
    if options.on_failure is None:
        return None
    call, place = options.on_failure
    (job,) = Lowering.with_place(codec, place, check=check).steps(call)
    holes = () if job.step is None else job.step.holes
    if any(hole.many for hole in holes):
        raise FlowError(
            f"on_failure: {call.callee.name!r} takes the failure within a list; it has to be a whole argument"
        )
    return _replace(
        job, step=Step(flow="", holes=tuple(_replace(hole, slot=0, many=False) for hole in holes))
    )


def _told(job: NewJob, draft: _Draft) -> bytes:
    """Return what of a step makes it another one, whatever ids there are."""
    takes: tuple[object, ...] = ()
    if draft.expansion is not None:
        takes = (draft.expansion.items, [(edge.slot, edge.index) for edge in draft.expansion.elements])
    return msgspec.msgpack.encode(
        (draft.number, job.task, job.digest, draft.holes, draft.inputs, draft.leads, draft.waits, takes)
    )


def _kind_of(node: Node) -> _Kind:
    while isinstance(node, Then):
        node = node.node
    if isinstance(node, Group):
        return _Kind(many=True, tolerant=node.tolerant)
    return _Kind(many=isinstance(node, Each))


def _internal(pattern: NewJob | None, task: str, codec: str, payload: bytes) -> NewJob:
    """Return a job of one of our own tasks, to be run where the steps beside it are."""
    job = NewJob(id="", task=task, payload=payload, codec=codec, fingerprint=0)
    if pattern is None:
        return job
    return _replace(job, queue=pattern.queue, priority=pattern.priority, retain=pattern.retain)
