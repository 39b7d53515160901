"""Which harbor a command works on: `--app` and `--url`, taken before the command and after it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypeAlias

import msgspec
import typer

from taskharbor.cli.application import load
from taskharbor.cli.store import refuse_missing
from taskharbor.errors import DeploymentError
from taskharbor.harbor import Harbor
from taskharbor.settings import load_settings
from taskharbor.settings.declared import DEFAULT_URL

APP_HELP = (
    "Your application: module:harbor, module, or path/to/file.py:harbor; a Harbor, or what returns one."
)
URL_HELP = "The store, such as sqlite:///jobs.db, instead of the application's own."
_NO_URL = "the application's; TASKHARBOR_URL; the settings' file; sqlite:///taskharbor.db"


class Target(msgspec.Struct):
    """What was said of application and store."""

    app: str | None = None
    url: str | None = None

    def named(self) -> bool:
        """Return whether anybody said which store is meant."""
        if self.app or self.url:
            return True
        loaded = load_settings()
        return loaded.given("app") or loaded.given("url")

    def application(self) -> str | None:
        """Return which application is meant: what was said here, else what the settings say."""
        return self.app or load_settings().settings.app


def target_of(ctx: typer.Context) -> Target:
    """Return what was said, before the command or after it."""
    root = ctx.find_root()
    found: object = root.obj
    if isinstance(found, Target):
        return found
    made = Target()
    root.obj = made
    return made


def _take_app(ctx: typer.Context, value: str | None) -> str | None:
    if value is not None:
        target_of(ctx).app = value
    return value


def _take_url(ctx: typer.Context, value: str | None) -> str | None:
    if value is not None:
        target_of(ctx).url = value
    return value


AppOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--app",
        metavar="APP",
        help=APP_HELP,
        show_default="TASKHARBOR_APP; the settings' file; else none",
        callback=_take_app,
    ),
]
UrlOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help=URL_HELP, show_default=_NO_URL, callback=_take_url),
]
CommonApp: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--app",
        metavar="APP",
        envvar="TASKHARBOR_APP",
        help=APP_HELP,
        show_default="the settings' file; else none",
        callback=_take_app,
    ),
]


def harbor_of(target: Target, *, tasks: str = "") -> Harbor:
    """Return the harbor that is meant.

    Args:
        target: what was said.
        tasks: which command needs the application's tasks; "" where a store is enough.

    Raises:
        DeploymentError: the application cannot be imported; or it is needed, and was not named; or nobody said which
            store is meant, and there is none here.
        DriverURLError: no driver understands the URL.
        OptionError: a wrong setting, in the environment or the file.
    """
    app, beside = target.app, None
    if not app:
        loaded = load_settings()
        app = loaded.settings.app
        if loaded.file is not None and loaded.origins["app"].startswith("file "):
            beside = loaded.file.parent
    if app:
        harbor = load(app, beside=beside)
        return harbor.at(target.url) if target.url else harbor
    if tasks:
        raise DeploymentError(
            f"{tasks} needs your tasks: say where they are, --app module:harbor (or TASKHARBOR_APP, or app = in "
            "taskharbor.toml)"
        )
    if not target.named() and not default_file().exists():
        raise DeploymentError(
            f"which store? There is no {default_file().name} in {Path.cwd()}; give --app module:harbor, --url URL, or "
            "set TASKHARBOR_APP or TASKHARBOR_URL, or app or url in taskharbor.toml"
        )
    return Harbor(target.url)


def default_file() -> Path:
    """Return the file that is meant where nobody names a store."""
    return Path(DEFAULT_URL.partition(":///")[2])


@contextmanager
def opened(ctx: typer.Context, *, tasks: str = "") -> Generator[Harbor]:
    """Give the harbor that is meant, and close it at the end; raises as `harbor_of`.

    A command that works on the application's tasks may be the first to use a store, and makes it then. The others look
    for what is there already: `refuse_missing` keeps them from making it.
    """
    harbor = harbor_of(target_of(ctx), tasks=tasks)
    try:
        if not tasks:
            refuse_missing(harbor)
        yield harbor
    finally:
        harbor.close()
