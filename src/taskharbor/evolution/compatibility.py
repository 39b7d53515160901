"""Whether a new version of an application can take over from an old one: its tasks, compared with those it had.

What is compared are two dumps, so the old version need not be there. What was stored by the old version, and what its
producers still send while the new one is rolled out, is the same question: does the new signature accept it?
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import TypeAlias

import msgspec

from taskharbor.evolution.dump import Dump, TaskSchema
from taskharbor.evolution.subschema import Gap, gaps
from taskharbor.evolution.subschema_parts import names, properties

CanRead: TypeAlias = Callable[[str, str], bool]
"""Whether the new application can read what was written for a task (by its new name) in a codec (by its name)."""


class Level(StrEnum):
    """How bad a finding is."""

    BREAKS = "breaks"
    """Stored jobs, or those of old producers, would not run."""
    UNSURE = "unsure"
    """They might not; it cannot be told from the types."""
    WARNING = "warning"
    """No job is lost, but something else that relied on the old version may fail."""
    NOTE = "note"
    """Good to know."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One difference between the versions."""

    level: Level
    task: str
    """By its old name; by the new one if it had none."""
    path: str
    """Within the arguments, as a JSONPath such as `$.to`, or within the result (`result`, `result.id`); else ""."""
    message: str


def compared(old: Dump, new: Dump, can_read: CanRead) -> list[Finding]:
    """Return what differs, task by task in the order of their old names, then what is new.

    Raises:
        OptionError: the old dump is damaged.
    """
    named = {name: task for task in new.tasks for name in (task.name, *task.aliases)}
    found: list[Finding] = []
    for before in old.tasks:
        after = named.get(before.name)
        if after is None:
            found.append(_gone(before))
        else:
            found.extend(_compared(before, after, can_read))
            found.extend(_lost_aliases(before, after, named))
    kept = {named[task.name].name for task in old.tasks if task.name in named}
    for task in new.tasks:
        if task.name not in kept:
            message = "is new; workers of the old version leave its jobs to the new one"
            found.append(Finding(level=Level.NOTE, task=task.name, path="", message=message))
    return found


def _gone(task: TaskSchema) -> Finding:
    return Finding(
        level=Level.BREAKS,
        task=task.name,
        path="",
        message="is not declared any more, and no task has it in aliases=[...]; its stored jobs would be parked",
    )


def _lost_aliases(before: TaskSchema, after: TaskSchema, named: dict[str, TaskSchema]) -> Iterator[Finding]:
    for alias in before.aliases:
        taker = named.get(alias, after)
        if taker is not after:
            message = (
                f"answered to {alias!r}, and task {taker.name!r} does now: that would be given the jobs that bear the "
                "name; give the new task another one"
            )
            yield Finding(level=Level.BREAKS, task=before.name, path="", message=message)
        elif alias not in named:
            message = f"no longer answers to {alias!r}; make sure that no stored job bears that name"
            yield Finding(level=Level.WARNING, task=before.name, path="", message=message)


def _compared(before: TaskSchema, after: TaskSchema, can_read: CanRead) -> Iterator[Finding]:
    def finding(level: Level, message: str, path: str = "") -> Finding:
        return Finding(level=level, task=before.name, path=path, message=message)

    if after.name != before.name:
        yield finding(Level.NOTE, f"is named {after.name!r} now, and keeps the old name as an alias")
    if not can_read(after.name, before.codec):
        yield finding(
            Level.BREAKS,
            f"was written with the codec {before.codec!r}, which is not here; pass it as Harbor(codecs=[...]) until no "
            "stored job needs it",
        )
    elif after.codec != before.codec:
        yield finding(
            Level.NOTE,
            f"is written with {after.codec} now, no longer with {before.codec}; workers of the old version that do not "
            "know it leave such jobs to the new one",
        )
    if before.upgrade and not after.upgrade:
        yield finding(
            Level.WARNING,
            "has no upgrade= any more; make sure that no job is stored that needs it, dead letters too",
        )
    yield from _arguments(before, after, finding)
    if before.result is not None and after.result is not None:
        refused = gaps(before.result, after.result, "result", codec=before.codec)
        for gap in refused:
            yield finding(Level.WARNING, f"{gap.why}; results that are stored may not be read back", gap.path)
        for gap in gaps(after.result, before.result, "result", codec=after.codec):
            if all(gap.path != known.path for known in refused):
                yield finding(
                    Level.WARNING,
                    f"programs of the old version may not be able to read new results (going back, {gap.why})",
                    gap.path,
                )


