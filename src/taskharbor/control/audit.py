"""`harbor.audit`: who did what to the store by hand, when, and why."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import IO, TypedDict, TypeVar, cast

import msgspec
from typing_extensions import Unpack

from taskharbor.audit import Act, AuditEntry, AuditTally
from taskharbor.call import refuse_on_loop
from taskharbor.call.options import check_limit, check_sought
from taskharbor.clock import aware
from taskharbor.control.acts import make_act
from taskharbor.control.asking import Asks, name_set
from taskharbor.driver import AuditCount, AuditFind, AuditWrite, Store
from taskharbor.errors import OptionError, nearest

T = TypeVar("T")
_PAGE = 500
_encode = msgspec.json.Encoder().encode


class AuditFilters(TypedDict, total=False):
    """Which acts. What is left out means any; several narrow it down together."""

    actions: Iterable[str]
    """Whole words, as `jobs.cancel`; or the part before the dot, as `jobs`."""
    by: Iterable[str]
    """By these, as the trail has them: `cli:ada@web1`."""
    text: str
    """Only those with this text in their target or their reason; case does not matter (of A to Z)."""
    since: datetime | None
    """Only those of this instant, which is aware, or later."""
    before: datetime | None


_NAMES = tuple(AuditFilters.__annotations__)


class AuditTrail:
    """What people did by hand, written down in the same step as what it did. Every method has an `a` form.

    In the trail is what was done by this object's neighbours (`harbor.jobs`, `.flows`, `.queues`, `.schedules`,
    `.limits`, `.workers`, `.retention`) and by the command line; what an application does with its own handles is not.
    """

    def __init__(self, asks: Asks) -> None:
        """Made by the harbor."""
        self._asks = asks

    def find(
        self, *, after: str = "", limit: int = 100, **filters: Unpack[AuditFilters]
    ) -> Sequence[AuditEntry]:
        """Return acts, the newest first, at most `limit`. For the next page pass the last one's id as `after`.

        Raises:
            OptionError: a filter that does not exist, or a value that cannot be.
        """
        request = _find(after, limit, **filters)
        return self._block("find", lambda store: store.audit_find(request))

    async def afind(
        self, *, after: str = "", limit: int = 100, **filters: Unpack[AuditFilters]
    ) -> Sequence[AuditEntry]:
        """Return acts, the newest first; the async form of `find`."""
        request = _find(after, limit, **filters)
        return await self._asks.aask(lambda store: store.audit_find(request))

    def iterate(self, **filters: Unpack[AuditFilters]) -> Iterator[AuditEntry]:
        """Yield acts, the newest first, read page by page: however many there are, few are held."""
        after = ""
        while page := self.find(after=after, limit=_PAGE, **filters):
            yield from page
            after = page[-1].id
            if len(page) < _PAGE:
                return

    async def aiterate(self, **filters: Unpack[AuditFilters]) -> AsyncIterator[AuditEntry]:
        """Yield acts, the newest first; the async form of `iterate`."""
        after = ""
        while page := await self.afind(after=after, limit=_PAGE, **filters):
            for entry in page:
                yield entry
            after = page[-1].id
            if len(page) < _PAGE:
                return

    def count(self, **filters: Unpack[AuditFilters]) -> Sequence[AuditTally]:
        """Return how many acts there are, and how much they changed, by action and person, sorted by both.

        Raises:
            OptionError: a filter that does not exist, or a value that cannot be.
        """
        request = _count(**filters)
        return self._block("count", lambda store: store.audit_count(request))

    async def acount(self, **filters: Unpack[AuditFilters]) -> Sequence[AuditTally]:
        """Return how many acts there are; the async form of `count`."""
        request = _count(**filters)
        return await self._asks.aask(lambda store: store.audit_count(request))

    def export(self, file: IO[bytes], **filters: Unpack[AuditFilters]) -> int:
        """Write acts to a file, one line of JSON each, the newest first, and return how many there were."""
        written = 0
        for entry in self.iterate(**filters):
            file.write(_encode(entry) + b"\n")
            written += 1
        return written

    async def aexport(self, file: IO[bytes], **filters: Unpack[AuditFilters]) -> int:
        """Write acts to a file; the async form of `export`."""
        written = 0
        async for entry in self.aiterate(**filters):
            file.write(_encode(entry) + b"\n")
            written += 1
        return written

    def act(self, action: str, target: str = "", *, by: str = "", reason: str = "") -> Act:
        """Return a new act, to be given to several calls as `act=`: the trail has one entry for them all, with counts.

        Raises:
            OptionError: a text that cannot be written down.
        """
        return _own(action, target, by, reason, None)

    def write(
        self,
        action: str,
        target: str = "",
        *,
        by: str = "",
        reason: str = "",
        details: Mapping[str, str] | None = None,
        named: int = 1,
        changed: int = 1,
    ) -> None:
        """Write down an act of your own, as a dashboard's that is not in the store.

        Args:
            action: what was done, two words with a dot between: `tenants.suspend`.
            target: what it was done to, in words. Never a payload.
            by: who; by default the user whose process this is.
            reason: why.
            details: what else is worth keeping.
            named: how many things it named;
            changed: how many of them it changed.

        Raises:
            OptionError: a text that cannot be written down.
        """
        request = AuditWrite(named=named, changed=changed, act=_own(action, target, by, reason, details))
        self._block("write", lambda store: store.audit_write(request))

    async def awrite(
        self,
        action: str,
        target: str = "",
        *,
        by: str = "",
        reason: str = "",
        details: Mapping[str, str] | None = None,
        named: int = 1,
        changed: int = 1,
    ) -> None:
        """Write down an act of your own; the async form of `write`."""
        request = AuditWrite(named=named, changed=changed, act=_own(action, target, by, reason, details))
        await self._asks.aask(lambda store: store.audit_write(request))

    def _block(self, name: str, work: Callable[[Store], Awaitable[T]]) -> T:
        refuse_on_loop(f"harbor.audit.{name}()", f"harbor.audit.a{name}(...)")
        return self._asks.ask(work)


def _own(action: str, target: str, by: str, reason: str, details: Mapping[str, str] | None) -> Act:
    first, dot, second = action.partition(".")
    if not (first and dot and second) or not action.isprintable() or " " in action:
        raise OptionError(f"action={action!r}: expected two words with a dot between, as jobs.cancel")
    for what, text in (("target", target), *(details or {}).items()):
        check_sought(text, what)
    return make_act(action, target, by=by, reason=reason, details=details)


def _find(after: str, limit: int, **filters: Unpack[AuditFilters]) -> AuditFind:
    check_limit(limit)
    check_sought(after, "after")
    _check(filters)
    return AuditFind(
        after=after,
        limit=limit,
        actions=name_set(filters.get("actions", ()), "actions"),
        by=name_set(filters.get("by", ()), "by"),
        text=filters.get("text", ""),
        since=_instant(filters.get("since"), "since"),
        before=_instant(filters.get("before"), "before"),
    )


def _count(**filters: Unpack[AuditFilters]) -> AuditCount:
    _check(filters)
    return AuditCount(
        actions=name_set(filters.get("actions", ()), "actions"),
        by=name_set(filters.get("by", ()), "by"),
        text=filters.get("text", ""),
        since=_instant(filters.get("since"), "since"),
        before=_instant(filters.get("before"), "before"),
    )


def _check(filters: AuditFilters) -> None:
    for name in cast("Mapping[str, object]", filters):
        if name not in _NAMES:
            raise OptionError(
                f"there is no filter {name!r}{nearest(name, _NAMES)}; there are {', '.join(_NAMES)}"
            )
    check_sought(filters.get("text", ""), "text")


def _instant(at: datetime | None, what: str) -> datetime | None:
    return None if at is None else aware(at, what).astimezone(UTC)
