"""A tour of the command line: one short visit to each command, on whatever store. Each checks what it has come for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from taskharbor import Context, Harbor, JobState, Retry, SyncTask, chord, cron, task
from taskharbor.driver import EventAppend
from taskharbor.drivers.registry import open_driver
from taskharbor.event import JobStarted
from taskharbor.job import new_job_id
from tests.fixtures.cli import Shop
from tests.fixtures.support import SOURCES
from tests.support.work import ENOUGH, eventually

_APPLICATION = """
from taskharbor import Harbor, task

@task(name="mail.send", queue="mail")
def send(to: str, count: int = 1) -> str:
    return f"{to} {count}"

harbor = Harbor("memory://")
"""


class Tour(Shop):
    """A shop on a store that others can open by its URL."""

    url: str
    folder: Path
    report: SyncTask[..., None]

    @classmethod
    def through(
        cls, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str, folder: Path
    ) -> Tour:
        made = cls(monkeypatch, capsys, open_driver(url))
        made.url, made.folder = url, folder

        @task(name="row.report", registry=made.registry, retry=Retry(max_attempts=1))
        def report(ctx: Context, rows: int) -> None:
            ctx.progress(rows, 2 * rows, "halfway")
            ctx.log("read them")

        made.report = report
        return made

    def lines(self, *arguments: str, code: int = 0) -> list[Any]:
        """Run a command for programs, check how it ends, and return its lines."""
        ended = self.run(*arguments, "--json")
        assert code == ended.code, ended.err
        return ended.lines()

    def told(self, *arguments: str, code: int = 0) -> str:
        """Run a command for people, check how it ends, and return what it printed."""
        ended = self.run(*arguments)
        assert code == ended.code, ended.err
        return ended.out

    def sent(self) -> str:
        with self.harbor:
            return self.send.enqueue("a").id

    def reported(self) -> str:
        with self.harbor:
            job = self.report.enqueue(rows=5)
            self.harbor.run_until_idle()
        return job.id

    def failed_flow(self) -> str:
        with self.harbor:
            flow = chord([self.load.s(1), self.load.s(2)], self.report).enqueue()
            self.harbor.run_until_idle()
        return flow.id

    def created(self, name: str) -> None:
        self.harbor.schedules.create(name, self.send.s("a"), cron("0 3 * * *", tz="Europe/Paris"))

    def declare(self, *names: str) -> None:
        """Have the shop declare schedules, in a harbor that commands see instead of its own."""
        harbor = Harbor(self.url, registry=self.registry, application="tour")
        for name in names:
            harbor.schedule(self.send.s("a"), cron("@weekly"), name=name)
        self.module.__dict__["harbor"] = harbor

    def state(self, job_id: str) -> JobState:
        return self.harbor.jobs.get(job_id).state

    @contextmanager
    def process(self, *arguments: str) -> Generator[subprocess.Popen[str]]:
        """Run a command in a process of its own, as a user does; kill it, if it has not ended at the end."""
        (self.folder / "post.py").write_text(_APPLICATION, encoding="utf-8")
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("TASKHARBOR_")
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "taskharbor.cli", *arguments, "--url", self.url],
            cwd=self.folder,
            env={**environment, "PYTHONPATH": str(SOURCES)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


VISITS: dict[str, Callable[[Tour], None]] = {}
"""By the command's words."""


def visit(name: str) -> Callable[[Callable[[Tour], None]], Callable[[Tour], None]]:
    def note(function: Callable[[Tour], None]) -> Callable[[Tour], None]:
        VISITS[name] = function
        return function

    return note


@visit("worker")
def _worker(tour: Tour) -> None:
    job = tour.sent()

    with tour.process("worker", "--app", "post.py", "--until-idle") as process:
        log, _ = process.communicate(timeout=ENOUGH.total_seconds())

    assert (0, JobState.SUCCEEDED) == (process.returncode, tour.state(job)), log


@visit("dev")
def _dev(tour: Tour) -> None:
    job = tour.sent()

    with tour.process("dev", "post.py") as process:
        eventually(lambda: tour.state(job) is JobState.SUCCEEDED, "the job was done")
        process.send_signal(signal.SIGINT)
        log, _ = process.communicate(timeout=ENOUGH.total_seconds())

    assert (0, True) == (process.returncode, "dev: told to stop: the worker drains" in log), log


