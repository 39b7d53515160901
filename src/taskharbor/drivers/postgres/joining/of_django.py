"""Django's connections: https://docs.djangoproject.com/en/stable/topics/db/transactions/."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol, cast

import psycopg

from taskharbor.drivers.postgres.joining.failure import aborted_before, unusable
from taskharbor.drivers.postgres.joining.line import PsycopgLine
from taskharbor.drivers.postgres.joining.of_psycopg import is_blocking, open_line
from taskharbor.drivers.postgres.place import Place
from taskharbor.errors import UsageError

_BEGIN = "with transaction.atomic():"


class DjangoConnection(Protocol):
    """What we use of a `BaseDatabaseWrapper`."""

    alias: str
    vendor: str
    connection: object
    """The driver's; None before the first statement."""
    needs_rollback: bool
    """An error within `atomic` is to undo it."""

    @property
    def wrap_database_errors(self) -> AbstractContextManager[None]:
        """Raise the driver's errors as Django's, and have the connection checked before it is used again."""
        ...

    def ensure_connection(self) -> None:
        """Connect."""
        ...

    def validate_thread_sharing(self) -> None:
        """Raise if it belongs to another thread."""
        ...


class Django:
    """`django.db.connection`, or `connections[alias]`."""

    def __init__(self, connection: object, place: Place) -> None:
        """Take the connection of this thread.

        Raises:
            UsageError: it leads to no PostgreSQL.
        """
        self._django = _of_this_thread(connection)
        self.given: object = self._django
        self._place = place
        vendor = getattr(self._django, "vendor", type(self._django).__qualname__)
        if vendor != "postgresql":
            raise UsageError(
                f"harbor.using(): Django's connection leads to {vendor}, and the harbor's jobs are in {place.name}"
            )

    def open(self) -> PsycopgLine:
        django = self._django
        try:
            django.validate_thread_sharing()
            django.ensure_connection()
        except psycopg.Error:
            raise
        except Exception as error:  # Django's own, of several kinds
            if isinstance(error.__cause__, psycopg.Error):
                raise error.__cause__ from None
            raise unusable(error) from error
        driver = django.connection
        if not is_blocking(driver):
            raise UsageError(
                f"harbor.using(): Django connects by {type(driver).__module__.partition('.')[0]}, and "
                "TaskHarbor speaks through psycopg 3, which Django 4.2 and newer prefer: install `psycopg[binary]`"
            )
        if django.needs_rollback:
            raise aborted_before()
        return open_line(driver, self._place, _BEGIN)

    def told(self, error: psycopg.Error) -> Exception:
        try:
            with self._django.wrap_database_errors:
                raise error
        except Exception as told:  # noqa: BLE001 - one of Django's kinds
            return told


def _of_this_thread(connection: object) -> DjangoConnection:
    """Return what `django.db.connection` stands for here and now."""
    from importlib import import_module

    aliases: Mapping[str, DjangoConnection] = import_module("django.db").connections
    alias = getattr(connection, "alias", None)
    if type(connection).__name__ == "ConnectionProxy" and isinstance(alias, str):
        return aliases[alias]
    return cast("DjangoConnection", connection)
