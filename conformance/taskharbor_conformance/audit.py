"""The audit trail: each act of a person, written down in the step that carries it out."""

from __future__ import annotations

from datetime import timedelta

from taskharbor.audit import Act, AuditEntry, AuditTally
from taskharbor.driver import (
    AUDIT_RETAIN,
    AuditCount,
    AuditFilter,
    AuditFind,
    AuditWrite,
    Capability,
    FlowCancel,
    HistoryPrune,
    HoldLift,
    HoldPlace,
    JobCancel,
    JobDelete,
    JobRequeue,
    LimitClear,
    LimitSet,
    Order,
    QueuePause,
    QueueResume,
    RetentionRule,
    RetentionSet,
    ScheduleCreate,
    ScheduleDelete,
    SchedulePause,
    ScheduleResume,
    WorkerOrder,
)
from taskharbor.job import JobState, new_job_id
from taskharbor_conformance.bench import DAY, HOUR, SECOND, UNKNOWN, Bench, new_job, success
from taskharbor_conformance.case import case
from taskharbor_conformance.graphs import chain
from taskharbor_conformance.scopes import at_most, of_key, of_task
from taskharbor_conformance.timetables import new_schedule

GRACE = 2 * DAY


def _act(action: str, *, by: str = "ada", reason: str = "", target: str = "", **details: str) -> Act:
    return Act(id=new_job_id(), action=action, target=target or action, by=by, reason=reason, details=details)


async def _trail(bench: Bench, wanted: AuditFind | None = None) -> list[AuditEntry]:
    return list(await bench.store.audit_find(wanted or AuditFind(now=bench.now)))


async def _counts(bench: Bench) -> dict[str, tuple[int, int]]:
    """Return of each action how many things it named and changed."""
    return {entry.action: (entry.named, entry.changed) for entry in await _trail(bench)}


async def _note(bench: Bench, *acts: Act) -> None:
    for act in acts:
        await bench.store.audit_write(AuditWrite(act=act, now=bench.now))


@case("4.26")
async def an_act_is_written_down_as_it_was_told(bench: Bench) -> None:
    said = "größe 日本 🚢 \"'\\ \n%_"
    job_id = await bench.enqueue()
    act = Act(
        id=new_job_id(),
        action="jobs.cancel",
        target=said,
        by=said,
        reason=said,
        details={said: said, "a": ""},
    )

    await bench.store.job_cancel(JobCancel(ids=[job_id, UNKNOWN], reason="why", act=act, now=bench.now))

    entry = AuditEntry(
        id=act.id,
        at=bench.now,
        action="jobs.cancel",
        target=said,
        by=said,
        reason=said,
        details={said: said, "a": ""},
        named=2,
        changed=1,
    )
    assert [entry] == await _trail(bench)


@case("4.26")
async def what_no_person_asked_for_is_not_in_the_trail(bench: Bench) -> None:
    job_id = await bench.enqueue()
    await bench.cancel(job_id, by="ada")
    await bench.pause("default", by="ada")

    assert [] == await _trail(bench)


@case("4.26", "4.11", "4.8")
async def acts_on_jobs_are_counted(bench: Bench) -> None:
    running, second, third = [await bench.enqueue() for _ in range(3)]
    delivery = await bench.take_one()
    assert running == delivery.id
    store, now = bench.store, bench.now

    await store.job_cancel(JobCancel(ids=[running, second, UNKNOWN], act=_act("jobs.cancel"), now=now))
    await bench.settle(success(delivery))
    await store.job_requeue(JobRequeue(ids=[running, second, UNKNOWN], act=_act("jobs.requeue"), now=now))
    await store.job_delete(JobDelete(ids=[third, UNKNOWN], act=_act("jobs.delete"), now=now))

    states = [await bench.get(running), await bench.get(second), await bench.get(third)]
    requeued = sum(record is not None and record.state is JobState.READY for (record,) in states)
    assert {"jobs.cancel": (3, 2), "jobs.requeue": (3, requeued), "jobs.delete": (2, 1)} == await _counts(
        bench
    )


@case("4.26", "4.15")
async def acts_on_queues_are_counted(bench: Bench) -> None:
    store, now = bench.store, bench.now

    first = await store.queue_pause(QueuePause(queues=["a", "b"], act=_act("queues.pause"), now=now))
    again = await store.queue_pause(QueuePause(queues=["b", "c"], act=_act("queues.again"), now=now))
    resumed = await store.queue_resume(
        QueueResume(queues=["a", "b", "d"], act=_act("queues.resume"), now=now)
    )

    assert ([True, True], [False, True], [True, True, False]) == (list(first), list(again), list(resumed))
    assert {"queues.pause": (2, 2), "queues.again": (2, 1), "queues.resume": (3, 2)} == await _counts(bench)


