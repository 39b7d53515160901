"""Which database a PostgreSQL URL is of, what is refused before anything is opened, and that no message has secrets."""

from __future__ import annotations

import io
import string
from pathlib import Path
from urllib.parse import quote

import pytest
import rich
from hypothesis import example, given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from taskharbor import Harbor
from taskharbor.drivers.postgres import Place, PostgresDriver, open_driver
from taskharbor.drivers.postgres.embedded import EmbeddedPlace
from taskharbor.drivers.postgres.place import from_url
from taskharbor.errors import DriverURLError, OptionError, redacted
from tests.fixtures.support import steady

USAGE = "expected postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
SECRET, REST = "Tr0ub4dor", "xkcd936"
"""Two halves of a password, with something odd between them."""


def said(url: str) -> str:
    """Return all that is said of a URL that is refused, causes included."""
    with pytest.raises(DriverURLError) as refused:
        from_url(url)
    error: BaseException | None = refused.value
    words: list[str] = []
    while error is not None:
        words.append(str(error))
        error = error.__cause__ or error.__context__
    return " <- ".join(words)


def words(url: str) -> dict[str, object]:
    """Return what libpq makes of a URL, our settings apart."""
    return dict(conninfo_to_dict(from_url(url).conninfo))


def shown(driver: PostgresDriver) -> str:
    """Return all that a driver and its place show of themselves, in a debugger or a report of an error, too."""
    place = driver.place
    told = io.StringIO()
    rich.print(place, file=told)
    embedded = EmbeddedPlace(Path("/dev.pg"), {"listen": place.listen or place.conninfo})
    rich.print(embedded, file=told)
    return " ".join([repr(driver), driver.where, place.name, repr(place), repr([embedded]), told.getvalue()])


# --- which database


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("postgresql://", {}),
        ("postgresql:///shop", {"dbname": "shop"}),
        ("postgres://db/shop", {"host": "db", "dbname": "shop"}),
        ("POSTGRESQL://db/shop", {"host": "db", "dbname": "shop"}),
        ("postgresql://me@db:5433/shop", {"user": "me", "host": "db", "port": "5433", "dbname": "shop"}),
        ("postgresql://[::1]:5433/shop", {"host": "::1", "port": "5433", "dbname": "shop"}),
        ("postgresql://a,b:1,c/shop", {"host": "a,b,c", "port": ",1,", "dbname": "shop"}),
        ("postgresql:///shop?host=%2Frun%2Fa%2Bb", {"host": "/run/a+b", "dbname": "shop"}),
        ("postgresql:///shop?host=/run/a+b", {"host": "/run/a+b", "dbname": "shop"}),
        ("postgresql://db/shop?password=a+b", {"host": "db", "dbname": "shop", "password": "a+b"}),
        ("postgresql://db/my%20shop", {"host": "db", "dbname": "my shop"}),
        ("postgresql://db/shop?&sslmode=require&", {"host": "db", "dbname": "shop", "sslmode": "require"}),
        ("postgresql://db/shop?ssl=true", {"host": "db", "dbname": "shop", "sslmode": "require"}),
        (
            "postgresql://db/shop?schema=jobs&options=-c%20a%3Db&prepare=off&sslmode=require&pool_size=3",
            {"host": "db", "dbname": "shop", "options": "-c a=b", "sslmode": "require"},
        ),
        ("postgresql:///?service=shop", {"service": "shop"}),
    ],
)
def test_all_but_our_own_settings_is_left_to_libpq(url: str, meant: dict[str, object]) -> None:
    assert meant == words(url)


def test_our_settings_are_read_from_the_url() -> None:
    url = "postgresql://db/shop?schema=jobs-2&pool_size=3&prepare=off&listen=postgresql%3A%2F%2Fu%3Ap%2Bw%40db2%2Fshop"
    place = from_url(url)

    assert ("jobs-2", 3, False, "postgresql://u:p+w@db2/shop", False) == (
        place.schema, place.pool_size, place.prepare, place.listen, place.migrate
    )  # fmt: skip


def test_without_settings_statements_are_prepared_and_one_listens_where_one_works() -> None:
    assert Place(conninfo="postgresql://db/shop") == from_url("postgresql://db/shop")
    assert ("taskharbor", 10, True, "") == (
        (place := from_url("postgresql://db/shop")).schema, place.pool_size, place.prepare, place.listen
    )  # fmt: skip


