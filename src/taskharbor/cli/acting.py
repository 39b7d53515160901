"""Acts on many jobs, or flows, by id: from the command line or from standard input, in batches, each answer told."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from itertools import islice
from typing import Annotated, TypeAlias

import msgspec
import typer

from taskharbor.cli.completing import complete_job
from taskharbor.cli.output import json_line, line, note, to_the_end
from taskharbor.control import user
from taskharbor.driver import CancelStatus, DeleteStatus, RequeueStatus
from taskharbor.errors import OptionError

BATCH = 500
FEW = 20
"""So many are looked up at once where they are read whole: their arguments may be large."""

_IDS_HELP = "Jobs, by id; - reads ids, or the JSON lines of a listing, from standard input."
IdsArgument: TypeAlias = Annotated[
    list[str], typer.Argument(metavar="ID...", help=_IDS_HELP, autocompletion=complete_job())
]
NoIdsArgument: TypeAlias = Annotated[
    list[str] | None,
    typer.Argument(metavar="[ID...]", help=_IDS_HELP, show_default=False, autocompletion=complete_job()),
]
ReasonOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--reason",
        metavar="TEXT",
        help="Why; recorded on the job, and in the audit trail.",
        show_default="none",
    ),
]
WhyOption: TypeAlias = Annotated[
    str,
    typer.Option("--reason", metavar="TEXT", help="Why; kept in the audit trail.", show_default="none"),
]
ShownReasonOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--reason",
        metavar="TEXT",
        help="Why; shown to whoever lists them, and kept in the audit trail.",
        show_default="none",
    ),
]
ByOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--by", metavar="WHO", help="Who does it, for the audit trail.", show_default="you: cli:USER@HOST"
    ),
]

YesOption: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")]

Status: TypeAlias = CancelStatus | RequeueStatus | DeleteStatus

TOLD: dict[StrEnum, str] = {
    CancelStatus.CANCELLED: "cancelled",
    CancelStatus.REQUESTED: "is running; its worker is told to stop it",
    CancelStatus.FINISHED: "not cancelled: it had ended already",
    CancelStatus.MISSING: "there is no such job",
    RequeueStatus.REQUEUED: "requeued",
    RequeueStatus.KEY_TAKEN: "not requeued: another job has taken its idempotency key",
    RequeueStatus.NOT_DEAD: (
        "not requeued: it is neither dead nor cancelled; or it is a step of a flow that has ended (what is parked is "
        "taken by itself, once a build that can read it comes)"
    ),
    RequeueStatus.MISSING: "there is no such job",
    DeleteStatus.DELETED: "deleted",
    DeleteStatus.RUNNING: "not deleted: it is running; cancel it first",
    DeleteStatus.OTHER_STATE: "not deleted: it is not in the state asked for, or not any more",
    DeleteStatus.MISSING: "there is no such job",
}
"""What became of a job, as people are told."""
_DONE: frozenset[StrEnum] = frozenset(
    {CancelStatus.CANCELLED, CancelStatus.REQUESTED, RequeueStatus.REQUEUED, DeleteStatus.DELETED}
)


class _Named(msgspec.Struct):
    id: str


def ids_of(given: Iterable[str]) -> Iterator[str]:
    """Yield ids; `-` stands for those on standard input, one a line.

    Raises:
        OptionError: a line of JSON without an id.
    """
    for one in given:
        if one == "-":
            yield from _read_ids()
        else:
            yield one


def _read_ids() -> Iterator[str]:
    for number, text in enumerate(sys.stdin, 1):
        text = text.strip()  # noqa: PLW2901 - the line without its end
        if text.startswith("{"):
            try:
                yield msgspec.json.decode(text, type=_Named).id
            except msgspec.DecodeError as error:
                raise OptionError(
                    f"standard input, line {number}: expected an id, or JSON with one ({error})"
                ) from error
        elif text:
            yield text


def batches(ids: Iterable[str], *, size: int | None = None) -> Iterator[Sequence[str]]:
    """Yield ids in batches of bounded size: `BATCH`, unless another is named."""
    source = iter(ids)
    while batch := list(islice(source, size or BATCH)):
        yield batch


def operator(by: str = "") -> str:
    """Return who acts, as it is recorded on jobs and in the audit trail: whoever was named, else the user here."""
    return by or f"cli:{user()}@{socket.gethostname()}"


def act(
    ids: Iterable[str],
    do: Callable[[Sequence[str]], Sequence[Status]],
    *,
    as_json: bool,
    words: Mapping[StrEnum, str] = TOLD,
) -> bool:
    """Do it to all of them, tell what became of each, and return whether it could be done to every one."""
    well = True
    with to_the_end(), cut_short() as begun:
        for batch in batches(ids):
            begun(len(batch))
            answers = do(batch)
            begun(0)
            for job_id, status in zip(batch, answers, strict=True):
                well &= tell(job_id, status, as_json=as_json, words=words)
    return well


@contextmanager
def cut_short() -> Generator[Callable[[int], None]]:
    """Say so if the work ends before its end, by Ctrl-C or an error; give what is told how many are being asked for."""
    asked: list[int] = []
    try:
        yield asked.append
    except BaseException:
        if len(asked) > 1:  # else nothing was done, and the error says all
            unknown = f"; what became of {asked[-1]:,} more is not known" if asked[-1] else ""
            note(f"Ended before the rest. What is told above was done{unknown}.")
        raise


def told(status: Status) -> str:
    """Return what became of one job, in words."""
    return TOLD[status]


def tell(job_id: str, status: Status, *, as_json: bool, words: Mapping[StrEnum, str] = TOLD) -> bool:
    """Print what became of one job, in `words`, and return whether it was done."""
    done = status in _DONE
    if as_json:
        json_line({"id": job_id, "status": status.value})
    elif done:
        line(f"{job_id}  {words[status]}")
    else:
        note(f"{job_id}  {words[status]}")
    return done
