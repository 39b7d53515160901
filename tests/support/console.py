"""What a page shows of a terminal, carried out: each `$ command` in one shell, its output compared with the page's.

Runs inside the page's own program, in the page's own directory. Times, process ids and workers' names are as they
come. A job's id on the page stands for the one that is printed in its place, wherever it comes again.

With `REWRITE_PAGES=1` in the environment of the tests, what a page tells wrongly is written anew instead: look at what
has changed, and put `...` back where anything may stand.
"""

import atexit
import os
import re
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

_MARK = "\x1e"
_PATIENCE_SECONDS = 60.0
_PAGE = "PAGE_TO_REWRITE"
"""Holds the path of the page, if it is to be rewritten."""
_ID = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"
_VARIES = {
    "time": r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d+)?Z",
    "worker": r"[\w.-]+:\d+:[0-9a-f]{16}",
    "pid": r"\(pid \d+\)",
    "gap": r"\.\.\.",
}
# How bash itself remarks on a background job that was killed; on a terminal it looks different, and comes later.
_REMARK = re.compile(r"^bash: line \d+: +\d+ (Killed|Terminated) .*\n", re.MULTILINE)
_PARTS = re.compile("|".join([f"(?P<id>{_ID})", *(f"(?P<{name}>{form})" for name, form in _VARIES.items())]))


class Shell:
    """One bash, so that what is started in the background can be named later."""

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}
        """Real ids by those on the page."""
        self._written = 0
        """Up to where the page has been rewritten."""
        self._make_commands()
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PATH": f"{Path('bin').absolute()}{os.pathsep}{os.environ['PATH']}"},
            encoding="utf-8",
        )
        atexit.register(self._close)

    def _make_commands(self) -> None:
        Path("bin").mkdir(exist_ok=True)
        for name, arguments in (("taskharbor", "-W error -m taskharbor.cli"), ("python", "-W error")):
            command = Path("bin", name)
            command.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n', encoding="utf-8")
            command.chmod(0o755)

    def run(self, command: str) -> tuple[int, str]:
        """Return a command's exit code and what it printed, errors included."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        for told, real in self._ids.items():
            command = command.replace(told, real)
        self._bash.stdin.write(f"{{ {command}\n}} 2>&1\nprintf '{_MARK}%s\\n' $?\n")
        self._bash.stdin.flush()
        printed = ""
        for line in self._bash.stdout:
            text, mark, code = line.partition(_MARK)
            printed += text
            if mark:
                return int(code), _REMARK.sub("", printed)
        raise AssertionError(f"the shell ended at: {command}\n{printed}")

    def wait_until(self, condition: str) -> None:
        """Run a command again until it ends with 0: a process started in the background gives no signal."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while self.run(condition)[0] != 0:
            assert time.monotonic() < deadline, f"never came true: {condition}"
            time.sleep(0.02)

    def check(self, command: str, told: str, shown: str) -> None:
        """Run a command, and compare what it prints with what the page tells, learning ids from it.

        `shown` is the command as it stands on the page, in one line or in several.
        """
        _, printed = self.run(command)
        met: list[str] = []
        found = re.fullmatch(self._pattern(told.strip(), met), printed.strip(), re.DOTALL)
        if _PAGE in os.environ:
            self._rewrite(Path(os.environ[_PAGE]), shown, told, told if found else printed)
            if found is None:
                return
        assert found is not None, f"$ {command}\n--- the page says:\n{told}\n--- it prints:\n{printed}"
        self._ids.update(zip(met, found.groups(), strict=True))

    def _rewrite(self, page: Path, shown: str, told: str, printed: str) -> None:
        """Put what was printed in the place of what the page tells, with the ids that the page has for them."""
        for mine, real in self._ids.items():
            printed = printed.replace(real, mine)
        printed = "\n".join(line.rstrip() for line in printed.strip("\n").splitlines())
        before = "\n".join(part for part in (f"$ {shown}", told.strip("\n")) if part)
        after = "\n".join(part for part in (f"$ {shown}", printed) if part)
        text = page.read_text(encoding="utf-8")
        start = text.index(before, self._written)  # a command may come twice, but one after the other
        page.write_text(text[:start] + after + text[start + len(before) :], encoding="utf-8")
        self._written = start + len(after)

    def _pattern(self, told: str, met: list[str]) -> str:
        """Return what the output has to match: one group for each id not known yet, which are noted in `met`."""
        pattern, at = "", 0
        for part in _PARTS.finditer(told):
            pattern += re.escape(told[at : part.start()])
            at = part.end()
            name = part.lastgroup or ""
            if name == "gap":
                pattern += ".*?"
            elif name != "id":
                pattern += _VARIES[name]
            elif part[0] in self._ids:
                pattern += re.escape(self._ids[part[0]])
            elif part[0] in met:
                pattern += rf"\{met.index(part[0]) + 1}"
            else:
                met.append(part[0])
                pattern += f"({_ID})"
        # Columns are filled up with blanks that a page need not have at the ends of its lines.
        return re.sub(r"\\\n", r" *\n", pattern + re.escape(told[at:]))

    def _close(self) -> None:
        assert self._bash.stdin is not None
        with self._bash.stdin as commands:
            commands.write("kill $(jobs -p)\nwait\n")
        try:
            self._bash.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._bash.kill()
            self._bash.wait()
        if self._bash.stdout is not None:
            self._bash.stdout.close()


_shell: Shell | None = None


def show(block: str, until: str) -> None:
    """Carry out a console block, once the command `until` has ended well (if there is one)."""
    global _shell  # noqa: PLW0603 - one for the page
    _shell = _shell or Shell()
    if until:
        _shell.wait_until(until)
    command: str | None = None
    shown = ""
    told: list[str] = []
    for line in [*block.splitlines(), "$ "]:
        if command is not None and command.endswith("\\") and not told:
            command = command[:-1] + line.strip()
            shown += f"\n{line}"
        elif line.startswith("$ "):
            if command is not None:
                _shell.check(command, "\n".join(told), shown)
            command = shown = line.removeprefix("$ ")
            told = []
        else:
            told.append(line)


def query(sql: str) -> None:
    """Run queries on the page's database, which they cannot change, and print their rows."""
    (file,) = Path().glob("*.db")
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    for statement in sql.split(";"):
        for row in connection.execute(statement):
            print(*("" if cell is None else cell for cell in row), sep=" | ")
    connection.close()
