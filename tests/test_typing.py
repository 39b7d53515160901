"""Four type checkers read `tests/typing` and must agree: what is accepted, what is refused, what is revealed.

The files there are never run. In `refused_*.py` each line marked `# E` must have an error from every checker, and no
other line may have one. Each checker runs once, strict, over all files, side by side with the others.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

ROOT = Path(__file__).resolve().parent.parent
CASES = Path("tests/typing")
ACCEPTED = {
    "calls": (CASES / "tasks.py", CASES / "accepted.py"),
    "batches": (CASES / "accepted_batches.py",),
    "workflows": (CASES / "accepted_workflows.py",),
    "events": (CASES / "accepted_events.py",),
    "limits": (CASES / "accepted_limits.py",),
    "middleware": (CASES / "accepted_middleware.py",),
    "payloads": (CASES / "accepted_payloads.py",),
    "testing": (CASES / "accepted_testing.py",),
    "unique": (CASES / "accepted_unique.py",),
}
REFUSED = {
    "calls": CASES / "refused_calls.py",
    "batches": CASES / "refused_batches.py",
    "workflows": CASES / "refused_workflows.py",
    "events": CASES / "refused_events.py",
    "limits": CASES / "refused_limits.py",
    "middleware": CASES / "refused_middleware.py",
    "payloads": CASES / "refused_payloads.py",
    "testing": CASES / "refused_testing.py",
    "unique": CASES / "refused_unique.py",
}
REVEALED = CASES / "revealed.py"
FILES = (*(file for group in ACCEPTED.values() for file in group), *REFUSED.values(), REVEALED)

# The oldest Python we serve: all checkers judge by it, whichever runs them.
PYTHON = "3.11"
# Where imports are found, whether or not the package is installed.
PATHS = (str(ROOT), str(ROOT / "src"), str(ROOT / "conformance"))

MARK = re.compile(r"#\s*E\s*$")
# What a checker says beside the point: a marked line with nothing else is not refused. Such words follow from a
# refusal (the type is unknown then), or find fault with how a case is written.
BESIDE = re.compile(r"reportUnknown|reportUnused|unused-|implicit-any")


class Finding(NamedTuple):
    """One line of a checker's report."""

    file: Path
    line: int
    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: [{self.code}] {self.message}"


class Report(NamedTuple):
    """What one checker said."""

    version: str
    errors: Sequence[Finding]
    revealed: Sequence[Finding]


class Checker(NamedTuple):
    """How a checker is run, and how its report is read."""

    arguments: Callable[[Path], Sequence[str]]
    """The command's arguments; any configuration of its own goes to the given folder."""
    read: Callable[[str], Iterator[tuple[bool, Finding]]]
    """Yield each finding, and whether it only reveals a type."""


# --- mypy ------------------------------------------------------------------------------------------------


class _MypyLine(msgspec.Struct):
    file: str
    line: int
    message: str
    severity: str
    code: str | None = None


def _mypy_arguments(scratch: Path) -> Sequence[str]:
    # Files named on the command line are checked whatever `exclude` says.
    files = map(str, FILES)
    return ["--strict", "--config-file=mypy.ini", f"--cache-dir={scratch / 'mypy'}", "--output=json", *files]


def _mypy_read(output: str) -> Iterator[tuple[bool, Finding]]:
    for line in output.splitlines():
        found = msgspec.json.decode(line, type=_MypyLine)
        revealed = found.message.startswith("Revealed type is ")
        if revealed or found.severity == "error":
            yield revealed, Finding(Path(found.file), found.line, found.code or "", found.message)


# --- basedpyright ----------------------------------------------------------------------------------------


class _PyrightPosition(msgspec.Struct):
    line: int


class _PyrightRange(msgspec.Struct):
    start: _PyrightPosition


class _PyrightFinding(msgspec.Struct):
    file: str
    severity: str
    message: str
    range: _PyrightRange
    rule: str = ""


class _PyrightOutput(msgspec.Struct, rename="camel"):
    general_diagnostics: list[_PyrightFinding]


def _basedpyright_arguments(scratch: Path) -> Sequence[str]:
    config = scratch / "basedpyright.json"
    config.write_text(
        json.dumps(
            {
                "include": [str(ROOT / file) for file in FILES],
                "exclude": [],
                "extraPaths": PATHS,
                "stubPath": str(ROOT / "typings"),
                "pythonVersion": PYTHON,
                "typeCheckingMode": "strict",
                "enableTypeIgnoreComments": False,
                # The cases give a value a name to give it a type.
                "reportUnusedVariable": False,
            }
        )
    )
    return ["--outputjson", "--project", str(config), "--pythonpath", sys.executable]


