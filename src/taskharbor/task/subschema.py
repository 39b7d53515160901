"""Whether a new type accepts all that was written by an old one: a walk over two schemas side by side.

The schemas are those of `wire_schema`. What was written has the old type's fields and no others, since that type wrote
it, so an old record counts as closed even where unknown fields would have been ignored. The answer leans to the
safe side: what it accepts is accepted, and some of what it refuses might do. Types that contain themselves are taken to
fit until something in them does not (a greatest fixed point).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias, cast

import msgspec

from taskharbor.task.subschema_values import values_gap

JsonSchema: TypeAlias = Mapping[str, object]

_ANY_LENGTH = 1 << 62


class Gap(msgspec.Struct, frozen=True):
    """One thing that the old type allows and the new one does not."""

    path: str
    """Where, as a JSONPath; `[...]` is any element."""
    why: str
    sure: bool = True
    """False where it cannot be told."""


def gaps(old: JsonSchema, new: JsonSchema, path: str = "$") -> list[Gap]:
    """Return what a value written by the old type may be refused for by the new one; none if all fit."""
    return Comparison(old, new).gaps(old, new, path)


class Comparison:
    """One comparison of two schemas; refers to each one's own `$defs`."""

    def __init__(self, old: JsonSchema, new: JsonSchema) -> None:
        self._old = _mapping(old.get("$defs"))
        self._new = _mapping(new.get("$defs"))
        self._assumed: set[tuple[str, str]] = set()

    def gaps(self, old: JsonSchema, new: JsonSchema, path: str) -> list[Gap]:
        """Return the gaps between two parts of the schemas."""
        pair = str(old.get("$ref", "")), str(new.get("$ref", ""))
        if all(pair):
            if pair in self._assumed:
                return []
            self._assumed.add(pair)
        try:
            return self._compared(_resolved(old, self._old), _resolved(new, self._new), path)
        finally:
            self._assumed.discard(pair)

    def _compared(self, old: JsonSchema, new: JsonSchema, path: str) -> list[Gap]:
        if not _meaning(new):
            return []
        wider = _alternatives(new, self._new)
        found: list[Gap] = []
        for one in _alternatives(old, self._old):
            tried = [self._one(one, other, path) for other in wider]
            if all(tried):
                # Of what comes nearest: of the same type, with the fewest gaps.
                best = min(range(len(tried)), key=lambda at: (_unlike(one, wider[at]), len(tried[at])))
                found += tried[best]
        return found

    def _one(self, old: JsonSchema, new: JsonSchema, path: str) -> list[Gap]:
        if not _meaning(new):
            return []
        if not _meaning(old):
            return [Gap(path, f"it was anything, and is {told(new)} now")]
        if not _kinds(new):  # a custom type that only the task's own codec knows
            return self._custom(old, new, path)
        if _unlike(old, new):
            return [Gap(path, f"it was {told(old)}, and is {told(new)} now")]
        found = self._custom(old, new, path) or values_gaps(old, new, path)
        if not found and "enum" not in old:
            if new.get("type") == "array":
                found = self._arrays(old, new, path)
            elif new.get("type") == "object":
                found = self._objects(old, new, path)
        return found

    def _custom(self, old: JsonSchema, new: JsonSchema, path: str) -> list[Gap]:
        kind = new.get("x-python-type")
        if kind is None or kind == old.get("x-python-type"):
            return []
        return [Gap(path, f"its type is {kind} now, whose hook may refuse what was written", sure=False)]

    def _arrays(self, old: JsonSchema, new: JsonSchema, path: str) -> list[Gap]:
        before, after = _items(old), _items(new)
        most = _number(old, "maxItems", _ANY_LENGTH if "items" in old or not before else len(before))
        if old.get("items") is False:
            most = min(most, len(before))
        allowed = _number(new, "maxItems", _ANY_LENGTH)
        if new.get("items") is False:
            allowed = min(allowed, len(after))
        least, wanted = _number(old, "minItems", 0), _number(new, "minItems", 0)
        if least < wanted:
            return [Gap(path, f"it may have {least} elements, and {wanted} are wanted now")]
        if most > allowed:
            many = "any number of" if most == _ANY_LENGTH else f"{most:g}"
            return [Gap(path, f"it may have {many} elements, and {allowed:g} are allowed now")]
        found: list[Gap] = []
        for at in range(int(min(max(len(before), len(after)), most))):
            found += self.gaps(_item(old, before, at), _item(new, after, at), f"{path}[{at}]")
        if most > max(len(before), len(after)):
            found += self.gaps(_rest(old.get("items")), _rest(new.get("items")), f"{path}[...]")
        return found

    def _objects(self, old: JsonSchema, new: JsonSchema, path: str) -> list[Gap]:
        before, after = _properties(old), _properties(new)
        required = _names(old)
        more = _more(old, written=True)
        rest = _more(new, written=False)
        found: list[Gap] = []
        for name in _names(new):
            if name not in required:
                why = "was optional" if name in before else "is new"
                found.append(Gap(f"{path}.{name}", f"it {why}, and is required now"))
        for name, schema in before.items():
            if name in after:
                found += self.gaps(schema, after[name], f"{path}.{name}")
            elif rest is None:
                found.append(
                    Gap(f"{path}.{name}", "it is not known any more, and unknown fields are refused")
                )
            else:
                found += self.gaps(schema, rest, f"{path}.{name}")
        if more is not None:
            for name in after.keys() - before.keys():
                found += self.gaps(more, after[name], f"{path}.{name}")
            if rest is None:
                found.append(Gap(path, "it may have any keys, and unknown ones are refused now"))
            else:
                found += self.gaps(more, rest, f"{path}[...]")
        return found or self._keys(old, new, path)

    def _keys(self, old: JsonSchema, new: JsonSchema, path: str) -> list[Gap]:
        before = _properties(old)
        names = new.get("propertyNames")
        found: list[Gap] = []
        if names is not None:
            if before:
                found += self.gaps({"enum": list(before)}, _mapping(names), f"{path} (its keys)")
            if _more(old, written=True) is not None:
                keys = _mapping(old.get("propertyNames", {"type": "string"}))
                found += self.gaps(keys, _mapping(names), f"{path} (its keys)")
        elif "propertyNames" in old and "properties" not in new:
            found += self.gaps(_mapping(old["propertyNames"]), {"type": "string"}, f"{path} (its keys)")
        least = max(_number(old, "minProperties", 0), len(_names(old)))
        open_ended = _more(old, written=True) is not None
        most = _number(old, "maxProperties", _ANY_LENGTH if open_ended else len(before))
        if least < _number(new, "minProperties", 0) or most > _number(new, "maxProperties", _ANY_LENGTH):
            found.append(Gap(path, "it may have fewer or more keys than are allowed now"))
        return found


