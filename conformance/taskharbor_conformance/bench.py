"""The bench on which a case tries a driver: a store, a clock that only the case turns, and short ways to ask.

Every request carries the bench's `now`, so no case sleeps and none depends on the machine's clock (rule 4.18).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Self, TypeAlias, TypedDict, Unpack

from taskharbor.clock import ManualClock
from taskharbor.driver import (
    AgedTake,
    CancelStatus,
    DeleteStatus,
    Driver,
    Enqueued,
    EnqueueStatus,
    FlowCancel,
    FlowFind,
    FlowGet,
    JobCancel,
    JobDelete,
    JobEnqueue,
    JobFind,
    JobGet,
    JobRequeue,
    JobReserve,
    JobSettle,
    LeaseExtend,
    LeaseExtended,
    LeaseHold,
    LeaseReclaim,
    QueueList,
    QueuePause,
    QueueResume,
    QueueTake,
    Reclaimed,
    RequeueStatus,
    Reservation,
    Store,
    TransactionalDriver,
    WorkerAnnounce,
)
from taskharbor.flow import FlowRecord, FlowState, NewFlow, Sequel
from taskharbor.job import (
    DEFAULT_KEY_TTL,
    DEFAULT_PRIORITY,
    DEFAULT_QUEUE,
    DEFAULT_RETAIN,
    AttemptError,
    Delivery,
    JobRecord,
    JobState,
    KeyRule,
    NewJob,
    OnConflict,
    new_job_id,
    new_token,
)
from taskharbor.retry import RetryNumbers
from taskharbor.settlement import Settled, SettleKind, Settlement, SettleStatus
from taskharbor_conformance.caller import Application, OpenCaller, connected

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
NOW = timedelta(0)

LEASE = 30 * SECOND
ENOUGH = 10_000
"""More jobs than any case has."""
TASK = "mail.send"
WORKER = "worker-1"
BUILD = "build-1"
UNKNOWN = "00000000-0000-7000-8000-000000000000"
"""An id that no job has."""
STEADY = RetryNumbers(max_attempts=5, base_seconds=10, factor=2, cap_seconds=60, jitter=False)
"""A policy without chance in it: waits of 10, 20, 40, 60 seconds."""
WAKE_SECONDS = 5.0
"""How long a wake-up is waited for. Far longer than any takes, so that only a missing one fails."""

OpenDriver: TypeAlias = Callable[[], Driver]
"""Opens one more driver on a place."""


class JobFields(TypedDict, total=False):
    """What a case may say of a new job; the rest is filled in."""

    id: str
    task: str
    payload: bytes
    codec: str
    fingerprint: int
    queue: str
    priority: int
    run_at: datetime | None
    run_in: timedelta | None
    retry: RetryNumbers
    timeout: timedelta | None
    meta: dict[str, str]
    key: str | None
    key_ttl: timedelta
    digest: bytes
    on_conflict: OnConflict
    key_rule: KeyRule | None
    keep_result: bool
    retain: timedelta
    partition: str | None


def new_job(**fields: Unpack[JobFields]) -> NewJob:
    """Return a job to be stored, of `TASK` and under the `STEADY` policy unless said otherwise."""
    key = fields.get("key")
    return NewJob(
        id=fields.get("id") or new_job_id(),
        task=fields.get("task", TASK),
        payload=fields.get("payload", b"[]"),
        codec=fields.get("codec", "json"),
        fingerprint=fields.get("fingerprint", 1),
        queue=fields.get("queue", DEFAULT_QUEUE),
        priority=fields.get("priority", DEFAULT_PRIORITY),
        run_at=fields.get("run_at"),
        run_in=fields.get("run_in"),
        retry=fields.get("retry", STEADY),
        timeout=fields.get("timeout"),
        meta=fields.get("meta", {}),
        key=key,
        key_ttl=fields.get("key_ttl", DEFAULT_KEY_TTL),
        digest=fields.get("digest", b"" if key is None else b"same arguments"),
        on_conflict=fields.get("on_conflict", OnConflict.EXISTING),
        key_rule=fields.get("key_rule"),
        keep_result=fields.get("keep_result", True),
        retain=fields.get("retain", DEFAULT_RETAIN),
        partition=fields.get("partition"),
    )


class ReserveFields(TypedDict, total=False):
    """What a case may say of a reserve; the rest is filled in, and lets everything be taken."""

    queues: Sequence[str] | Mapping[str, int]
    """Names, or the quota of each."""
    lease: timedelta
    token: int
    worker: str
    tasks: frozenset[str]
    build: str
    guarded_limit: int
    solo: bool
    aged: AgedTake | None
    partitioned_limit: int | None


class Bench:
    """One store under trial."""

    def __init__(
        self,
        driver: Driver,
        open_driver: OpenDriver,
        clock: ManualClock | None = None,
        open_caller: OpenCaller | None = None,
    ) -> None:
        self.driver = driver
        self.open_driver = open_driver
        """Opens one more driver on the same place, as another process would."""
        self._open_caller = open_caller
        # Near the real time, since a store may have prepared only for the days around it.
        self._clock = clock or ManualClock(datetime.now(UTC).replace(microsecond=0))
        self._connection = AsyncExitStack()
        self._store: Store | None = None

    async def __aenter__(self) -> Self:
        """Open the store."""
        self._store = await self._connection.enter_async_context(self.driver.connect())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the store."""
        await self.close()

    async def close(self) -> None:
        """Close the store before the case ends. Idempotent."""
        self._store = None
        await self._connection.aclose()

    @property
    def store(self) -> Store:
        """Return the store under trial."""
        assert self._store is not None, "the bench is open while its case runs"
        return self._store

    async def restart(self) -> None:
        """Close the store and its driver, and open the place anew, as a process does that was started again."""
        await self.close()
        self.driver.close()
        self.driver = self.open_driver()
        await self.__aenter__()

    @property
    def now(self) -> datetime:
        """Return the instant that every request carries."""
        return self._clock.now()

    def advance(self, by: timedelta) -> datetime:
        """Turn the clock and return the new instant."""
        return self._clock.advance(by)

    def beside(self, driver: Driver | None = None) -> Bench:
        """Return one more bench, with a store of this driver's or of another on the same place, and the same clock."""
        return Bench(driver or self.driver, self.open_driver, self._clock, self._open_caller)

    def application(self) -> AbstractAsyncContextManager[Application]:
        """Connect an application to the place, in a `harbor.using` block of its own; it is gone at the end."""
        driver = self.driver
        assert isinstance(driver, TransactionalDriver)
        assert self._open_caller is not None, (
            f"the driver {driver.name!r} says that it joins transactions, but its factory shows none; let it yield a "
            "`PlaceWithCallers`"
        )
        return connected(self._open_caller, driver, lambda: self.now)

    # --- a job's life

    async def enqueue(self, **fields: Unpack[JobFields]) -> str:
        """Store one job and return its id."""
        (answer,) = await self.enqueue_all(new_job(**fields))
        assert answer.status is EnqueueStatus.CREATED, f"expected a new job, got {answer.status}"
        return answer.job_id

    async def enqueue_all(self, *jobs: NewJob, all_or_none: bool = False) -> list[Enqueued]:
        """Store jobs in one batch and return the answers."""
        request = JobEnqueue(jobs=jobs, all_or_none=all_or_none, now=self.now)
        answers = list(await self.store.job_enqueue(request))
        assert len(jobs) == len(answers), "job_enqueue: one answer a job"
        return answers

    async def enqueue_flow(self, flow: NewFlow) -> NewFlow:
        """Store one flow and return it."""
        (answer,) = await self.enqueue_both(flows=[flow])
        assert (EnqueueStatus.CREATED, flow.id) == (answer.status, answer.job_id)
        return flow

    async def enqueue_both(
        self, *, jobs: Sequence[NewJob] = (), flows: Sequence[NewFlow] = (), all_or_none: bool = False
    ) -> list[Enqueued]:
        """Store jobs and flows in one batch and return the answers."""
        request = JobEnqueue(jobs=jobs, flows=flows, all_or_none=all_or_none, now=self.now)
        answers = list(await self.store.job_enqueue(request))
        assert len(jobs) + len(flows) == len(answers), "job_enqueue: one answer a job, then one a flow"
        return answers

    async def reserve(self, limit: int = ENOUGH, **fields: Unpack[ReserveFields]) -> Reservation:
        """Reserve up to `limit` jobs."""
        queues = fields.get("queues", (DEFAULT_QUEUE,))
        quotas = queues if isinstance(queues, Mapping) else dict.fromkeys(queues, ENOUGH)
        return await self.store.job_reserve(
            JobReserve(
                queues=[QueueTake(name, quota) for name, quota in quotas.items()],
                limit=limit,
                lease=fields.get("lease", LEASE),
                token=fields.get("token", new_token()),
                worker=fields.get("worker", WORKER),
                tasks=fields.get("tasks", frozenset({TASK})),
                build=fields.get("build", BUILD),
                guarded_limit=fields.get("guarded_limit", ENOUGH),
                solo=fields.get("solo", True),
                aged=fields.get("aged"),
                partitioned_limit=fields.get("partitioned_limit"),
                now=self.now,
            )
        )

    async def take(self, limit: int = ENOUGH, **fields: Unpack[ReserveFields]) -> list[Delivery]:
        """Reserve up to `limit` jobs and return their deliveries, in order."""
        return list((await self.reserve(limit, **fields)).deliveries)

    async def take_one(self, **fields: Unpack[ReserveFields]) -> Delivery:
        """Reserve one job, which must be there."""
        deliveries = await self.take(1, **fields)
        assert len(deliveries) == 1, f"expected one job to reserve, got {len(deliveries)}"
        return deliveries[0]

    async def take_ids(self, limit: int = ENOUGH, **fields: Unpack[ReserveFields]) -> list[str]:
        """Reserve up to `limit` jobs and return their ids, in order."""
        return [delivery.id for delivery in await self.take(limit, **fields)]

    async def extend(
        self,
        *deliveries: Delivery,
        started: Sequence[Delivery] = (),
        lease: timedelta = LEASE,
        worker: str = WORKER,
    ) -> LeaseExtended:
        """Extend the leases of these deliveries, reporting those started among them."""
        begun: dict[int, list[str]] = {delivery.token: [] for delivery in deliveries}
        for delivery in started:
            begun.setdefault(delivery.token, []).append(delivery.id)
        holds = [LeaseHold(token, ids) for token, ids in begun.items()]
        return await self.store.lease_extend(
            LeaseExtend(worker=worker, leases=holds, lease=lease, now=self.now)
        )

    async def start(self, *deliveries: Delivery) -> None:
        """Report these as started."""
        answer = await self.extend(started=deliveries)
        assert not answer.lost, "lease_extend: these leases are valid"

    async def reclaim(self, observed: timedelta = DAY, limit: int = ENOUGH) -> list[Reclaimed]:
        """Take expired leases back, as one who has seen the store without a break for `observed`."""
        request = LeaseReclaim(observed=observed, limit=limit, now=self.now)
        return list(await self.store.lease_reclaim(request))

    async def lose_workers(self) -> list[Reclaimed]:
        """Let every worker crash: no lease is extended any more, each expires and is reclaimed."""
        self.advance(2 * LEASE)
        return await self.reclaim()

    async def answers(self, *settlements: Settlement) -> list[Settled]:
        """Settle in one batch and return the answers."""
        request = JobSettle(settlements=settlements, now=self.now)
        answers = list(await self.store.job_settle(request))
        assert len(settlements) == len(answers), "job_settle: one answer a settlement"
        return answers

    async def settle(self, *settlements: Settlement) -> list[JobState | None]:
        """Settle in one batch, which the leases must allow, and return the states that the jobs came to."""
        answers = await self.answers(*settlements)
        assert [SettleStatus.SETTLED] * len(answers) == [answer.status for answer in answers]
        return [answer.state for answer in answers]

    async def finish(self, job_id: str, result: bytes | None = b"null") -> None:
        """Reserve what is ready, and let this job, which must be among it, succeed; the others are handed back."""
        await self.settle(success(await self.pick(job_id), result))

    async def bury(self, job_id: str, reason: str = "rejected") -> None:
        """Reserve what is ready, and make this job, which must be among it, a dead letter."""
        await self.settle(burial(await self.pick(job_id), reason))

    async def pick(self, job_id: str) -> Delivery:
        """Reserve what is ready, and return this job, which must be among it; the others are handed back."""
        deliveries = await self.take()
        await self.settle(*(release(one) for one in deliveries if one.id != job_id))
        picked = [one for one in deliveries if one.id == job_id]
        assert picked, "expected the job to be ready"
        return picked[0]

    # --- looking, and acting by hand

    async def get(self, *job_ids: str) -> list[JobRecord | None]:
        """Look jobs up."""
        return list(await self.store.job_get(JobGet(ids=job_ids, now=self.now)))

    async def record(self, job_id: str) -> JobRecord:
        """Look up a job that must be there."""
        (record,) = await self.get(job_id)
        assert record is not None, f"the job {job_id} is lost"
        return record

    async def state(self, job_id: str) -> JobState:
        """Return the state of a job that must be there."""
        return (await self.record(job_id)).state

    async def states(self, *job_ids: str) -> list[JobState]:
        """Return the states of jobs that must be there."""
        return [await self.state(job_id) for job_id in job_ids]

    async def flow(self, flow_id: str) -> FlowRecord:
        """Look up a flow that must be there."""
        (record,) = await self.store.flow_get(FlowGet(ids=[flow_id], now=self.now))
        assert record is not None, f"the flow {flow_id} is lost"
        return record

    async def flow_state(self, flow_id: str) -> FlowState:
        """Return the state of a flow that must be there."""
        return (await self.flow(flow_id)).state

    async def find_flows(self, *states: FlowState) -> list[str]:
        """Return the ids of all flows in one of these states; of all flows if none is named."""
        request = FlowFind(states=frozenset(states), limit=ENOUGH, now=self.now)
        return [record.id for record in await self.store.flow_find(request)]

    async def cancel_flows(self, *flow_ids: str, reason: str = "", by: str = "") -> list[CancelStatus]:
        """Cancel flows."""
        request = FlowCancel(ids=flow_ids, reason=reason, by=by, now=self.now)
        return list(await self.store.flow_cancel(request))

    async def find_ids(self, *states: JobState) -> list[str]:
        """Return the ids of all jobs in one of these states; of all jobs if none is named."""
        found = await self.store.job_find(JobFind(states=frozenset(states), limit=ENOUGH, now=self.now))
        return [record.id for record in found]

    async def cancel(self, *job_ids: str, reason: str = "", by: str = "") -> list[CancelStatus]:
        """Cancel jobs."""
        return list(await self.store.job_cancel(JobCancel(ids=job_ids, reason=reason, by=by, now=self.now)))

    async def requeue(
        self, *job_ids: str, states: Iterable[JobState] = (), reason: str = "", by: str = ""
    ) -> list[RequeueStatus]:
        """Requeue jobs; if states are named, those that are in one of them."""
        request = JobRequeue(ids=job_ids, states=frozenset(states), reason=reason, by=by, now=self.now)
        return list(await self.store.job_requeue(request))

    async def delete(self, *job_ids: str, states: Iterable[JobState] = ()) -> list[DeleteStatus]:
        """Delete jobs; if states are named, those that are in one of them."""
        request = JobDelete(ids=job_ids, states=frozenset(states), now=self.now)
        return list(await self.store.job_delete(request))

    async def pause(self, *queues: str, by: str = "", reason: str = "") -> None:
        """Pause queues."""
        await self.store.queue_pause(QueuePause(queues=queues, by=by, reason=reason, now=self.now))

    async def resume(self, *queues: str) -> None:
        """Resume queues."""
        await self.store.queue_resume(QueueResume(queues=queues, now=self.now))

    async def queue_names(self) -> list[str]:
        """Return the names of all queues listed."""
        return [queue.name for queue in await self.store.queue_list(QueueList(now=self.now))]

    async def announce(
        self,
        worker: str = WORKER,
        *,
        tasks: Sequence[str] = (TASK,),
        build: str = BUILD,
        ttl: timedelta = HOUR,
    ) -> None:
        """Put a worker on the register."""
        await self.store.worker_announce(
            WorkerAnnounce(
                worker=worker,
                queues=[DEFAULT_QUEUE],
                tasks=frozenset(tasks),
                build=build,
                ttl=ttl,
                host="host",
                pid=1,
                started_at=self.now,
                now=self.now,
            )
        )


