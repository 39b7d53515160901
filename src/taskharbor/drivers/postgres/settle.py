"""job_settle: one statement a batch. It fences, and moves each job where its settlement sends it.

A pending cancel has the last word over all but a success. Jobs are locked in order of id, then keys, then leases.

The success of steps is one statement as well, which gives their results to those that wait for them (`advance`). What
may come to more than that, as where a step falls or has a sequel, is written in a transaction: *together*.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import timedelta
from typing import TypeAlias

import msgspec

from taskharbor.driver import JobSettle, looks_at_holder
from taskharbor.drivers.postgres.falling import LEFT_OVER, cancel_steps, fall, read
from taskharbor.drivers.postgres.foresight import lock_ahead
from taskharbor.drivers.postgres.routine import (
    Query,
    Routine,
    plain_array,
)
from taskharbor.drivers.postgres.rows import (
    BATCH_BYTES,
    json_text,
)
from taskharbor.drivers.postgres.sequel import write_sequels
from taskharbor.drivers.postgres.settling import (
    ANY,
    ANY_TOGETHER,
    ENDS_AS,
    STEPS_ALONE,
    STEPS_TOGETHER,
    SUCCESSES,
    common_cells,
    other_cells,
)
from taskharbor.drivers.postgres.step import Step
from taskharbor.drivers.postgres.stray import STRAY_LOCK, parked_strays
from taskharbor.drivers.postgres.uniqueness import Unforeseen
from taskharbor.flow import Sequel
from taskharbor.job import JobState
from taskharbor.settlement import Settled, SettleKind, Settlement, SettleStatus

_ALREADY = Settled(SettleStatus.ALREADY)
_STALE = Settled(SettleStatus.STALE)
_SETTLED = {state: Settled(SettleStatus.SETTLED, state) for state in JobState}
_SUCCEEDED = _SETTLED[JobState.SUCCEEDED]
_SUCCEED = SettleKind.SUCCEED
TOGETHER = Settled(SettleStatus.STALE)
"""Stands for an answer, by its identity: this settlement is to be written by `job_settle_together`."""
_ROWS = 2000
_ANEW = 10
"""How often at most. After that a deadlock is risked, which the server would end."""

_Name: TypeAlias = tuple[str, int]
"""A delivery: id of the job, and token."""
_States: TypeAlias = dict[_Name, JobState]
_Settle: TypeAlias = Callable[[Step, Sequence[Settlement]], Routine[_States]]

_BEFORE = """SELECT id::text, token, settled, waits IS NOT NULL FROM taskharbor.job WHERE id = ANY ($1::text::uuid[])
    UNION ALL SELECT id::text, NULL, settled, NULL FROM taskharbor.history WHERE id = ANY ($1::text::uuid[])"""
_STRAY_NOW = """SELECT j.id::text, s.refused_by FROM taskharbor.job j JOIN taskharbor.stray s ON s.id = j.stray
    WHERE j.id = ANY ($1::text::uuid[])"""
_ADD_STRAY = """INSERT INTO taskharbor.stray (task, refused_by) SELECT j.task, $2::text FROM taskharbor.job j
    WHERE j.id = $1::text::uuid ON CONFLICT DO NOTHING"""
_STRAY_OF = """SELECT s.id FROM taskharbor.stray s JOIN taskharbor.job j ON j.task = s.task
    WHERE j.id = $1::text::uuid AND s.refused_by = $2::text"""


def needs_transaction(request: JobSettle) -> bool:
    """Return whether it comes to more than one statement that have to be written together."""
    settlements = request.settlements
    if _bulky(settlements) or any(s.kind is SettleKind.STRAY or s.sequel is not None for s in settlements):
        return True
    return any(s.step for s in settlements) and any(s.kind is not _SUCCEED for s in settlements)


def job_settle(step: Step, request: JobSettle) -> Routine[Sequence[Settled]]:
    """Write down how deliveries ended and return one answer each, in order.

    What has to be written together with something else is not, and answered with `TOGETHER`.
    """
    return (yield from _job_settle(step, request.settlements, _alone))


def job_settle_together(step: Step, request: JobSettle) -> Routine[Sequence[Settled]]:
    """Write down how deliveries ended and return one answer each, in order; in a transaction."""
    return (yield from _job_settle(step, request.settlements, _together))


def job_settle_unless_held(
    step: Step, request: JobSettle, *, patience: timedelta
) -> Routine[Sequence[Settled]]:
    """Do the same, but wait no longer than this for any lock; it is an error if that is not enough."""
    milliseconds = int(patience / timedelta(milliseconds=1))
    yield Query("SELECT set_config('lock_timeout', $1::text, true)", (str(milliseconds),))
    return (yield from job_settle_together(step, request))


def _job_settle(step: Step, settlements: Sequence[Settlement], settle: _Settle) -> Routine[Sequence[Settled]]:
    first = {(settlement.job_id, settlement.token): settlement for settlement in reversed(settlements)}
    states: _States = {}
    for turn in _turns(first):
        for part in _parts([first[name] for name in sorted(turn)]):
            states.update((yield from settle(step, part)))
    if len(states) == len(settlements):  # as a rule
        return [_SETTLED[states[settlement.job_id, settlement.token]] for settlement in settlements]
    rest = {name: settlement for name, settlement in first.items() if name not in states}
    settled, steps = yield from _look_again(step, rest, states, settle)
    answers: list[Settled] = []
    for settlement in settlements:
        name = (settlement.job_id, settlement.token)
        if name in states and first[name] is settlement:
            answers.append(_SETTLED[states[name]])
        elif name in steps:
            answers.append(TOGETHER)
        else:  # the batch may have named it before
            before = name in states or settled.get(settlement.job_id) == settlement.token
            answers.append(_ALREADY if before else _STALE)
    return answers


def _turns(names: Iterable[_Name]) -> list[list[_Name]]:
    """Return the names in turns of which each has a job once: only one of its tokens can be the valid one."""
    turns: list[list[_Name]] = []
    met: Counter[str] = Counter()
    for name in names:
        turn = met[name[0]]
        met[name[0]] += 1
        if turn == len(turns):
            turns.append([])
        turns[turn].append(name)
    return turns


def _id(settlement: Settlement) -> str:
    return settlement.job_id


def _alone(step: Step, settlements: Sequence[Settlement]) -> Routine[_States]:
    """Write settlements of different jobs, and return where those stand that their leases allowed."""
    if not all([settlement.kind is _SUCCEED and settlement.charge for settlement in settlements]):  # noqa: C419 - quicker
        return (yield from _others(step, settlements, ANY))
    if any([settlement.step for settlement in settlements]):  # noqa: C419 - quicker
        return (yield from _steps(step, settlements, STEPS_ALONE))
    rows = yield Query(SUCCESSES, common_cells(step, settlements))
    step.wakes.jobs.extend([row[0] for row in rows if row[2]])
    step.wakes.queues.update([row[1] for row in rows if row[1] is not None])
    tokens = {settlement.job_id: settlement.token for settlement in settlements}
    return dict.fromkeys([(row[0], tokens[row[0]]) for row in rows], JobState.SUCCEEDED)


def _together(step: Step, settlements: Sequence[Settlement]) -> Routine[_States]:
    """Write settlements of different jobs with all that they bring with them, whether or not they are steps.

    All jobs are locked before any key. Where somebody takes a key meanwhile that one of these wants, so that another
    job would have to be locked, all is undone and begun anew: he who is waited for never waits for us.
    """
    if not any(
        s.sequel is not None and any(looks_at_holder(job) for job in s.sequel.jobs) for s in settlements
    ):
        return (yield from _written(step, settlements))
    yield Query("SAVEPOINT settlement")
    for _ in range(_ANEW):
        try:
            return (yield from _written(step, settlements))
        except Unforeseen:
            yield Query("ROLLBACK TO SAVEPOINT settlement")
    return (yield from _written(step, settlements, in_order=False))


def _written(step: Step, settlements: Sequence[Settlement], *, in_order: bool = True) -> Routine[_States]:
    locked = yield from lock_ahead(step, settlements)
    foreseen = locked if in_order else None
    states: _States = {}
    successes = [settlement for settlement in settlements if settlement.kind is _SUCCEED]
    others = [settlement for settlement in settlements if settlement.kind is not _SUCCEED]
    if successes:
        states.update((yield from _steps(step, successes, STEPS_TOGETHER, foreseen)))
    if others:
        states.update((yield from _others(step, others, ANY_TOGETHER)))
    return states


def _steps(
    step: Step, settlements: Sequence[Settlement], sql: str, foreseen: Collection[str] | None = None
) -> Routine[_States]:
    """Write successes, of steps among others."""
    rows = yield Query(sql, common_cells(step, settlements))
    told = {settlement.job_id: settlement for settlement in settlements}
    states: _States = {}
    risen: list[str] = []
    brings: list[tuple[str | None, Sequel]] = []
    absorbing: list[str] = []
    for job_id, what, awaited, flow, queue in rows:
        if what == "risen":
            risen.append(job_id)
            step.wakes.queues.add(queue)
        elif what == "absorbing":
            absorbing.append(job_id)
        else:
            settlement = told[job_id]
            states[job_id, settlement.token] = JobState.SUCCEEDED
            if settlement.sequel is not None:
                brings.append((flow, settlement.sequel))
            if awaited:
                step.wakes.jobs.append(job_id)
            if queue is not None:
                step.wakes.queues.add(queue)
    if brings:
        yield from write_sequels(step, brings, risen, foreseen)
    for flow in sorted(absorbing):
        yield from cancel_steps(step, flow, reason=LEFT_OVER, verb=None, by="")
    return states


def _others(step: Step, settlements: Sequence[Settlement], sql: str) -> Routine[_States]:
    """Write settlements of any kind."""
    numbers = yield from _stray_numbers(settlements)
    rows = yield Query(sql, (*common_cells(step, settlements), *other_cells(settlements, numbers)))
    step.wakes.jobs.extend([row[0] for row in rows if row[2]])
    tokens = {settlement.job_id: settlement.token for settlement in settlements}
    states = {row[0]: JobState(row[1]) for row in rows}
    waiting = [
        (job_id, queue, stray) for job_id, _, _, queue, stray, _ in rows if states[job_id] not in _TERMINAL
    ]
    step.wakes.queues.update([row[3] for row in rows if row[3] is not None])
    if any(stray for _, _, stray in waiting):
        parked = yield from parked_strays(step)
        states.update((job_id, JobState.PARKED) for job_id, _, stray in waiting if stray in parked)
    yield from fall(step, read(row[5] for row in rows))
    return {(job_id, tokens[job_id]): state for job_id, state in states.items()}


_TERMINAL = frozenset(ENDS_AS.values())


def _look_again(
    step: Step, rest: dict[_Name, Settlement], states: _States, settle: _Settle
) -> Routine[tuple[dict[str, int], set[_Name]]]:
    """Settle what was changed meanwhile, as by a cancel.

    Returns:
        Which token settled each of the others last; which of them are steps that are to be settled together.
    """
    settled: dict[str, int] = {}
    # Each turn is missed again only by what somebody has changed since the one before.
    while rest:
        found = yield Query(_BEFORE, (plain_array(sorted({job_id for job_id, _ in rest})),))
        settled = {job_id: token for job_id, _, token, _ in found if token is not None}
        held = {(job_id, token): is_step for job_id, token, _, is_step in found if (job_id, token) in rest}
        if settle is _alone and any(held.values()):
            steps = {name for name, is_step in held.items() if is_step}
            plain = {name: settlement for name, settlement in rest.items() if name not in steps}
            settled, _ = yield from _look_again(step, plain, states, settle)
            return settled, steps
        if not held:
            break
        states.update((yield from settle(step, sorted([rest[name] for name in held], key=_id))))
        rest = {name: settlement for name, settlement in rest.items() if name not in states}
    return settled, set()


def _stray_numbers(settlements: Iterable[Settlement]) -> Routine[dict[str, int]]:
    """Return the numbers of the stray lanes that jobs move to, made when first needed."""
    strayed = [settlement for settlement in settlements if settlement.kind is SettleKind.STRAY]
    if not strayed:
        return {}
    yield Query(f"SELECT pg_advisory_xact_lock_shared({STRAY_LOCK})")
    rows = yield Query(_STRAY_NOW, (plain_array([settlement.job_id for settlement in strayed]),))
    before = {job_id: msgspec.json.decode(refused_by, type=list[str]) for job_id, refused_by in rows}
    numbers: dict[str, int] = {}
    for settlement in strayed:
        builds = set(before.get(settlement.job_id, ()))
        if settlement.refused_by is not None:
            builds.add(settlement.refused_by)
        words = (settlement.job_id, json_text(sorted(builds)))
        found = yield Query(_STRAY_OF, words)
        if not found:
            yield Query(_ADD_STRAY, words)
            found = yield Query(_STRAY_OF, words)
        if found:  # not so for a job that is gone
            numbers[settlement.job_id] = found[0][0]
    return numbers


def _bulky(settlements: Sequence[Settlement]) -> bool:
    return len(settlements) > _ROWS or sum([len(s.result or b"") for s in settlements]) > BATCH_BYTES


def _parts(settlements: Sequence[Settlement]) -> Iterable[Sequence[Settlement]]:
    """Yield settlements in parts that one statement can take."""
    if not _bulky(settlements):
        if settlements:
            yield settlements
        return
    part: list[Settlement] = []
    size = 0
    for settlement in settlements:
        length = len(settlement.result or b"")
        if part and (len(part) >= _ROWS or size + length > BATCH_BYTES):
            yield part
            part, size = [], 0
        part.append(settlement)
        size += length
    yield part
