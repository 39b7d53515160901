"""`taskharbor audit`: who did what to the store by hand, when, and why; listed, counted, exported."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeAlias

import msgspec
import typer

from taskharbor.audit import AuditEntry
from taskharbor.cli.export import STANDARD_OUTPUT, sink
from taskharbor.cli.filters import ago
from taskharbor.cli.grouping import ListingGroup
from taskharbor.cli.listing import AfterOption, JsonOption, LimitOption
from taskharbor.cli.output import confirm, echo, json_line, json_text, line, note, progress, told_time
from taskharbor.cli.tables import table
from taskharbor.cli.target import AppOption, UrlOption, opened
from taskharbor.cli.values import duration, instant, narrowed, narrowing
from taskharbor.control import AuditFilters
from taskharbor.errors import nearest
from taskharbor.harbor import Harbor

commands = typer.Typer(
    cls=ListingGroup, help="See who did what by hand, when, and why; count it, and export it."
)

_PAGE = 500
_FIELDS = ("id", "at", "action", "target", "by", "reason", "named", "changed", "details")


def _moment(text: str) -> datetime:
    """Return an instant: one in ISO 8601, or so long ago."""
    if text[:1].isdigit() and "-" not in text:
        return ago(datetime.now(UTC), duration(text))
    return instant(text)


_SinceOption: TypeAlias = Annotated[
    datetime | None,
    typer.Option(
        "--since",
        metavar="WHEN",
        parser=_moment,
        help="Only what was done since: 7d ago, or ISO 8601 with a zone.",
        show_default="all",
    ),
]
_BeforeOption: TypeAlias = Annotated[
    datetime | None,
    typer.Option(
        "--before",
        metavar="WHEN",
        parser=_moment,
        help="Only what was done before: 7d ago, or ISO 8601 with a zone.",
        show_default="all",
    ),
]
_ActionOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--action",
        metavar="WORDS",
        help="Only these: jobs.cancel, or jobs for all of jobs; with commas, or repeated.",
        show_default="all",
    ),
]
_ByOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--by", metavar="WHO", help="Only by these, as the list tells them; repeatable.", show_default="all"
    ),
]
_TextOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--text",
        metavar="TEXT",
        help="Only with this text in their target or their reason; a is A.",
        show_default="any",
    ),
]
_CsvOption: TypeAlias = Annotated[bool, typer.Option("--csv", help="Print CSV, with a line of names first.")]


@commands.command("list")
def list_acts(
    ctx: typer.Context,
    since: _SinceOption = None,
    before: _BeforeOption = None,
    action: _ActionOption = None,
    by: _ByOption = None,
    text: _TextOption = None,
    after: AfterOption = "",
    limit: LimitOption = 50,
    as_csv: _CsvOption = False,
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """List acts, the last one first: who, what, to what, how many things it named and changed, and why."""
    wanted = _filters(since, before, action, by, text)
    with opened(ctx) as harbor:
        found = [entry for page in _pages(harbor, wanted, after, limit) for entry in page]
        if not found:
            _hint_unknown_actions(harbor, wanted)
    if as_csv:
        for written in [csv_line(_FIELDS), *(csv_line(_cells(entry)) for entry in found)]:
            echo(written)
        return
    if as_json:
        for entry in found:
            json_line(entry)
        return
    if found:
        table(("when", "by", "action", "target", "named", "changed", "why"), [_row(entry) for entry in found])
    else:
        note("No such acts." if wanted else "Nothing was done by hand.")
    if len(found) == limit:
        note(f"There may be more: --after {found[-1].id}")


@commands.command("count")
def count(
    ctx: typer.Context,
    since: _SinceOption = None,
    before: _BeforeOption = None,
    action: _ActionOption = None,
    by: _ByOption = None,
    text: _TextOption = None,
    as_json: JsonOption = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """Count acts, and what they changed, by action and person."""
    with opened(ctx) as harbor:
        wanted = _filters(since, before, action, by, text)
        found = harbor.audit.count(**wanted)
        if not found:
            _hint_unknown_actions(harbor, wanted)
    if as_json:
        for tally in found:
            json_line(tally)
    elif found:
        table(
            ("action", "by", "acts", "changed"),
            [(tally.action, tally.by, f"{tally.acts:,}", f"{tally.changed:,}") for tally in found],
        )
    else:
        note("No such acts.")


@commands.command("export")
def export(
    ctx: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]",
            help="Where to; compressed if it ends in .gz. Standard output without it, or with -.",
            show_default=False,
        ),
    ] = None,
    since: _SinceOption = None,
    before: _BeforeOption = None,
    action: _ActionOption = None,
    by: _ByOption = None,
    text: _TextOption = None,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="As CSV, with a line of names first; else as lines of JSON.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Replace the file if it is there, unasked.")
    ] = False,
    _app: AppOption = None,
    _url: UrlOption = None,
) -> None:
    """Write acts out, the last one first: all, or those that match."""
    wanted = _filters(since, before, action, by, text)
    if file == STANDARD_OUTPUT:
        file = None
    write: Callable[[AuditEntry], bytes] = _csv_text if as_csv else json_text
    with opened(ctx) as harbor:
        if file is not None and file.exists():
            confirm(f"Replace {file}?", yes=yes)
        written = 0
        with sink(file) as put, progress("export", None) as advance:
            if as_csv:
                put(csv_line(_FIELDS).encode())
            for page in _pages(harbor, wanted, "", None):
                for entry in page:
                    put(write(entry))
                written += len(page)
                advance(len(page))
        if not written:
            _hint_unknown_actions(harbor, wanted)
    if file is not None:
        line(f"{written:,} act{'' if written == 1 else 's'} written to {file}")


def csv_line(cells: Sequence[object]) -> str:
    """Return cells as a line of CSV. What a table calculator would take for a formula is put behind an apostrophe."""
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow([_harmless(str(cell)) for cell in cells])
    return out.getvalue()


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _cells(entry: AuditEntry) -> Sequence[object]:
    details = msgspec.json.encode(entry.details).decode() if entry.details else ""
    return (
        entry.id,
        entry.at.isoformat(),
        entry.action,
        entry.target,
        entry.by,
        entry.reason,
        entry.named,
        entry.changed,
        details,
    )


def _csv_text(entry: AuditEntry) -> bytes:
    return csv_line(_cells(entry)).encode()


def _row(entry: AuditEntry) -> Sequence[str]:
    why = [entry.reason] if entry.reason else []
    why += [f"{name} {value}" for name, value in entry.details.items()]
    return (
        told_time(entry.at),
        entry.by,
        entry.action,
        entry.target,
        f"{entry.named:,}",
        f"{entry.changed:,}",
        "; ".join(why),
    )


def _filters(
    since: datetime | None,
    before: datetime | None,
    action: list[str] | None,
    by: list[str] | None,
    text: str | None,
) -> AuditFilters:
    """Return the filters that are given; raises `OptionError` for one that names nothing."""
    found = AuditFilters()
    if since is not None:
        found["since"] = since
    if before is not None:
        found["before"] = before
    if action is not None:
        found["actions"] = narrowing("--action", action)
    if by is not None:
        found["by"] = narrowing("--by", by, commas=False)
    if text is not None:
        found["text"] = narrowed("--text", text) or ""
    return found


def _hint_unknown_actions(harbor: Harbor, wanted: AuditFilters) -> None:
    """Remark on actions that are nowhere in the trail: whoever mistypes one is not to think that nothing was done."""
    known: set[str] = set()
    for word in wanted.get("actions", ()):
        if not known:
            actions = {tally.action for tally in harbor.audit.count()}
            known = actions | {action.partition(".")[0] for action in actions}
        if word not in known:
            note(f"The trail has no action {word!r}{nearest(word, sorted(known))}")


def _pages(
    harbor: Harbor, wanted: AuditFilters, after: str, limit: int | None
) -> Iterator[Sequence[AuditEntry]]:
    left = limit
    while left is None or left > 0:
        size = _PAGE if left is None else min(_PAGE, left)
        page = harbor.audit.find(after=after, limit=size, **wanted)
        if page:
            yield page
        if len(page) < size:
            return
        after = page[-1].id
        left = None if left is None else left - len(page)
