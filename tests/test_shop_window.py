"""What `import taskharbor` offers: every name exists, has one home and a docstring, and costs little to load."""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import taskharbor
import taskharbor.worker
from tests.fixtures.support import run_python, untyped

PACKAGE = Path(taskharbor.__file__).parent


def modules() -> Iterator[ModuleType]:
    yield taskharbor
    for found in pkgutil.walk_packages(taskharbor.__path__, "taskharbor."):
        if not found.name.startswith("taskharbor.cli"):
            yield importlib.import_module(found.name)


WINDOWS = [module for module in modules() if hasattr(module, "__all__")]
PUBLIC = [pytest.param(name, getattr(taskharbor, name), id=name) for name in taskharbor.__all__]
windows = pytest.mark.parametrize("window", WINDOWS, ids=lambda module: module.__name__)


@windows
def test_every_listed_name_exists(window: ModuleType) -> None:
    assert [] == [name for name in window.__all__ if not hasattr(window, name)]


@windows
def test_the_list_is_sorted_and_names_nothing_twice(window: ModuleType) -> None:
    assert sorted(set(window.__all__)) == list(window.__all__)


@windows
def test_every_name_that_a_window_imports_from_its_rooms_is_listed(window: ModuleType) -> None:
    tree = ast.parse(Path(str(window.__file__)).read_text(encoding="utf-8"))
    imported = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(window.__name__ + ".")
        for alias in node.names
    }

    assert set() == imported - set(window.__all__)


def test_a_package_is_a_window_or_a_single_room() -> None:
    """Only the command line, which nobody imports, has code of its own beside a list."""
    for window in WINDOWS:
        assert Path(str(window.__file__)).name == "__init__.py", window.__name__


@windows
def test_no_private_name_is_in_a_window(window: ModuleType) -> None:
    assert [] == [name for name in window.__all__ if name.startswith("_")]


@pytest.mark.parametrize(("name", "thing"), PUBLIC)
def test_a_public_name_is_the_same_thing_wherever_it_is_listed(name: str, thing: object) -> None:
    assert [] == [
        window.__name__ for window in WINDOWS if name in window.__all__ and getattr(window, name) is not thing
    ]


@pytest.mark.parametrize(("name", "thing"), PUBLIC)
def test_a_public_name_is_defined_in_one_room_under_that_name(name: str, thing: object) -> None:
    if not (inspect.isclass(thing) or inspect.isfunction(thing)):
        return
    home = importlib.import_module(thing.__module__)

    assert (name, thing) == (thing.__name__, getattr(home, name))
    assert home.__name__.startswith("taskharbor.")
    assert not any(part.startswith("_") for part in home.__name__.split("."))


def test_no_two_public_names_are_one_thing() -> None:
    seen: dict[int, str] = {}
    for name in taskharbor.__all__:
        thing = getattr(taskharbor, name)
        assert seen.setdefault(id(thing), name) == name


@pytest.mark.parametrize(("name", "thing"), PUBLIC)
def test_everything_public_has_a_docstring_of_its_own(name: str, thing: object) -> None:
    if not (inspect.isclass(thing) or inspect.isfunction(thing)):
        return

    assert [] == [path for path, member in members(name, thing) if not own_doc(member)]


def members(name: str, thing: object) -> Iterator[tuple[str, object]]:
    yield name, thing
    if not inspect.isclass(thing):
        return
    for member_name, member in vars(thing).items():
        if member_name.startswith("_"):
            continue
        bare: object = getattr(member, "__func__", None)  # of a class or static method
        if inspect.isfunction(bare):
            yield f"{name}.{member_name}", bare
        elif inspect.isfunction(member) or isinstance(member, property):
            yield f"{name}.{member_name}", member


def own_doc(thing: object) -> bool:
    doc = (untyped(thing).__doc__ or "").strip()
    # What a Struct or a dataclass would say by itself is its signature.
    return (
        bool(doc) and not doc.startswith(f"{untyped(thing).__name__}(")
        if hasattr(thing, "__name__")
        else bool(doc)
    )


@pytest.mark.parametrize(("name", "thing"), PUBLIC)
def test_the_first_line_of_a_docstring_is_a_sentence(name: str, thing: object) -> None:
    if not (inspect.isclass(thing) or inspect.isfunction(thing)):
        return
    firsts = [
        (path, (untyped(member).__doc__ or "").strip().split("\n\n")[0])
        for path, member in members(name, thing)
    ]

    assert [] == [path for path, first in firsts if not first.endswith((".", ":", "`"))]


