"""Which jobs a `JobFilter` means, as SQL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from string import ascii_lowercase, ascii_uppercase

from taskharbor.driver import JobFilter
from taskharbor.drivers.postgres.routine import text_array

# In this collation A to Z are all that has a case, whatever the database's locale says.
LOWER = 'lower({} COLLATE pg_catalog."C")'
_LAST_ERROR = "(j.errors -> -1 ->> '{}')"
_LOWERED = str.maketrans(ascii_uppercase, ascii_lowercase)


def lowered(text: str) -> str:
    """Return a text as `LOWER` has it."""
    return text.translate(_LOWERED)


class Filter:
    """The conditions of a filter on the live jobs and on those of the history, each as `j`."""

    def __init__(
        self, request: JobFilter, parameter: Callable[[str], str], reasons: Mapping[str, str]
    ) -> None:
        """Write them.

        Args:
            request: what is asked.
            parameter: takes a cell, and returns SQL for it, as text.
            reasons: SQL for a job's reason, of the `live` ones and of those in the `history`.
        """
        self.live: list[str] = []
        self.history: list[str] = []
        self.only_ended = request.finished_since is not None or request.finished_before is not None
        """No live job is meant, whatever the conditions."""
        for column, words in (("queue", request.queues), ("task", request.tasks)):
            if words:
                self.add(f"j.{column} = ANY ({parameter(text_array(sorted(words)))}::text[])")
        for column, sign, moment in (
            ("enqueued_at", ">=", request.enqueued_since),
            ("enqueued_at", "<", request.enqueued_before),
            ("finished_at", ">=", request.finished_since),
            ("finished_at", "<", request.finished_before),
        ):
            if moment is not None:
                condition = f"j.{column} {sign} {parameter(moment.isoformat())}::timestamptz"
                self.history.append(condition)
                self.live += [condition] if column == "enqueued_at" else []
        if request.error:
            self._add_error(parameter(request.error))
        if request.text:
            self._add_text(parameter(lowered(request.text)), reasons)

    def add(self, condition: str) -> None:
        """Have jobs of both kinds meet a condition, too."""
        self.live.append(condition)
        self.history.append(condition)

    def _add_error(self, name: str) -> None:
        last = _LAST_ERROR.format("type")
        self.add(f"j.errors IS NOT NULL AND ({last} = {name} OR substring({last} FROM '[^.]*$') = {name})")

    def _add_text(self, text: str, reasons: Mapping[str, str]) -> None:
        found = f"strpos({LOWER}, {text}) > 0"
        in_error = found.format(_LAST_ERROR.format("message"))
        self.live.append(f"(coalesce({found.format(reasons['live'])}, false) OR coalesce({in_error}, false))")
        self.history.append(
            f"(coalesce({found.format(reasons['history'])}, false) OR coalesce({in_error}, false))"
        )
