"""Writes jobs out as lines of JSON, page by page: to a file, compressed or not, or to standard output.

A file appears under its name only once it is whole. It may be read by its owner alone: errors and arguments can tell
what is nobody else's business.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from taskharbor.cli.filters import Filter, counts_of
from taskharbor.cli.job_view import bare_for_programs, for_programs
from taskharbor.cli.listing import hint_unknown_tasks, pages
from taskharbor.cli.output import confirm, echo, json_text, line, note, progress
from taskharbor.errors import OptionError
from taskharbor.harbor import Harbor
from taskharbor.job import JobState

STANDARD_OUTPUT = Path("-")


def export_jobs(
    harbor: Harbor,
    wanted: Filter,
    file: Path | None,
    *,
    noun: str,
    states: Sequence[JobState],
    with_arguments: bool,
    yes: bool,
) -> None:
    """Write jobs, those enqueued first first, and say how many there were.

    Those that match; and are in `states`, unless the filter names others.

    Raises:
        OptionError: the file cannot be written; or it is there, and nobody can be asked whether to replace it.
        Exit: it was not to be replaced.
    """
    if file == STANDARD_OUTPUT:
        file = None
    if file is not None and file.exists():
        confirm(f"Replace {file}?", yes=yes)
    chosen = wanted.of(states)
    counts = counts_of(harbor, chosen)
    written = 0
    with (
        sink(file) as write,
        progress("export", None if counts is None else sum(counts.values())) as advance,
    ):
        for page in pages(harbor, chosen, payloads=with_arguments):
            for record in page:
                write(
                    json_text(for_programs(harbor, record) if with_arguments else bare_for_programs(record))
                )
            written += len(page)
            advance(len(page))
    if not written:
        note(f"No such {noun}s." if wanted.is_given() else f"No {noun}s.")
        hint_unknown_tasks(harbor, wanted.tasks)
    if file is not None:
        line(f"{written:,} {noun}{'' if written == 1 else 's'} written to {file}")


@contextmanager
def sink(file: Path | None) -> Generator[Callable[[bytes], None]]:
    """Give what writes one line, to a file that appears once it is whole, or to standard output.

    Raises:
        OptionError: the file cannot be written.
    """
    if file is None:
        yield echo
        return
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        # Not readable for others, from the first moment on.
        raw = os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        try:
            # Without a name and time in it, so that equal exports are equal files.
            packed = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if file.suffix == ".gz" else raw
            with raw, packed:
                yield lambda text: _put(packed, text)
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise OptionError(f"{file}: cannot be written ({error.strerror or error})") from error


def _put(sink: IO[bytes] | gzip.GzipFile, text: bytes) -> None:
    sink.write(text)
    sink.write(b"\n")
