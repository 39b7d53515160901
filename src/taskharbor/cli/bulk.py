"""Does one thing to many jobs: to those that are named, or with `--all` to all that match, page by page.

Memory is that of one page, however many there are. What is met once is not met again: pages go by id, and a job that
was requeued and has died meanwhile stands before the place where the next page begins. What came after the command had
begun is not met either: it is done to those that were counted, and asked about, however many more there are by then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, TypeAlias

import msgspec
import typer

from taskharbor.audit import Act
from taskharbor.cli.acting import FEW, Status, act, batches, cut_short, ids_of, operator, tell, told
from taskharbor.cli.fate import any_flows
from taskharbor.cli.filters import Filter, counts_of
from taskharbor.cli.listing import hint_unknown_tasks, look_up, pages
from taskharbor.cli.output import confirm, line, note, progress, to_the_end
from taskharbor.cli.rehearsal import rehearse
from taskharbor.cli.verbs import Verb
from taskharbor.control import make_act, not_found, told_names
from taskharbor.driver import LeaseExtend
from taskharbor.errors import OptionError
from taskharbor.harbor import Harbor
from taskharbor.job import JobRecord, JobState

AllOption: TypeAlias = Annotated[bool, typer.Option("--all", help="All that match the filters, in pages.")]
DryRunOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Change nothing: count them, and decode each with today's signature of its task. Ends with 1 if one "
        "that is named would be left as it is, or if some would be requeued and could not run.",
    ),
]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done, and to which jobs."""

    command: str
    """As it is typed, for what is said of it."""
    verb: Verb
    noun: str = "job"
    ids: Sequence[str] = ()
    every: bool = False
    wanted: Filter
    reason: str = ""
    by: str = ""
    """Who does it; empty for the user here."""
    asks: bool = False
    """It asks before it is done to named jobs, too."""
    dry_run: bool = False
    yes: bool = False
    as_json: bool = False

    def act(self, target: str) -> Act:
        """Return whose act it is: one entry of the audit trail, however many requests it takes."""
        return make_act(self.verb.action, target, by=operator(self.by), reason=self.reason)

    def check(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            OptionError: neither ids nor `--all`, or both; filters without `--all`; or `--all` without a filter, where
                that would be too much.
        """
        if bool(self.ids) == self.every:
            raise OptionError(f"{self.command}: give the ids of {_many(self.noun)}, or --all")
        if self.ids and self.wanted.is_given():
            raise OptionError(
                f"{self.command}: filters go with --all; ids say which {_many(self.noun)} already"
            )
        if self.every and self.verb.needs_filter and not self.wanted.is_given():
            raise OptionError(
                f"{self.command}: --all by itself means every job of every application on this store; narrow it down, "
                "by --queue or --task for example"
            )


def carry_out(harbor: Harbor, order: Order) -> bool:
    """Do what is ordered, and return whether it could be done to all.

    Raises:
        OptionError: as `Order.check`; or it has to be asked for, and nobody is there to answer.
        Exit: the answer was no.
    """
    order.check()
    if order.every:
        return _to_all(harbor, order, order.wanted.of(order.verb.states))
    if order.dry_run:
        missing: list[str] = []
        found = _named(harbor, order.ids, missing)
        well = rehearse(harbor, found, order.verb, order.noun, named=True, as_json=order.as_json)
        return well and not missing
    if order.asks:
        which = (
            f"all {_many(order.noun)} that standard input names"
            if "-" in order.ids
            else _counted(len(order.ids), order.noun)
        )
        _ask(harbor, order, which)
    whose = order.act("ids from standard input" if "-" in order.ids else told_names(order.ids))
    return act(
        ids_of(order.ids),
        lambda some: order.verb.do(harbor, some, order.verb.only, whose),
        as_json=order.as_json,
        words=order.verb.words,
    )


def _to_all(harbor: Harbor, order: Order, wanted: Filter) -> bool:
    wanted = wanted.until(_now(harbor))
    counts = counts_of(harbor, wanted)
    total = sum(len(page) for page in pages(harbor, wanted)) if counts is None else sum(counts.values())
    if not total:
        note(f"No such {_many(order.noun)}." if order.wanted.is_given() else f"No {_many(order.noun)}.")
        hint_unknown_tasks(harbor, wanted.tasks)
        return True
    if order.dry_run:
        found = pages(harbor, wanted, payloads=len(harbor.registry) > 0)
        return rehearse(harbor, found, order.verb, order.noun, total=total, as_json=order.as_json)
    _ask(harbor, order, _counted(total, order.noun) + _told_states(counts))
    whose = order.act(f"all {_many(order.noun)}: {wanted.told()}")
    # What somebody else has done meanwhile stands: a dead letter that was requeued is not deleted for having been one.
    states = order.verb.only or frozenset(order.wanted.states)
    answers: Counter[Status] = Counter()
    with to_the_end(), cut_short() as begun, progress(order.verb.asked.lower(), total) as advance:
        try:
            for page in pages(harbor, wanted):
                ids = [record.id for record in page]
                begun(len(ids))
                page_answers = order.verb.do(harbor, ids, states, whose)
                begun(0)
                for job_id, status in zip(ids, page_answers, strict=True):
                    answers[status] += 1
                    if order.as_json or told(status) != order.verb.done:
                        tell(job_id, status, as_json=order.as_json, words=order.verb.words)
                advance(len(page))
        finally:
            if not order.as_json:
                done = sum(count for status, count in answers.items() if told(status) == order.verb.done)
                line(f"{done:,} {order.verb.done}")
    return order.verb.fine.issuperset(answers)


def _now(harbor: Harbor) -> datetime:
    """Return the moment up to which things count, by the store's clock: a beat that keeps no lease tells it."""
    length = timedelta(seconds=1)
    beat = LeaseExtend(worker="", leases=(), lease=length)
    answer = harbor.ask(lambda store: store.lease_extend(beat))
    return answer.expires_at - length + timedelta.resolution


def _named(harbor: Harbor, ids: Iterable[str], missing: list[str]) -> Iterator[Sequence[JobRecord]]:
    """Yield the jobs that are named, page by page; one that is not there is told, and the first put into `missing`."""
    for batch in batches(ids_of(ids), size=FEW):
        records = look_up(harbor, batch)
        for job_id, record in zip(batch, records, strict=True):
            if record is None:
                note(str(not_found(job_id)))
                missing[:] = missing or [job_id]
        yield [record for record in records if record is not None]


def _ask(harbor: Harbor, order: Order, which: str) -> None:
    """Ask before it is done; raises as `confirm`."""
    if not order.yes and order.verb.ends_flows and any_flows(harbor):
        note("Where they are steps of flows, the flows end with them; --dry-run counts those.")
    confirm(f"{order.verb.asked} {which}{' for good' if order.verb.for_good else ''}?", yes=order.yes)


def _told_states(counts: Mapping[JobState, int] | None) -> str:
    """Return how many are in which state, where there are several."""
    if counts is None or len(counts) < 2:
        return ""
    return f" ({', '.join(f'{count:,} {state.value}' for state, count in counts.items())})"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun if count == 1 else _many(noun)}"


def _many(noun: str) -> str:
    return f"{noun}s"
