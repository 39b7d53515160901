"""Lines in the memory store, beyond what the suite asks of every driver: what it forgets, whom it wakes, any order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from taskharbor.clock import SystemClock
from taskharbor.driver import (
    AgedTake,
    HoldLift,
    HoldPlace,
    JobEnqueue,
    JobFind,
    JobReserve,
    JobSettle,
    LeaseReclaim,
    LimitClear,
    LimitList,
    LimitSet,
    QueueTake,
    Reservation,
)
from taskharbor.drivers.memory.blocking import run
from taskharbor.drivers.memory.enqueue import job_enqueue
from taskharbor.drivers.memory.find import job_find
from taskharbor.drivers.memory.lease import lease_reclaim
from taskharbor.drivers.memory.limits import hold_lift, hold_place, limit_clear, limit_list, limit_set
from taskharbor.drivers.memory.reserve import job_reserve
from taskharbor.drivers.memory.settle import job_settle
from taskharbor.drivers.memory.tables import Tables, subscribe
from taskharbor.job import Delivery, JobState
from taskharbor.limit import LimitTerms, RateTerms, Scope, ScopeKind
from taskharbor.settlement import SettleKind, Settlement
from taskharbor_conformance.bench import new_job

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
MICRO = timedelta(microseconds=1)
LEASE = timedelta(seconds=30)
TASKS = ("mail.send", "video.cut")
QUEUES = ("default", "night")


class Shop:
    """A memory store, asked without an event loop, at the time that the test says."""

    def __init__(self) -> None:
        self.tables = Tables(SystemClock())
        self.now = NOW
        self.held: dict[str, Delivery] = {}
        self._token = 0

    def enqueue(self, *, delay: float = 0, **fields: str | int | None) -> None:
        job = new_job(run_in=timedelta(seconds=delay) if delay else None, **fields)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
        run(self.tables, job_enqueue, JobEnqueue(jobs=[job], now=self.now))

    def reserve(
        self,
        queues: Sequence[str] = QUEUES,
        limit: int = 1000,
        *,
        lines: int | None = None,
        aged: AgedTake | None = None,
        guarded: int = 1000,
    ) -> Reservation:
        self._token += 1
        request = JobReserve(
            queues=[QueueTake(queue, limit) for queue in queues],
            limit=limit,
            lease=LEASE,
            token=self._token,
            worker="w",
            tasks=frozenset(TASKS),
            build="b",
            guarded_limit=guarded,
            solo=True,
            aged=aged,
            partitioned_limit=lines,
            now=self.now,
        )
        answer = run(self.tables, job_reserve, request)
        self.held.update((one.id, one) for one in answer.deliveries)
        return answer

    def settle(
        self, *deliveries: Delivery, kind: SettleKind = SettleKind.SUCCEED, after: timedelta | None = None
    ) -> None:
        settlements = [
            Settlement(one.id, one.token, kind, after=after, charge=kind is SettleKind.RETRY)
            for one in deliveries
        ]
        run(self.tables, job_settle, JobSettle(settlements=settlements, now=self.now))
        for one in deliveries:
            del self.held[one.id]

    def limit(self, scope: Scope, terms: LimitTerms) -> None:
        run(self.tables, limit_set, LimitSet(scope=scope, terms=terms, now=self.now))

    def running(self) -> dict[Scope, int]:
        """Return, of each gate that a leased job stands behind, how many it is."""
        partitions = {
            record.id: record.partition or ""
            for record in run(
                self.tables, job_find, JobFind(states=frozenset({JobState.RUNNING}), limit=1000)
            )
        }
        assert partitions.keys() == self.held.keys()
        found: Counter[Scope] = Counter()
        for one in self.held.values():
            found[Scope(ScopeKind.QUEUE, one.queue)] += 1
            found[Scope(ScopeKind.TASK, one.task)] += 1
            found[Scope(ScopeKind.KEY, one.task, partitions[one.id])] += 1
        return found


def test_lines_that_have_come_to_their_end_are_forgotten() -> None:
    shop = Shop()
    for number in range(100):
        shop.enqueue(partition=f"p{number}")

    shop.settle(*shop.reserve().deliveries)
    shop.reserve()

    assert [ring.order for ring in shop.tables.lines.rings["default"].values()] == [[]]


def test_the_end_of_a_job_wakes_every_queue_in_which_jobs_of_its_task_wait() -> None:
    shop = Shop()
    shop.limit(Scope(ScopeKind.TASK, TASKS[0]), LimitTerms(max_running=1))
    for queue in QUEUES:
        shop.enqueue(queue=queue)
    (first,) = shop.reserve().deliveries
    woken: list[str] = []
    for queue in (*QUEUES, "other"):
        subscribe(shop.tables, shop.tables.queue_watchers, [queue], partial(woken.append, queue))

    shop.settle(first)

    assert sorted(woken) == sorted(QUEUES)


def test_queues_with_limits_draw_together_on_the_slots_that_are_free() -> None:
    shop = Shop()
    for queue in QUEUES:
        shop.limit(Scope(ScopeKind.QUEUE, queue), LimitTerms(max_running=5))
        shop.enqueue(queue=queue)

    first, second = shop.reserve(lines=1), shop.reserve(lines=1)

    assert [len(first.deliveries), len(second.deliveries)] == [1, 1]
    assert (first.held_back, first.next_due_in) == (True, timedelta(0))
    assert (second.held_back, second.next_due_in) == (False, None)


def test_a_rate_that_is_set_anew_begins_with_its_whole_burst_and_goes_on_if_only_numbers_change() -> None:
    shop = Shop()
    scope = Scope(ScopeKind.TASK, TASKS[0])
    hourly = LimitTerms(rate=RateTerms(1, timedelta(hours=1), burst=2))
    for _ in range(9):
        shop.enqueue()
    taken: list[int] = []
    for terms in (hourly, LimitTerms(rate=RateTerms(2, timedelta(hours=1), burst=2)), LimitTerms(), hourly):
        shop.limit(scope, terms)
        taken.append(len(shop.reserve(limit=3).deliveries))

    assert taken == [2, 0, 3, 2]


def test_elders_of_lines_go_first_as_many_as_aging_asks_for() -> None:
    shop = Shop()
    for _ in range(5):
        shop.enqueue(partition="a", priority=9)
    shop.enqueue(partition="b", priority=9)
    shop.now += timedelta(minutes=10)
    for _ in range(20):
        shop.enqueue(priority=0)

    taken = shop.reserve(limit=6, aged=AgedTake(timedelta(minutes=5), 4)).deliveries

    assert Counter(one.priority for one in taken) == {9: 4, 0: 2}


def _draw_scope(random: Random) -> Scope:
    kind = random.choice(list(ScopeKind))
    name = random.choice(QUEUES if kind is ScopeKind.QUEUE else TASKS)
    return Scope(kind, name, random.choice(["", "a", "b"]) if kind is ScopeKind.KEY else "")


def _draw_terms(random: Random) -> LimitTerms:
    return LimitTerms(
        max_running=random.choice([None, 0, 1, 2, 5]),
        rate=random.choice([None, None, RateTerms(2, timedelta(seconds=3), burst=random.choice([1, 4]))]),
    )


def _act(shop: Shop, random: Random) -> None:
    """Do anything but reserve."""
    held = random.sample(list(shop.held.values()), k=random.randrange(len(shop.held) + 1))
    match random.randrange(12):
        case 0 | 1 | 2 | 3:
            for _ in range(random.randrange(1, 8)):
                shop.enqueue(
                    delay=random.choice([0, 0, 0, 2, 60]),
                    queue=random.choice(QUEUES),
                    task=random.choice(TASKS),
                    priority=random.choice([0, 5, 5]),
                    partition=random.choice([None, None, "", "a", "b", "c"]),
                )
        case 4:
            shop.limit(_draw_scope(random), _draw_terms(random))
        case 5:
            request = LimitClear(scopes=[_draw_scope(random) for _ in range(4)], now=shop.now)
            run(shop.tables, limit_clear, request)
        case 6:
            scope = random.choice([Scope(ScopeKind.TASK, TASKS[1]), Scope(ScopeKind.KEY, TASKS[0], "a")])
            run(shop.tables, hold_place, HoldPlace(scopes=[scope], now=shop.now))
            run(shop.tables, hold_lift, HoldLift(scopes=[scope] * random.randrange(2), now=shop.now))
        case 7:
            shop.now += timedelta(seconds=random.choice([1, 10]))
        case 8:  # a worker dies
            shop.now += timedelta(minutes=2)
            for one in run(shop.tables, lease_reclaim, LeaseReclaim(observed=LEASE, limit=3, now=shop.now)):
                del shop.held[one.job_id]
        case 9:
            shop.settle(*held, kind=SettleKind.RETRY, after=timedelta(seconds=random.randrange(9)))
        case 10:
            shop.settle(*held, kind=SettleKind.RELEASE)
        case _:
            shop.settle(*held)


def _reserve_in_any_way(shop: Shop, random: Random) -> None:
    """Take something; no limit may be passed, and nothing may be due before it is told to be."""
    before = shop.running()
    limit = random.choice([1, 3, 1000])
    answer = shop.reserve(
        random.choice([QUEUES, QUEUES[:1]]),
        limit,
        lines=random.choice([None, None, 0, 2]),
        aged=random.choice([None, AgedTake(timedelta(seconds=5), 2)]),
        guarded=random.choice([0, 1, 1000]),
    )
    assert len(answer.deliveries) <= limit
    after = shop.running()
    rules = shop.tables.rules
    for one in answer.deliveries:
        partition = shop.tables.rows[one.id].job.partition or ""
        for scope, terms in rules.gates(one.queue, one.task, partition):
            assert terms.max_running is None or after[scope] <= max(terms.max_running, before[scope])
        assert rules.hold(one.task, partition) is None
    for record in run(shop.tables, limit_list, LimitList()):
        if record.scope.kind is not ScopeKind.KEYS:
            assert record.running == after[record.scope]
    told = shop.reserve().next_due_in
    if told is None or told > timedelta(0):
        shop.now += timedelta(days=1) if told is None else told - MICRO
        assert not shop.reserve().deliveries


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False))
def test_in_any_order_of_verbs_limits_are_kept_and_nothing_is_lost(random: Random) -> None:
    shop = Shop()
    for _ in range(random.randrange(60)):
        (_reserve_in_any_way if random.randrange(3) == 0 else _act)(shop, random)

    scopes = [*shop.tables.limits, *shop.tables.holds]
    run(shop.tables, limit_clear, LimitClear(scopes=scopes, now=shop.now))
    run(shop.tables, hold_lift, HoldLift(scopes=scopes, now=shop.now))
    shop.settle(*shop.held.values())
    for _ in range(100):
        answer = shop.reserve()
        if answer.next_due_in is None and not answer.deliveries:
            break
        shop.settle(*answer.deliveries)
        shop.now += answer.next_due_in or timedelta(0)
    assert {row.final for row in shop.tables.rows.values()} <= {JobState.SUCCEEDED, JobState.DEAD}
    assert not shop.tables.leases
    assert not shop.tables.rules
