"""`taskharbor leader`: who does what has to be done in one place."""

from __future__ import annotations

from datetime import UTC, datetime

import typer

from taskharbor.cli.listing import JsonOption
from taskharbor.cli.output import json_line, note
from taskharbor.cli.tables import table
from taskharbor.cli.target import AppOption, UrlOption, opened
from taskharbor.cli.values import told_age


def leader(
    ctx: typer.Context, as_json: JsonOption = False, _app: AppOption = None, _url: UrlOption = None
) -> None:
    """Show which worker fires schedules and prunes, and since when. Another takes over within seconds of its end."""
    with opened(ctx) as harbor:
        found = harbor.workers.leaders()
    now = datetime.now(UTC)
    if as_json:
        for one in found:
            json_line(one)
    elif found:
        table(
            ("role", "worker", "fence", "leads for", "held for"),
            [
                (
                    one.role,
                    one.worker,
                    str(one.fence),
                    told_age(now - one.since),
                    told_age(one.expires_at - now),
                )
                for one in found
            ],
        )
    else:
        note("Nobody leads: no worker is there, or the last one left a moment ago.")
