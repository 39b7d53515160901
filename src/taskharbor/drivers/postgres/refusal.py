"""What PostgreSQL's errors mean: ask again at once, try again later, or mend the deployment; and what helps."""

from __future__ import annotations

import re

import psycopg
from psycopg import errors as sqlstates

from taskharbor.drivers.postgres.place import Place
from taskharbor.errors import SchemaError, StoreError, StoreUnavailable, TaskHarborError, UnusableStoreError

_REPEATED = (sqlstates.DeadlockDetected, sqlstates.SerializationFailure, sqlstates.UniqueViolation)
"""The server took nothing, and may take the same the next time: another transaction was in the way."""
_MOST_REPEATS = 5
_UNUSABLE = (
    sqlstates.InvalidPassword,
    sqlstates.InvalidAuthorizationSpecification,
    sqlstates.InvalidCatalogName,
    sqlstates.InsufficientPrivilege,
)
_MISSING = (
    sqlstates.UndefinedTable,
    sqlstates.UndefinedColumn,
    sqlstates.InvalidSchemaName,
    sqlstates.UndefinedFunction,
)
_UNPREPARED = (sqlstates.InvalidSqlStatementName, sqlstates.DuplicatePreparedStatement)
_POOLER_WORDS = ("unsupported startup parameter",)
"""A pooler takes no settings for one session, nor (most of them) prepared statements."""
_PASSING = (
    "08",  # connection
    "25",  # transaction: read-only, as a standby is, or during a failover; ended since it was idle, or too long
    "40",  # rolled back: deadlocks, serialization
    "53",  # no disk, no memory, no connections left
    "55",  # not in the state: locks not available, and the like
    "57",  # operator intervention: cancelled, shut down, starting up
    "58",  # of the system below
    "XX",  # internal
)
# While connecting libpq tells no SQLSTATE, and words are all there is.
_FULL_WORDS = (
    "too many clients",
    "too many connections",
    "connection slots are reserved",
    "no more connections allowed",
)
_REFUSING_WORDS = (
    "password authentication failed",
    "no password supplied",
    "does not exist",
    "no pg_hba.conf entry",
    "authentication failed",
    "is not permitted to log in",
    "permission denied for database",
)
# Of libpq, of psycopg, and of the server for `options`.
_WRONG = re.compile(
    r"invalid \S+ value|invalid integer value|invalid SCRAM|could not match \d+ |could not parse network address|"
    r"definition of service|service file|may not be used with|may not be used without|value .* invalid when|"
    r"not support SSL|certificate|private key|invalid value for parameter|invalid command-line argument|"
    r"unrecognized configuration parameter"
)
_MORE_LINES = re.compile(r"\n\s*(?:LINE \d+|DETAIL|HINT|CONTEXT|QUERY|STATEMENT):.*", re.DOTALL)
_DO = {
    "25006": "it is a standby, or was made read-only: target_session_attrs=read-write in the URL chooses the primary",
    "53100": "its disk is full: make room; nothing was written",
    "55P03": "lock_timeout passed: see in pg_stat_activity who holds locks for long (a migration, a VACUUM FULL, a "
    "transaction that has enqueued a job with the same key and does not end?)",
    "57014": "statement_timeout passed, or somebody cancelled it: ALTER ROLE ... SET statement_timeout gives it longer",
}


def may_repeat(error: Exception, *, broken: bool, before: int) -> bool:
    """Return whether to ask the same again at once, having been refused so many times before.

    Args:
        error: why it was refused.
        broken: the connection was lost: whether the last statement was carried out is unknown.
        before: how many times it was refused before.
    """
    if isinstance(error, _REPEATED):
        return before < _MOST_REPEATS
    return broken and before < 1


def is_broken(error: psycopg.Error) -> bool:
    """Return whether it says that the connection was lost: whether the last statement was carried out is unknown."""
    if isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)) and error.sqlstate is None:
        return True
    return (error.sqlstate or "").startswith("08") or error.diag.severity_nonlocalized in ("FATAL", "PANIC")