def _basedpyright_read(output: str) -> Iterator[tuple[bool, Finding]]:
    for found in msgspec.json.decode(output, type=_PyrightOutput).general_diagnostics:
        file = Path(found.file).resolve().relative_to(ROOT)
        finding = Finding(file, found.range.start.line + 1, found.rule, found.message)
        yield found.severity == "information", finding


# --- pyrefly ---------------------------------------------------------------------------------------------


class _PyreflyFinding(msgspec.Struct):
    path: str
    line: int
    name: str
    description: str


class _PyreflyOutput(msgspec.Struct):
    errors: list[_PyreflyFinding]


def _pyrefly_arguments(scratch: Path) -> Sequence[str]:
    config = scratch / "pyrefly.toml"
    # JSON's strings and lists are TOML's too. Nothing is excluded, wherever the repository lies.
    config.write_text(
        f"preset = 'strict'\n"
        f"python-version = {json.dumps(PYTHON)}\n"
        f"python-interpreter-path = {json.dumps(sys.executable)}\n"
        f"search-path = {json.dumps(PATHS)}\n"
        f"project-excludes = []\n"
        f"disable-project-excludes-heuristics = true\n"
        f"use-ignore-files = false\n"
    )
    shown = ["--output-format=json", "--min-severity=info", "--summary=none", "--relative-to", str(ROOT)]
    return ["check", "--config", str(config), *shown, *map(str, FILES)]


def _pyrefly_read(output: str) -> Iterator[tuple[bool, Finding]]:
    for found in msgspec.json.decode(output, type=_PyreflyOutput).errors:
        finding = Finding(Path(found.path), found.line, found.name, found.description)
        yield found.name == "reveal-type", finding


# --- ty --------------------------------------------------------------------------------------------------


class _GitlabPosition(msgspec.Struct):
    line: int


class _GitlabPositions(msgspec.Struct):
    begin: _GitlabPosition


class _GitlabLocation(msgspec.Struct):
    path: str
    positions: _GitlabPositions


class _GitlabFinding(msgspec.Struct):
    check_name: str
    description: str
    location: _GitlabLocation


def _ty_arguments(scratch: Path) -> Sequence[str]:
    config = scratch / "ty.toml"
    config.write_text("")
    return [
        "check",
        "--error=all",
        "--output-format=gitlab",
        "--no-progress",
        f"--config-file={config}",
        f"--python={sys.executable}",
        f"--python-version={PYTHON}",
        *(f"--extra-search-path={path}" for path in PATHS),
        *map(str, FILES),
    ]


def _ty_read(output: str) -> Iterator[tuple[bool, Finding]]:
    for found in msgspec.json.decode(output, type=list[_GitlabFinding]):
        place = found.location
        finding = Finding(Path(place.path), place.positions.begin.line, found.check_name, found.description)
        yield found.check_name == "revealed-type", finding


# --- running them ----------------------------------------------------------------------------------------

CHECKERS = {
    "mypy": Checker(_mypy_arguments, _mypy_read),
    "basedpyright": Checker(_basedpyright_arguments, _basedpyright_read),
    "pyrefly": Checker(_pyrefly_arguments, _pyrefly_read),
    "ty": Checker(_ty_arguments, _ty_read),
}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Report | None]:
    """What each checker said; None for one that is not installed beside this Python."""
    scratch = tmp_path_factory.mktemp("typing")
    with ThreadPoolExecutor(len(CHECKERS)) as pool:
        return dict(zip(CHECKERS, pool.map(_run, CHECKERS, repeat(scratch)), strict=True))


@pytest.fixture(params=list(CHECKERS))
def report(request: pytest.FixtureRequest, reports: Mapping[str, Report | None]) -> Report:
    name = str(request.param)
    found = reports[name]
    if found is None:
        missing = f"{name} is not installed beside {sys.executable}; install the `dev` extra"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return found


