"""The demo's other processes: `taskharbor` commands, and workers whose log is shown as it comes."""

import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console
from rich.text import Text

# As the script `taskharbor` does, which may not be on the PATH.
TASKHARBOR = (sys.executable, "-m", "taskharbor.cli")
PATIENCE_SECONDS = 30


class Shell:
    """Runs `taskharbor` in one directory on one application, and shows each line as you would type it."""

    def __init__(self, folder: Path, app: Path, console: Console) -> None:
        self._folder = folder
        self._console = console
        # What you have set for applications of your own is not meant here.
        others = {name: value for name, value in os.environ.items() if not name.startswith("TASKHARBOR_")}
        self._environment: Mapping[str, str] = {**others, "TASKHARBOR_APP": str(app)}
        self.show(f"cd {shlex.quote(str(folder))}")
        self.show(f"export TASKHARBOR_APP={shlex.quote(str(app))}")

    def show(self, line: str) -> None:
        """Print a line as it is typed."""
        self._console.print(f"\n$ {line}", style="bold")

    def run(self, *arguments: str) -> None:
        """Run a command to its end; it prints by itself.

        Raises:
            CalledProcessError: it ended with another code than 0.
        """
        self.show(shlex.join(["taskharbor", *arguments]))
        subprocess.run(  # noqa: S603 - no shell, and nobody's words but the demo's
            [*TASKHARBOR, *arguments], cwd=self._folder, env=self._environment, check=True
        )

    @contextmanager
    def worker(self, name: str, *arguments: str) -> Generator["WorkerProcess"]:
        """Start a worker, to be ended by its `end`; one that still runs when the block ends is killed."""
        self.show(shlex.join(["taskharbor", "worker", *arguments]))
        with subprocess.Popen(  # noqa: S603 - as above
            [*TASKHARBOR, "worker", *arguments],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            cwd=self._folder,
            env=self._environment,
        ) as process:
            try:
                yield WorkerProcess(process, name, self, self._console)
            finally:
                # After a Ctrl-C, say. A kill loses no job, and leaves no process.
                process.kill()


class WorkerProcess:
    """A running worker."""

    def __init__(self, process: "subprocess.Popen[str]", name: str, shell: Shell, console: Console) -> None:
        self._process = process
        self._name = name
        self._shell = shell
        self._console = console
        self._log = threading.Thread(target=self._show_log, name=f"log of {name}", daemon=True)
        self._log.start()

    def runs(self) -> bool:
        """Return whether it has not ended yet."""
        return self._process.poll() is None

    def end(self, how: signal.Signals) -> int:
        """Send it a signal, and return its exit code (minus the signal, if that killed it) once its log is shown.

        Raises:
            TimeoutExpired: it does not end.
        """
        self._shell.show(f"kill -{how.name.removeprefix('SIG')} {self._process.pid}")
        self._process.send_signal(how)
        code = self._process.wait(PATIENCE_SECONDS)
        self._log.join()
        return code

    def _show_log(self) -> None:
        # Read to its end by this thread alone, whatever becomes of the others.
        with suppress(ValueError):  # a demo that is ended in the middle closes it meanwhile
            for line in self._process.stderr or ():
                # A text of its own style: a progress bar, drawn again below, would take over the style of the print.
                self._console.print(Text(f"{self._name} | {line.rstrip()}", style="dim"))
