"""`make demo`: what it shows is real, what it says to try works, and nothing that ends it leaves a process behind."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from tests.fixtures.support import ROOT, SOURCES, run_python

if sys.platform == "win32":
    pytest.skip("the demo sends signals", allow_module_level=True)

EXAMPLES = ROOT / "examples"
FOUR = 4
LIMIT_SECONDS = 100


class Kept(msgspec.Struct):
    """A whole run with `--keep`."""

    out: str
    err: str
    code: int
    folder: Path

    def after(self, command: str) -> str:
        """Return what was printed between a `$` line that begins so, and the next empty line."""
        found = re.search(rf"^\$ {command}.*\n((?:.+\n)*)", self.out, re.MULTILINE)
        assert found is not None, f"no command {command!r} in:\n{self.out}"
        return found[1]


def environment(folder: Path) -> dict[str, str]:
    """Return one in which the demo's directory is made in `folder`, and nothing of this machine's is set."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("TASKHARBOR_")}
    own.pop("COLUMNS", None)
    return own | {"PYTHONPATH": str(SOURCES), "PYTHONIOENCODING": "utf-8", "TMPDIR": str(folder)}


@contextmanager
def demo(
    folder: Path, *arguments: str, examples: Path = EXAMPLES, stdout: int = subprocess.PIPE
) -> Generator[subprocess.Popen[str]]:
    """Start the demo as the leader of a process group, and kill what is left of that at the end."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", str(examples / "quickstart.py"), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.STDOUT if stdout != subprocess.PIPE else subprocess.PIPE,
        encoding="utf-8",
        env=environment(folder),
        cwd=folder,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if group_lives(process.pid):
                os.killpg(process.pid, signal.SIGKILL)


def group_lives(leader: int) -> bool:
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    folder = tmp_path_factory.mktemp("demo")
    with demo(folder, "--keep") as process:
        out, err = process.communicate(timeout=LIMIT_SECONDS)
    (own,) = folder.iterdir()
    return Kept(out, err, process.returncode, own)


def test_it_ends_well_and_warns_of_nothing(kept: Kept) -> None:
    assert (0, "") == (kept.code, kept.err), kept.out
    assert "\nAll as it should be.\n" in kept.out


def test_it_starts_a_worker_and_another_when_that_was_killed(kept: Kept) -> None:
    killed = re.search(r"^\$ kill -KILL (?P<pid>\d+)$", kept.out, re.MULTILINE)
    drained = re.search(r"^\$ kill -TERM (?P<pid>\d+)$", kept.out, re.MULTILINE)

    assert killed is not None
    assert drained is not None
    assert killed["pid"] != drained["pid"]
    assert 2 == len(re.findall(r"^\$ taskharbor worker ", kept.out, re.MULTILINE))
    assert FOUR == len(re.findall(r"worker 2 \| .* was lost with worker ", kept.out))
    assert (
        f"{FOUR} chunks were lost with their worker (WorkerLost) and succeeded in the next one." in kept.out
    )


def test_the_command_line_shows_what_the_killed_worker_held(kept: Kept) -> None:
    _, *jobs = kept.after("taskharbor jobs list --state=running").splitlines()

    assert [["running", "elements.import_chunk"]] * FOUR == [job.split()[1:3] for job in jobs]


def test_the_command_line_shows_the_dead_letter_and_requeues_it(kept: Kept) -> None:
    _, listed = kept.after("taskharbor dlq list").splitlines()
    dead = listed.split()[0]
    shown = kept.after(f"taskharbor jobs show {dead}")

    assert "ValueError: row 87 (Francium): atomic_mass '[223' is no number" in listed
    assert "argument    first = 81\nargument    last = 88\n" in shown
    assert [dead, "requeued"] == kept.after(f"taskharbor dlq requeue {dead}").splitlines()[0].split()
    assert f"Requeued job {dead} succeeded: 8 rows." in kept.out


def test_the_second_worker_drains(kept: Kept) -> None:
    last = kept.after("kill -TERM").splitlines()

    assert "drains" in last[0]
    assert "has stopped" in last[1]
    assert "It ended with exit code 0." == last[2]


def test_there_is_no_bar_where_there_is_no_terminal(kept: Kept) -> None:
    assert "\r" not in kept.out
    assert "\x1b" not in kept.out
    assert "/15" not in kept.out


def test_what_it_says_to_try_works(kept: Kept, tmp_path: Path) -> None:
    copied = "".join(re.findall(r"^    (.+\n)", kept.out.partition("To try:\n")[2], re.MULTILINE))
    script = tmp_path / "copied"
    # `sh`, as POSIX has it, knows aliases in scripts, too.
    script.write_text(copied, encoding="utf-8")

    done = subprocess.run(
        ["sh", "-e", str(script)],
        check=False,
        capture_output=True,
        encoding="utf-8",
        env=environment(tmp_path),
        cwd=tmp_path,
        timeout=LIMIT_SECONDS,
    )

    assert 0 == done.returncode, copied + done.stdout + done.stderr
    assert "elements.import_chunk  (first: int, last: int) -> " in done.stdout
    assert "failed in attempt 1 of 3 with ConnectionError" in done.stderr
    assert not kept.folder.exists()


def test_ctrl_c_on_a_terminal_with_a_bar_leaves_nothing_behind(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    with demo(tmp_path, stdout=theirs) as process:
        os.close(theirs)
        shown = read_until(ours, b" 1 dead, ")
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of the foreground, the worker too
        rest = read_until(ours, None)
        code = process.wait(LIMIT_SECONDS)
        left = group_lives(process.pid)
    os.close(ours)

    assert (130, False) == (code, left), rest
    assert "importing" in shown
    assert "/15" in shown
    assert [] == list(tmp_path.iterdir())


def test_a_terminated_demo_leaves_nothing_behind(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("worker 1 | "):
                break
        process.terminate()
        out, err = process.communicate(timeout=LIMIT_SECONDS)
        left = group_lives(process.pid)

    assert (128 + signal.SIGTERM, False, "") == (process.returncode, left, err), out
    assert [] == list(tmp_path.iterdir())


def test_a_worker_that_cannot_start_is_noticed(tmp_path: Path) -> None:
    examples, folder = tmp_path / "examples", tmp_path / "folder"
    shutil.copytree(EXAMPLES, examples)
    folder.mkdir()
    app = examples / "elements.py"
    app.write_text(
        app.read_text(encoding="utf-8").replace(
            "    yield found\n", '    raise OSError("out of order")\n    yield found\n'
        )
    )

    with demo(folder, examples=examples) as process:
        out, err = process.communicate(timeout=LIMIT_SECONDS)

    assert 1 == process.returncode
    assert "out of order" in out
    assert "the demo went wrong: the worker ended by itself; its log says why\n" == err


@pytest.mark.slow
def test_it_fails_when_a_row_is_missing(tmp_path: Path) -> None:
    examples, folder = tmp_path / "examples", tmp_path / "folder"
    shutil.copytree(EXAMPLES, examples)
    folder.mkdir()
    data = examples / "data" / "elements.csv"
    data.write_text(
        "".join(data.read_text(encoding="utf-8").splitlines(keepends=True)[:-1]), encoding="utf-8"
    )

    with demo(folder, examples=examples) as process:
        _, err = process.communicate(timeout=LIMIT_SECONDS)

    assert (1, "the demo went wrong: expected 118 elements, not 117\n") == (process.returncode, err)


def test_the_transactional_example_stores_both_or_neither() -> None:
    printed = run_python("-W", "error", str(EXAMPLES / "transactional.py"))

    assert [
        "order A-2 is an order of nothing; it was rolled back, and its job with it",
        "1 order, 1 job",
        "order A-1: 12.50 paid",
    ] == printed.splitlines()


def read_until(terminal: int, wanted: bytes | None) -> str:
    """Return what is printed until `wanted` comes, or to the end."""
    shown = b""
    while wanted is None or wanted not in shown:
        try:
            more = os.read(terminal, 1 << 16)
        except OSError:  # Linux's way to say that nobody holds the other end
            more = b""
        if not more:
            assert wanted is None, f"{wanted!r} does not come:\n{shown.decode(errors='replace')}"
            break
        shown += more
    return shown.decode(errors="replace")
