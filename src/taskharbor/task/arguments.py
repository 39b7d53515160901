"""Arguments as one typed value: a Struct with a field a parameter, made from calls, spread over the handler."""

from __future__ import annotations

import copy
import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from operator import attrgetter
from typing import TypeAlias, cast, get_args, get_origin, get_type_hints
from uuid import UUID

import msgspec

from taskharbor.codec import Codec, CodecError, decoder_of, encoder_of, hook_for
from taskharbor.errors import PayloadError, TaskDefinitionError, nearest
from taskharbor.task.reading import UNPACK, Handler, Kind, Parameter, describe_type
from taskharbor.task.wire_schema import canonical, wire_schema

Spread: TypeAlias = Callable[[Handler, msgspec.Struct, tuple[object, ...]], object]
"""Call a handler with (context or nothing, then) the arguments of a Struct."""


_UNCHANGING = (str, bytes, int, float, Enum, datetime, date, time, timedelta, UUID, Decimal, type(None))


def arguments_type(name: str, parameters: Sequence[Parameter]) -> type[msgspec.Struct]:
    """Return the Struct for a signature: positional parameters first, then those that go by keyword."""
    positional = [p for p in parameters if p.kind in (Kind.POSITIONAL_ONLY, Kind.POSITIONAL_OR_KEYWORD)]
    keyword = [p for p in parameters if p not in positional]
    base = msgspec.defstruct(name, [_field(p) for p in positional], frozen=True, forbid_unknown_fields=True)
    if not keyword:
        return base
    return msgspec.defstruct(
        name,
        [_field(p) for p in keyword],
        bases=(base,),
        frozen=True,
        forbid_unknown_fields=True,
        kw_only=True,
    )


def _field(parameter: Parameter) -> tuple[str, type] | tuple[str, type, object]:
    kind = cast("type", parameter.type)
    if parameter.kind is Kind.VAR_POSITIONAL:
        return parameter.name, kind, ()
    if parameter.kind is Kind.VAR_KEYWORD:
        return parameter.name, kind, msgspec.field(default_factory=dict[str, object])
    if parameter.required:
        return parameter.name, kind
    if isinstance(parameter.default, _UNCHANGING):
        return parameter.name, kind, parameter.default
    default = parameter.default
    # A copy each, all the way down: what one job does to its arguments is no other's business.
    return parameter.name, kind, msgspec.field(default_factory=lambda: copy.deepcopy(default))


class Binder:
    """Turns the arguments of a call into the Struct, as Python would bind them."""

    def __init__(self, task: str, struct: type[msgspec.Struct], public: inspect.Signature) -> None:
        self._task = task
        self._struct = struct
        self._public = public
        self._star_star = next((p.name for p in public.parameters.values() if p.kind is Kind.VAR_KEYWORD), "")
        # Of `**options: Unpack[SomeTypedDict]`; msgspec itself lets unknown keys of a TypedDict pass.
        self._keywords = typed_dict_keys(public.parameters[self._star_star]) if self._star_star else None
        kinds = {p.kind for p in public.parameters.values()}
        # Structs bind positions, keywords and defaults just as functions do, but know no other kinds.
        self._direct = kinds <= {Kind.POSITIONAL_OR_KEYWORD, Kind.KEYWORD_ONLY}

    def __call__(self, args: tuple[object, ...], kwargs: dict[str, object]) -> msgspec.Struct:
        """Return the arguments of `task(*args, **kwargs)`.

        Raises:
            PayloadError: the function could not be called so.
        """
        if self._direct:
            try:
                return self._struct(*args, **kwargs)
            except TypeError:
                pass  # Bound again below, for Python's own words.
        try:
            bound = self._public.bind(*args, **kwargs)
        except TypeError as error:
            raise PayloadError(
                f"task {self._task!r} cannot be called so: {error}; its signature is {self._task}{self._public}",
                task=self._task,
                reason=str(error),
            ) from error
        if self._keywords is not None:
            for name in bound.arguments.get(self._star_star, {}):
                if name not in self._keywords:
                    told = f"unexpected keyword argument {name!r}{nearest(name, sorted(self._keywords))}"
                    raise PayloadError(
                        f"task {self._task!r} cannot be called so: {told}", task=self._task, reason=told
                    )
        return self._struct(**bound.arguments)


def typed_dict_keys(parameter: inspect.Parameter) -> frozenset[str] | None:
    """Return the keywords that `**kwargs: Unpack[SomeTypedDict]` allows; None where any is allowed."""
    hint = cast("object", parameter.annotation)
    if get_origin(hint) not in UNPACK:
        return None
    return frozenset(get_type_hints(get_args(hint)[0]))


