"""Processes that take jobs under limits and end them in all ways, to be killed at random; and the judge of them.

`python -m tests.support.limited URL` forks one for each line it reads, a seed, and answers with its pid.

The judge sits in the database: triggers write down, in the transactions themselves, when a lease begins by the store's
own clock, and each job that comes under a lease or leaves it, in the order of these writes. No process is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

import psycopg

from taskharbor.driver import JobReserve, JobSettle, LeaseExtend, LeaseHold, LeaseReclaim, QueueTake, Store
from taskharbor.drivers import open_driver
from taskharbor.errors import StoreUnavailable
from taskharbor.job import Delivery, new_token
from taskharbor.limit import LimitTerms, RateTerms, Scope, ScopeKind
from taskharbor.settlement import SettleKind, Settlement

WHOLE, EACH, RATED, FREE = "whole", "each", "rated", "free"
QUEUES = ("first", "second")
LEASE = timedelta(milliseconds=400)
RATE = RateTerms(150, timedelta(seconds=1), burst=4)
LIMITS = {
    Scope(ScopeKind.TASK, WHOLE): LimitTerms(max_running=4),
    Scope(ScopeKind.KEYS, EACH): LimitTerms(max_running=1),
    Scope(ScopeKind.KEY, EACH, "b"): LimitTerms(max_running=2),
    Scope(ScopeKind.KEYS, RATED): LimitTerms(rate=RATE),
    Scope(ScopeKind.QUEUE, "second"): LimitTerms(max_running=7),
}

_SQLITE = """
CREATE TABLE judge (number INTEGER PRIMARY KEY, job TEXT, queue TEXT, task TEXT, part TEXT, token INTEGER,
    change INTEGER);
CREATE TABLE judge_lease (token INTEGER, at INTEGER);
CREATE TRIGGER judge_takes AFTER UPDATE OF token ON taskharbor_job
WHEN new.token IS NOT NULL AND old.token IS NULL BEGIN
    INSERT INTO judge (job, queue, task, part, token, change)
    VALUES (new.id, new.queue, new.task, coalesce(new.part, ''), new.token, 1);
END;
CREATE TRIGGER judge_frees AFTER UPDATE OF token ON taskharbor_job
WHEN new.token IS NULL AND old.token IS NOT NULL BEGIN
    INSERT INTO judge (job, queue, task, part, token, change)
    VALUES (new.id, new.queue, new.task, coalesce(new.part, ''), old.token, -1);
END;
CREATE TRIGGER judge_ends AFTER DELETE ON taskharbor_job WHEN old.token IS NOT NULL BEGIN
    INSERT INTO judge (job, queue, task, part, token, change)
    VALUES (old.id, old.queue, old.task, coalesce(old.part, ''), old.token, -1);
END;
CREATE TRIGGER judge_leases AFTER INSERT ON taskharbor_lease BEGIN
    INSERT INTO judge_lease VALUES (new.token, new.expires_at - new.duration);
END;
"""
_POSTGRES = """
CREATE TABLE {schema}.judge (number bigserial PRIMARY KEY, job uuid, queue text, task text, part text, token bigint,
    change integer);
CREATE TABLE {schema}.judge_lease (token bigint, at bigint);
CREATE FUNCTION {schema}.judge_job() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF TG_OP = 'DELETE' THEN
        IF old.token IS NOT NULL THEN
            INSERT INTO {schema}.judge (job, queue, task, part, token, change)
            VALUES (old.id, old.queue, old.task, coalesce(old.part, ''), old.token, -1);
        END IF;
    ELSIF new.token IS DISTINCT FROM old.token THEN
        INSERT INTO {schema}.judge (job, queue, task, part, token, change)
        VALUES (new.id, new.queue, new.task, coalesce(new.part, ''), coalesce(new.token, old.token),
            CASE WHEN new.token IS NULL THEN -1 ELSE 1 END);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER judge_job AFTER UPDATE OF token OR DELETE ON {schema}.job
    FOR EACH ROW EXECUTE FUNCTION {schema}.judge_job();
CREATE FUNCTION {schema}.judge_lease() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO {schema}.judge_lease VALUES (new.token,
        (extract(epoch FROM new.expires_at) * 1000000)::bigint - new.duration);
    RETURN NULL;
END $$;
CREATE TRIGGER judge_lease AFTER INSERT ON {schema}.lease FOR EACH ROW EXECUTE FUNCTION {schema}.judge_lease();
"""
_JUDGED = """SELECT j.job, j.queue, j.task, j.part, j.change,
    (SELECT min(l.at) FROM {schema}judge_lease l WHERE l.token = j.token) FROM {schema}judge j ORDER BY j.number"""


class Judged(NamedTuple):
    """A job that came under a lease, or left one."""

    job: str
    queue: str
    task: str
    part: str
    change: int
    at: int | None
    """When that lease began, in microseconds, by the store's clock."""


def seat_sqlite(path: str) -> None:
    """Let the judge take his seat in a file."""
    with sqlite3.connect(path) as connection:
        connection.executescript(_SQLITE)
    connection.close()


def verdict_sqlite(path: str) -> list[Judged]:
    """Return what he has seen."""
    with sqlite3.connect(path) as connection:
        rows = connection.execute(_JUDGED.format(schema="")).fetchall()
    connection.close()
    return [Judged(*row) for row in rows]


