"""Nobody who may make things in `public` can have them run in the driver's statements (CVE-2018-1058)."""

import re
from collections.abc import Callable, Generator
from contextlib import contextmanager

import psycopg
import pytest

from taskharbor.driver import Driver
from taskharbor.drivers.postgres import Place, PostgresDriver
from taskharbor.drivers.postgres.schema import renamed
from taskharbor_conformance import cases
from tests.support.postgres import new_schema_name, server

_TRAPS = (
    "CREATE FUNCTION {0}.sprung() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN RAISE 'a trap was sprung'; END $$",
    "CREATE FUNCTION {0}.spring(bigint, interval) RETURNS interval LANGUAGE sql AS $$ SELECT '-1 year'::interval $$",
    "CREATE OPERATOR {0}.* (LEFTARG = bigint, RIGHTARG = interval, FUNCTION = {0}.spring)",
    "CREATE FUNCTION {0}.to_char(smallint, text) RETURNS text LANGUAGE sql AS $$ SELECT {0}.sprung()::text $$",
    "CREATE FUNCTION {0}.to_char(integer, text) RETURNS text LANGUAGE sql AS $$ SELECT {0}.sprung()::text $$",
    "CREATE FUNCTION {0}.unnest(bigint[]) RETURNS SETOF bigint LANGUAGE sql AS $$ SELECT {0}.sprung()::bigint $$",
    "CREATE FUNCTION {0}.unnest(uuid[]) RETURNS SETOF uuid LANGUAGE sql AS $$ SELECT {0}.sprung()::text::uuid $$",
    "CREATE FUNCTION {0}.json_build_array(uuid, text) RETURNS json LANGUAGE sql AS $$ SELECT to_json({0}.sprung()) $$",
    "CREATE FUNCTION {0}.json_agg(json) RETURNS json LANGUAGE sql AS $$ SELECT to_json({0}.sprung()) $$",
    "CREATE FUNCTION {0}.array_cat(uuid[], uuid[]) RETURNS uuid[] LANGUAGE sql AS $$ SELECT '{}'::uuid[] $$",
    "CREATE FUNCTION {0}.strpos(text, text) RETURNS integer LANGUAGE sql AS $$ SELECT {0}.sprung() $$",
    "CREATE OPERATOR {0}.|| (LEFTARG = uuid[], RIGHTARG = uuid[], FUNCTION = {0}.array_cat)",
    "CREATE FUNCTION {0}.date_part(text, timestamptz) RETURNS float8 LANGUAGE sql AS $$ SELECT {0}.sprung() $$",
)
_FAMILIES = ("enqueue", "lease", "settle", "report", "event", "statistics", "filters")


@pytest.fixture(scope="module")
def conninfo() -> Generator[str]:
    """Give a way in whose sessions look for names in a schema of an attacker's before the server's own."""
    name = new_schema_name()
    with psycopg.connect(server().conninfo, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}".encode())
        for trap in _TRAPS:
            connection.execute(trap.replace("{0}", name).encode())
        yield f"{server().conninfo}&options=-csearch_path%3D{name},pg_catalog"
        connection.execute(f"DROP SCHEMA {name} CASCADE".encode())


def test_no_trap_is_sprung(conninfo: str) -> None:
    schema = new_schema_name()
    place = Place(conninfo=conninfo, schema=schema, migrate=True)
    tried = [case for case in cases() if case.family in _FAMILIES][::19]

    @contextmanager
    def opening() -> Generator[Callable[[], Driver]]:
        yield lambda: PostgresDriver(place)

    for case in tried:
        try:
            case.run(opening)
        finally:
            with psycopg.connect(server().conninfo, autocommit=True) as connection:
                connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE".encode())

    assert len(tried) > 7
    with (
        psycopg.connect(conninfo) as connection,
        pytest.raises(psycopg.errors.RaiseException, match="sprung"),
    ):
        connection.execute("SELECT to_char(1, 'x')")


def test_the_servers_functions_are_named_in_full() -> None:
    sql = "SELECT count(*), taskharbor.count(x), left(a, 1), unnest(a, b) FROM taskharbor.job LEFT JOIN (SELECT 1)"

    found = renamed(sql, "jobs")

    assert (
        'SELECT pg_catalog.count(*), "jobs".count(x), pg_catalog.left(a, 1), unnest(a, b) FROM "jobs".job '
        "LEFT JOIN (SELECT 1)"
    ) == found
    assert found == re.sub("taskharbor[.]", '"jobs".', renamed(sql, "taskharbor"))
