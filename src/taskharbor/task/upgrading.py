"""Payloads of former signatures, brought to today's: `@task(upgrade=...)`.

The fingerprint stored with a payload tells that the signature has changed since. If what is stored does not fit
today's, the function is given it as plain data, and what it returns is read as strictly as if it had just come in. What
it raises, or what still does not fit, leaves the job to other builds (rule 16): an upgrade that is wrong loses nothing,
and a corrected one is another build, to which the job is offered again.

What fits as it is needs none. So an upgrade may stay in place while the signature goes on to change in ways that old
payloads survive: the function knows only of those it was written for.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import msgspec

from taskharbor.codec import Codec, CodecError, bare, concealed, conceals, decoder_of
from taskharbor.errors import OptionError

if TYPE_CHECKING:
    from taskharbor.task.definition import TaskDefinition

Upgrade: TypeAlias = Callable[[dict[str, object]], Mapping[str, object]]
"""From stored arguments, as plain data by parameter name, to today's."""

_PLAIN = cast("type[dict[str, object]]", dict[str, Any])


def checked_upgrade(upgrade: object) -> None:
    """Refuse what could not be called with arguments.

    Raises:
        OptionError: it is no function of one dict, or a coroutine function.
    """
    wanted = "expected a function from the stored arguments, a dict, to today's"
    if not callable(upgrade):
        raise OptionError(f"upgrade={upgrade!r}: {wanted}")
    if inspect.iscoroutinefunction(upgrade):
        raise OptionError(f"upgrade={_name(upgrade)}: {wanted}; a `def`, since it only computes")
    try:
        inspect.signature(upgrade).bind({})
    except TypeError as error:
        raise OptionError(
            f"upgrade={_name(upgrade)}: {wanted}; it cannot be called with one dict: {error}"
        ) from error
    except ValueError:
        pass  # written in C, and does not tell


def needs_upgrade(definition: TaskDefinition, stored: int) -> bool:
    """Return whether a payload of that fingerprint has to be upgraded if it does not fit as it is."""
    return definition.upgrade is not None and stored != definition.fingerprint


def plain_arguments(data: bytes, codec: Codec) -> dict[str, object]:
    """Return stored arguments as plain data: numbers, text, lists, dicts and what else the format tells apart.

    Raises:
        CodecError: they cannot be read at all.
    """
    return decoder_of(codec, _PLAIN)(data)


def upgraded(definition: TaskDefinition, values: dict[str, object], codec: Codec) -> msgspec.Struct:
    """Return the arguments that a task's upgrade makes of stored ones.

    Args:
        definition: of a task that has an upgrade.
        values: as plain data; the upgrade's to change.
        codec: what they were stored in, and so what they are read by.

    Raises:
        CodecError: the upgrade failed, or what it returned does not fit; foreign.
    """
    upgrade = definition.upgrade
    if upgrade is None:
        raise AssertionError(definition.name)
    told = f"upgrade={_name(upgrade)}"
    try:
        now = cast("object", upgrade(values))
    except Exception as error:
        what = "" if conceals(codec) else f": {error}"  # which may quote the values
        raise CodecError(f"{told} raised {type(error).__name__}{what}", foreign=True) from error
    if not isinstance(now, Mapping):
        raise CodecError(
            f"{told} returned a {type(now).__qualname__}; it has to return the arguments, by parameter name",
            foreign=True,
        )
    # Without layers, which would only be put on and taken off again.
    coder = definition.coder(bare(codec, ())[0])
    try:
        return coder.decode_arguments(coder.encode(dict(cast("Mapping[str, object]", now))))
    except CodecError as error:
        if conceals(codec):
            error = concealed(error)
        raise CodecError(
            f"what {told} returned does not fit: {error}", path=error.path, foreign=True
        ) from error


def mark_of_upgrade(upgrade: Upgrade | None) -> str:
    """Return what changes with what the function does, so that a corrected one makes another build; "" for none.

    It looks at the function's own code and at the functions of the same package that it names, and those that they
    name; not at methods, nor at tables of data.
    """
    if upgrade is None:
        return ""
    bare_function: object = upgrade
    while isinstance(bare_function, partial):
        bare_function = bare_function.func
    bare_function = getattr(bare_function, "__func__", bare_function)
    told = _functions(bare_function) if isinstance(bare_function, FunctionType) else [_name(upgrade)]
    return hashlib.sha256(" ".join(told).encode()).hexdigest()[:16]


def _functions(first: FunctionType) -> list[str]:
    """Return what a function does, and the functions of its package that it comes to."""
    told: list[str] = []
    seen = {first}
    pending = [first]
    while pending:
        one = pending.pop()
        told.append(f"{_code(one.__code__)} {_constant(one.__defaults__)}")
        for other in _named(one):
            if isinstance(other, FunctionType) and other not in seen and _package(other) == _package(first):
                seen.add(other)
                pending.append(other)
    return told


def _named(function: FunctionType) -> Iterator[object]:
    """Yield what a function names: globals, and what is around it."""
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        codes.extend(constant for constant in code.co_consts if isinstance(constant, CodeType))
        yield from (function.__globals__.get(name) for name in code.co_names)
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:
            pass  # not given a value yet


def _package(function: FunctionType) -> str:
    return str(function.__module__).partition(".")[0]


def _code(code: CodeType) -> str:
    # Without file and lines: moving a function does not change it.
    constants = ",".join(_constant(constant) for constant in code.co_consts)
    return f"{code.co_code.hex()} {constants} {code.co_names} {code.co_varnames}"


def _constant(value: object) -> str:
    if isinstance(value, CodeType):
        return _code(value)
    if isinstance(value, (tuple, frozenset)):
        told = [_constant(one) for one in cast("tuple[object, ...] | frozenset[object]", value)]
        return f"({','.join(told if isinstance(value, tuple) else sorted(told))})"
    # Else by its kind alone: what an object prints of itself may be its address, another in each process.
    return (
        repr(value)
        if isinstance(value, (str, bytes, int, float, complex, type(None)))
        else type(value).__name__
    )


def _name(upgrade: object) -> str:
    return str(getattr(upgrade, "__qualname__", type(upgrade).__qualname__))
