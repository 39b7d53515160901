"""Files that cannot be used: each is refused with what, where and what next, and nothing in them is touched."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest

from taskharbor.driver import SchemaVersion
from taskharbor.errors import SchemaError, UnusableStoreError
from taskharbor_conformance.bench import HOUR, Bench, new_job
from tests.support.sqlite import as_nobody, ask_file, driver_on, producing, put, put_some, stored, with_bench


def refusal(path: Path | str) -> str:
    """Return why a file is refused; every way to open it must refuse it alike."""
    driver = driver_on(path)
    with pytest.raises(UnusableStoreError) as blocking, driver.connect_blocking():
        pass
    with pytest.raises(UnusableStoreError) as migrating:
        driver.migrate()

    async def nothing(bench: Bench) -> None:
        """Do nothing: opening is enough."""

    with pytest.raises(UnusableStoreError) as on_loop:
        with_bench(path, nothing)
    assert str(blocking.value) == str(on_loop.value) == str(migrating.value)
    return str(blocking.value)


@pytest.fixture
def public() -> Generator[Path]:
    """Make a directory that every user may enter."""
    folder = tempfile.mkdtemp()
    os.chmod(folder, 0o777)  # noqa: S103 - that is what is tried
    yield Path(folder)
    shutil.rmtree(folder)


TELLS_WHY = """
from taskharbor.errors import TaskHarborError
try:
    with producing(path) as store:
        put(store)
        print("stored")
except TaskHarborError as error:
    print(type(error).__name__, error)
