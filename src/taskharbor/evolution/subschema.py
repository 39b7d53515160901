"""Whether a new type accepts all that was written by an old one: a walk over two schemas side by side.

The schemas are those of `wire_schema`. What was written has the old type's fields and no others, since that type wrote
it, so an old record counts as closed even where unknown fields would have been ignored. The answer leans to the
safe side: what it accepts is accepted, and some of what it refuses might do. Types that contain themselves are taken to
fit until something in them does not (a greatest fixed point), and each pair of them is looked at once.
"""

from __future__ import annotations

import msgspec

from taskharbor.evolution.subschema_parts import (
    ANY_LENGTH,
    JsonSchema,
    alternatives,
    item,
    items,
    kinds,
    mapping,
    meaning,
    more,
    names,
    number,
    properties,
    told,
    unlike,
)
from taskharbor.evolution.subschema_values import values_gap


class Gap(msgspec.Struct, frozen=True):
    """One thing that the old type allows and the new one does not."""

    path: str
    """Where, as a JSONPath; `[...]` is any element."""
    why: str
    sure: bool = True
    """False where it cannot be told."""


def gaps(
    old: JsonSchema, new: JsonSchema, path: str = "$", *, codec: str = "json", closed: bool = False
) -> list[Gap]:
    """Return what a value written by the old type may be refused for by the new one; none if all fit.

    Args:
        old: what wrote it.
        new: what reads it.
        path: what the gaps' paths start with.
        codec: the name of the format that it is written in.
        closed: count it as refused if the new type would ignore a field.

    Raises:
        OptionError: a schema refers to what is not in it.
    """
    return list(dict.fromkeys(Comparison(old, new, codec, closed=closed).gaps(old, new, path)))


