"""Reading schemas of types: what they refer to, the alternatives they come down to, what stands in which keyword."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias, cast

from taskharbor.errors import OptionError

JsonSchema: TypeAlias = Mapping[str, object]

ANY_LENGTH = 1 << 62


def resolved(schema: JsonSchema, definitions: JsonSchema) -> JsonSchema:
    """Return a schema with what it refers to in it; `$ref` still says what that was.

    Raises:
        OptionError: there is no such definition.
    """
    if "$ref" not in schema:
        return schema
    found = definitions.get(str(schema["$ref"]).removeprefix("#/$defs/"))
    if found is None:
        raise OptionError(f"the dump is damaged: it refers to {schema['$ref']}, which is not in it")
    return {**mapping(found), **schema}


def alternatives(schema: JsonSchema, definitions: JsonSchema) -> list[JsonSchema]:
    """Return the schemas of which a value fits one, each of one type; numbers are divided into `integer` and others.

    A decoder chooses by the type that it meets, and takes an integer for a float only where nothing else is made of
    integers: of `float | Literal[1]`, 2 is none.
    """
    found = list(_branches(schema, definitions))
    integers = any("integer" in kinds(one) for one in found)
    divided: list[JsonSchema] = []
    for one in found:
        if kinds(one) == {"number"} and not integers:
            divided.append({**one, "type": "integer", "x-told": "number"})
        divided.append(one)
    return divided


def _branches(schema: JsonSchema, definitions: JsonSchema) -> Iterable[JsonSchema]:
    schema = resolved(schema, definitions)
    custom = schema.get("x-python-type")
    if "anyOf" in schema:
        for branch in cast("list[JsonSchema]", schema["anyOf"]):
            for one in _branches(branch, definitions):
                # The hook of a custom type is given what its wire type accepts, whichever branch that is.
                within = one.get("x-python-type")
                told = custom if within is None else f"{custom} of {within}"
                yield one if custom is None else {**one, "x-python-type": told}
    elif "enum" in schema:  # each value may fit another branch
        for value in cast("list[object]", schema["enum"]):
            yield {**schema, "enum": [value]}
    elif schema.get("type") == "boolean":
        rest = {word: value for word, value in schema.items() if word != "type"}
        yield {**rest, "enum": [False]}
        yield {**rest, "enum": [True]}
    else:
        yield schema


def told(schema: JsonSchema) -> str:
    """Return what a schema is, in a few words."""
    if "enum" in schema:
        return "one of " + ", ".join(map(repr, cast("list[object]", schema["enum"])))
    kind = str(schema.get("x-told", schema.get("type", "anything")))
    form = schema.get("format", schema.get("contentEncoding"))
    return f"{kind} ({form})" if form else kind


def unlike(old: JsonSchema, new: JsonSchema) -> bool:
    """Return whether two alternatives are of other types."""
    return not kinds(old) or not kinds(old) <= kinds(new)


def kinds(schema: JsonSchema) -> set[str]:
    """Return the types of JSON that values have; none where that is not known."""
    if "enum" in schema:
        return {_kind_of(value) for value in cast("list[object]", schema["enum"])}
    return {str(schema["type"])} if "type" in schema else set()


def _kind_of(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    return "integer" if isinstance(value, int) else "number" if isinstance(value, float) else "string"


def meaning(schema: JsonSchema) -> bool:
    """Return whether a schema says anything: `{}` is anything at all."""
    return any(word != "$defs" for word in schema)


def mapping(value: object) -> JsonSchema:
    """Return a schema, if it is one."""
    return cast("JsonSchema", value) if isinstance(value, Mapping) else {}


def items(schema: JsonSchema) -> list[JsonSchema]:
    """Return the schemas of a row's first elements."""
    return cast("list[JsonSchema]", schema.get("prefixItems", []))


def item(schema: JsonSchema, prefix: list[JsonSchema], at: int) -> JsonSchema:
    """Return the schema of an element, of which the first ones are in `prefix`."""
    return prefix[at] if at < len(prefix) else mapping(schema.get("items"))


def properties(schema: JsonSchema) -> dict[str, JsonSchema]:
    """Return the schemas of named fields."""
    return cast("dict[str, JsonSchema]", schema.get("properties", {}))


def names(schema: JsonSchema) -> list[str]:
    """Return the fields that have to be there."""
    return cast("list[str]", schema.get("required", []))


def more(schema: JsonSchema, *, written: bool) -> JsonSchema | None:
    """Return what fields have that are not named; None if there are none, as in records that such a type wrote."""
    found = schema.get("additionalProperties")
    if found is False or (written and found is None and "properties" in schema):
        return None
    return mapping(found)


def number(schema: JsonSchema, word: str, default: float) -> float:
    """Return a number among the keywords."""
    return cast("float", schema.get(word, default))
