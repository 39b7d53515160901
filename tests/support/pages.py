"""A page of the documentation as the tests see it: its blocks, its prose, and the program that it shows.

The conventions stand in `tests/test_docs.py`.
"""

import json
import re
import textwrap
from functools import cache
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parents[2]
MARK = "\x1e"
"""Printed before the output of each block."""

_FENCE = re.compile(r"^(?P<indent> *)```(?P<info>.*)$")
_OWN_FILE = re.compile(r"^(?P<language>\w+) file=(?P<name>\S+)$")
_UNTIL = re.compile(r"^ *<!-- until: (?P<command>\S.*) -->$")


class Block(msgspec.Struct, frozen=True):
    """One fenced block of a page."""

    line: int
    """Of its opening fence, from 1."""
    info: str
    code: str
    before: str
    """The line before its fence."""

    @property
    def runs(self) -> bool:
        return self.info in ("python", "console", "sql run")

    @property
    def file(self) -> str | None:
        """Which file of the repository it is a part of."""
        prefix = "python from="
        return self.info.removeprefix(prefix) if self.info.startswith(prefix) else None

    @property
    def own_file(self) -> str | None:
        """Which file it is, beside the page's program."""
        found = _OWN_FILE.match(self.info)
        return found["name"] if found else None


@cache
def blocks_of(page: Path) -> list[Block]:
    blocks: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    start: int | None = None
    info = ""
    for number, line in enumerate(lines, 1):
        fence = _FENCE.match(line)
        if fence is None:
            continue
        if start is None:
            start, info = number, fence["info"].strip()
            continue
        code = textwrap.dedent("\n".join(lines[start : number - 1]))
        blocks.append(Block(start, info, code, lines[start - 2] if start > 1 else ""))
        start = None
    assert start is None, f"{page.name}:{start}: the block is never closed"
    return blocks


def prose_of(page: Path) -> list[str]:
    """Return the lines outside blocks."""
    inside = False
    prose: list[str] = []
    for line in page.read_text(encoding="utf-8").splitlines():
        if _FENCE.match(line):
            inside = not inside
        elif not inside:
            prose.append(line)
    return prose


def output_after(page: Path, block: Block) -> str | None:
    """Return what the page says that a block prints, or None."""
    blocks = blocks_of(page)
    following = blocks[blocks.index(block) + 1 :]
    return following[0].code if following and following[0].info == "text" else None


def uses_a_shell(page: Path) -> bool:
    return any(block.info == "console" for block in blocks_of(page))


def program_of(page: Path) -> str:
    """Return the blocks that run as one program, each on the lines that it has in the page."""
    lines: list[str] = []
    for block in blocks_of(page):
        if block.runs:
            lines.extend([""] * (block.line - 1 - len(lines)))
            lines.append(f"print({MARK!r} '{block.line}', flush=True)")
            lines.extend(_statements(block))
    return "\n".join(lines) + "\n"


def _statements(block: Block) -> list[str]:
    if block.info == "python":
        return block.code.splitlines()
    if block.info == "sql run":
        return [f"__import__('tests.support.console').support.console.query({block.code!r})"]
    until = _UNTIL.match(block.before)
    told = json.dumps([block.code, until["command"] if until else ""])
    return [f"__import__('tests.support.console').support.console.show(*{told})"]