def values_gaps(old: JsonSchema, new: JsonSchema, path: str) -> list[Gap]:
    """Return the gaps between two schemas of one type, apart from what they contain."""
    found = values_gap(old, new)
    return [] if found is None else [Gap(path, found[0], sure=found[1])]


def told(schema: JsonSchema) -> str:
    """Return what a schema is, in a few words."""
    if "enum" in schema:
        return "one of " + ", ".join(map(repr, cast("list[object]", schema["enum"])))
    kind = str(schema.get("type", "anything"))
    form = schema.get("format", schema.get("contentEncoding"))
    return f"{kind} ({form})" if form else kind


def _alternatives(schema: JsonSchema, definitions: JsonSchema) -> list[JsonSchema]:
    schema = _resolved(schema, definitions)
    branches = schema.get("anyOf")
    if branches is not None:
        each = cast("list[JsonSchema]", branches)
        return [one for branch in each for one in _alternatives(branch, definitions)]
    if "enum" in schema:  # each value may fit another branch
        return [{**schema, "enum": [value]} for value in cast("list[object]", schema["enum"])]
    if schema.get("type") == "boolean":
        return [{"enum": [False]}, {"enum": [True]}]
    return [schema]


def _resolved(schema: JsonSchema, definitions: JsonSchema) -> JsonSchema:
    while "$ref" in schema:
        name = str(schema["$ref"]).removeprefix("#/$defs/")
        rest = {word: value for word, value in schema.items() if word != "$ref"}
        schema = {**_mapping(definitions.get(name)), **rest}
    return schema


def _unlike(old: JsonSchema, new: JsonSchema) -> bool:
    kinds = _kinds(old)
    return not kinds or not kinds <= _kinds(new) | ({"integer"} if "number" in _kinds(new) else set())


def _kinds(schema: JsonSchema) -> set[str]:
    if "enum" in schema:
        return {_kind_of(value) for value in cast("list[object]", schema["enum"])}
    return {str(schema["type"])} if "type" in schema else set()


def _kind_of(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    return "integer" if isinstance(value, int) else "number" if isinstance(value, float) else "string"


def _meaning(schema: JsonSchema) -> bool:
    """Return whether a schema says anything: `{}` is anything at all."""
    return any(word != "$defs" for word in schema)


def _mapping(value: object) -> JsonSchema:
    return cast("JsonSchema", value) if isinstance(value, Mapping) else {}


def _items(schema: JsonSchema) -> list[JsonSchema]:
    return cast("list[JsonSchema]", schema.get("prefixItems", []))


def _item(schema: JsonSchema, prefix: list[JsonSchema], at: int) -> JsonSchema:
    return prefix[at] if at < len(prefix) else _rest(schema.get("items"))


def _rest(items: object) -> JsonSchema:
    return _mapping(items)


def _properties(schema: JsonSchema) -> dict[str, JsonSchema]:
    return cast("dict[str, JsonSchema]", schema.get("properties", {}))


def _names(schema: JsonSchema) -> list[str]:
    return cast("list[str]", schema.get("required", []))


def _more(schema: JsonSchema, *, written: bool) -> JsonSchema | None:
    """Return what fields have that are not named; None if there are none."""
    more = schema.get("additionalProperties")
    if more is False or (written and more is None and "properties" in schema):
        return None
    return _mapping(more)


def _number(schema: JsonSchema, word: str, default: float) -> float:
    return cast("float", schema.get(word, default))
