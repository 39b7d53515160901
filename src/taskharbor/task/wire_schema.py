"""What a type accepts on the wire, in the words of JSON Schema (2020-12), and of a few more where it has none.

`msgspec.json.schema` is for people: to it a `datetime` is any text, and keys of dicts have no type. This is for
fingerprints and for `schema check`, which must not take two types for one. Titles, docs and defaults are left out, for
they change nothing of what is accepted. Keywords of our own:

    x-timezone                   of times: `aware` or `naive`; without it either
    x-min-bytes, x-max-bytes     of `bytes`, which are text of another length in JSON
    x-flags                      of a `Flag`: all its bits
    x-set                        of sets, where equal elements count as one
    x-python-type                of a custom type, whose hook may refuse what its wire type accepts
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import TypeAlias, cast

import msgspec
from msgspec import inspect

from taskharbor.codec import hook_for

JsonSchema: TypeAlias = dict[str, object]

_BOUNDS = {
    "gt": "exclusiveMinimum",
    "ge": "minimum",
    "lt": "exclusiveMaximum",
    "le": "maximum",
    "multiple_of": "multipleOf",
    "pattern": "pattern",
}
_LENGTHS: dict[str, tuple[str, str]] = {
    "string": ("minLength", "maxLength"),
    "bytes": ("x-min-bytes", "x-max-bytes"),
    "array": ("minItems", "maxItems"),
    "object": ("minProperties", "maxProperties"),
}
_PLAIN: dict[type[object], JsonSchema] = {
    inspect.NoneType: {"type": "null"},
    inspect.BoolType: {"type": "boolean"},
    inspect.DateType: {"type": "string", "format": "date"},
    inspect.TimeDeltaType: {"type": "string", "format": "duration"},
    inspect.UUIDType: {"type": "string", "format": "uuid"},
    inspect.DecimalType: {"type": "string", "format": "decimal"},
}
_BYTES = (inspect.BytesType, inspect.ByteArrayType, inspect.MemoryViewType)
_SETS = (inspect.SetType, inspect.FrozenSetType)
_LISTS = (inspect.ListType, inspect.VarTupleType, *_SETS)
_RECORDS = (inspect.StructType, inspect.DataclassType, inspect.TypedDictType, inspect.NamedTupleType)


def wire_schema(kind: object, *, named: bool = True) -> JsonSchema:
    """Return the schema of a type; types within it that have fields, and may contain themselves, are under `$defs`.

    The type's own fields stand at the top, without its name. The others are under theirs, or numbered if not `named`.
    """
    info = inspect.type_info(kind)
    writer = _Writer(named=named)
    root = writer.record(info) if isinstance(info, _RECORDS) else writer.written(info)
    return {**root, "$defs": writer.definitions} if writer.definitions else root


class _Writer:
    def __init__(self, *, named: bool) -> None:
        self._named = named
        self.definitions: dict[str, object] = {}
        self._names: dict[int, tuple[inspect.Type, str]] = {}

    def written(self, info: inspect.Type) -> JsonSchema:
        if isinstance(info, inspect.Metadata):
            return self.written(info.type)
        plain = _PLAIN.get(type(info))
        if plain is not None:
            return dict(plain)
        if isinstance(info, _RECORDS):
            return {"$ref": f"#/$defs/{self._name(info)}"}
        if isinstance(info, inspect.UnionType):
            return {"anyOf": [self.written(one) for one in info.types]}
        if isinstance(info, (inspect.EnumType, inspect.LiteralType)):
            return _enumerated(info)
        if isinstance(info, inspect.CustomType):
            return self._custom(info.cls)
        return self._scalar(info) or self._container(info)

    def _scalar(self, info: inspect.Type) -> JsonSchema:
        if isinstance(info, inspect.IntType):
            return {"type": "integer", **_bounds(info)}
        if isinstance(info, inspect.FloatType):
            return {"type": "number", **_bounds(info)}
        if isinstance(info, inspect.StrType):
            return {"type": "string", **_bounds(info), **_lengths("string", info)}
        if isinstance(info, _BYTES):
            return {"type": "string", "contentEncoding": "base64", **_lengths("bytes", info)}
        if isinstance(info, (inspect.DateTimeType, inspect.TimeType)):
            named = "date-time" if isinstance(info, inspect.DateTimeType) else "time"
            zone = {} if info.tz is None else {"x-timezone": "aware" if info.tz else "naive"}
            return {"type": "string", "format": named, **zone}
        return {}

    def _container(self, info: inspect.Type) -> JsonSchema:
        if isinstance(info, _LISTS):
            once = {"x-set": True} if isinstance(info, _SETS) else {}
            return {"type": "array", "items": self.written(info.item_type), **once, **_lengths("array", info)}
        if isinstance(info, inspect.TupleType):
            size = len(info.item_types)
            items = [self.written(item) for item in info.item_types]
            return {"type": "array", "prefixItems": items, "items": False, "minItems": size, "maxItems": size}
        if isinstance(info, inspect.DictType):
            keys = self.written(info.key_type)
            return {
                "type": "object",
                "additionalProperties": self.written(info.value_type),
                **({} if keys in ({}, {"type": "string"}) else {"propertyNames": keys}),
                **_lengths("object", info),
            }
        if isinstance(info, (inspect.AnyType, inspect.RawType)):
            return {}
        return {"x-python-type": type(info).__name__}

    def _custom(self, cls: type[object]) -> JsonSchema:
        hook = hook_for(cls)
        wire = {} if hook is None else self.written(inspect.type_info(hook.wire))
        within = f" of {wire['x-python-type']}" if "x-python-type" in wire else ""
        return {**wire, "x-python-type": f"{cls.__module__}.{cls.__qualname__}{within}"}

    def _name(self, info: inspect.Type) -> str:
        known = self._names.get(id(info))
        if known is not None:
            return known[1]
        told = cast("object", getattr(info, "cls", type(info)))
        base = str(getattr(told, "__name__", told)) if self._named else "type"
        name, number = base, 1
        while name in self.definitions:
            number += 1
            name = f"{base}-{number}"
        self._names[id(info)] = info, name  # held, so that no other takes its identity
        self.definitions[name] = {}  # taken: it may contain itself
        self.definitions[name] = self.record(info)
        return name

    def record(self, info: inspect.Type) -> JsonSchema:
        """Return the schema of what has fields."""
        if isinstance(info, inspect.NamedTupleType):
            return {**self._row(info.fields, ()), "maxItems": len(info.fields), "items": False}
        if isinstance(info, inspect.StructType):
            tag: list[JsonSchema] = [] if info.tag_field is None else [{"enum": [info.tag]}]
            if info.array_like:
                closed = {"items": False} if info.forbid_unknown_fields else {}
                return {**self._row(info.fields, tag), **closed}
            tagged = {} if info.tag_field is None else {info.tag_field: tag[0]}
            closed = {"additionalProperties": False} if info.forbid_unknown_fields else {}
            return {**self._fields(info.fields, tagged), **closed}
        if isinstance(info, (inspect.DataclassType, inspect.TypedDictType)):
            return self._fields(info.fields, {})
        raise TypeError(info)

    def _fields(self, fields: Iterable[inspect.Field], tagged: dict[str, JsonSchema]) -> JsonSchema:
        fields = list(fields)
        return {
            "type": "object",
            "properties": {**tagged, **{field.encode_name: self.written(field.type) for field in fields}},
            "required": [*tagged, *(field.encode_name for field in fields if field.required)],
        }

    def _row(self, fields: Iterable[inspect.Field], tagged: Iterable[JsonSchema]) -> JsonSchema:
        fields, tagged = list(fields), list(tagged)
        # Of fields that are keyword-only, a required one may come after others.
        wanted = max((at for at, field in enumerate(fields, 1) if field.required), default=0)
        return {
            "type": "array",
            "prefixItems": [*tagged, *(self.written(field.type) for field in fields)],
            "minItems": len(tagged) + wanted,
        }


def _enumerated(info: inspect.EnumType | inspect.LiteralType) -> JsonSchema:
    if isinstance(info, inspect.LiteralType):
        return {"enum": sorted(info.values, key=lambda value: (type(value).__name__, str(value)))}
    members = list(info.cls)
    if issubclass(info.cls, enum.Flag):
        bits = 0
        for member in members:
            bits |= int(member.value)
        return {"type": "integer", "x-flags": bits}
    return {
        "enum": sorted(
            (member.value for member in members), key=lambda value: (type(value).__name__, str(value))
        )
    }


def _bounds(info: inspect.Type) -> JsonSchema:
    told = {word: cast("object", getattr(info, name, None)) for name, word in _BOUNDS.items()}
    return {word: value for word, value in told.items() if value is not None}


def _lengths(kind: str, info: inspect.Type) -> JsonSchema:
    lowest, highest = _LENGTHS[kind]
    told = {
        lowest: cast("object", getattr(info, "min_length", None)),
        highest: getattr(info, "max_length", None),
    }
    return {word: value for word, value in told.items() if value is not None}


def canonical(schema: JsonSchema) -> bytes:
    """Return the schema as bytes, the same in every process."""
    return msgspec.json.encode(schema, order="deterministic")
