"""The ceiling: an asyncio worker on psycopg that does no more than it must, after the prototypes of DESIGN section 9.

One connection reserves, one settles, and both go on at the same time. It keeps leases with a random token, lanes, and a
history partitioned by expiry, and every commit is durable. It has no retries, dead letters, keys, cancels, pauses,
quotas, guarded jobs, heartbeats or wake-ups, knows one queue and one task, checks nothing, and would lose a job that
commits late.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from uuid import UUID, uuid4

import msgspec
import psycopg
from psycopg import AsyncRawCursor
from psycopg.rows import TupleRow

from benchmarks.fixtures import IN_FLIGHT, Mail, noop
from benchmarks.postgres.bare_statements import COPY, INSERT, LONE, RESERVE, SETTLE, TABLES
from taskharbor.drivers.postgres.routine import plain_array
from taskharbor.job import new_job_ids

_FILL_ROWS = 1000
_BEGINNING = ("-infinity", "00000000-0000-0000-0000-000000000000")


class Bare:
    """The bare worker, its producer, and its tables in a schema."""

    def __init__(self, conninfo: str, schema: str) -> None:
        """Use this schema, which is not there yet."""
        self._conninfo = conninfo
        self._schema = schema
        self._lone = b""

    def create(self) -> None:
        """Make the tables."""
        with psycopg.connect(self._conninfo, autocommit=True) as connection:
            connection.execute(self._words(TABLES))

    @property
    def table(self) -> str:
        """Where its jobs are."""
        return f"{self._schema}.live"

    def insert(self, jobs: int, rows: int = _FILL_ROWS) -> float:
        """Put in jobs, encoded here, so many by a statement, and return how many seconds that took."""
        encode = msgspec.json.Encoder().encode
        with psycopg.connect(self._conninfo, autocommit=True, cursor_factory=psycopg.RawCursor) as connection:
            statement = self._words(INSERT)
            began = time.perf_counter()
            for start in range(0, jobs, rows):
                count = min(rows, jobs - start)
                ids = [UUID(job_id) for job_id in new_job_ids(count)]
                payloads = [encode(Mail("user@example.com", start + n)) for n in range(count)]
                connection.execute(
                    statement,
                    (ids, ["default"] * count, [noop.name] * count, payloads),
                    prepare=True,
                    binary=True,
                )
            return time.perf_counter() - began

    def copy(self, jobs: int) -> float:
        """Put in jobs by one COPY, and return how many seconds that took."""
        encode = msgspec.json.Encoder().encode
        with psycopg.connect(self._conninfo, autocommit=True) as connection:
            began = time.perf_counter()
            with connection.cursor().copy(self._words(COPY)) as copy:
                copy.set_types(["uuid", "text", "text", "bytea"])
                for n, job_id in enumerate(new_job_ids(jobs)):
                    copy.write_row((UUID(job_id), "default", noop.name, encode(Mail("user@example.com", n))))
            return time.perf_counter() - began

    async def drain(self, jobs: int, batch: int, now: Callable[[], float] = time.perf_counter) -> float:
        """Take jobs and settle them in batches of so many, and return how many seconds that took, by that clock."""
        async with (
            await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True) as reserving,
            await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True) as settling,
        ):
            for connection in (reserving, settling):
                await connection.execute("SET plan_cache_mode = force_generic_plan")  # the good ones
            work = _Drain(reserving, settling, self._words(RESERVE), self._words(SETTLE), jobs, batch)
            began = now()
            await work.run()
            return now() - began

    def notify_one(self, connection: psycopg.Connection[TupleRow]) -> None:
        """Put in a job, and wake whoever listens on the schema's name."""
        self._lone = self._lone or self._words(LONE)
        connection.execute(self._lone, (new_job_ids(1)[0], b"{}", self._schema), prepare=True)

    async def take_one(
        self, connection: psycopg.AsyncConnection[TupleRow], handler: Callable[[], Awaitable[object]]
    ) -> None:
        """Take the next job, run a handler, and settle it."""
        cursor, token = AsyncRawCursor(connection), str(random.getrandbits(63))
        words = (*_BEGINNING, "1", token, str(uuid4()))
        await cursor.execute(self._words(RESERVE), words, prepare=True, binary=True)
        for row in await cursor.fetchall():
            await handler()
            await cursor.execute(
                self._words(SETTLE), (plain_array([row[0]]), [b"null"], token), prepare=True, binary=True
            )

    def _words(self, statement: str) -> bytes:
        return statement.replace("{schema}", self._schema).encode()


class _Batch:
    """What one reserve took, and how far it is."""

    def __init__(self, token: int, size: int) -> None:
        self.token = token
        self.left = size
        self.ids: list[UUID] = []
        self.results: list[bytes] = []


class _Drain:
    def __init__(
        self,
        reserving: psycopg.AsyncConnection[TupleRow],
        settling: psycopg.AsyncConnection[TupleRow],
        reserve: bytes,
        settle: bytes,
        jobs: int,
        batch: int,
    ) -> None:
        self._reserving, self._settling = AsyncRawCursor(reserving), AsyncRawCursor(settling)
        self._reserve, self._settle = reserve, settle
        self._jobs, self._batch = jobs, batch
        self._taken: asyncio.Queue[tuple[_Batch, TupleRow]] = asyncio.Queue(2 * batch)
        self._done: deque[_Batch] = deque()
        self._wake = asyncio.Event()

    async def run(self) -> None:
        runners = [asyncio.create_task(self._run_jobs()) for _ in range(IN_FLIGHT)]
        await asyncio.gather(self._take(), self._write())
        for runner in runners:
            runner.cancel()

    async def _take(self) -> None:
        worker, mark, taken = uuid4(), _BEGINNING, 0
        while taken < self._jobs:
            token = random.getrandbits(63)
            words = (*mark, str(self._batch), str(token), str(worker))
            await self._reserving.execute(self._reserve, words, prepare=True, binary=True)
            rows = await self._reserving.fetchall()
            if not rows:
                raise RuntimeError(f"the bare worker found {taken} of {self._jobs} jobs")
            last = max((row[7], row[0]) for row in rows)
            mark = (last[0].isoformat(), str(last[1]))
            taken += len(rows)
            batch = _Batch(token, len(rows))
            for row in rows:
                await self._taken.put((batch, row))

    async def _run_jobs(self) -> None:
        decode, encode = msgspec.json.Decoder(Mail).decode, msgspec.json.Encoder().encode
        while True:
            batch, row = await self._taken.get()
            mail = decode(row[2])
            batch.ids.append(row[0])
            batch.results.append(encode(await noop.fn(mail.to, mail.n)))
            batch.left -= 1
            if batch.left == 0:
                self._done.append(batch)
                self._wake.set()

    async def _write(self) -> None:
        written = 0
        while written < self._jobs:
            await self._wake.wait()
            self._wake.clear()
            while self._done:
                batch = self._done.popleft()
                await self._settling.execute(
                    self._settle,
                    (plain_array(batch.ids), batch.results, str(batch.token)),
                    prepare=True,
                    binary=True,
                )
                written += len(await self._settling.fetchall())
