"""Whether the tables and columns are there that a version of them has: who drops one is told of that, not of a bug."""

from __future__ import annotations

import re
from collections.abc import Iterator

from taskharbor.driver import SchemaVersion
from taskharbor.drivers.postgres import schema
from taskharbor.drivers.postgres.place import Place
from taskharbor.drivers.postgres.routine import Query, Routine, quoted, text_array
from taskharbor.errors import SchemaError

_CREATE = re.compile(r"CREATE TABLE taskharbor\.(\w+)\s+(?:\((.*?)(?:\n\)|\)$)|PARTITION OF)", re.DOTALL)
_ADD = re.compile(r"ALTER TABLE taskharbor\.(\w+)\s+(?=ADD (?:COLUMN )?(?:IF NOT EXISTS )?[a-z])")
_ADDED = re.compile(r"\bADD (?:COLUMN )?(?:IF NOT EXISTS )?([a-z]\w*)")
_DROP = re.compile(r"ALTER TABLE taskharbor\.(\w+)\s+DROP (?:COLUMN )?(?:IF EXISTS )?([a-z]\w*)")
_DROP_TABLE = re.compile(r"DROP TABLE (?:IF EXISTS )?taskharbor\.(\w+)")
_BRACKETED = re.compile(r"\([^()]*\)")
_ITSELF = "tableoid"
"""A column that every table has, whoever made it: it stands for the table."""
_MOST_TOLD = 8
_MISSING = """SELECT want.relation, want.name
FROM unnest($2::text::text[], $3::text::text[]) WITH ORDINALITY want(relation, name, place)
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1::text AND c.relname = want.relation AND a.attname = want.name AND NOT a.attisdropped)
ORDER BY want.place"""


def whole_version(place: Place) -> Routine[SchemaVersion]:
    """Return where the tables stand.

    Raises:
        SchemaError: some of them are missing.
    """
    stands = yield from schema.version()
    yield from check_whole(place, stands)
    return stands


def check_whole(place: Place, stands: SchemaVersion) -> Routine[None]:
    """Check that all is there that has been made up to this version. Of a later release's nothing is known.

    Raises:
        SchemaError: some of it is missing.
    """
    if not 1 <= stands.present <= stands.wanted:
        return
    pairs = [
        (table, column) for table, columns in tables(stands.present).items() for column in [_ITSELF, *columns]
    ]
    wanted = [text_array(names) for names in zip(*pairs, strict=True)]
    rows = yield Query(_MISSING, (place.schema, *wanted))
    if rows:
        raise SchemaError(_told(place, stands, [(str(table), str(column)) for table, column in rows]))


def tables(version: int) -> dict[str, list[str]]:
    """Return the columns of each table that the migrations up to this one make; of a partition none of its own."""
    found: dict[str, list[str]] = {}
    for migration in schema.MIGRATIONS:
        for sql in migration.statements if migration.number <= version else ():
            if made := _CREATE.match(sql):
                found[made[1]] = list(_columns(made[2] or ""))
            elif added := _ADD.match(sql):
                found[added[1]] += _ADDED.findall(sql)
            elif (dropped := _DROP.match(sql)) and dropped[2] in found[dropped[1]]:
                found[dropped[1]].remove(dropped[2])
            elif gone := _DROP_TABLE.match(sql):
                found.pop(gone[1], None)
    return found


def _columns(body: str) -> Iterator[str]:
    """Yield the columns of a CREATE TABLE; keys and the like, which are no columns, begin in capitals."""
    while _BRACKETED.search(body):
        body = _BRACKETED.sub("", body)
    for part in body.split(","):
        name = part.strip().partition(" ")[0]
        if name.islower():
            yield name


def _told(place: Place, stands: SchemaVersion, missing: list[tuple[str, str]]) -> str:
    gone = [table for table, column in missing if column == _ITSELF]
    named = [f"the table {table}" for table in gone]
    named += [f"the column {table}.{column}" for table, column in missing if table not in gone]
    told = ", ".join(named[:_MOST_TOLD])
    if len(named) > _MOST_TOLD:
        told += f", and {len(named) - _MOST_TOLD} more"
    return (
        f"the schema {place.schema!r} of {place.name} says that it is at version {stands.present}, and lacks {told}: "
        "dropped by somebody, or not part of the backup that was restored. `taskharbor migrate` makes them once and "
        "does not bring them back: restore them from a backup; or, if all jobs there may be lost, DROP SCHEMA "
        f"{quoted(place.schema)} CASCADE, and run `taskharbor migrate`"
    )
