"""Reading the signature of a batch handler: what one of its jobs carries, and what one of them comes to.

The list is the batch's, its element the job's. So a job of `def index(documents: list[Document])` has one argument,
`documents`, a Document: the wire format is that of a plain task whose parameter has this name. A task may become a
batch one, or cease to be one, with old jobs waiting, as long as its parameter keeps its name.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from typing import Any, Union, cast, get_args, get_origin

import msgspec

from taskharbor.errors import TaskDefinitionError
from taskharbor.task.batch import BatchContext
from taskharbor.task.reading import Handler, Kind, Parameter, Reading, describe_type, read

_LISTS: tuple[object, ...] = (list, Sequence)
_FORM = "def index(documents: list[Document]) -> list[int | Exception]"


def read_batch(fn: Handler, name: str, local_names: Mapping[str, object]) -> Reading:
    """Return what the signature of a batch handler says of one job: one parameter, and the result of one.

    Raises:
        TaskDefinitionError: it cannot be a batch handler; says what to do.
    """
    reading = read(fn, name, local_names, context=BatchContext)
    if len(reading.parameters) != 1:
        found = ", ".join(repr(parameter.name) for parameter in reading.parameters) or "none"
        raise TaskDefinitionError(
            f"task {name!r}: a batch handler has one parameter (after a BatchContext, if it takes one), the list of "
            f"payloads, and this one has {found}; put what a job needs into one type: {_FORM}"
        )
    parameter = _each(name, reading.parameters[0])
    returns = _result(name, reading.returns)
    (public,) = reading.public.parameters.values()
    return msgspec.structs.replace(
        reading,
        parameters=(parameter,),
        returns=returns,
        public=reading.public.replace(
            parameters=[public.replace(annotation=parameter.type)], return_annotation=returns
        ),
    )


def _each(name: str, parameter: Parameter) -> Parameter:
    """Return the parameter of one job."""
    where = f"task {name!r}, parameter {parameter.name!r}"
    if parameter.kind not in (Kind.POSITIONAL_ONLY, Kind.POSITIONAL_OR_KEYWORD) or not parameter.required:
        raise TaskDefinitionError(
            f"{where}: a batch handler is given its list by position, so it is a plain parameter without a default: "
            f"{_FORM}"
        )
    element = _element(parameter.type)
    if element is None or element is Any or element is object:
        raise TaskDefinitionError(
            f"{where}: a batch handler takes a list of what each job carries, and this is "
            f"{describe_type(parameter.type)}; write {_FORM}"
        )
    return msgspec.structs.replace(parameter, type=element)


def _result(name: str, returns: object) -> object:
    """Return the type of one job's result."""
    if returns is None or returns is type(None):
        return type(None)
    element = _element(returns)
    if element is None:
        raise TaskDefinitionError(
            f"task {name!r}: a batch handler returns None, or a list with one element a job, each a result or an "
            f"exception, and this one returns {describe_type(returns)}; write {_FORM}"
        )
    members = get_args(element) if get_origin(element) in (Union, types.UnionType) else (element,)
    results = [member for member in members if member is not Exception]
    odd = next((one for one in results if isinstance(one, type) and issubclass(one, BaseException)), None)
    if odd is not None:
        raise TaskDefinitionError(
            f"task {name!r}: of exceptions the list may hold any, so write `| Exception` instead of "
            f"{describe_type(odd)}, which type checkers would take for a result"
        )
    if not results:
        return type(None)
    joined: object = results[0]
    for other in results[1:]:
        joined = cast("Any", Union)[joined, other]
    return joined


def _element(kind: object) -> object | None:
    """Return the type within a list; None for what is no list of something."""
    arguments = get_args(kind)
    return cast("object", arguments[0]) if get_origin(kind) in _LISTS and len(arguments) == 1 else None