def seat_postgres(conninfo: str, schema: str) -> None:
    """Let the judge take his seat in a schema."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(_POSTGRES.format(schema=schema).encode())


def verdict_postgres(conninfo: str, schema: str) -> list[Judged]:
    """Return what he has seen."""
    with psycopg.connect(conninfo) as connection:
        rows = connection.execute(_JUDGED.format(schema=f"{schema}.").encode()).fetchall()
    return [Judged(str(row[0]), *row[1:]) for row in rows]


def most_running(judged: Sequence[Judged]) -> Counter[Scope]:
    """Return how many jobs were under leases at the same time, at the most, behind each limit of LIMITS."""
    running, most = Counter[Scope](), Counter[Scope]()
    for one in judged:
        for scope in gates(one):
            running[scope] += one.change
            most[scope] = max(most[scope], running[scope])
    return most


def gates(one: Judged) -> list[Scope]:
    """Return the limits on what runs that concern a job."""
    found = [
        Scope(ScopeKind.QUEUE, one.queue),
        Scope(ScopeKind.TASK, one.task),
        Scope(ScopeKind.KEY, one.task, one.part),
    ]
    return [scope for scope in found if bound(scope) is not None]


def bound(scope: Scope) -> int | None:
    """Return how many may run behind a limit."""
    own = LIMITS.get(scope, LimitTerms()).max_running
    if own is None and scope.kind is ScopeKind.KEY:
        return LIMITS.get(Scope(ScopeKind.KEYS, scope.name), LimitTerms()).max_running
    return own


def beyond_the_rate(judged: Sequence[Judged]) -> list[tuple[str, int, float]]:
    """Return each span of time in which more jobs of one key began than the rate allows: key, jobs, and the bound."""
    began: dict[str, list[int]] = {}
    for one in judged:
        if one.task == RATED and one.change > 0 and one.at is not None:
            began.setdefault(one.part, []).append(one.at)
    step = RATE.per / timedelta(microseconds=1) / RATE.limit
    beyond: list[tuple[str, int, float]] = []
    for part, moments in began.items():
        moments.sort()
        for first, begin in enumerate(moments):
            for last in range(first, len(moments)):
                allowed = RATE.burst + (moments[last] - begin) / step
                if last - first + 1 > allowed:
                    beyond.append((part, last - first + 1, allowed))
    return beyond


async def work(url: str, draw: random.Random) -> None:
    """Take jobs and end them, until killed."""
    driver = open_driver(url)
    loop = asyncio.get_running_loop()
    async with driver.connect() as store:
        since = loop.time()
        while True:
            try:
                await _turn(store, draw, timedelta(seconds=loop.time() - since))
            except StoreUnavailable:
                since = loop.time()
            await asyncio.sleep(draw.uniform(0, 0.01))


async def _turn(store: Store, draw: random.Random, seen: timedelta) -> None:
    await store.lease_reclaim(LeaseReclaim(observed=seen))
    name = f"worker {os.getpid()}"
    reserved = await store.job_reserve(
        JobReserve(
            queues=[QueueTake(queue, draw.randint(1, 10)) for queue in QUEUES],
            limit=draw.randint(1, 12),
            lease=LEASE,
            token=new_token(),
            worker=name,
            tasks=frozenset(FREE if draw.random() < 0.1 else task for task in (WHOLE, EACH, RATED, FREE)),
            build="build",
            guarded_limit=10,
            solo=True,
            partitioned_limit=draw.choice((None, 8, 3)),
        )
    )
    if not reserved.deliveries:
        return
    token = reserved.deliveries[0].token
    started = [delivery.id for delivery in reserved.deliveries if draw.random() < 0.9]
    await store.lease_extend(LeaseExtend(worker=name, leases=[LeaseHold(token, started)], lease=LEASE))
    await asyncio.sleep(draw.uniform(0, 0.02))  # the handlers
    rest = list(reserved.deliveries)
    draw.shuffle(rest)
    while rest:
        count = draw.randint(1, len(rest))
        part, rest = rest[:count], rest[count:]
        await store.job_settle(JobSettle(settlements=[_end(delivery, draw) for delivery in part]))


def _end(delivery: Delivery, draw: random.Random) -> Settlement:
    kind = draw.choices(
        [SettleKind.SUCCEED, SettleKind.SNOOZE, SettleKind.RELEASE, SettleKind.STRAY], [20, 1, 1, 1]
    )[0]
    return Settlement(
        job_id=delivery.id,
        token=delivery.token,
        kind=kind,
        charge=kind is SettleKind.SUCCEED,
        codec="json",
        result=b"null" if kind is SettleKind.SUCCEED else None,
        after=timedelta(milliseconds=draw.randint(0, 20)) if kind is SettleKind.SNOOZE else None,
        reason="not here" if kind is SettleKind.STRAY else "",
    )


def main() -> None:
    """Fork a process for each line."""
    url = sys.argv[1]
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    children: list[int] = []
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            sys.stdin.close()
            asyncio.run(work(url, random.Random(int(line))))
            os._exit(0)
        children.append(child)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


if __name__ == "__main__":
    main()
