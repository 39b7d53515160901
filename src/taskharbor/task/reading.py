"""Reading a function's signature: which parameters cross the wire, whether a context is injected, what comes back."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Coroutine, Mapping
from typing import Annotated, cast, get_args, get_origin

import msgspec
import typing_extensions

from taskharbor.errors import TaskDefinitionError
from taskharbor.task.batch import BatchContext
from taskharbor.task.context import Context

Handler: typing.TypeAlias = Callable[..., object]

Kind = inspect._ParameterKind  # pyright: ignore[reportPrivateUsage] - the only name of this enum


UNPACK: tuple[object, ...] = (typing.Unpack, typing_extensions.Unpack)
_SWALLOW_ALL: tuple[object, ...] = (object, typing.Any)
_NEVER: tuple[object, ...] = (typing.NoReturn, typing.Never, typing_extensions.Never)


class Parameter(msgspec.Struct, frozen=True):
    """One parameter that crosses the wire."""

    name: str
    kind: Kind
    type: object
    """Its annotation, resolved; for `*args: T` it is `tuple[T, ...]`, for `**kwargs: T` it is `dict[str, T]`."""
    default: object = inspect.Parameter.empty

    @property
    def required(self) -> bool:
        """Return whether a caller has to give it."""
        return self.default is inspect.Parameter.empty and self.kind not in (
            Kind.VAR_POSITIONAL,
            Kind.VAR_KEYWORD,
        )


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What a function's signature says."""

    is_async: bool
    takes_context: bool
    deps_type: object
    """`Deps` of its `Context[Deps]`; NoneType for a plain `Context`, and without one."""
    parameters: tuple[Parameter, ...]
    returns: object
    public: inspect.Signature
    """The signature callers see: without the context."""


ContextKind: typing.TypeAlias = type[Context[typing.Any]] | type[BatchContext[typing.Any]]


def read(
    fn: Handler, name: str, local_names: Mapping[str, object], context: ContextKind = Context
) -> Reading:
    """Return what the signature of `fn` says, which may take a `context` first.

    `local_names` are the names visible where it was decorated, for annotations kept as strings.

    Raises:
        TaskDefinitionError: it cannot be a task; names the parameter, its type and what to do.
    """
    _refuse_what_is_no_function(fn, name)
    signature = inspect.signature(fn)
    hints = _hints(fn, name, local_names)
    parameters = list(signature.parameters.values())
    takes_context = bool(parameters) and _is_context(hints.get(parameters[0].name), context)
    if takes_context:
        deps_type = _deps_type(hints[parameters[0].name])
        if parameters[0].kind not in (Kind.POSITIONAL_ONLY, Kind.POSITIONAL_OR_KEYWORD):
            raise _refusal(name, parameters[0].name, "the context is passed as the first positional argument")
        parameters = parameters[1:]
    else:
        deps_type = type(None)
        if parameters:
            _refuse_swallower(name, parameters[0], hints)
    return Reading(
        is_async=_is_async(fn, hints),
        takes_context=takes_context,
        deps_type=deps_type,
        parameters=tuple(_parameter(name, parameter, hints, context) for parameter in parameters),
        returns=_returns(name, hints),
        public=signature.replace(
            parameters=[p.replace(annotation=hints.get(p.name, p.annotation)) for p in parameters],
            return_annotation=hints.get("return", signature.return_annotation),
        ),
    )


def _refuse_what_is_no_function(fn: object, name: str) -> None:
    what = ""
    if isinstance(fn, type):
        what = "a class"
    elif not callable(fn):
        what = f"a {type(fn).__name__}"
    elif inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        what = "a generator function, which would be started and never run"
    elif getattr(fn, "__name__", "") == "<lambda>":
        what = "a lambda, whose parameters have no types"
    if (
        callable(fn)
        and not inspect.iscoroutinefunction(fn)
        and inspect.iscoroutinefunction(inspect.unwrap(fn))
    ):
        raise TaskDefinitionError(
            f"task {name!r} is an `async def` inside of a wrapper that is a plain `def`, so nobody would await it; "
            "make the decorator's wrapper an `async def`, or put @task below the decorator"
        )
    if what:
        raise TaskDefinitionError(f"{name!r} is {what}; @task takes a function, `def` or `async def`")


def _hints(fn: Handler, name: str, local_names: Mapping[str, object]) -> dict[str, object]:
    try:
        return typing_extensions.get_type_hints(fn, localns=dict(local_names), include_extras=True)
    except NameError as error:
        raise TaskDefinitionError(
            f"task {name!r}: an annotation names {error.name!r}, which is not defined where the task is declared; its "
            "type is needed at run time, so import it outside `if TYPE_CHECKING:`, or define it above the task"
        ) from error
    except (TypeError, SyntaxError, AttributeError) as error:
        raise TaskDefinitionError(f"task {name!r}: its annotations cannot be read: {error}") from error


