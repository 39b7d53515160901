"""The SQLite driver is broken on purpose, statement by statement, and the conformance suite has to notice.

As in `test_mutations`: a mutation is a text replacement in a copy of the driver, and a case of the rule that it breaks
must fail on it.
"""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import pytest

from taskharbor.driver import Driver
from taskharbor.drivers.sqlite import SqliteDriver
from taskharbor_conformance import DriverFactory, OpenDriver, cases
from tests.support.sqlite_caller import with_callers
from tests.test_mutations import (
    PACKAGE,
    Mutation,
    first_failing,
    misplaced,
    mutation_name,
    one_in_six,
    quick_first,
    replace,
)

SQLITE = "drivers/sqlite/"


def broken(rule: str, file: str, old: str, new: str, why: str) -> Mutation:
    """Return a mutation of one of the driver's files."""
    return Mutation(rule, f"{SQLITE}{file}.py", old, new, why)


MUTATIONS = [
    # 4.1: at least once
    broken(
        "4.1", "enqueue", "_SIZES = (200, 20, 1)", "_SIZES = (200, 20)", "the end of a batch is not stored"
    ),
    broken(
        "4.1",
        "enqueue",
        "            begin = end\n",
        "            begin = end + width\n",
        "a job between two statements is left out",
    ),
    broken(
        "4.9",
        "enqueue",
        "all_or_none=request.all_or_none,\n",
        "all_or_none=False,\n",
        "a batch of all or none is stored in part",
    ),
    broken(
        "4.1",
        "transaction",
        'connection.execute("COMMIT")',
        'connection.execute("ROLLBACK")',
        "what was answered is rolled back",
    ),
    broken(
        "4.1",
        "leaving",
        "for chunk in chunks(self._back):",
        "for chunk in ():",
        "jobs that wait again stay leased",
    ),
    # 4.2: one worker at a time
    broken(
        "4.2",
        "control",
        "            return DeleteStatus.RUNNING\n",
        "            pass\n",
        "a leased job is deleted",
    ),
    broken(
        "4.2",
        "look",
        'worker="" if lease is None else lease[0]',
        'worker=""',
        "nobody sees who holds a job",
    ),
    # 4.3: fencing
    broken(
        "4.3",
        "settle",
        "if held.get(job_id) != token:",
        "if job_id not in held:",
        "any token settles a job that is held",
    ),
    broken(
        "4.3",
        "settle",
        "if settled.get(job_id) == token else _STALE",
        "if True else _STALE",
        "stale is told as done",
    ),
    broken(
        "4.3", "settle", "        del held[job_id]\n", "", "a batch that names a job twice settles it twice"
    ),
    broken(
        "4.3",
        "reserve",
        "settled = NULL, started = 0",
        "started = 0",
        "a settle is remembered beyond the next reserve",
    ),
    broken(
        "4.3",
        "leaving",
        "settled = e.value ->> 10",
        "settled = NULL",
        "the settle of a job that waits again is not remembered",
    ),
    broken(
        "4.3",
        "leaving",
        "'succeeded', ?2, ?2 + o.retain, j.token,",
        "'succeeded', ?2, ?2 + o.retain, NULL,",
        "a success is not remembered",
    ),
    broken(
        "4.3", "reserve", "deliveries = deliveries + 1", "deliveries = deliveries", "the fence does not grow"
    ),
    broken(
        "4.3",
        "reserve",
        "    if context.held_until is not None:  # the answer to the first asking was lost",
        "    if False:",
        "a repeated reserve takes other jobs",
    ),
    broken(
        "4.3",
        "lease",
        "AND taskharbor_job.token = e.value ->> 0",
        "AND e.value ->> 0 IS NOT NULL",
        "a start is written under any token",
    ),
    broken("4.3", "lease", "if hold.token not in there]", "if False]", "a lost lease is not told"),
    broken(
        "4.3",
        "leaving",
        'yield Query("DELETE FROM taskharbor_lease WHERE remaining <= 0")',
        'yield Query("DELETE FROM taskharbor_lease WHERE token IN (SELECT value ->> 0 FROM json_each(?))", '
        "(json_text(list(self._leases.items())),))",
        "settling one job drops the lease of its neighbours",
    ),
    broken(
        "4.3",
        "leaving",
        "SET remaining = remaining - (e.value ->> 1)",
        "SET remaining = remaining - 2 * (e.value ->> 1)",
        "a lease is counted down too fast",
    ),
    # 4.4: attempts
    broken("4.4", "enqueue", "int(job.retry.max_attempts == 1)", "0", "a job of one attempt is not guarded"),
    broken(
        "4.4",
        "walk",
        "elif guarded and self.guarded_left <= 0:",
        "elif False:",
        "guarded jobs are taken beyond the free slots",
    ),
    broken(
        "4.4",
        "walk",
        "else:\n                self.guarded_left -= guarded",
        "else:\n                pass",
        "one free slot is enough for all guarded jobs",
    ),
    broken(
        "4.4",
        "walk",
        "self.solo_left = 1 if request.solo else 0",
        "self.solo_left = 1",
        "a solo job is taken beside another",
    ),
    broken(
        "4.4",
        "leaving",
        "lane = SOLO if job.crashes >= SOLO_CRASHES else lane",
        "pass",
        "no job ever stands in the solo lane",
    ),
    broken(
        "4.4",
        "lease",
        "job.attempt += job.started",
        "job.attempt += 1",
        "a crash charges what was never started",
    ),
    broken(
        "4.4",
        "lease",
        "crash.crashes, crash.lost, 1\n",
        "crash.crashes, crash.lost, job.guarded\n",
        "what a worker died of is not guarded",
    ),
    broken(
        "4.4",
        "lease",
        "leaving.back(job, now, FRONT,",
        "leaving.back(job, now, NORMAL,",
        "a job lost unstarted goes to the tail",
    ),
    broken(
        "4.4",
        "lease",
        "job.crashes, job.lost, job.guarded = crash.crashes, crash.lost, 1",
        "job.crashes, job.guarded = crash.crashes, 1",
        "deliveries lost unstarted are not counted",
    ),
    broken("4.4", "settle", "    job.lost = 0\n", "", "lost deliveries are counted although not in a row"),
    broken(
        "4.4",
        "settle",
        "job.attempt += settlement.charge",
        "job.attempt += 1",
        "a hand-back costs an attempt",
    ),
    # 4.5: leases
    broken(
        "4.5",
        "lease",
        "WHERE expires_at <= ? AND duration <= ?",
        "WHERE expires_at <= ? AND ? IS NOT NULL",
        "a reclaim may come right after an outage",
    ),
    broken(
        "4.5",
        "lease",
        "SET expires_at = ?, duration = ?",
        "SET expires_at = max(0 * ?, expires_at), duration = ?",
        "an extend does not move the expiry",
    ),
    broken("4.5", "lease", "if len(reclaimed) >= request.limit:", "if False:", "a reclaim has no limit"),
    # 4.6, 4.7: retries and dead letters
    broken(
        "4.6",
        "settle",
        "duration_micros(settlement.after)",
        "0 * duration_micros(settlement.after)",
        "no retry waits",
    ),
    broken(
        "4.6",
        "leaving",
        "ELSE json_insert(coalesce({1}errors, '[]'), '$[#]', json(e.value ->> {0})) END",
        "ELSE json_array(json(e.value ->> {0})) END",
        "the error of the first attempt is forgotten by the second",
    ),
    broken(
        "4.7",
        "leaving",
        "(self._buried if state is JobState.DEAD else self._cancelled)",
        "(self._cancelled)",
        "a dead letter is kept as cancelled",
    ),
    # 4.8, 4.9: terminal states and keys
    broken(
        "4.8",
        "control",
        "    if found == JobState.SUCCEEDED:\n        return RequeueStatus.NOT_DEAD\n",
        "",
        "a success is requeued",
    ),
    broken(
        "4.9",
        "holders",
        "WHERE k.expires_at IS NULL OR k.expires_at > ?2",
        "WHERE k.expires_at IS NULL OR ?2 IS NULL",
        "a key is free as soon as its job has ended",
    ),
    broken(
        "4.9",
        "holders",
        "WHERE k.expires_at IS NULL OR k.expires_at > ?2",
        "WHERE ?2 IS NOT NULL",
        "a key is never free again",
    ),
    broken(
        "4.9",
        "enqueue",
        "known=found,\n",
        "known=set(),\n",
        "what is enqueued again, as after a cut connection, fails",
    ),
    broken(
        "4.9",
        "leaving",
        "            self._keyed.append(job_id)\n",
        "            pass\n",
        "the key of a success is held for ever",
    ),
    broken(
        "4.9",
        "control",
        "if holder and holder[0][0] != job_id:",
        "if False:",
        "a requeue takes the key from whom has it",
    ),
    broken(
        "4.9",
        "settle",
        "    held, keyed, stepped, settled = yield from",
        "    held, _, stepped, settled = yield from",
        "no key is known to be held",
    ),
    # 4.10: time and order
    broken(
        "4.10",
        "walk",
        "SELECT due, id, guarded {_LANE} AND due <= ? ORDER",
        "SELECT due, id, guarded {_LANE} AND due <= ? + 3600000000 ORDER",
        "jobs run early",
    ),
    broken(
        "4.10",
        "enqueue",
        "due = max(run_at, now)",
        "due = run_at",
        "a run_at in the past overtakes",
    ),
    broken(
        "4.10",
        "reserve",
        "key=lambda head: (head.priority, head.lane)",
        "key=lambda head: (-head.priority, head.lane)",
        "the last priority goes first",
    ),
    broken(
        "4.10",
        "walk",
        "for due, job_id, guarded, queue in heapq.merge(*lines):",
        "for due, job_id, guarded, queue in [job for line in lines for job in line]:",
        "queues are taken one after the other",
    ),
    broken(
        "4.10",
        "settle",
        "        return now, FRONT\n",
        "        return now, NORMAL\n",
        "what is handed back goes to the tail",
    ),
    broken(
        "4.10",
        "walk",
        "if self._room(queue) <= 0:\n                if queue",
        "if False:\n                if queue",
        "queues side by side give more than their quotas",
    ),
    broken(
        "4.10",
        "walk",
        "room = max(min(self.limit - len(self.taken), self._room(queue)), 0)",
        "room = max(self.limit - len(self.taken), 0)",
        "a queue gives more than its quota",
    ),
    broken(
        "4.3",
        "settle",
        "ON j.id = e.value ->> 0 AND j.token = e.value ->> 1",
        "ON j.id = e.value ->> 0",
        "a batch of successes is not fenced",
    ),
    broken(
        "4.3",
        "settle",
        "return bool(held == len(settlements) and not keyed)",
        "return bool(held == len(fences) and not keyed)",
        "a job settled twice in one batch is told twice that it was settled",
    ),
    broken(
        "4.9", "settle", " and not keyed", "", "the key of a job that succeeded with others is held for ever"
    ),
    broken(
        "4.10",
        "bell",
        "                if watch.changed():\n",
        "                if False:\n",
        "a commit of the caller's wakes nobody",
    ),
    # 4.11: cancel
    broken(
        "4.11",
        "settle",
        "JobState.CANCELLED if job.cancel is not None else _ends_as(settlement.kind)",
        "_ends_as(settlement.kind)",
        "a failure beats a pending cancel",
    ),
    broken(
        "4.11",
        "lease",
        "    if job.cancel is not None:\n",
        "    if False:\n",
        "a reclaim forgets a pending cancel",
    ),
    broken(
        "4.11",
        "lease",
        "cancels = [CancelRequest(job_id, reason) for job_id, reason in pending]",
        "cancels = []",
        "a heartbeat brings no cancels",
    ),
    # 4.13, 4.15
    broken(
        "4.13",
        "leaving",
        "for ended in chunks(self._ended):",
        "for ended in ():",
        "a job that ended is still there",
    ),
    broken(
        "4.13",
        "joining",
        '_cursor(self._connection).execute("BEGIN IMMEDIATE")',
        "pass",
        "a job before the first row is committed by itself",
    ),
    broken(
        "4.13",
        "joining",
        'cursor.execute(f"RELEASE {_SAVEPOINT}")',
        "self._connection.commit()",
        "an enqueue commits the caller's transaction",
    ),
    broken(
        "4.13",
        "joining",
        "self._clock.now() if request.now is None else request.now",
        "self._clock.now()",
        "a request's now is ignored in a transaction",
    ),
    broken(
        "4.15",
        "reserve",
        "if take.name not in context.paused\n        for",
        "if True\n        for",
        "a paused queue gives jobs",
    ),
    # 4.16: strays
    broken(
        "4.16",
        "reserve",
        "self.task in tasks and build not in self.refused_by",
        "self.task in tasks",
        "a build meets again what it refused",
    ),
    broken(
        "4.16",
        "reserve",
        "self.task in tasks and build not in self.refused_by",
        "build not in self.refused_by",
        "strays go to those who do not know them",
    ),
    broken(
        "4.16",
        "settle",
        "        builds.update(msgspec.json.decode(before, type=list[str]))\n",
        "",
        "the builds that refused a job are forgotten",
    ),
    broken(
        "4.16",
        "upkeep",
        'WHERE seen_at + ttl > ?"""\n\n\ndef nothing',
        'WHERE ? IS NOT NULL"""\n\n\ndef nothing',
        "workers long gone still count as able",
    ),
    # 4.17: retention
    broken(
        "4.17",
        "leaving",
        "SELECT {_FROM_JOB}, 'succeeded', ?2, ?2 + o.retain,",
        "SELECT {_FROM_JOB}, 'succeeded', ?2, ?2,",
        "a success is not kept for its time",
    ),
    broken(
        "4.17",
        "upkeep",
        "more=max(jobs, keys, flows, events) >= request.limit",
        "more=False",
        "a limited prune does not say that there is more",
    ),
    broken(
        "4.17",
        "upkeep",
        "    yield Query(_DROP_KEYS, (step.now, request.limit))\n",
        '    yield Query("DELETE FROM taskharbor_key")\n',
        "a prune drops the keys of live jobs",
    ),
    # 4.18: the store's clock
    broken(
        "4.18",
        "transaction",
        "clock.now() if self._request.now is None else self._request.now",
        "clock.now()",
        "a request's now is ignored",
    ),
    # 4.24: limits and holds
    broken(
        "4.24", "limits", "before != request.terms", "True", "setting what is in force says that it changed"
    ),
    broken(
        "4.24", "limits", "AND override IS NOT NULL", "", "clearing nothing says that there was something"
    ),
    broken("4.24", "limits", "    yield Query(_FORGET)\n", "", "what limits nothing any more is listed"),
    broken(
        "4.24", "limits", "    yield Query(_RESTART)\n", "", "a rate taken back and set again has no burst"
    ),
    broken(
        "4.24",
        "limits",
        "SET revision = random()",
        "SET revision = 1",
        "later changes of limits are not seen",
    ),
    broken(
        "4.24",
        "limits",
        "INSERT OR IGNORE INTO taskharbor_hold",
        "INSERT OR REPLACE INTO taskharbor_hold",
        "the second hold stands",
    ),
    # 4.26: the audit trail, orders
    broken(
        "4.26",
        "acts",
        "SET named = named + excluded.named",
        "SET named = excluded.named",
        "what an act named is not added up",
    ),
    broken(
        "4.26",
        "acts",
        "ON CONFLICT (id) DO UPDATE",
        "ON CONFLICT (id) DO NOTHING -- ",
        "an act's later requests are not counted",
    ),
    broken("4.26", "acts", "ORDER BY id DESC", "ORDER BY id", "the trail is read from its beginning"),
    broken("4.26", "acts", 'where.append("id < :after")', "pass", "every page of the trail is the first"),
    broken(
        "4.26",
        "transaction",
        "self._looks = looks if request.act is None else None",
        "self._looks = looks",
        "an act that came to nothing is not in the trail",
    ),
    broken("4.26", "upkeep", "ordered NOT IN (?1, ?5)", "ordered <> ?1", "a drain takes back a stop"),
    broken(
        "4.26",
        "upkeep",
        "WHERE worker = ?3 AND seen_at + ttl > ?4",
        "WHERE worker = ?3",
        "a worker that is gone takes an order",
    ),
    broken(
        "4.26",
        "lease",
        "order=Order(ordered[0][0]) if ordered and ordered[0][0] else None",
        "order=None",
        "a worker is not told of its order",
    ),
    # 4.17: rules of retention
    broken("4.17", "retention", " AND {_FREE}", "", "steps of a flow that has not ended are removed"),
    broken(
        "4.17",
        "retention",
        "ORDER BY finished_at DESC",
        "ORDER BY finished_at",
        "the first that ended are kept",
    ),
    broken(
        "4.17",
        "retention",
        'rules.get((task, state)) or rules.get(("", state))',
        'rules.get(("", state))',
        "a task's own rule does not count",
    ),
    broken(
        "4.17",
        "retention",
        "WHERE keep_for IS NOT ?3 OR keep_last IS NOT ?4",
        "",
        "setting the same rule says that it changed",
    ),
]

