"""From a URL to a driver, the library's own or anybody's, and what is said where there is none."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from taskharbor import (
    DeploymentError,
    DriverURLError,
    Harbor,
    MissingExtraError,
    Registry,
    TaskHarborError,
    task,
)
from taskharbor.drivers import available_drivers, driver_for
from taskharbor.drivers.memory import MemoryDriver
from taskharbor.errors import redacted
from tests.fixtures.support import untyped

Install = Callable[..., None]

SECRET = "s3cr3t"


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return a function that installs a distribution with one module and one entry point."""
    untyped(monkeypatch).syspath_prepend(tmp_path)

    def put(scheme: str, source: str, *, attribute: str = ":open_driver", module: str = "") -> None:
        module = module or f"th_driver_{scheme}"
        (tmp_path / f"{module}.py").write_text(source, encoding="utf-8")
        info = tmp_path / f"taskharbor_{scheme}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: taskharbor-{scheme}\nVersion: 1.0\n", encoding="utf-8"
        )
        (info / "entry_points.txt").write_text(
            f"[taskharbor.drivers]\n{scheme} = {module}{attribute}\n", encoding="utf-8"
        )
        monkeypatch.delitem(sys.modules, module, raising=False)

    return put


DRIVER = """
from taskharbor.drivers.memory import MemoryDriver

opened = []

class Opener:
    @staticmethod
    def open(url):
        return open_driver(url)

def open_driver(url):
    opened.append(url)
    return MemoryDriver()
"""


# --- the library's own


@pytest.mark.parametrize("url", ["memory://", "memory:///", "MEMORY://"])
def test_memory_is_opened_by_its_scheme(url: str) -> None:
    assert isinstance(driver_for(url), MemoryDriver)


def test_each_memory_driver_is_a_store_of_its_own() -> None:
    assert driver_for("memory://") is not driver_for("memory://")


def test_memory_takes_nothing_behind_its_scheme() -> None:
    with pytest.raises(
        DriverURLError, match="memory:// takes nothing after it, since each harbor has its own"
    ):
        driver_for("memory://jobs")


def test_the_drivers_that_can_be_opened_are_listed_with_their_origin() -> None:
    assert "taskharbor" == available_drivers()["memory"]
    assert list(available_drivers()) == sorted(available_drivers())


def test_a_driver_may_be_given_instead_of_a_url() -> None:
    driver = MemoryDriver()

    assert driver is Harbor(driver).driver


# --- URLs that nobody can open


@pytest.mark.parametrize("url", ["", "memory", "memory:", "memory:/", "jobs.db", "://", "://x", " "])
def test_what_is_no_url_is_refused_with_what_one_looks_like(url: str) -> None:
    with pytest.raises(
        DriverURLError, match=r"is not a driver URL; expected SCHEME://..., such as memory:// \(known here: "
    ):
        driver_for(url)


def test_an_unknown_scheme_says_which_are_known_and_where_others_come_from() -> None:
    with pytest.raises(
        DriverURLError,
        match=r"no driver answers to cassandra:// \(known here: .*memory://.*\); a package brings one by an entry "
        "point of the group 'taskharbor.drivers'",
    ):
        driver_for("cassandra://host/jobs")


def test_a_misspelt_scheme_is_told_the_near_one() -> None:
    with pytest.raises(DriverURLError, match="did you mean 'memory'"):
        driver_for("memroy://")


@pytest.mark.parametrize(
    "url", ["memory://[", "nowhere://[::1", "nowhere://u:p[w@host/db", "nowhere://host:port", "no where://x"]
)
def test_a_malformed_url_is_refused_as_any_other(url: str) -> None:
    with pytest.raises(DriverURLError):
        driver_for(url)


@pytest.mark.parametrize("wrong", [Path("jobs.db"), 5, b"memory://", ["memory://"], object], ids=repr)
def test_what_is_neither_url_nor_driver_is_refused(wrong: object) -> None:
    with pytest.raises(DriverURLError, match="expected a driver's URL such as 'memory://', or a driver"):
        Harbor(untyped(wrong))


WITH_SECRETS = [
    f"memory://user:{SECRET}@host/db",
    f"memory://:{SECRET}@host",
    f"memory://host/db?password={SECRET}",
    f"memory://host/db?user=me&password={SECRET}&x=1",
    f"memory://host/db?PASSWORD={SECRET}",
    f"memory://user:{SECRET}@@host",
    f"memory://user:a@{SECRET}@host",
    f"memory://user:a:{SECRET}@host",
    f"memory://user:a/{SECRET}@host",
    f"memory://user:[{SECRET}@host",
    f"memory:/user:{SECRET}@host/db",
    f"user:{SECRET}@host",
    f"user:{SECRET}@host/db",
    f"nowhere://user:{SECRET}@host/db",
    f"nowhere://user:[{SECRET}@host/db",
]


@pytest.mark.parametrize("url", WITH_SECRETS)
def test_no_message_shows_a_password(url: str) -> None:
    with pytest.raises(TaskHarborError) as caught:
        Harbor(url)

    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in str(error)
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("url", WITH_SECRETS)
def test_a_redacted_url_keeps_the_rest(url: str) -> None:
    told = redacted(url)

    assert SECRET not in told
    assert "***" in told
    assert "host" in told


