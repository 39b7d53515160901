"""Bringing the tables to a version: a transaction for each migration, one migrator at a time, nobody waits long."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TypeAlias, TypeVar

import msgspec
import psycopg
from psycopg import errors as sqlstates

from taskharbor.driver import Migration, SchemaVersion
from taskharbor.drivers.postgres.carry import carry
from taskharbor.drivers.postgres.place import Place
from taskharbor.drivers.postgres.routine import Query, Routine, Row, quoted
from taskharbor.drivers.postgres.schema import MIGRATIONS, WANTED, renamed, version
from taskharbor.drivers.postgres.whole import whole_version
from taskharbor.errors import SchemaError, StoreUnavailable, UnusableStoreError

T = TypeVar("T")
Connection: TypeAlias = psycopg.Connection[tuple[object, ...]]

# After the wait for another migrator its tables must be seen; and an index takes as long as it takes.
_READ_COMMITTED = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED"
_UNTIMED = "SET LOCAL statement_timeout = 0"
# A change of a table waits for who uses it, and everybody after it waits too. So it gives up soon, lets them go on, and
# is tried again. Not so soon, though, that the server has no time to send a VACUUM away: that takes deadlock_timeout.
_PATIENCE = "SET LOCAL lock_timeout = '2s'"
_TRIES = 20
_PAUSE_SECONDS = 1.0
_LOCK = "hashtextextended('taskharbor.migrate', 0)"
_ALONE = f"SELECT pg_advisory_xact_lock({_LOCK})"
_IN_THE_WAY = (sqlstates.LockNotAvailable, sqlstates.DeadlockDetected)
_TAKEN = (sqlstates.DuplicateTable, sqlstates.DuplicateObject)
_TABLE = """CREATE TABLE IF NOT EXISTS taskharbor.migration (
    number integer PRIMARY KEY,
    name text NOT NULL,
    run_at timestamptz NOT NULL DEFAULT clock_timestamp()
)"""
_NOTE = "INSERT INTO taskharbor.migration (number, name) VALUES ({number}, '{name}')"
_AFTER = """DO $$ BEGIN IF (SELECT max(number) FROM taskharbor.migration) IS DISTINCT FROM {before} THEN
    RAISE EXCEPTION 'this follows migration {before}, and another one was run last'; END IF; END $$"""
# Asked first: who may not create schemas may use one that was made for them.
_SCHEMA = """DO $$ BEGIN IF to_regnamespace('{schema}') IS NULL THEN CREATE SCHEMA {schema}; END IF; END $$"""
# Who holds locks in the schema, or migrates it; what they do there is not told, since it may have payloads in it.
_HOLDERS = f"""SELECT a.pid, a.usename, a.application_name, a.state,
    round(date_part('epoch', clock_timestamp() - a.xact_start))::bigint
FROM pg_stat_activity a WHERE a.pid <> pg_backend_pid() AND a.pid IN (
    SELECT l.pid FROM pg_locks l LEFT JOIN pg_class c ON c.oid = l.relation AND l.locktype = 'relation'
        LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND (n.nspname = $1::text OR (l.locktype = 'advisory' AND l.objsubid = 1
            AND l.classid::bigint << 32 | l.objid::bigint = {_LOCK})))
