"""Connections: opened with what every one of ours needs."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow, tuple_row

from taskharbor.drivers.postgres.place import Place
from taskharbor.drivers.postgres.refusal import store_error
from taskharbor.errors import UnusableStoreError

LEAST_VERSION = 130000
"""`pg_current_xact_id` is of PostgreSQL 13."""
_CONNECT_SECONDS = 10
# The live table is nearly empty or full, and large with dead rows, within seconds; statistics tell of one moment. Where
# they tell of few jobs, the planner would sort all jobs of a lane for each reserve instead of walking the index, and
# compile statements, which takes a second.
PLANNING = {"jit": "off", "enable_bitmapscan": "off"}
"""What our sessions ask of the planner. A pooler takes no such requests: there the role has them."""
# Whoever enqueues under a key that another transaction has taken and not committed waits for its end. Each who waits
# holds a connection of the pool meanwhile, so not for ever.
LOCK_TIMEOUT = "5s"


def settings(place: Place) -> dict[str, Any]:
    """Return the arguments of `connect` that every connection of ours has."""
    words = conninfo_to_dict(place.conninfo)
    found: dict[str, Any] = {
        "autocommit": True,
        "prepare_threshold": 0 if place.prepare else None,
        "row_factory": tuple_row,
        "fallback_application_name": "taskharbor",
        "client_encoding": "utf8",  # whatever the database's is
    }
    if place.prepare:  # a pooler refuses options
        asked = {**PLANNING, "lock_timeout": LOCK_TIMEOUT}
        own = [f"-c {name}={value}" for name, value in asked.items()]
        found["options"] = " ".join([*own, str(words.get("options") or "")]).rstrip()  # the last word counts
    if "connect_timeout" not in words:
        found["connect_timeout"] = _CONNECT_SECONDS
    # A server that is gone without a word is noticed in a quarter of a minute, while we wait for it and while we speak.
    if "keepalives" not in words and "keepalives_idle" not in words:
        found |= {"keepalives_idle": 5, "keepalives_interval": 3, "keepalives_count": 3}
    if "tcp_user_timeout" not in words:
        found["tcp_user_timeout"] = 15_000
    return found


def open_connection(place: Place) -> psycopg.Connection[TupleRow]:
    """Open a connection outside of any pool.

    Raises:
        StoreUnavailable: the server cannot be reached now.
        UnusableStoreError: it refuses us.
    """
    try:
        return psycopg.connect(place.conninfo, **settings(place))
    except psycopg.Error as error:
        raise store_error(error, place) from error


def check_version(connection: psycopg.Connection[TupleRow], place: Place) -> None:
    """Check that the server is new enough, and that the database can hold any text.

    Raises:
        UnusableStoreError: it is not, or cannot.
    """
    found = connection.info.server_version
    if found < LEAST_VERSION:
        raise UnusableStoreError(
            f"{place.name} is PostgreSQL {found // 10000}, and TaskHarbor needs {LEAST_VERSION // 10000} or newer"
        )
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise UnusableStoreError(
            f"{place.name} keeps text as {encoding}, which cannot hold every text that a job or its error may have; "
            "create a database for the jobs with ENCODING 'UTF8' (TEMPLATE template0)"
        )
