"""Whatever README and docs show is run, and prints what they say; whatever they point to is there.

The conventions, for who writes a page:

- What a page runs is one program, in order, top to bottom, in a process and a directory of its own. Line numbers in
  its tracebacks are those of the page.
- ```python: a part of that program.
- ```console: `$ commands`, each followed by what it prints, carried out at their place by one shell. `taskharbor` and
  `python` are those under test. Ids of jobs, times and process ids may be any; see `tests/support/console.py`. A line
  before the block, <!-- until: COMMAND -->, waits until that command succeeds. `REWRITE_PAGES=1 pytest -k PAGE` writes
  anew what such a block tells wrongly.
- ```sql run: queries on the page's only *.db file, without the right to write.
- ```python file=NAME: a file in the page's directory. It is there from the beginning, to be imported. ```toml file=NAME
  and the like: to be read.
- ```python from=PATH: the block stands in that file of the repository, word for word. The file is run instead.
- ```python no-run: only compiled. The line before says why: <!-- no-run: REASON -->.
- A ```text block that is the next after a Python or SQL block is what that prints. `...` stands for anything.

The programs and the files are also checked by mypy --strict: they are what users copy.
"""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from functools import cache
from pathlib import Path

import pytest

import taskharbor
from taskharbor import JobState, TaskHarborError, WorkerSettings
from tests.support.pages import ROOT, blocks_of, output_after, prose_of, uses_a_shell
from tests.support.programs import (
    assert_prints,
    assert_programs_print_what_is_told,
    name_of,
    output_of_example,
    write_program,
)

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

NO_RUN = re.compile(r"^ *<!-- no-run: \S.* -->$")
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} (?P<title>.+)$")

PROGRAMS = [page for page in PAGES if any(block.runs for block in blocks_of(page))]
FILES = [
    file for page in PAGES for block in blocks_of(page) if (file := block.own_file) and file.endswith(".py")
]


@pytest.mark.parametrize("page", [page for page in PROGRAMS if page.parent.name != "tutorial"], ids=name_of)
def test_the_programs_of_a_page_run_and_print_what_it_says(page: Path, tmp_path: Path) -> None:
    if uses_a_shell(page) and shutil.which("bash") is None:
        pytest.skip("this page shows a terminal, and there is no bash here")
    assert_programs_print_what_is_told(page, tmp_path)


def test_the_programs_are_typed(tmp_path: Path) -> None:
    scripts = [write_program(page, tmp_path) for page in PROGRAMS]
    path = os.pathsep.join(map(str, (ROOT / "typings", ROOT / "src", ROOT / "conformance", tmp_path)))

    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", *map(str, scripts), *FILES],
        check=False,
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "MYPYPATH": path},
        cwd=tmp_path,
    )

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_a_page_shows_of_a_file_stands_there(page: Path) -> None:
    for block in blocks_of(page):
        if block.file is None:
            continue
        file = ROOT / block.file
        source = file.read_text(encoding="utf-8")
        # A block is read without the indentation that all its lines have in common.
        assert any(textwrap.indent(block.code, " " * by) in source for by in (0, 4, 8)), (
            f"{name_of(page)}:{block.line} is not what stands in {block.file}"
        )
        told = output_after(page, block)
        if told is not None:
            assert_prints(page, block, told, output_of_example(file))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_each_block_is_run_or_says_why_not(page: Path) -> None:
    for block in blocks_of(page):
        if block.runs or block.file is not None or block.own_file is not None:
            continue
        if block.info.partition(" ")[0] not in ("python", "console"):
            continue
        where = f"{name_of(page)}:{block.line}"
        assert block.info.endswith(" no-run"), f"{where}: what does {block.info!r} mean?"
        assert NO_RUN.match(block.before), f"{where}: the line before it has to say <!-- no-run: REASON -->"
        if block.info == "python no-run":
            compile(block.code, where, "exec")


@pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
def test_an_example_runs(example: Path) -> None:
    assert output_of_example(example)


def test_the_demo_shows_a_retry_a_dead_letter_and_its_requeue() -> None:
    printed = output_of_example(ROOT / "examples" / "quickstart.py")

    dead = re.search(r"1 dead letter:\s+job\s+(?P<id>\S+)", printed)
    assert "4 chunks failed first (ConnectionError) and succeeded when tried again" in printed
    assert dead is not None
    assert "{'first': 81, 'last': 88}" in printed
    assert "ValueError: row 87 (Francium): atomic_mass '[223' is no number" in printed
    assert f"Requeued job {dead['id']} succeeded" in printed
    assert "All as it should be." in printed


@pytest.mark.parametrize("page", [*PAGES, ROOT / "examples" / "data" / "README.md"], ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    for line in prose_of(page):
        for link in LINK.finditer(line):
            target, _, anchor = link["target"].partition("#")
            if "://" in target or target.startswith("mailto:"):
                continue
            there = page if not target else (page.parent / target).resolve()
            assert there.is_relative_to(ROOT), (
                f"{name_of(page)}: {link['target']} leads out of the repository"
            )
            assert there.exists(), f"{name_of(page)}: {link['target']} leads nowhere"
            if anchor:
                assert anchor in anchors_of(there), f"{name_of(page)}: {link['target']} has no such heading"


@cache
def anchors_of(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    titles = [heading["title"] for line in prose_of(page) if (heading := HEADING.match(line))]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_error_has_its_place_on_the_page() -> None:
    page = (ROOT / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    public = [getattr(taskharbor, name) for name in taskharbor.__all__]
    errors = [kind for kind in public if isinstance(kind, type) and issubclass(kind, BaseException)]

    assert TaskHarborError in errors
    assert [] == [kind.__name__ for kind in errors if kind.__name__ not in page]


def test_every_state_and_setting_has_its_line() -> None:
    lifecycle = (ROOT / "docs" / "reference" / "job-lifecycle.md").read_text(encoding="utf-8")
    settings = (ROOT / "docs" / "how-to" / "embed-a-worker.md").read_text(encoding="utf-8")

    assert [] == [state for state in JobState if f"\n| `{state}` | " not in lifecycle]
    assert [] == [name for name in WorkerSettings.__struct_fields__ if f"\n| `{name}` | " not in settings]


def test_the_semantics_are_numbered_from_1_to_23() -> None:
    page = ROOT / "docs" / "semantics.md"

    numbers = [int(found[1]) for line in prose_of(page) if (found := re.match(r"## (\d+)\. ", line))]

    assert list(range(1, 27)) == numbers


def test_every_page_can_be_reached() -> None:
    index = {ROOT / "docs" / "index.md", ROOT / "docs" / "adr" / "README.md", ROOT / "README.md"}
    linked = {
        (page.parent / link["target"].partition("#")[0]).resolve()
        for page in index
        for line in prose_of(page)
        for link in LINK.finditer(line)
    }

    lonely = [name_of(page) for page in PAGES if page not in linked | index]
    assert [] == lonely, f"link them from docs/index.md: {lonely}"
