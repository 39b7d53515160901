"""Who may come in, and how: the role, its password, and what to connect to."""

from __future__ import annotations

import secrets
from typing import Final
from urllib.parse import quote

from taskharbor.drivers.postgres.embedded.folder import Folder
from taskharbor.drivers.postgres.embedded.processes import Postmaster
from taskharbor.errors import OptionError

ROLE: Final = "taskharbor"
_DATABASE: Final = "postgres"
_HBA: Final = f"""\
# Written by TaskHarbor at each start.
local all {ROLE} peer map={ROLE}
local all all scram-sha-256
host all all 127.0.0.1/32 scram-sha-256
host all all ::1/128 scram-sha-256
"""


def write_rules(folder: Folder) -> dict[str, str]:
    """Write down who may come in; return the settings that name the files."""
    names = dict.fromkeys(("root", folder.account().name))
    ident = "".join(f'{ROLE} "{name}" {ROLE}\n' for name in names)
    return {
        "hba_file": str(folder.write("hba.conf", _HBA)),
        "ident_file": str(folder.write("ident.conf", ident)),
    }


def make_password(folder: Folder) -> str:
    """Make the role's password; return the path of its file."""
    return str(folder.write("password", secrets.token_urlsafe(24) + "\n"))


def conninfo(postmaster: Postmaster) -> str:
    """Return the URL for the socket, where no password is asked for."""
    host = quote(str(postmaster.socket_folder), safe="")
    return f"postgresql://{ROLE}@/{_DATABASE}?host={host}&port={postmaster.port}"


def tcp_conninfo(postmaster: Postmaster, folder: Folder) -> str:
    """Return the URL for TCP, with the password.

    Raises:
        OptionError: the server does not listen there.
    """
    if not postmaster.listens:
        raise OptionError(
            "this server listens at no TCP port; start it with settings={'listen_addresses': '127.0.0.1'}"
        )
    password = (folder.path / "password").read_text(encoding="utf-8").strip()
    return f"postgresql://{ROLE}:{password}@127.0.0.1:{postmaster.port}/{_DATABASE}"