class Comparison:
    """One comparison of two schemas; refers to each one's own `$defs`."""

    def __init__(self, old: JsonSchema, new: JsonSchema, codec: str, *, closed: bool) -> None:
        self._old = mapping(old.get("$defs"))
        self._new = mapping(new.get("$defs"))
        self._codec = codec
        self._closed = closed
        self._fit: dict[tuple[str, str], None] = {}
        """Pairs of named types that fit, or are taken to, in the order in which they were met."""
        self._unfit: dict[tuple[str, str], Gap] = {}
        """The first gap of those that do not, its path from there."""

    def gaps(self, old: JsonSchema, new: JsonSchema, path: str) -> list[Gap]:
        """Return the gaps between two parts of the schemas."""
        if not meaning(new):
            return []
        wider = alternatives(new, self._new)
        found: list[Gap] = []
        for one in alternatives(old, self._old):
            tried = [self._one(one, other, path) for other in wider]
            if all(tried):
                # Of what comes nearest: of the same type, with the fewest gaps.
                best = min(range(len(tried)), key=lambda at: (unlike(one, wider[at]), len(tried[at])))
                found += tried[best]
        return found

    def _one(self, old: JsonSchema, new: JsonSchema, path: str) -> list[Gap]:
        if "$ref" not in old or "$ref" not in new:
            return self._compared(old, new, path)
        pair = _named(old), _named(new)
        if pair in self._fit:
            return []
        known = self._unfit.get(pair)
        if known is not None:
            return [Gap(path + known.path, known.why, known.sure)]
        before = len(self._fit)
        self._fit[pair] = None
        found = self._compared(old, new, path)
        if found:
            for later in list(self._fit)[before:]:  # some may only have fitted if this did
                del self._fit[later]
            first = next((gap for gap in found if gap.sure), found[0])
            self._unfit[pair] = Gap(first.path.removeprefix(path), first.why, first.sure)
        return found

    def _compared(self, old: JsonSchema, new: JsonSchema, path: str) -> list[Gap]:
        if not meaning(new):
            return []
        if not meaning(old):
            return [Gap(path, f"it was anything, and is {told(new)} now")]
        if not kinds(new):  # a custom type that only the task's own codec knows
            return self._custom(old, new, path)
        if unlike(old, new):
            return [Gap(path, f"it was {told(old)}, and is {told(new)} now")]
        found = self._custom(old, new, path) or self._values(old, new, path)
        if not found and "enum" not in old:
            if new.get("type") == "array":
                found = self._arrays(old, new, path)
            elif new.get("type") == "object":
                found = self._objects(old, new, path)
        return found

    def _values(self, old: JsonSchema, new: JsonSchema, path: str) -> list[Gap]:
        found = values_gap(old, new, self._codec)
        return [] if found is None else [Gap(path, found[0], sure=found[1])]

    def _custom(self, old: JsonSchema, new: JsonSchema, path: str) -> list[Gap]:
        kind = new.get("x-python-type")
        if kind is None or kind == old.get("x-python-type"):
            return []
        return [Gap(path, f"its type is {kind} now, whose hook may refuse what was written", sure=False)]

    def _arrays(self, old: JsonSchema, new: JsonSchema, path: str) -> list[Gap]:
        before, after = items(old), items(new)
        most = number(old, "maxItems", ANY_LENGTH if "items" in old or not before else len(before))
        if old.get("items") is False:
            most = min(most, len(before))
        allowed = number(new, "maxItems", ANY_LENGTH)
        if new.get("items") is False or (self._closed and after and "items" not in new):
            allowed = min(allowed, len(after))
        least, wanted = number(old, "minItems", 0), number(new, "minItems", 0)
        if "x-set" in new and "x-set" not in old:
            least = min(least, 1)  # equal elements count as one
        if least < wanted:
            return [Gap(path, f"it may have {least} different elements, and {wanted} are wanted now")]
        if most > allowed:
            many = "any number of" if most == ANY_LENGTH else f"{most:g}"
            return [Gap(path, f"it may have {many} elements, and {allowed:g} are allowed now")]
        found: list[Gap] = []
        for at in range(int(min(max(len(before), len(after)), most))):
            found += self.gaps(item(old, before, at), item(new, after, at), f"{path}[{at}]")
        if most > max(len(before), len(after)):
            found += self.gaps(mapping(old.get("items")), mapping(new.get("items")), f"{path}[...]")
        return found

    def _objects(self, old: JsonSchema, new: JsonSchema, path: str) -> list[Gap]:
        before, after = properties(old), properties(new)
        required = names(old)
        others = more(old, written=True)
        rest = more(new, written=self._closed)
        found: list[Gap] = []
        for name in names(new):
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
        if others is not None:
            for name in after.keys() - before.keys():
                found += self.gaps(others, after[name], f"{path}.{name}")
            if rest is None:
                found.append(Gap(path, "it may have any keys, and unknown ones are refused now"))
            else:
                found += self.gaps(others, rest, f"{path}[...]")
        return found or self._keys(old, new, path)

    def _keys(self, old: JsonSchema, new: JsonSchema, path: str) -> list[Gap]:
        before = properties(old)
        wanted = new.get("propertyNames")
        found: list[Gap] = []
        if wanted is not None:
            if before:
                found += self.gaps({"enum": list(before)}, mapping(wanted), f"{path} (its keys)")
            if more(old, written=True) is not None:
                keys = mapping(old.get("propertyNames", {"type": "string"}))
                found += self.gaps(keys, mapping(wanted), f"{path} (its keys)")
        elif "propertyNames" in old:
            found += self.gaps(mapping(old["propertyNames"]), {"type": "string"}, f"{path} (its keys)")
        least = max(number(old, "minProperties", 0), len(names(old)))
        open_ended = more(old, written=True) is not None
        most = number(old, "maxProperties", ANY_LENGTH if open_ended else len(before))
        if least < number(new, "minProperties", 0) or most > number(new, "maxProperties", ANY_LENGTH):
            found.append(Gap(path, "it may have fewer or more keys than are allowed now"))
        return found


def _named(schema: JsonSchema) -> str:
    """Return what a type with a name is known by: its name, and whose hook made it of another."""
    return f"{schema['$ref']} {schema.get('x-python-type', '')}"