def test_every_module_says_its_duty() -> None:
    assert [] == [module.__name__ for module in modules() if not (module.__doc__ or "").strip()]


@pytest.mark.parametrize(
    "thing",
    [
        taskharbor.Harbor,
        taskharbor.JobHandle,
        taskharbor.Flows,
        taskharbor.Jobs,
        taskharbor.Queues,
        taskharbor.Task,
        taskharbor.Bound,
        taskharbor.Signature,
        taskharbor.Flow,
        taskharbor.FlowHandle,
        taskharbor.Pipeline,
    ],
    ids=lambda thing: thing.__name__,
)
def test_annotations_of_public_classes_can_be_read_at_run_time(thing: type[object]) -> None:
    # What comes with the worker is imported with it, not before: `import taskharbor` has to be quick.
    of_the_worker = {"asyncio": asyncio, **vars(taskharbor.worker)}
    for _, member in members(thing.__name__, thing):
        if inspect.isfunction(member):
            typing.get_type_hints(member, localns=of_the_worker)


def test_the_worker_is_imported_when_it_is_asked_for() -> None:
    program = (
        "import sys, taskharbor; before = {'asyncio', 'taskharbor.worker'} & set(sys.modules);"
        "print(sorted(before), taskharbor.Worker.__name__)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert ended.stdout == "[] Worker\n"


@pytest.mark.parametrize(
    ("blocking", "instead"),
    [
        (cls, name)
        for cls in (
            taskharbor.Flows,
            taskharbor.Jobs,
            taskharbor.Queues,
            taskharbor.JobHandle,
            taskharbor.FlowHandle,
            taskharbor.Signature,
        )
        for name, member in vars(cls).items()
        if inspect.isfunction(member) and not name.startswith("_") and not inspect.iscoroutinefunction(member)
        if name != "then"  # it asks the store nothing
    ],
    ids=str,
)
def test_every_blocking_form_has_an_async_one_with_the_same_parameters(
    blocking: type[object], instead: str
) -> None:
    twin = getattr(blocking, f"a{instead}", None) or getattr(blocking, f"a{instead}_")

    assert inspect.iscoroutinefunction(twin)
    one, other = (inspect.signature(form) for form in (getattr(blocking, instead), twin))
    assert one.parameters == other.parameters
    assert one.return_annotation == other.return_annotation


# --- what it costs


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """The modules that `import taskharbor` brings into a fresh interpreter."""
    program = (
        "import sys, json; before = set(sys.modules); import taskharbor; "
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    return set(json.loads(run_python("-c", program)))


@pytest.mark.parametrize(
    "heavy",
    [
        "typer",
        "click",
        "rich",
        "pydantic",
        "hypothesis",
        "pytest",
        "attr",
        "uvloop",
        "sqlite3",
        "psycopg",
        "redis",
        "taskharbor.cli",
        "taskharbor_conformance",
        # Children are started by those who need them.
        "multiprocessing.connection",
        "multiprocessing.popen_spawn_posix",
        "multiprocessing.pool",
        "multiprocessing.queues",
        "multiprocessing.synchronize",
        "concurrent.futures.process",
        "http.client",
        "difflib",
        "unittest",
    ],
)
def test_importing_does_not_load(loaded: set[str], heavy: str) -> None:
    assert heavy not in loaded


def test_importing_raises_no_warning() -> None:
    assert "" == run_python("-W", "error", "-X", "dev", "-c", "import taskharbor")


def test_importing_prints_nothing_and_starts_no_thread() -> None:
    assert "1\n" == run_python("-c", "import taskharbor, threading; print(threading.active_count())")


def test_importing_leaves_logging_and_signals_alone() -> None:
    program = (
        "import logging, signal; before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM); "
        "import taskharbor; "
        "print(logging.getLogger().handlers, logging.getLogger('taskharbor').level, "
        "before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)))"
    )

    assert "[] 0 True\n" == run_python("-c", program)


def test_every_room_can_be_imported_first() -> None:
    """No import works only because another came before it."""
    names = [module.__name__ for module in modules() if module.__name__.count(".") <= 1]
    program = "\n".join(
        [
            "import importlib, sys",
            f"for name in {names!r}:",
            "    for known in [n for n in sys.modules if n.split('.')[0] == 'taskharbor']: del sys.modules[known]",
            "    importlib.import_module(name)",
        ]
    )

    assert "" == run_python("-c", program)


def test_the_package_is_marked_as_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()
