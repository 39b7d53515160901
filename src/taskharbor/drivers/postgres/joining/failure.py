"""What it means to the caller when a statement fails within his transaction, and why some cannot be joined."""

from __future__ import annotations

from enum import Enum, auto

import psycopg
from psycopg import errors as sqlstates

from taskharbor.drivers.postgres.place import Place
from taskharbor.drivers.postgres.refusal import store_error, words_of
from taskharbor.errors import StoreUnavailable, UsageError

_ROLLED_BACK = "40"
"""Class of the states that say: roll back, and do it all again. A deadlock, a serialization failure."""


class Fate(Enum):
    """What has become of a transaction after its last statement."""

    OPEN = auto()
    ABORTED = auto()
    """It takes nothing more, until it is rolled back."""
    LOST = auto()
    """The connection was lost, and it with it."""


def failure(error: psycopg.Error, told: Exception, place: Place, fate: Fate) -> Exception:
    """Return what to raise for a statement's error.

    Args:
        error: what the server said, or the connection.
        told: the same, as the caller's library would have raised it.
        place: the database.
        fate: what became of the transaction.
    """
    if error.sqlstate is not None and error.sqlstate.startswith(_ROLLED_BACK):
        # Whoever works with such transactions repeats them on the errors that he knows.
        told.add_note(
            "harbor.using(): the enqueue is part of this transaction; roll it back, and do it all again"
        )
        return told
    meant = _meaning(error, place, fate)
    meant.__cause__ = error
    return meant


def _meaning(error: psycopg.Error, place: Place, fate: Fate) -> Exception:
    said = words_of(error)
    if fate is Fate.LOST:
        return lost(place, said)
    if isinstance(error, sqlstates.InFailedSqlTransaction):
        return aborted_before()
    if isinstance(error, sqlstates.ReadOnlySqlTransaction):
        return StoreUnavailable(
            f"the transaction on {place.name} is read-only, so no job can be stored in it: it was begun so, or the "
            f"server is a standby or was made read-only ({said}); roll it back"
        )
    meant = store_error(error, place)
    if fate is Fate.OPEN:
        return meant
    return type(meant)(f"{meant}; the transaction takes nothing more now: roll it back")


def lost(place: Place, said: str) -> StoreUnavailable:
    """Return the error of a connection that was lost."""
    return StoreUnavailable(
        f"the caller's connection to {place.name} was lost, and its transaction with it, nothing of which was kept "
        f"({said}); connect anew"
    )


def aborted_before() -> UsageError:
    """Return the refusal of a transaction in which a statement has failed before."""
    return UsageError(
        "harbor.using(): a statement failed in this transaction before, and PostgreSQL takes nothing more in it; roll "
        "it back, as a whole or to a savepoint, and enqueue then"
    )


def no_transaction(begin: str) -> UsageError:
    """Return the refusal of a connection in autocommit mode, saying how to begin a transaction."""
    return UsageError(
        "harbor.using(): the connection is in autocommit mode and no transaction is open, so there is nothing to "
        f"join; begin one first: {begin}"
    )


def unusable(why: object) -> UsageError:
    """Return the refusal of a connection that cannot be used."""
    return UsageError(f"harbor.using(): the connection cannot be used here: {' '.join(str(why).split())}")