@visit("enqueue")
def _enqueue(tour: Tour) -> None:
    job = tour.told("enqueue", "mail.send", "to=a", "count=2").strip()

    assert {"to": "a", "count": 2} == tour.harbor.arguments_of(tour.harbor.jobs.get(job))


@visit("tasks list")
def _tasks(tour: Tour) -> None:
    assert ["mail.send", "row.load", "row.report", "row.skip"] == sorted(
        line["name"] for line in tour.lines("tasks")
    )


@visit("jobs list")
def _jobs_list(tour: Tour) -> None:
    dead, sent = tour.bury(1, 22), tour.sent()

    assert dead[1:] == [
        job["id"] for job in tour.lines("jobs", "list", "--error", "ValueError", "--text", "ROW 2")
    ]
    assert [sent] == [
        job["id"] for job in tour.lines("jobs", "list", "--queue", "mail", "--newer-than", "1h")
    ]
    assert [] == tour.lines("jobs", "list", "--older-than", "1h")


@visit("jobs show")
def _jobs_show(tour: Tour) -> None:
    job = tour.reported()

    told = tour.told("jobs", "show", job)

    assert "progress    5 of 10 (50%): halfway\n" in told
    assert told.rstrip().endswith("  read them")
    (line,) = tour.lines("jobs", "show", job)
    assert (5, "read them") == (line["progress"]["done"], line["log"][0]["text"])


@visit("jobs watch")
def _jobs_watch(tour: Tour) -> None:
    well, (ill,) = tour.reported(), tour.bury(1)

    told = tour.lines("jobs", "watch", well)
    worse = tour.told("jobs", "watch", ill, code=1)

    assert ["read them", "halfway", "succeeded"] == [
        line["log"]["text"]
        if "log" in line
        else line["progress"]["note"]
        if "progress" in line
        else line["state"]
        for line in told
    ]
    assert f"{ill}  row.load  dead after 1 attempt: not to be retried\n" == worse


@visit("jobs retry")
def _jobs_retry(tour: Tour) -> None:
    tour.bury(1, 2, 13)

    (told,) = tour.lines("jobs", "retry", "--all", "--text", "row 1", "--dry-run")
    done = tour.told("jobs", "retry", "--all", "--text", "row 1", "--yes")

    assert (2, True) == (told["count"], told["runs"])
    assert "2 requeued\n" == done


@visit("jobs cancel")
def _jobs_cancel(tour: Tour) -> None:
    tour.bury(1)
    sent = tour.sent()

    assert [{"id": sent, "status": "cancelled"}] == tour.lines(
        "jobs", "cancel", "--all", "--queue", "mail", "--yes"
    )


@visit("jobs delete")
def _jobs_delete(tour: Tour) -> None:
    dead, sent = tour.bury(1, 2), tour.sent()

    assert "2 deleted\n" == tour.told("jobs", "delete", "--all", "--state", "dead", "--yes")
    assert {sent} == {job.id for job in tour.harbor.jobs.find()} - set(dead)


@visit("dlq list")
def _dlq_list(tour: Tour) -> None:
    dead = tour.bury(1, 2)

    assert dead[::-1] == [job["id"] for job in tour.lines("dlq", "list", "--newer-than", "1h")]


@visit("dlq show")
def _dlq_show(tour: Tour) -> None:
    (dead,) = tour.bury(7)

    assert "ValueError: row 7 is bad" in tour.told("dlq", "show", dead)


@visit("dlq requeue")
def _dlq_requeue(tour: Tour) -> None:
    dead = tour.bury(1, 2)

    assert "2 of 2 dead letters would be requeued; 2 could run." in tour.told(
        "dlq", "requeue", "--all", "--dry-run"
    )
    assert "2 requeued\n" == tour.told("dlq", "requeue", "--all", "--yes")
    assert {JobState.READY} == {tour.state(job) for job in dead}


