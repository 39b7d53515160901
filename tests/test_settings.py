"""Settings: what the environment says, over a file, over the defaults; and what is refused."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from taskharbor import DeploymentError, OptionError
from taskharbor.cli.logs import LogFormat, LogLevel, log_level
from taskharbor.settings import Loaded, Settings, load_settings
from taskharbor.settings.declared import NAMES, meaning_of, variable_of
from taskharbor.settings.reference import page
from taskharbor.worker import WorkerSettings
from tests.fixtures.support import ROOT, run_python

SECRET = "hunter2"
PAGE = ROOT / "docs" / "reference" / "settings.md"
WHOLE = """
url = "sqlite:////srv/jobs.db"
app = "shop:harbor"
application = "shop"
generation = 3
schedules = "/srv/schedules.toml"

[worker]
queues = ["mail", "default"]
concurrency = 7
processes = 2
handler_processes = 3
lease = "1h30m"
grace = "1.5s"
halt = "500ms"
prefetch = 0
weights = {mail = 3, default = 1}
reserved = {mail = 2}
aging = "5m"
aging_share = 0.2
stall = "2m"
max_jobs = 1000
max_memory = "512M"
log_level = "debug"
log_format = "json"
"""


def load(folder: Path, environment: Mapping[str, str] | None = None, **arguments: object) -> Loaded:
    return load_settings(arguments, environment=environment or {}, folder=folder)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_without_anything_every_setting_stands_at_its_default(tmp_path: Path) -> None:
    loaded = load(tmp_path)

    assert Settings() == loaded.settings
    assert dict.fromkeys(NAMES, "default") == loaded.origins
    assert loaded.file is None


def test_a_file_can_set_everything(tmp_path: Path) -> None:
    path = write(tmp_path / "taskharbor.toml", WHOLE)

    loaded = load(tmp_path)

    assert (
        Settings(
            url="sqlite:////srv/jobs.db",
            app="shop:harbor",
            application="shop",
            generation=3,
            schedules="/srv/schedules.toml",
            queues=("mail", "default"),
            concurrency=7,
            processes=2,
            handler_processes=3,
            lease=timedelta(minutes=90),
            grace=timedelta(seconds=1.5),
            halt=timedelta(milliseconds=500),
            prefetch=0,
            weights={"mail": 3, "default": 1},
            reserved={"mail": 2},
            aging=timedelta(minutes=5),
            aging_share=0.2,
            stall=timedelta(minutes=2),
            max_jobs=1000,
            max_memory=512 * 2**20,
            log_level="debug",
            log_format="json",
        )
        == loaded.settings
    )
    assert path == loaded.file
    assert (f"file {path}", f"file {path} [worker]") == (loaded.origins["url"], loaded.origins["lease"])


def test_the_environment_can_set_everything_too(tmp_path: Path) -> None:
    write(tmp_path / "taskharbor.toml", WHOLE)
    from_file = load(tmp_path)
    texts = {variable_of(one.name): one.value for one in from_file.shown()}

    loaded = load(tmp_path / "elsewhere", texts)

    assert from_file.settings == loaded.settings
    assert {f"environment {variable_of(name)}" for name in NAMES} == set(loaded.origins.values())


def test_arguments_come_first_then_the_environment_then_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "taskharbor.toml", "[worker]\nconcurrency = 1\nlease = '10s'\ngrace = '10s'")

    loaded = load(
        tmp_path,
        {"TASKHARBOR_LEASE": "20s", "TASKHARBOR_GRACE": "20s"},
        grace=timedelta(seconds=30),
        halt=None,
    )

    settings = loaded.settings
    assert (1, 20, 30, 5) == (
        settings.concurrency,
        settings.lease.total_seconds(),
        settings.grace.total_seconds(),
        settings.halt.total_seconds(),
    )
    assert [f"file {path} [worker]", "environment TASKHARBOR_LEASE", "argument", "default"] == [
        loaded.origins[name] for name in ("concurrency", "lease", "grace", "halt")
    ]


def test_pyproject_serves_as_well(tmp_path: Path) -> None:
    path = write(
        tmp_path / "pyproject.toml",
        "[project]\nname = 'shop'\n[tool.taskharbor]\napp = 'shop'\n[tool.taskharbor.worker]\nconcurrency = 3\n",
    )

    loaded = load(tmp_path)

    assert ("shop", 3) == (loaded.settings.app, loaded.settings.concurrency)
    assert f"file {path} [tool.taskharbor]" == loaded.origins["app"]
    assert f"file {path} [tool.taskharbor.worker]" == loaded.origins["concurrency"]


def test_the_nearest_file_upwards_is_read_and_no_other(tmp_path: Path) -> None:
    write(tmp_path / "taskharbor.toml", "app = 'far'\n[worker]\nconcurrency = 3")
    write(tmp_path / "a" / "taskharbor.toml", "app = 'near'")
    write(tmp_path / "a" / "b" / "pyproject.toml", "[project]\ndependencies = ['taskharbor']")
    (tmp_path / "a" / "b" / "c").mkdir()

    loaded = load(tmp_path / "a" / "b" / "c")

    assert ("near", 50) == (loaded.settings.app, loaded.settings.concurrency)


def test_the_environment_may_name_the_file(tmp_path: Path) -> None:
    write(tmp_path / "taskharbor.toml", "app = 'near'")
    named = write(tmp_path / "other" / "staging.toml", "app = 'named'")

    loaded = load(tmp_path, {"TASKHARBOR_CONFIG": str(named)})

    assert ("named", named) == (loaded.settings.app, loaded.file)


def test_a_file_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    path = write(tmp_path / "taskharbor.toml", "app = 'old'")
    load(tmp_path)

    write(path, "app = 'newer'")

    assert "newer" == load(tmp_path).settings.app


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("sqlite:///data/jobs.db?busy_timeout=3", "sqlite:///{folder}/data/jobs.db?busy_timeout=3"),
        ("postgresql+embedded:///pg", "postgresql+embedded:///{folder}/pg"),
        ("sqlite:////abs/jobs.db", "sqlite:////abs/jobs.db"),
        ("postgresql:///shop", "postgresql:///shop"),
        ("memory://", "memory://"),
    ],
)
def test_a_relative_path_of_a_file_begins_at_its_folder(tmp_path: Path, text: str, url: str) -> None:
    write(tmp_path / "taskharbor.toml", f"url = '{text}'")
    (tmp_path / "deeper").mkdir()

    loaded = load(tmp_path / "deeper")

    assert url.format(folder=tmp_path) == loaded.settings.url


@pytest.mark.parametrize(
    ("text", "app"),
    [
        ("jobs.py:harbor", "{folder}/jobs.py:harbor"),
        ("shop.jobs:harbor", "shop.jobs:harbor"),
        ("a/b.py", "{folder}/a/b.py"),
    ],
)
def test_a_file_of_the_application_lies_beside_the_settings(tmp_path: Path, text: str, app: str) -> None:
    write(tmp_path / "taskharbor.toml", f"app = '{text}'")

    assert app.format(folder=tmp_path) == load(tmp_path).settings.app


def test_folders_above_that_may_not_be_looked_into_are_passed_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "taskharbor.toml", "app = 'shop'")
    closed = tmp_path / "closed"
    stat = Path.stat

    def refused(self: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if self.parent == closed:
            raise PermissionError(13, "Permission denied")
        return stat(self, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", refused)

    assert path == load(closed / "own").file


# --- refused


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "ulr = 'memory://'",
            "there is no setting 'ulr' (did you mean 'url'?); there are url, app, application, generation, schedules,",
        ),
        ("[worker]\nconcurency = 3", "there is no setting 'concurency' (did you mean 'concurrency'?)"),
        ("concurrency = 3", "'concurrency' does not stand here but in the table [worker]"),
        ("[worker]\nurl = 'memory://'", "'url' does not stand here but above it"),
        ("worker = 3", "worker is no table; expected [worker]"),
        (
            "[worker]\nlease = 30",
            "lease = 30: expected a duration, such as 30s, 5m or 1h30m; it has to be text",
        ),
        ("[worker]\nlease = '30'", "lease = '30': expected a duration"),
        ("[worker]\nlease = '1ms'", "it has to be at least 100ms"),
        (
            "[worker]\nconcurrency = '3'",
            "concurrency = '3': expected a whole number from 1 to 100,000; Expected `int`",
        ),
        ("[worker]\nconcurrency = 0", "concurrency = 0: expected a whole number from 1 to 100,000"),
        ("generation = 9223372036854775808", "expected a whole number from 1 to 9,007,199,254,740,991"),
        ("[worker]\nqueues = 'mail'", "queues = 'mail': expected a list of names"),
        ("[worker]\nqueues = []", "it is empty"),
        ("[worker]\nqueues = ['a', 'a']", "named twice"),
        ("[worker]\nqueues = [' a']", "expected printable text"),
        ("[worker]\nmax_memory = '3 apples'", "'3 apples' is no size"),
        ("[worker]\nlog_level = 'loud'", "expected debug, info, warning or error"),
        ("[worker]\nconcurrency = 999999999999999999999", "expected a whole number from 1 to 100,000"),
        (f"url = ['postgresql://u:{SECRET}@h/db']", "expected a driver's URL"),
        (f"worker = 'postgresql://u:{SECRET}@h/db'", "worker is no table; expected [worker]"),
        (f"[[worker]]\nurl = 'postgresql://u:{SECRET}@h/db'", "worker is no table; expected [worker]"),
        (
            f"[worker]\nlease = 'postgresql://u:{SECRET}@h/db'",
            "lease = 'postgresql://u:***@h/db': expected a",
        ),
        (f"[worker]\nlog_level = 'postgresql://u:{SECRET}@h/db'", "log_level = 'postgresql://u:***@h/db'"),
    ],
)
def test_a_wrong_file_is_refused_with_its_path_and_what_was_expected(
    tmp_path: Path, text: str, told: str
) -> None:
    path = write(tmp_path / "taskharbor.toml", text)

    with pytest.raises(OptionError) as caught:
        load(tmp_path)

    assert str(caught.value).startswith(str(path))
    assert told in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "text", "told"),
    [
        ("TASKHARBOR_CONCURENCY", "3", "there is no such setting (did you mean 'TASKHARBOR_CONCURRENCY'?)"),
        ("TASKHARBOR_LEASE", "30", "TASKHARBOR_LEASE = '30': expected a duration"),
        (
            "TASKHARBOR_CONCURRENCY",
            "many",
            "TASKHARBOR_CONCURRENCY = 'many': expected a whole number from 1 to 100,000",
        ),
        ("TASKHARBOR_CONCURRENCY", "999999999999999999999", "expected a whole number from 1 to 100,000"),
        ("TASKHARBOR_PROCESSES", "100001", "expected a whole number from 1 to 100,000"),
        ("TASKHARBOR_QUEUES", ",", "TASKHARBOR_QUEUES = '': expected a list of names; it is empty"),
    ],
)  # fmt: skip
def test_a_wrong_variable_is_refused_by_its_name(tmp_path: Path, variable: str, text: str, told: str) -> None:
    with pytest.raises(OptionError) as caught:
        load(tmp_path, {variable: text})

    assert told in str(caught.value)


def test_variables_that_are_no_settings_are_let_alone(tmp_path: Path) -> None:
    others = [
        "TASKHARBOR_PROCESS", "TASKHARBOR_LIFELINE", "TASKHARBOR_TEST_POSTGRES", "TASKHARBOR_BENCH_PIPE",
        # Of Kubernetes, for Services named taskharbor and taskharbor-web.
        "TASKHARBOR_SERVICE_HOST", "TASKHARBOR_PORT", "TASKHARBOR_PORT_80_TCP_ADDR", "TASKHARBOR_WEB_SERVICE_PORT_HTTP",
        "MYTASKHARBOR_URL",
    ]  # fmt: skip

    loaded = load(tmp_path, {**dict.fromkeys(others, "x"), "TASKHARBOR_LEASE": ""})

    assert Settings() == loaded.settings


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("taskharbor.toml", "url = ", "is no TOML"),
        ("pyproject.toml", "[tool.taskharbor]\nurl = ", "is no TOML"),
    ],
)
def test_what_is_no_toml_is_refused(tmp_path: Path, name: str, text: str, told: str) -> None:
    path = write(tmp_path / name, text)

    with pytest.raises(DeploymentError, match=told) as caught:
        load(tmp_path)

    assert str(path) in str(caught.value)


def test_two_files_in_one_folder_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "taskharbor.toml", "")
    write(tmp_path / "pyproject.toml", "[tool.taskharbor]")

    with pytest.raises(
        DeploymentError, match=r"both taskharbor.toml and \[tool.taskharbor\] of pyproject.toml"
    ):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "told"),
    [("gone.toml", "no such file"), ("pyproject.toml/x", "no such file"), ("pyproject.toml", "no table")],
)
def test_a_named_file_has_to_be_there_and_hold_settings(tmp_path: Path, name: str, told: str) -> None:
    write(tmp_path / "pyproject.toml", "[project]\nname = 'x'")

    with pytest.raises(DeploymentError, match=told):
        load(tmp_path, {"TASKHARBOR_CONFIG": str(tmp_path / name)})


def test_no_password_is_shown(tmp_path: Path) -> None:
    loaded = load(tmp_path, {"TASKHARBOR_URL": f"postgresql://shop:{SECRET}@db/shop"})

    told = repr(loaded), str(loaded.shown()), repr(loaded.settings)

    assert SECRET not in str(told)
    assert "postgresql://shop:***@db/shop" == loaded.shown()[0].value


# --- declared once


def test_a_worker_has_the_same_defaults() -> None:
    worker, settings = WorkerSettings(), Settings()
    shared = set(NAMES) & set(WorkerSettings.__struct_fields__)

    assert set(WorkerSettings.__struct_fields__) - {"owns_process"} == shared
    assert {name: getattr(worker, name) for name in shared} == {
        name: getattr(settings, name) for name in shared
    }


@pytest.mark.parametrize(("name", "kinds"), [("log_level", LogLevel), ("log_format", LogFormat)])
def test_the_command_line_knows_the_same_words(name: str, kinds: type[LogLevel | LogFormat]) -> None:
    assert tuple(kinds) == get_args(get_type_hints(Settings)[name])


def test_the_page_is_what_the_settings_say() -> None:
    text = PAGE.read_text(encoding="utf-8")

    assert page(text) == text, "run: python -m taskharbor.settings.reference docs/reference/settings.md"
    assert [] == [name for name in NAMES if not meaning_of(name)]


def test_nothing_is_read_for_a_harbor_that_is_told_its_store(tmp_path: Path) -> None:
    write(tmp_path / "taskharbor.toml", "this is no TOML")
    program = (
        "import sys, taskharbor; taskharbor.Harbor('memory://').close(); "
        "assert not {'tomllib', 'taskharbor.settings'} & set(sys.modules), 'read'"
    )

    run_python("-c", program, cwd=tmp_path)


@pytest.mark.parametrize(("text", "level"), [("INFO", "info"), ("warn", "warning"), ("Error", "error")])
def test_a_log_level_in_the_environment_may_be_written_as_logging_does(
    tmp_path: Path, text: str, level: str
) -> None:
    loaded = load_settings(environment={"TASKHARBOR_LOG_LEVEL": text}, folder=tmp_path)

    assert level == loaded.settings.log_level == log_level(text).value
