"""Bringing the tables to a version: a transaction for each migration, one migrator at a time, nobody waits long."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import psycopg

from taskharbor.driver import Migration, SchemaVersion
from taskharbor.drivers.postgres.carry import carry
from taskharbor.drivers.postgres.place import Place
from taskharbor.drivers.postgres.routine import Query, Routine, quoted
from taskharbor.drivers.postgres.schema import MIGRATIONS, SCHEMA, WANTED, renamed, version
from taskharbor.errors import SchemaError

# A change of a table waits for who uses it, and everybody after it waits too. So it gives up soon, and is tried again.
_PATIENCE = Query("SELECT set_config('lock_timeout', '2s', true)")
_ALONE = Query("SELECT pg_advisory_xact_lock(hashtextextended('taskharbor.migrate', 0))")
_TRIES = 30
_TABLE = """CREATE TABLE IF NOT EXISTS taskharbor.migration (
    number integer PRIMARY KEY,
    name text NOT NULL,
    run_at timestamptz NOT NULL DEFAULT clock_timestamp()
)"""
_NOTE = "INSERT INTO taskharbor.migration (number, name) VALUES ($1::text::integer, $2::text)"


def migrations(schema: str) -> tuple[Migration, ...]:
    """Return every migration as it reads for a schema: each ends by noting itself."""
    return tuple(
        msgspec.structs.replace(
            migration,
            statements=[
                *(
                    [f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}", renamed(_TABLE, schema)]
                    if first
                    else []
                ),
                *(renamed(statement, schema) for statement in migration.statements),
                renamed(
                    f"INSERT INTO taskharbor.migration (number, name) VALUES ({migration.number}, '{migration.name}')",
                    schema,
                ),
            ],
        )
        for first, migration in zip([True, *[False] * len(MIGRATIONS)], MIGRATIONS, strict=False)
    )


def refuse_newer(stands: SchemaVersion, place: Place) -> None:
    """Refuse tables that a later release has made.

    Raises:
        SchemaError: they are newer than this release.
    """
    if stands.present > stands.wanted:
        raise SchemaError(
            f"the schema {place.schema!r} of {place.name} is at version {stands.present}, and this release of "
            f"TaskHarbor knows versions up to {stands.wanted}; a later release has migrated it: upgrade this one"
        )


def migrate(
    connection: psycopg.Connection[tuple[object, ...]], place: Place, *, to: int | None = None
) -> Sequence[Migration]:
    """Run what is missing up to a version, and return it.

    Raises:
        SchemaError: the tables are newer than this release, or there is no such version.
    """
    wanted = WANTED if to is None else to
    if not 1 <= wanted <= WANTED:
        raise SchemaError(f"there is no version {wanted}: this release knows 1 to {WANTED}")
    known = {migration.number: migration for migration in migrations(place.schema)}
    run: list[Migration] = []
    while True:
        number = _with_patience(connection, place, wanted)
        if number is None:
            return run
        run.append(known[number])


def _with_patience(
    connection: psycopg.Connection[tuple[object, ...]], place: Place, wanted: int
) -> int | None:
    for last in (*[False] * (_TRIES - 1), True):
        try:
            with connection.transaction():
                routine = _next(place, wanted)
                return carry(psycopg.RawCursor(connection), routine, place.schema, prepare=False)
        except psycopg.errors.LockNotAvailable:
            if last:
                raise
    return None


def _next(place: Place, wanted: int) -> Routine[int | None]:
    """Run the next migration that is missing, and return its number."""
    yield _PATIENCE
    yield _ALONE
    stands = yield from version()
    refuse_newer(stands, place)
    if stands.present >= wanted:
        return None
    if not stands.present:
        # Asked first: who may not create schemas may use one that was made for them.
        ((there,),) = yield Query("SELECT to_regnamespace($1::text) IS NOT NULL", (quoted(place.schema),))
        if not there:
            yield Query(
                f"CREATE SCHEMA {SCHEMA}"
                if place.schema == SCHEMA
                else f"CREATE SCHEMA {quoted(place.schema)}"
            )
        yield Query(_TABLE)
    migration = next(migration for migration in MIGRATIONS if migration.number > stands.present)
    for statement in migration.statements:
        yield Query(statement)
    yield Query(_NOTE, (str(migration.number), migration.name))
    return migration.number
