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
from typing import Self, cast

import msgspec
from msgspec import UNSET

from taskharbor.call import Call, Each, FlowCall, FlowOptions, Group, Node, Placeholder, Then
from taskharbor.call.expansion import COLLECT, EACH, EXPANSION, OUT, Expansion, write_expansion
from taskharbor.call.parts import PARTS
from taskharbor.codec import Codec, CodecError
from taskharbor.errors import FlowError, PayloadError
from taskharbor.flow import NewFlow
from taskharbor.job import NewJob, OnConflict, new_job_id
from taskharbor.step import ORDER, Edge, Hole, Input, Step
from taskharbor.workflow.spool import Spool

_replace = msgspec.structs.replace


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
    """Its place in the list that fills the hole, where that is one of the call's own."""

    def edge(self, index: int) -> Edge:
        """Have the step wait for one more result, and return its dependency."""
        draft = self.draft
        draft.waits += 1
        if self.slot < 0:  # each is an input of its own, whatever comes before
            draft.orders += 1
            return Edge(draft.id, self.slot, draft.orders - 1)
        return Edge(draft.id, self.slot, index if self.place is None else self.place)


class _Draft(msgspec.Struct):
    """A step whose job is made when all is known of it."""

    id: str
    call: Call | None = None
    """None for the steps that only gather or expand: their `job` is there."""
    job: NewJob | None = None
    waits: int = 0
    orders: int = 0
    edges: list[Edge] = []
    absorbers: tuple[Edge, ...] = ()
    holes: list[Hole] = []
    inputs: list[Input] = []
    """What is known already of a list that other results belong to."""
    expansion: Expansion | None = None

    @property
    def free(self) -> bool:
        """Return whether it takes no results."""
        return not self.holes


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
        self._orders = count(ORDER, -1)
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
        for draft in self._one(node, (), 0, (), None, first=True):
            yield self._made(draft)

    # --- nodes: each yields its drafts, those that come first one by one

    def _one(
        self,
        node: Node,
        targets: Sequence[_Target],
        index: int,
        absorbers: tuple[Edge, ...],
        sources: list[_Draft] | None,
        *,
        first: bool = False,
    ) -> Iterator[_Draft]:
        """Draft a node so that it comes to one result: what gives many is gathered."""
        kind = _kind_of(node)
        if not kind.many:
            yield from self._node(node, targets, index, absorbers, sources, first=first)
            return
        gather = self._draft(first=first)
        gather.holes = [Hole("items", 0, many=True, tolerant=kind.tolerant)]
        gather.edges = [target.edge(index) for target in targets]
        gather.absorbers = absorbers
        pattern: NewJob | None = None
        for draft in self._node(node, (_Target(gather, 0),), 0, absorbers, sources):
            pattern = pattern or self._pattern(draft)
            yield draft
        gather.job = _internal(pattern, COLLECT, PARTS, b"")
        if sources is not None and not gather.waits:
            sources.append(gather)
        yield gather

    def _node(
        self,
        node: Node,
        targets: Sequence[_Target],
        index: int,
        absorbers: tuple[Edge, ...],
        sources: list[_Draft] | None,
        *,
        first: bool = False,
    ) -> Iterator[_Draft]:
        """Draft a node whose result, or results, go to the targets."""
        held: list[list[_Draft]] = []
        while isinstance(node, Then):  # a chain is as deep as it is long
            follows: list[_Draft] = []
            for place, before in zip(node.places, node.before, strict=True):
                self._kinds[id(place)] = _kind_of(before)
                self._uses[id(place)] = []
            held.append(list(self._step(node.node, targets, index, absorbers, follows, first=first)))
            first = False
            results = [self._taken(place, follows) for place in node.places]
            index = 0
            if len(node.before) != 1:
                for before, uses in zip(node.before, results, strict=True):
                    yield from self._node(before, uses, 0, absorbers, sources)
                break
            node, targets = node.before[0], results[0]
        else:
            yield from self._step(node, targets, index, absorbers, sources, first=first)
        for drafts in reversed(held):
            yield from drafts

    def _step(
        self,
        node: Node,
        targets: Sequence[_Target],
        index: int,
        absorbers: tuple[Edge, ...],
        sources: list[_Draft] | None,
        *,
        first: bool,
    ) -> Iterator[_Draft]:
        if isinstance(node, Call):
            draft = self._draft(first=first)
            draft.call = node
            draft.edges = [target.edge(index) for target in targets]
            draft.absorbers = absorbers
            draft.holes = self._holes(node, draft)
            if sources is not None and draft.free:
                sources.append(draft)
            yield draft
        elif isinstance(node, Group):
            for place, member in enumerate(node.members):
                inner = absorbers
                if node.tolerant:
                    self.absorbing = True
                    inner = tuple(Edge(target.draft.id, target.slot, place) for target in targets)
                yield from self._one(member, targets, place, inner, sources)
        elif isinstance(node, Each):
            yield self._each(node, targets, absorbers, sources)
        else:
            yield from self._node(node, targets, index, absorbers, sources, first=first)

    def _each(
        self,
        node: Each,
        targets: Sequence[_Target],
        absorbers: tuple[Edge, ...],
        sources: list[_Draft] | None,
    ) -> _Draft:
        draft = self._draft(first=False)
        draft.absorbers = absorbers
        inner = Lowering.with_place(self._codec, node.element, check=self._check)
        inner._local = self._local or count(1)
        out = _Target(_Draft(OUT), 0)
        bodies = [inner._made(one) for one in inner._one(node.body, (out,), 0, absorbers, None)]
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
            codec, items = self._codec.name, self._encoded(node.items)
            if sources is not None:
                sources.append(draft)
        draft.expansion = Expansion(
            body=tuple(bodies),
            elements=tuple(
                Edge(use.draft.id, use.slot, use.place or 0) for use in inner._uses[id(node.element)]
            ),
            out=tuple(target.edge(0) for target in targets),
            codec=codec,
            items=items,
        )
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
                    self._list(elements, draft, len(holes))
                    holes.append(Hole(name, len(holes), many=True))
        return holes

    def _list(self, elements: Sequence[object], draft: _Draft, slot: int) -> None:
        """Let a list, or `*args`, be filled element by element."""
        for place, element in enumerate(elements):
            if not isinstance(element, Placeholder):
                draft.inputs.append(Input(slot, place, self._codec.name, self._encoded(element)))
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

    def _taken(self, place: Placeholder, follows: Sequence[_Draft]) -> list[_Target]:
        """Return where the result goes; if nobody takes it, those that begin what follows wait for it all the same."""
        del self._kinds[id(place)]
        uses = self._uses.pop(id(place))
        if uses:
            return uses
        order = next(self._orders)
        return [_Target(draft, order) for draft in follows]

    # --- jobs

    def _draft(self, *, first: bool) -> _Draft:
        draft = _Draft(
            new_job_id() if self._local is None else f"@{next(self._local)}", edges=[], holes=[], inputs=[]
        )
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
            self._hash.update(_told(job, step))
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

    def _encoded(self, items: object) -> bytes:
        try:
            return self._codec.encoder()(items)
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
    for job in lowering.steps(flow.node):
        # The last of them comes last.
        spool.add(_keyed(job, options, lowering) if job.id == lowering.flow else job)
    return NewFlow(
        id=lowering.flow,
        name=options.name,
        meta=options.meta,
        steps=spool,
        keyed=tuple(lowering.keyed),
        on_failure=_on_failure(options, codec, check=check),
        absorbing=lowering.absorbing,
    )


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
        key = f"{options.name}:{key}"
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
    return _replace(
        job, step=Step(flow="", holes=tuple(_replace(hole, slot=0, many=False) for hole in holes))
    )


def _told(job: NewJob, step: Step) -> bytes:
    """Return what of a step makes it another one, whatever ids there are."""
    return msgspec.msgpack.encode((job.task, job.digest, step.holes, len(step.edges), step.waits))


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