@case("4.26", "4.24")
async def acts_on_limits_and_holds_are_counted(bench: Bench) -> None:
    store, now = bench.store, bench.now

    for action in ("limits.set", "limits.again"):
        await store.limit_set(LimitSet(scope=of_task(), terms=at_most(1), act=_act(action), now=now))
    await store.limit_clear(LimitClear(scopes=[of_task(), of_key("k")], act=_act("limits.clear"), now=now))
    await store.hold_place(HoldPlace(scopes=[of_task(), of_key("k")], act=_act("holds.place"), now=now))
    await store.hold_lift(HoldLift(scopes=[of_task(), of_key("x")], act=_act("holds.lift"), now=now))

    assert {
        "limits.set": (1, 1),
        "limits.again": (1, 0),
        "limits.clear": (2, 1),
        "holds.place": (2, 2),
        "holds.lift": (2, 1),
    } == await _counts(bench)


@case("4.26", "4.22")
async def acts_on_schedules_are_counted(bench: Bench) -> None:
    store, now = bench.store, bench.now
    schedules = [new_schedule("one"), new_schedule("two")]

    await store.schedule_create(ScheduleCreate(schedules=schedules, act=_act("schedules.create"), now=now))
    await store.schedule_create(ScheduleCreate(schedules=schedules[:1], act=_act("schedules.again"), now=now))
    await store.schedule_create(
        ScheduleCreate(
            schedules=[new_schedule("one", description="other")],
            replace=True,
            act=_act("schedules.replace"),
            now=now,
        )
    )
    await store.schedule_pause(
        SchedulePause(names=["one", "never"], by="ada", reason="", act=_act("schedules.pause"), now=now)
    )
    await store.schedule_resume(ScheduleResume(names=["one", "two"], act=_act("schedules.resume"), now=now))
    await store.schedule_delete(ScheduleDelete(names=["two", "never"], act=_act("schedules.delete"), now=now))

    counts = await _counts(bench)
    assert (2, 2) == counts["schedules.create"]
    assert (1, 0) == counts["schedules.again"]
    assert (1, 1) == counts["schedules.replace"]
    assert (2, 1) == counts["schedules.pause"]
    assert (2, 1) == counts["schedules.delete"]
    assert 2 == counts["schedules.resume"][0]


@case("4.26")
async def acts_on_flows_workers_and_retention_are_counted(bench: Bench) -> None:
    store, now = bench.store, bench.now
    flow = await bench.enqueue_flow(chain())
    await bench.announce("a")

    await store.flow_cancel(FlowCancel(ids=[flow.id, UNKNOWN], act=_act("flows.cancel"), now=now))
    await store.worker_order(
        WorkerOrder(workers=["a", "b"], order=Order.DRAIN, act=_act("workers.drain"), now=now)
    )
    rules = [RetentionRule(state=JobState.DEAD, keep_last=5)]
    for action in ("retention.set", "retention.again"):
        await store.retention_set(RetentionSet(rules=rules, act=_act(action), now=now))

    assert {
        "flows.cancel": (2, 1),
        "workers.drain": (2, 1),
        "retention.set": (1, 1),
        "retention.again": (1, 0),
    } == await _counts(bench)


@case("4.26", "4.17")
async def a_prune_by_hand_is_written_down_with_how_many_jobs_it_removed(bench: Bench) -> None:
    for _ in range(2):
        await bench.finish(await bench.enqueue(retain=HOUR))
    bench.advance(HOUR + GRACE)

    pruned = await bench.store.history_prune(HistoryPrune(act=_act("history.prune"), now=bench.now))
    await bench.store.history_prune(HistoryPrune(act=_act("history.again"), now=bench.now))

    assert 2 == pruned.jobs
    assert {"history.prune": (2, 2), "history.again": (0, 0)} == await _counts(bench)


@case("4.26")
async def an_act_that_came_to_nothing_is_in_the_trail_too(bench: Bench) -> None:
    await bench.store.job_cancel(JobCancel(ids=[UNKNOWN], act=_act("jobs.cancel"), now=bench.now))
    await bench.store.job_delete(JobDelete(ids=[], act=_act("jobs.delete"), now=bench.now))

    assert {"jobs.cancel": (1, 0), "jobs.delete": (0, 0)} == await _counts(bench)


@case("4.26")
async def requests_of_one_act_are_added_up_in_one_entry(bench: Bench) -> None:
    first, second = await bench.enqueue(), await bench.enqueue()
    act = _act("jobs.cancel", reason="all of them")
    since = bench.now
    for ids in ([first], [second, UNKNOWN], [UNKNOWN]):
        await bench.store.job_cancel(JobCancel(ids=ids, act=act, now=bench.now))
        bench.advance(SECOND)

    (entry,) = await _trail(bench)

    assert (act.id, since, 4, 2) == (entry.id, entry.at, entry.named, entry.changed)


