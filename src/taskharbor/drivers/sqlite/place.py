"""Where the file is, what its URL says, and whether SQLite can keep its promises there."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from urllib.parse import parse_qsl, unquote

import msgspec

from taskharbor.errors import DriverURLError, UnusableStoreError, nearest, redacted

_SETTINGS = ("busy_timeout", "network")
_USAGE = (
    "expected sqlite:///relative/path.db or sqlite:////absolute/path.db, with ?busy_timeout=SECONDS and "
    "?network=allow if need be"
)
_NETWORK = frozenset(
    {"afs", "afp", "beegfs", "ceph", "cifs", "davfs", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs", "gfs2"}
    | {"glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "smb", "smb2", "smb3", "smbfs"}
)
"""File systems on which several machines may meet. SQLite's WAL needs memory shared by all who open the file, and locks
that hold (https://www.sqlite.org/wal.html, https://www.sqlite.org/useovernet.html)."""


class Place(msgspec.Struct, frozen=True):
    """One file, and how it is to be opened."""

    path: str
    """Absolute."""
    busy_timeout: float = 10.0
    """Seconds to wait while another program holds the file's lock."""
    network: bool = False
    """Use it on a network file system all the same."""

    def check(self) -> None:
        """Check that a file could be used here.

        Raises:
            UnusableStoreError: no such directory, no right to write, a network file system.
        """
        path = Path(self.path)
        folder = path.parent
        if not folder.is_dir():
            raise UnusableStoreError(
                f"the directory {folder} does not exist, so {path.name} cannot be made in it; create it, or correct "
                "the URL (three slashes begin a relative path, four an absolute one)"
            )
        if path.is_dir():
            raise UnusableStoreError(
                f"{path} is a directory; name a file in it, such as {path / 'taskharbor.db'}"
            )
        # SQLite keeps two files beside it, and so needs to write in the directory too.
        for what, where in ((path, "file"), (folder, "directory")):
            if what.exists() and not os.access(what, os.W_OK):
                raise UnusableStoreError(
                    f"the {where} {what} is not writable for this user (uid {_uid()}); every process that opens it, "
                    "if only to look, needs to write to the file, and in its directory"
                )
        kind = None if self.network else network_file_system(self.path)
        if kind is not None:
            raise UnusableStoreError(
                f"{path} lies on a network file system ({kind}), where SQLite's locks and shared memory do not hold "
                "between machines and jobs could be lost; use a local disk, or a PostgreSQL server. If one machine "
                "alone ever opens it, say so in the URL: ?network=allow"
            )


def from_url(url: str) -> Place:
    """Return the place that a URL names.

    Raises:
        DriverURLError: it names none.
    """
    rest, _, query = url.partition("://")[2].partition("?")
    host, slash, path = rest.partition("/")
    path = unquote(path)
    if path == ":memory:" or (not path and not host):
        raise DriverURLError(
            f"{redacted(url)!r} names no file; {_USAGE}. For a store inside this process use memory://"
        )
    if host or not slash:
        raise DriverURLError(f"{redacted(url)!r}: {_USAGE}")
    if path.endswith("/") or "\x00" in path:
        raise DriverURLError(f"{redacted(url)!r} names no file; {_USAGE}")
    settings = dict(parse_qsl(query, keep_blank_values=True))
    for name in settings:
        if name not in _SETTINGS:
            raise DriverURLError(
                f"{redacted(url)!r}: unknown setting {name!r}{nearest(name, _SETTINGS)}; {_USAGE}"
            )
    if settings.get("network", "allow") != "allow":
        raise DriverURLError(f"{redacted(url)!r}: network={settings['network']!r}: expected 'allow'")
    return Place(
        os.path.abspath(path),
        busy_timeout=_seconds(url, settings.get("busy_timeout", "10")),
        network="network" in settings,
    )


def _seconds(url: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6:
        raise DriverURLError(
            f"{redacted(url)!r}: busy_timeout={text!r}: expected a number of seconds, such as 10 or 0.5"
        )
    return value


def network_file_system(path: str, mounts: str | None = None) -> str | None:
    """Return the kind of network file system that `path` lies on; None if it is local, or if that cannot be told.

    Args:
        path: absolute.
        mounts: the text of `/proc/self/mountinfo` (proc(5)), for tests; by default this process's own.
    """
    if mounts is None:
        if sys.platform != "linux":
            return None
        try:
            mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
    real = os.path.realpath(path)
    longest, kind = "", None
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda escape: chr(int(escape[1], 8)), fields[4])  # \040 for a space
        inside = point in ("/", real) or real.startswith(point + "/")
        if inside and len(point) >= len(longest):  # of two at one point, the later one is on top
            longest, kind = point, after.split()[0]
    return kind if kind in _NETWORK else None


def _uid() -> str:
    return str(os.getuid()) if sys.platform != "win32" else "?"