@visit("dlq purge")
def _dlq_purge(tour: Tour) -> None:
    tour.bury(1, 2)

    assert "1 deleted\n" == tour.told("dlq", "purge", "--all", "--text", "row 2", "--yes")
    assert 1 == len(tour.harbor.jobs.find())


@visit("dlq export")
def _dlq_export(tour: Tour) -> None:
    dead = tour.bury(1, 2)
    file = tour.folder / "dead.jsonl"

    tour.told("dlq", "export", str(file), "--arguments", "--yes")

    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [(dead[0], {"row": 1}), (dead[1], {"row": 2})] == [
        (line["id"], line["arguments"]) for line in lines
    ]


@visit("flows list")
def _flows_list(tour: Tour) -> None:
    flow = tour.failed_flow()

    assert [flow] == [line["id"] for line in tour.lines("flows", "list", "--state", "failed")]


@visit("flows show")
def _flows_show(tour: Tour) -> None:
    assert "row.report" in tour.told("flows", "show", tour.failed_flow())


@visit("flows cancel")
def _flows_cancel(tour: Tour) -> None:
    flow = tour.failed_flow()

    assert [flow] == [line["id"] for line in tour.lines("flows", "cancel", flow, "--yes")]


@visit("flows retry")
def _flows_retry(tour: Tour) -> None:
    flow = tour.failed_flow()

    assert [2] == [line["steps"] for line in tour.lines("flows", "retry", flow)]


@visit("queues list")
def _queues_list(tour: Tour) -> None:
    tour.sent()

    assert [("mail", 1)] == [(queue["name"], queue["ready"]) for queue in tour.lines("queues", "list")]


@visit("queues pause")
def _queues_pause(tour: Tour) -> None:
    tour.sent()

    told = tour.told("queues", "pause", "mail", "--reason", "stamps are out")

    assert "mail  paused, 1 ready\n" == told
    assert "stamps are out" in tour.told("queues", "list")
    assert [True] == [queue.paused for queue in tour.harbor.queues.list()]


@visit("queues resume")
def _queues_resume(tour: Tour) -> None:
    tour.harbor.queues.pause("mail")

    assert [False] == [queue["paused"] for queue in tour.lines("queues", "resume", "mail")]


@visit("schedules declare")
def _schedules_declare(tour: Tour) -> None:
    tour.declare("nightly", "weekly")

    told = tour.told("schedules", "declare")
    (again,) = tour.lines("schedules", "declare")

    assert {"tour/nightly  added", "tour/weekly  added"} <= set(told.splitlines())
    assert "current" == again["status"]
    assert ["tour/nightly", "tour/weekly"] == [
        line["name"] for line in tour.lines("schedules", "declare", "--dry-run")
    ]


@visit("schedules list")
def _schedules_list(tour: Tour) -> None:
    tour.created("nightly")

    (line,) = tour.lines("schedules", "list")
    assert ("nightly", line["next_at"]) == (line["name"], *line["upcoming"])
    assert "0 3 * * * (Europe/Paris)" in tour.told("schedules", "list")
    with tour.harbor.worker_thread(queues=["elsewhere"]):
        assert (
            "No live worker serves the queue 'mail': jobs of nightly wait"
            in tour.run("schedules", "list").err
        )
    assert [] == tour.lines("schedules", "list", "--application", "elsewhere")


@visit("schedules show")
def _schedules_show(tour: Tour) -> None:
    tour.created("nightly")

    (line,) = tour.lines("schedules", "show", "nightly", "--count", "2")

    assert ({"to": "a", "count": 1}, 2) == (line["call"]["arguments"], len(line["upcoming"]))
    shown = tour.run("schedules", "show", "nightly")
    assert "03:00:00 CE" in shown.out
    assert "No live worker serves the queue 'mail'" in shown.err


