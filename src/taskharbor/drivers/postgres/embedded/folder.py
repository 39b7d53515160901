"""The folder of a server: made, checked, and written to."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from tempfile import gettempdir, mkdtemp
from typing import Final

from taskharbor.drivers.postgres.embedded.account import Account, account_for
from taskharbor.errors import UnusableStoreError

_KNOWN: Final = frozenset(
    {"lock", "users", "making", "socket", "hba.conf", "ident.conf", "password", "server.log", "server.log.1"}
)
_SOCKET_PATH_BYTES: Final = 103
"""The longest on macOS; Linux has 107 (unix(7), sun_path)."""
_SHORT: Final = "taskharbor-pg-"
_TMP: Final = Path("/tmp")  # noqa: S108 - TMPDIR may be long itself, or root's own


class Folder:
    """Where a server's files are."""

    def __init__(self, path: Path) -> None:
        """Name it. Touches nothing."""
        self.path = path
        self.data = path / "data"
        self.log = path / "server.log"

    def account(self) -> Account:
        """Return whom the server runs as.

        Raises:
            UnusableStoreError: nobody can be found.
        """
        return account_for(self.data, self.path)

    def make(self) -> None:
        """Make the folder, if it is not there, and check that a server can work in it.

        Raises:
            UnusableStoreError: it cannot.
        """
        made = self._make()
        account = self.account()
        if made and account.switched:
            self.path.chmod(0o711)  # whatever our umask is: the server has to get through to its own folders
        if not made and not self.data.exists() and not _KNOWN.issuperset(_names(self.path)):
            raise UnusableStoreError(
                f"the folder {self.path} has files in it that are not an embedded PostgreSQL's; name one that is "
                "empty, or not there yet"
            )
        if not account.may_enter(self.path):
            raise UnusableStoreError(
                f"PostgreSQL refuses to run as root, so it runs as {account.name!r}, who may not enter {self.path}: "
                "this folder or one above it (/root?) is closed to others; use a folder that others may enter, such "
                "as one in /var/lib, or run as an ordinary user"
            )

    def _make(self) -> bool:
        """Return whether it was not there."""
        made = False
        try:
            if not self.path.parent.is_dir():
                raise UnusableStoreError(
                    f"the directory {self.path.parent} does not exist, so {self.path.name} cannot be made in it; "
                    "create it, or correct the URL (three slashes begin a relative path, four an absolute one)"
                )
            self.path.mkdir(0o711 if os.geteuid() == 0 else 0o700)
            made = True
        except FileExistsError:
            pass
        except OSError as error:
            raise UnusableStoreError(f"the folder {self.path} cannot be made: {error.strerror}") from error
        if not self.path.is_dir():
            raise UnusableStoreError(
                f"{self.path} is no folder; an embedded PostgreSQL needs one for its files"
            )
        if not os.access(self.path, os.R_OK | os.W_OK | os.X_OK):
            raise UnusableStoreError(
                f"the folder {self.path} belongs to the user with the id {self.path.stat().st_uid}, and this one "
                f"(uid {os.geteuid()}) may not write in it; run as its owner or as root, or use another folder"
            )
        return made

    def make_private(self, path: Path) -> Path:
        """Make a folder in it that the server's user alone may enter; return it."""
        path.mkdir(0o700)
        path.chmod(0o700)  # whatever our umask is
        self.account().give(path)
        return path

    def open(self, name: str, flags: int) -> int:
        """Open a file in it, making it if need be, the server's user's then. Follows no link.

        Raises:
            UnusableStoreError: it cannot be opened.
        """
        path = self.path / name
        flags |= os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            try:
                return os.open(path, flags)
            except FileNotFoundError:
                fd = os.open(path, flags | os.O_CREAT, 0o600)
                self.account().give(fd)
                return fd
        except OSError as error:
            raise UnusableStoreError(
                f"{path} cannot be opened: {error.strerror}; was it made by another user?"
            ) from error

    def write(self, name: str, text: str) -> Path:
        """Write a file in it anew; return its path."""
        path = self.path / name
        path.unlink(missing_ok=True)
        with open(self.open(name, os.O_WRONLY), "w", encoding="utf-8") as file:
            file.write(text)
        return path

    # --- the socket's

    def make_socket_folder(self, socket_name: str) -> Path:
        """Return the folder for the socket, made if need be.

        Raises:
            UnusableStoreError: none has a path that is short enough, and without commas.
        """
        near = self.path / "socket"
        if _fits(near / socket_name):
            return near if near.is_dir() else self.make_private(near)
        account = self.account()
        for where in (_TMP,) if account.switched else (Path(gettempdir()), _TMP):
            if _fits(where / f"{_SHORT}12345678" / socket_name):
                short = Path(mkdtemp(prefix=_SHORT, dir=where))
                account.give(short)
                return short
        raise UnusableStoreError(
            f"the path of {near} is too long for a socket, or has a comma in it, and TMPDIR's too; use another folder"
        )

    def drop_socket_folder(self, folder: Path) -> None:
        """Remove a socket's folder of which nobody needs to know any more, if it is none of ours here."""
        if folder.name.startswith(_SHORT) and folder.parent in (_TMP, Path(gettempdir())):
            shutil.rmtree(folder, ignore_errors=True)


def _names(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if not name.startswith("binaries-")]


def _fits(path: Path) -> bool:
    # libpq takes a comma for the end of one host's name, and no quotes help.
    return "," not in str(path) and len(os.fsencode(path)) <= _SOCKET_PATH_BYTES
