"""`taskharbor migrate`: bring a store's tables to the version that this release works with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from taskharbor.cli.exits import Exit
from taskharbor.cli.listing import JsonOption
from taskharbor.cli.output import echo, json_line, line
from taskharbor.cli.target import AppOption, UrlOption, harbor_of, target_of
from taskharbor.driver import Capability, Driver, MigratingDriver, Migration, SchemaVersion, require
from taskharbor.errors import SchemaError, UnsupportedError


def migrate(
    ctx: typer.Context,
    check: Annotated[
        bool,
        typer.Option("--check", help="Change nothing; end with 1 if there is something to run."),
    ] = False,
    to: Annotated[
        int | None,
        typer.Option(
            "--to",
            metavar="N",
            min=1,
            help="Go to version N only.",
            show_default="the newest",
        ),
    ] = None,
    sql: Annotated[
        bool,
        typer.Option("--sql", help="Change nothing; print the statements, for review or for psql."),
    ] = False,
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """Bring the store's tables to the version that this release works with; make a store that is named."""
    harbor = harbor_of(target_of(ctx))
    try:
        driver = _migrating(harbor.driver)
        before = driver.schema_version()
        missing = _missing(driver, before, to)
        changes = not (check or sql)
        ran: Sequence[Migration] = driver.migrate(to) if changes else ()
        after = driver.schema_version() if changes else before
    finally:
        harbor.close()
    if sql:
        _print_sql(missing, as_json=as_json)
    elif as_json:
        _print_json(before, after, ran)
    else:
        _print(after, ran, to)
    if missing and check:
        raise typer.Exit(Exit.FAILED)


def _migrating(driver: Driver) -> MigratingDriver:
    require(driver, Capability.MIGRATIONS, "`taskharbor migrate`")
    if not isinstance(driver, MigratingDriver):
        raise UnsupportedError(
            f"the driver {driver.name!r} says that it offers {Capability.MIGRATIONS.value!r}, and has not the methods; "
            "this is a bug in it"
        )
    return driver


def _missing(driver: MigratingDriver, stands: SchemaVersion, to: int | None) -> list[Migration]:
    """Return what there is to run."""
    if stands.present > stands.wanted:
        raise SchemaError(
            f"the store's tables are of version {stands.present}, and this release of TaskHarbor knows them up to "
            f"{stands.wanted}; upgrade TaskHarbor here"
        )
    if to is not None and to > stands.wanted:
        raise SchemaError(
            f"there is no version {to} of the tables: this release knows versions 1 to {stands.wanted}"
        )
    wanted = stands.wanted if to is None else to
    return [migration for migration in driver.migrations if stands.present < migration.number <= wanted]


def _print_sql(missing: Sequence[Migration], *, as_json: bool) -> None:
    """Print a script: each migration is a transaction of its own, and notes that it was run."""
    for migration in missing:
        if as_json:
            json_line(migration)
            continue
        echo(f"-- {migration.number:04d} {migration.name}")
        echo("BEGIN;")
        for statement in migration.statements:
            echo(f"{statement};")
        echo("COMMIT;")
    if not (missing or as_json):
        echo("-- nothing to run")


def _print_json(before: SchemaVersion, after: SchemaVersion, ran: Sequence[Migration]) -> None:
    json_line(
        {
            "before": before.present,
            "present": after.present,
            "wanted": after.wanted,
            "ran": [{"number": migration.number, "name": migration.name} for migration in ran],
        }
    )


def _print(stands: SchemaVersion, ran: Sequence[Migration], to: int | None) -> None:
    for migration in ran:
        line(f"ran {migration.number:04d} {migration.name}")
    if stands.present == stands.wanted:
        line(f"The store is up to date: version {stands.present}.")
    elif to is not None and stands.present >= to:
        line(f"The store is at version {stands.present}; this release wants {stands.wanted}.")
    elif stands.present:
        line(
            f"The store is at version {stands.present}; this release wants {stands.wanted}. Run: taskharbor migrate"
        )
    else:
        line("The store has no tables yet. Run: taskharbor migrate")
