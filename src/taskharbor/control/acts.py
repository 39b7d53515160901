"""Acts of people, as the audit trail has them: what was done, to what, by whom, and why."""

from __future__ import annotations

import getpass
from collections.abc import Mapping, Sequence

from taskharbor.audit import Act
from taskharbor.control.asking import check_notes
from taskharbor.job import new_job_id

_TARGET_LIMIT = 500
_NAMED = 10
"""So many ids or names are told; of more, how many there were."""


def make_act(
    action: str, target: str, *, by: str = "", reason: str = "", details: Mapping[str, str] | None = None
) -> Act:
    """Return a new act, by whoever runs this process if nobody else is named.

    Raises:
        OptionError: a reason or a name that cannot be written down.
    """
    check_notes(reason, by)
    told = target if len(target) <= _TARGET_LIMIT else f"{target[: _TARGET_LIMIT - 1]}…"
    return Act(
        id=new_job_id(),
        action=action,
        target=told,
        by=by or f"python:{user()}",
        reason=reason,
        details=dict(details or {}),
    )


def user() -> str:
    """Return the name of the user whose process this is; "unknown" where it has none, as in containers."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def told_names(names: Sequence[str]) -> str:
    """Return ids or names as the target of an act: the first few, and how many more there are."""
    told = ", ".join(names[:_NAMED])
    return told if len(names) <= _NAMED else f"{told} and {len(names) - _NAMED:,} more"
