"""Those who meet at the job table, each on a connection of its own, driven step by step: producers, workers, others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Generic, TypedDict, TypeVar, Unpack, cast

import psycopg
from psycopg import pq

from taskharbor.driver import (
    AgedTake,
    Enqueued,
    JobEnqueue,
    JobReserve,
    JobSettle,
    LeaseReclaim,
    QueueTake,
    Reservation,
)
from taskharbor.drivers.postgres.carry import carry
from taskharbor.drivers.postgres.enqueue import job_enqueue
from taskharbor.drivers.postgres.lease import lease_reclaim
from taskharbor.drivers.postgres.marks import Marks
from taskharbor.drivers.postgres.reserve import Walker
from taskharbor.drivers.postgres.routine import Query, Routine, Row, Wakes
from taskharbor.drivers.postgres.rows import OptionsBook
from taskharbor.drivers.postgres.settle import job_settle
from taskharbor.drivers.postgres.slots import Slots
from taskharbor.drivers.postgres.step import Step
from taskharbor.job import DEFAULT_QUEUE, Delivery, NewJob, new_token
from taskharbor.settlement import Settlement
from taskharbor_conformance.bench import BUILD, DAY, LEASE, TASK, new_job
from tests.support.postgres_place import SharedSchema
from tests.support.work import eventually

Q = TypeVar("Q")
T = TypeVar("T")

MANY = 1000


class Party:
    """Somebody with a connection."""

    def __init__(self, schema: SharedSchema) -> None:
        self.schema = schema
        self.connection = schema.connect()
        self.connection.execute(b"SET lock_timeout = '20s'")  # who would wait for ever fails
        self.change: Callable[[str], str] = str
        """What is done to each statement before it is sent."""
        self.step = Step(None, OptionsBook(), Slots(), Wakes())

    def ask(self, routine: Routine[T]) -> T:
        """Carry out a routine, as a transaction of its own or in the one that was begun."""
        cursor = psycopg.RawCursor(self.connection)
        return carry(cursor, self._changed(routine), self.schema.name, prepare=True)

    def _changed(self, routine: Routine[T]) -> Routine[T]:
        query = next(routine)
        try:
            while True:
                rows: list[Row] = yield Query(self.change(query.sql), query.params)
                query = routine.send(rows)
        except StopIteration as end:
            return cast("T", end.value)

    def verb(self, verb: Callable[[Step, Q], Routine[T]], request: Q) -> T:
        """Ask any verb."""
        return self.ask(verb(self.step, request))

    def do(self, sql: str) -> list[Row]:
        """Run one statement."""
        cursor = self.connection.execute(sql.encode())
        return cursor.fetchall() if cursor.description else []

    def begin(self, *, isolation: str = "READ COMMITTED") -> None:
        """Begin a transaction; it has no number yet."""
        self.do(f"BEGIN ISOLATION LEVEL {isolation}")

    def number(self) -> int:
        """Have the transaction be given its number, if it has none, and return it."""
        return int(self.do("SELECT pg_current_xact_id()::text")[0][0])

    def commit(self) -> None:
        """Commit what was begun."""
        self.do("COMMIT")

    def roll_back(self) -> None:
        """Roll back what was begun."""
        self.do("ROLLBACK")

    def put(self, *jobs: NewJob) -> list[str]:
        """Enqueue jobs, one of no particular kind if none is given, and return their ids."""
        jobs = jobs or (new_job(),)
        self.ask(job_enqueue(self.step, JobEnqueue(jobs=jobs)))
        return [job.id for job in jobs]

    def enqueue(self, *jobs: NewJob) -> list[Enqueued]:
        """Enqueue jobs within the transaction that was begun, or one of its own, and return the answers."""
        begun = self.connection.info.transaction_status != pq.TransactionStatus.IDLE
        if not begun:
            self.begin()
        try:
            return list(self.verb(job_enqueue, JobEnqueue(jobs=jobs)))
        finally:
            if not begun:
                self.commit()

    def just_before(self, words: str, act: Callable[[], object]) -> None:
        """Have something done, once, when a statement with these words is about to be sent."""

        def change(sql: str) -> str:
            if words in sql:
                self.change = str
                act()
            return sql

        self.change = change

    def put_some(self, count: int) -> list[str]:
        """Enqueue so many jobs in one batch, all due at the same instant."""
        return self.put(*(new_job() for _ in range(count)))

    def settle(self, *settlements: Settlement) -> None:
        """Settle."""
        self.ask(job_settle(self.step, JobSettle(settlements=settlements)))

    def reclaim(self) -> list[str]:
        """Take back the jobs of expired leases, and return their ids."""
        request = LeaseReclaim(observed=DAY, limit=MANY)
        return [reclaimed.job_id for reclaimed in self.ask(lease_reclaim(self.step, request))]

    def lock(self, ids: Iterable[str]) -> None:
        """Lock rows until the transaction ends."""
        found = self.connection.execute(
            b"SELECT id FROM job WHERE id = ANY (%s::uuid[]) FOR UPDATE", (list(ids),)
        ).fetchall()
        assert len(found) == len(list(ids))


class Asked(TypedDict, total=False):
    """What a test may say of a reserve; the rest lets everything be taken."""

    queues: Mapping[str, int]
    """The quota of each."""
    lease: timedelta
    token: int
    build: str
    guarded_limit: int
    solo: bool
    aged: AgedTake


class Taker(Party):
    """A worker, as far as it reserves: the marks' clock is turned by the test."""

    def __init__(self, schema: SharedSchema, name: str) -> None:
        super().__init__(schema)
        self.name = name
        self.tokens: set[int] = set()
        """Of its reserves."""
        self.forget()

    def forget(self) -> None:
        """Know nothing, as a worker that has just begun."""
        self.seconds = 0.0
        self.walker = Walker()
        self.walker.marks = Marks(lambda: self.seconds)

    def reserve(self, limit: int = MANY, **asked: Unpack[Asked]) -> Reservation:
        """Walk once, and return the answer."""
        return self.ask(self.walker.walk(self.step, self.request(limit, **asked)))

    def request(self, limit: int = MANY, **asked: Unpack[Asked]) -> JobReserve:
        """Return what is asked of a walk."""
        queues = asked.get("queues", {DEFAULT_QUEUE: MANY})
        token = asked.get("token", new_token())
        self.tokens.add(token)
        return JobReserve(
            queues=[QueueTake(name, quota) for name, quota in queues.items()],
            limit=limit,
            lease=asked.get("lease", LEASE),
            token=token,
            worker=self.name,
            tasks=frozenset({TASK}),
            build=asked.get("build", BUILD),
            guarded_limit=asked.get("guarded_limit", MANY),
            solo=asked.get("solo", True),
            aged=asked.get("aged"),
        )


