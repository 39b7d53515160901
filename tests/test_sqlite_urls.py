"""Which file a URL names, what is refused before anything is opened, and where SQLite's promises would not hold."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from taskharbor import Harbor
from taskharbor.drivers.sqlite import open_driver
from taskharbor.drivers.sqlite.connection import check_version
from taskharbor.drivers.sqlite.place import from_url, network_file_system
from taskharbor.errors import DriverURLError, UnusableStoreError
from tests.fixtures.support import run_python
from tests.support.sqlite import producing, put, put_some, stored

USAGE = "expected sqlite:///relative/path.db or sqlite:////absolute/path.db"


def said(url: str) -> str:
    """Return what is said of a URL that is refused."""
    with pytest.raises(DriverURLError) as refused:
        from_url(url)
    return str(refused.value)


# --- which file


def test_three_slashes_begin_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert str(tmp_path / "data" / "jobs.db") == from_url("sqlite:///data/jobs.db").path


def test_four_slashes_begin_an_absolute_path() -> None:
    assert "/var/lib/jobs.db" == from_url("sqlite:////var/lib/jobs.db").path


def test_a_relative_path_stays_where_it_was_when_the_program_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    driver = open_driver("sqlite:///jobs.db")

    monkeypatch.chdir(elsewhere)
    with driver.connect_blocking() as store:
        put(store)
    driver.close()

    assert 1 == len(stored(tmp_path / "jobs.db"))
    assert [] == os.listdir(elsewhere)


@pytest.mark.parametrize(
    ("written", "named"),
    [
        ("my%20jobs.db", "my jobs.db"),
        ("my jobs.db", "my jobs.db"),
        ("what%3F.db", "what?.db"),
        ("no%231.db", "no#1.db"),
        ("no#1.db", "no#1.db"),
        ("100%25.db", "100%.db"),
        ("aufträge-🚢.db", "aufträge-🚢.db"),
        ("auftr%C3%A4ge.db", "aufträge.db"),
        ("file:jobs.db", "file:jobs.db"),
        ("it's;--.db", "it's;--.db"),
    ],
)
def test_a_name_with_odd_characters_is_the_name_of_the_file(
    written: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    driver = open_driver(f"sqlite:///{written}?busy_timeout=20")

    with driver.connect_blocking() as store:
        put(store)
    driver.close()

    assert [named] == os.listdir(tmp_path)


def test_settings_are_read_from_the_url() -> None:
    place = from_url("sqlite:///jobs.db?busy_timeout=0.5&network=allow")

    assert (0.5, True) == (place.busy_timeout, place.network)


def test_without_settings_a_lock_is_waited_for_ten_seconds_and_network_file_systems_are_refused() -> None:
    place = from_url("sqlite:///jobs.db")

    assert (10.0, False) == (place.busy_timeout, place.network)


def test_a_url_opens_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    with Harbor("sqlite:///missing/jobs.db"):
        pass

    assert [] == os.listdir(tmp_path)


# --- what is refused


@pytest.mark.parametrize(
    "url",
    ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///%3Amemory%3A", "sqlite:///?network=allow"],
)
def test_a_url_without_a_file_is_refused_and_memory_is_named(url: str) -> None:
    told = said(url)

    assert told.startswith(f"{url!r} names no file; {USAGE}")
    assert told.endswith("For a store inside this process use memory://")


@pytest.mark.parametrize(
    "url", ["sqlite://jobs.db", "sqlite://localhost/jobs.db", "sqlite://user@host/jobs.db"]
)
def test_a_host_is_refused(url: str) -> None:
    assert said(url).startswith(f"{url!r}: {USAGE}")


@pytest.mark.parametrize("url", ["sqlite:///folder/", "sqlite:////", "sqlite:///jobs%00.db"])
def test_what_cannot_be_the_name_of_a_file_is_refused(url: str) -> None:
    assert said(url).startswith(f"{url!r} names no file; {USAGE}")


def test_an_unknown_setting_is_refused_and_the_nearest_named() -> None:
    told = said("sqlite:///jobs.db?busy_timout=3")

    assert (
        "'sqlite:///jobs.db?busy_timout=3': unknown setting 'busy_timout' (did you mean 'busy_timeout'?)"
        in told
    )
    assert told.endswith("with ?busy_timeout=SECONDS and ?network=allow if need be")


def test_a_setting_of_another_library_is_refused() -> None:
    assert "unknown setting 'mode'" in said("sqlite:///jobs.db?mode=ro")


@pytest.mark.parametrize("value", ["soon", "", "-1", "nan", "inf", "1e9"])
def test_a_busy_timeout_that_is_no_number_of_seconds_is_refused(value: str) -> None:
    told = said(f"sqlite:///jobs.db?busy_timeout={value}")

    assert told.endswith(f"busy_timeout={value!r}: expected a number of seconds, such as 10 or 0.5")


@pytest.mark.parametrize("value", ["deny", "", "true"])
def test_network_can_only_be_allowed(value: str) -> None:
    assert said(f"sqlite:///jobs.db?network={value}").endswith(f"network={value!r}: expected 'allow'")


# --- other names of the same file


def test_a_symlink_leads_to_the_same_store(tmp_path: Path) -> None:
    real, link = tmp_path / "real.db", tmp_path / "link.db"
    ids = put_some(real, 2)
    link.symlink_to(real)

    with producing(real) as first, producing(link) as second:
        put(first)
        put(second)

    assert 4 == len(stored(real))
    assert set(ids) < set(stored(link))
    assert ["link.db", "real.db"] == sorted(os.listdir(tmp_path))


def test_a_directory_may_be_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")

    with (
        producing(tmp_path / "link" / "jobs.db") as first,
        producing(tmp_path / "real" / "jobs.db") as second,
    ):
        put(first)
        put(second)

    assert 2 == len(stored(tmp_path / "real" / "jobs.db"))


# --- network file systems

MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw
30 22 0:26 / /srv/share rw,relatime shared:2 - nfs4 server:/export rw,vers=4.2
31 22 0:27 / /srv/share/local rw,relatime - xfs /dev/sdb1 rw
32 22 0:28 / /mnt/my\\040files rw,relatime - fuse.sshfs me@host: rw
33 22 0:29 / /srv/shared rw,relatime - btrfs /dev/sdc1 rw
34 22 0:30 / /twice rw - cifs //host/one rw
35 34 0:31 / /twice rw - ext4 /dev/sdd1 rw
36 22 0:32 / /mnt/auftr\303\244ge rw - nfs host:/a rw
not a line of this kind
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/app/jobs.db", None),
        ("/srv/share/jobs.db", "nfs4"),
        ("/srv/share/deep/er/jobs.db", "nfs4"),
        ("/srv/share/local/jobs.db", None),
        ("/srv/shared/jobs.db", None),
        ("/mnt/my files/jobs.db", "fuse.sshfs"),
        ("/twice/jobs.db", None),
    ],
)
def test_the_file_system_is_that_of_the_innermost_mount(path: str, kind: str | None) -> None:
    assert kind == network_file_system(path, MOUNTS)


def test_a_mount_table_that_says_nothing_is_no_reason_to_refuse() -> None:
    assert network_file_system("/srv/share/jobs.db", "") is None


def test_a_mount_point_may_have_an_umlaut_in_its_name() -> None:
    mounts = "36 22 0:32 / /mnt/aufträge rw - nfs host:/a rw\n"

    assert "nfs" == network_file_system("/mnt/aufträge/jobs.db", mounts)


def test_a_symlink_to_a_network_file_system_is_seen_through(tmp_path: Path) -> None:
    (tmp_path / "share").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "share")
    mounts = f"30 22 0:26 / {tmp_path / 'share'} rw - nfs4 server:/export rw\n"

    assert "nfs4" == network_file_system(str(tmp_path / "link" / "jobs.db"), mounts)


@pytest.fixture
def on_nfs(monkeypatch: pytest.MonkeyPatch) -> None:
    def always(path: str) -> str:
        return "nfs4"

    monkeypatch.setattr("taskharbor.drivers.sqlite.place.network_file_system", always)


@pytest.mark.usefixtures("on_nfs")
def test_a_network_file_system_is_refused_and_how_to_allow_it_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnusableStoreError) as refused, producing(tmp_path / "jobs.db"):
        pass

    assert f"{tmp_path / 'jobs.db'} lies on a network file system (nfs4)" in str(refused.value)
    assert "If one machine alone ever opens it, say so in the URL: ?network=allow" in str(refused.value)
    assert [] == os.listdir(tmp_path)


@pytest.mark.usefixtures("on_nfs")
def test_a_network_file_system_can_be_allowed(tmp_path: Path) -> None:
    driver = open_driver(f"sqlite:///{tmp_path}/jobs.db?network=allow")

    with driver.connect_blocking() as store:
        put(store)
    driver.close()

    assert 1 == len(stored(tmp_path / "jobs.db"))


# --- Python's own SQLite


def test_an_old_sqlite_is_refused_and_what_to_use_is_told() -> None:
    with pytest.raises(UnusableStoreError) as refused:
        check_version((3, 37, 2))

    assert "is linked to SQLite 3.37.2, and the driver needs 3.38.0 (2022) or newer" in str(refused.value)
    assert "use a Python that brings its own, such as uv's or conda's" in str(refused.value)


def test_the_oldest_sqlite_supported_passes() -> None:
    check_version((3, 38, 0))


def test_opening_checks_the_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 31, 1))

    with (
        pytest.raises(UnusableStoreError, match=r"linked to SQLite 3\.31\.1"),
        producing(tmp_path / "jobs.db"),
    ):
        pass


def test_a_python_without_sqlite3_is_told_how_to_get_it() -> None:
    program = """
import sys
sys.modules["sqlite3"] = None
from taskharbor import Harbor, MissingExtraError
try:
    Harbor("sqlite:///jobs.db")
except MissingExtraError as error:
    print(error.extra, error)
"""

    told = run_python("-c", program)

    assert told.startswith("sqlite sqlite:// needs Python's own sqlite3 module, which this Python lacks")
    assert "Alpine: apk add python3 py3-sqlite" in told
