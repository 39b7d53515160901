"""Running what a page of the documentation shows, and comparing what it prints with what the page says.

The conventions stand in `tests/test_docs.py`.
"""

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

from tests.support.pages import MARK, ROOT, Block, blocks_of, output_after, program_of

# docs/driver-contract.md shows how somebody else's driver looks; here it is the memory driver by another name.
_STRANGER = """
from taskharbor.drivers.memory import MemoryDriver

class AcmeDriver(MemoryDriver):
    def __init__(self, *place: object) -> None:
        super().__init__()
"""


def run(script: Path, *more_path: Path, page: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """Run a script; one that shows a `page` may rewrite what that tells of a terminal (`tests/support/console.py`)."""
    path = [*more_path, ROOT / "src", ROOT / "conformance", ROOT, os.environ.get("PYTHONPATH", "")]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TASKHARBOR_")}
    environment |= {
        "PYTHONPATH": os.pathsep.join(str(folder) for folder in path if str(folder)),
        "PYTHONIOENCODING": "utf-8",
        "COLUMNS": "120",
    }
    if page is not None and "REWRITE_PAGES" in os.environ:
        environment["PAGE_TO_REWRITE"] = str(page)
    return subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        check=False,
        capture_output=True,
        encoding="utf-8",
        env=environment,
        cwd=script.parent,
        timeout=110,
    )


@cache
def output_of_example(file: Path) -> str:
    done = run(file)
    assert done.returncode == 0, f"{file.name} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def assert_prints(page: Path, block: Block, told: str, printed: str) -> None:
    pattern = ".*?".join(re.escape(part) for part in told.strip().split("..."))
    assert re.fullmatch(pattern, printed.strip(), re.DOTALL), (
        f"{page.relative_to(ROOT)}:{block.line} does not print what the page says\n"
        f"--- the page says:\n{told.strip()}\n--- it prints:\n{printed.strip()}"
    )


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def write_program(page: Path, folder: Path) -> Path:
    """Write what a page shows as a script, with the files beside it, and return its path."""
    (folder / "taskharbor_acme").mkdir(exist_ok=True)
    (folder / "taskharbor_acme" / "__init__.py").touch()
    (folder / "taskharbor_acme" / "driver.py").write_text(_STRANGER, encoding="utf-8")
    for block in blocks_of(page):
        if block.own_file is not None:
            (folder / block.own_file).write_text(block.code + "\n", encoding="utf-8")
    script = folder / f"{page.stem.lower().replace('-', '_')}.py"
    script.write_text(program_of(page), encoding="utf-8")
    return script


def assert_programs_print_what_is_told(page: Path, folder: Path) -> None:
    """Run all that a page runs, in a folder of its own."""
    script = write_program(page, folder)

    done = run(script, folder, page=page)

    assert done.returncode == 0, f"{name_of(page)}:\n{done.stdout}\n{done.stderr}"
    printed = dict(part.split("\n", 1) for part in done.stdout.split(MARK)[1:])
    for block in blocks_of(page):
        told = output_after(page, block)
        if block.runs and told is not None:
            assert_prints(page, block, told, printed[str(block.line)])
