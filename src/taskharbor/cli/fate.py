"""What becomes of flows when something is done to their steps: which have ended already, and which would end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from taskharbor.driver import FlowGet
from taskharbor.flow import FLOW_ENDED, FlowRecord, FlowState
from taskharbor.harbor import Harbor
from taskharbor.job import JobRecord

_BATCH = 100
"""Flows that are looked up at once."""


class Fates:
    """The flows of steps, met page by page. Holds those of one page, and the ids of all that would end."""

    def __init__(self, harbor: Harbor) -> None:
        """Ask nothing yet."""
        self._harbor = harbor
        self._ended: dict[str, bool] = {}
        self._ending: set[str] = set()

    def meet(self, page: Sequence[JobRecord]) -> None:
        """Look up the flows of a page's steps; those that the page before had are known."""
        wanted = dict.fromkeys(job.flow for job in page if job.flow is not None)
        ended = {flow: self._ended[flow] for flow in wanted if flow in self._ended}
        for batch in _batches(flow for flow in wanted if flow not in ended):
            ended.update(zip(batch, map(_has_ended, self._look_up(batch)), strict=True))
        self._ended = ended

    def ended(self, flow: str) -> bool:
        """Return whether a flow of the page that was met last has ended, or is no longer there."""
        return self._ended[flow]

    def ends(self, flow: str) -> bool:
        """Note that a flow ends, and return whether that is news."""
        if self._ended[flow] or flow in self._ending:
            return False
        self._ending.add(flow)
        return True

    def _look_up(self, ids: Sequence[str]) -> Sequence[FlowRecord | None]:
        return self._harbor.ask(lambda store: store.flow_get(FlowGet(ids=ids)))


def any_flows(harbor: Harbor) -> bool:
    """Return whether there is any flow that has not ended."""
    return bool(harbor.flows.find(states=[FlowState.RUNNING, FlowState.FAILED], limit=1))


def _has_ended(flow: FlowRecord | None) -> bool:
    return flow is None or flow.state in FLOW_ENDED


def _batches(ids: Iterable[str]) -> Iterator[Sequence[str]]:
    source = iter(ids)
    while batch := list(islice(source, _BATCH)):
        yield batch
