"""Finding the user's application, and saying what is wrong with it."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from taskharbor import DeploymentError
from taskharbor.cli.application import load

_number = itertools.count()

ONE = "from taskharbor import Harbor\nharbor = Harbor('memory://')\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "modules", {**sys.modules})


@pytest.fixture
def module(tmp_path: Path) -> Callable[[str], str]:
    """Write a module into the current directory and return its name, which no other test uses."""

    def write(source: str) -> str:
        name = f"app_{next(_number)}"
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
        return name

    return write


def refusal(app: str) -> str:
    with pytest.raises(DeploymentError) as refused:
        load(app)
    assert str(refused.value).startswith(f"--app {app!r}: ")
    return str(refused.value)


def test_a_module_and_a_name_in_it(module: Callable[[str], str]) -> None:
    assert "memory" == load(f"{module(ONE)}:harbor").driver.name


def test_a_module_with_one_harbor_needs_no_name(module: Callable[[str], str]) -> None:
    assert "memory" == load(module(ONE + "same = harbor\n")).driver.name


def test_a_name_within_a_name(module: Callable[[str], str]) -> None:
    name = module("from taskharbor import Harbor\nclass App:\n    harbor = Harbor('memory://')\n")

    assert "memory" == load(f"{name}:App.harbor").driver.name


def test_a_function_that_returns_one(module: Callable[[str], str]) -> None:
    name = module("from taskharbor import Harbor\ndef make(url='memory://'): return Harbor(url)\n")

    assert "memory" == load(f"{name}:make").driver.name


@pytest.mark.parametrize("suffix", ["", ":harbor"])
def test_a_file_is_imported_under_its_own_name(tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / "deep"
    folder.mkdir()
    name = f"app_{next(_number)}"
    (folder / f"{name}.py").write_text(ONE, encoding="utf-8")

    harbor = load(f"deep/{name}.py{suffix}")

    assert sys.modules[name].__dict__["harbor"] is harbor


def test_a_file_in_a_package_is_imported_under_its_whole_name(tmp_path: Path) -> None:
    package = tmp_path / f"shop_{next(_number)}"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "words.py").write_text("URL = 'memory://'\n", encoding="utf-8")
    (package / "jobs.py").write_text(
        "from taskharbor import Harbor\nfrom .words import URL\nharbor = Harbor(URL)\n", encoding="utf-8"
    )

    load(str(package / "jobs.py"))

    assert f"{package.name}.jobs" in sys.modules


def test_a_file_by_the_name_of_another_module_is_refused(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text(ONE, encoding="utf-8")

    assert "a module named 'json' is there already" in refusal("./json.py")


@pytest.mark.parametrize(
    ("app", "why"),
    [
        ("nowhere.py", "there is no file"),
        ("has space:harbor", "is no module name"),
        (":harbor", "expected module:harbor"),
        ("module:1x", "expected module:harbor"),
        ("no_such_module_here", "there is no module 'no_such_module_here'"),
        (
            "os.path.deeper:harbor",
            "'os.path' is a module, so there is no 'os.path.deeper'; did you mean os.path:deeper?",
        ),
        ("taskharbor.tsk:harbor", "there is no module 'tsk' in 'taskharbor' (did you mean 'task'?)"),
    ],
)
def test_what_is_not_there_is_told(app: str, why: str) -> None:
    assert why in refusal(app)


def test_a_misspelt_module_is_told_its_neighbour(module: Callable[[str], str]) -> None:
    name = module(ONE)

    assert f"did you mean '{name}'?" in refusal(f"{name.replace('app', 'apq')}:harbor")


def test_a_misspelt_name_is_told_its_neighbour(module: Callable[[str], str]) -> None:
    name = module(ONE)

    assert "has no 'habror' (did you mean 'harbor'?)" in refusal(f"{name}:habror")
    assert f"has no 'xyz'; there is {name}:harbor" in refusal(f"{name}:xyz")


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (
            "import os\n\nurl = os.environ['SHOP_DATABASE']\n",
            "KeyError: 'SHOP_DATABASE' ({file}, line 3: url = os",
        ),
        ("def f():\n    raise SystemExit(3)\nf()\n", "SystemExit: 3 ({file}, line 2: raise SystemExit(3))"),
        ("x = (\n", "SyntaxError: '(' was never closed ({file}, line 1)"),
        (
            "import shop_that_is_missing\n",
            "ModuleNotFoundError: No module named 'shop_that_is_missing' ({file}, line 1",
        ),
        ("from taskharbor import task\n@task\ndef f(x): ...\n", "TaskDefinitionError: "),
        ("from taskharbor import task\n@task\ndef f(x): ...\n", " ({file}, line 2: @task)"),
        ("import json\njson.loads('{')\n", " ({file}, line 2: json.loads('{'))"),
    ],
)
def test_what_the_application_raises_is_told_with_its_own_line(
    module: Callable[[str], str], tmp_path: Path, source: str, line: str
) -> None:
    name = module(source)

    assert line.replace("{file}", str(tmp_path / f"{name}.py")) in refusal(f"{name}:harbor")


def test_what_a_module_imports_is_not_suggested_for_a_harbor(module: Callable[[str], str]) -> None:
    name = module(ONE + "from taskharbor import Snooze\ndef make_one(): return harbor\n")

    assert f"has no 'nope'; there is {name}:harbor" in refusal(f"{name}:nope")
    assert "did you mean 'harbor'?" in refusal(f"{name}:harbour")
    assert "did you mean 'make_one'?" in refusal(f"{name}:make_on")


def test_a_module_without_a_harbor_and_one_with_several(module: Callable[[str], str]) -> None:
    assert "there is no Harbor in" in refusal(module("x = 1\n"))
    several = module(ONE + "other = Harbor('memory://')\n")
    assert (
        f"there are several Harbors in '{several}'; say which: {several}:harbor or {several}:other"
        in refusal(several)
    )


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (
            "thing = 3",
            "'thing' is a int; expected a Harbor, or a function without arguments that returns one",
        ),
        ("def thing(url): ...", "cannot be called without arguments (missing a required argument: 'url')"),
        ("def thing(): return 3", "thing() returned a int; expected a Harbor"),
        ("async def thing(): ...", "thing() returned a coroutine; expected a Harbor"),
        ("def thing(): raise ValueError('no')", "thing() raised ValueError: no"),
    ],
)
def test_what_is_no_harbor_is_told(module: Callable[[str], str], value: str, why: str) -> None:
    assert why in refusal(f"{module(value)}:thing")
