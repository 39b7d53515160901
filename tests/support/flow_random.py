"""Flows drawn at random, what plain Python makes of them, and a worker whose every move is drawn, too."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Protocol, TypeVar, cast

import msgspec
from hypothesis import strategies as st

from taskharbor import Failure, JobState, Signature, Success, chord, each, gather, group
from taskharbor.call import FlowCall, reader_of
from taskharbor.codec import CodecBook, JsonCodec
from taskharbor.driver import FlowGet, JobEnqueue
from taskharbor.flow import FlowState
from taskharbor.job import AttemptError, Delivery
from taskharbor.outcome import Failed, Outcome, Rejected, Released, Snoozed
from taskharbor.settlement import Settlement, SettleStatus, settlement
from taskharbor.worker.preparing import Plans
from taskharbor.worker.run import Run
from taskharbor.workflow.lowering import lower
from taskharbor_conformance.bench import LEASE, SECOND, Bench
from tests.support.flow_app import add_up, double, number, packed, refuse, registry, subtract, upto

T = TypeVar("T")
BUILD_TASKS = registry.names() | {"taskharbor.collect", "taskharbor.each"}
MOVES = ("succeed", "succeed", "succeed", "fail", "snooze", "release", "crash", "crash late", "repeat")


class Draw(Protocol):
    """Hypothesis's `data.draw`."""

    def __call__(self, strategy: st.SearchStrategy[T], label: object = None, /) -> T: ...


class Drawn(msgspec.Struct, frozen=True):
    """A part of a flow, and what it comes to."""

    signature: Signature[object]
    value: object
    """What plain Python makes of it."""


def whole(draw: Draw, depth: int) -> Drawn:
    """Draw a part that comes to a number."""
    kind = draw(st.sampled_from(_NUMBERS if depth else _NUMBERS[:2]))
    made: Drawn = kind(draw, depth - 1)
    return made


def _number(draw: Draw, _depth: int) -> Drawn:
    value = draw(st.integers(0, 9))
    return Drawn(number.s(value), value)


def _packed(draw: Draw, _depth: int) -> Drawn:
    value = draw(st.integers(0, 9))
    return Drawn(packed.s(value), value)


def _doubled(draw: Draw, depth: int) -> Drawn:
    part = whole(draw, depth)
    return Drawn(_ints(part).then(double), 2 * cast("int", part.value))


def _placed(draw: Draw, depth: int) -> Drawn:
    part = whole(draw, depth)
    return Drawn(_ints(part).then(lambda n: double.s(1, plus=n)), 2 + cast("int", part.value))


def _difference(draw: Draw, depth: int) -> Drawn:
    one, other = whole(draw, depth), whole(draw, depth)
    return Drawn(
        gather(_ints(one), _ints(other)).then(subtract), cast("int", one.value) - cast("int", other.value)
    )


def _sum(draw: Draw, depth: int) -> Drawn:
    part = numbers(draw, depth)
    return Drawn(chord(_lists(part), add_up), sum(cast("list[int]", part.value)))


def _unused(draw: Draw, depth: int) -> Drawn:
    before, after = whole(draw, depth), whole(draw, depth)
    return Drawn(_ints(before).then(lambda _: _ints(after)), after.value)


_NUMBERS = (_number, _packed, _doubled, _placed, _difference, _sum, _unused)


def numbers(draw: Draw, depth: int) -> Drawn:
    """Draw a part that comes to a list of numbers."""
    if draw(st.booleans()):
        members = [whole(draw, depth - 1 if depth > 0 else 0) for _ in range(draw(st.integers(0, 3)))]
        return Drawn(group(*map(_ints, members)), [member.value for member in members])
    if depth > 0 and draw(st.booleans()):
        part = numbers(draw, depth - 1)
        value = cast("list[int]", part.value)
        return Drawn(_lists(part).then(each(double)), [2 * one for one in value])
    count = draw(st.integers(0, 4))
    return Drawn(upto.s(count), list(range(count)))


def tolerant(draw: Draw, depth: int) -> Drawn:
    """Draw a group some of whose members fail."""
    members: list[Signature[int]] = []
    values: list[object] = []
    for _ in range(draw(st.integers(0, 3))):
        part = whole(draw, depth - 1)
        if draw(st.booleans()):
            members.append(_ints(part))
            values.append(Success(part.value))
        else:
            members.append(_ints(part).then(refuse).then(double))
            values.append(Failure)
    return Drawn(group(*members, allow_failures=True), values)