class Meeting:
    """Producers and workers on one empty schema; it knows who holds which job."""

    def __init__(self, schema: SharedSchema, stack: ExitStack) -> None:
        schema.empty()
        self.schema = schema
        self.held: dict[str, Delivery] = {}
        self._stack = stack
        self._takers: list[Taker] = []

    def start_anew(self) -> None:
        """Let everything be as in the beginning, with the same who meet."""
        self.schema.empty()
        self.held.clear()
        for taker in self._takers:
            taker.forget()

    def party(self) -> Party:
        """Return one more of them: a producer, or whoever."""
        party = Party(self.schema)
        self._stack.callback(party.connection.close)
        return party

    def taker(self) -> Taker:
        """Return one more worker, which knows nothing yet."""
        taker = Taker(self.schema, f"worker-{len(self._takers)}")
        self._stack.callback(taker.connection.close)
        self._takers.append(taker)
        return taker

    def take(self, taker: Taker, limit: int = MANY, **asked: Unpack[Asked]) -> list[str]:
        """Let a worker walk once, and return the ids it got, which nobody may hold."""
        return self.note(taker.reserve(limit, **asked))

    def note(self, reservation: Reservation) -> list[str]:
        """Note who holds what was reserved, and return the ids."""
        for delivery in reservation.deliveries:
            assert delivery.id not in self.held, f"the job {delivery.id} was reserved twice"
            self.held[delivery.id] = delivery
        return [delivery.id for delivery in reservation.deliveries]

    def let_go(self, ids: Iterable[str]) -> list[Delivery]:
        """Return the deliveries of jobs that are about to be given back."""
        return [self.held.pop(job_id) for job_id in ids]

    def ready(self) -> list[str]:
        """Return the jobs that are ready, and that nobody holds."""
        sql = "SELECT id::text FROM job WHERE token IS NULL AND due <= clock_timestamp() ORDER BY id"
        return [row[0] for row in self.schema.ask(sql)]

    def finds_all(self, taker: Taker, *, seconds: float = 2, **asked: Unpack[Asked]) -> None:
        """Check that all that is ready is found by this worker alone, so many seconds later.

        It walks once, and again only where its reserve said so.
        """
        taker.seconds += seconds
        for _ in range(4):
            answer = taker.reserve(**asked)
            self.note(answer)
            if answer.next_due_in is None or answer.next_due_in:
                break
        assert [] == self.ready()


