"""Finding the user's application: from `module:attr` or `path/to/file.py:attr` to a Harbor.

A file is imported under its module name, not run as a script: its tasks then bear the names that they have elsewhere.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
import sysconfig
import traceback
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import cast

from taskharbor.errors import DeploymentError, nearest
from taskharbor.harbor import Harbor

_PACKAGE = str(Path(__file__).resolve().parents[1])


def load(app: str, *, beside: Path | None = None) -> Harbor:
    """Return the application's harbor.

    Args:
        app: what names it.
        beside: a folder that its modules may lie in, besides the working directory: that of the file which names it.

    Raises:
        DeploymentError: it cannot be imported, or holds no Harbor; says which module, which line of it, and what there
            is instead.
    """
    place, attribute = _split(app)
    if beside is not None:
        _make_importable(beside)
    module = _imported(app, place)
    return _the_harbor_of(app, module) if not attribute else _harbor_at(app, module, attribute)


def _split(app: str) -> tuple[str, str]:
    """Return the module or file, and the name in it; "" where none is given."""
    place, colon, attribute = app.rpartition(":")
    if not colon or any(mark in attribute for mark in "/\\"):  # the colon of C:\app.py
        return app, ""
    if not place or not all(part.isidentifier() for part in attribute.split(".")):
        raise DeploymentError(f"--app {app!r}: expected module:harbor, module, or path/to/file.py:harbor")
    return place, attribute


def _imported(app: str, place: str) -> ModuleType:
    if place.endswith(".py") or "/" in place or "\\" in place:
        return _imported_file(app, Path(place))
    if not all(part.isidentifier() for part in place.split(".")):
        raise DeploymentError(f"--app {app!r}: {place!r} is no module name; expected module:harbor")
    _make_importable(Path.cwd())
    return _import(app, place)


def _imported_file(app: str, file: Path) -> ModuleType:
    if not file.is_file():
        raise DeploymentError(f"--app {app!r}: there is no file {str(file.absolute())!r}")
    file = file.resolve()
    folder, name = file.parent, file.stem
    while (folder / "__init__.py").is_file():  # in a package: its relative imports need the whole name
        folder, name = folder.parent, f"{folder.name}.{name}"
    name = name.removesuffix(".__init__")
    if not all(part.isidentifier() for part in name.split(".")):
        raise DeploymentError(
            f"--app {app!r}: {name!r} is no name that can be imported, by workers' children too; rename the file"
        )
    _make_importable(folder)
    module = _import(app, name)
    there = module.__file__
    if there is None or not file.samefile(there):
        raise DeploymentError(
            f"--app {app!r}: a module named {name!r} is there already, from {there or 'the interpreter'}; rename the "
            "file"
        )
    return module


def _make_importable(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _import(app: str, name: str) -> ModuleType:
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # whatever the user's code raises when it is imported
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            raise DeploymentError(f"--app {app!r}: {_not_found(name, error.name)}") from error
        raise DeploymentError(f"--app {app!r}: {name!r} cannot be imported: {_told(error)}") from error


def _not_found(name: str, missing: str) -> str:
    parent, _, leaf = missing.rpartition(".")
    if not parent:
        known = [found.name for found in pkgutil.iter_modules([str(Path.cwd())])]
        return f"there is no module {missing!r}, in {Path.cwd()} or elsewhere on the path{nearest(missing, known)}"
    package = sys.modules.get(parent)
    path = cast("list[str] | None", getattr(package, "__path__", None))
    if path is None:
        return f"{parent!r} is a module, so there is no {name!r}; did you mean {parent}:{leaf}?"
    return f"there is no module {leaf!r} in {parent!r}{nearest(leaf, [m.name for m in pkgutil.iter_modules(path)])}"


def _told(error: BaseException) -> str:
    """Return what was raised, and by which line of the user's."""
    told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg} ({error.filename}, line {error.lineno})"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<frozen", _PACKAGE)) and "importlib" not in frame.filename
    ]
    libraries = (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"))
    own = [frame for frame in frames if not frame.filename.startswith(libraries)] or frames
    if not own:
        return told
    return f"{told} ({own[-1].filename}, line {own[-1].lineno}: {own[-1].line or ''})"


def _harbor_at(app: str, module: ModuleType, attribute: str) -> Harbor:
    try:
        found = cast("object", reduce(getattr, attribute.split("."), module))
    except AttributeError as error:
        hint = nearest(attribute, _candidates(module)) or _what_there_is(module)
        raise DeploymentError(f"--app {app!r}: {module.__name__!r} has no {attribute!r}{hint}") from error
    if isinstance(found, Harbor):
        return found
    if not callable(found):
        raise DeploymentError(
            f"--app {app!r}: {attribute!r} is a {type(found).__name__}; expected a Harbor, or a function without "
            f"arguments that returns one{_what_there_is(module)}"
        )
    return _made(app, attribute, found)


def _made(app: str, attribute: str, make: Callable[..., object]) -> Harbor:
    try:
        inspect.signature(make).bind()
    except (TypeError, ValueError) as error:
        raise DeploymentError(
            f"--app {app!r}: {attribute!r} cannot be called without arguments ({error}); expected a Harbor, or a "
            "function without arguments that returns one"
        ) from error
    try:
        made = make()
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise DeploymentError(f"--app {app!r}: {attribute}() raised {_told(error)}") from error
    if not isinstance(made, Harbor):
        if inspect.iscoroutine(made):
            made.close()
        raise DeploymentError(
            f"--app {app!r}: {attribute}() returned a {type(made).__name__}; expected a Harbor"
        )
    return made


def _harbors_of(module: ModuleType) -> dict[str, Harbor]:
    return {name: found for name, found in vars(module).items() if isinstance(found, Harbor)}


def _candidates(module: ModuleType) -> list[str]:
    """Return names that may have been meant: Harbors, and the module's own functions, which may make one."""
    own = [
        name
        for name, found in vars(module).items()
        if inspect.isfunction(found) and found.__module__ == module.__name__ and not name.startswith("_")
    ]
    return [*_harbors_of(module), *own]


def _what_there_is(module: ModuleType) -> str:
    names = ", ".join(f"{module.__name__}:{name}" for name in sorted(_harbors_of(module)))
    return f"; there is {names}" if names else f"; there is no Harbor in {module.__name__!r}"


def _the_harbor_of(app: str, module: ModuleType) -> Harbor:
    harbors = _harbors_of(module)
    if not harbors:
        raise DeploymentError(
            f"--app {app!r}: there is no Harbor in {module.__name__!r}; name what makes one, as "
            f"{module.__name__}:make_harbor, or the module that holds one"
        )
    if len({id(harbor) for harbor in harbors.values()}) > 1:
        raise DeploymentError(
            f"--app {app!r}: there are several Harbors in {module.__name__!r}; say which: "
            + " or ".join(f"{module.__name__}:{name}" for name in sorted(harbors))
        )
    return next(iter(harbors.values()))
