"""job_settle: fence, then write what the settlement says; a pending cancel has the last word over all but a success.

What steps came to is handed on in the same transaction (`advance`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import msgspec

from taskharbor.clock import duration_micros
from taskharbor.driver import JobSettle
from taskharbor.drivers.sqlite.advance import Advance
from taskharbor.drivers.sqlite.leaving import HELD, HELD_COLUMNS, Held, Leaving
from taskharbor.drivers.sqlite.routine import Query, Routine
from taskharbor.drivers.sqlite.rows import FRONT, NORMAL, Step, json_text
from taskharbor.drivers.sqlite.upkeep import parked_strays
from taskharbor.job import TERMINAL, JobState
from taskharbor.settlement import Settled, SettleKind, Settlement, SettleStatus

_ALREADY = Settled(SettleStatus.ALREADY)
_STALE = Settled(SettleStatus.STALE)
_SETTLED = {state: Settled(SettleStatus.SETTLED, state) for state in JobState}
_SUCCEEDED = _SETTLED[JobState.SUCCEEDED]
_SUCCEED = SettleKind.SUCCEED

_fences = msgspec.json.Decoder(list[tuple[str, int | None, int | None, int]])
_ended = msgspec.json.Decoder(list[tuple[str, int | None]])

_KEYED, _STEP = 1, 2
"""What `_FENCES` says of a job in one number."""

_HELD_AND_KEYED = """SELECT count(*), count(j.key), count(j.step) FROM json_each(?) e
    CROSS JOIN taskharbor_job j ON j.id = e.value ->> 0 AND j.token = e.value ->> 1"""
_FENCES = """SELECT json_group_array(json_array(j.id, j.token, j.settled,
        (j.key IS NOT NULL) + 2 * (j.step IS NOT NULL)))
    FROM json_each(?) e CROSS JOIN taskharbor_job j ON j.id = e.value"""
_ENDED = """SELECT json_group_array(json_array(id, settled)) FROM (
    SELECT id, settled FROM taskharbor_history WHERE id IN (SELECT value FROM json_each(?1))
    UNION ALL SELECT id, settled FROM taskharbor_dead WHERE id IN (SELECT value FROM json_each(?1)))"""
_HELD = f"""SELECT json_group_array({HELD_COLUMNS})
    FROM json_each(?) e CROSS JOIN taskharbor_job j ON j.id = e.value"""  # noqa: S608 - our own constants
_STRAY_OF = "SELECT id, refused_by FROM taskharbor_stray WHERE task = ? AND refused_by = ?"
_REFUSED_BY = "SELECT refused_by FROM taskharbor_stray WHERE id = ?"


def job_settle(step: Step, request: JobSettle) -> Routine[Sequence[Settled]]:
    """Write down how deliveries ended and return one answer each, in order."""
    settlements = request.settlements
    if not settlements:
        return []
    leaving = Leaving(step)
    plain, steps = yield from _all_plain_successes(settlements)
    if plain:
        leaving.succeed_all(settlements)
        yield from _write(leaving, settlements, steps, step)
        return [_SUCCEEDED] * len(settlements)
    held, keyed, stepped, settled = yield from _fence(settlements)
    succeeded: list[Settlement] = []
    answers: list[Settled | None] = []
    others: list[tuple[int, Settlement]] = []
    for settlement in settlements:
        job_id, token = settlement.job_id, settlement.token
        if held.get(job_id) != token:
            answers.append(_ALREADY if settled.get(job_id) == token else _STALE)
            continue
        del held[job_id]
        settled[job_id] = token  # should the batch name it twice
        if settlement.kind is _SUCCEED:
            leaving.succeed(
                job_id,
                token,
                settlement.result,
                settlement.codec,
                charge=settlement.charge,
                keyed=job_id in keyed,
            )
            answers.append(_SUCCEEDED)
            succeeded.append(settlement)
        else:
            others.append((len(answers), settlement))
            answers.append(None)
    states: list[JobState] = []
    if others:
        states = yield from _settle_others([settlement for _, settlement in others], leaving, step.now)
    ended = yield from _write(leaving, succeeded, stepped, step)
    for (place, settlement), state in zip(others, states, strict=True):
        # What waits again may have been cancelled with its flow, which another of the batch has ended.
        gone = settlement.job_id in ended and state not in TERMINAL
        answers[place] = _SETTLED[JobState.CANCELLED if gone else state]
    return [answer for answer in answers if answer is not None]


def _write(leaving: Leaving, succeeded: Sequence[Settlement], steps: bool, step: Step) -> Routine[set[str]]:
    """Write it all down, and what it means for other steps; return the ids of those that ended by it."""
    if not (steps or any(settlement.sequel is not None for settlement in succeeded)):
        yield from leaving.write()
        return set()
    advance = Advance(step)
    leaving.steps_succeeded = steps
    yield from advance.succeed(succeeded, steps=steps)
    yield from advance.fall(leaving.falls)
    yield from leaving.write()
    before = len(step.wakes.jobs)
    yield from advance.write()
    return set(step.wakes.jobs[before:])


def _all_plain_successes(settlements: Sequence[Settlement]) -> Routine[tuple[bool, bool]]:
    """Return whether all are successes under valid leases, of jobs without keys, as in nearly all batches; and whether
    steps are among them.
    """
    if not all(settlement.kind is _SUCCEED for settlement in settlements):
        return False, False
    # A job that the batch names twice is counted once, and so is not plain.
    fences = {settlement.job_id: settlement.token for settlement in settlements}
    ((held, keyed, steps),) = yield Query(_HELD_AND_KEYED, (json_text(list(fences.items())),))
    return bool(held == len(settlements) and not keyed), bool(steps)


def _fence(
    settlements: Sequence[Settlement],
) -> Routine[tuple[dict[str, int], set[str], bool, dict[str, int]]]:
    """Return under which token each job is held, which of them have a key, whether any is a step, and which token
    settled each last.
    """
    ids = {settlement.job_id for settlement in settlements}
    ((found,),) = yield Query(_FENCES, (json_text(list(ids)),))
    held: dict[str, int] = {}
    keyed: set[str] = set()
    stepped = False
    settled: dict[str, int] = {}
    for job_id, token, before, kinds in _fences.decode(found):
        ids.discard(job_id)
        if token is not None:
            held[job_id] = token
        if before is not None:
            settled[job_id] = before
        if kinds & _KEYED:
            keyed.add(job_id)
        if kinds & _STEP:
            stepped = True
    if ids:
        ((found,),) = yield Query(_ENDED, (json_text(list(ids)),))
        settled.update((job_id, token) for job_id, token in _ended.decode(found) if token is not None)
    return held, keyed, stepped, settled


def _settle_others(settlements: Sequence[Settlement], leaving: Leaving, now: int) -> Routine[list[JobState]]:
    ids = json_text([settlement.job_id for settlement in settlements])
    ((found,),) = yield Query(_HELD, (ids,))
    jobs = {job.id: job for job in HELD.decode(found)}
    ends: list[tuple[Held, JobState | int]] = []
    for settlement in settlements:
        job = jobs[settlement.job_id]
        job.attempt += settlement.charge
        ended = JobState.CANCELLED if job.cancel is not None else _ends_as(settlement.kind)
        if ended is not None:
            reason = settlement.reason if job.cancel is None else job.cancel
            leaving.finish(job, ended, reason, error=settlement.error, settled=settlement.token)
            ends.append((job, ended))
        else:
            due, lane = yield from _waits(job, settlement, now)
            leaving.back(job, due, lane, error=settlement.error, settled=settlement.token)
            ends.append((job, due))
    # Looked up last: a settlement of this batch may have made a new kind of stray.
    parked = (yield from parked_strays(now)) if any(job.stray for job, _ in ends) else set[int]()
    return [end if isinstance(end, JobState) else _waiting_state(job, end, parked, now) for job, end in ends]


def _waiting_state(job: Held, due: int, parked: set[int], now: int) -> JobState:
    if job.stray in parked:
        return JobState.PARKED
    if due > now:
        return JobState.RETRYING if job.attempt else JobState.SCHEDULED
    return JobState.READY


def _ends_as(kind: SettleKind) -> JobState | None:
    """Return the terminal state that this kind leads to, None where the job waits again."""
    match kind:
        case SettleKind.BURY:
            return JobState.DEAD
        case SettleKind.CANCEL:
            return JobState.CANCELLED
        case SettleKind.SUCCEED:
            return JobState.SUCCEEDED
        case SettleKind.RETRY | SettleKind.SNOOZE | SettleKind.RELEASE | SettleKind.STRAY:
            return None
        case _:
            assert_never(kind)


def _waits(job: Held, settlement: Settlement, now: int) -> Routine[tuple[int, int]]:
    """Note in the job how it waits again; return when it is due, and its lane."""
    if settlement.kind is SettleKind.RELEASE:
        return now, FRONT
    if settlement.kind is SettleKind.STRAY:
        job.stray = yield from _strayed(job, settlement.refused_by)
        job.stray_reason = settlement.reason
        return now, NORMAL
    job.lost = 0
    return now + (0 if settlement.after is None else duration_micros(settlement.after)), NORMAL


def _strayed(job: Held, refused_by: str | None) -> Routine[int]:
    """Return the number of the stray lanes that a job moves to, made when first needed."""
    builds: set[str] = set()
    if job.stray:
        ((before,),) = yield Query(_REFUSED_BY, (job.stray,))
        builds.update(msgspec.json.decode(before, type=list[str]))
    if refused_by is not None:
        builds.add(refused_by)
    text = json_text(sorted(builds))
    yield Query("INSERT OR IGNORE INTO taskharbor_stray (task, refused_by) VALUES (?, ?)", (job.task, text))
    ((number, _),) = yield Query(_STRAY_OF, (job.task, text))
    return int(number)