@visit("schedules create")
def _schedules_create(tour: Tour) -> None:
    told = tour.told("schedules", "create", "often", "mail.send", "to=b", "count=2", "--every", "5m")

    assert '{"to":"b","count":2}' in told
    with tour.harbor.worker_thread():
        assert "" == tour.run("schedules", "show", "often").err
    late = tour.run(
        "schedules", "create", "late", "mail.send", "to=c", "--every", "5m", "--catch-up", "5"
    ).err
    assert "--catch-up goes with --misfire catch_up" in late
    refused = tour.run("schedules", "create", "often", "mail.send", "to=c", "--every", "5m").err
    assert "there already; pass replace=True (--replace)" in refused
    tour.told("schedules", "create", "often", "mail.send", "to=c", "--cron", "@daily", "--replace")
    assert ["@daily"] == [
        line["schedule"]["trigger"]["expression"] for line in tour.lines("schedules", "list")
    ]


@visit("schedules pause")
def _schedules_pause(tour: Tour) -> None:
    tour.created("nightly")

    assert "nightly  paused\n" == tour.told("schedules", "pause", "nightly", "--reason", "stocktaking")
    assert "stocktaking" in tour.told("schedules", "list")


@visit("schedules resume")
def _schedules_resume(tour: Tour) -> None:
    tour.created("nightly")
    tour.harbor.schedules.pause("nightly")

    assert [None] == [line["paused_at"] for line in tour.lines("schedules", "resume", "nightly")]


@visit("schedules trigger")
def _schedules_trigger(tour: Tour) -> None:
    tour.created("nightly")

    job = tour.told("schedules", "trigger", "nightly").strip()

    assert {"to": "a", "count": 1} == tour.harbor.arguments_of(tour.harbor.jobs.get(job))
    assert (1, job) == (
        tour.harbor.schedules.get("nightly").fired,
        tour.harbor.schedules.get("nightly").last_job,
    )


@visit("schedules delete")
def _schedules_delete(tour: Tour) -> None:
    tour.created("nightly")
    tour.declare("weekly")
    tour.told("schedules", "declare")

    refused = tour.run("schedules", "delete", "weekly", "--yes")
    deleted = tour.told("schedules", "delete", "nightly", "--yes")

    assert (1, True) == (refused.code, "declared by the application 'tour'" in refused.err)
    assert "nightly  deleted\n" == deleted
    assert "tour/weekly  deleted\n" == tour.told("schedules", "delete", "weekly", "--force", "--yes")
    assert [] == tour.lines("schedules", "list")


@visit("leader")
def _leader(tour: Tour) -> None:
    with tour.harbor.worker_thread(queues=["elsewhere"]):
        eventually(lambda: tour.lines("leader") != [], "a worker leads")
        (line,) = tour.lines("leader")

    assert "upkeep" == line["role"]
    assert [] == tour.lines("leader")


@visit("schema dump")
def _schema_dump(tour: Tour) -> None:
    assert "mail.send" in tour.told("schema", "dump")


@visit("schema check")
def _schema_check(tour: Tour) -> None:
    file = tour.folder / "schema.json"
    file.write_text(tour.told("schema", "dump"), encoding="utf-8")

    assert [] == tour.lines("schema", "check", str(file))


@visit("workers list")
def _workers(tour: Tour) -> None:
    with tour.harbor.worker_thread(queues=["elsewhere"]):
        told = tour.lines("workers")
        shown = tour.told("workers", "--tasks")

    assert [["elsewhere"]] == [worker["queues"] for worker in told]
    assert "mail.send, row.load" in shown


@visit("stats")
def _stats(tour: Tour) -> None:
    before = {line["task"]: line["dead"] for line in tour.lines("stats")}
    tour.bury(1, 2)

    after = {line["task"]: line["dead"] for line in tour.lines("stats", "--task", "row.load")}

    assert 2 == after["row.load"] - before.get("row.load", 0)
    assert " attempts in " in tour.told("stats", "--by", "minute")


@visit("events")
def _events(tour: Tour) -> None:
    cursor = tour.run("events", "--reader", "tour", "--json").err.split()[-1]
    event = JobStarted(
        id=new_job_id(),
        at=datetime.now(UTC),
        job_id=new_job_id(),
        task="mail.send",
        queue="mail",
        worker="w",
        attempt=1,
        waited=timedelta(seconds=2),
    )
    tour.harbor.ask(lambda store: store.event_append(EventAppend(events=[event])))

    told = tour.lines("events", "--after", cursor)
    shown = tour.told("events", "--after", cursor, "--queue", "mail", "--task", "mail.send")

    assert [("started", event.job_id)] == [(line["event"], line["job_id"]) for line in told]
    assert shown.endswith(f"{event.job_id}  mail.send  started  attempt 1 by w, 2.0s after its enqueue\n")


