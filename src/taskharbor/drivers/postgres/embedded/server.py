"""A server shared by the processes that use its folder at the same time."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import threading
from collections.abc import Generator, Mapping
from pathlib import Path
from types import MappingProxyType

from taskharbor.drivers.postgres.embedded.access import conninfo, tcp_conninfo
from taskharbor.drivers.postgres.embedded.cluster import Cluster, StopMode
from taskharbor.drivers.postgres.embedded.folder import Folder
from taskharbor.drivers.postgres.embedded.processes import Postmaster
from taskharbor.errors import StoreUnavailable, TaskHarborError, UnusableStoreError

_NOTHING: Mapping[str, str] = MappingProxyType({})


class Server:
    """A PostgreSQL in a folder. Blocking; for many threads; a forked child has no part in it until it starts it too."""

    def __init__(
        self, folder: Path, *, binaries: Path | None = None, settings: Mapping[str, str] = _NOTHING
    ) -> None:
        """Name it. Touches nothing.

        Args:
            folder: where its files are, made if it is not there; its parent must be.
            binaries: the folder with `postgres` and `initdb`; by default the package's.
            settings: of PostgreSQL, such as `{"fsync": "off"}`, for the one who starts it; while it runs already, they
                do nothing. `{"listen_addresses": "127.0.0.1"}` opens a TCP port, a free one unless `port` names it.

        Raises:
            OptionError: a setting that is not the caller's to make.
        """
        self._folder = Folder(Path(os.path.realpath(folder)))
        self._cluster = Cluster(self._folder, binaries, settings)
        self._lock = threading.RLock()
        self._user: int | None = None
        """Holds the shared lock on `users` while we use it."""
        self._pid = os.getpid()
        """The process that may hold it: a forked child has the descriptor, and no part in it."""

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self._folder.path

    @property
    def log(self) -> Path:
        """The file with what it says."""
        return self._folder.log

    @property
    def running(self) -> bool:
        """Whether it takes connections, whoever started it."""
        return self._cluster.found() is not None

    @property
    def pid(self) -> int:
        """The postmaster's process id.

        Raises:
            StoreUnavailable: it does not run.
        """
        return self._found().pid

    @property
    def conninfo(self) -> str:
        """What to connect to, as a URL: the socket, the role, the database. No password: the system says who we are.

        Raises:
            StoreUnavailable: it does not run.
        """
        return conninfo(self._found())

    @property
    def tcp_conninfo(self) -> str:
        """What to connect to over TCP, as a URL with a password.

        Raises:
            StoreUnavailable: it does not run.
            OptionError: it was not asked to listen there.
        """
        return tcp_conninfo(self._found(), self._folder)

    def start(self) -> str:
        """Use the server: start it unless it runs; return `conninfo`. Idempotent.

        Raises:
            MissingExtraError: PostgreSQL is not installed.
            UnusableStoreError: the folder cannot be used, or is of another version.
            StoreUnavailable: it did not start; the message has the end of its log.
        """
        with self._mine():
            self._cluster.check_programs()
            self._folder.make()
            with self._alone():
                return self._started()

    def stop(self, mode: StopMode = "fast") -> None:
        """Use the server no more: stop it if nobody else uses it. Idempotent.

        Args:
            mode: `fast` ends sessions and writes everything down; `immediate` leaves that to the next start.
        """
        with self._mine():
            if self._user is None:
                return
            try:
                with self._alone():
                    if self._leave():
                        self._cluster.stop(mode)
            except UnusableStoreError:  # the folder was removed, or moved
                if self._leave():
                    self._cluster.kill()

    def restart(self, mode: StopMode = "fast") -> str:
        """Stop the server, whoever uses it, and start it again; return `conninfo`. Raises what `start` does."""
        with self._mine():
            self._folder.make()
            with self._alone():
                self._cluster.stop(mode)
                return self._started()

    def kill(self) -> None:
        """Kill the server with all its processes, whoever uses it, as a crash would. `start` recovers it."""
        self._cluster.kill()

    # --- who uses it

    def _started(self) -> str:
        joined = self._join()
        try:
            self._cluster.start()
            return self.conninfo
        except BaseException as error:
            # After a failure the start may go on, and the next one find the server ready. What was interrupted is not
            # left behind.
            if joined and self._leave() and not isinstance(error, TaskHarborError):
                self._cluster.stop("immediate")
            raise

    def _mine(self) -> threading.RLock:
        """Return the lock between this process's threads; forget first what a parent had before it forked."""
        if self._pid != os.getpid():
            self._pid, self._lock = os.getpid(), threading.RLock()
            if self._user is not None:
                os.close(self._user)  # our copy: the parent's lock stays
                self._user = None
        return self._lock

    @contextlib.contextmanager
    def _alone(self) -> Generator[None]:
        """Hold the lock under which the server starts and stops."""
        fd = self._folder.open("lock", os.O_RDWR)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)  # a child forked meanwhile has a copy
            os.close(fd)

    def _join(self) -> bool:
        """Be a user; return whether we were none before."""
        if self._user is not None:
            return False
        self._user = self._folder.open("users", os.O_RDWR)
        fcntl.flock(self._user, fcntl.LOCK_SH)  # at once: exclusively it is taken under the other lock only
        atexit.register(self.stop)
        return True

    def _leave(self) -> bool:
        """Be a user no more; return whether we were the last one."""
        fd, self._user = self._user, None
        if fd is None:
            return False
        atexit.unregister(self.stop)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)  # a forked child may have a copy, which would keep it
            os.close(fd)

    def _found(self) -> Postmaster:
        found = self._cluster.found()
        if found is None:
            raise StoreUnavailable(f"the PostgreSQL in {self.folder} does not run; start() starts it")
        return found
