"""`harbor.workers`: who works on a store now, and telling them to end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from taskharbor.audit import Act
from taskharbor.call import refuse_on_loop
from taskharbor.control.acts import make_act, told_names
from taskharbor.control.asking import Asks, text_list
from taskharbor.driver import LeaderList, Leadership, Order, Store, WorkerInfo, WorkerList, WorkerOrder
from taskharbor.errors import OptionError

T = TypeVar("T")


class Workers:
    """The live workers of a store: those that were heard within the time that they gave themselves."""

    def __init__(self, asks: Asks) -> None:
        """Made by the harbor."""
        self._asks = asks

    def list(self) -> Sequence[WorkerInfo]:
        """Return the live workers sorted by name, each with what it serves and how many jobs it holds."""
        return self._block("list", lambda store: store.worker_list(WorkerList()))

    async def alist(self) -> Sequence[WorkerInfo]:
        """Return the live workers; the async form of `list`."""
        return await self._asks.aask(lambda store: store.worker_list(WorkerList()))

    def leaders(self) -> Sequence[Leadership]:
        """Return who leads now, sorted by role: `upkeep` is who fires schedules and prunes. Empty if nobody does."""
        return self._block("leaders", lambda store: store.leader_list(LeaderList()))

    async def aleaders(self) -> Sequence[Leadership]:
        """Return who leads now; the async form of `leaders`."""
        return await self._asks.aask(lambda store: store.leader_list(LeaderList()))

    def drain(self, *workers: str, every: bool = False, by: str = "", reason: str = "") -> Mapping[str, bool]:
        """Tell workers to start nothing new, finish what runs, and end, as after a first signal.

        They learn of it within a third of their lease, and no supervisor of theirs starts them again.

        Args:
            *workers: which, by the names that `list` tells.
            every: all that are live now, in the place of names.
            by: who; by default the user whose process this is.
            reason: why.

        Returns:
            Of each whether it is a live worker, and this is news to it.

        Raises:
            OptionError: none was named, or some beside `every`.
        """
        named, act = _meant(workers, every=every), _act(Order.DRAIN, workers, by, reason)
        return self._block("drain", lambda store: _order(store, Order.DRAIN, named, act))

    async def adrain(
        self, *workers: str, every: bool = False, by: str = "", reason: str = ""
    ) -> Mapping[str, bool]:
        """Tell workers to finish what runs, and end; the async form of `drain`."""
        named, act = _meant(workers, every=every), _act(Order.DRAIN, workers, by, reason)
        return await self._asks.aask(lambda store: _order(store, Order.DRAIN, named, act))

    def stop(self, *workers: str, every: bool = False, by: str = "", reason: str = "") -> Mapping[str, bool]:
        """Tell workers to cancel what runs, and end, as after a second signal; else as `drain`."""
        named, act = _meant(workers, every=every), _act(Order.STOP, workers, by, reason)
        return self._block("stop", lambda store: _order(store, Order.STOP, named, act))

    async def astop(
        self, *workers: str, every: bool = False, by: str = "", reason: str = ""
    ) -> Mapping[str, bool]:
        """Tell workers to cancel what runs, and end; the async form of `stop`."""
        named, act = _meant(workers, every=every), _act(Order.STOP, workers, by, reason)
        return await self._asks.aask(lambda store: _order(store, Order.STOP, named, act))

    def _block(self, name: str, work: Callable[[Store], Awaitable[T]]) -> T:
        refuse_on_loop(f"harbor.workers.{name}()", f"harbor.workers.a{name}(...)")
        return self._asks.ask(work)


def _meant(workers: Sequence[str], *, every: bool) -> Sequence[str] | None:
    """Return who is named, each once; None for all."""
    if bool(workers) == every:
        raise OptionError("name one or more workers, as harbor.workers.list() tells them, or say every=True")
    return None if every else list(dict.fromkeys(text_list(workers, "workers", "names, one by one")))


def _act(order: Order, workers: Sequence[str], by: str, reason: str) -> Act:
    return make_act(f"workers.{order.value}", told_names(workers) or "all live workers", by=by, reason=reason)


async def _order(store: Store, order: Order, named: Sequence[str] | None, act: Act) -> Mapping[str, bool]:
    if named is None:
        named = [worker.worker for worker in await store.worker_list(WorkerList())]
    request = WorkerOrder(workers=named, order=order, by=act.by, reason=act.reason, act=act)
    return dict(zip(named, await store.worker_order(request), strict=True))