def test_a_listen_url_may_have_a_question_mark_of_its_own() -> None:
    place = from_url("postgresql://b/shop?listen=postgresql://db/shop?sslmode=require&prepare=off")

    assert ("postgresql://db/shop?sslmode=require", False) == (place.listen, place.prepare)


def test_a_url_opens_nothing() -> None:
    with Harbor("postgresql://nobody@nowhere.invalid:1/none"):
        pass


@pytest.mark.parametrize(
    ("conninfo", "name"),
    [
        ("postgresql://me:secret@db:5433/shop", "the database 'shop' on db:5433"),
        ("postgresql://me:secret@db", "the database 'me' on db"),
        ("host=/tmp/socket dbname=shop password=secret", "the database 'shop' on /tmp/socket"),
        ("hostaddr=127.0.0.1 user=me", "the database 'me' on 127.0.0.1"),
        ("postgresql://", "the default database on the default host"),
        (
            "dbname=postgresql://me:secret@db/shop",
            "the database 'postgresql://me:***@db/shop' on the default host",
        ),
    ],
)
def test_messages_call_a_place_by_database_and_host(conninfo: str, name: str) -> None:
    assert name == Place(conninfo=conninfo).name


# --- what is refused


@pytest.mark.parametrize("name", ["a", "jobs", "jobs-2", "0", "-", "select", "public", "a" * 63])
def test_a_schema_is_of_small_letters_digits_and_two_signs(name: str) -> None:
    assert name == from_url(f"postgresql:///?schema={name}").schema == Place(conninfo="", schema=name).schema


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Jobs",
        "a" * 64,
        "my jobs",
        "jobs.mine",
        'a"b',
        "a'b",
        "a$b",
        "jöbs",
        "pg_jobs",
        "information_schema",
    ],
)
def test_a_schema_that_would_need_more_care_is_refused(name: str) -> None:
    told = said(f"postgresql:///?schema={quote(name)}")
    with pytest.raises(OptionError) as refused:
        Place(conninfo="", schema=name)

    assert f"schema={name!r}: expected a name of at most 63 small letters, digits, _ and -" in told
    assert f"schema={name!r}: expected a name of at most 63 small letters" in str(refused.value)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("prepare=yes", "prepare='yes': expected on or off"),
        ("prepare", "prepare='': expected on or off"),
        ("pool_size=1", "pool_size='1': expected a number from 2 to 1000"),
        ("pool_size=1001", "expected a number from 2 to 1000"),
        ("pool_size=-5", "expected a number from 2 to 1000"),
        ("pool_size=", "expected a number from 2 to 1000"),
        ("shema=x", "unknown setting 'shema' (did you mean 'schema'?)"),
        ("ssl_mode=require", "unknown setting 'ssl_mode' (did you mean 'sslmode'?)"),
        ("pool=5", "unknown setting 'pool'"),
        ("connect_timeout=soon", "connect_timeout='soon': expected a whole number"),
        ("keepalives_idle=1.5", "keepalives_idle='1.5': expected a whole number"),
        ("sslmode=a=b", "extra key/value separator"),
        ("sslmode", "unknown setting (an & in a value is written %26"),
        ("port=http", "expected a port from 1 to 65535"),
        ("port=0", "expected a port from 1 to 65535"),
        ("listen=db2", "expected a URL, and this is none of PostgreSQL's"),
        ("listen=host%3Ddb2", "expected a URL, and this is none of PostgreSQL's"),
        (
            "listen=postgresql://db2:99999/shop",
            "'postgresql://db2:99999/shop': expected a port from 1 to 65535",
        ),
        (
            "listen=postgresql://db2?schema=x",
            "unknown setting 'schema', which belongs to the URL that has ?listen=",
        ),
        ("listen=postgresql://db2?nonsense=x", "unknown setting 'nonsense'"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(query: str, expected: str) -> None:
    assert expected in said(f"postgresql://db/shop?{query}")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://db:http/shop", "expected a port from 1 to 65535 after the host"),
        ("postgresql://db:65536/shop", "expected a port from 1 to 65535 after the host"),
        ("postgresql://a,b:x/shop", "expected a port from 1 to 65535 after the host"),
        (
            "postgresql://[::1/shop",
            "end of string reached when looking for matching ] in IPv6 host address in URI",
        ),
        ("postgresql://[]/shop", "IPv6 host address may not be empty in URI"),
        ("postgresql://db/%zz", "invalid percent-encoded token"),
        ("postgresql://db/a%00b", "forbidden value %00 in percent-encoded value"),
    ],
)
def test_what_libpq_would_not_understand_is_refused_in_its_words(url: str, expected: str) -> None:
    told = said(url)

    assert told.startswith(f"{url!r}: {expected}")
    assert USAGE in told


