"""What a task is called, wherever its function was defined, and that a worker which imports it calls it the same."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from taskharbor import OptionError, Registry, TaskDefinitionError, default_registry, task
from tests.fixtures.support import run_python, untyped

TASK = """
from taskharbor import task

@task
def send(to: str) -> None: ...

class Mailer:
    @staticmethod
    @task
    def later(to: str) -> None: ...

def make():
    @task
    def local(x: int) -> None: ...
    return local

if __name__ == "__main__":
    print(__name__, send.name, Mailer.later.name, make().name)
"""


def test_a_name_is_module_and_qualname() -> None:
    @task(registry=Registry())
    def send(to: str) -> None: ...

    assert f"{__name__}.test_a_name_is_module_and_qualname.send" == send.name


def test_a_name_can_be_given() -> None:
    @task(name="mail.send", aliases=["mail.old", "mail.older"], registry=Registry())
    def send(to: str) -> None: ...

    assert ("mail.send", ("mail.old", "mail.older")) == (send.name, send.aliases)
    assert "<SyncTask mail.send>" == repr(send)


def test_aliases_may_come_from_any_iterable() -> None:
    @task(name="a", aliases=iter(["b", "c"]), registry=Registry())
    def send(to: str) -> None: ...

    assert ("b", "c") == send.aliases


@pytest.mark.parametrize("wrong", ["", " a", "a ", "a\nb", "a\x00", "a\ud800", "x" * 121, 5, b"a"], ids=repr)
def test_a_name_or_alias_that_cannot_be_stored_is_refused(wrong: object) -> None:
    with pytest.raises(OptionError, match="name="):
        task(name=untyped(wrong), registry=Registry())
    with pytest.raises(OptionError, match="name="):
        task(aliases=["fine", untyped(wrong)], registry=Registry())


def test_a_text_where_a_list_of_aliases_belongs_is_refused() -> None:
    with pytest.raises(OptionError, match=r"aliases='old'"):
        task(aliases="old", registry=Registry())


def test_a_name_given_without_its_keyword_is_refused_with_what_to_write() -> None:
    with pytest.raises(TaskDefinitionError, match=r"@task\(name='mail\.send'\)"):
        task(untyped("mail.send"))


def test_a_default_name_that_is_too_long_to_store_is_refused() -> None:
    def send(to: str) -> None: ...

    send.__qualname__ = "a" * 200

    with pytest.raises((OptionError, TaskDefinitionError), match="name"):
        task(registry=Registry())(send)


def test_a_script_names_its_tasks_by_its_file(tmp_path: Path) -> None:
    script = tmp_path / "my_script.py"
    script.write_text(TASK, encoding="utf-8")

    assert "__main__ my_script.send my_script.Mailer.later my_script.make.local\n" == run_python(str(script))


def test_a_module_run_with_m_names_its_tasks_by_its_dotted_path(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "mail.py").write_text(TASK, encoding="utf-8")

    assert "__main__ shop.mail.send shop.mail.Mailer.later shop.mail.make.local\n" == run_python(
        "-m", "shop.mail", cwd=tmp_path
    )


@pytest.mark.parametrize("module", ["shop", "shop.__main__"])
def test_a_package_run_with_m_names_its_tasks_as_one_that_imports_it_does(
    tmp_path: Path, module: str
) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "__main__.py").write_text(TASK, encoding="utf-8")

    run = run_python("-m", module, cwd=tmp_path).split()[1]
    imported = run_python("-c", "import shop.__main__ as m; print(m.send.name)", cwd=tmp_path).strip()

    assert run == imported


def test_a_script_and_a_worker_that_imports_it_agree(tmp_path: Path) -> None:
    script = tmp_path / "my_script.py"
    script.write_text(TASK, encoding="utf-8")

    run = run_python(str(script)).split()[1]
    imported = run_python("-c", "import my_script; print(my_script.send.name)", cwd=tmp_path).strip()

    assert run == imported


def test_an_interactive_session_has_a_name_too() -> None:
    assert "__main__.f\n" == run_python(
        "-c", "from taskharbor import task\n@task\ndef f() -> None: ...\nprint(f.name)"
    )


# --- declared again


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], ModuleType]:
    """Return a function that writes a module and imports it, or reloads it when it is there."""
    untyped(monkeypatch).syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write_and_load(name: str, text: str) -> ModuleType:
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        importlib.invalidate_caches()
        known = sys.modules.get(name)
        if known is not None:
            return importlib.reload(known)
        module = importlib.import_module(name)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return write_and_load


HEAD = "from taskharbor import Registry, task\nfrom tests.test_task_names import registry\n"


registry = Registry()


@pytest.fixture(autouse=True)
def _empty() -> None:
    registry.__init__()  # type: ignore[misc]


def test_a_module_that_is_reloaded_takes_the_place_of_its_first_self(
    load: Callable[[str, str], ModuleType],
) -> None:
    text = f"{HEAD}@task(registry=registry)\ndef send(to: str) -> int: return 1\n"

    load("th_reloaded", text)
    module = load("th_reloaded", text.replace("return 1", "return 2"))

    assert 1 == len(registry)
    assert 2 == registry.get("th_reloaded.send").fn("x") == module.send("x")


def test_a_module_that_is_reloaded_after_lines_moved_does_too(
    load: Callable[[str, str], ModuleType],
) -> None:
    text = f"{HEAD}@task(registry=registry)\ndef send(to: str) -> int: return 1\n"

    load("th_moved", text)
    load("th_moved", text.replace("@task", "\n\n# a comment above\n@task").replace("return 1", "return 2"))

    assert 2 == registry.get("th_moved.send").fn("x")


def test_two_functions_of_one_name_in_one_module_are_refused(
    load: Callable[[str, str], ModuleType],
) -> None:
    one = "@task(registry=registry)\ndef send(to: str) -> int: return 1\n"

    with pytest.raises(TaskDefinitionError, match=r"two tasks are named 'th_twice\.send'.*th_twice.py:3.*:5"):
        load("th_twice", HEAD + one + one)


def test_two_modules_with_one_explicit_name_are_refused(load: Callable[[str, str], ModuleType]) -> None:
    text = f"{HEAD}@task(name='mail.send', registry=registry)\ndef send(to: str) -> None: ...\n"
    load("th_one", text)

    with pytest.raises(TaskDefinitionError, match=r"two tasks are named 'mail.send'.*th_one.py.*th_other.py"):
        load("th_other", text)


def test_two_decorated_functions_with_one_explicit_name_are_refused(
    load: Callable[[str, str], ModuleType],
) -> None:
    """The wrapper of both stands in the decorator's module, at one line."""
    load(
        "th_traced",
        "import functools\ndef traced(fn):\n    @functools.wraps(fn)\n"
        "    def wrapper(*a, **k): return fn(*a, **k)\n    return wrapper\n",
    )
    text = (
        f"{HEAD}from th_traced import traced\n"
        "@task(name='mail.send', registry=registry)\n@traced\ndef send(to: str) -> None: ...\n"
    )
    load("th_first", text)

    with pytest.raises(TaskDefinitionError, match=r"two tasks are named 'mail.send'"):
        load("th_second", text)


def test_a_function_run_twice_declares_its_task_again() -> None:
    mine = Registry()

    def make(factor: int) -> object:
        @task(name="times", registry=mine)
        def times(x: int) -> int:
            return x * factor

        return times

    make(2)
    make(3)

    assert 1 == len(mine)
    assert 12 == mine.get("times").fn(4)


def test_a_notebooks_cell_may_be_run_again_from_another_line() -> None:
    space: dict[str, object] = {"task": task, "registry": Registry(), "__name__": "__main__"}
    cell = "@task(name='cell', registry=registry)\ndef cell(x: int) -> int: return {}"

    for number, shift in ((1, ""), (2, "\n\n")):
        exec(compile(shift + cell.format(number), f"<ipython-input-{number}>", "exec"), space)  # noqa: S102

    assert 2 == untyped(space["registry"]).get("cell").fn(0)


def test_the_default_registry_is_where_tasks_go_unless_told_otherwise() -> None:
    def lonely(x: int) -> None: ...

    before = default_registry.version
    declared = task(name="tests.lonely")(lonely)

    assert declared.definition is default_registry.get("tests.lonely")
    assert before + 1 == default_registry.version
