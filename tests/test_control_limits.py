"""`harbor.limits`, `.audit`, `.retention` and `.workers`: an operator's levers, and the trail of who pulled them."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from taskharbor import Harbor, JobState, OptionError, Rate, Registry, Retry, SyncTask, cron, task
from taskharbor.control import held_scopes, scope_of
from taskharbor.limit import LimitTerms, Scope, ScopeKind

KEY = Scope(ScopeKind.KEY, "mail.send", "acme")
MINUTE = timedelta(minutes=1)


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def send(registry: Registry) -> SyncTask[[str], None]:
    @task(name="mail.send", queue="mail", registry=registry, fair="tenant", retry=Retry(max_attempts=1))
    def send(tenant: str) -> None:
        if tenant == "bad":
            raise ValueError(tenant)

    return send


@pytest.fixture
def harbor(registry: Registry, send: SyncTask[[str], None]) -> Iterator[Harbor]:
    with Harbor("memory://", registry=registry) as harbor:
        yield harbor


def loose(method: Callable[..., object]) -> Callable[..., object]:
    """Return a method that may be called wrongly."""
    return method


def actions(harbor: Harbor) -> list[tuple[str, str, int, int]]:
    """Return the trail, the oldest first."""
    found = [(entry.action, entry.target, entry.named, entry.changed) for entry in harbor.audit.iterate()]
    return found[::-1]


@pytest.mark.parametrize(
    ("text", "scope"),
    [
        ("queue:mail", Scope(ScopeKind.QUEUE, "mail")),
        ("task:app.send", Scope(ScopeKind.TASK, "app.send")),
        ("task:a:b", Scope(ScopeKind.TASK, "a:b")),
        ("keys:app.send", Scope(ScopeKind.KEYS, "app.send")),
        ("key:app.send:a:b", Scope(ScopeKind.KEY, "app.send", "a:b")),
        ("key:v2:send:acme", Scope(ScopeKind.KEY, "v2:send", "acme")),
        ("key:app.send:", Scope(ScopeKind.KEY, "app.send", "")),
    ],
)
def test_a_scope_is_read_as_it_is_written(text: str, scope: Scope) -> None:
    assert scope == scope_of(text, ["v2", "v2:send"])
    assert text == str(scope)


def test_a_task_is_a_scope_by_itself(send: SyncTask[[str], None]) -> None:
    assert Scope(ScopeKind.TASK, "mail.send") == scope_of(send)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("mail", "is it task:mail or queue:mail?"),
        ("tsk:mail", "did you mean 'task'"),
        ("task:", "names nothing"),
        ("key:mail.send", "names no key"),
        ("queue: a", "without spaces"),
        ("task:a\0b", "NUL"),
    ],
)
def test_what_is_no_scope_is_refused_with_what_was_expected(text: str, told: str) -> None:
    with pytest.raises(OptionError) as refused:
        scope_of(text)

    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("text", "told"), [("queue:mail", "queues pause mail"), ("keys:mail.send", "task:mail.send")]
)
def test_only_tasks_and_single_keys_are_held_back(text: str, told: str) -> None:
    with pytest.raises(OptionError, match=told):
        held_scopes([text])


def test_what_is_not_given_of_a_limit_stays_as_it_is_in_force(harbor: Harbor) -> None:
    rate = Rate(100, per=MINUTE, burst=20)
    harbor.limits.set("queue:mail", rate=rate)

    answer = harbor.limits.set("queue:mail", max_running=5, by="ada", reason="rush")

    assert LimitTerms(rate=rate.terms) == answer.before
    record = harbor.limits.get("queue:mail")
    assert LimitTerms(5, rate.terms) == record.terms
    assert ("ada", "rush") == (record.set_by, record.reason)
    (entry,) = harbor.audit.find(by=["ada"])
    assert {"before": "100/1m (burst 20)", "after": "at most 5 running, 100/1m (burst 20)"} == entry.details
    assert not harbor.limits.set("queue:mail", max_running=5).changed
    assert [True, False] == [*harbor.limits.clear("queue:mail"), *harbor.limits.clear("queue:mail")]
    assert not harbor.limits.get("queue:mail").terms


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({}, "no limit was given"),
        ({"max_running": -1}, "from 0"),
        ({"max_running": True}, "whole number"),
        ({"rate": 5}, "expected Rate"),
        ({"rate": Rate(5, MINUTE, key="tenant")}, "keys:TASK"),
    ],
)
def test_a_limit_that_cannot_be_is_refused(harbor: Harbor, wrong: dict[str, object], told: str) -> None:
    with pytest.raises(OptionError, match=told):
        loose(harbor.limits.set)("queue:mail", **wrong)


def test_a_key_that_is_held_back_is_let_go_again(harbor: Harbor, send: SyncTask[[str], None]) -> None:
    held, free = send.enqueue("acme"), send.enqueue("other")

    placed = harbor.limits.hold("key:mail.send:acme", send, by="ada", reason="they asked")
    again = harbor.limits.hold(KEY, by="bob", reason="another")

    assert ([True, True], [False]) == (placed, again)
    assert [(KEY, "ada", "they asked")] == [
        (hold.scope, hold.by, hold.reason) for hold in harbor.limits.holds() if hold.scope == KEY
    ]
    assert [True] == harbor.limits.lift(send)
    harbor.run_until_idle()
    assert (JobState.PARKED, JobState.SUCCEEDED) == (held.status().state, free.status().state)
    assert [True] == harbor.limits.lift(KEY)
    harbor.run_until_idle()
    assert JobState.SUCCEEDED is held.status().state


def test_every_act_is_in_the_trail_with_what_it_named_and_changed(
    harbor: Harbor, send: SyncTask[[str], None]
) -> None:
    dead, ready = send.enqueue("bad"), send.enqueue("acme")
    harbor.run_until_idle()
    other = send.enqueue("other")
    harbor.schedules.create("nightly", send.s("acme"), cron("@daily"))
    harbor.schedules.pause("nightly")
    harbor.schedules.resume("nightly")
    triggered = harbor.schedules.trigger("nightly").job_id
    harbor.schedules.delete("nightly")
    harbor.jobs.requeue([dead.id, ready.id])
    harbor.jobs.cancel([other.id])
    harbor.jobs.delete([triggered, "nobody"])
    harbor.queues.pause("mail", "mail2")
    harbor.queues.resume("mail", "nowhere")
    harbor.flows.cancel(["nobody"])
    harbor.limits.set("task:mail.send", max_running=1)
    harbor.limits.clear("task:mail.send")
    harbor.limits.hold("task:mail.send")
    harbor.limits.lift("task:mail.send")
    harbor.retention.set(JobState.DEAD, keep_last=10)
    harbor.retention.remove(JobState.DEAD)
    harbor.retention.prune()
    harbor.workers.drain("nobody")
    harbor.workers.stop(every=True)
    harbor.declare_schedules(act=harbor.audit.act("schedules.declare", "default"))
    harbor.audit.write("tenants.suspend", "acme", named=3, changed=2)

    assert [
        ("schedules.create", "nightly", 1, 1),
        ("schedules.pause", "nightly", 1, 1),
        ("schedules.resume", "nightly", 1, 1),
        ("schedules.trigger", "nightly", 1, 1),
        ("schedules.delete", "nightly", 1, 1),
        ("jobs.requeue", f"{dead.id}, {ready.id}", 2, 1),
        ("jobs.cancel", other.id, 1, 1),
        ("jobs.delete", f"{triggered}, nobody", 2, 1),
        ("queues.pause", "mail, mail2", 2, 2),
        ("queues.resume", "mail, nowhere", 2, 1),
        ("flows.cancel", "nobody", 1, 0),
        ("limits.set", "task:mail.send", 1, 1),
        ("limits.clear", "task:mail.send", 1, 1),
        ("limits.hold", "task:mail.send", 1, 1),
        ("limits.lift", "task:mail.send", 1, 1),
        ("retention.set", "dead jobs of all other tasks", 1, 1),
        ("retention.remove", "dead jobs of all other tasks", 1, 1),
        ("retention.prune", "what jobs and rules keep no longer", 0, 0),
        ("workers.drain", "nobody", 1, 0),
        ("workers.stop", "all live workers", 0, 0),
        ("schedules.declare", "default", 0, 0),
        ("tenants.suspend", "acme", 3, 2),
    ] == actions(harbor)


def test_what_an_application_does_with_its_own_handles_is_no_act(
    harbor: Harbor, send: SyncTask[[str], None]
) -> None:
    send.enqueue("acme").cancel("changed my mind")

    assert [] == actions(harbor)


def test_several_calls_under_one_act_are_one_entry(harbor: Harbor, send: SyncTask[[str], None]) -> None:
    act = harbor.audit.act("jobs.cancel", "all of acme", by="ada", reason="they left")

    for _ in range(3):
        harbor.jobs.cancel([send.enqueue("acme").id], act=act)

    assert [("jobs.cancel", "all of acme", 3, 3)] == actions(harbor)


def test_the_trail_is_filtered_counted_and_exported(harbor: Harbor) -> None:
    for number in range(3):
        harbor.queues.pause(f"q{number}", by="ada", reason="Flood")
    harbor.jobs.cancel(["nobody"], by="bob")
    file = io.BytesIO()

    assert 3 == harbor.audit.export(file, actions=["queues"], text="flood")

    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    assert ["q2", "q1", "q0"] == [line["target"] for line in lines]
    assert [("jobs.cancel", "bob", 1, 0), ("queues.pause", "ada", 3, 3)] == [
        (tally.action, tally.by, tally.acts, tally.changed) for tally in harbor.audit.count()
    ]
    first, second = harbor.audit.find(limit=2)
    assert ["q1"] == [entry.target for entry in harbor.audit.find(limit=1, after=second.id)]
    assert ("bob", []) == (first.by, list(harbor.audit.find(since=datetime.now(UTC) + MINUTE)))


REFUSED: list[tuple[Callable[[Harbor], object], str]] = [
    (lambda harbor: loose(harbor.audit.find)(action=["jobs"]), "did you mean 'actions'"),
    (lambda harbor: harbor.audit.find(since=datetime(2030, 1, 1)), "no time zone"),  # noqa: DTZ001
    (lambda harbor: harbor.audit.write("suspended"), "two words"),
    (lambda harbor: harbor.retention.set(JobState.READY, keep_last=1), "have ended"),
    (lambda harbor: harbor.retention.set(JobState.DEAD), "no rule was given"),
    (lambda harbor: harbor.workers.drain(), "every=True"),
    (lambda harbor: harbor.workers.stop("w", every=True), "every=True"),
    (lambda harbor: harbor.limits.hold(), "no scope was named"),
]


@pytest.mark.parametrize(("ask", "told"), REFUSED)
def test_what_cannot_be_meant_is_refused(harbor: Harbor, ask: Callable[[Harbor], object], told: str) -> None:
    with pytest.raises(OptionError, match=told):
        ask(harbor)


def test_a_rule_of_retention_is_applied_by_hand(harbor: Harbor, send: SyncTask[[str], None]) -> None:
    jobs = [send.enqueue("bad") for _ in range(4)]
    harbor.run_until_idle()
    harbor.retention.set(JobState.DEAD, task=send, keep_last=1, by="ada", reason="enough")

    removed = harbor.retention.prune()

    assert 3 == removed.jobs
    assert [jobs[-1].id] == [job.id for job in harbor.jobs.find()]
    (record,) = harbor.retention.list()
    assert ("mail.send", "ada", "enough") == (record.rule.task, record.by, record.reason)


def test_the_async_forms_do_the_same(harbor: Harbor, send: SyncTask[[str], None]) -> None:
    async def ask() -> None:
        await harbor.limits.aset(send, max_running=3, by="ada")
        await harbor.limits.ahold(KEY)
        await harbor.retention.aset(JobState.CANCELLED, keep_for=MINUTE)
        await harbor.audit.awrite("tenants.suspend", "acme")

        assert [3] == [record.terms.max_running for record in await harbor.limits.alist()]
        assert 3 == (await harbor.limits.aget(send)).terms.max_running
        assert [KEY] == [hold.scope for hold in await harbor.limits.aholds()]
        assert ([True], [True]) == (await harbor.limits.alift(KEY), await harbor.limits.aclear(send))
        assert 1 == len(await harbor.retention.alist())
        assert await harbor.retention.aremove(JobState.CANCELLED)
        assert 0 == (await harbor.retention.aprune(rules=False)).jobs
        assert {"w": False} == await harbor.workers.adrain("w") == await harbor.workers.astop("w")
        file = io.BytesIO()
        assert 10 == await harbor.audit.aexport(file)
        assert 10 == sum(tally.acts for tally in await harbor.audit.acount())
        assert ["limits.set"] == [entry.action for entry in await harbor.audit.afind(by=["ada"])]

    asyncio.run(ask())
