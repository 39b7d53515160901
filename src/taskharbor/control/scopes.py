"""Scopes as people write them: `queue:mail`, `task:send`, `keys:send`, `key:send:acme`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeAlias

from taskharbor.call.options import check_name, check_sought
from taskharbor.errors import OptionError, nearest
from taskharbor.limit import PARTITION_LIMIT, Scope, ScopeKind
from taskharbor.task import Bound, TaskDefinition


class NamedTask(Protocol):
    """A task, whatever its arguments and its result."""

    @property
    def name(self) -> str:
        """Return its name."""
        ...


ScopeLike: TypeAlias = Scope | NamedTask | str
"""What a limit or a hold is on: a scope, its text, or a task itself."""

_EXPECTED = "expected queue:NAME, task:NAME, keys:TASK (each key on its own) or key:TASK:KEY"


def scope_of(given: ScopeLike, tasks: Iterable[str] = ()) -> Scope:
    """Return the scope that is meant.

    Args:
        given: a scope, its text, or a task.
        tasks: names of tasks that are known: where a name has a colon in it, they tell where the key begins.

    Raises:
        OptionError: there is no such scope; says what was expected.
    """
    if isinstance(given, Scope):
        return _checked(given, str(given))
    if isinstance(given, Bound | TaskDefinition):
        return Scope(ScopeKind.TASK, given.name)
    text: object = given
    if not isinstance(text, str):
        raise OptionError(f"scope={text!r}: {_EXPECTED}, a Scope, or a task")
    kind, colon, rest = text.partition(":")
    if kind not in tuple(ScopeKind):
        hint = (
            nearest(kind, [one.value for one in ScopeKind])
            if colon
            else f"; is it task:{text} or queue:{text}?"
            if text
            else ""
        )
        raise OptionError(f"scope {text!r}: {_EXPECTED}{hint}")
    if kind != ScopeKind.KEY:
        return _checked(Scope(ScopeKind(kind), rest), text)
    fitting = [name for name in tasks if rest.startswith(f"{name}:")]
    name = max(fitting, key=len) if fitting else rest.partition(":")[0]
    if len(name) == len(rest):
        raise OptionError(f"scope {text!r}: it names no key; {_EXPECTED}")
    return _checked(Scope(ScopeKind.KEY, name, rest[len(name) + 1 :]), text)


def held_scopes(given: Sequence[ScopeLike], tasks: Iterable[str] = ()) -> Sequence[Scope]:
    """Return scopes that can be held back, each once.

    Raises:
        OptionError: none is named, or one that cannot be held back; says what to do instead.
    """
    found = scopes_of(given, tasks)
    for scope in found:
        if scope.kind is ScopeKind.QUEUE:
            raise OptionError(
                f"scope '{scope}': a queue is paused: taskharbor queues pause {scope.name}, or harbor.queues.pause"
            )
        if scope.kind is ScopeKind.KEYS:
            raise OptionError(
                f"scope '{scope}': a task is held back as a whole, task:{scope.name}, or by one key, "
                f"key:{scope.name}:KEY"
            )
    return found


def scopes_of(given: Sequence[ScopeLike], tasks: Iterable[str] = ()) -> Sequence[Scope]:
    """Return scopes, each once; raises `OptionError` where none is named, or one is no scope."""
    if not given:
        raise OptionError(f"no scope was named; {_EXPECTED}")
    known = list(tasks)
    return list(dict.fromkeys(scope_of(one, known) for one in given))


def task_name(given: NamedTask | str) -> str:
    """Return the name of a task; raises `OptionError` for what is none."""
    name: object = given.name if isinstance(given, Bound | TaskDefinition) else given
    if not isinstance(name, str):
        raise OptionError(f"task={name!r}: expected a task, or its name")
    check_name(name, "task")
    return name


def _checked(scope: Scope, text: str) -> Scope:
    if not scope.name:
        raise OptionError(f"scope {text!r}: it names nothing; {_EXPECTED}")
    check_name(scope.name, f"scope {text!r}")
    check_sought(scope.key, f"scope {text!r}")
    if scope.kind is not ScopeKind.KEY and scope.key:
        raise OptionError(f"scope {text!r}: a key goes with {ScopeKind.KEY.value!r} only")
    if len(scope.key) > PARTITION_LIMIT:
        raise OptionError(f"scope {text!r}: a key has up to {PARTITION_LIMIT} characters")
    return scope