@case("4.26")
async def an_act_by_itself_is_written_down(bench: Bench) -> None:
    act = _act("schedules.trigger", target="nightly", tick="now")

    await bench.store.audit_write(AuditWrite(act=act, named=1, changed=0, now=bench.now))

    (entry,) = await _trail(bench)
    assert ("schedules.trigger", "nightly", {"tick": "now"}) == (entry.action, entry.target, entry.details)
    assert (1, 0) == (entry.named, entry.changed)


@case("4.26")
async def the_trail_is_read_from_the_newest_down_page_by_page(bench: Bench) -> None:
    acts = [_act(f"jobs.a{number}") for number in range(5)]
    await _note(bench, acts[3], acts[0], *acts[1:3], acts[4])

    pages: list[list[str]] = []
    after = ""
    while page := await _trail(bench, AuditFind(after=after, limit=2, now=bench.now)):
        pages.append([entry.id for entry in page])
        after = page[-1].id

    ids = [act.id for act in reversed(acts)]
    assert [ids[:2], ids[2:4], ids[4:]] == pages


@case("4.26")
async def the_trail_is_searched_by_action_person_text_and_time(bench: Bench) -> None:
    first = _act("jobs.cancel", by="ada", target="Queue MAIL", reason="too late")
    second = _act("jobs.requeue", by="bob", target="queue video", reason="50% of ALL")
    third = _act("queues.pause", by="ada", target="jobs", reason="")
    instants = [bench.now]
    for act in (first, second, third):
        await _note(bench, act)
        instants.append(bench.advance(SECOND))

    async def found(wanted: AuditFilter) -> list[str]:
        request = AuditFind(
            actions=wanted.actions,
            by=wanted.by,
            text=wanted.text,
            since=wanted.since,
            before=wanted.before,
            now=bench.now,
        )
        return [entry.id for entry in await _trail(bench, request)]

    for wanted, expected in [
        (AuditFilter(actions=frozenset({"jobs"})), [second, first]),
        (AuditFilter(actions=frozenset({"jobs.cancel", "queues"})), [third, first]),
        (AuditFilter(actions=frozenset({"job", "cancel", "jobs."})), []),
        (AuditFilter(by=frozenset({"ada"})), [third, first]),
        (AuditFilter(by=frozenset({"ada", "bob"}), actions=frozenset({"jobs"})), [second, first]),
        (AuditFilter(text="QUEUE m"), [first]),
        (AuditFilter(text="0% of a"), [second]),
        (AuditFilter(text="%"), [second]),
        (AuditFilter(text="_"), []),
        (AuditFilter(since=instants[1]), [third, second]),
        (AuditFilter(before=instants[1]), [first]),
        (AuditFilter(since=instants[1], before=instants[2]), [second]),
    ]:
        assert [act.id for act in expected] == await found(wanted), wanted


@case("4.26")
async def acts_are_counted_by_action_and_person(bench: Bench) -> None:
    job_id = await bench.enqueue()
    await bench.store.job_cancel(
        JobCancel(ids=[job_id, UNKNOWN], act=_act("jobs.cancel", by="bob"), now=bench.now)
    )
    await _note(
        bench, _act("jobs.cancel", by="bob"), _act("jobs.cancel", by="ada"), _act("flows.cancel", by="bob")
    )

    counted = list(await bench.store.audit_count(AuditCount(now=bench.now)))
    jobs_of_bob = AuditCount(actions=frozenset({"jobs"}), by=frozenset({"bob"}), now=bench.now)

    assert [
        AuditTally("flows.cancel", "bob", 1, 1),
        AuditTally("jobs.cancel", "ada", 1, 1),
        AuditTally("jobs.cancel", "bob", 2, 2),
    ] == counted
    assert counted[2:] == list(await bench.store.audit_count(jobs_of_bob))


@case("4.26", "4.17")
async def acts_are_kept_for_their_time_and_then_removed(bench: Bench) -> None:
    await _note(bench, _act("jobs.cancel"))
    bench.advance(AUDIT_RETAIN - SECOND)
    await _note(bench, _act("jobs.late"))
    await bench.store.history_prune(HistoryPrune(now=bench.now))
    early = [entry.action for entry in await _trail(bench)]
    bench.advance(timedelta(hours=1))

    await bench.store.history_prune(HistoryPrune(now=bench.now))

    assert ["jobs.late", "jobs.cancel"] == early
    assert ["jobs.late"] == [entry.action for entry in await _trail(bench)]


@case("4.26", needs=Capability.DURABLE)
async def the_trail_outlives_a_restart(bench: Bench) -> None:
    job = new_job()
    await bench.enqueue_all(job)
    await bench.store.job_delete(JobDelete(ids=[job.id], act=_act("jobs.delete"), now=bench.now))

    await bench.restart()

    assert {"jobs.delete": (1, 1)} == await _counts(bench)
