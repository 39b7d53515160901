"""How operators' doors reach the store, in both colours; and the checks of what they are given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol, TypeVar, cast

from taskharbor.call.options import check_note, check_sought
from taskharbor.driver import Store
from taskharbor.errors import JobNotFound, OptionError

T = TypeVar("T")


class Asks(Protocol):
    """How the store is reached, in both colours."""

    def ask(self, work: Callable[[Store], Awaitable[T]], /) -> T:
        """Return what `work` returns, blocking."""
        ...

    async def aask(self, work: Callable[[Store], Awaitable[T]], /) -> T:
        """Return what `work` returns."""
        ...


def not_found(job_id: str) -> JobNotFound:
    """Return the error for an id that the store does not know."""
    return JobNotFound(
        f"no job has the id {job_id!r}: it never had one, was deleted, its task's `retain` has passed, or it was sent "
        "in a transaction that is not committed yet",
        job_id=job_id,
    )


def check_notes(reason: str, by: str) -> None:
    """Refuse what cannot be recorded of who did something, and why; raises `OptionError`."""
    check_note(reason, "reason")
    check_note(by, "by")


def id_list(ids: Sequence[str]) -> Sequence[str]:
    """Return ids as a list; raises `OptionError` for what is none."""
    return text_list(ids, "ids", "ids, such as [handle.id]")


def name_set(names: Iterable[str], what: str) -> frozenset[str]:
    """Return names as a set; raises `OptionError` for what is none."""
    return frozenset(text_list(names, what, "names, such as [task.name]" if what == "tasks" else "names"))


def text_list(given: object, what: str, wanted: str) -> list[str]:
    """Return texts as a list: a text by itself would be taken for its letters, and other things match nothing."""
    found: list[str] = []
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise OptionError(f"{what}={given!r}: expected a list of {wanted}")
    for one in cast("Iterable[object]", given):
        if not isinstance(one, str):
            raise OptionError(f"{what}: expected {wanted}; got {one!r}")
        check_sought(one, what)
        found.append(one)
    return found
