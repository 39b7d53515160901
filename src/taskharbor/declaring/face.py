"""The half of a harbor that declares schedules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from taskharbor.audit import Act
from taskharbor.call import Signature, refuse_on_loop
from taskharbor.connections import Connections
from taskharbor.declaring.declarations import Declarations
from taskharbor.driver import Declared
from taskharbor.schedule import NewSchedule, Schedule


class Declaring:
    """What an application calls to say which schedules it has."""

    _declarations: Declarations
    _connections: Connections

    def schedule(
        self,
        signature: Signature[object],
        schedule: Schedule,
        *,
        name: str | None = None,
        description: str = "",
    ) -> None:
        """Declare a schedule: `harbor.schedule(report.s(region="eu"), cron("0 8 * * *", tz="Europe/Paris"))`.

        It is stored when a worker starts, or by `declare_schedules`. What the application declares no more is removed
        then, unless a later version of it has declared since.

        Args:
            signature: the call that each tick makes, options and all; not a flow.
            schedule: made by `cron(...)` or `every(...)`.
            name: unique in this application, printable, with no slash at its ends; by default the task's.
            description: for people.

        Raises:
            OptionError: a value that cannot be, or a name that is taken.
            PayloadError: the arguments do not fit the task's signature.
        """
        self._declarations.add(signature, schedule, name, description)

    def schedule_file(self, path: str | Path) -> None:
        """Declare the schedules of a file, TOML or YAML, which is read when they are stored; see docs/scheduling.md."""
        self._declarations.add_file(path)

    @property
    def declared_schedules(self) -> Sequence[NewSchedule]:
        """Return what is declared here, in code, with tasks and in files, sorted by the names the store has them under.

        Raises:
            OptionError: two have one name, or what a file or a setting says cannot be.
            DeploymentError: a file cannot be read.
            PayloadError: a task is scheduled that cannot be called without arguments.
        """
        return self._declarations.schedules()

    @property
    def declared_generation(self) -> int | None:
        """Return the generation of what is declared here, as given or set; None if the store counts.

        Raises:
            OptionError: what a setting says cannot be.
        """
        return self._declarations.generation

    def declare_schedules(self, *, force: bool = False, act: Act | None = None) -> Declared:
        """Store what is declared here, as each worker does when it starts, and return what was changed.

        Args:
            force: although a later version of the application has declared since, as after a rollback. Where a
                generation is given, that alone decides.
            act: whose act it is, where a person asked for it, for the audit trail; see `harbor.audit.act`.

        Raises:
            OptionError: two have one name, or what a file or a setting says cannot be.
            DeploymentError: a file cannot be read.
            BlockingCallError: on a running event loop; use `adeclare_schedules`.
        """
        refuse_on_loop("harbor.declare_schedules()", "harbor.adeclare_schedules(...)")
        request = msgspec.structs.replace(self._declarations.request(force=force), act=act)
        return self._connections.ask(lambda store: store.schedule_declare(request))

    async def adeclare_schedules(self, *, force: bool = False, act: Act | None = None) -> Declared:
        """Store what is declared here; the async form of `declare_schedules`."""
        request = msgspec.structs.replace(self._declarations.request(force=force), act=act)
        return await self._connections.aask(lambda store: store.schedule_declare(request))
