"""Connections: opened with what every one of ours needs."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow, tuple_row

from taskharbor.drivers.postgres.place import Place
from taskharbor.drivers.postgres.refusal import store_error
from taskharbor.errors import UnusableStoreError

LEAST_VERSION = 130000
"""`pg_current_xact_id` is of PostgreSQL 13."""
_CONNECT_SECONDS = 10
# The live table is nearly empty or full, and large with dead rows, within seconds. Statistics tell of one moment, and a
# prepared statement's plan is kept until the next ones are taken. Made for few jobs it would read all of them, and sort
# them, for each reserve; each verb's way is by an index whatever they say. And compiling a statement takes a second.
PLANNING = {
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}
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
        ours = [f"-c {name}={value}" for name, value in asked.items()]
        theirs = str(words.get("options") or _default_options())  # which count, as they come last
        found["options"] = " ".join([*ours, theirs]).rstrip()
    if "connect_timeout" not in words:
        found["connect_timeout"] = _CONNECT_SECONDS
    # A server that is gone without a word is noticed in a quarter of a minute, while we wait for it and while we speak.
    if "keepalives" not in words and "keepalives_idle" not in words:
        found |= {"keepalives_idle": 5, "keepalives_interval": 3, "keepalives_count": 3}
    if "tcp_user_timeout" not in words:
        found["tcp_user_timeout"] = 15_000
    return found


def _default_options() -> str:
    """Return what PGOPTIONS says, or a service file: what is given in a call stands in place of that."""
    for known in pq.Conninfo.get_defaults():
        if known.keyword == b"options" and known.val:
            return known.val.decode()
    return ""


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