def _arguments(
    before: TaskSchema, after: TaskSchema, finding: Callable[[Level, str, str], Finding]
) -> Iterator[Finding]:
    refused = [
        *gaps(before.arguments, after.arguments, codec=before.codec),
        *_swallowed(before, after),
        *_moved(before, after),
    ]
    upgraded = after.upgrade and after.fingerprint != before.fingerprint
    for gap in refused:
        if upgraded:
            yield finding(
                Level.NOTE, f"{gap.why}; its upgrade= is given old arguments that do not fit", gap.path
            )
        else:
            level = Level.BREAKS if gap.sure else Level.UNSURE
            yield finding(level, gap.why + _hint(gap, refused), gap.path)
    if before.fingerprint == after.fingerprint:
        return
    if not refused:
        told = "; its upgrade= is not asked" if after.upgrade else ""
        yield finding(Level.NOTE, f"its signature has changed, and accepts what the old one did{told}", "")
    for gap in gaps(before.arguments, after.arguments, codec=before.codec, closed=True):
        if gap not in refused:
            yield finding(
                Level.NOTE, "is gone, or holds less; stored jobs that have it run without", gap.path
            )
    left = gaps(after.arguments, before.arguments, codec=after.codec)
    if left:
        yield finding(
            Level.NOTE,
            "workers of the old version cannot read all that the new one sends, and leave it to the new one",
            "",
        )
    for gap in gaps(after.arguments, before.arguments, codec=after.codec, closed=True):
        if gap not in left:
            yield finding(
                Level.NOTE,
                "is new, or holds more, and workers of the old version run such jobs without it; had its type refused "
                "unknown fields (Struct, forbid_unknown_fields=True), they would leave them to the new one",
                gap.path,
            )


def _swallowed(before: TaskSchema, after: TaskSchema) -> list[Gap]:
    """Return the new parameters that old calls may have passed among `**kwargs`."""
    if before.star_star is None:
        return []
    fields = properties(before.arguments)
    known = properties(fields.get(before.star_star, {}))  # of an `Unpack[SomeTypedDict]`
    return [
        Gap(
            f"$.{name}",
            f"it is new; jobs that were given it among **{before.star_star} do not fit",
            sure=False,
        )
        for name in after.keywords
        if name not in fields and (name in known or not known)
    ]


def _moved(before: TaskSchema, after: TaskSchema) -> list[Gap]:
    """Return the new parameters that would take the first of `*args`, were the call made anew."""
    if before.star is None or before.star != after.star:
        return []
    old, required = properties(before.arguments), names(after.arguments)
    return [
        Gap(
            f"$.{name}",
            f"it is new, before *{after.star}: jobs that were given some of those do not fit; let it be passed by name "
            "only",
        )
        for name in after.positional
        if name not in old and name not in required
    ]


def _hint(gap: Gap, refused: list[Gap]) -> str:
    """Return what to do; parameters stand at the top of the arguments."""
    if gap.path.count(".") != 1 or "[" in gap.path:
        return ""
    new = [other.path for other in refused if "is new, and is required" in other.why]
    gone = [other.path for other in refused if "not known any more" in other.why]
    if len(new) == len(gone) == 1 and gap.path in (new[0], gone[0]):
        return f" (was {gone[0][2:]!r} renamed to {new[0][2:]!r}? say so in upgrade=)"
    if gap.path in new:
        return "; give the parameter a default, or bring old arguments along with upgrade="
    if gap.path in gone:
        return "; keep the parameter, or drop it from old arguments with upgrade="
    return ""
