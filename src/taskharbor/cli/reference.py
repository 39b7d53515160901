"""Writes what docs/reference/cli.md tells of each command, from the commands themselves.

    python -m taskharbor.cli.reference docs/reference/cli.md

What stands above the mark in that page is written by hand. A test compares the rest with what is written here.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path

from typer.core import TyperArgument, TyperGroup, TyperOption
from typer.main import get_command

from taskharbor.cli.entry import app
from taskharbor.cli.exits import MEANINGS

MARK = "<!-- What follows is written by: python -m taskharbor.cli.reference docs/reference/cli.md -->"

_COMMON = frozenset({"--app", "--url", "--help", "--install-completion", "--show-completion"})
_LAST = """A code keeps its meaning from release to release. Errors are one line on standard error, but for
what the parser of options refuses: that stands in a box, with the usage above it. A worker that has read its
options tells errors in its log. What they mean is told in [errors](errors.md).
"""
_FOLLOWS = "Every command takes `--app` and `--url` as well.\n"


def generated() -> str:
    """Return what follows the mark: options, commands, exit codes."""
    root = get_command(app)
    assert isinstance(root, TyperGroup)  # noqa: S101 - as it has several commands
    parts = ["## Before the command\n", *_options(root.params, everything=True), "## Commands\n", _FOLLOWS]
    for name, command in root.commands.items():
        parts.extend(_command(f"taskharbor {name}", command))
    parts.extend(["## Exit codes\n", *_exit_codes()])
    return "\n".join(parts)


def page(text: str) -> str:
    """Return a page with what follows its mark written anew."""
    return f"{text.partition(MARK)[0]}{MARK}\n\n{generated()}"


def _command(path: str, command: object) -> Iterator[str]:
    if isinstance(command, TyperGroup):
        for name, child in command.commands.items():
            yield from _command(f"{path} {name}", child)
        return
    params: Sequence[object] = getattr(command, "params", ())
    arguments = [param for param in params if isinstance(param, TyperArgument)]
    usage = " ".join([path, "[OPTIONS]", *(_metavar(argument) for argument in arguments)])
    yield f"### {path.removeprefix('taskharbor ')}\n"
    yield f"```text\n{usage}\n```\n"
    yield inspect.cleandoc(str(getattr(command, "help", ""))) + "\n"
    if arguments:
        rows = [f"| `{_cell(_metavar(argument))}` | {_cell(argument.help or '')} |" for argument in arguments]
        yield "\n".join(["| argument | meaning |", "| --- | --- |", *rows]) + "\n"
    yield from _options(params)


def _options(params: Sequence[object], *, everything: bool = False) -> Iterator[str]:
    rows: list[str] = []
    for param in params:
        if not isinstance(param, TyperOption):
            continue
        if _COMMON.intersection(param.opts) and not (
            everything and {"--app", "--url"}.intersection(param.opts)
        ):
            continue
        names = ", ".join(f"`{name}`" for name in param.opts)
        metavar = "" if param.metavar is None else f" `{param.metavar}`"
        rows.append(
            f"| {names}{metavar} | {_variable(param)} | {_cell(_default(param))} | {_cell(param.help or '')} |"
        )
    if rows:
        yield (
            "\n".join(["| option | variable | default | meaning |", "| --- | --- | --- | --- |", *rows])
            + "\n"
        )


def _metavar(argument: TyperArgument) -> str:
    return argument.metavar or str(argument.name).upper()


def _variable(option: TyperOption) -> str:
    return f"`{option.envvar}`" if isinstance(option.envvar, str) else ""


def _default(option: TyperOption) -> str:
    if isinstance(option.show_default, str):
        return option.show_default
    value: object = option.default
    if option.metavar is None:  # a flag
        return "on" if value else "off"
    return str(value.value if isinstance(value, Enum) else value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _exit_codes() -> Iterator[str]:
    rows = [f"| {code.value} | `{code.name}` | {_cell(meaning)} |" for code, meaning in MEANINGS.items()]
    yield "\n".join(["| code | name | meaning |", "| --- | --- | --- |", *rows]) + "\n"
    yield _LAST


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(page(file.read_text(encoding="utf-8")), encoding="utf-8")
