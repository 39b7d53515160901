"""`taskharbor prune`: what workers remove now and then, removed now."""

from __future__ import annotations

from typing import Annotated

import typer

from taskharbor.cli.acting import ByOption, WhyOption, operator
from taskharbor.cli.listing import JsonOption
from taskharbor.cli.output import json_line, line, progress
from taskharbor.cli.target import AppOption, UrlOption, opened


def prune(
    ctx: typer.Context,
    rules: Annotated[
        bool,
        typer.Option(
            "--rules/--no-rules",
            help="Apply the rules of `taskharbor retention` as well, which reads the whole history.",
        ),
    ] = True,
    reason: WhyOption = "",
    by: ByOption = "",
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """Remove ended jobs that are kept no longer, by what they say or by rules, and what else is out of date.

    Workers do it now and then; this is for stores that no worker is at, and for rules that were set just now. Dead
    letters stay, but for those that a rule removes.
    """
    with opened(ctx) as harbor, progress("prune", None) as advance:
        removed = harbor.retention.prune(
            rules=rules,
            reason=reason,
            by=operator(by),
            told=lambda step: advance(step.jobs + step.keys),
        )
    if as_json:
        json_line({"jobs": removed.jobs, "keys": removed.keys})
    else:
        line(f"{removed.jobs:,} jobs and {removed.keys:,} keys removed")
