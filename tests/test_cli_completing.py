"""Shell completion: installed for each shell, and offering names that the application and the store know."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskharbor.cli.entry import run
from tests.fixtures.cli import Shop, shops
from tests.fixtures.support import SOURCES


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shop]:
    yield from shops(monkeypatch, capsys)


def offered(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], typed: str
) -> list[str]:
    """Return what bash is told when Tab is pressed at the end of a line."""
    words = f"taskharbor --app {shop.app} {typed}"
    monkeypatch.setenv("_TASKHARBOR_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - (not words.endswith(" "))))
    capsys.readouterr()
    run([])
    return capsys.readouterr().out.split()


def test_commands_tasks_queues_states_and_ids_are_offered(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with shop.harbor:
        job = shop.send.options(queue="letters").enqueue("a").id

    def offers(typed: str) -> list[str]:
        return offered(shop, monkeypatch, capsys, typed)

    assert ["list", "show"] == sorted(set(offers("dlq ")) & {"list", "show", "watch"})
    assert ["row.load", "row.skip"] == offers("dlq list --task row")
    assert {"mail", "letters", "default"} == set(offers("queues pause "))
    assert ["mail,letters"] == offers("jobs list --queue mail,l")
    assert ["scheduled", "succeeded"] == sorted(offers("jobs list --state s"))
    assert [job] == offers("jobs watch ")
    assert [job] == offers(f"jobs show {job[:8]}")


def test_what_goes_wrong_offers_nothing_and_makes_nothing(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "nowhere.db"

    assert [] == offered(
        shop, monkeypatch, capsys, f"--app no.such:harbor --url sqlite:///{file} queues pause "
    )
    assert [] == offered(shop, monkeypatch, capsys, f"jobs watch --url sqlite:///{file} ")
    assert not file.exists()


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_completion_is_installed_for_bash_and_works_there(tmp_path: Path) -> None:
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    command = bin_ / "taskharbor"
    command.write_text(
        f'#!{sys.executable}\nimport sys\nfrom taskharbor.cli import main\nsys.argv[0] = "taskharbor"\nmain()\n',
        encoding="utf-8",
    )
    command.chmod(0o755)
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(SOURCES),
        "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1",
    }
    script = """
taskharbor --install-completion bash >installed || exit 1
source ~/.bashrc
complete -p taskharbor
COMP_WORDS=(taskharbor que); COMP_CWORD=1; COMP_LINE="taskharbor que"; COMP_POINT=${#COMP_LINE}
_taskharbor_completion taskharbor
echo "offered: ${COMPREPLY[*]}"
"""

    ended = subprocess.run(
        ["bash", "--noprofile", "--norc", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert "offered: queues" in ended.stdout, ended.stdout + ended.stderr
    assert "taskharbor" in (tmp_path / "installed").read_text(encoding="utf-8")


def test_commands_of_a_group_that_lists_by_itself_workers_and_scopes_are_offered(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.harbor.limits.set("queue:bulk", max_running=1)

    assert {"list", "pause", "resume"} <= set(offered(shop, monkeypatch, capsys, "tasks "))
    assert ["mail.send"] == offered(shop, monkeypatch, capsys, "tasks pause mai")
    assert ["row.load"] == offered(shop, monkeypatch, capsys, "tasks list row.l")
    assert {"queue:bulk", "queue:mail", "task:mail.send"} <= set(
        offered(shop, monkeypatch, capsys, "limits set ")
    )
    with shop.harbor.worker_thread(queues=["elsewhere"]):
        (worker,) = shop.harbor.workers.list()
        assert [worker.worker] == offered(shop, monkeypatch, capsys, "workers drain ")