# --- how a delivery ends


def success(
    delivery: Delivery, result: bytes | None = b"null", codec: str = "json", sequel: Sequel | None = None
) -> Settlement:
    """Return the settlement of a handler that returned."""
    return _end(SettleKind.SUCCEED, delivery, result=result, codec=codec, charge=True, sequel=sequel)


def error_of(delivery: Delivery, message: str = "boom") -> AttemptError:
    """Return the error of one attempt."""
    return AttemptError(
        attempt=delivery.attempt, type="ValueError", message=message, traceback="Traceback ...", worker=WORKER
    )


def failure(delivery: Delivery, after: timedelta = NOW, message: str = "boom") -> Settlement:
    """Return the settlement of a handler that raised and will be tried again."""
    return _end(SettleKind.RETRY, delivery, after=after, error=error_of(delivery, message), charge=True)


def burial(delivery: Delivery, reason: str = "rejected", message: str = "boom") -> Settlement:
    """Return the settlement that makes a job a dead letter."""
    return _end(SettleKind.BURY, delivery, error=error_of(delivery, message), reason=reason, charge=True)


def snooze(delivery: Delivery, for_: timedelta = NOW) -> Settlement:
    """Return the settlement of "not now"."""
    return _end(SettleKind.SNOOZE, delivery, after=for_)


