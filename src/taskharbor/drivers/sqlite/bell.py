"""Wake-ups, in this process and across processes, without polling quickly.

Whoever waits for jobs makes a named pipe of its own in a directory beside the file; whoever commits a change writes a
few bytes to each pipe there, which wakes a thread of the waiting process. A pipe that nobody reads any more is removed
by the first who notices. Where there are no named pipes, on Windows and on some file systems, or where a commit is not
ours to follow (`harbor.using`), the same thread notices commits by SQLite's `data_version`, which it looks at some
times a second (https://www.sqlite.org/pragma.html#pragma_data_version).

Wake-ups are hints: nothing is lost with one, and one too many does no harm.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import sqlite3
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Sequence

from taskharbor.driver import Wake
from taskharbor.drivers.sqlite.connection import open_watch
from taskharbor.drivers.sqlite.forks import Steady
from taskharbor.drivers.sqlite.place import Place
from taskharbor.drivers.sqlite.routine import Wakes
from taskharbor.job import new_token

logger = logging.getLogger("taskharbor.sqlite")

QUEUES, JOBS = "q", "j"
_LOOK_SECONDS = 0.05
"""How often commits are looked for that rang no bell."""
_LOOK_OFTEN_SECONDS = 0.01
"""The same where bells cannot be rung."""
_FIRST_LOOK_SECONDS = 1.0
"""How long the first of those looks is waited for. It takes a millisecond."""
_WORD = 4
"""Bytes of one ring: the queue's checksum."""
_READ = 4096
_TICK_NS = 100_000_000


class Bell:
    """One driver's part: its own waiting callbacks, and ringing for those of others."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._folder = os.path.realpath(place.path) + "-wake"  # one for all names of the file
        self._forget()

    def _notice_fork(self) -> None:
        if self._pid != os.getpid():
            self._forget()

    def _forget(self) -> None:
        """Begin anew: a forked child has none of its parent's threads and pipes."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._watchers: dict[str, dict[str, list[Wake]]] = {QUEUES: {}, JOBS: {}}
        self._ear: _Ear | None = None
        self._ropes = _Ropes(self._folder)

    def subscribe(self, kind: str, names: Sequence[str], wake: Wake) -> Callable[[], None]:
        """Call `wake` when one of these may have changed, and return what ends that."""
        self._notice_fork()
        watchers = self._watchers[kind]
        with self._lock:
            for name in names:
                watchers.setdefault(name, []).append(wake)
            if self._ear is None:
                self._ear = _Ear(self._place, self._folder, self._heard)
            self._ear.open(kind)

        def remove() -> None:
            with self._lock:
                for name in names:
                    left = watchers.get(name, [])
                    if wake in left:
                        left.remove(wake)
                    if not left:
                        watchers.pop(name, None)

        return remove

    def ring(self, wakes: Wakes) -> None:
        """Wake whom a commit concerns, here and elsewhere. Never fails: what was committed stays so."""
        self._notice_fork()
        if wakes.queues:
            self._call(QUEUES, wakes.queues)
            self._ropes.pull(QUEUES, b"".join(_word(queue) for queue in wakes.queues), self._own(QUEUES))
        if wakes.jobs:
            if self._watchers[JOBS]:
                self._call(JOBS, wakes.jobs)
            self._ropes.pull(JOBS, bytes(_WORD), self._own(JOBS))

    def wake_everybody(self, kind: str = QUEUES) -> None:
        """Wake all who wait in this process: time has jumped, or something was committed elsewhere."""
        self._notice_fork()
        with self._lock:
            wakes = [wake for waiting in self._watchers[kind].values() for wake in waiting]
        _wake_all(wakes)

    def close(self) -> None:
        """End the thread and remove the pipes. Idempotent; a later subscription begins anew."""
        self._notice_fork()
        with self._lock:
            ear, self._ear = self._ear, None
        if ear is not None:
            ear.close()
        self._ropes.close()

    def _own(self, kind: str) -> str | None:
        ear = self._ear
        return None if ear is None else ear.names.get(kind)

    def _call(self, kind: str, names: Iterable[str]) -> None:
        watchers = self._watchers[kind]
        with self._lock:
            wakes = [wake for name in names for wake in watchers.get(name, ())]
        _wake_all(wakes)

    def _heard(self, words: set[bytes] | None, *, jobs: bool) -> None:
        """Wake those concerned by rings from elsewhere; None stands for a commit that nobody rang for."""
        if jobs or words is None:
            self.wake_everybody(JOBS)
        if words is None:
            self.wake_everybody()
        elif words:
            with self._lock:
                queues = list(self._watchers[QUEUES])
            self._call(QUEUES, [queue for queue in queues if _word(queue) in words])


