"""The book of tasks: one name, one task; and what a worker's build can decode."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator
from typing import TypeAlias

from taskharbor.errors import TaskDefinitionError, UnknownTaskError, nearest
from taskharbor.task.definition import TaskDefinition
from taskharbor.task.upgrading import mark_of_upgrade

_Place: TypeAlias = tuple[str, str, int]


class Registry:
    """Tasks by name and alias. `@task` adds to `default_registry` unless it is given another."""

    def __init__(self) -> None:
        self._by_name: dict[str, TaskDefinition] = {}
        self.version = 0
        """Grows with every change, so that those who read it once can tell."""

    def add(self, definition: TaskDefinition) -> None:
        """Add a task under its name and aliases.

        A task declared again at the same place in the source (a reloaded module, a function run twice, a notebook's
        cell) takes the place of the first.

        Raises:
            TaskDefinitionError: another task has one of the names.
        """
        for name in (definition.name, *definition.aliases):
            other = self._by_name.get(name)
            if other is not None and not _same_task(other, definition):
                raise TaskDefinitionError(
                    f"two tasks are named {name!r}: one at {_told(other)}, one at {_told(definition)}; give one of "
                    "them another name, @task(name=...), keeping the old one in aliases=[...] where jobs may bear it"
                )
        for name in [name for name, other in self._by_name.items() if other.name == definition.name]:
            del self._by_name[name]
        for name in (definition.name, *definition.aliases):
            self._by_name[name] = definition
        self.version += 1

    def find(self, name: str) -> TaskDefinition | None:
        """Return the task of that name or alias, or None."""
        return self._by_name.get(name)

    def get(self, name: str) -> TaskDefinition:
        """Return the task of that name or alias.

        Raises:
            UnknownTaskError: there is none; says which come close.
        """
        definition = self._by_name.get(name)
        if definition is None:
            raise UnknownTaskError(
                f"no task is named {name!r}{nearest(name, sorted(self._by_name))}; import the module that declares it, "
                "or keep the old name in aliases=[...]"
            )
        return definition

    def names(self) -> frozenset[str]:
        """Return all names, aliases too."""
        return frozenset(self._by_name)

    def build(self, codecs: list[str]) -> str:
        """Return a digest of what this build can decode: its tasks, signatures, upgrades and codecs (rule 16).

        `codecs` are what `CodecBook.abilities` returns.
        """
        parts = [
            f"{name}={definition.fingerprint:016x}{mark_of_upgrade(definition.upgrade)}"
            for name, definition in sorted(self._by_name.copy().items())
        ]
        return hashlib.sha256("\n".join([*codecs, "", *parts]).encode()).hexdigest()[:16]

    def __iter__(self) -> Iterator[TaskDefinition]:
        """Yield each task once, sorted by name."""
        known = self._by_name.copy()  # another thread may be importing tasks
        return iter([known[name] for name in sorted({definition.name for definition in known.values()})])

    def __len__(self) -> int:
        return len({definition.name for definition in self._by_name.values()})


def _place(definition: TaskDefinition) -> _Place | None:
    fn = inspect.unwrap(definition.fn)  # a decorator's wrapper stands where the decorator does
    code = getattr(fn, "__code__", None)
    if code is None:
        return None
    return str(code.co_filename), str(fn.__qualname__), int(code.co_firstlineno)


def _same_task(one: TaskDefinition, other: TaskDefinition) -> bool:
    mine, theirs = _place(one), _place(other)
    if one.name != other.name or mine is None or theirs is None:
        return False
    # A notebook gives every run of a cell a file name of its own, and no real file has brackets or "ipykernel" in it.
    notebook = mine[0].startswith("<") or "ipykernel" in mine[0]
    same = mine[:2] == theirs[:2]
    # A reload gives the module a new spec; a second function of one name within one run of it has the same.
    reloaded = one.module_spec is not None and one.module_spec is not other.module_spec
    return mine == theirs or (same and reloaded) or (notebook and mine[1] == theirs[1])


def _told(definition: TaskDefinition) -> str:
    place = _place(definition)
    return repr(definition.fn) if place is None else f"{place[0]}:{place[2]}"


default_registry = Registry()
"""Where `@task` puts tasks unless told otherwise."""
