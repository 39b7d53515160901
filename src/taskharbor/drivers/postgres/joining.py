"""Enqueue in a transaction of the caller's own: `with harbor.using(connection):`."""

from __future__ import annotations

from taskharbor.driver import Joined
from taskharbor.drivers.postgres.desk import Shared
from taskharbor.errors import UsageError


def join(connection: object, shared: Shared) -> Joined:
    """Return the way into a connection's transaction.

    Raises:
        UsageError: it is no connection of a kind that is known here, or one to another database.
    """
    raise UsageError(f"not yet: {type(connection)} {shared}")
