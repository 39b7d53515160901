"""Enqueue in a transaction of the caller's own: `with harbor.using(connection):`.

    kinds             whose a connection is, and so which way in
    joined            the two ways in: blocking, and awaited
    enqueue           what is asked there: the enqueue, whole or not at all, and its wake-up
    line              a connection that statements are sent over, and their answers
    failure           what it means to the caller when one fails
    of_psycopg        psycopg's own connections
    of_sqlalchemy     SQLAlchemy's connections and sessions
    of_django         Django's
    of_asyncpg        asyncpg's

Whose a connection is tells the name of its class, so nothing is imported that the caller has not imported; and what
belongs to another library is only imported once a connection of its comes.

Nothing is sent before the first enqueue of a block. Where a library begins transactions by itself, even a question
would begin one, and `with harbor.using(db), db.transaction():` would then only set a savepoint in it.
"""

from __future__ import annotations

from taskharbor.drivers.postgres.joining.kinds import join

__all__ = ["join"]
