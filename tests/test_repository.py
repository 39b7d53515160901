"""The repository itself: what it ships, and that no machine's traces are in it."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

import taskharbor
from tests.fixtures.support import ROOT

# Spelt in parts, so that this file does not hold them.
_TOPS = "|".join(["wo" + "rk", "ro" + "ot", "ho" + "me", "Us" + "ers"])
MACHINE_PATHS = re.compile(rf"(?<![\w.~:-])/(?:{_TOPS})/")
REGISTRIES = re.compile(
    "|".join(["py" + r"pi\.org", "pythonhos" + r"ted\.org", "npm" + r"js\.org", "index" + "-url"])
)


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def files() -> list[Path]:
    """Return every file that git tracks, or would if it were added."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("traces", [MACHINE_PATHS, REGISTRIES], ids=["machine paths", "registries"])
def test_no_file_holds_traces_of_a_machine(traces: re.Pattern[str]) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for path in files()
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if traces.search(line)
    ]

    assert [] == found


def test_the_traces_would_be_found() -> None:
    assert MACHINE_PATHS.search("see /" + "ro" + "ot/x")
    assert MACHINE_PATHS.search('"/' + "wo" + 'rk/main"')
    assert not MACHINE_PATHS.search("https://example.org/" + "ho" + "me/x".replace("/x", ""))
    assert REGISTRIES.search("https://files.pythonhos" + "ted.org/")


def test_no_file_is_large_or_binary_by_accident() -> None:
    assert [] == [str(path.relative_to(ROOT)) for path in files() if path.stat().st_size > 1_000_000]


def test_text_ends_with_a_newline_and_has_no_carriage_returns() -> None:
    wrong: list[str] = []
    for path in files():
        data = path.read_bytes()
        text = path.suffix in {".py", ".pyi", ".md", ".toml", ".ini", ".yml", ".yaml"}
        if text and data and (not data.endswith(b"\n") or b"\r" in data):
            wrong.append(str(path.relative_to(ROOT)))

    assert [] == wrong


def test_the_extras_are_those_that_the_docs_promise() -> None:
    extras = project()["project"]["optional-dependencies"]

    promised = {
        "postgres",
        "redis",
        "server",
        "prometheus",
        "opentelemetry",
        "crypto",
        "zstd",
        "yaml",
        "all",
        "dev",
    }
    assert promised | {"conformance", "embedded", "reload"} == set(extras)


def test_all_brings_every_extra_of_a_deployment() -> None:
    extras = project()["project"]["optional-dependencies"]
    (everything,) = extras["all"]
    brought = re.fullmatch(r"taskharbor\[(.*)\]", everything)

    assert brought is not None
    assert set(extras) - {"all", "dev", "conformance", "embedded", "reload"} == set(brought[1].split(","))


def test_the_core_depends_on_little() -> None:
    names = {re.split(r"[<>=\[ ]", line)[0] for line in project()["project"]["dependencies"]}

    assert {"cronsim", "msgspec", "rich", "typer", "typing-extensions"} == names


def test_one_wheel_holds_the_library_the_plugin_for_pytest_and_the_conformance_suite() -> None:
    built = project()["tool"]["hatch"]["build"]

    assert ["src/taskharbor", "src/taskharbor_pytest", "conformance/taskharbor_conformance"] == built[
        "targets"
    ]["wheel"]["packages"]
    for package in built["targets"]["wheel"]["packages"]:
        assert (ROOT / package / "__init__.py").is_file()
        assert (ROOT / package / "py.typed").is_file()


def test_the_sdist_names_only_what_exists_or_is_a_pattern() -> None:
    included = project()["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]

    assert [] == [name for name in included if "*" not in name and not (ROOT / name.lstrip("/")).exists()]


def test_the_console_script_leads_to_the_command_line() -> None:
    assert {"taskharbor": "taskharbor.cli:main"} == project()["project"]["scripts"]


def test_the_licence_and_the_versions_are_named() -> None:
    about = project()["project"]

    assert ("taskharbor", "Apache-2.0", ">=3.11") == (
        about["name"],
        about["license"],
        about["requires-python"],
    )
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    minors = [line.rpartition(" ")[2] for line in about["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert ["3.11", "3.12", "3.13"] == minors


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", "CODE_OF_CONDUCT.md", "SECURITY.md", "CHANGELOG.md", "LICENSE"]
)
def test_the_papers_of_a_project_are_there(name: str) -> None:
    assert (ROOT / name).is_file()


@pytest.mark.parametrize("target", ["demo", "test", "test-full", "check", "bench"])
def test_every_chore_has_a_line_of_help(target: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    assert re.search(rf"^{target}:.* ## \S", makefile, re.MULTILINE)


def test_tests_run_against_this_checkout() -> None:
    """A stale installation elsewhere would be tested instead, and nobody would notice."""
    assert ROOT / "src" / "taskharbor" == Path(taskharbor.__file__).resolve().parent
