"""`taskharbor prune`: what workers remove now and then, removed now."""

from __future__ import annotations

import msgspec
import typer

from taskharbor.cli.listing import JsonOption
from taskharbor.cli.output import json_line, line, progress
from taskharbor.cli.target import AppOption, UrlOption, opened
from taskharbor.driver import HistoryPrune


class Removed(msgspec.Struct):
    """What was removed."""

    jobs: int = 0
    keys: int = 0


def prune(
    ctx: typer.Context, as_json: JsonOption = False, _app: AppOption = None, _url: UrlOption = None
) -> None:
    """Remove succeeded and cancelled jobs whose retention has ended, and what else is out of date.

    Workers do it now and then; this is for stores that no worker is at. Dead letters stay.
    """
    removed = Removed()
    with opened(ctx) as harbor, progress("prune", None) as advance:
        more = True
        while more:
            step = harbor.ask(lambda store: store.history_prune(HistoryPrune()))
            removed.jobs += step.jobs
            removed.keys += step.keys
            more = step.more
            advance(step.jobs + step.keys)
    if as_json:
        json_line(removed)
    else:
        line(f"{removed.jobs:,} jobs and {removed.keys:,} keys removed")