"""


# --- where it lies


def test_a_missing_directory(tmp_path: Path) -> None:
    told = refusal(tmp_path / "nowhere" / "jobs.db")

    assert f"the directory {tmp_path / 'nowhere'} does not exist, so jobs.db cannot be made in it" in told
    assert "three slashes begin a relative path, four an absolute one" in told
    assert [] == os.listdir(tmp_path)


def test_a_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    assert f"the directory {tmp_path / 'file'} does not exist" in refusal(tmp_path / "file" / "jobs.db")


def test_a_path_that_is_a_directory(tmp_path: Path) -> None:
    assert f"{tmp_path} is a directory; name a file in it, such as {tmp_path / 'taskharbor.db'}" == refusal(
        tmp_path
    )


def test_a_directory_that_may_not_be_written_in(public: Path) -> None:
    os.chmod(public, 0o755 if os.getuid() == 0 else 0o555)

    told = as_nobody(public / "jobs.db", TELLS_WHY)

    assert f"UnusableStoreError the directory {public} is not writable for this user (uid " in told
    assert (
        "every process that opens it, if only to look, needs to write to the file, and in its directory"
        in told
    )
    assert [] == os.listdir(public)


def test_a_file_that_may_not_be_written_to(public: Path) -> None:
    ids = put_some(public / "jobs.db", 3)
    os.chmod(public / "jobs.db", 0o444)

    told = as_nobody(public / "jobs.db", TELLS_WHY)

    assert f"UnusableStoreError the file {public / 'jobs.db'} is not writable for this user (uid " in told
    assert ids == stored(public / "jobs.db")


@pytest.mark.skipif(os.getuid() != 0, reason="needs two users: run as root")
def test_a_file_that_may_not_be_read(public: Path) -> None:
    ids = put_some(public / "jobs.db", 3)
    os.chmod(public / "jobs.db", 0o600)

    told = as_nobody(public / "jobs.db", TELLS_WHY)

    assert f"UnusableStoreError the file {public / 'jobs.db'} is not writable" in told
    assert ids == stored(public / "jobs.db")


@pytest.mark.skipif(os.getuid() != 0, reason="needs two users: run as root")
def test_a_new_file_is_not_for_other_users(public: Path) -> None:
    with producing(public / "jobs.db") as store:
        put(store)
        modes = {name: (public / name).stat().st_mode & 0o777 for name in os.listdir(public)}

    assert {0} == {mode & 0o007 for mode in modes.values()}
    assert {"jobs.db", "jobs.db-wal", "jobs.db-shm"} <= set(modes)


def test_who_may_write_to_the_file_of_another_user_can_enqueue(public: Path) -> None:
    put_some(public / "jobs.db")
    os.chmod(public / "jobs.db", 0o666)  # noqa: S103 - that is what is tried

    told = as_nobody(public / "jobs.db", TELLS_WHY)

    assert "stored\n" == told
    assert 2 == len(stored(public / "jobs.db"))


# --- what it is


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("buy bread\n" * 200)

    told = refusal(path)

    assert f"{path} is damaged, or is no SQLite database (SQLite says: file is not a database)" in told
    assert "restore it from a backup, or save what can be read with `sqlite3 FILE .recover`" in told
    assert "buy bread\n" * 200 == path.read_text()


def test_a_file_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    put_some(path, 2000)
    os.truncate(path, path.stat().st_size // 8)

    with (
        pytest.raises(UnusableStoreError, match="is damaged, or is no SQLite database"),
        producing(path) as store,
    ):
        put(store, *(new_job() for _ in range(500)))


def test_a_page_that_was_damaged_is_told_at_the_verb_that_meets_it(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    put_some(path, 2000)
    ((root, size),) = ask_file(
        path,
        "SELECT rootpage, (SELECT page_size FROM pragma_page_size) FROM sqlite_schema WHERE name = 'taskharbor_job'",
    )
    assert isinstance(root, int)
    assert isinstance(size, int)
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * size)

    with (
        pytest.raises(UnusableStoreError, match=r"jobs\.db is damaged.*restore it from a backup"),
        producing(path) as store,
    ):
        put(store)


def test_a_page_damaged_while_the_file_is_open_is_told_and_does_not_end_the_store(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    ids = put_some(path, 2000)
    ((root, size),) = ask_file(
        path,
        "SELECT rootpage, (SELECT page_size FROM pragma_page_size) FROM sqlite_schema "
        "WHERE name = 'taskharbor_job_ready'",
    )
    assert isinstance(root, int)
    assert isinstance(size, int)
    whole = path.read_bytes()

    async def work(bench: Bench) -> tuple[str, int]:
        with path.open("r+b") as file:
            file.seek((root - 1) * size)
            file.write(b"\xff" * size)
        # Another commit makes this connection forget the pages that it has read.
        ask_file(path, "CREATE TABLE other (x)")
        with pytest.raises(UnusableStoreError) as refused:
            await bench.take(10)
        with path.open("r+b") as file:
            file.seek((root - 1) * size)
            file.write(whole[(root - 1) * size : root * size])
        ask_file(path, "DROP TABLE other")
        bench.advance(HOUR)
        return str(refused.value), len(await bench.take())

    told, taken = with_bench(path, work)

    assert f"{path} is damaged, or is no SQLite database" in told
    assert len(ids) == taken


def test_a_database_in_utf_16(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    ask_file(path, "PRAGMA encoding = 'UTF-16'")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA encoding = 'UTF-16le'")
        connection.execute("CREATE TABLE mine (text TEXT)")

    told = refusal(path)

    assert f"{path} stores text as UTF-16le; the driver needs UTF-8, which only a new file can have" == told
    assert [("mine",)] == ask_file(path, "SELECT name FROM sqlite_schema")


# --- what is in it


def test_tables_of_a_later_release(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    ids = put_some(path, 2)
    ask_file(path, "INSERT INTO taskharbor_migration (number, name, run_at) VALUES (99, 'later', 0)")
    driver = driver_on(path)

    with pytest.raises(SchemaError) as opening, driver.connect_blocking():
        pass
    with pytest.raises(SchemaError) as migrating:
        driver.migrate()

    assert SchemaVersion(99, driver.migrations[-1].number) == driver.schema_version()
    assert str(opening.value).startswith(
        f"{path}: its tables are at version 99, and this release of TaskHarbor knows"
    )
    assert "a later release has migrated them: upgrade this one" in str(opening.value)
    assert str(opening.value) == str(migrating.value)
    assert ids == stored(path)


@pytest.mark.parametrize(
    "table", ["taskharbor_job", "taskharbor_key", "taskharbor_options", "taskharbor_history"]
)
def test_a_table_that_somebody_dropped(table: str, tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    put_some(path)
    ask_file(path, f"DROP TABLE {table}")

    with pytest.raises(SchemaError) as refused, producing(path) as store:
        put(store, new_job(key="one"))

    assert f"the tables in {path} are not as this release left them" in str(refused.value)
    assert f"no such table: {table}" in str(refused.value)
    assert "taskharbor migrate" in str(refused.value)


def test_a_column_that_somebody_renamed(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    put_some(path)
    ask_file(path, "ALTER TABLE taskharbor_key RENAME COLUMN digest TO sum")

    with pytest.raises(SchemaError, match="are not as this release left them"), producing(path) as store:
        put(store, new_job(key="one"))


def test_all_tables_dropped_while_the_file_is_open(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    with producing(path) as store:
        put(store)
        for row in ask_file(path, "SELECT name FROM sqlite_schema WHERE type = 'table'"):
            ask_file(path, f"DROP TABLE {row[0]!s}")

        with pytest.raises(SchemaError, match="no such table: taskharbor_"):
            put(store)


# --- what becomes of it


def test_a_file_removed_while_it_is_open_takes_no_more_jobs(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    with producing(path) as store:
        put(store)
        path.unlink()

        with pytest.raises(UnusableStoreError) as refused:
            put(store)

    assert f"{path} was removed or replaced while it was open; what is written now would be lost" in str(
        refused.value
    )
    assert "Put the file back, if it still exists, and start again" in str(refused.value)


def test_a_file_replaced_while_it_is_open_takes_no_more_jobs(tmp_path: Path) -> None:
    path, backup = tmp_path / "jobs.db", tmp_path / "backup.db"
    ids = put_some(path, 2)
    shutil.copy(path, backup)

    async def work(bench: Bench) -> str:
        os.replace(backup, path)
        with pytest.raises(UnusableStoreError) as refused:
            await bench.enqueue()
        with pytest.raises(UnusableStoreError):
            await bench.take()
        return str(refused.value)

    assert "was removed or replaced while it was open" in with_bench(path, work)
    assert ids == stored(path)


def test_a_file_moved_away_and_put_back_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    with producing(path) as store:
        put(store)
        path.rename(tmp_path / "away.db")
        with pytest.raises(UnusableStoreError):
            put(store)
        (tmp_path / "away.db").rename(path)

        put(store)

    assert 2 == len(stored(path))


def test_a_removed_file_is_made_anew_when_it_is_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    put_some(path, 3)
    path.unlink()

    put_some(path)

    assert 1 == len(stored(path))


def test_a_file_whose_log_was_removed_by_hand_is_still_a_store(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    ids = put_some(path, 3)
    for end in ("-wal", "-shm"):
        Path(f"{path}{end}").unlink(missing_ok=True)

    ids += put_some(path)

    assert sorted(ids) == stored(path)
