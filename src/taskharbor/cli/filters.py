"""Which jobs a command means: the filters, and the options that a command gets for them.

A command that takes filters says `@filtered(...)` and has a parameter `wanted: Filter`; in its place it gets the
options, so that they are named, explained and read alike everywhere.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TypedDict, cast

import msgspec
import typer

from taskharbor.cli.completing import complete_queue, complete_task
from taskharbor.cli.output import told_time
from taskharbor.cli.values import duration, narrowed, narrowing
from taskharbor.control import JobFilters
from taskharbor.errors import OptionError, nearest
from taskharbor.harbor import Harbor
from taskharbor.job import TERMINAL, JobState

Command = Callable[..., None]

UNFINISHED = "unfinished"
"""Stands for every state that is not terminal."""
_STATES = [state.value for state in JobState]


class Age(Enum):
    """From when `--older-than` and `--newer-than` count, and how that is told."""

    ENQUEUED = "enqueued"
    DIED = "that died"


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which jobs are meant; empty means any."""

    states: Sequence[JobState] = ()
    queues: Sequence[str] = ()
    tasks: Sequence[str] = ()
    error: str = ""
    text: str = ""
    enqueued_since: datetime | None = None
    enqueued_before: datetime | None = None
    finished_since: datetime | None = None
    finished_before: datetime | None = None
    key: str | None = None
    flow: str = ""

    def counted(self) -> JobFilters:
        """Return what a count can filter by: all but states, key and flow."""
        return JobFilters(
            queues=self.queues,
            tasks=self.tasks,
            error=self.error,
            text=self.text,
            enqueued_since=self.enqueued_since,
            enqueued_before=self.enqueued_before,
            finished_since=self.finished_since,
            finished_before=self.finished_before,
        )

    def is_given(self) -> bool:
        """Return whether anything narrows it down."""
        return self != Filter()

    def told(self) -> str:
        """Return it in words, as the audit trail keeps them."""
        parts = {
            "state": ", ".join(self.states),
            "queue": ", ".join(self.queues),
            "task": ", ".join(self.tasks),
            "error": self.error,
            "text": self.text,
            "key": self.key or "",
            "flow": self.flow,
            "enqueued since": told_time(self.enqueued_since),
            "enqueued before": told_time(self.enqueued_before),
            "ended since": told_time(self.finished_since),
            "ended before": told_time(self.finished_before),
        }
        return "; ".join(f"{name} {value}" for name, value in parts.items() if value)

    def of(self, states: Sequence[JobState]) -> Filter:
        """Return it for jobs in these states, if it names none itself."""
        return self if self.states else msgspec.structs.replace(self, states=states)

    def until(self, moment: datetime) -> Filter:
        """Return it for those there were at a moment: that had ended, if it means such alone, else been enqueued."""
        if self.states and TERMINAL.issuperset(self.states):
            return msgspec.structs.replace(self, finished_before=min(self.finished_before or moment, moment))
        return msgspec.structs.replace(self, enqueued_before=min(self.enqueued_before or moment, moment))


def counts_of(harbor: Harbor, wanted: Filter) -> Mapping[JobState, int] | None:
    """Return how many jobs match, by state; None where a count cannot tell: by key, or by flow."""
    if wanted.key is not None or wanted.flow:
        return None
    found: dict[JobState, int] = {}
    for some in harbor.jobs.count(**wanted.counted()):
        if not wanted.states or some.state in wanted.states:
            found[some.state] = found.get(some.state, 0) + some.count
    return {state: found[state] for state in JobState if state in found}


def told_states() -> str:
    """Return the states that can be asked for."""
    return f"{', '.join(_STATES)}; or {UNFINISHED}, which is all that have not ended"


def states_of(given: Iterable[str] | None) -> Sequence[JobState]:
    """Return the states that are named.

    Raises:
        OptionError: there is no such state, or it was given and names none.
    """
    found: list[JobState] = []
    for name in narrowing("--state", given):
        if name == UNFINISHED:
            found.extend(state for state in JobState if state not in TERMINAL)
        elif name in _STATES:
            found.append(JobState(name))
        else:
            hint = nearest(name, [*_STATES, UNFINISHED])
            raise OptionError(f"--state {name!r}: no job has this state{hint}; there are {told_states()}")
    return found


class _Said(TypedDict, total=False):
    """The values of the options, by the names of their parameters."""

    state: list[str] | None
    queue: list[str] | None
    task: list[str] | None
    error: str | None
    text: str | None
    older_than: timedelta | None
    newer_than: timedelta | None
    key: str | None
    flow: str | None


