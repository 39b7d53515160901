"""The web applications of the examples, each in a process of its own: a stop in the middle of a job loses nothing."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from taskharbor import Harbor, JobState, Registry, task
from tests.support.pages import ROOT

# Serves an application on a free port, tells which, and has it know one more task, which runs until a file is there.
SERVER = """
import asyncio, importlib, socket, sys
from datetime import timedelta
from pathlib import Path
import uvicorn
from taskharbor import task

@task(name="gated")
async def gated(gate: str) -> str:
    while not Path(gate).exists():
        await asyncio.sleep(0.01)
    return "passed"

create_app = importlib.import_module(sys.argv[1]).create_app
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
server = uvicorn.Server(uvicorn.Config(create_app(Path(sys.argv[2]), timedelta(milliseconds=50)), log_level="error"))
server.run(sockets=[listener])
listener.close()
"""
WARNING_FREE = (sys.executable, "-W", "error", "-c", SERVER)
PATIENCE_SECONDS = 60.0


def until(true: Callable[[], bool]) -> None:
    """Wait for what another process does, which gives no signal."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < deadline, "never came true"
        time.sleep(0.02)


@contextmanager
def serving(name: str, path: Path) -> Generator[tuple["subprocess.Popen[str]", httpx.Client]]:
    """Serve an example in a process of its own, and stop it as a supervisor does at the end of the block."""
    import_path = os.pathsep.join(str(ROOT / part) for part in ("src", "conformance", "examples"))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TASKHARBOR_")}
    with subprocess.Popen(
        [*WARNING_FREE, name, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env={**environment, "PYTHONPATH": import_path},
        cwd=path.parent,
    ) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            assert port, process.communicate()[1]
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
                yield process, client
            process.send_signal(signal.SIGTERM)
            _, told = process.communicate(timeout=PATIENCE_SECONDS)
        finally:
            process.kill()
    # uvicorn ends well and then, as it should, by the signal that it was sent.
    assert process.returncode in (0, -signal.SIGTERM), told
    assert not re.search(r"Traceback|Warning", told), told


@pytest.mark.parametrize("name", ["fastapi_app", "litestar_app"])
def test_stopping_a_web_application_in_the_middle_of_a_job_loses_nothing(name: str, tmp_path: Path) -> None:
    path, gate = tmp_path / "shop.db", tmp_path / "gate"
    few = Registry()

    @task(registry=few, name="gated")
    async def gated(gate: str) -> str:
        raise NotImplementedError

    with serving(name, path) as (_, client):
        placed = [client.post("/orders", json={"item": "lamp", "cents": 100}).json() for _ in range(3)]
        with Harbor(f"sqlite:///{path}", registry=few) as harbor:
            job = gated.enqueue(str(gate))
            until(lambda: job.status().state is JobState.RUNNING)

    with Harbor(f"sqlite:///{path}", registry=few) as harbor:
        assert [] == harbor.jobs.find(states={JobState.RUNNING, JobState.DEAD})
        assert job.status().state is JobState.READY
        gate.touch()
        with serving(name, path) as (_, client):
            until(lambda: job.status().state is JobState.SUCCEEDED)
            until(lambda: all(harbor.look(order["job"]).state is JobState.SUCCEEDED for order in placed))
            assert job.result() == "passed"