def _bare(hint: object) -> object:
    return _bare(get_args(hint)[0]) if get_origin(hint) is Annotated else hint


def _is_context(hint: object, context: ContextKind) -> bool:
    hint = _bare(hint)
    return hint is context or get_origin(hint) is context


def _deps_type(hint: object) -> object:
    arguments = get_args(_bare(hint))
    return arguments[0] if arguments else type(None)


def _refuse_swallower(name: str, first: inspect.Parameter, hints: Mapping[str, object]) -> None:
    # `object` and `Any` accept a Context, so type checkers would take the parameter for one and drop it from the calls.
    hint = hints.get(first.name, inspect.Parameter.empty)
    if hint is inspect.Parameter.empty:
        raise _refusal(
            name, first.name, "it has no type; give it one, since it decides how the argument is stored"
        )
    if isinstance(hint, (typing.ParamSpecArgs, typing.ParamSpecKwargs)) or (
        _bare(hint) in _SWALLOW_ALL and first.kind is Kind.VAR_POSITIONAL
    ):
        raise _refusal(
            name, first.name, "a decorator hides the function's own signature; use functools.wraps in it"
        )
    if _bare(hint) in _SWALLOW_ALL and first.kind is not Kind.VAR_KEYWORD:
        raise _refusal(
            name,
            first.name,
            f"the first parameter is typed {_name(hint)}, which a Context would fit too; name its type",
        )


def _parameter(
    name: str, parameter: inspect.Parameter, hints: Mapping[str, object], context: ContextKind
) -> Parameter:
    if parameter.name not in hints:
        raise _refusal(
            name, parameter.name, "it has no type; give it one, since it decides how the argument is stored"
        )
    if parameter.name.startswith("__"):
        raise _refusal(
            name, parameter.name, "names with two leading underscores cannot be stored; rename it, or use `/`"
        )
    hint = hints[parameter.name]
    if _is_context(hint, context):
        raise _refusal(
            name,
            parameter.name,
            f"a {context.__name__} is only injected as the first parameter; move it there",
        )
    if _is_context(hint, Context):
        raise _refusal(
            name, parameter.name, "a batch handler's jobs have a context each; take a BatchContext, first"
        )
    if _is_context(hint, BatchContext):
        raise _refusal(
            name, parameter.name, "a BatchContext is for batch handlers; declare it @task(batch=Batch(...))"
        )
    if parameter.kind is Kind.VAR_POSITIONAL:
        # Subscripting at run time: the argument is only known here.
        hint = tuple.__class_getitem__((hint, ...))
    elif parameter.kind is Kind.VAR_KEYWORD:
        unpacked = get_args(hint)[0] if get_origin(hint) in UNPACK else None
        hint = unpacked if unpacked is not None else dict.__class_getitem__((str, hint))
    return Parameter(parameter.name, parameter.kind, hint, cast("object", parameter.default))


def _returns(name: str, hints: Mapping[str, object]) -> object:
    if "return" not in hints:
        raise TaskDefinitionError(
            f"task {name!r} does not say what it returns; write `-> None`, or the type of its result, which decides "
            "how the result is stored"
        )
    hint = hints["return"]
    if get_origin(hint) is Coroutine or hint is Coroutine:
        arguments = get_args(hint)
        return arguments[2] if len(arguments) == 3 else typing.Any
    if hint in _NEVER:
        return type(None)
    return hint


def _is_async(fn: Handler, hints: Mapping[str, object]) -> bool:
    called = fn if inspect.isroutine(fn) else getattr(fn, "__call__", fn)  # noqa: B004 - an object's own __call__
    hint = hints.get("return")
    return (
        inspect.iscoroutinefunction(fn)
        or inspect.iscoroutinefunction(called)
        or hint is Coroutine
        or get_origin(hint) is Coroutine
    )


def _refusal(name: str, parameter: str, why: str) -> TaskDefinitionError:
    return TaskDefinitionError(f"task {name!r}, parameter {parameter!r}: {why}")


def _name(hint: object) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def describe_type(hint: object) -> str:
    """Return a type as one would write it, for messages."""
    return _name(hint)


def caller_names(depth: int) -> dict[str, object]:
    """Return the local names of the caller `depth` frames up: where string annotations look for their types."""
    try:
        frame = sys._getframe(depth + 1)  # pyright: ignore[reportPrivateUsage]
    except ValueError:
        return {}
    # At module level these are the globals, which get_type_hints reads anyhow.
    return {} if frame.f_locals is frame.f_globals else dict(frame.f_locals)