def release(delivery: Delivery) -> Settlement:
    """Return the settlement of a job handed back."""
    return _end(SettleKind.RELEASE, delivery)


def cancellation(delivery: Delivery, reason: str = "") -> Settlement:
    """Return the settlement of a handler that a cancel ended."""
    return _end(SettleKind.CANCEL, delivery, reason=reason, charge=True)


def stray(delivery: Delivery, refused_by: str | None = None, reason: str = "unknown task") -> Settlement:
    """Return the settlement of a job that this worker cannot run; `refused_by` is its build if it cannot decode it."""
    return _end(SettleKind.STRAY, delivery, reason=reason, refused_by=refused_by)


class _EndFields(TypedDict, total=False):
    result: bytes | None
    codec: str
    after: timedelta | None
    error: AttemptError | None
    reason: str
    charge: bool
    refused_by: str | None
    sequel: Sequel | None


def _end(kind: SettleKind, delivery: Delivery, **fields: Unpack[_EndFields]) -> Settlement:
    return Settlement(delivery.id, delivery.token, kind, step=delivery.step is not None, **fields)


class Doorbell:
    """A wake-up callback that a case can wait for."""

    def __init__(self) -> None:
        self._rung = threading.Event()

    def __call__(self) -> None:
        """Be woken."""
        self._rung.set()

    @property
    def rung(self) -> bool:
        """Return whether a wake-up came since the last `reset`."""
        return self._rung.is_set()

    def reset(self) -> None:
        """Forget the wake-ups so far."""
        self._rung.clear()

    async def wait(self) -> None:
        """Wait for a wake-up."""
        # In a thread: drivers may call from any thread, and this waits the same for all of them.
        came = self.rung or await asyncio.to_thread(self._rung.wait, WAKE_SECONDS)
        assert came, f"no wake-up within {WAKE_SECONDS:.0f} s"
