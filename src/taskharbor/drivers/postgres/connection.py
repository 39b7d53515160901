"""Connections: opened with what every one of ours needs, and what their errors mean."""

from __future__ import annotations

import logging
from typing import Any

import psycopg
from psycopg import errors as sqlstates
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow, tuple_row
from psycopg_pool import PoolTimeout, TooManyRequests

from taskharbor.drivers.postgres.place import Place
from taskharbor.errors import SchemaError, StoreError, StoreUnavailable, TaskHarborError, UnusableStoreError

logger = logging.getLogger("taskharbor.postgres")

LEAST_VERSION = 130000
"""`pg_current_xact_id` is of PostgreSQL 13."""
_CONNECT_SECONDS = 10

_REPEATED = (sqlstates.DeadlockDetected, sqlstates.SerializationFailure, sqlstates.UniqueViolation)
"""The server took nothing, and may take the same the next time: another transaction was in the way."""
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
_PASSING = (
    "08",  # connection
    "25006",  # read-only: a standby, or a failover under way
    "40",  # rolled back: deadlocks, serialization
    "53",  # no disk, no memory, no connections left
    "55",  # not in the state: locks not available, and the like
    "57",  # operator intervention: cancelled, shut down, starting up
    "58",  # of the system below
    "XX",  # internal
)


def settings(place: Place) -> dict[str, Any]:
    """Return the arguments of `connect` that every connection of ours has."""
    words = conninfo_to_dict(place.conninfo)
    found: dict[str, Any] = {
        "autocommit": True,
        "prepare_threshold": 0 if place.prepare else None,
        "row_factory": tuple_row,
        "fallback_application_name": "taskharbor",
    }
    if "connect_timeout" not in words:
        found["connect_timeout"] = _CONNECT_SECONDS
    if "keepalives" not in words and "keepalives_idle" not in words:
        # A server that is gone without a word is noticed in a quarter of a minute.
        found |= {"keepalives_idle": 5, "keepalives_interval": 3, "keepalives_count": 3}
    return found


def open_connection(place: Place, *, listening: bool = False) -> psycopg.Connection[TupleRow]:
    """Open a connection outside of any pool; for listening, past the pooler.

    Raises:
        StoreUnavailable: the server cannot be reached now.
        UnusableStoreError: it refuses us.
    """
    conninfo = place.listen if listening and place.listen else place.conninfo
    try:
        return psycopg.connect(conninfo, **settings(place))
    except psycopg.Error as error:
        raise store_error(error, place) from error


def check_version(connection: psycopg.Connection[TupleRow], place: Place) -> None:
    """Check that the server is new enough.

    Raises:
        UnusableStoreError: it is not.
    """
    found = connection.info.server_version
    if found < LEAST_VERSION:
        raise UnusableStoreError(
            f"{place.name} is PostgreSQL {found // 10000}, and TaskHarbor needs {LEAST_VERSION // 10000} or newer"
        )


def may_repeat(error: Exception, *, before: int) -> bool:
    """Return whether to ask the same again at once, having been refused so many times before."""
    if isinstance(error, _REPEATED):
        return before < 5
    return is_broken(error) and before < 1


def is_broken(error: Exception) -> bool:
    """Return whether it says that the connection was lost: whether the last statement was written is unknown."""
    if not isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
        return False
    if isinstance(error, (PoolTimeout, TooManyRequests)):
        return False
    return error.sqlstate is None or error.sqlstate.startswith(("08", "57P"))


def store_error(error: Exception, place: Place) -> TaskHarborError:
    """Return what an error of psycopg's means to the caller: try again later, or mend the deployment."""
    said = " ".join(str(error).split())
    where = place.name
    state = getattr(error, "sqlstate", None) or ""
    if isinstance(error, (PoolTimeout, TooManyRequests)):
        return StoreUnavailable(
            f"no connection to {where} came free in time: the server does not answer, or all {place.pool_size} of the "
            "pool are busy (?pool_size=N in the URL allows more)"
        )
    if isinstance(error, _MISSING):
        return SchemaError(
            f"{where} has no tables of TaskHarbor's in the schema {place.schema!r}, or not those of this release "
            f"(PostgreSQL says: {said}); run `taskharbor migrate`"
        )
    if isinstance(error, _UNUSABLE) or _refused_at_the_door(error):
        return UnusableStoreError(
            f"{where} cannot be used as it is (PostgreSQL says: {said}); {_advice(said)}"
        )
    if isinstance(error, sqlstates.ReadOnlySqlTransaction):
        return StoreUnavailable(
            f"{where} takes no writes now: it is a standby, or was made read-only ({said})"
        )
    if isinstance(error, sqlstates.DiskFull):
        return StoreUnavailable(
            f"{where} has no room to write: its disk is full ({said}); nothing was written"
        )
    if isinstance(error, psycopg.DataError):
        return StoreError(f"{where} does not take this: {said}")
    if not state or state.startswith(_PASSING):
        return StoreUnavailable(f"{where} cannot be used now (PostgreSQL says: {said})")
    return StoreError(
        f"{where}: PostgreSQL says: {said} ({state}); this is a bug in the driver, please report it"
    )


def _refused_at_the_door(error: Exception) -> bool:
    # While connecting, libpq tells no SQLSTATE.
    said = str(error)
    return isinstance(error, psycopg.OperationalError) and any(
        words in said
        for words in (
            "password authentication failed",
            "no password supplied",
            "does not exist",
            "no pg_hba.conf entry",
            "authentication failed",
            "is not permitted to log in",
        )
    )


def _advice(said: str) -> str:
    if "database" in said and "does not exist" in said:
        return "create it (createdb NAME), or correct the URL"
    if "role" in said and "does not exist" in said:
        return "create the role (createuser NAME), or correct the URL"
    if "permission denied" in said:
        return "grant the role its rights on the schema; docs/postgres.md lists them"
    return "correct the URL, or what the server allows"
