"""Whether a new type of text, numbers or values accepts all of an old one: bounds, lengths, formats, patterns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeAlias, cast

JsonSchema: TypeAlias = Mapping[str, object]

_NO = object()
_STRUCTURE = frozenset({
    "$defs", "$ref", "type", "enum", "anyOf", "items", "prefixItems", "minItems", "maxItems", "properties", "required",
    "additionalProperties", "propertyNames", "minProperties", "maxProperties", "title", "description", "default",
    "examples", "x-python-type", "x-set", "x-told",
})  # fmt: skip
"""Keywords that are compared elsewhere, or say nothing of what is accepted."""
_LEAST = {"minLength": "shorter", "x-min-bytes": "shorter"}
_MOST = {"maxLength": "longer", "x-max-bytes": "longer"}
_NUMBERS = frozenset({"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"})


_TEXT = {
    "json": frozenset({"date-time", "date", "time", "duration", "uuid", "decimal", "base64"}),
    "msgpack": frozenset({"date", "time", "duration", "uuid", "decimal"}),
}
"""What each format writes as text."""


def values_gap(old: JsonSchema, new: JsonSchema, codec: str) -> tuple[str, bool] | None:
    """Return why values of the old type may be refused by the new, of the same type, and whether that is sure.

    `codec` is the name of what they were written in.
    """
    if "enum" in old:
        for value in cast("list[object]", old["enum"]):
            found = _value_gap(value, new)
            if found is not None:
                return found
        return None
    if "enum" in new:
        return "it may have other values than those that are allowed now", True
    lost = _lost_form(old, new, codec)
    if lost is not None:
        return lost
    for word, wanted in new.items():
        if word in _STRUCTURE or old.get(word, _NO) == wanted:
            continue
        found = _keyword_gap(word, wanted, old)
        if found is not None:
            return found
    return None


def _lost_form(old: JsonSchema, new: JsonSchema, codec: str) -> tuple[str, bool] | None:
    """Return why what was a time, bytes and so on may not be read as text: not every format writes it as that."""
    form = old.get("format", old.get("contentEncoding"))
    if form is None or "format" in new or "contentEncoding" in new:
        return None
    text = _TEXT.get(codec.partition("+")[0])
    if text is None:
        return f"it was {form}, and is text now; whether {codec} writes it so cannot be told", False
    return None if form in text else (f"it was {form}, which {codec} does not write as text", True)


def _keyword_gap(word: str, wanted: object, old: JsonSchema) -> tuple[str, bool] | None:
    had = old.get(word)
    if word in _LEAST:
        return (
            None
            if _amount(had, 0) >= _amount(wanted, 0)
            else (f"it may be {_LEAST[word]} than is allowed now", True)
        )
    if word in _MOST:
        large = float("inf")
        return (
            None
            if _amount(had, large) <= _amount(wanted, 0)
            else (f"it may be {_MOST[word]} than is allowed now", True)
        )
    if word in _NUMBERS:
        return _bound_gap(
            _amount(wanted, 0), old, upper=word.lower().endswith("maximum"), shut=word.startswith("exclusive")
        )
    if word == "x-flags" and isinstance(had, int) and isinstance(wanted, int):
        return None if had & ~wanted == 0 else ("some of its flags are not known any more", True)
    if word == "multipleOf":
        fits = had is not None and _amount(had, 0) % _amount(wanted, 1) == 0
        return None if fits else (f"it has to be a multiple of {wanted} now", True)
    if word in ("format", "contentEncoding"):
        was = "any text" if had is None else str(had)
        return f"it was {was}, and is {wanted} now", True
    if word == "x-timezone":
        return f"it was {had or 'with or without a time zone'}, and has to be {wanted} now", True
    if word == "pattern":
        return f"it has to match {wanted} now, and whether all that was written does cannot be told", False
    return f"{word} is {wanted!r} now, and what that refuses cannot be told", False


def _bound_gap(wanted: float, old: JsonSchema, *, upper: bool, shut: bool) -> tuple[str, bool] | None:
    """Return why numbers end elsewhere; `shut` if the new end itself is not allowed."""
    end = _end(old, upper=upper)
    sign = -1 if upper else 1
    if end is not None and sign * end[0] >= sign * wanted and (end[0] != wanted or end[1] or not shut):
        return None
    return f"it may be {'larger' if upper else 'smaller'} than is allowed now ({wanted:g})", True


def _end(schema: JsonSchema, *, upper: bool) -> tuple[float, bool] | None:
    """Return where numbers end, and whether the end itself is not one of them."""
    open_end = schema.get("exclusiveMaximum" if upper else "exclusiveMinimum")
    if isinstance(open_end, (int, float)):
        if schema.get("type") == "integer" and isinstance(open_end, int):
            return open_end + (-1 if upper else 1), False
        return open_end, True
    end = schema.get("maximum" if upper else "minimum")
    return (end, False) if isinstance(end, (int, float)) else None


def _value_gap(value: object, new: JsonSchema) -> tuple[str, bool] | None:
    """Return why one value is refused."""
    if "enum" in new:
        allowed = cast("list[object]", new["enum"])
        if any(type(value) is type(one) and value == one for one in allowed):
            return None
        return f"it may be {value!r}, which is not allowed now", True
    for word, wanted in new.items():
        if word in _STRUCTURE:
            continue
        fits = _fits(value, word, wanted)
        if fits is None:
            return f"it may be {value!r}; whether {word}={wanted!r} allows that cannot be told", False
        if not fits:
            return f"it may be {value!r}, which {word}={wanted!r} refuses now", True
    return None


def _fits(value: object, word: str, wanted: object) -> bool | None:
    if isinstance(value, str):
        if word == "minLength":
            return len(value) >= _amount(wanted, 0)
        if word == "maxLength":
            return len(value) <= _amount(wanted, 0)
        if word == "pattern":
            return re.search(str(wanted), value) is not None
        return None
    if isinstance(value, (int, float)):
        limit = _amount(wanted, 1)
        if word == "multipleOf":
            return value % limit == 0
        return {
            "minimum": value >= limit,
            "exclusiveMinimum": value > limit,
            "maximum": value <= limit,
            "exclusiveMaximum": value < limit,
        }.get(word)
    return None


def _amount(value: object, default: float) -> float:
    return value if isinstance(value, (int, float)) else default