def flows(draw: Draw) -> Drawn:
    """Draw a whole flow, of two steps at least."""
    kind = draw(st.sampled_from((whole, numbers, tolerant)))
    part = kind(draw, draw(st.integers(1, 3)))
    if isinstance(part.signature.sendable, FlowCall):
        return part
    if kind is numbers:
        return Drawn(_lists(part).then(add_up), sum(cast("list[int]", part.value)))
    return Drawn(_ints(part).then(double), 2 * cast("int", part.value))


def _ints(part: Drawn) -> Signature[int]:
    return cast("Signature[int]", part.signature)


def _lists(part: Drawn) -> Signature[list[int]]:
    return cast("Signature[list[int]]", part.signature)


class Player:
    """A worker on a bench. It does to each delivery what is drawn, and counts what is settled."""

    def __init__(self, bench: Bench, draw: Draw) -> None:
        self._bench = bench
        self._draw = draw
        self._codecs = CodecBook()
        self._plans = Plans(registry, self._codecs, JsonCodec())
        self._troubles = 8
        """So many moves that are no success; then it succeeds with all, so that the flow ends."""
        self.succeeded: Counter[str] = Counter()

    async def play(self, drawn: Drawn) -> None:
        """Store a flow, run it to its end, and check what it came to."""
        bench = self._bench
        call = drawn.signature.sendable
        assert isinstance(call, FlowCall)
        flow = lower(call, JsonCodec(), check=True)
        await bench.store.job_enqueue(JobEnqueue(jobs=(), flows=[flow], all_or_none=True, now=bench.now))
        for _ in range(2000):
            deliveries = await bench.take(
                self._draw(st.integers(1, 6)), tasks=frozenset(BUILD_TASKS), build=self._plans.build
            )
            for delivery in deliveries:
                await self._move(delivery)
            if not deliveries:
                (record,) = await bench.store.flow_get(FlowGet(ids=[flow.id], now=bench.now))
                assert record is not None
                if record.state is FlowState.SUCCEEDED:
                    break
                bench.advance(2 * LEASE)
                await bench.reclaim()
        else:
            raise AssertionError("the flow does not end")
        await self._check(flow.id, call, drawn)

    async def _move(self, delivery: Delivery) -> None:
        bench = self._bench
        move = self._draw(st.sampled_from(MOVES)) if self._troubles else "succeed"
        self._troubles -= move != "succeed"
        if move == "crash":
            return  # nobody ever extends, and somebody reclaims
        outcome = await self._outcome(delivery, move)
        written = settlement(outcome, delivery, draw=0.0)
        if move == "crash late":
            await bench.lose_workers()
        (answer,) = await bench.answers(written)
        if answer.status is SettleStatus.SETTLED:
            self.succeeded[delivery.id] += answer.state is JobState.SUCCEEDED
        if move == "repeat":
            await self._repeat(written)
        if move == "fail":
            bench.advance(SECOND)

    async def _repeat(self, written: Settlement) -> None:
        (again,) = await self._bench.answers(written)
        assert again.status is not SettleStatus.SETTLED

    async def _outcome(self, delivery: Delivery, move: str) -> Outcome:
        if move == "fail":
            if delivery.attempt >= delivery.retry.max_attempts - 1:
                return Released()
            error = AttemptError(attempt=delivery.attempt, type="Drawn", message="drawn")
            return Failed(error, after=timedelta(0))
        if move == "snooze":
            return Snoozed(SECOND)
        if move == "release":
            return Released()
        run = self._plans.prepare(delivery, None, "player")
        assert isinstance(run, Run), run
        try:
            value = run.plan.call(run)
            if inspect.isawaitable(value):
                value = await value
        except ValueError as error:  # `refuse`
            told = AttemptError(attempt=delivery.attempt, type=type(error).__name__, message=str(error))
            return Rejected(told, "refused")
        return run.succeeded(value)

    async def _check(self, flow_id: str, call: FlowCall, drawn: Drawn) -> None:
        bench = self._bench
        last = await bench.record(flow_id)
        result = reader_of(call.node).read(last.result, last.result_codec, self._codecs)
        assert _same(drawn.value, result)
        (flow,) = await bench.store.flow_get(FlowGet(ids=[flow_id], now=bench.now))
        assert flow is not None
        assert {JobState.SUCCEEDED, JobState.DEAD, JobState.CANCELLED} >= flow.steps.keys()
        assert flow.steps[JobState.SUCCEEDED] == len(self.succeeded - Counter())
        assert {1} == set((self.succeeded - Counter()).values())


def _same(expected: object, result: object) -> bool:
    if not isinstance(expected, list) or not isinstance(result, list):
        return expected == result
    pairs = zip(cast("list[object]", expected), cast("list[object]", result), strict=True)
    return all(isinstance(b, Failure) if a is Failure else a == b for a, b in pairs)


OpenBench = Callable[[], Bench]
