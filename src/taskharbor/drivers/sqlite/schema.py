"""Where the tables stand, and bringing them up to date. The migrations themselves are in `migrations`."""

from __future__ import annotations

from taskharbor.driver import Migration, Request, SchemaVersion
from taskharbor.drivers.sqlite import migrations
from taskharbor.drivers.sqlite.migrations_later import LATER
from taskharbor.drivers.sqlite.routine import Query, Routine
from taskharbor.drivers.sqlite.rows import Step
from taskharbor.errors import SchemaError

MIGRATIONS = (*migrations.MIGRATIONS, *LATER)
WANTED = MIGRATIONS[-1].number
_TABLE = (
    "CREATE TABLE IF NOT EXISTS taskharbor_migration "
    "(number INTEGER PRIMARY KEY, name TEXT NOT NULL, run_at INTEGER NOT NULL)"
)


def scripts() -> tuple[Migration, ...]:
    """Return every migration as one would run it by hand: it notes itself."""
    return tuple(
        Migration(
            migration.number,
            migration.name,
            (
                _TABLE,
                *migration.statements,
                f"""INSERT INTO taskharbor_migration (number, name, run_at)
    VALUES ({migration.number}, '{migration.name}', unixepoch() * 1000000)""",  # noqa: S608 - our own constants
            ),
        )
        for migration in MIGRATIONS
    )


def version(step: Step, request: Request) -> Routine[SchemaVersion]:
    """Return where the tables stand."""
    tables = yield Query("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'taskharbor_migration'")
    if not tables:
        return SchemaVersion(0, WANTED)
    ((present,),) = yield Query("SELECT coalesce(max(number), 0) FROM taskharbor_migration")
    return SchemaVersion(int(present), WANTED)


def checked_version(to: int | None) -> int:
    """Return the version to migrate to.

    Raises:
        SchemaError: this release knows no such version.
    """
    if to is None:
        return WANTED
    if not 1 <= to <= WANTED:
        raise SchemaError(
            f"there is no version {to} of the tables: this release knows versions 1 to {WANTED}"
        )
    return to


def migrate(step: Step, request: Request, wanted: int = WANTED) -> Routine[list[Migration]]:
    """Run what is missing up to a version, and return it.

    Raises:
        SchemaError: the tables are newer than this release.
    """
    stands = yield from version(step, request)
    refuse_newer(stands)
    if not stands.present:
        yield Query(_TABLE)
    missing = [migration for migration in MIGRATIONS if stands.present < migration.number <= wanted]
    for migration in missing:
        for statement in migration.statements:
            yield Query(statement)
        yield Query(
            "INSERT INTO taskharbor_migration (number, name, run_at) VALUES (?, ?, ?)",
            (migration.number, migration.name, step.now),
        )
    return missing


def refuse_newer(stands: SchemaVersion) -> None:
    """Refuse tables that a later release has made.

    Raises:
        SchemaError: they are newer than this release.
    """
    if stands.present > stands.wanted:
        raise SchemaError(
            f"its tables are at version {stands.present}, and this release of TaskHarbor knows versions up to "
            f"{stands.wanted}; a later release has migrated them: upgrade this one"
        )
