"""The bare loop: the statements that a verb sends, with the same parameters, recorded once and then sent again.

A replay is SQLite, its disk and Python's `sqlite3`; no job is decoded, decided on, run or awaited between. It begins
with a copy of the file that was recorded on, so every statement finds, and changes, the same rows.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias, TypeVar

import msgspec

from benchmarks.fixtures import Mail, noop
from taskharbor import JsonCodec, Signature
from taskharbor.call import Call
from taskharbor.clock import SystemClock, micros
from taskharbor.driver import JobEnqueue, JobReserve, JobSettle, QueueTake
from taskharbor.drivers.sqlite.connection import close, open_connection
from taskharbor.drivers.sqlite.enqueue import job_enqueue
from taskharbor.drivers.sqlite.place import Place
from taskharbor.drivers.sqlite.reserve import job_reserve
from taskharbor.drivers.sqlite.routine import Query, Routine, Wakes
from taskharbor.drivers.sqlite.rows import OptionsBook, Step
from taskharbor.drivers.sqlite.settle import job_settle
from taskharbor.job import new_token
from taskharbor.settlement import SettleKind, Settlement

T = TypeVar("T")
P = TypeVar("P")

Transaction: TypeAlias = Sequence[Query]


class Loop:
    """Runs verbs in transactions on one connection, keeping what it sent."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Use this connection."""
        self.sent: list[Transaction] = []
        self._connection = connection
        self._clock = SystemClock()
        self._book = OptionsBook()

    def drain(self, batch: int) -> None:
        """Reserve, decode, encode a result and settle, batch by batch, until nothing is left."""
        decode, encode = msgspec.json.Decoder(Mail).decode, msgspec.json.Encoder().encode
        while True:
            reserve = JobReserve(
                queues=[QueueTake("default", batch)],
                limit=batch,
                lease=timedelta(seconds=30),
                token=new_token(),
                worker="bare",
                tasks=frozenset({noop.name}),
                build="",
                guarded_limit=batch,
                solo=True,
            )
            deliveries = self._run(job_reserve, reserve).deliveries
            if not deliveries:
                return
            settlements = [
                Settlement(
                    delivery.id,
                    delivery.token,
                    SettleKind.SUCCEED,
                    result=encode(decode(delivery.payload).n),
                    codec=delivery.codec,
                    charge=True,
                )
                for delivery in deliveries
            ]
            self._run(job_settle, JobSettle(settlements=settlements))

    def enqueue(self, signatures: Sequence[Signature[object]], batch: int) -> None:
        """Enqueue calls, batch by batch."""
        codec = JsonCodec()
        for begin in range(0, len(signatures), batch):
            some = [signature.sendable for signature in signatures[begin : begin + batch]]
            calls = [call for call in some if isinstance(call, Call)]
            jobs = [call.callee.new_job(call.arguments, call.options, codec, check=False) for call in calls]
            self._run(job_enqueue, JobEnqueue(jobs=jobs, all_or_none=True))

    def _run(self, verb: Callable[[Step, P], Routine[T]], request: P) -> T:
        routine = verb(Step(micros(self._clock.now()), self._book, Wakes()), request)
        queries: list[Query] = []
        self._connection.execute("BEGIN IMMEDIATE")
        answer = _carry(self._connection, routine, queries)
        self._connection.execute("COMMIT")
        self.sent.append(queries)
        return answer


def _carry(connection: sqlite3.Connection, routine: Routine[T], queries: list[Query]) -> T:
    try:
        query = next(routine)
        while True:
            queries.append(query)
            query = routine.send(connection.execute(query.sql, query.params).fetchall())
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


def record(template: Path, work: Callable[[Loop], None]) -> Sequence[Transaction]:
    """Return the transactions that `work` sends, run on a copy of a file."""
    with copied(template) as path, connected(path) as connection:
        loop = Loop(connection)
        work(loop)
    return loop.sent


def replay(connection: sqlite3.Connection, transactions: Sequence[Transaction]) -> None:
    """Send recorded transactions once more."""
    for queries in transactions:
        connection.execute("BEGIN IMMEDIATE")
        for sql, params in queries:
            connection.execute(sql, params).fetchall()
        connection.execute("COMMIT")


@contextmanager
def connected(path: Path) -> Generator[sqlite3.Connection]:
    """Give a connection opened as the driver opens its own."""
    connection = open_connection(Place(str(path)))
    try:
        yield connection
    finally:
        close(connection)


@contextmanager
def copied(template: Path) -> Generator[Path]:
    """Give a copy of a file that nobody has open; removed at the end."""
    path = template.with_name("copy.db")
    shutil.copyfile(template, path)
    with path.open("rb") as file:  # or the first commit would write the copy to the disk, too
        os.fsync(file.fileno())
    try:
        yield path
    finally:
        for found in template.parent.glob("copy.db*"):
            if found.is_dir():
                shutil.rmtree(found)
            else:
                found.unlink()