def _run(name: str, scratch: Path) -> Report | None:
    command = shutil.which(name, path=sysconfig.get_path("scripts"))
    if command is None:
        return None
    checker = CHECKERS[name]
    version = re.search(r"\d+(\.\d+)+", _output([command, "--version"]))
    errors: list[Finding] = []
    revealed: list[Finding] = []
    for reveals, finding in checker.read(_output([command, *checker.arguments(scratch)])):
        (revealed if reveals else errors).append(finding)
    return Report(version.group() if version else "", errors, revealed)


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=100,
        check=False,
    )
    # 1 says that there were errors; anything else, that it could not check.
    assert done.returncode in (0, 1), (
        f"{command[0]} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    )
    return done.stdout


# --- what they must say ----------------------------------------------------------------------------------


@pytest.mark.parametrize("group", ACCEPTED)
def test_accepted_files_have_no_error(report: Report, group: str) -> None:
    wrong = [finding for finding in report.errors if finding.file in ACCEPTED[group]]
    _expect_none("refused, though right", wrong)


@pytest.mark.parametrize("group", REFUSED)
def test_each_marked_line_is_refused_and_no_other(report: Report, group: str) -> None:
    file = REFUSED[group]
    source = (ROOT / file).read_text(encoding="utf-8")
    statement = _statements(source)
    marked = {statement[line]: line for line in _marks(source)}
    found = [finding for finding in report.errors if finding.file == file]
    refused = {statement[finding.line] for finding in found if not BESIDE.search(finding.code)}

    lines = source.splitlines()
    passed = [f"{file}:{marked[line]}: {lines[line - 1].strip()}" for line in sorted(marked.keys() - refused)]
    _expect_none("accepted, though wrong", passed)
    astray = [finding for finding in found if statement[finding.line] not in marked]
    _expect_none("refused, though not marked", astray)


def test_types_are_revealed_as_told(report: Report) -> None:
    lines = (ROOT / REVEALED).read_text(encoding="utf-8").splitlines()
    told = {
        number: line.split("  # ", 1)[1]
        for number, line in enumerate(lines, 1)
        if line.startswith("reveal_type(")
    }
    errors = [finding for finding in report.errors if finding.file == REVEALED]
    _expect_none("refused, where a type was to be revealed", errors)
    revealed = {
        finding.line: _plain(finding.message) for finding in report.revealed if finding.file == REVEALED
    }
    assert revealed == told


@pytest.mark.parametrize("name", CHECKERS)
def test_the_checkers_are_the_pinned_ones(name: str, reports: Mapping[str, Report | None]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found = reports[name]
    if found is None and not os.environ.get("CI"):
        pytest.skip(f"{name} is not installed beside {sys.executable}")
    assert found is not None
    assert f"{name}=={found.version}" in project["project"]["optional-dependencies"]["dev"]


@pytest.mark.parametrize("group", REFUSED)
def test_refused_files_mark_their_lines(group: str) -> None:
    # A mark written otherwise would be a comment, and its line would be found astray; one that is lost would not.
    source = (ROOT / REFUSED[group]).read_text(encoding="utf-8")
    assert len(_marks(source)) >= 20
    assert len({_statements(source)[line] for line in _marks(source)}) == len(_marks(source))


# --- reading the cases -----------------------------------------------------------------------------------


def _marks(source: str) -> list[int]:
    return [number for number, line in enumerate(source.splitlines(), 1) if MARK.search(line)]


def _statements(source: str) -> dict[int, int]:
    """Return for each line where its statement begins: checkers differ in which line of one they blame.

    Of a statement with a body (a function, a loop), each line before the body stands for itself.
    """
    begins = {number: number for number in range(1, source.count("\n") + 2)}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt) and not hasattr(node, "body"):
            end = node.end_lineno or node.lineno
            begins.update(dict.fromkeys(range(node.lineno, end + 1), node.lineno))
    return begins


def _plain(message: str) -> str:
    """Return the type in a checker's message, spelled alike for all of them."""
    quoted = re.search(r"""(?:Revealed type is| is) "(.*)"$|[Rr]evealed type: `?(.*?)`?$""", message)
    assert quoted, message
    text = str(quoted[1] or quoted[2])
    text = re.sub(r"\b(?:[a-z_]\w*\.)+", "", text)  # modules
    text = text.replace("(", "[").replace(")", "]")
    text = re.sub(r" =(?: [^,\]]+)?", " = ...", text)  # defaults: mypy does not name them
    # Positional-only parameters: mypy leaves out their names, and the slash.
    return re.sub(r"\[([^\[\]]*), /", lambda found: "[" + re.sub(r"\w+: ", "", found[1]), text)


def _expect_none(what: str, findings: Sequence[object]) -> None:
    if findings:
        pytest.fail("\n".join([f"{len(findings)} {what}:", *map(str, findings)]), pytrace=False)