def is_full(error: BaseException) -> bool:
    """Return whether a connection was refused since the server has no room for one more."""
    return isinstance(error, psycopg.OperationalError) and _says(error, _FULL_WORDS)


def none_free(place: Place, count: int) -> StoreUnavailable:
    """Return the error for one who has waited for a connection of a pool, `count` of which are open."""
    if count == 0:
        why = "the server does not answer; see whether it can be reached from here"
    elif count < place.pool_size:
        why = f"the server allows us no more than the {count} in use (max_connections, or a role's or a pooler's limit)"
    else:
        why = f"all {count} of the pool are in use, for long or many at once (?pool_size=N in the URL allows more)"
    return StoreUnavailable(f"no connection to {place.name} came free in time: {why}")


def words_of(error: Exception) -> str:
    """Return what was said, in one line; without details, which quote rows and so payloads, and without statements."""
    primary = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    return " ".join((primary or _MORE_LINES.sub("", str(error))).split())


def store_error(error: Exception, place: Place) -> TaskHarborError:
    """Return what an error of psycopg's means to the caller: try again later, or mend the deployment."""
    said = words_of(error)
    where = place.name
    state = getattr(error, "sqlstate", None) or ""
    if isinstance(error, _MISSING):
        return SchemaError(
            f"{where} has no tables of TaskHarbor's in the schema {place.schema!r}, or not those of this release "
            f"(PostgreSQL says: {said}); run `taskharbor migrate`, which makes them, or says what was dropped"
        )
    if isinstance(error, _UNPREPARED):
        return UnusableStoreError(
            f"{where} forgets what was prepared on a connection (PostgreSQL says: {said}), as it does behind a pooler "
            "that hands connections on after each transaction; put ?prepare=off in the URL"
        )
    if _connecting(error) and _says(error, _POOLER_WORDS):
        return UnusableStoreError(
            f"{where} is a pooler that takes no settings for a session (PostgreSQL says: {said}); "
            "put ?prepare=off in the URL"
        )
    if _connecting(error) and _WRONG.search(said):
        return UnusableStoreError(
            f"{where} cannot be reached as the settings say (PostgreSQL says: {said}); correct them in the URL, or in "
            "libpq's environment variables (PGSSLMODE, PGPORT, ...) and files"
        )
    if isinstance(error, _UNUSABLE) or (_connecting(error) and _says(error, _REFUSING_WORDS)):
        return UnusableStoreError(
            f"{where} cannot be used as it is (PostgreSQL says: {said}); {_advice(said)}"
        )
    if is_full(error):
        return StoreUnavailable(
            f"{where} allows no more connections now (PostgreSQL says: {said}); raise max_connections, or lower the "
            "pool_size of those who use it"
        )
    if isinstance(error, psycopg.DataError):
        return StoreError(f"{where} does not take this: {said}")
    if not state or state.startswith(_PASSING):
        do = _DO.get(state, "ask again when it is back; workers do that by themselves")
        return StoreUnavailable(f"{where} cannot be used now (PostgreSQL says: {said}); {do}")
    return StoreError(
        f"{where}: PostgreSQL says: {said} ({state}); this is a bug in the driver, please report it"
    )


def _connecting(error: Exception) -> bool:
    return isinstance(error, psycopg.OperationalError) and error.sqlstate is None


def _says(error: Exception, words: tuple[str, ...]) -> bool:
    said = str(error)
    return any(each in said for each in words)


def _advice(said: str) -> str:
    if "database" in said and "does not exist" in said:
        return "create it (createdb NAME), or correct the URL"
    if "role" in said and "does not exist" in said:
        return "create the role (createuser NAME), or correct the URL"
    if "permission denied" in said:
        return "grant the role its rights on the schema; docs/postgres.md lists them"
    return "correct the URL, or what the server allows"
