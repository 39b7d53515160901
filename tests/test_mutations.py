"""Each rule of the contract is broken on purpose, and the conformance suite has to notice.

A mutation is a text replacement in a copy of the sources: it breaks one rule and leaves the rest running. At least one
case *of that rule* must fail on it, so that no case passes for the wrong reason and no rule is only named.

Most rules are kept by the driver: for these the memory driver alone is copied, and imported beside the real one. What
the worker or the pure decisions keep is tried in a process of its own, on a copy of the whole package.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import SkipTest

import pytest

import taskharbor
import taskharbor_conformance
from taskharbor.driver import Driver
from taskharbor.drivers.memory import MemoryDriver
from taskharbor_conformance import Case, DriverFactory, cases

PACKAGE = Path(taskharbor.__file__).parent
SUITE = Path(taskharbor_conformance.__file__).parent
MEMORY = "drivers/memory/"
NOTICED = 3
"""Exit code of a process in which a case has failed."""


@dataclass(frozen=True)
class Mutation:
    """One rule, broken."""

    rule: str
    file: str
    """In the package."""
    old: str
    new: str
    why: str
    """What the mutant does wrong, as the name of its test."""


MUTATIONS = [
    # 4.1: at-least-once; what was answered is stored, whole and in one place
    Mutation(
        "4.1",
        MEMORY + "lease.py",
        "tables.make_due(row, now, FRONT)",
        "del tables.rows[row.job.id]",
        "the jobs of a crashed worker are dropped",
    ),
    Mutation(
        "4.1",
        MEMORY + "enqueue.py",
        "for job in new:",
        "for job in new[:1]:",
        "only the first job of a batch is stored",
    ),
    Mutation(
        "4.1",
        MEMORY + "driver.py",
        "yield MemoryStore(self._tables)",
        "yield MemoryStore(Tables(self._tables.clock))",
        "each connection has a store of its own",
    ),
    # 4.2: while a lease is valid, no other reserve returns the job
    Mutation(
        "4.2",
        MEMORY + "reserve.py",
        "    walk = Walk(request, now)\n",
        "    for old in [lease for lease in tables.leases.values() if lease.expires <= now]:\n"
        "        for row in list(old.rows.values()):\n"
        "            tables.leave_lease(row)\n"
        "            tables.make_due(row, row.due, row.lane)\n"
        "    walk = Walk(request, now)\n",
        "a reserve takes jobs whose lease has expired",
    ),
    Mutation(
        "4.2",
        MEMORY + "reserve.py",
        "            row.token = request.token\n",
        "            tables.make_due(row, row.due, row.lane)\n            row.token = request.token\n",
        "a leased job stays in its lane",
    ),
    Mutation(
        "4.2",
        MEMORY + "control.py",
        "    if row.token is not None:\n        return DeleteStatus.RUNNING\n",
        "",
        "a leased job can be deleted",
    ),
    Mutation(
        "4.2",
        MEMORY + "look.py",
        'worker="" if lease is None else lease.worker',
        'worker=""',
        "nobody sees who holds a job",
    ),
    # 4.3: fencing
    Mutation(
        "4.3",
        MEMORY + "settle.py",
        "if row.token != settlement.token:",
        "if row.token is None:",
        "a settle is not fenced: any token will do while the job is held",
    ),
    Mutation(
        "4.3",
        MEMORY + "settle.py",
        "row.settled_token = settlement.token",
        "row.settled_token = None",
        "a settle is not remembered: its repetition is stale",
    ),
    Mutation(
        "4.3",
        MEMORY + "settle.py",
        "_ALREADY if row.settled_token == settlement.token else _STALE",
        "_ALREADY",
        "a stale settle is told that it was carried out",
    ),
    Mutation(
        "4.3",
        MEMORY + "reserve.py",
        "row.settled_token = None",
        "pass",
        "a settle is remembered beyond the next reserve",
    ),
    Mutation(
        "4.3",
        MEMORY + "reserve.py",
        "held = tables.leases.get(request.token)",
        "held = None",
        "a repeated reserve takes other jobs",
    ),
    Mutation(
        "4.3",
        MEMORY + "reserve.py",
        "row.deliveries,  # the fence",
        "row.attempt + 1,",
        "the fence stands still while no attempt is charged",
    ),
    Mutation(
        "4.3",
        MEMORY + "lease.py",
        "lost.append(hold.token)",
        "pass",
        "a heartbeat does not tell which leases are lost",
    ),
    Mutation(
        "4.3",
        MEMORY + "lease.py",
        "lost=lost",
        "lost=[*lost, *(hold.token for hold in request.leases)]",
        "a heartbeat tells of a loss that was none",
    ),
    Mutation(
        "4.3",
        MEMORY + "tables.py",
        "if not lease.rows:",
        "if True:",
        "settling one job drops the lease of its neighbours",
    ),
    # 4.4: an attempt is a start that the store knows
    Mutation(
        "4.4",
        MEMORY + "lease.py",
        "row.attempt += started",
        "row.attempt += 1",
        "a crash charges jobs that were never started",
    ),
    Mutation(
        "4.4",
        MEMORY + "lease.py",
        "row.attempt += started",
        "pass",
        "a crash charges nothing",
    ),
    Mutation(
        "4.4",
        MEMORY + "lease.py",
        "lease.started.update(",
        "set().update(",
        "starts are not written",
    ),
    Mutation(
        "4.4",
        MEMORY + "lease.py",
        "row.guarded = True",
        "pass",
        "a job whose worker crashed is not guarded",
    ),
    Mutation(
        "4.4",
        MEMORY + "lease.py",
        "tables.make_due(row, now, FRONT)",
        "tables.make_due(row, now, NORMAL)",
        "a job lost unstarted goes to the tail",
    ),
    Mutation(
        "4.4",
        MEMORY + "lease.py",
        "row.lost = crash.lost",
        "row.lost = 0",
        "deliveries lost unstarted are not counted",
    ),
    Mutation(
        "4.4",
        MEMORY + "enqueue.py",
        "guarded=job.retry.max_attempts == 1",
        "guarded=False",
        "a job of one attempt is not guarded",
    ),
    Mutation(
        "4.4",
        MEMORY + "walk.py",
        "if self.guarded_left <= 0:",
        "if False:",
        "guarded jobs are taken beyond the free slots",
    ),
    Mutation(
        "4.4",
        MEMORY + "walk.py",
        "self.solo_left = 1 if request.solo else 0",
        "self.solo_left = 1",
        "a solo job is taken beside another",
    ),
    Mutation(
        "4.4",
        MEMORY + "walk.py",
        "self.solo_left -= 1",
        "pass",
        "one reserve takes several solo jobs",
    ),
    Mutation(
        "4.4",
        MEMORY + "settle.py",
        "tables.make_due(row, now, FRONT)",
        "row.lost += 1\n            row.lost < 10 or tables.finish(row, JobState.DEAD, now)\n"
        "            row.final or tables.make_due(row, now, FRONT)",
        "hand-backs count as lost deliveries",
    ),
    Mutation(
        "4.4",
        MEMORY + "settle.py",
        "if settlement.charge:",
        "if settlement.charge or settlement.kind is SettleKind.SNOOZE:",
        "a snooze costs an attempt",
    ),
    Mutation(
        "4.4",
        "settlement.py",
        "SOLO_CRASHES = 2",
        "SOLO_CRASHES = 3",
        "a job runs alone only after three crashes",
    ),
    Mutation(
        "4.4",
        "settlement.py",
        "LOST_LIMIT = 10",
        "LOST_LIMIT = 11",
        "eleven lost deliveries are needed to end a job",
    ),
    Mutation(
        "4.4",
        "settlement.py",
        "Settlement(job_id, token, SettleKind.SNOOZE, after=for_)",
        "Settlement(job_id, token, SettleKind.SNOOZE, after=for_, charge=True)",
        "a worker charges a snooze",
    ),
    Mutation(
        "4.4",
        "worker/intake.py",
        "if delivery.guarded:",
        "if False:",
        "a guarded handler runs before its start is written",
    ),
    # 4.5: leases last until they are reclaimed
    Mutation(
        "4.5",
        MEMORY + "lease.py",
        "lease.expires <= now and lease.duration <= observed",
        "lease.expires <= now",
        "a reclaim may come right after an outage",
    ),
    Mutation(
        "4.5",
        MEMORY + "lease.py",
        "lease.expires <= now and lease.duration <= observed",
        "lease.duration <= observed",
        "a reclaim takes leases that have not expired",
    ),
    Mutation(
        "4.5",
        MEMORY + "lease.py",
        "lease.expires = now + duration",
        "pass",
        "an extend does not move the expiry",
    ),
    Mutation(
        "4.5",
        MEMORY + "lease.py",
        "lease.duration = duration",
        "pass",
        "a lease keeps the duration it began with",
    ),
    Mutation(
        "4.5",
        MEMORY + "lease.py",
        "if lease is None:",
        "if lease is None or lease.expires <= now:",
        "an expired lease cannot be extended",
    ),
    Mutation(
        "4.5",
        MEMORY + "lease.py",
        "if len(reclaimed) >= request.limit:",
        "if False:",
        "a reclaim has no limit",
    ),
    Mutation(
        "4.5",
        "worker/keeper.py",
        "lease.total_seconds() / 3",
        "lease.total_seconds() * 3",
        "a worker does not extend its leases in time",
    ),
    # 4.6: a failed attempt waits for its backoff
    Mutation(
        "4.6",
        MEMORY + "settle.py",
        "tables.make_due(row, now + wait, NORMAL)",
        "tables.make_due(row, now, NORMAL)",
        "a failed attempt is tried again at once",
    ),
    Mutation(
        "4.6",
        MEMORY + "lease.py",
        "now + duration_micros(crash.after)",
        "now",
        "a job that was running in a crash does not back off",
    ),
    Mutation(
        "4.6",
        "settlement.py",
        "numbers.backoff(attempt + 1, draw=draw), error=error",
        "numbers.backoff(1, draw=draw), error=error",
        "the backoff after crashes does not grow",
    ),
    Mutation(
        "4.6",
        "settlement.py",
        "if attempt + 1 >= numbers.max_attempts:",
        "if attempt >= numbers.max_attempts:",
        "crashes are allowed one attempt too many",
    ),
    Mutation(
        "4.6",
        "settlement.py",
        "if job.attempt >= numbers.max_attempts:",
        "if job.attempt > numbers.max_attempts:",
        "a failing job gets one attempt too many",
    ),
    Mutation(
        "4.6",
        "worker/run.py",
        "policy = self.plan.definition.options.retry.policy_for(error)",
        "policy = None",
        "a policy for an exception type does not count",
    ),
    Mutation(
        "4.6",
        "worker/run.py",
        'checked_wait(error.after, "RetryLater(after=...)") if isinstance(error, RetryLater) else None',
        "None",
        "a handler's own wait does not count",
    ),
    # 4.7: dead letters keep everything and can be requeued
    Mutation(
        "4.7",
        MEMORY + "settle.py",
        "(*row.errors, msgspec.structs.replace(error, at=from_micros(now)))",
        "(msgspec.structs.replace(error, at=from_micros(now)),)",
        "only the last error is kept",
    ),
    Mutation(
        "4.7",
        MEMORY + "control.py",
        "if row.final not in (JobState.DEAD, JobState.CANCELLED):",
        "if row.final is not JobState.CANCELLED:",
        "a dead letter cannot be requeued",
    ),
    Mutation(
        "4.7",
        MEMORY + "control.py",
        "row.attempt = 0",
        "pass",
        "a requeued job has no attempts left",
    ),
    Mutation(
        "4.7",
        MEMORY + "control.py",
        "tables.make_due(row, max(now, micros(row.run_at)), NORMAL)",
        "tables.make_due(row, row.due, NORMAL)",
        "a requeued job overtakes those that wait",
    ),
    Mutation(
        "4.7",
        "worker/run.py",
        "if isinstance(error, Reject):",
        "if False:",
        "a rejected job is tried again",
    ),
    # 4.8: terminal states never change but by an act that is recorded
    Mutation(
        "4.8",
        MEMORY + "control.py",
        "    if row.final is not None:\n        return CancelStatus.FINISHED\n",
        "",
        "a finished job can be cancelled",
    ),
    Mutation(
        "4.8",
        MEMORY + "control.py",
        "    if states and tables.shown_state(row, now, gates)[0] not in states:\n"
        "        return DeleteStatus.OTHER_STATE\n",
        "",
        "a job is deleted in a state that was not asked for",
    ),
    Mutation(
        "4.8",
        MEMORY + "control.py",
        "(JobState.DEAD, JobState.CANCELLED)",
        "(JobState.DEAD, JobState.CANCELLED, JobState.SUCCEEDED)",
        "a success can be requeued",
    ),
    Mutation(
        "4.8",
        MEMORY + "control.py",
        'Operation(at=from_micros(now), verb="requeue", by=request.by, reason=request.reason),',
        "",
        "a requeue is not recorded",
    ),
    Mutation(
        "4.8",
        MEMORY + "tables.py",
        "self.woken_jobs.add(job.id)",
        "pass",
        "nobody is told that a job has ended",
    ),
    # 4.9: idempotency keys
    Mutation(
        "4.9",
        "driver/admission.py",
        "if holder.digest == job.digest else EnqueueStatus.CONFLICT",
        "if True else EnqueueStatus.CONFLICT",
        "other arguments under the same key are no conflict",
    ),
    Mutation(
        "4.9",
        "driver/admission.py",
        "    before = taken.get(name)\n",
        "    before = None\n",
        "a key does not hold within a batch",
    ),
    Mutation(
        "4.9",
        "driver/admission.py",
        "if not (refused and all_or_none):",
        "if True:",
        "all_or_none stores some",
    ),
    Mutation(
        "4.9",
        "driver/admission.py",
        "if job.id in new or job.id in known:",
        "if job.id in new:",
        "a repeated enqueue stores its job again",
    ),
    Mutation(
        "4.9",
        MEMORY + "tables.py",
        "key = self.keys.get((task, name))",
        "key = next((key for (_, other), key in self.keys.items() if other == name), None)",
        "a key holds for all tasks",
    ),
    Mutation(
        "4.9",
        MEMORY + "tables.py",
        "key.expires = now + ttl",
        "key.expires = now",
        "a key is free as soon as its job ends",
    ),
    Mutation(
        "4.9",
        MEMORY + "tables.py",
        "(key.expires is not None and key.expires <= now)",
        "False",
        "a key is never free again",
    ),
    Mutation(
        "4.9",
        MEMORY + "control.py",
        "return RequeueStatus.KEY_TAKEN",
        "pass",
        "a requeue takes its key from whoever holds it",
    ),
    Mutation(
        "4.9",
        MEMORY + "control.py",
        "tables.keys[job.task, job.key] = Key(job.id, job.digest)",
        "pass",
        "a requeue does not take its key again",
    ),
    Mutation(
        "4.9",
        MEMORY + "control.py",
        "if key is not None and key.job_id == row.job.id:",
        "if key is not None:",
        "deleting a job frees the key that another has taken",
    ),
    # 4.10: never early, and in order
    Mutation(
        "4.10",
        MEMORY + "enqueue.py",
        "tables.make_due(row, max(run_at, now), NORMAL)",
        "tables.make_due(row, now, NORMAL)",
        "jobs run before their time",
    ),
    Mutation(
        "4.10",
        MEMORY + "enqueue.py",
        "tables.make_due(row, max(run_at, now), NORMAL)",
        "tables.make_due(row, run_at, NORMAL)",
        "a time in the past overtakes those that wait",
    ),
    Mutation(
        "4.10",
        MEMORY + "tables.py",
        "heaps.heaps[row.job.priority * LANES + row.lane]",
        "heaps.heaps[(PRIORITIES - 1 - row.job.priority) * LANES + row.lane]",
        "the last priority goes first",
    ),
    Mutation(
        "4.10",
        MEMORY + "settle.py",
        "tables.make_due(row, now, FRONT)",
        "tables.make_due(row, now, NORMAL)",
        "what is handed back goes to the tail",
    ),
    Mutation(
        "4.10",
        MEMORY + "walk.py",
        "elif best is None or head < best:",
        "elif best is None:",
        "queues are served one after the other",
    ),
    Mutation(
        "4.10",
        MEMORY + "walk.py",
        "source.left[source.queue] -= 1\n        if",
        "if",
        "a queue's quota does not count",
    ),
    Mutation(
        "4.10",
        MEMORY + "tables.py",
        "(due, row.job.id, row.entry, row))\n        self.woken_queues.add(row.job.queue)",
        "(due, row.job.id, row.entry, row))",
        "nobody is told that there is work",
    ),
    # 4.11: cancel
    Mutation(
        "4.11",
        MEMORY + "settle.py",
        "if row.cancel is not None:",
        "if False:",
        "a failure with a cancel pending is tried again",
    ),
    Mutation(
        "4.11",
        MEMORY + "settle.py",
        "if settlement.kind is SettleKind.SUCCEED:",
        "if settlement.kind is SettleKind.SUCCEED and row.cancel is None:",
        "a cancel beats a success",
    ),
    Mutation(
        "4.11",
        MEMORY + "lease.py",
        "if row.cancel is not None:",
        "if False:",
        "a cancel is forgotten in a crash",
    ),
    Mutation(
        "4.11",
        MEMORY + "lease.py",
        "cancels=cancels",
        "cancels=[]",
        "a heartbeat does not tell of cancels",
    ),
    Mutation(
        "4.11",
        MEMORY + "control.py",
        "        row.cancel = request.reason\n        return CancelStatus.REQUESTED\n",
        "        tables.leave_lease(row)\n",
        "a cancel ends a running job under its worker",
    ),
    Mutation(
        "4.11",
        MEMORY + "tables.py",
        "row.cancel = None",
        "pass",
        "an old cancel ends a requeued job",
    ),
    Mutation(
        "4.11",
        "worker/execution.py",
        "outcome = run.succeeded(await run.plan.call(run))",
        "value = await run.plan.call(run)\n"
        "                outcome = run.stopped(self._worker) if run.stop else run.succeeded(value)",
        "a handler that returns in spite of a cancel has not succeeded",
    ),
    Mutation(
        "4.11",
        "worker/worker.py",
        "run.ask_to_stop(Stop.CANCEL, cancel.reason)",
        "pass",
        "a running handler is not told of its cancel",
    ),
    Mutation(
        "4.11",
        "worker/interrupts.py",
        "                _send(ident)",
        "                pass",
        "a handler in a thread is not interrupted",
    ),
    # 4.12: timeouts
    Mutation(
        "4.12",
        "worker/run.py",
        "return self.failed(error, worker)",
        'return Cancelled("timed out")',
        "a timeout ends its job as cancelled",
    ),
    Mutation(
        "4.12",
        "worker/run.py",
        "retry.policy_for(error)",
        "retry.policy_for(ValueError())",
        "a policy cannot tell timeouts apart",
    ),
    Mutation(
        "4.12",
        "worker/execution.py",
        "timeout.total_seconds(), work.time_out",
        "timeout.total_seconds() * 1000, work.time_out",
        "timeouts come far too late",
    ),
    # 4.13: a settle is one atomic step
    Mutation(
        "4.13",
        MEMORY + "settle.py",
        "for settlement in request.settlements]",
        "for settlement in sorted(request.settlements, key=lambda one: one.job_id, reverse=True)]",
        "a batch is answered in another order",
    ),
    Mutation(
        "4.13",
        MEMORY + "settle.py",
        "row.result = settlement.result",
        "row.result = settlement.result or None",
        "an empty result is no result",
    ),
    # 4.14: flows (`test_flow_mutations` breaks more of it)
    Mutation(
        "4.14",
        MEMORY + "advance.py",
        "if place not in row.inputs:",
        "if True:",
        "an input that is there counts again",
    ),
    # 4.15: pause
    Mutation(
        "4.15",
        MEMORY + "reserve.py",
        "if queue not in tables.paused",
        "if True",
        "a paused queue is reserved from",
    ),
    Mutation(
        "4.15",
        MEMORY + "control.py",
        "    return [tables.paused.setdefault(queue, pause) is pause for queue in request.queues]",
        "    tables.paused.update(dict.fromkeys(request.queues, pause))\n    return [True for _ in request.queues]",
        "pausing again forgets the first pause",
    ),
    Mutation(
        "4.15",
        MEMORY + "lease.py",
        "for row in list(lease.rows.values()):",
        "for row in [row for row in lease.rows.values() if row.job.queue not in tables.paused]:",
        "a pause stops reclaim too",
    ),
    Mutation(
        "4.15",
        MEMORY + "control.py",
        "tables.woken_queues.update(queue for queue, was in zip(request.queues, resumed, strict=True) if was)",
        "pass",
        "nobody is told that a queue was resumed",
    ),
    # 4.16: unknown tasks and foreign payloads
    Mutation(
        "4.16",
        MEMORY + "rows.py",
        "return self.task in tasks and build not in self.refused_by",
        "return True",
        "a worker meets the same stray job again and again",
    ),
    Mutation(
        "4.16",
        MEMORY + "rows.py",
        "return self.task in tasks and build not in self.refused_by",
        "return self.task in tasks",
        "a build meets again what it refused",
    ),
    Mutation(
        "4.16",
        MEMORY + "rows.py",
        "return self.task in tasks and build not in self.refused_by",
        "return build not in self.refused_by",
        "a worker meets again a task that it does not know",
    ),
    Mutation(
        "4.16",
        MEMORY + "settle.py",
        "frozenset() if row.stray is None else row.stray.refused_by",
        "frozenset()",
        "only the last refusal is remembered",
    ),
    Mutation(
        "4.16",
        MEMORY + "tables.py",
        "return JobState.PARKED\n",
        "pass\n",
        "a job that nobody can run does not show as parked",
    ),
    Mutation(
        "4.16",
        MEMORY + "tables.py",
        "if worker.seen + worker.ttl > now)",
        ")",
        "a worker not heard for long counts as live",
    ),
    Mutation(
        "4.16",
        MEMORY + "lease.py",
        "worker.seen = now",
        "pass",
        "a heartbeat does not keep its worker on the register",
    ),
    Mutation(
        "4.16",
        MEMORY + "lease.py",
        "known_worker=worker is not None",
        "known_worker=True",
        "a worker is not told that it is off the register",
    ),
    Mutation(
        "4.16",
        "worker/preparing.py",
        "if own and not error.foreign:",
        "if True:",
        "a payload of another build is a dead letter",
    ),
    Mutation(
        "4.16",
        "worker/preparing.py",
        "if own and not error.foreign:",
        "if False:",
        "a broken payload goes from build to build",
    ),
    # 4.17: retention
    Mutation(
        "4.17",
        MEMORY + "tables.py",
        "if state is not JobState.DEAD:",
        "if True:",
        "dead letters are removed",
    ),
    Mutation(
        "4.17",
        MEMORY + "tables.py",
        "row.expires = now + retain",
        "row.expires = now",
        "jobs are not kept for their time",
    ),
    Mutation(
        "4.17",
        MEMORY + "upkeep.py",
        "row is None or row.expires != expires",
        "row is None",
        "a requeued job is removed when its first end would have been",
    ),
    Mutation(
        "4.17",
        MEMORY + "upkeep.py",
        "key is None or key.expires != expires",
        "key is None",
        "a key taken anew is removed with its old time",
    ),
    Mutation(
        "4.17",
        MEMORY + "upkeep.py",
        "more = jobs >= request.limit or keys >= request.limit",
        "more=False",
        "a limited prune does not say that there is more",
    ),
    # 4.18: the store's clock decides
    Mutation(
        "4.18",
        MEMORY + "blocking.py",
        "micros(tables.clock.now() if request.now is None else request.now)",
        "micros(tables.clock.now())",
        "a request's now is ignored",
    ),
    Mutation(
        "4.18",
        MEMORY + "enqueue.py",
        "run_at = now + duration_micros(job.run_in)",
        "run_at = micros(tables.clock.now()) + duration_micros(job.run_in)",
        "run_in is counted by another clock than the request's",
    ),
    Mutation(
        "4.18",
        MEMORY + "blocking.py",
        "micros(tables.clock.now() if request.now is None else request.now)",
        "0 if request.now is None else micros(request.now)",
        "the store has no clock of its own",
    ),
    Mutation(
        "4.10",
        MEMORY + "control.py",
        "max(now, micros(row.run_at))",
        "now",
        "a requeued job runs before its time",
    ),
    # 4.19: shutdown
    Mutation(
        "4.19",
        "worker/stopping.py",
        "await self._wait_for_runs(self._settings.grace, until_halt=True)",
        "pass",
        "a drain does not wait for running handlers",
    ),
    Mutation(
        "4.19",
        "worker/stopping.py",
        "self._intake.release_buffer()",
        "pass",
        "a stop leaves what has not started leased",
    ),
    Mutation(
        "4.19",
        "worker/stopping.py",
        "await self._halt_runs()",
        "pass",
        "a hard stop leaves handlers running",
    ),
    Mutation(
        "4.19",
        "worker/run.py",
        "return Released(started=self.started)",
        'return Cancelled("shutdown")',
        "a shutdown cancels the jobs that were running",
    ),
    Mutation(
        "4.19",
        "settlement.py",
        "if started and job.retry.max_attempts == 1:",
        "if False:",
        "a job of one attempt is run again after a shutdown",
    ),
    # 4.20 and 4.21: more of them in `test_unique_mutations`
    Mutation("4.20", MEMORY + "enqueue.py", "    row.job = job\n", "", "a replacement changes nothing"),
    Mutation(
        "4.21",
        MEMORY + "reserve.py",
        "if request.aged is not None:\n            walk",
        "if False:\n            walk",
        "nothing ages",
    ),
    # 4.22 and 4.23: more of them in `test_schedule_mutations`
    Mutation(
        "4.22",
        MEMORY + "schedule.py",
        "record is None or record.revision != firing.revision",
        "record is None",
        "a tick has a job for each who fires it",
    ),
    Mutation(
        "4.23",
        MEMORY + "leader.py",
        "last is None or last.expires <= now or",
        "last is None or True or",
        "whoever asks leads",
    ),
    Mutation(
        "4.24",
        MEMORY + "limits.py",
        "    if any(placed):\n        _enforce(tables)\n",
        "",
        "what is held back is taken all the same",
    ),
    Mutation("4.25", MEMORY + "lines.py", "bisect_right(self.order, self.after)", "0", "turns do not go on"),
    Mutation("4.26", MEMORY + "acts.py", "if act is None or", "if True or", "no act is written down"),
]

HURRY = [
    Mutation(
        "",
        "worker/settings.py",
        "grace: timedelta = timedelta(seconds=30)",
        "grace: timedelta = timedelta(seconds=1)",
        "a mutant whose handlers do not end is not waited for",
    ),
    Mutation(
        "",
        "worker/settings.py",
        "halt: timedelta = timedelta(seconds=5)",
        "halt: timedelta = timedelta(seconds=1)",
        "nor is it asked to end for long",
    ),
]


def _is_in_driver(mutation: Mutation) -> bool:
    return mutation.file.startswith(MEMORY)


def mutation_name(mutation: Mutation) -> str:
    """Return what a test of it is called."""
    return f"{mutation.rule}-{mutation.why.replace(' ', '_')}"


def one_in_six(mutations: Sequence[Mutation]) -> list[object]:
    """Return mutations as parameters, of which `make test` tries every sixth, and `make test-full` all."""
    return [
        pytest.param(one, id=mutation_name(one), marks=[pytest.mark.slow] if number % 6 else [])
        for number, one in enumerate(mutations)
    ]


def misplaced(mutations: Sequence[Mutation]) -> list[str]:
    """Return those whose place in the source is not there any more: what is tried only now and then."""
    files = {one.file: (PACKAGE / one.file).read_text() for one in mutations}
    return [mutation_name(one) for one in mutations if files[one.file].count(one.old) != 1]


def test_every_mutation_has_its_place() -> None:
    assert misplaced(MUTATIONS) == []


@pytest.mark.parametrize("mutation", one_in_six([one for one in MUTATIONS if _is_in_driver(one)]))
def test_a_rule_broken_in_the_driver_is_noticed(
    mutation: Mutation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What never comes need not be waited for long.
    monkeypatch.setattr("taskharbor_conformance.bench.WAKE_SECONDS", 0.5)

    with mutant_driver(tmp_path, mutation) as factory:
        noticed = first_failing(quick_first(mutation.rule), factory)

    assert noticed, f"rule {mutation.rule}: {mutation.why}, and none of its cases fails"


@pytest.mark.parametrize("mutation", one_in_six([one for one in MUTATIONS if not _is_in_driver(one)]))
def test_a_rule_broken_elsewhere_is_noticed(mutation: Mutation, tmp_path: Path) -> None:
    copy_package(tmp_path, mutation, *HURRY)

    code, said = in_a_process(tmp_path, mutation.rule)

    assert code == NOTICED, f"rule {mutation.rule}: {mutation.why}, and none of its cases fails: {said}"


def test_an_unmutated_driver_passes(tmp_path: Path) -> None:
    # Else a mutant might fail for what the copying did to it.
    with mutant_driver(tmp_path, None) as factory:
        failing = first_failing([case for case in cases() if case.family != "worker"], factory)

    assert failing is None


def test_an_unmutated_copy_passes_in_a_process_of_its_own(tmp_path: Path) -> None:
    copy_package(tmp_path, *HURRY)
    rules = sorted({mutation.rule for mutation in MUTATIONS if not _is_in_driver(mutation)})

    code, said = in_a_process(tmp_path, *rules)

    assert code == 0, said


def test_every_rule_that_has_cases_is_broken_on_purpose() -> None:
    tried = {rule for case in cases() for rule in case.rules}

    assert tried - {mutation.rule for mutation in MUTATIONS} == set()


def quick_first(*rules: str) -> Sequence[Case]:
    """Return the cases of some rules; those with threads and real handlers, which take longest, come last."""
    found = [case for case in cases() if not set(rules).isdisjoint(case.rules)]
    last = ("flow_concurrency", "flow_large", "schedule_concurrency", "concurrency", "worker")
    return sorted(found, key=lambda case: last.count(case.family))


def first_failing(tried: Sequence[Case], factory: DriverFactory) -> str | None:
    """Return which case fails first, and how; None if all pass or do not concern the driver."""
    for case in tried:
        try:
            case.run(factory)
        except SkipTest:
            continue
        except Exception as error:  # noqa: BLE001 - a mutant may break in any way
            return f"{case.id}: {type(error).__name__}: {error}"
    return None


@contextmanager
def mutant_driver(folder: Path, mutation: Mutation | None) -> Generator[DriverFactory]:
    """Import a copy of the memory driver with one replacement, under a name of its own."""
    name = "mutant_memory"
    copied = folder / name
    shutil.copytree(PACKAGE / MEMORY, copied, ignore=shutil.ignore_patterns("__pycache__"))
    if mutation is not None:
        replace(copied / mutation.file.removeprefix(MEMORY), mutation)
    for file in copied.glob("*.py"):
        file.write_text(file.read_text().replace(MemoryDriver.__module__.rpartition(".")[0], name))
    sys.path.insert(0, str(folder))
    try:
        importlib.invalidate_caches()
        make_driver: type[Driver] = importlib.import_module(name).MemoryDriver
        yield make_driver
    finally:
        sys.path.remove(str(folder))
        for loaded in [loaded for loaded in sys.modules if loaded.partition(".")[0] == name]:
            del sys.modules[loaded]


def copy_package(folder: Path, *mutations: Mutation) -> None:
    """Copy the whole package into a folder, and mutate it there."""
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    for mutation in mutations:
        replace(folder / PACKAGE.name / mutation.file, mutation)


def in_a_process(folder: Path, *rules: str) -> tuple[int, str]:
    """Try the cases of some rules on the package in `folder`; return the exit code and what was said."""
    path = os.pathsep.join([str(folder), str(SUITE.parent), str(Path(__file__).parent.parent)])
    done = subprocess.run(
        [sys.executable, "-m", "tests.test_mutations", *rules],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    return done.returncode, done.stdout


def replace(file: Path, mutation: Mutation) -> None:
    """Carry out a mutation in a copy."""
    text = file.read_text()
    found = text.count(mutation.old)
    assert found == 1, (
        f"rule {mutation.rule} ({mutation.why}): {mutation.file} holds {mutation.old!r} {found} times; "
        "the code has changed, so point the mutation at what keeps this rule now"
    )
    file.write_text(text.replace(mutation.old, mutation.new))


def main() -> None:
    """In a process of its own: exit with `NOTICED` if a case of the rules named fails."""
    from taskharbor_conformance import worker

    if sys.argv[2:] == []:  # one rule: a mutant, which may wait for what never comes
        worker.PATIENCE = 3.0
    failing = first_failing(quick_first(*sys.argv[1:]), MemoryDriver)
    if failing is not None:
        print(failing, flush=True)
        os._exit(NOTICED)  # a mutant may have left threads that would not end


if __name__ == "__main__":
    main()
