"""`taskharbor info`: versions and drivers, as a bug report needs them; and what is in the store, if one is named."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
import typer

from taskharbor.cli.exits import code_of
from taskharbor.cli.listing import JsonOption
from taskharbor.cli.output import json_line, line, note
from taskharbor.cli.queues import show_queues
from taskharbor.cli.store import file_of, refuse_missing, schema_of, url_of, where_of
from taskharbor.cli.tables import table
from taskharbor.cli.target import AppOption, Target, UrlOption, default_file, harbor_of, target_of
from taskharbor.cli.workers import show_workers
from taskharbor.driver import QueueInfo, SchemaVersion, WorkerInfo
from taskharbor.drivers import available_drivers
from taskharbor.errors import TaskHarborError


class StoreView(msgspec.Struct, frozen=True, kw_only=True):
    """What a store tells of itself."""

    url: str | None
    """Without its secrets; None where only the application knows it."""
    where: str | None
    """Which database the driver works on, in words; None for a file, of which the URL says all."""
    driver: str
    capabilities: Sequence[str]
    schema: SchemaVersion | None
    queues: Sequence[QueueInfo]
    workers: Sequence[WorkerInfo]


class Info(msgspec.Struct, frozen=True, kw_only=True):
    """What a bug report needs to know about an installation."""

    taskharbor: str
    python: str
    platform: str
    msgspec: str
    drivers: dict[str, str]
    store: StoreView | None = None


def installed_version() -> str:
    """Return the version that is installed."""
    from importlib.metadata import PackageNotFoundError, version  # slow to import

    try:
        return version("taskharbor")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "unknown (not installed)"


def info(
    ctx: typer.Context,
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """Show versions and drivers; and, where a store is named or found, its tables, queues and live workers."""
    target = target_of(ctx)
    store: StoreView | None = None
    problem: TaskHarborError | None = None
    if target.named() or default_file().exists():
        try:
            store = _look(target)
        except TaskHarborError as error:  # the versions are told all the same
            problem = error
    found = Info(
        taskharbor=installed_version(),
        python=platform.python_version(),
        platform=platform.platform(),
        msgspec=msgspec.__version__,
        drivers=dict(sorted(available_drivers().items())),
        store=store,
    )
    if as_json:
        json_line(found)
    else:
        _show(found)
    if problem is not None:
        note(f"Error: {problem}")
        raise typer.Exit(code_of(problem))


def _look(target: Target) -> StoreView:
    harbor = harbor_of(target)
    try:
        refuse_missing(harbor)
        driver = harbor.driver
        return StoreView(
            url=url_of(target.url, target.app, driver),
            where=None if file_of(driver) else where_of(driver),
            driver=driver.name,
            capabilities=sorted(driver.capabilities),
            schema=schema_of(driver),
            queues=harbor.queues.list(),
            workers=harbor.workers.list(),
        )
    finally:
        harbor.close()


def _show(found: Info) -> None:
    rows = [
        ("TaskHarbor", found.taskharbor),
        ("Python", found.python),
        ("Platform", found.platform),
        ("msgspec", found.msgspec),
        *((f"{scheme}://", origin) for scheme, origin in found.drivers.items()),
    ]
    store = found.store
    if store is None:
        table((), rows)
        return
    rows.append(("Store", store.url or store.driver))
    if store.where is not None:
        rows.append(("Database", store.where))
    rows.append(("Offers", ", ".join(store.capabilities)))
    if store.schema is not None:
        rows.append(("Schema", f"version {store.schema.present} of {store.schema.wanted}"))
    table((), rows)
    now = datetime.now(UTC)
    if store.queues:
        line()
        show_queues(store.queues, now)
    line()
    if store.workers:
        show_workers(store.workers, now)
    else:
        line("No live worker.")