ORDER BY a.xact_start LIMIT 3"""


def migrations(schema: str) -> tuple[Migration, ...]:
    """Return every migration as one runs it by hand in a schema: each sees whether it is its turn, and notes itself."""
    return tuple(
        msgspec.structs.replace(
            migration,
            statements=[
                renamed(sql, schema)
                for sql in (
                    *_alone(),
                    *_first(schema, migration),
                    *migration.statements,
                    _noted(migration),
                )
            ],
        )
        for migration in MIGRATIONS
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


def refuse_older(stands: SchemaVersion, place: Place) -> None:
    """Refuse tables that are missing, or that this release has not yet brought up.

    Raises:
        SchemaError: they are.
    """
    if stands.present >= stands.wanted:
        return
    where = f"the schema {place.schema!r} of {place.name}"
    stand = f"{where} is at version {stands.present}, and this release of TaskHarbor needs {stands.wanted}"
    if not stands.present:
        stand = f"{where} has no tables of TaskHarbor's yet"
    raise SchemaError(f"{stand}: run `taskharbor migrate` (`taskharbor migrate --sql` shows what it does)")


def migrate(connection: Connection, place: Place, *, to: int | None = None) -> Sequence[Migration]:
    """Run what is missing up to a version, and return it.

    Raises:
        SchemaError: the tables are newer than this release, or there is no such version, or others are in the way that
            are none of ours.
        StoreUnavailable: somebody holds a lock on them for too long.
        UnusableStoreError: this role may not.
    """
    wanted = WANTED if to is None else to
    if not 1 <= wanted <= WANTED:
        raise SchemaError(
            f"there is no version {wanted} of the tables: this release knows versions 1 to {WANTED}"
        )
    known = {migration.number: migration for migration in migrations(place.schema)}
    run: list[Migration] = []
    while (number := _with_patience(connection, place, wanted)) is not None:
        run.append(known[number])
    _carry(connection, place, whole_version(place))
    return run


def _with_patience(connection: Connection, place: Place, wanted: int) -> int | None:
    tries = 0
    while True:
        try:
            with connection.transaction():
                return _carry(connection, place, _next(place, wanted))
        except _IN_THE_WAY as error:
            tries += 1
            if tries >= _TRIES:
                raise StoreUnavailable(_told(place, _carry(connection, place, _holders(place)))) from error
            time.sleep(_PAUSE_SECONDS)
        except _TAKEN as error:
            raise SchemaError(
                f"the schema {place.schema!r} of {place.name} has something in it that is none of TaskHarbor's, and in "
                f"its way (PostgreSQL says: {error.diag.message_primary}); give TaskHarbor a schema of its own: "
                "?schema=NAME in the URL. (If all tables there are TaskHarbor's: the rows of its table `migration` say "
                "which version they are, and are gone; restore them from a backup)"
            ) from error


def _next(place: Place, wanted: int) -> Routine[int | None]:
    """Run the next migration that is missing, and return its number."""
    for statement in _alone():
        yield Query(statement)
    stands = yield from version()
    refuse_newer(stands, place)
    if stands.present >= wanted:
        return None
    migration = next(migration for migration in MIGRATIONS if migration.number > stands.present)
    try:
        for statement in (*_first(place.schema, migration), *migration.statements, _noted(migration)):
            yield Query(statement)
    except sqlstates.InsufficientPrivilege as error:
        raise UnusableStoreError(
            f"{place.name}: this role may not migrate the schema {place.schema!r} (PostgreSQL says: "
            f"{error.diag.message_primary}); migrate as the role that owns it, or let an administrator run: CREATE "
            f"SCHEMA {quoted(place.schema)} AUTHORIZATION the_role"
        ) from error
    return migration.number


def _alone() -> Sequence[str]:
    """Return how a migration's transaction begins."""
    return (_READ_COMMITTED, _UNTIMED, _PATIENCE, _ALONE)


def _first(schema: str, migration: Migration) -> Sequence[str]:
    """Return what is done before a migration's own statements."""
    if migration is not MIGRATIONS[0]:
        return [_AFTER.format(before=migration.number - 1)]
    return [_SCHEMA.format(schema=quoted(schema)), _TABLE]


def _noted(migration: Migration) -> str:
    return _NOTE.format(number=migration.number, name=migration.name)


def _holders(place: Place) -> Routine[list[Row]]:
    return (yield Query(_HOLDERS, (place.schema,)))


def _carry(connection: Connection, place: Place, routine: Routine[T]) -> T:
    return carry(psycopg.RawCursor(connection), routine, place.schema, prepare=False)


def _told(place: Place, holders: Sequence[Row]) -> str:
    whom = "; ".join(
        f"pid {pid} (role {role!r}, application {application!r}, {state or 'state not shown to this role'}"
        f"{'' if age is None else f', in a transaction for {age} s'})"
        for pid, role, application, state, age in holders
    )
    return (
        f"the schema {place.schema!r} of {place.name} cannot be migrated now: others held locks there each time it was "
        f"tried ({_TRIES} times). "
        + (f"At present these do, the oldest first: {whom}. " if whom else "At present nobody does. ")
        + "Nothing was changed since the last migration noted; wait until they are done, or end them with SELECT "
        "pg_terminate_backend(pid), and run `taskharbor migrate` again"
    )
