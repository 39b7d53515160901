"""What `@task(schedule=...)` declares: the times at which a task is called without arguments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

from taskharbor.errors import OptionError, TaskDefinitionError
from taskharbor.schedule import Schedule
from taskharbor.task.reading import Parameter


def checked_schedules(given: Schedule | Iterable[Schedule] | None) -> tuple[Schedule, ...]:
    """Return the schedules of `@task(schedule=...)`, in order.

    Raises:
        OptionError: something else was given, or one of them twice.
    """
    if given is None:
        return ()
    if isinstance(given, Schedule):
        return (given,)
    value: object = given
    found = (
        cast("Iterable[object]", value)
        if isinstance(value, Iterable) and not isinstance(value, str)
        else (value,)
    )
    schedules: list[Schedule] = []
    for one in found:
        if not isinstance(one, Schedule):
            raise OptionError(
                f"schedule={one!r}: expected cron(...) or every(...) of taskharbor.scheduling, or a list of them"
            )
        if one in schedules:
            raise OptionError("schedule: the same is there twice; leave one of them out")
        schedules.append(one)
    return tuple(schedules)


def refuse_required(task: str, parameters: Sequence[Parameter]) -> None:
    """Refuse a schedule for a task that cannot be called without arguments.

    Raises:
        TaskDefinitionError: a parameter has no default.
    """
    required = [parameter.name for parameter in parameters if parameter.required]
    if required:
        raise TaskDefinitionError(
            f"task {task!r}: a schedule calls it without arguments, and {', '.join(map(repr, required))} "
            f"{'has' if len(required) == 1 else 'have'} no default; give {'it' if len(required) == 1 else 'them'} one, "
            "or leave schedule= out and call harbor.schedule(task.s(...), ...)"
        )