@contextmanager
def meeting(schema: SharedSchema) -> Generator[Meeting]:
    """Let some meet on an emptied schema; their connections are closed when they part."""
    with ExitStack() as stack:
        yield Meeting(schema, stack)


class Blocked(Generic[T]):
    """What somebody has begun, and waits with for a lock."""

    def __init__(self, party: Party, call: Callable[[], T]) -> None:
        """Return once it waits."""
        self._look = Party(party.schema)
        self._pid = party.connection.info.backend_pid
        self._pool = ThreadPoolExecutor(1)
        self._future = self._pool.submit(call)
        try:
            eventually(self._waits, "somebody who waits for a lock")
        finally:
            self._look.connection.close()

    def answer(self) -> T:
        """Wait for the end of it, and return what came of it."""
        try:
            return self._future.result(20)
        finally:
            self._pool.shutdown()

    def _waits(self) -> bool:
        assert not self._future.done(), f"it waited for nobody: {self._future.exception()}"
        sql = f"SELECT wait_event_type FROM pg_stat_activity WHERE pid = {self._pid}"
        return self._look.do(sql) == [("Lock",)]


class Held:
    """A statement that somebody has sent, and that stands still: its snapshot is taken, and nothing else is done."""

    def __init__(self, party: Party, call: Callable[[], T]) -> None:
        self._gate = Party(party.schema)
        self._key = new_token()
        self._gate.do(f"SELECT pg_advisory_lock({self._key})")
        self._answer: object = None
        self._error: BaseException | None = None

        def run() -> None:
            party.change = self._through_gate
            try:
                self._answer = call()
            except BaseException as error:  # noqa: BLE001 - told to whoever waits
                self._error = error
            finally:
                party.change = str

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        try:
            eventually(self._stands, "the statement at the gate")
        except BaseException:
            self._open()  # the thread must not use a connection that is about to be closed
            raise

    def go_on(self) -> None:
        """Let it go on, and wait until it has ended."""
        self._open()
        if self._error is not None:
            raise self._error

    def answer(self) -> object:
        """Let it go on, and return what was answered."""
        self.go_on()
        return self._answer

    def _open(self) -> None:
        self._gate.connection.close()
        self._thread.join(20)
        assert not self._thread.is_alive()

    def _through_gate(self, sql: str) -> str:
        begin = "WITH clock AS MATERIALIZED (SELECT "
        return sql.replace(begin, f"{begin}pg_advisory_xact_lock_shared({self._key}) IS NULL AS gate, ", 1)

    def _stands(self) -> bool:
        assert self._thread.is_alive(), f"it ended without coming to the gate: {self._error}"
        high, low = self._key >> 32, self._key & 0xFFFFFFFF
        return bool(
            self._gate.do(
                "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted "
                f"AND classid = {high} AND objid = {low}"
            )
        )
