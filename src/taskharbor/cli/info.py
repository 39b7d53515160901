"""`taskharbor info`: versions and drivers, as a bug report needs them; and what is in the store, if one is named."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

import msgspec
import typer

from taskharbor.cli.exits import code_of
from taskharbor.cli.listing import JsonOption
from taskharbor.cli.output import json_line, line, note
from taskharbor.cli.queues import show_queues
from taskharbor.cli.store import file_of, refuse_missing, schema_of, server_of, url_of, where_of
from taskharbor.cli.tables import table
from taskharbor.cli.target import AppOption, Target, UrlOption, default_file, harbor_of, target_of
from taskharbor.cli.workers import show_workers
from taskharbor.control import told_terms
from taskharbor.driver import QueueInfo, SchemaVersion, WorkerInfo
from taskharbor.drivers import available_drivers
from taskharbor.errors import TaskHarborError
from taskharbor.settings import Loaded, Shown, load_settings

_PACKAGES = (
    "msgspec",
    "typer",
    "rich",
    "psycopg",
    "psycopg-pool",
    "redis",
    "cryptography",
    "watchfiles",
    "uvloop",
)
"""Whose versions a bug report needs, where they are installed."""


class StoreView(msgspec.Struct, frozen=True, kw_only=True):
    """What a store tells of itself."""

    url: str | None
    """Without its secrets; None where only the application knows it."""
    where: str | None
    """Which database the driver works on, in words; None for a file, of which the URL says all."""
    driver: str
    server: str | None
    """What stores the jobs, with its version; None if the driver does not tell."""
    round_trip_ms: float
    """How long one small question took, once connected."""
    capabilities: Sequence[str]
    schema: SchemaVersion | None
    queues: Sequence[QueueInfo]
    workers: Sequence[WorkerInfo]
    limits: Mapping[str, str]
    """What is in force, by scope."""
    held: Sequence[str]
    """The scopes that are held back."""


class Info(msgspec.Struct, frozen=True, kw_only=True):
    """What a bug report needs to know about an installation."""

    taskharbor: str
    python: str
    platform: str
    msgspec: str
    packages: dict[str, str]
    drivers: dict[str, str]
    settings: Sequence[Shown]
    """Each setting, without secrets, and where it came from."""
    config: str | None
    """The file of settings that was read."""
    store: StoreView | None = None


def installed_version() -> str:
    """Return the version that is installed."""
    return _version("taskharbor") or "unknown (not installed)"  # run from a source tree


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version  # slow to import

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def info(
    ctx: typer.Context,
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """Show versions, drivers, and each setting with where it came from.

    Where a store is named or found, also whether it can be reached, how long that takes, and what is in it.
    """
    target = target_of(ctx)
    store: StoreView | None = None
    loaded: Loaded | None = None
    problem: TaskHarborError | None = None
    try:
        loaded = load_settings({"app": target.app, "url": target.url})
        if target.named() or default_file().exists():
            store = _look(target)
    except TaskHarborError as error:  # the versions are told all the same
        problem = error
    found = Info(
        taskharbor=installed_version(),
        python=platform.python_version(),
        platform=platform.platform(),
        msgspec=msgspec.__version__,
        packages={name: version for name in _PACKAGES if (version := _version(name)) is not None},
        drivers=dict(sorted(available_drivers().items())),
        settings=[] if loaded is None else loaded.shown(),
        config=None if loaded is None or loaded.file is None else str(loaded.file),
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
        workers = harbor.workers.list()  # the first question connects, too
        begun = time.perf_counter()
        queues = harbor.queues.list()
        took = time.perf_counter() - begun
        return StoreView(
            url=url_of(target.url, target.application(), driver),
            where=None if file_of(driver) else where_of(driver),
            driver=driver.name,
            server=server_of(driver),
            round_trip_ms=round(took * 1000, 3),
            capabilities=sorted(driver.capabilities),
            schema=schema_of(driver),
            queues=queues,
            workers=workers,
            limits={str(one.scope): told_terms(one.terms) for one in harbor.limits.list()},
            held=[str(one.scope) for one in harbor.limits.holds()],
        )
    finally:
        harbor.close()


def _show(found: Info) -> None:
    rows = [
        ("TaskHarbor", found.taskharbor),
        ("Python", found.python),
        ("Platform", found.platform),
        ("msgspec", found.msgspec),
        ("Packages", ", ".join(f"{name} {version}" for name, version in found.packages.items())),
        *((f"{scheme}://", origin) for scheme, origin in found.drivers.items()),
    ]
    store = found.store
    if store is not None:
        rows.extend(_store_rows(store))
    table((), rows)
    if found.settings:
        line()
        table(("setting", "value", "from"), [(one.name, one.value, one.origin) for one in found.settings])
    if store is None:
        return
    now = datetime.now(UTC)
    if store.queues:
        line()
        show_queues(store.queues, now)
    line()
    if store.workers:
        show_workers(store.workers, now)
    else:
        line("No live worker.")


def _store_rows(store: StoreView) -> Iterator[tuple[str, str]]:
    yield "Store", store.url or store.driver
    if store.where is not None:
        yield "Database", store.where
    if store.server is not None:
        yield "Server", store.server
    yield "Answers in", f"{store.round_trip_ms:.1f} ms"
    yield "Offers", ", ".join(store.capabilities)
    if store.schema is not None:
        yield "Schema", f"version {store.schema.present} of {store.schema.wanted}"
    if store.limits:
        yield "Limits", ", ".join(store.limits)
    if store.held:
        yield "Held back", ", ".join(store.held)