RINGS = [
    broken(
        "4.10",
        "enqueue",
        "step.wakes.queues.update(job.queue for job in jobs)",
        "pass",
        "an enqueue wakes nobody",
    ),
    broken("4.15", "queue", "step.wakes.queues.update(request.queues)", "pass", "a resume wakes nobody"),
]
"""Commits that ring no bell. They are noticed all the same, a moment later, where one looks for them."""


def test_every_mutation_has_its_place() -> None:
    assert misplaced([*MUTATIONS, *RINGS]) == []


@pytest.mark.parametrize("mutation", one_in_six(MUTATIONS))
def test_a_rule_broken_in_the_driver_is_noticed(
    mutation: Mutation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What never comes need not be waited for long.
    monkeypatch.setattr("taskharbor_conformance.bench.WAKE_SECONDS", 0.5)

    with mutant_driver(tmp_path, mutation) as factory:
        noticed = first_failing(quick_first(mutation.rule), factory)

    assert noticed, f"rule {mutation.rule}: {mutation.why}, and none of its cases fails"


@pytest.mark.parametrize(
    "mutation", [*RINGS, None], ids=lambda one: mutation_name(one) if one else "unmutated"
)
def test_a_ring_left_out_is_noticed_where_nobody_looks_for_commits(
    mutation: Mutation | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskharbor_conformance.bench.WAKE_SECONDS", 0.5 if mutation else 5)

    with (
        mutant_driver(tmp_path, mutation) as factory,
        mock.patch("mutant_sqlite.bell._DataVersion.changed", return_value=False),
    ):
        noticed = first_failing(cases(family="listen"), factory)

    assert bool(noticed) == bool(mutation), noticed


def test_an_unmutated_driver_passes(tmp_path: Path) -> None:
    # Else a mutant might fail for what the copying did to it. A part of the cases tells that.
    with mutant_driver(tmp_path, None) as factory:
        failing = first_failing([case for case in cases() if case.family != "worker"][::3], factory)

    assert failing is None


@contextmanager
def mutant_driver(folder: Path, mutation: Mutation | None) -> Generator[DriverFactory]:
    """Import a copy of the SQLite driver with one replacement, under a name of its own."""
    name = "mutant_sqlite"
    copied = folder / name
    shutil.copytree(PACKAGE / SQLITE, copied, ignore=shutil.ignore_patterns("__pycache__"))
    if mutation is not None:
        replace(copied / mutation.file.removeprefix(SQLITE), mutation)
    for file in copied.glob("*.py"):
        file.write_text(file.read_text().replace(SqliteDriver.__module__.rpartition(".")[0], name))
    sys.path.insert(0, str(folder))
    try:
        importlib.invalidate_caches()
        make_driver = importlib.import_module(name).SqliteDriver

        @contextmanager
        def place() -> Generator[OpenDriver]:
            with TemporaryDirectory() as files:
                path = Path(files) / "jobs.db"

                def open_driver() -> Driver:
                    driver: Driver = make_driver(path)
                    return driver

                yield with_callers(path, open_driver)

        yield place
    finally:
        sys.path.remove(str(folder))
        for loaded in [loaded for loaded in sys.modules if loaded.partition(".")[0] == name]:
            del sys.modules[loaded]
