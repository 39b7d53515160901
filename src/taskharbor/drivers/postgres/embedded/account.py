"""Whom PostgreSQL's programs run as: us, or somebody without rights when we are root."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec

from taskharbor.errors import UnusableStoreError

_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C"}
"""Ours holds secrets that are none of the server's business, and may hold PGDATA, PGOPTIONS and their like."""


class Account(msgspec.Struct, frozen=True):
    """A user of this machine."""

    uid: int
    gid: int
    name: str
    switched: bool
    """We are root, and become this user for PostgreSQL's programs."""

    def run(
        self, command: Sequence[str | Path], *, stderr: int | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end, away from our terminal; what it says is in `stdout`.

        Args:
            command: with absolute paths.
            stderr: a descriptor that takes what it says of errors, by default `stdout` too.
        """
        return subprocess.run(  # noqa: S603 - the programs of the cluster, and no shell
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if stderr is None else stderr,
            text=True,
            errors="replace",
            cwd="/",  # the user may not be allowed where we are
            env=_ENVIRONMENT,
            umask=0o077,
            start_new_session=True,  # Ctrl-C in our terminal is not for the server
            user=self.uid if self.switched else None,
            group=self.gid if self.switched else None,
            extra_groups=[] if self.switched else None,
        )

    def give(self, target: int | Path) -> None:
        """Make it the owner of what we just created: an open file, or an entry in a folder that only we write to."""
        if self.switched:
            os.chown(
                target, self.uid, self.gid, **({} if isinstance(target, int) else {"follow_symlinks": False})
            )

    def may_read(self, *paths: Path) -> bool:
        """Return whether it may read these files."""
        check = 'for path; do [ -r "$path" ] || exit 1; done'
        return not self.switched or self.run(["/bin/sh", "-c", check, "sh", *paths]).returncode == 0

    def may_enter(self, folder: Path) -> bool:
        """Return whether it may work in a folder that it cannot list."""
        return not self.switched or self.run(["/bin/sh", "-c", 'cd "$1"', "sh", folder]).returncode == 0


def account_for(*owned: Path) -> Account:
    """Return whom to run a server as.

    Args:
        owned: for root: the first of these that is there and not root's own says whom; else it is `nobody`.

    Raises:
        UnusableStoreError: that user has no name.
    """
    if os.geteuid() != 0:
        return _account(os.geteuid(), switched=False)
    for path in owned:
        try:
            owner = path.lstat().st_uid
        except OSError:
            continue
        if owner != 0:
            return _account(owner, switched=True)
    try:
        return _account(pwd.getpwnam("nobody").pw_uid, switched=True)
    except KeyError:
        raise UnusableStoreError(
            "PostgreSQL refuses to run as root, and this system has no user 'nobody' to run it as; add one (useradd "
            "--system nobody), or run as another user"
        ) from None


def _account(uid: int, *, switched: bool) -> Account:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise UnusableStoreError(
            f"the user with the id {uid} has no name on this system (no line in /etc/passwd), and PostgreSQL works "
            "for named users only; add one (useradd, or in a container a line in /etc/passwd), or use another user"
        ) from None
    return Account(uid, entry.pw_gid, entry.pw_name, switched)
