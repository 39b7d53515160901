"""Whether a store is there, and what it is called: for commands that only look, and for a worker's log."""

from __future__ import annotations

import os

from taskharbor.driver import Capability, Driver, MigratingDriver, SchemaVersion
from taskharbor.errors import DeploymentError, redacted
from taskharbor.harbor import Harbor
from taskharbor.settings import load_settings


def refuse_missing(harbor: Harbor) -> None:
    """Refuse a store that was never made: looking would make it, and tell of nothing in it.

    Raises:
        DeploymentError: there is no such file, or there are no tables in it.
        TaskHarborError: whatever keeps the driver from looking.
    """
    schema = schema_of(harbor.driver)
    if schema is None or schema.present:
        return
    makes = "`taskharbor migrate` makes them"
    if file_of(harbor.driver) is not None:
        makes = "The first enqueue or worker makes it, or `taskharbor migrate`"
    raise DeploymentError(f"{_nothing_there(harbor.driver)}; is it the store that is meant? {makes}")


def schema_of(driver: Driver) -> SchemaVersion | None:
    """Return where a store's tables stand; None where there are none to migrate. Makes nothing."""
    if Capability.MIGRATIONS in driver.capabilities and isinstance(driver, MigratingDriver):
        return driver.schema_version()
    return None


def file_of(driver: Driver) -> str | None:
    """Return the absolute path of a store that is a file, or a folder of its own."""
    path: object = getattr(driver, "path", None)
    return path if isinstance(path, str) else None


def where_of(driver: Driver) -> str | None:
    """Return which database a driver works on, in words and without secrets; None if it does not tell."""
    where: object = getattr(driver, "where", None)
    return where if isinstance(where, str) else None


def server_of(driver: Driver) -> str | None:
    """Return what stores the jobs, with its version; None if the driver does not tell. May ask it."""
    server: object = getattr(driver, "server", None)
    return server if isinstance(server, str) else None


def url_of(url: str | None, app: str | None, driver: Driver) -> str | None:
    """Return the URL of a store, without secrets, its file with its whole path; None if only the application knows it.

    Args:
        url: what `--url` said.
        app: what `--app` said.
        driver: what came of both.
    """
    path = file_of(driver)
    if path is not None:
        return f"{driver.name}:///{path}"
    if url or not app:
        return redacted(url or load_settings().settings.url)
    return None


def _nothing_there(driver: Driver) -> str:
    path = file_of(driver)
    if path is not None and not os.path.exists(path):
        return f"there is no {'folder' if driver.name.endswith('+embedded') else 'file'} {path}"
    return f"there are no tables for jobs in {path or f'the store ({driver.name})'}"
