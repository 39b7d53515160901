"""All that a harbor declares of schedules: by hand, with its tasks, in files. And the digest of the whole."""

from __future__ import annotations

import hashlib
from copy import copy
from pathlib import Path

import msgspec

from taskharbor.call import Call, Options, Signature
from taskharbor.call.options import check_name
from taskharbor.codec import Codec
from taskharbor.declaring.template import Template, template
from taskharbor.driver import ScheduleDeclare
from taskharbor.errors import OptionError
from taskharbor.schedule import DEFAULT_APPLICATION, GENERATION_LIMIT, NewSchedule, Schedule
from taskharbor.task import Registry, TaskDefinition


class _Scope(msgspec.Struct, frozen=True):
    """Whose declarations they are."""

    application: str
    named: bool
    """Somebody has named the application: with no schedules left, it still says so."""
    generation: int | None
    file: Path | None
    """The one that the settings name."""


class Declarations:
    """The schedules that one application declares. Files are read, and names compared, whenever the whole is asked for:
    by then every module that declares tasks has been imported.
    """

    def __init__(
        self, registry: Registry, codec: Codec, *, application: str | None, generation: int | None
    ) -> None:
        """Begin with none.

        Raises:
            OptionError: the application's name cannot be, or the generation is no whole number from 1 to 2**53 - 1.
        """
        if application is not None:
            _check_application(application, "application")
        if generation is not None and not (type(generation) is int and 1 <= generation <= GENERATION_LIMIT):
            raise OptionError(
                f"generation={generation!r}: expected a whole number from 1 to {GENERATION_LIMIT:,}"
            )
        self._registry = registry
        self._codec = codec
        self._application = application
        self._generation = generation
        self._by_hand: list[Template] = []
        self._files: list[Path] = []
        self._heeds_settings = True

    def in_tests(self) -> Declarations:
        """Return the same declarations, for a harbor that heeds no settings of the environment or of a file."""
        same = copy(self)
        same._heeds_settings = False
        return same

    def template(
        self, signature: Signature[object], schedule: Schedule, name: str | None, description: str
    ) -> NewSchedule:
        """Return a schedule of that very name to be stored, declared by nobody; raises as `template.template`."""
        return template(signature, schedule, name, description, self._codec).new

    def add(
        self, signature: Signature[object], schedule: Schedule, name: str | None, description: str
    ) -> None:
        """Add one; raises as `template`, and `OptionError` if the name is taken."""
        made = template(signature, schedule, name, description, self._codec)
        if any(other.new.name == made.new.name for other in self._by_hand):
            raise OptionError(
                f"harbor.schedule(...): {made.new.name!r} is declared already; pass another name= to one of them"
            )
        self._by_hand.append(made)

    def add_file(self, path: str | Path) -> None:
        """Add those of a file, which is read when they are declared."""
        self._files.append(Path(path).absolute())

    @property
    def generation(self) -> int | None:
        """Return the number that was given, here or by a setting; None if the store counts."""
        return self._scope().generation

    def schedules(self) -> list[NewSchedule]:
        """Return the whole set, sorted, with the names that the store has them under.

        Raises:
            OptionError: two have one name, or what a file or a setting says cannot be.
            DeploymentError: a file cannot be read.
            PayloadError: a task is scheduled that cannot be called without arguments.
        """
        scope = self._scope()
        return [made.new for made in self._collected(scope)]

    def request(self, *, force: bool = False) -> ScheduleDeclare:
        """Return what declares the whole set; raises as `schedules`."""
        return self._request(self._scope(), force=force)

    def request_at_start(self) -> ScheduleDeclare | None:
        """Return what a worker declares when it starts; None if there is nothing, and nobody named the application.

        Raises as `schedules`.
        """
        scope = self._scope()
        request = self._request(scope, force=False)
        return request if request.schedules or scope.named else None

    def _request(self, scope: _Scope, *, force: bool) -> ScheduleDeclare:
        collected = self._collected(scope)
        digest = hashlib.sha256()
        for made in collected:
            digest.update(made.new.name.encode() + b"\0" + made.digest)
        return ScheduleDeclare(
            application=scope.application,
            schedules=[made.new for made in collected],
            digest=digest.digest()[:16],
            generation=scope.generation,
            force=force,
        )

    def _collected(self, scope: _Scope) -> list[Template]:
        found: dict[str, Template] = {}
        origins: dict[str, str] = {}
        for made, origin in self._all(scope):
            name = f"{scope.application}/{made.new.name}"
            if name in found:
                raise OptionError(
                    f"two schedules are named {made.new.name!r}: {origins[name]}, and {origin}; give one of them "
                    "another name"
                )
            found[name] = made._replace(new=msgspec.structs.replace(made.new, name=name))
            origins[name] = origin
        return [found[name] for name in sorted(found)]

    def _all(self, scope: _Scope) -> list[tuple[Template, str]]:
        every = [(made, "harbor.schedule(...)") for made in self._by_hand]
        for definition in self._registry:
            every += ((made, f"@task of {definition.name!r}") for made in self._of_task(definition))
        files = [*self._files, *([scope.file] if scope.file is not None else [])]
        for path in dict.fromkeys(files):
            from taskharbor.declaring.files import read_file

            for one in read_file(path, self._registry):
                made = template(one.signature, one.schedule, one.name, one.description, self._codec)
                every.append((made, str(path)))
        return every

    def _of_task(self, definition: TaskDefinition) -> list[Template]:
        """Return those that stand with the task: named as it, the second and later ones with a number."""
        if not definition.schedules:
            return []
        call: Signature[object] = Signature(Call(definition, definition.bind((), {}), Options()))
        return [
            template(
                call,
                schedule,
                definition.name if number == 1 else f"{definition.name}-{number}",
                "",
                self._codec,
            )
            for number, schedule in enumerate(definition.schedules, 1)
        ]

    def _scope(self) -> _Scope:
        if not self._heeds_settings:
            return _Scope(self._application or DEFAULT_APPLICATION, False, self._generation, None)
        from taskharbor.settings import load_settings

        loaded = load_settings()
        settings = loaded.settings
        if self._application is not None:
            application, named = self._application, True
        else:
            application, named = settings.application, loaded.given("application")
            _check_application(application, loaded.origins["application"])
        return _Scope(
            application,
            named,
            settings.generation if self._generation is None else self._generation,
            None if settings.schedules is None else Path(settings.schedules).absolute(),
        )


def _check_application(name: str, where: str) -> None:
    check_name(name, where)
    if "/" in name:
        raise OptionError(
            f"{where}={name!r}: expected no slash: it stands between this name and a schedule's"
        )