def filtered(age: Age, *, by_state: bool = True) -> Callable[[Command], Command]:
    """Give a command the options of a filter in place of its parameter `wanted`.

    Args:
        age: what `--older-than` and `--newer-than` count from.
        by_state: with `--state`, `--key` and `--flow`, which a command about jobs in one state does without.
    """
    options = _options(age, by_state=by_state)

    def give(command: Command) -> Command:
        def run(**arguments: object) -> None:
            said = {one.name: arguments.pop(one.name) for one in options}
            command(**arguments, wanted=_filter(cast("_Said", cast("object", said)), age))

        parameters: list[inspect.Parameter] = []
        for one in inspect.signature(command, eval_str=True).parameters.values():
            parameters.extend(options if one.name == "wanted" else [one.replace(kind=one.KEYWORD_ONLY)])
        run.__doc__, run.__module__ = command.__doc__, command.__module__
        run.__annotations__ = {one.name: cast("object", one.annotation) for one in parameters}
        run.__dict__["__signature__"] = inspect.Signature(parameters)
        return run

    return give


def _filter(said: _Said, age: Age) -> Filter:
    now = datetime.now(UTC)
    older, newer = said.get("older_than"), said.get("newer_than")
    before = None if older is None else ago(now, older)
    since = None if newer is None else ago(now, newer)
    return Filter(
        states=tuple(states_of(said.get("state"))),
        queues=tuple(narrowing("--queue", said.get("queue"))),
        tasks=tuple(narrowing("--task", said.get("task"), commas=False)),
        error=narrowed("--error", said.get("error")) or "",
        text=narrowed("--text", said.get("text")) or "",
        enqueued_since=since if age is Age.ENQUEUED else None,
        enqueued_before=before if age is Age.ENQUEUED else None,
        finished_since=since if age is Age.DIED else None,
        finished_before=before if age is Age.DIED else None,
        key=narrowed("--key", said.get("key")),
        flow=narrowed("--flow", said.get("flow")) or "",
    )


def ago(now: datetime, age: timedelta) -> datetime:
    """Return the instant so long ago; raises `OptionError` where no calendar has it."""
    try:
        return now - age
    except OverflowError as error:
        raise OptionError(f"{age} ago is before all calendars") from error


def _options(age: Age, *, by_state: bool) -> list[inspect.Parameter]:
    """Return the options as parameters, in the order in which help tells them."""
    narrowing = [
        _option(
            list[str] | None,
            typer.Option(
                None,
                "--queue",
                metavar="NAMES",
                help="Only of these queues; with commas, or repeated.",
                show_default="all",
                autocompletion=complete_queue,
            ),
        ),
        _option(
            list[str] | None,
            typer.Option(
                None,
                "--task",
                metavar="NAME",
                help="Only of this task; repeatable.",
                show_default="all",
                autocompletion=complete_task,
            ),
        ),
        _option(
            str | None,
            typer.Option(
                None,
                "--error",
                metavar="TYPE",
                help="Only those whose last error is of this type: `ValueError`, or its qualified name.",
                show_default="any or none",
            ),
        ),
        _option(
            str | None,
            typer.Option(
                None,
                "--text",
                metavar="TEXT",
                help="Only with this text in their reason or in their last error's message; a is A.",
                show_default="any",
            ),
        ),
        _option(
            timedelta | None,
            typer.Option(
                None,
                "--older-than",
                metavar="DURATION",
                parser=duration,
                help=f"Only those {age.value} longer ago than this: `2h`, `30d`.",
                show_default="of any age",
            ),
        ),
        _option(
            timedelta | None,
            typer.Option(
                None,
                "--newer-than",
                metavar="DURATION",
                parser=duration,
                help=f"Only those {age.value} no longer ago than this.",
                show_default="of any age",
            ),
        ),
    ]
    return [_state_option(), *narrowing, *_more_options()] if by_state else narrowing


def _state_option() -> inspect.Parameter:
    return _option(
        list[str] | None,
        typer.Option(
            None,
            "--state",
            metavar="STATES",
            help=f"Only in these states; with commas, or repeated: {told_states()}.",
            show_default="all",
            autocompletion=lambda: [*_STATES, UNFINISHED],
        ),
    )


def _more_options() -> list[inspect.Parameter]:
    return [
        _option(
            str | None,
            typer.Option(
                None,
                "--key",
                metavar="TEXT",
                help="Only with this idempotency key.",
                show_default="with any or none",
            ),
        ),
        _option(
            str | None,
            typer.Option(
                None, "--flow", metavar="ID", help="Only steps of this flow.", show_default="of any or none"
            ),
        ),
    ]


def _option(kind: object, option: object) -> inspect.Parameter:
    """Return an option as a parameter that bears its name."""
    names = cast("Sequence[str]", getattr(option, "param_decls", ()))
    name = names[0].removeprefix("--").replace("-", "_")
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind)
