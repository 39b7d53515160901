"""Groups of commands that list where none of them is named: `taskharbor workers --json`, `taskharbor audit`."""

from __future__ import annotations

from typing import cast

import typer
from typer.core import TyperGroup
from typing_extensions import override

_DEFAULT = "list"
_HELP = frozenset({"--help", "-h"})


class ListingGroup(TyperGroup):
    """Its command `list` is meant where no command is named."""

    names_too = False
    """What begins without a dash, and is no command, is for `list` as well."""

    @override
    def parse_args(self, ctx: object, args: list[str]) -> list[str]:
        """Put `list` before what names no command."""
        context = cast("typer.Context", ctx)
        first = args[0] if args else ""
        if not first:
            named = context.resilient_parsing  # a shell asks for completions: those are the commands
        elif first.startswith("-"):
            named = first in _HELP
        else:
            named = first in self.commands or not self.names_too
        return super().parse_args(context, args if named else [_DEFAULT, *args])


class NamesGroup(ListingGroup):
    """As `ListingGroup`; and `list` takes names: `taskharbor tasks mail.send`."""

    names_too = True
