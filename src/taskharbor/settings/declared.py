"""Each setting there is: its name, its type, its default, and what it means."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final, Literal, TypeAlias, get_args, get_type_hints

import msgspec
from msgspec import Meta
from typing_extensions import override

from taskharbor.errors import redacted
from taskharbor.schedule import GENERATION_LIMIT

DEFAULT_URL: Final = "sqlite:///taskharbor.db"
WORKER_TABLE: Final = "worker"
"""The table of the file that holds what a worker is told."""
_TOP: Final = frozenset({"url", "app", "application", "generation", "schedules"})

MOST: Final = 100_000
"""More handlers, processes or jobs at once is a mistake in writing; memory would be asked for all of them."""
Count: TypeAlias = Annotated[int, Meta(ge=1)]
Some: TypeAlias = Annotated[int, Meta(ge=1, le=MOST)]
Generation: TypeAlias = Annotated[int, Meta(ge=1, le=GENERATION_LIMIT)]
Share: TypeAlias = Annotated[int, Meta(ge=1, le=1000)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an application's deployment may say; docs/reference/settings.md has it as a table."""

    url: Annotated[str, Meta(description="The store, for a `Harbor()` that is given none.")] = DEFAULT_URL
    app: Annotated[
        str | None,
        Meta(
            description="Your application, for the command line: `module:harbor` or `path/to/file.py:harbor`."
        ),
    ] = None
    application: Annotated[
        str,
        Meta(
            description="Whose schedules those are that code and files declare; applications on one store need names."
        ),
    ] = "default"
    generation: Annotated[
        Generation | None,
        Meta(
            description="Of those declarations, a number that grows with each deploy; by default the store tells them "
            "apart."
        ),
    ] = None
    schedules: Annotated[
        str | None,
        Meta(description="A file of schedules, TOML or YAML, that workers declare with those in code."),
    ] = None
    queues: Annotated[
        tuple[str, ...] | None,
        Meta(
            description="Queues to serve; by default `default`, and every queue that a task or a schedule declares."
        ),
    ] = None
    concurrency: Annotated[
        Some, Meta(description="How many handlers may run at once in each worker process.")
    ] = 50
    processes: Annotated[
        Some,
        Meta(description="How many worker processes `taskharbor worker` starts; above 1 under a supervisor."),
    ] = 1
    handler_processes: Annotated[
        Some,
        Meta(description='How many processes of each worker run the handlers of `run="process"` tasks.'),
    ] = 2
    lease: Annotated[
        timedelta, Meta(description="How long jobs are kept from others without a sign of life.")
    ] = timedelta(seconds=30)
    grace: Annotated[
        timedelta, Meta(description="How long a stop waits for running handlers before it cancels them.")
    ] = timedelta(seconds=30)
    halt: Annotated[
        timedelta, Meta(description="How long a stop then waits for cancelled handlers to end.")
    ] = timedelta(seconds=5)
    prefetch: Annotated[
        Annotated[int, Meta(ge=0, le=MOST)] | None,
        Meta(
            description="Jobs to hold unstarted, beyond the free slots; by default a tenth of a second's work."
        ),
    ] = None
    weights: Annotated[
        dict[str, Share] | None,
        Meta(
            description="Shares of what a worker starts, by queue, over those that have jobs due; queues that are not "
            "named have 1. By default priorities order the jobs of all queues together."
        ),
    ] = None
    reserved: Annotated[
        dict[str, Some] | None,
        Meta(description="Slots of each worker process that only this queue's jobs may take, by queue."),
    ] = None
    aging: Annotated[
        timedelta | None,
        Meta(
            description="Give `aging_share` of what is taken to jobs that have been due for longer than this, whatever "
            "their priority; by default never."
        ),
    ] = None
    aging_share: Annotated[
        Annotated[float, Meta(gt=0, le=1)] | None,
        Meta(description="Which part of what is taken goes to such jobs, with `aging` only; by default 0.1."),
    ] = None
    stall: Annotated[
        timedelta, Meta(description="An event loop that has not turned for so long is blocked.")
    ] = timedelta(minutes=1)
    max_jobs: Annotated[
        Count | None,
        Meta(description="`taskharbor worker` recycles a process after so many jobs; by default never."),
    ] = None
    max_memory: Annotated[
        Count | None,
        Meta(
            description="`taskharbor worker` recycles a process that has grown beyond so much memory; by default "
            "never."
        ),
    ] = None
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="What `taskharbor worker` logs.")
    ] = "info"
    log_format: Annotated[
        Literal["text", "json"], Meta(description="How `taskharbor worker` writes its log.")
    ] = "text"

    @override
    def __repr__(self) -> str:
        """Show no password."""
        values = {**msgspec.structs.asdict(self), "url": redacted(self.url)}
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in values.items())})"


NAMES: Final = Settings.__struct_fields__
SHORTEST: Final = {
    "lease": timedelta(milliseconds=100),
    "stall": timedelta(milliseconds=100),
    "aging": timedelta(milliseconds=1),
}
"""Durations that may not be nothing."""
DURATIONS: Final = frozenset({"lease", "grace", "halt", "stall", "aging"})
SIZES: Final = frozenset({"max_memory"})
LISTS: Final = frozenset({"queues"})
NUMBERED: Final = frozenset({"weights", "reserved"})
"""Numbers by queue."""


def table_of(name: str) -> str:
    """Return in which table of the file a setting stands; "" for the top."""
    return "" if name in _TOP else WORKER_TABLE


def variable_of(name: str) -> str:
    """Return the environment variable of a setting."""
    return f"TASKHARBOR_{name.upper()}"


def type_of(name: str) -> object:
    """Return the type of a setting, with what msgspec is told of it."""
    hints: dict[str, object] = get_type_hints(Settings, include_extras=True)
    return hints[name]


def meaning_of(name: str) -> str:
    """Return what a setting means, in a sentence."""
    found = (part.description for part in get_args(type_of(name)) if isinstance(part, Meta))
    return next((text for text in found if text), "")


_SOME: Final = f"a whole number from 1 to {MOST:,}"


def kind_of(name: str) -> str:
    """Return what a setting's value is, as errors and the reference say it."""
    if name in DURATIONS:
        return "a duration, such as 30s, 5m or 1h30m"
    if name in SIZES:
        return "a size, such as 512M or 1.5G"
    if name in LISTS:
        return "a list of names"
    if name in NUMBERED:
        return f"whole numbers from 1 to {1000 if name == 'weights' else MOST:,} by queue, such as mail=3,default=1"
    return {
        "url": "a driver's URL, such as sqlite:///jobs.db",
        "app": "text, such as shop.jobs:harbor",
        "application": "a name without slashes, such as shop",
        "schedules": "a path, such as schedules.toml",
        "log_level": "debug, info, warning or error",
        "log_format": "text or json",
        "concurrency": _SOME,
        "processes": _SOME,
        "handler_processes": _SOME,
        "aging_share": "a number above 0 and at most 1",
        "prefetch": f"a whole number from 0 to {MOST:,}",
        "generation": f"a whole number from 1 to {GENERATION_LIMIT:,}",
    }.get(name, "a whole number of at least 1")