@visit("workers drain")
def _workers_drain(tour: Tour) -> None:
    with tour.harbor.worker_thread(queues=["elsewhere"]):
        ((name, order),) = [(line["worker"], line["order"]) for line in tour.lines("workers")]
        told = tour.told("workers", "drain", name, "--reason", "it moves")
    missing = tour.run("workers", "drain", f"{name}x")

    assert (None, f"{name}  told to drain\n") == (order, told)
    assert (1, f"{name}x  is no live worker\n") == (missing.code, missing.err)


@visit("workers stop")
def _workers_stop(tour: Tour) -> None:
    with tour.harbor.worker_thread(queues=["elsewhere"]):
        refused = tour.run("workers", "stop", "--all")
        (told,) = tour.lines("workers", "stop", "--all", "--yes")

    assert (2, "Nobody is there to answer" in refused.err) == (refused.code, True)
    assert ("stop", True, True) == (told["order"], told["live"], told["changed"])


@visit("tasks pause")
def _tasks_pause(tour: Tour) -> None:
    job = tour.sent()

    assert "task:mail.send  held back\n" == tour.told("tasks", "pause", "mail.send", "--reason", "no stamps")
    assert "no stamps" in tour.told("jobs", "show", job)
    assert JobState.PARKED is tour.state(job)
    assert [1] == [queue["parked"] for queue in tour.lines("queues", "list")]


@visit("tasks resume")
def _tasks_resume(tour: Tour) -> None:
    job = tour.sent()
    tour.harbor.limits.hold("task:mail.send")

    assert [True, False] == [
        line["changed"] for _ in range(2) for line in tour.lines("tasks", "resume", "mail.send")
    ]
    assert JobState.READY is tour.state(job)


@visit("limits list")
def _limits_list(tour: Tour) -> None:
    tour.harbor.limits.set("queue:mail", max_running=5, by="ada", reason="rush")
    tour.harbor.limits.hold("key:mail.send:acme", by="bob")
    tour.sent()

    assert [("queue:mail", 5, None), ("key:mail.send:acme", None, True)] == [
        (line["scope"], line.get("limit", {}).get("max_running"), line.get("held"))
        for line in tour.lines("limits")
    ]
    shown = tour.told("limits", "list")
    assert "queue:mail  at most 5 running  0" in shown
    assert "by ada: rush" in shown
    assert "at most 5 running" in tour.told("queues", "list")
    assert "key:mail.send:acme" in tour.told("info")


@visit("limits set")
def _limits_set(tour: Tour) -> None:
    first = tour.told("limits", "set", "task:mail.send", "--rate", "100/1m", "--burst", "20", "--by", "ada")
    (second,) = tour.lines("limits", "set", "task:mail.send", "--max-running", "3", "--reason", "rush")
    third = tour.told("limits", "set", "task:mail.send", "--rate", "none")

    assert "task:mail.send  100/1m (burst 20) (was: none)\n" == first
    assert {"max_running": 3, "rate": {"limit": 100, "per_seconds": 60, "burst": 20}} == second["limit"]
    assert "task:mail.send  at most 3 running (was: at most 3 running, 100/1m (burst 20))\n" == third
    assert ["limits.set"] == [line["action"] for line in tour.lines("audit", "--by", "ada", "--limit", "1")]


@visit("limits clear")
def _limits_clear(tour: Tour) -> None:
    tour.harbor.limits.set("queue:mail", max_running=5)

    assert "queue:mail  cleared; in force now: none\n" == tour.told("limits", "clear", "queue:mail")
    assert [False] == [line["changed"] for line in tour.lines("limits", "clear", "queue:mail")]


@visit("limits hold")
def _limits_hold(tour: Tour) -> None:
    told = tour.told("limits", "hold", "key:mail.send:acme", "--by", "ada", "--reason", "asked")
    again = tour.told("limits", "hold", "key:mail.send:acme")

    assert "key:mail.send:acme  held back\n" == told
    assert again.endswith("ago by ada: asked\n")


