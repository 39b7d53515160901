"""How PostgreSQL carries the hot statements out on a large store: by which index, and how much they read for it.

Each statement of a verb is explained as it is prepared: with a generic plan, and run. Where statistics are missing or
old the plans must be as good: a table of jobs is empty at one moment and holds a million at the next.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any, TypeAlias

import msgspec
import pytest
from psycopg import sql

from taskharbor.driver import (
    AgedTake,
    EnqueueStatus,
    JobCancel,
    JobDelete,
    LeaseExtend,
    LeaseHold,
    LeaseReclaim,
)
from taskharbor.drivers.postgres.connection import PLANNING
from taskharbor.drivers.postgres.control import job_cancel, job_delete
from taskharbor.drivers.postgres.lease import lease_extend, lease_reclaim
from taskharbor.drivers.postgres.routine import Query, Routine, Row, quoted
from taskharbor.drivers.postgres.schema import renamed
from taskharbor.job import Delivery, JobState, KeyRule, OnConflict, new_token
from taskharbor.settlement import Settlement
from taskharbor_conformance.bench import DAY, burial, failure, new_job, release, success
from tests.support.postgres import server
from tests.support.postgres_place import SharedSchema
from tests.support.postgres_walk import Party, Taker

SMALL, LARGE = 10_000, 200_000
BATCH = 50
TINY = 600
"""Rows of a table that may be read whole: a few pages, not more than an index would cost."""
BIG = re.compile(r"^(job|key|history.*)$")

_COLUMNS = """id, task, queue, options, priority, lane, stray, due, run_at, enqueued_at, retain, payload, token, key,
    digest"""
OPTIONS = (
    '{"codec":"json","fingerprint":1,"retry":{"max_attempts":5},"key_ttl":"P1D","retain":"P1D",'
    '"keep_result":true}'
)
_HOUR = "interval '1 hour'"
# Of ten jobs five are ready in one lane, one in other queues, two are scheduled at every priority, one is leased long
# ago and one has strayed and waits for a build that is not there.
_FILL = (
    f"""INSERT INTO job ({_COLUMNS})
        SELECT ('01000000-0000-7000-8000-' || lpad(i::text, 12, '0'))::uuid, 'mail.send',
        CASE WHEN i % 10 = 5 THEN 'queue-' || (i % 7) ELSE 'default' END, '{OPTIONS}',
        CASE WHEN i % 10 IN (6, 7) THEN (i / 10) % 10 ELSE 5 END, 2, CASE WHEN i % 10 = 9 THEN 1 + i % 50 ELSE 0 END,
        clock_timestamp() - {_HOUR} + i * interval '1 microsecond'
            + CASE WHEN i % 10 IN (6, 7) THEN 24 * {_HOUR} ELSE interval '0' END,
        clock_timestamp(), clock_timestamp(), 86400000000, '\\x5b5d',
        CASE WHEN i % 10 = 8 THEN 1000 + i / 100 END, 'key-' || i, '' FROM generate_series(%s::int, %s::int - 1) i""",
    """INSERT INTO lease (token, worker, expires_at, duration, jobs, remaining)
        SELECT token, 'worker-' || token, clock_timestamp() + interval '1 day', 1, array_agg(id), count(*) FROM job
        WHERE token IS NOT NULL AND id >= ('01000000-0000-7000-8000-' || lpad(%s::int::text, 12, '0'))::uuid
        AND %s::int > 0 GROUP BY token ON CONFLICT DO NOTHING""",
    f"""INSERT INTO history (slot, id, task, queue, options, priority, run_at, enqueued_at, retain, attempt, deliveries,
        payload, finished_at, expires_at, state)
        SELECT i % 20 - 1, ('02000000-0000-7000-8000-' || lpad(i::text, 12, '0'))::uuid, 'mail.send', 'default',
        '{OPTIONS}', 5, clock_timestamp(), clock_timestamp(), 86400000000, 1, 1, '\\x5b5d', clock_timestamp(),
        clock_timestamp() + interval '7 days', CASE WHEN i % 20 = 0 THEN 'dead' ELSE 'succeeded' END
        FROM generate_series(%s::int, %s::int - 1) i""",
    """INSERT INTO key (task, name, job_id, digest, ttl, expires_at) SELECT 'mail.send', 'key-' || i,
        ('01000000-0000-7000-8000-' || lpad(i::text, 12, '0'))::uuid, '', 86400000000,
        CASE WHEN i % 2 = 0 THEN clock_timestamp() + interval '1 day' END
        FROM generate_series(%s::int, %s::int - 1) i""",
)
_STRAYS = """INSERT INTO stray (task, refused_by)
    SELECT 'task-' || i, '["build-' || i || '"]' FROM generate_series(1, 50) i"""
_FORGET = """DELETE FROM pg_statistic WHERE starelid IN
    (SELECT oid FROM pg_class WHERE relnamespace = '{}'::regnamespace);
    UPDATE pg_class SET reltuples = -1, relpages = 0
    WHERE relnamespace = '{}'::regnamespace AND relkind IN ('r', 'i')"""
# As of a worker that keeps up: the pages of many jobs, and two that were there when somebody looked.
_FORGET_JOBS = """DELETE FROM pg_statistic WHERE starelid IN
    (SELECT oid FROM pg_class WHERE relnamespace = '{}'::regnamespace AND relname IN ('job', 'lease'));
    UPDATE pg_class SET reltuples = 2 WHERE relnamespace = '{}'::regnamespace AND relkind = 'r'
    AND relname IN ('job', 'lease')"""

Node: TypeAlias = Mapping[str, Any]


_TOLD = ("Node Type", "Relation Name", "Index Name", "Actual Rows", "Actual Loops", "Rows Removed by Filter")


class Plan(msgspec.Struct):
    """One statement, and what was done for it."""

    sql: str
    nodes: list[Node]

    def __repr__(self) -> str:
        return "\n".join(
            [self.sql, *(" ".join(str(node.get(word, "-")) for word in _TOLD) for node in self.nodes)]
        )

    @classmethod
    def read(cls, words: str, explained: Any) -> Plan:
        return cls(words, list(_nodes(explained[0]["Plan"])))

    @property
    def pages(self) -> int:
        """How many pages it looked at."""
        return int(self.nodes[0]["Shared Hit Blocks"] + self.nodes[0]["Shared Read Blocks"])

    def on(self, table: str) -> list[Node]:
        """Return what was done to read a table, whether or not it came to it."""
        return [node for node in self.nodes if re.fullmatch(table, node.get("Relation Name", ""))]

    def indexes(self, table: str) -> set[str]:
        """Return the indexes by which a table was entered."""
        names = {node["Index Name"] for node in self.nodes if "Index Name" in node}
        return {name for name in names if name.startswith(table)}

    def rows_read(self) -> int:
        """Return how many rows of big tables it looked at, taken or not."""
        return sum(looked_at for _, looked_at in self._scans() if looked_at > TINY)

    def walked_through(self) -> list[str]:
        """Return the big tables that it read from end to end, if they hold more than a few rows."""
        return [
            node["Relation Name"]
            for node, looked_at in self._scans()
            if node["Node Type"] == "Seq Scan" and looked_at > TINY
        ]

    def _scans(self) -> Iterator[tuple[Node, int]]:
        for node in self.nodes:
            if BIG.match(node.get("Relation Name", "")) and node["Node Type"].endswith("Scan"):
                rows = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
                yield node, int(node["Actual Loops"] * rows)


def _nodes(node: Node) -> Iterator[Node]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


class Explainer(Taker):
    """Somebody whose statements are explained before they are carried out."""

    def __init__(self, schema: SharedSchema) -> None:
        super().__init__(schema, "explained")
        self.connection.prepare_threshold = None  # whoever prepares forgets it all after a rollback
        for name, value in {**PLANNING, "plan_cache_mode": "force_generic_plan"}.items():
            self.do(f"SET {name} = {value}")
        self.plans: list[Plan] = []
        self._on = False
        self._prepared: dict[str, str] = {}

    @contextmanager
    def explaining(self) -> Generator[list[Plan]]:
        """Explain within the block; return the list of plans."""
        self.plans, self._on = [], True
        try:
            yield self.plans
        finally:
            self._on = False

    def _changed(self, routine: Routine[Any]) -> Routine[Any]:
        query = next(routine)
        try:
            while True:
                if self._on and "SAVEPOINT" not in query.sql:
                    self._explain(query)
                rows: list[Row] = yield query
                query = routine.send(rows)
        except StopIteration as end:
            return end.value

    def _explain(self, query: Query) -> None:
        words = renamed(query.sql, self.schema.name)
        cells = sql.SQL(", ").join(map(sql.Literal, query.params))
        kept = self._prepared.get(words)
        name = sql.Identifier(kept or f"explained_{len(self._prepared)}")
        execute = sql.SQL("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE {}").format(name)
        if query.params:
            execute += sql.SQL("({})").format(cells)
        self.do("SAVEPOINT before")
        if kept is None:
            self.connection.execute(f"PREPARE {name.as_string()} AS {words}".encode(), prepare=False)
            self._prepared[words] = name.as_string().strip('"')
        ((explained,),) = self.connection.execute(execute).fetchall()
        self.do("ROLLBACK TO before")
        self.plans.append(Plan.read(words, explained))


class Store:
    """A filled schema."""

    def __init__(self, count: int, stack: ExitStack) -> None:
        self.count = count
        self.schema = SharedSchema(server().conninfo)
        stack.callback(self.schema.close)
        in_it = "SELECT quote_ident(relname) FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind = 'r'"
        for (table,) in self.schema.ask(in_it, (quoted(self.schema.name),)):
            self.schema.ask(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
        if count:
            self.schema.ask(_STRAYS)
            self.fill(0, 300)
        self.schema.ask("ANALYZE")
        if count:
            self.fill(300, count)
        self._stack = stack

    def fill(self, begin: int, end: int) -> None:
        for statement in _FILL:
            self.schema.ask(statement.replace("% ", "%% "), (begin, end))

    def explainer(self) -> Explainer:
        """Return one more who explains."""
        explainer = Explainer(self.schema)
        self._stack.callback(explainer.connection.close)
        return explainer


STATISTICS = {
    "statistics of when it was small": (),
    "no statistics": (_FORGET,),
    "statistics": ("ANALYZE",),
    "statistics of a moment without jobs": ("ANALYZE", _FORGET_JOBS),
}
SIZES = [
    pytest.param(SMALL, id="10k"),
    pytest.param(LARGE, id="200k", marks=[pytest.mark.slow, pytest.mark.timeout(600)]),
]


@pytest.fixture(scope="module", params=SIZES)
def store(request: pytest.FixtureRequest) -> Generator[Store]:
    with ExitStack() as stack:
        yield Store(request.param, stack)


@pytest.fixture(scope="module", params=list(STATISTICS))
def known(request: pytest.FixtureRequest, store: Store) -> Store:
    """Return the store with something that the planner knows of it."""
    for statement in STATISTICS[request.param]:
        store.schema.ask(statement.replace("{}", quoted(store.schema.name)))
    return store


@pytest.fixture
def worker(known: Store) -> Generator[Explainer]:
    """Return somebody in a transaction that is rolled back at the end."""
    explainer = known.explainer()
    explainer.begin()
    yield explainer
    explainer.roll_back()
    explainer.connection.close()


def check(plan: Plan, *, batch: int = BATCH, rows: float = 4, pages: float = 40) -> None:
    """Check that a statement reads no big table whole, and in all so many rows and pages for each job of a batch."""
    assert [] == plan.walked_through(), plan
    assert plan.rows_read() <= rows * batch + 50, plan
    assert plan.pages <= pages * batch + 1000, plan


# --- reserve


def test_a_reserve_enters_its_lanes_by_their_index_and_reads_what_it_takes(worker: Explainer) -> None:
    worker.reserve(1)  # has read which kinds of strays there are
    with worker.explaining() as plans:
        answer = worker.reserve(BATCH)

    assert len(answer.deliveries) == BATCH
    (plan,) = plans
    check(plan)
    assert plan.indexes("job") == {"job_line", "job_ready"}
    (update,) = (node for node in plan.nodes if node.get("Operation") == "Update")
    assert "Tid Scan" in {node["Node Type"] for node in plan.on("job")}
    assert update["Relation Name"] == "job"
    assert [] == plan.on("history.*")
    assert [] == plan.on("key")


def test_a_reserve_of_several_queues_with_strays_and_quotas_reads_in_proportion(worker: Explainer) -> None:
    queues = {"default": 20, "queue-5": 100, "queue-2": 10, "empty": 100}
    worker.reserve(1, queues=queues, build="other")
    with worker.explaining() as plans:
        answer = worker.reserve(BATCH, queues=queues, build="other")

    assert len(answer.deliveries) >= 20
    (plan,) = (plan for plan in plans if "FOR UPDATE" in plan.sql)
    check(plan)
    assert plan.indexes("job") == {"job_line", "job_ready"}


def test_a_reserve_where_nothing_is_due_reads_next_to_nothing(worker: Explainer) -> None:
    worker.reserve(1, queues={"empty": 10})
    with worker.explaining() as plans:
        worker.reserve(BATCH, queues={"empty": 10})

    (plan,) = plans
    check(plan, batch=1)


def test_a_reserve_changes_no_index(worker: Explainer) -> None:
    worker.reserve(BATCH)
    ((changed, hot),) = worker.do(
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_xact_user_tables WHERE relname = 'job' "
        f"AND schemaname = '{worker.schema.name}'"
    )

    assert changed == BATCH
    assert hot >= 0.9 * BATCH  # all but those that find no more room on a full page


def test_rows_settled_under_a_held_snapshot_are_read_once(known: Store) -> None:
    reader, worker, other = Party(known.schema), known.explainer(), known.explainer()
    reader.begin(isolation="REPEATABLE READ")
    reader.do("SELECT count(*) FROM job")
    half = known.count // 4
    worker.reserve(BATCH)
    sequence = f"SELECT id FROM job WHERE token IS NULL AND queue = 'default' AND stray = 0 ORDER BY due LIMIT {half}"
    other.do(f"UPDATE job SET token = 77 WHERE id IN ({sequence})")
    worker.reserve(BATCH)  # reads them all
    worker.begin()
    with worker.explaining() as plans:
        answer = worker.reserve(BATCH)
    worker.roll_back()
    other.do("UPDATE job SET token = NULL WHERE token = 77")
    worker.do(f"UPDATE job SET token = NULL WHERE token IN ({', '.join(map(str, worker.tokens))})")
    reader.roll_back()
    for party in (reader, worker, other):
        party.connection.close()

    assert len(answer.deliveries) == BATCH
    (plan,) = (plan for plan in plans if "FOR UPDATE" in plan.sql)
    check(plan)


def test_an_aged_reserve_reads_what_it_takes_and_a_little_more(worker: Explainer) -> None:
    aged = AgedTake(timedelta(minutes=1), 5)
    worker.reserve(1)
    with worker.explaining() as plans:
        answer = worker.reserve(BATCH, aged=aged)

    assert len(answer.deliveries) == BATCH
    (plan,) = plans
    check(plan)
    assert plan.indexes("job") <= {"job_ready", "job_pkey", "job_line"}


def test_elders_are_found_over_all_queues_and_kinds_of_strays(worker: Explainer) -> None:
    queues = {"default": 20, "queue-5": 100, "queue-2": 10, "empty": 100}
    aged = AgedTake(timedelta(minutes=1), 10)
    worker.reserve(1, queues=queues, build="other")
    with worker.explaining() as plans:
        answer = worker.reserve(BATCH, queues=queues, build="other", aged=aged)

    assert len(answer.deliveries) >= 20
    (plan,) = (plan for plan in plans if "FOR UPDATE" in plan.sql)
    check(plan, rows=8)


def test_elders_settled_under_a_held_snapshot_are_read_once(known: Store) -> None:
    reader, worker, other = Party(known.schema), known.explainer(), known.explainer()
    aged = AgedTake(timedelta(minutes=1), 5)
    reader.begin(isolation="REPEATABLE READ")
    reader.do("SELECT count(*) FROM job")
    worker.reserve(BATCH, aged=aged)
    sequence = (
        "SELECT id FROM job WHERE token IS NULL AND queue = 'default' AND stray = 0 ORDER BY due "
        f"LIMIT {known.count // 4}"
    )
    other.do(f"UPDATE job SET token = 77 WHERE id IN ({sequence})")
    worker.reserve(5, aged=aged)  # reads them all
    worker.begin()
    with worker.explaining() as plans:
        answer = worker.reserve(5, aged=aged)
    worker.roll_back()
    other.do("UPDATE job SET token = NULL WHERE token = 77")
    worker.do(f"UPDATE job SET token = NULL WHERE token IN ({', '.join(map(str, worker.tokens))})")
    reader.roll_back()
    for party in (reader, worker, other):
        party.connection.close()

    assert len(answer.deliveries) == 5
    (plan,) = (plan for plan in plans if "FOR UPDATE" in plan.sql)
    check(plan)


# --- settle, extend, reclaim


def taken(worker: Explainer) -> list[Delivery]:
    """Reserve a batch."""
    deliveries = list(worker.reserve(BATCH).deliveries)
    assert len(deliveries) == BATCH
    return deliveries


def test_successes_are_found_by_their_ids_and_go_to_one_partition(worker: Explainer) -> None:
    deliveries = taken(worker)
    with worker.explaining() as plans:
        worker.settle(*map(success, deliveries))

    (plan,) = plans
    check(plan)
    assert plan.indexes("job") == {"job_pkey"}
    assert plan.indexes("key") <= {"key_pkey"}
    inserted = [node for node in plan.on("history.*") if node["Node Type"] == "ModifyTable"]
    assert [node["Relation Name"] for node in inserted] == [
        "history"
    ]  # the server routes each row to its partition
    assert [node for node in plan.on("history_.*") if node["Actual Loops"]] == []


def test_whatever_else_is_settled_is_found_by_its_id(worker: Explainer) -> None:
    deliveries = taken(worker)
    ends: list[Callable[[Delivery], Settlement]] = [success, failure, burial, release]
    with worker.explaining() as plans:
        worker.settle(*(ends[number % 4](one) for number, one in enumerate(deliveries)))

    (plan,) = plans
    check(plan, rows=8, pages=80)
    assert plan.indexes("job") <= {"job_pkey"}


def test_a_heartbeat_reads_its_leases_and_the_cancels(known: Store, worker: Explainer) -> None:
    deliveries = taken(worker)
    worker.do(f"UPDATE job SET cancel = 'no' WHERE id = '{deliveries[0].id}'")
    hold = LeaseHold(deliveries[0].token, [delivery.id for delivery in deliveries[:10]])
    with worker.explaining() as plans:
        answer = worker.verb(
            lease_extend, LeaseExtend(worker="w", leases=[hold], lease=timedelta(seconds=30))
        )

    assert [cancel.job_id for cancel in answer.cancels] == [deliveries[0].id]
    (plan,) = plans
    check(plan, batch=2)
    assert plan.indexes("job") == {"job_cancel"}


def test_a_reclaim_finds_the_jobs_of_a_lease_by_their_ids(worker: Explainer) -> None:
    worker.reserve(BATCH, lease=timedelta(microseconds=1))
    with worker.explaining() as plans:
        reclaimed = worker.verb(lease_reclaim, LeaseReclaim(observed=DAY, limit=1000))

    assert len(reclaimed) == BATCH
    for plan in plans:
        check(plan, pages=80)
    assert {index for plan in plans for index in plan.indexes("job")} <= {"job_pkey"}


# --- enqueue


@pytest.mark.parametrize("count", [1, BATCH])
def test_an_enqueue_looks_into_the_partitions_where_its_ids_can_be(count: int, worker: Explainer) -> None:
    worker.put()  # has read which there are
    with worker.explaining() as plans:
        worker.put(*(new_job() for _ in range(count)))

    (plan,) = plans
    check(plan, batch=count)
    looked_at = {node["Relation Name"] for node in plan.on("history.*")}
    assert {"history_dead", "history_long"} <= looked_at
    assert len(looked_at) <= 4  # and a day's, or two about midnight


@pytest.mark.parametrize("count", [1, BATCH])
def test_keys_are_found_by_their_names(count: int, worker: Explainer) -> None:
    worker.put()
    with worker.explaining() as plans:
        worker.put(
            *(
                new_job(key=f"new-{number}" if number % 2 else f"key-{2 * number + 1}")
                for number in range(count)
            )
        )

    for plan in plans:
        check(plan, batch=count, pages=80)
        assert plan.indexes("key") <= {"key_pkey"}
        assert plan.indexes("job") <= {"job_pkey"}


@pytest.mark.parametrize("count", [1, BATCH])
def test_those_who_hold_keys_are_found_and_replaced_by_their_ids(count: int, worker: Explainer) -> None:
    worker.put()
    # Of ten jobs those numbered 0 to 7 are not leased; every other key is of one that lives.
    keys = [f"key-{10 * (number // 4) + (1, 3, 5, 7)[number % 4]}" for number in range(count)]
    jobs = [new_job(key=key, digest=b"", on_conflict=OnConflict.REPLACE) for key in keys]
    with worker.explaining() as plans:
        answers = worker.enqueue(*jobs)

    assert {EnqueueStatus.REPLACED} == {answer.status for answer in answers}
    assert any("UPDATE taskharbor.job" in plan.sql or "SET queue" in plan.sql for plan in plans)
    for plan in plans:
        check(plan, batch=count, rows=6, pages=120)
        assert plan.indexes("key") <= {"key_pkey"}
        assert plan.indexes("job") <= {"job_pkey"}


def test_keys_are_handed_over_by_whoever_was_seen_to_have_them(worker: Explainer) -> None:
    worker.put()
    jobs = [
        new_job(key=f"key-{2 * number}", digest=b"", key_rule=KeyRule(states=(JobState.WAITING,)))
        for number in range(BATCH)
    ]
    with worker.explaining() as plans:
        answers = worker.enqueue(*jobs)

    assert {EnqueueStatus.CREATED} == {answer.status for answer in answers}
    for plan in plans:
        check(plan, rows=6, pages=120)
        assert plan.indexes("key") <= {"key_pkey"}
        assert plan.indexes("job") <= {"job_pkey"}


# --- kept


def verbs(worker: Explainer) -> None:
    """Carry out each verb that is hot."""
    worker.put(*(new_job(key=f"fresh-{new_token()}" if number % 2 else None) for number in range(BATCH)))
    deliveries = taken(worker)
    worker.settle(*map(success, deliveries[: BATCH // 2]))
    worker.settle(*map(failure, deliveries[BATCH // 2 :]))
    worker.put(*(new_job() for _ in range(BATCH)))
    worker.reserve(BATCH, lease=timedelta(microseconds=1))
    worker.verb(lease_reclaim, LeaseReclaim(observed=DAY, limit=1000))
    ids = [delivery.id for delivery in worker.reserve(BATCH).deliveries]
    worker.verb(job_cancel, JobCancel(ids=ids, by="me"))
    worker.verb(job_delete, JobDelete(ids=[delivery.id for delivery in deliveries]))


def test_plans_made_while_the_tables_are_empty_are_good_when_they_are_full() -> None:
    """The server keeps them until the next statistics are taken."""
    with ExitStack() as stack:
        store = Store(0, stack)
        worker = store.explainer()
        worker.begin()
        with worker.explaining() as plans:
            verbs(worker)
        worker.roll_back()
        made = {plan.sql for plan in plans}
        store.fill(0, SMALL)
        worker.begin()
        with worker.explaining() as plans:
            verbs(worker)
        worker.roll_back()

    assert {plan.sql for plan in plans} <= made
    for plan in plans:
        check(plan, rows=8, pages=100)


def test_the_reader_of_plans_sees_a_table_read_from_end_to_end(worker: Explainer) -> None:
    with worker.explaining() as plans:
        worker.ask(
            one(Query("SELECT count(payload) FROM taskharbor.job WHERE payload <> $1::bytea", (b"x",)))
        )

    (plan,) = plans
    assert plan.walked_through() == ["job"]
    with pytest.raises(AssertionError):
        check(plan)


def one(query: Query) -> Routine[None]:
    """Return a routine of one statement."""
    yield query