def _wake_all(wakes: Iterable[Wake]) -> None:
    for wake in wakes:
        try:
            wake()
        except Exception:
            # Theirs; the others shall be woken all the same, and what was committed stays so.
            logger.exception("a wake-up could not be delivered")


def _word(queue: str) -> bytes:
    return zlib.crc32(queue.encode()).to_bytes(_WORD, "big")


class _Ropes:
    """The pipes of others, opened when first rung."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._seen_at = -1
        self._open: dict[str, int] = {}

    def pull(self, kind: str, words: bytes, own: str | None) -> None:
        """Write `words` to each pipe of this kind but our own."""
        if sys.platform == "win32":
            return
        with self._lock:
            self._look()
            for name, pipe in list(self._open.items()):
                if name[0] != kind or name == own:
                    continue
                try:
                    _write(pipe, words[:_READ])
                except BlockingIOError:
                    pass  # it is full: whoever reads it will be awake for a while
                except OSError:  # nobody reads it any more
                    self._drop(name)

    def close(self) -> None:
        """Close them."""
        with self._lock:
            for pipe in self._open.values():
                os.close(pipe)
            self._open.clear()
            self._seen_at = -1

    def _look(self) -> None:
        try:
            changed_at = os.stat(self._folder).st_mtime_ns
        except OSError:
            return
        if changed_at == self._seen_at:
            return
        # The clock of a file system may tick slowly: of what has changed just now, more may come at the same instant.
        self._seen_at = changed_at if time.time_ns() - changed_at > _TICK_NS else -1
        try:
            there = {name for name in os.listdir(self._folder) if name[0] in (QUEUES, JOBS)}
        except OSError:  # gone by now; or another user's: its readers look for commits by themselves
            return
        for name in set(self._open) - there:
            os.close(self._open.pop(name))
        for name in there - set(self._open):
            try:
                self._open[name] = os.open(
                    os.path.join(self._folder, name), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC
                )
            except OSError:  # its reader died
                self._drop(name)

    def _drop(self, name: str) -> None:
        pipe = self._open.pop(name, None)
        if pipe is not None:
            os.close(pipe)
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self._folder, name))


def _write(pipe: int, data: bytes) -> None:
    """Write to a pipe that may have lost its reader, in a program that may have chosen to die of that (SIGPIPE)."""
    if sys.platform == "win32" or signal.getsignal(signal.SIGPIPE) is not signal.SIG_DFL:
        os.write(pipe, data)
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
    try:
        os.write(pipe, data)
    except BrokenPipeError:
        signal.sigtimedwait({signal.SIGPIPE}, 0)  # it waits for this thread, and would come when let in
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Ear:
    """The thread that hears rings from other processes."""

    def __init__(self, place: Place, folder: str, heard: Callable[..., None]) -> None:
        self._place = place
        self._folder = folder
        self._heard = heard
        self.names: dict[str, str] = {}
        self._pipes: dict[int, str] = {}
        self._keep_open: list[int] = []
        self._lock = threading.Lock()
        self._closing = False
        self._stop_read, self._stop_write = os.pipe()
        self._thread = threading.Thread(target=self._main, name="taskharbor-bell", daemon=True)
        self._started = False
        self._looked = threading.Event()

    def open(self, kind: str) -> None:
        """Hear rings of this kind, too."""
        if kind not in self.names:
            self.names[kind] = f"{kind}{os.getpid()}-{new_token():016x}"
            if sys.platform != "win32":
                self._make_pipe(kind)
        if not self._started:
            self._started = True
            self._thread.start()
            # Whoever subscribes looks for jobs next, and then relies on us: what is committed from now on is a change.
            self._looked.wait(_FIRST_LOOK_SECONDS)
        else:
            os.write(self._stop_write, b"+")

    def _make_pipe(self, kind: str) -> None:
        name = self.names[kind]
        # Under a name that nobody rings at first: a pipe without a reader would be removed as a dead one's.
        hidden = os.path.join(self._folder, f".{name}")
        try:
            os.makedirs(self._folder, mode=0o770, exist_ok=True)
            os.mkfifo(hidden, 0o660)
            reading = os.open(hidden, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            # Held open for writing too, or the last writer to leave would make it readable for ever.
            self._keep_open.append(os.open(hidden, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
            os.rename(hidden, os.path.join(self._folder, name))
        except OSError as error:
            logger.info(
                "no named pipes beside %s (%s): commits are looked for instead", self._place.path, error
            )
            return
        with self._lock:
            self._pipes[reading] = kind

    def close(self) -> None:
        """End the thread and remove the pipes."""
        self._closing = True
        os.write(self._stop_write, b".")
        if self._thread is not threading.current_thread():
            self._thread.join()
        for name in self.names.values():
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self._folder, name))
        with contextlib.suppress(OSError):  # others may still wait
            os.rmdir(self._folder)
        for pipe in (*self._pipes, *self._keep_open, self._stop_read, self._stop_write):
            os.close(pipe)

    def _main(self) -> None:
        watch = _DataVersion(self._place)
        try:
            watch.changed()
            self._looked.set()
            while not self._closing:
                self._wait()
                if watch.changed():
                    self._heard(None, jobs=True)
        finally:
            watch.close()

    def _wait(self) -> None:
        with self._lock:
            pipes = dict(self._pipes)
        interval = _LOOK_SECONDS if len(pipes) == len(self.names) else _LOOK_OFTEN_SECONDS
        words: set[bytes] = set()
        jobs = False
        for pipe in _readable([*pipes, self._stop_read], interval):
            with contextlib.suppress(BlockingIOError):
                data = os.read(pipe, _READ)
                if pipe == self._stop_read:
                    continue
                if pipes[pipe] == JOBS:
                    jobs = True
                else:
                    words.update(data[at : at + _WORD] for at in range(0, len(data), _WORD))
        if words or jobs:
            self._heard(words, jobs=jobs)


def _readable(pipes: Sequence[int], timeout: float) -> list[int]:
    if sys.platform == "win32":  # select() takes sockets only there
        threading.Event().wait(timeout)
        return []
    else:  # noqa: RET505 - type checkers read one platform's branch only
        poll = select.poll()
        for pipe in pipes:
            poll.register(pipe, select.POLLIN)
        return [pipe for pipe, _ in poll.poll(timeout * 1000)]


class _DataVersion:
    """Whether anybody has committed since one last looked."""

    def __init__(self, place: Place) -> None:
        self._steady = Steady(lambda: open_watch(place))
        self._seen: tuple[sqlite3.Connection, int] | None = None

    def changed(self) -> bool:
        """Look."""
        try:
            with self._steady as connection:
                ((version,),) = connection.execute("PRAGMA data_version").fetchall()
        except sqlite3.Error:
            return False
        # Versions tell nothing between two connections: with the first look of a second one anything may have changed.
        seen, self._seen = self._seen, (connection, int(version))
        return seen is not None and seen != self._seen

    def close(self) -> None:
        """Close its connection."""
        self._steady.close()