@pytest.mark.parametrize(
    "url",
    [
        "memory://",
        "postgresql://user@host:5432/db",
        "redis://host:6379/0",
        "redis://[::1]:6379/0",
        "sqlite:///C:/jobs.db",
        "sqlite:///jobs.db?mode=ro",
        "",
    ],
)
def test_a_url_without_secrets_is_shown_as_it_is(url: str) -> None:
    assert url == redacted(url)


# --- no URL given


def test_taskharbor_url_is_taken_where_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKHARBOR_URL", "memory://")

    assert "memory" == Harbor().driver.name


def test_an_argument_comes_before_taskharbor_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKHARBOR_URL", "nowhere://")

    assert "memory" == Harbor("memory://").driver.name


def test_a_wrong_taskharbor_url_is_refused_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKHARBOR_URL", f"user:{SECRET}@host")

    with pytest.raises(DriverURLError, match="TASKHARBOR_URL") as caught:
        Harbor()

    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("empty", [None, ""])
def test_without_any_url_sqlite_is_meant_and_it_is_said_which(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    empty: str | None,
) -> None:
    monkeypatch.chdir(tmp_path)
    if empty is None:
        monkeypatch.delenv("TASKHARBOR_URL", raising=False)
    else:
        monkeypatch.setenv("TASKHARBOR_URL", empty)

    if "sqlite" in available_drivers():
        with caplog.at_level(logging.INFO, logger="taskharbor"):
            assert "sqlite" == Harbor().driver.name
        assert str(tmp_path / "taskharbor.db") in caplog.text
        return
    with pytest.raises(DriverURLError) as caught:
        Harbor()
    told = str(caught.value)
    assert "no URL was given and TASKHARBOR_URL is not set, so sqlite:///taskharbor.db was meant" in told
    assert "pass one, for example Harbor('memory://')" in told


def test_the_default_file_is_logged_with_its_whole_path(
    distribution: Install,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if available_drivers().get("sqlite") == "taskharbor":
        pytest.skip("the library's own driver answers; see the test above")
    distribution("sqlite", DRIVER)
    monkeypatch.delenv("TASKHARBOR_URL", raising=False)
    monkeypatch.chdir(tmp_path)

    with caplog.at_level(logging.INFO, logger="taskharbor"):
        Harbor()

    assert [f"no URL was given: using {tmp_path / 'taskharbor.db'}"] == caplog.messages


# --- drivers of other packages


def test_a_driver_of_another_package_is_opened_with_the_whole_url(distribution: Install) -> None:
    registry = Registry()

    @task(registry=registry)
    def add(x: int, y: int) -> int:
        return x + y

    distribution("custom", DRIVER)

    with Harbor("custom://user:pw@host/place?x=1", registry=registry) as harbor:
        handle = add.enqueue(1, 2)
        harbor.run_until_idle()

        assert 3 == handle.result()
    assert ["custom://user:pw@host/place?x=1"] == sys.modules["th_driver_custom"].opened
    assert "th_driver_custom:open_driver" == available_drivers()["custom"]


def test_an_entry_point_may_name_an_attribute_of_an_attribute(distribution: Install) -> None:
    distribution("dotted", DRIVER, attribute=":Opener.open")

    assert isinstance(driver_for("dotted://x"), MemoryDriver)


def test_an_entry_point_does_not_take_the_place_of_our_own(distribution: Install) -> None:
    distribution("memory", "raise RuntimeError('loaded')")

    assert isinstance(driver_for("memory://"), MemoryDriver)
    assert "taskharbor" == available_drivers()["memory"]


def test_a_package_that_lacks_a_module_names_itself_the_module_and_what_to_install(
    distribution: Install,
) -> None:
    distribution("lacking", "import th_no_such_module_anywhere")

    with pytest.raises(
        MissingExtraError,
        match=r"the driver for lacking:// comes with taskharbor-lacking, which needs the module "
        r"'th_no_such_module_anywhere' that is not installed; .*pip install 'taskharbor-lacking\[lacking\]'",
    ) as caught:
        Harbor("lacking://host")

    assert isinstance(caught.value, ImportError)
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


@pytest.mark.parametrize("attribute", [":missing", ":Opener.missing", ""])
def test_an_entry_point_that_leads_nowhere_is_a_broken_deployment(
    distribution: Install, attribute: str
) -> None:
    distribution("nowhere", DRIVER, attribute=attribute)

    with pytest.raises(DeploymentError, match="nowhere://"):
        driver_for("nowhere://x")


def test_a_driver_that_fails_to_open_fails_in_its_own_words(distribution: Install) -> None:
    distribution("failing", "def open_driver(url): raise LookupError('no such cluster')")

    with pytest.raises(LookupError, match="no such cluster"):
        Harbor("failing://x")


def test_listing_drivers_imports_none(distribution: Install) -> None:
    distribution("lazy", "raise RuntimeError('imported')")

    assert "lazy" in available_drivers()
    assert "th_driver_lazy" not in sys.modules


def test_a_misspelt_scheme_is_told_the_near_one_of_another_package(distribution: Install) -> None:
    distribution("cassandra", DRIVER)

    with pytest.raises(
        DriverURLError, match=r"known here: cassandra://, memory://.*did you mean 'cassandra'"
    ):
        driver_for("casandra://host")