@visit("limits lift")
def _limits_lift(tour: Tour) -> None:
    tour.harbor.limits.hold("key:mail.send:acme")

    assert "key:mail.send:acme  goes on\n" == tour.told("limits", "lift", "key:mail.send:acme")
    assert "was not held back" in tour.run("limits", "lift", "key:mail.send:acme").err


@visit("limits holds")
def _limits_holds(tour: Tour) -> None:
    tour.harbor.limits.hold("key:mail.send:acme", by="bob", reason="asked")

    assert [("key:mail.send:acme", "bob", "asked")] == [
        (line["scope"], line["by"], line["reason"]) for line in tour.lines("limits", "holds")
    ]
    assert "asked" in tour.told("limits", "holds")


@visit("retention list")
def _retention_list(tour: Tour) -> None:
    tour.harbor.retention.set(JobState.DEAD, keep_last=5, by="ada")

    assert [("", "dead", 5, "ada")] == [
        (line["task"], line["state"], line["keep_last"], line["by"]) for line in tour.lines("retention")
    ]
    assert "all others  dead   the last 5" in tour.told("retention", "list")


@visit("retention set")
def _retention_set(tour: Tour) -> None:
    tour.bury(1, 2, 3)

    told = tour.told("retention", "set", "--state", "dead", "--task", "row.load", "--keep-last", "1")

    assert "dead jobs of row.load  kept: the last 1\n" == told
    assert [{"jobs": 2, "keys": 0}] == tour.lines("prune")
    assert 1 == len(tour.harbor.jobs.find())


@visit("retention remove")
def _retention_remove(tour: Tour) -> None:
    tour.harbor.retention.set(JobState.DEAD, keep_last=5)

    assert "dead jobs of all other tasks  rule removed\n" == tour.told(
        "retention", "remove", "--state", "dead"
    )
    assert "there was no rule" in tour.run("retention", "remove", "--state", "dead").err


@visit("audit list")
def _audit_list(tour: Tour) -> None:
    job = tour.sent()
    tour.told("jobs", "cancel", job, "--reason", "changed my mind", "--by", "ada")

    (line,) = tour.lines("audit", "--text", job, "--since", "1h")

    assert ("jobs.cancel", "ada", 1, 1) == (line["action"], line["by"], line["named"], line["changed"])
    assert "changed my mind" in tour.told("audit", "--text", job)
    assert f",jobs.cancel,{job},ada,changed my mind,1,1," in tour.told("audit", "--text", job, "--csv")


@visit("audit count")
def _audit_count(tour: Tour) -> None:
    who = f"count:{new_job_id()}"
    tour.bury(1, 2)
    tour.told("dlq", "purge", "--all", "--yes", "--by", who)

    assert [("jobs.delete", 1, 2)] == [
        (line["action"], line["acts"], line["changed"]) for line in tour.lines("audit", "count", "--by", who)
    ]


@visit("audit export")
def _audit_export(tour: Tour) -> None:
    who, file = f"export:{new_job_id()}", tour.folder / "acts.jsonl"
    tour.harbor.queues.pause("mail", by=who)

    told = tour.told("audit", "export", str(file), "--by", who, "--since", "2020-01-01T00:00Z")

    assert f"1 act written to {file}\n" == told
    assert "queues.pause" == json.loads(file.read_text(encoding="utf-8"))["action"]


@visit("prune")
def _prune(tour: Tour) -> None:
    tour.bury(1)

    assert [{"jobs": 0, "keys": 0}] == tour.lines("prune")
    assert 1 == len(tour.harbor.jobs.find())


@visit("migrate")
def _migrate(tour: Tour) -> None:
    (told,) = tour.lines("migrate", "--check")

    assert told["present"] == told["wanted"]


@visit("info")
def _info(tour: Tour) -> None:
    (told,) = tour.lines("info")

    assert told["store"]["server"].startswith(("SQLite 3.", "PostgreSQL 1"))
    assert 0 < told["store"]["round_trip_ms"]
    assert {"name": "app", "value": tour.app, "origin": "argument"} in told["settings"]