def spread_for(parameters: Sequence[Parameter]) -> Spread:
    """Return a function that calls a handler with the fields of its Struct, made once so that each call is quick."""
    positional = [p.name for p in parameters if p.kind in (Kind.POSITIONAL_ONLY, Kind.POSITIONAL_OR_KEYWORD)]
    keyword = [p.name for p in parameters if p.kind is Kind.KEYWORD_ONLY]
    star = next((p.name for p in parameters if p.kind is Kind.VAR_POSITIONAL), None)
    star_star = next((p.name for p in parameters if p.kind is Kind.VAR_KEYWORD), None)
    take = _getter(positional)
    if not keyword and star is None and star_star is None:
        return lambda fn, arguments, context: fn(*context, *take(arguments))

    def spread(fn: Handler, arguments: msgspec.Struct, context: tuple[object, ...]) -> object:
        more = cast("tuple[object, ...]", getattr(arguments, star)) if star is not None else ()
        named = {name: cast("object", getattr(arguments, name)) for name in keyword}
        if star_star is not None:
            named.update(cast("Mapping[str, object]", getattr(arguments, star_star)))
        return fn(*context, *take(arguments), *more, **named)

    return spread


def _getter(names: Sequence[str]) -> Callable[[object], tuple[object, ...]]:
    if not names:
        return lambda _: ()
    get = attrgetter(*names)
    return (lambda value: (get(value),)) if len(names) == 1 else get


def check_types(task: str, parameters: Sequence[Parameter], returns: object, codec: Codec) -> None:
    """Check that the codec can carry each parameter and the result, and that defaults fit their types.

    Raises:
        TaskDefinitionError: one of them has no codec; names it, its type, and what to do.
    """
    try:
        encode = encoder_of(codec)
    except TypeError as error:
        raise TaskDefinitionError(f"task {task!r} cannot be carried: {error}") from error
    for parameter in parameters:
        where = f"task {task!r}, parameter {parameter.name!r}"
        decode = _decoder(where, parameter.type, codec)
        if parameter.kind in (Kind.VAR_POSITIONAL, Kind.VAR_KEYWORD) or parameter.required:
            continue
        try:
            decode(encode(parameter.default))
        except CodecError as error:
            raise TaskDefinitionError(
                f"{where}: its default {parameter.default!r} does not fit its type {describe_type(parameter.type)} "
                f"({error}); widen the type or change the default"
            ) from error
    _decoder(f"task {task!r}, result", returns, codec)


def _decoder(where: str, kind: object, codec: Codec) -> Callable[[bytes], object]:
    told = describe_type(kind)
    try:
        custom = sorted({_written(found) for found in custom_types(kind) if not codec.supports(found)})
        if not custom:
            return decoder_of(codec, cast("type[object]", kind))
    except Exception as error:  # a user's codec may raise anything when it is asked
        raise TaskDefinitionError(
            f"{where}: its type {told} has no codec: {error}; use types msgspec supports "
            "(https://jcristharif.com/msgspec/supported-types.html)"
        ) from error
    raise TaskDefinitionError(
        f"{where}: its type {told} has no codec, for {', '.join(custom)} is nothing that {codec.name} can carry; use a "
        "msgspec.Struct, a dataclass or another supported type, or teach every codec the type before this task is "
        "declared: taskharbor.register_type(KIND, wire=..., encode=..., decode=...)"
    )


def _written(kind: type[object]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def custom_types(kind: object) -> set[type[object]]:
    """Return the types within `kind` that msgspec does not handle by itself.

    Raises:
        TypeError: msgspec refuses the combination, for example a union of two untagged Structs.
    """
    found: set[type[object]] = set()
    seen: set[int] = set()
    pending: list[object] = [msgspec.inspect.type_info(kind)]
    while pending:
        info = pending.pop()
        if id(info) in seen:  # types may contain themselves
            continue
        seen.add(id(info))
        if isinstance(info, msgspec.inspect.CustomType):
            found.add(info.cls)
        elif isinstance(info, (msgspec.inspect.Type, msgspec.inspect.Field)):
            pending.extend(cast("object", getattr(info, name)) for name in info.__struct_fields__)
        elif isinstance(info, tuple):
            pending.extend(cast("tuple[object, ...]", info))
    return found


def json_schema(struct: type[msgspec.Struct]) -> dict[str, object]:
    """Return the JSON Schema (2020-12) of an arguments Struct; custom types show as what they become on the wire."""
    return cast("dict[str, object]", msgspec.json.schema(struct, schema_hook=_schema_of_custom))


def _schema_of_custom(kind: type[object]) -> dict[str, object]:
    hook = hook_for(kind)
    if hook is None:
        return {"x-python-type": _written(kind)}
    return {**msgspec.json.schema(hook.wire, schema_hook=_schema_of_custom), "x-python-type": _written(kind)}


def fingerprint(struct: type[msgspec.Struct]) -> int:
    """Return 63 bits that change with what payloads of this signature may hold, and not with docs or defaults."""
    # Of the Struct's own schema and those it refers to, without their names: tasks and classes may be renamed.
    digest = hashlib.sha256(canonical(wire_schema(struct, named=False))).digest()
    return int.from_bytes(digest[:8]) >> 1
