"""A real PostgreSQL in a folder, started by whoever needs it first and stopped by whoever leaves it last.

    folder/              0711 when made by root, else 0700
      lock               flock, exclusive: who starts or stops the server
      users              flock, shared: who uses it. Who gets it exclusively, while holding `lock`, was the last one
      data/              the cluster, made as making/ and then renamed: it is whole, or not there
      socket/            0700: the way in; in /tmp instead if this path is too long for a socket, or has a comma
      hba.conf           who may come in: on the socket the server's own user and root (`peer`), else with a password
      ident.conf         those two by name
      password           of the role `taskharbor`, for TCP, which is off unless asked for
      server.log         what the server says
      binaries-*/        a copy of PostgreSQL, if the server's user could not read the installed one

PostgreSQL refuses to run as root. Started by root it runs as the owner of the folder or, where that is root, as
`nobody`; root keeps the folder itself and the locks, and `nobody` owns `data` and `socket`. Nothing that we did not
create is changed.

Locks fall with the process that holds them, so that a killed user leaves the server running, and the next one finds it.
A killed server leaves its pid file and perhaps processes, and the next start puts that right. Processes are known by
the cluster's name, which stands in their titles, not by their numbers alone: those are given anew, in containers soon.
"""

from __future__ import annotations

from taskharbor.drivers.postgres.embedded.binaries import find_binaries
from taskharbor.drivers.postgres.embedded.place import EmbeddedPlace, open_embedded_folder
from taskharbor.drivers.postgres.embedded.server import Server

__all__ = ["EmbeddedPlace", "Server", "find_binaries", "open_embedded_folder"]
