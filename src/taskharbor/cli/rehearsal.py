"""What would be done, and which of the jobs could run: `--dry-run`. Nothing is changed by it.

Each job is decoded with today's signature of its task, as a worker of this application would. Alike answers are counted
together, with a few ids as examples: memory does not grow with the jobs, but with the flows that would end by the
length of an id.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import msgspec

from taskharbor.cli.fate import Fates
from taskharbor.cli.listing import look_up
from taskharbor.cli.output import json_line, line, note, progress
from taskharbor.cli.tables import table, width
from taskharbor.cli.verbs import Verb
from taskharbor.errors import PayloadError, UnknownTaskError
from taskharbor.harbor import Harbor
from taskharbor.job import JobRecord, JobState

_EXAMPLES = 3
_NO_APPLICATION = "no application was named (--app)"
_REASONS = 20
"""So many reasons of one task are told apart; what comes then is counted together."""
_STEPS = 50
"""So many steps of flows are looked up at once: what earlier ones gave them may be large."""


class _Case(msgspec.Struct, frozen=True):
    """Jobs that are alike: what would be done with them, and whether they could run."""

    task: str
    state: JobState
    would: str
    runs: bool | None
    """None where nobody knows, for want of an application."""
    why: str


class _Group(msgspec.Struct):
    count: int = 0
    examples: list[str] = []
    flows: int = 0
    """Flows that would end with them; each is counted once, where it is met first."""


def rehearse(
    harbor: Harbor,
    found: Iterable[Sequence[JobRecord]],
    verb: Verb,
    noun: str,
    *,
    total: int | None = None,
    named: bool = False,
    as_json: bool,
) -> bool:
    """Print what would become of jobs, group by group, and return whether it is as one would wish.

    It is if all could run that are decoded, where the verb makes jobs run; and with `named`, as with the command
    itself, if it would be done to each.
    """
    groups: dict[_Case, _Group] = {}
    reasons: dict[str, set[str]] = {}
    fates = Fates(harbor)
    with progress("decode", total) as advance:
        for page in found:
            fates.meet(page)
            for record in _whole(harbor, page):
                case = _bounded(_case(harbor, record, verb, fates), reasons)
                group = groups.setdefault(case, _Group())
                group.count += 1
                if record.flow is not None and record.state in verb.ends_flows:
                    group.flows += fates.ends(record.flow)
                if len(group.examples) < _EXAMPLES:
                    group.examples.append(record.id)
            advance(len(page))
    ordered = sorted(
        groups.items(), key=lambda item: (item[0].task, item[0].state, item[0].would, item[0].why)
    )
    if as_json:
        for case, group in ordered:
            json_line({**msgspec.structs.asdict(case), **msgspec.structs.asdict(group)})
    elif ordered:
        _show(ordered, verb, noun)
    if named and any(case.would.startswith("not ") for case in groups):
        return False
    return not verb.runs or all(case.runs is not False for case in groups)


def _whole(harbor: Harbor, page: Sequence[JobRecord]) -> Iterator[JobRecord]:
    """Yield jobs with what earlier steps gave them, where they are steps: a page does not tell of it."""
    steps = iter([record.id for record in page if record.flow is not None and record.step is None])
    looked: dict[str, JobRecord] = {}
    for record in page:
        if record.flow is None or record.step is not None:
            yield record
            continue
        if record.id not in looked:
            ids = list(islice(steps, _STEPS))
            records = look_up(harbor, ids)
            looked = {one.id: one for one in records if one is not None}
        yield looked.get(record.id, record)


def _case(harbor: Harbor, record: JobRecord, verb: Verb, fates: Fates) -> _Case:
    runs, why = _decoded(harbor, record)
    would = verb.otherwise.get(record.state, verb.done)
    over = record.flow is not None and (record.state is JobState.CANCELLED or fates.ended(record.flow))
    if over and would == verb.done:
        would = verb.otherwise_step or would
    return _Case(record.task, record.state, would, runs, why.replace(record.id, "..."))


def _decoded(harbor: Harbor, record: JobRecord) -> tuple[bool | None, str]:
    """Return whether a job's arguments fit the signature that its task has today, and why not."""
    if not len(harbor.registry):
        return None, _NO_APPLICATION
    if record.state in (JobState.SUCCEEDED, JobState.CANCELLED) and record.flow is not None:
        return None, "what earlier steps gave it is not kept"
    if record.state is JobState.WAITING:
        return None, "it waits for the results of earlier steps"
    try:
        harbor.arguments_of(record)
    except UnknownTaskError:
        return False, "its task is not registered"
    except PayloadError as error:
        return False, str(error)
    except Exception as error:  # noqa: BLE001 - of a user's own codec or type, as it would be for a worker
        return False, f"{type(error).__qualname__} is raised when its arguments are decoded"
    return True, ""


def _bounded(case: _Case, reasons: dict[str, set[str]]) -> _Case:
    """Return the case; with a reason that stands for all others, where its task has had very many."""
    known = reasons.setdefault(case.task, set())
    if case.why in known or len(known) < _REASONS:
        known.add(case.why)
        return case
    return msgspec.structs.replace(case, why="other reasons")


def _outlook(ordered: Sequence[tuple[_Case, _Group]], verb: Verb) -> str:
    """Return how many of those that are done could run, where the verb makes jobs run."""
    runs = [(case.runs, group.count) for case, group in ordered if case.would == verb.done]
    if not verb.runs or not runs:
        return ""
    if all(case.why == _NO_APPLICATION for case, _ in ordered):
        return "; whether they could run is unknown: no application was named (--app)"
    return f"; {sum(count for could, count in runs if could):,} could run"


def _show(ordered: Sequence[tuple[_Case, _Group]], verb: Verb, noun: str) -> None:
    told = {True: "yes", False: "no", None: "unknown"}
    apart = width() is not None  # folded within a column, ids could not be copied
    table(
        ("task", "state", "jobs", "would be", "could run", "why", *(() if apart else ("for example",))),
        [
            (
                case.task,
                case.state.value,
                f"{group.count:,}",
                case.would,
                told[case.runs],
                case.why,
                *(() if apart else (" ".join(group.examples),)),
            )
            for case, group in ordered
        ],
    )
    if apart:
        line()
        table(
            ("for example", "task", "state", "would be"),
            [
                (job_id, case.task, case.state.value, case.would)
                for case, group in ordered
                for job_id in group.examples
            ],
        )
    total = sum(group.count for _, group in ordered)
    done = sum(group.count for case, group in ordered if case.would == verb.done)
    line()
    line(
        f"{done:,} of {total:,} {noun}{'' if total == 1 else 's'} would be {verb.done}{_outlook(ordered, verb)}."
    )
    flows = sum(group.flows for _, group in ordered)
    if flows:
        line(
            f"{flows:,} flow{'' if flows == 1 else 's'} would end with them, but for such as take a step's failure as "
            "a value."
        )
    note("Nothing was changed.")
