"""What may be said of one call beside its arguments, checked when it is said."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal, TypeAlias, cast

import msgspec
from msgspec import UNSET, UnsetType

from taskharbor.clock import aware
from taskharbor.errors import OptionError
from taskharbor.job import OnConflict
from taskharbor.retry import Retry

OnConflictName: TypeAlias = Literal["existing", "raise", "replace"]
FlowConflictName: TypeAlias = Literal["existing", "raise"]

_LONGEST = timedelta(days=3650)
_NAME_LIMIT = 120
KEY_LIMIT = 250
DERIVED_KEY = "unique:["
"""How keys begin that are derived from arguments, and no other."""
_NOTE_LIMIT = 500
_GREATEST_LIMIT = 2**31 - 1


class Options(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Options of one call; UNSET leaves what the task declares.

    Raises:
        OptionError: a value that cannot be; the message says what was expected.
    """

    queue: str | UnsetType = UNSET
    priority: int | UnsetType = UNSET
    """0 (first) to 9 (last)."""
    run_at: datetime | UnsetType = UNSET
    """Earliest start; aware."""
    run_in: timedelta | UnsetType = UNSET
    """Earliest start from now, by the store's clock."""
    key: str | UnsetType = UNSET
    """Idempotency key, in the scope of the task."""
    key_ttl: timedelta | UnsetType = UNSET
    """How long the key stays taken after the job has finished."""
    on_conflict: OnConflictName | UnsetType = UNSET
    """What an enqueue with a taken key does: return the job that has it, raise, or take that job's place."""
    retry: Retry | UnsetType = UNSET
    timeout: timedelta | UnsetType | None = UNSET
    """For one attempt; None lifts the task's."""
    meta: dict[str, str] | UnsetType = UNSET
    """Free text to travel with the job; added to what is there."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be."""
        if self.queue is not UNSET:
            check_name(self.queue, "queue")
        if self.priority is not UNSET:
            check_priority(self.priority)
        if self.run_at is not UNSET:
            aware(self.run_at, "run_at")
            if self.run_in is not UNSET:
                raise OptionError("run_at and run_in were both given; the earliest start is one or the other")
        for name in ("run_in", "key_ttl"):
            check_duration(cast("timedelta | UnsetType", getattr(self, name)), name)
        if self.key is not UNSET:
            check_own_key(self.key)
        if self.on_conflict is not UNSET and self.on_conflict not in tuple(OnConflict):
            raise OptionError(f"on_conflict={self.on_conflict!r}: expected 'existing', 'raise' or 'replace'")
        if self.retry is not UNSET and (not isinstance(self.retry, Retry) or self.retry.on):
            raise OptionError(
                "options(retry=...) takes a Retry without `on`: exception classes stay with the task, since a job "
                "carries only numbers; declare them in @task(retry=Retry(on=...))"
            )
        check_timeout(self.timeout)
        if self.meta is not UNSET:
            check_meta(self.meta)
            msgspec.structs.force_setattr(
                self, "meta", dict(self.meta)
            )  # the caller may go on changing theirs

    def over(self, base: Options) -> Options:
        """Return these options, and for what they leave UNSET those of `base`; `meta` is joined."""
        merged = _given(base)
        given = _given(self)
        if "run_at" in given:
            merged.pop("run_in", None)
        if "run_in" in given:
            merged.pop("run_at", None)
        if "meta" in given and "meta" in merged:
            given["meta"] = {
                **cast("dict[str, str]", merged["meta"]),
                **cast("dict[str, str]", given["meta"]),
            }
        return msgspec.structs.replace(Options(), **{**merged, **given})


def _given(options: Options) -> dict[str, object]:
    return {
        name: value for name in options.__struct_fields__ if (value := getattr(options, name)) is not UNSET
    }


def check_name(value: str, what: str) -> None:
    """Refuse names that no store or shell could hold: empty, too long, or with control characters."""
    check_text(value, what, _NAME_LIMIT)
    if value != value.strip() or not value.isprintable():
        raise OptionError(f"{what}={value!r}: expected printable text without spaces at its ends")


def check_text(value: str, what: str, limit: int) -> None:
    """Refuse text that is empty, too long, or cannot be stored."""
    if not isinstance(value, str) or not 1 <= len(value) <= limit:
        raise OptionError(f"{what}={value!r}: expected text of 1 to {limit} characters")
    if "\x00" in value or not _encodable(value):
        raise OptionError(
            f"{what}={value!r}: it holds a NUL or half a surrogate pair, which stores cannot keep"
        )


def check_own_key(value: str) -> None:
    """Refuse what cannot be an idempotency key that a caller gives."""
    check_text(value, "key", KEY_LIMIT)
    if value.startswith(DERIVED_KEY):
        raise OptionError(
            f"key={value!r}: keys that begin with {DERIVED_KEY!r} are made of the arguments of tasks with unique=...; "
            "choose another name"
        )


def check_sought(value: object, what: str) -> None:
    """Refuse what is looked for and is no text, or one that no store can hold: a driver would fail. May be empty."""
    if not isinstance(value, str):
        raise OptionError(f"{what}={value!r}: expected text")
    if "\x00" in value or not _encodable(value):
        raise OptionError(
            f"{what}={value!r}: it holds a NUL or half a surrogate pair (as of bytes that are no UTF-8), so nothing in "
            "any store has it"
        )


def check_limit(value: int) -> None:
    """Refuse what is no number of things to be returned at once."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _GREATEST_LIMIT:
        raise OptionError(f"limit={value!r}: expected 1 to {_GREATEST_LIMIT:,}")


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_priority(value: int) -> None:
    """Refuse what is no priority."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 9:
        raise OptionError(f"priority={value!r}: expected 0 (first) to 9 (last)")


def check_duration(value: timedelta | UnsetType, what: str) -> None:
    """Refuse what is no duration from zero to ten years."""
    if value is not UNSET and (not isinstance(value, timedelta) or not timedelta(0) <= value <= _LONGEST):
        raise OptionError(f"{what}={value!r}: expected a timedelta from 0 to {_LONGEST.days} days")


def check_timeout(value: timedelta | UnsetType | None) -> None:
    """Refuse a timeout that would end every attempt at once."""
    if value is None or value is UNSET:
        return
    if not isinstance(value, timedelta) or not timedelta(0) < value <= _LONGEST:
        raise OptionError(
            f"timeout={value!r}: expected a timedelta above 0 and up to {_LONGEST.days} days, or None for none"
        )


def check_note(value: object, what: str) -> None:
    """Refuse what could not be stored as a remark: a reason, a name of who did it. May be empty."""
    if not isinstance(value, str) or (
        value and (len(value) > _NOTE_LIMIT or "\x00" in value or not _encodable(value))
    ):
        raise OptionError(f"{what}={value!r:.80}: expected up to {_NOTE_LIMIT} characters, without NULs")


def check_meta(value: dict[str, str]) -> None:
    """Refuse metadata that is not text to text."""
    if not isinstance(value, dict) or not all(
        isinstance(k, str) and isinstance(v, str) for k, v in value.items()
    ):
        raise OptionError("meta: expected a dict of str to str")
    for name, text in value.items():
        if "\x00" in name + text or not _encodable(name + text):
            raise OptionError(
                f"meta[{name!r}]: it holds a NUL or half a surrogate pair, which stores cannot keep"
            )