@pytest.mark.parametrize("query", ["shema=x", "pool_size=x", "schema=X", "listen=x"])
def test_the_embedded_server_knows_the_same_settings(query: str) -> None:
    with pytest.raises(DriverURLError):
        open_driver(f"postgresql+embedded:///folder?{query}")


# --- secrets


@pytest.mark.parametrize(
    "odd", [*string.punctuation, " ", "\n", "\t", "//", "/?", "?a=b&c@", "%00", "&schema=x", "ß", "@@"]
)
def test_a_password_that_was_not_encoded_is_taken_whole_or_refused_and_never_told(odd: str) -> None:
    password = f"{SECRET}{odd}{REST}"
    url = f"postgresql://me:{password}@db/shop"

    try:
        place = from_url(url)
    except DriverURLError:
        told = said(url)
    else:
        assert password == conninfo_to_dict(place.conninfo)["password"]
        told = place.name

    for text in (told, redacted(url)):
        assert SECRET not in text
        assert REST not in text


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://db/shop?password={SECRET}",
        f"postgresql://db/shop?sslpassword={SECRET}&nonsense=1",
        f"postgresql://db/shop?password=a&{SECRET}",
        f"postgresql://db/shop?passwrd={SECRET}",
        f"postgresql://db/shop?listen=postgresql://me:{SECRET}@db/shop&schema=X",
        f"postgresql://db/shop?schema=X&listen={quote(f'postgresql://me:{SECRET}@db/shop', safe='')}",
        f"postgresql://db/shop?listen={quote(f'postgresql://me:{SECRET}@db:x/shop', safe='')}",
        f"postgresql://me:{SECRET}@db:x/shop",
        f"postgresql://me:{SECRET}@db/shop?schema=X",
        f"postgresql://db/shop?schema=postgresql://me:{SECRET}@db",
        f"postgresql+embedded://me:{SECRET}@db/shop",
        f"postgresql+embedded:///shop?password={SECRET}",
    ],
)  # fmt: skip
def test_no_message_shows_a_secret(url: str) -> None:
    try:
        told = shown(open_driver(url))
    except DriverURLError as error:
        told = f"{error} {error.__cause__} {error.__context__}"

    assert SECRET not in told
    if not url.endswith(f"a&{SECRET}"):  # an & ends a value: what follows looks like a setting's name
        assert SECRET not in redacted(url)


@pytest.mark.parametrize(
    "conninfo", [f"postgresql://me:{SECRET}@db/shop", f"host=db password='{SECRET}' dbname=shop"]
)
def test_a_place_shows_no_secret(conninfo: str) -> None:
    listen = f"postgresql://me:{REST}@db/shop"
    told = shown(PostgresDriver(Place(conninfo=conninfo, listen=listen)))

    assert "<Place the database 'shop' on db, schema 'taskharbor'>" in told
    assert "the database 'shop' on db, schema 'taskharbor'" in told
    assert (False, False) == (SECRET in told, REST in told)


@steady
@given(user=st.text(min_size=1), password=st.text(min_size=1), database=st.text(min_size=1))
@example(user="a b", password="p@s/s:w?r&d=#%+", database="söme db")
def test_what_is_encoded_arrives_as_it_was(user: str, password: str, database: str) -> None:
    parts = [quote(part.replace("\0", ""), safe="") for part in (user, password, database)]
    if not all(parts):
        return

    meant = words("postgresql://{}:{}@db/{}".format(*parts))

    assert (user.replace("\0", ""), password.replace("\0", ""), database.replace("\0", "")) == (
        meant["user"], meant["password"], meant["dbname"]
    )  # fmt: skip


@steady
@given(st.text(alphabet=string.ascii_letters + string.digits + ":/?#[]@!$&'()*+,;=%-._~ \u00fc", max_size=40))
@example("a@b@c")
@example("?&&=&")
@example("[::1]:5433/x?y")
def test_any_text_is_understood_or_refused_as_a_url_is(text: str) -> None:
    try:
        place = from_url(f"postgresql://{text}")
    except DriverURLError:
        return

    assert place.name
    assert Place(conninfo=place.conninfo) == from_url(place.conninfo)
