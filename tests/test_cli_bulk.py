"""Commands on many jobs at once: filters, `--all`, `--dry-run`, export and purge. Each on every store: `everywhere`."""

from __future__ import annotations

import gzip
import json
import stat
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

from taskharbor import JobRecord, JobState, Registry, Retry, chain, group, task
from taskharbor.audit import Act
from taskharbor.cli import acting, bulk, listing
from taskharbor.control import Jobs
from taskharbor.driver import CancelStatus, DeleteStatus
from taskharbor.errors import StoreUnavailable
from taskharbor.flow import FlowState
from tests.fixtures.cli import Shop, shops


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shop]:
    yield from shops(monkeypatch, capsys)


def states(shop: Shop) -> dict[str, int]:
    found: dict[str, int] = {}
    for counted in shop.harbor.jobs.count():
        found[counted.state.value] = found.get(counted.state.value, 0) + counted.count
    return found


def ids(shop: Shop, *arguments: str) -> list[str]:
    return [job["id"] for job in shop.run(*arguments, "--json", "--oldest-first").lines()]


# --- filters


def test_filters_choose_by_error_text_and_age(shop: Shop) -> None:
    dead = shop.bury(1, 22)
    with shop.harbor:
        ready = shop.send.enqueue("a").id

    assert dead == ids(shop, "jobs", "list", "--error", "ValueError")
    assert dead[1:] == ids(shop, "jobs", "list", "--text", "ROW 22")
    assert [] == ids(shop, "jobs", "list", "--error", "KeyError")
    assert [*dead, ready] == ids(shop, "jobs", "list", "--newer-than", "1h")
    assert [] == ids(shop, "jobs", "list", "--older-than", "1h")
    assert dead == ids(shop, "dlq", "list", "--newer-than", "1h", "--error", "ValueError")
    assert [] == ids(shop, "dlq", "list", "--older-than", "1h")


def test_all_that_match_are_retried_and_the_others_left(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PAGE", 2)
    shop.bury(1, 2, 3, 14)

    ended = shop.run("jobs", "retry", "--all", "--text", "row 1", "--yes", "--reason", "mended")

    assert (0, "2 requeued\n") == (ended.code, ended.out)
    assert {"ready": 2, "dead": 2} == states(shop)
    requeued = shop.harbor.jobs.find(states=[JobState.READY])
    assert {"mended"} == {job.operations[-1].reason for job in requeued}


def test_all_that_match_are_cancelled_in_any_state_that_has_not_ended(shop: Shop) -> None:
    shop.bury(1)
    with shop.harbor:
        shop.send.enqueue("a")
        shop.send.options(run_in=timedelta(hours=1)).enqueue("b")
        shop.skip.enqueue(1)

    ended = shop.run("jobs", "cancel", "--all", "--queue", "mail", "--yes")

    assert (0, "2 cancelled\n") == (ended.code, ended.out)
    assert {"cancelled": 2, "dead": 1, "ready": 1} == states(shop)


def test_all_that_match_are_deleted_once_their_states_are_told(shop: Shop) -> None:
    shop.bury(1, 2)
    with shop.harbor:
        shop.load.enqueue(3)
        shop.send.enqueue("a")

    asked = shop.run("jobs", "delete", "--all", "--task", "row.load")
    ended = shop.run("jobs", "delete", "--all", "--task", "row.load", "--yes")

    assert 2 == asked.code
    assert "Delete 3 jobs (1 ready, 2 dead) for good?" in asked.err
    assert (0, "3 deleted\n", {"ready": 1}) == (ended.code, ended.out, states(shop))


def test_a_key_and_a_flow_choose_too(shop: Shop) -> None:
    with shop.harbor:
        shop.send.options(key="k").enqueue("a")
        flow = group(shop.load.s(1), shop.load.s(2)).enqueue().id

    keyed = shop.run("jobs", "cancel", "--all", "--key", "k", "--yes")
    steps = shop.run("jobs", "delete", "--all", "--flow", flow, "--dry-run")

    assert (0, "1 cancelled\n") == (keyed.code, keyed.out)
    assert "3 of 3 jobs would be deleted" in steps.out


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["jobs", "cancel", "--all"], "--all by itself means every job"),
        (["jobs", "delete", "--all", "--yes"], "--all by itself means every job"),
        (["jobs", "cancel", "--queue", "mail"], "give the ids of jobs, or --all"),
        (["jobs", "retry", "x", "--state", "dead"], "filters go with --all"),
        (["dlq", "purge", "--all", "--yes", "--queue", ""], "--queue '' names nothing; leave it out for all"),
        (["dlq", "purge", "--all", "--yes", "--queue", "mail", "--queue", ","], "--queue ',' names nothing"),
        (["dlq", "purge", "--all", "--yes", "--task", ""], "--task '' names nothing"),
        (["dlq", "purge", "--all", "--yes", "--error", ""], "--error '' names nothing"),
        (["jobs", "delete", "--all", "--yes", "--queue", "default", "--text", ""], "--text '' names nothing"),
        (
            ["jobs", "delete", "--all", "--yes", "--queue", "default", "--state", ","],
            "--state ',' names nothing",
        ),
        (["jobs", "delete", "--all", "--yes", "--queue", "default", "--flow", ""], "--flow '' names nothing"),
        (["jobs", "list", "--key", ""], "--key '' names nothing"),
        (["jobs", "watch", "--queue", ""], "--queue '' names nothing"),
        (["flows", "list", "--state", "", "--name", "nightly"], "--state '' names nothing"),
        (["events", "--task", ""], "--task '' names nothing"),
        (["stats", "--queue", ""], "--queue '' names nothing"),
        (["stats", "--last", "999999w"], "ago is before all calendars"),
        (["jobs", "list", "--text", "caf\udce9"], "nothing in any store has it"),
        (["jobs", "show", "caf\udce9"], "nothing in any store has it"),
        (["dlq", "purge"], "give the ids of dead letters, or --all"),
        (["dlq", "purge", "--all"], "Delete 1 dead letter for good? Nobody is there to answer"),
        (["jobs", "list", "--older-than", "2"], "has no unit"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_changes_nothing(
    shop: Shop, arguments: list[str], why: str
) -> None:
    shop.bury(1)

    ended = shop.run(*arguments)

    assert 2 == ended.code
    assert why in " ".join(ended.err.replace("│", " ").split())
    assert {"dead": 1} == states(shop)


def test_only_those_are_purged_that_were_counted_when_it_was_asked(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.bury(1, 2)

    def ask(question: str, *, yes: bool) -> None:
        assert "Delete 2 dead letters for good?" == question
        shop.bury(3, 4)

    monkeypatch.setattr(bulk, "confirm", ask)

    ended = shop.run("dlq", "purge", "--all")

    assert (0, "2 deleted\n", {"dead": 2}) == (ended.code, ended.out, states(shop))


def test_jobs_that_come_while_all_are_cancelled_are_left(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PAGE", 2)
    with shop.harbor:
        shop.harbor.enqueue_many([shop.send.s("a")] * 3)
    cancel = Jobs.cancel

    def beside_a_producer(
        jobs: Jobs, ids: Sequence[str], *, reason: str = "", by: str = "", act: Act | None = None
    ) -> Sequence[CancelStatus]:
        shop.harbor.enqueue_many([shop.send.s("b")] * len(ids))
        return cancel(jobs, ids, reason=reason, by=by, act=act)

    monkeypatch.setattr(Jobs, "cancel", beside_a_producer)

    ended = shop.run("jobs", "cancel", "--all", "--queue", "mail", "--yes")

    assert (0, "3 cancelled\n") == (ended.code, ended.out)
    assert {"cancelled": 3, "ready": 3} == states(shop)


@pytest.mark.parametrize("cut", [KeyboardInterrupt(), StoreUnavailable("the network is gone")])
@pytest.mark.parametrize("named", [False, True])
def test_what_was_done_is_told_when_it_ends_before_its_end(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, cut: BaseException, named: bool
) -> None:
    monkeypatch.setattr(listing, "PAGE", 2)
    monkeypatch.setattr(acting, "BATCH", 2)
    with shop.harbor:
        sent = [job.id for job in shop.harbor.enqueue_many([shop.send.s("a")] * 4)]
    cancel = Jobs.cancel

    def once(
        jobs: Jobs, ids: Sequence[str], *, reason: str = "", by: str = "", act: Act | None = None
    ) -> Sequence[CancelStatus]:
        if sent[0] not in ids:
            raise cut
        return cancel(jobs, ids, reason=reason, by=by, act=act)

    monkeypatch.setattr(Jobs, "cancel", once)
    which = sent if named else ["--all", "--queue", "mail", "--yes"]

    ended = shop.run("jobs", "cancel", *which)

    told = "".join(f"{job}  cancelled\n" for job in sent[:2]) if named else "2 cancelled\n"
    assert (told, {"cancelled": 2, "ready": 2}) == (ended.out, states(shop))
    assert (
        "Ended before the rest. What is told above was done; what became of 2 more is not known." in ended.err
    )


# --- rehearsals


def test_a_rehearsal_tells_which_could_run_and_why_others_could_not(shop: Shop) -> None:
    shop.bury(1, 2)
    registry = Registry()

    @task(name="row.load", retry=Retry(max_attempts=1), registry=registry)
    def load(row: int, sheet: str) -> None: ...

    @task(name="row.skip", registry=registry)
    def skip(row: int) -> None: ...

    with shop.harbor:
        skipped = shop.skip.enqueue(3).id
        shop.harbor.run_until_idle()
    shop.registry._by_name.clear()  # pyright: ignore[reportPrivateUsage]
    shop.registry._by_name.update(registry._by_name)  # pyright: ignore[reportPrivateUsage]

    told = shop.run("dlq", "requeue", "--all", "--dry-run", "--json")
    shown = shop.run("dlq", "requeue", "--all", "--dry-run")

    broken, fine = told.lines()
    assert (1, 1) == (told.code, shown.code)
    assert ("row.load", 2, False, "requeued") == tuple(
        broken[name] for name in ("task", "count", "runs", "would")
    )
    assert "sheet" in broken["why"]
    assert (1, True, "", [skipped]) == tuple(fine[name] for name in ("count", "runs", "why", "examples"))
    assert "3 of 3 dead letters would be requeued; 1 could run." in shown.out
    assert {"dead": 3} == states(shop)


def test_a_rehearsal_of_named_jobs_tells_what_would_become_of_each_state(shop: Shop) -> None:
    (dead,) = shop.bury(1)
    with shop.harbor:
        ready = shop.send.enqueue("a").id

    told = shop.run("jobs", "retry", dead, ready, "nowhere", "--dry-run", "--json")

    assert [("ready", "not requeued: it is neither dead nor cancelled"), ("dead", "requeued")] == [
        (line["state"], line["would"]) for line in told.lines()
    ]
    assert (1, True) == (told.code, "no job has the id 'nowhere'" in told.err)
    assert {"dead": 1, "ready": 1} == states(shop)


def test_a_rehearsal_of_named_jobs_ends_as_the_command_would(shop: Shop) -> None:
    (dead,) = shop.bury(1)
    with shop.harbor:
        ready = shop.send.enqueue("a").id

    codes = [
        shop.run("jobs", "retry", *ids, "--dry-run").code
        for ids in ([dead], [dead, ready], [dead, "nowhere"])
    ]

    assert [0, 1, 1] == codes


def test_a_purge_is_rehearsed_without_a_word_of_what_could_run(shop: Shop) -> None:
    shop.bury(1)
    registry = Registry()

    @task(name="mail.send", registry=registry)
    def send(sheet: Literal["other"]) -> None: ...

    shop.registry._by_name.clear()  # pyright: ignore[reportPrivateUsage]
    shop.registry._by_name.update(registry._by_name)  # pyright: ignore[reportPrivateUsage]

    told = shop.run("dlq", "purge", "--all", "--dry-run")

    assert (0, True) == (told.code, "1 of 1 dead letter would be deleted.\n" in told.out)


def test_without_an_application_nobody_knows_what_could_run(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.bury(1)
    shop.registry._by_name.clear()  # pyright: ignore[reportPrivateUsage]

    told = shop.run("dlq", "requeue", "--all", "--dry-run", "--json")

    assert (0, None, "no application was named (--app)") == (
        told.code,
        told.lines()[0]["runs"],
        told.lines()[0]["why"],
    )
    shown = shop.run("dlq", "requeue", "--all", "--dry-run").out
    assert "1 of 1 dead letter would be requeued; whether they could run is unknown" in shown


def test_very_many_reasons_are_counted_together(shop: Shop) -> None:
    with shop.harbor:
        shop.harbor.enqueue_many([shop.send.s(f"town {number}") for number in range(30)])
    registry = Registry()

    @task(name="mail.send", registry=registry)
    def send(to: Literal["nobody"], count: int = 1) -> None: ...

    shop.registry._by_name.clear()  # pyright: ignore[reportPrivateUsage]
    shop.registry._by_name.update(registry._by_name)  # pyright: ignore[reportPrivateUsage]

    told = shop.run("jobs", "cancel", "--all", "--queue", "mail", "--dry-run", "--json").lines()

    assert (21, 30) == (len(told), sum(line["count"] for line in told))
    assert [10] == [line["count"] for line in told if line["why"] == "other reasons"]
    assert {3, 1} == {len(line["examples"]) for line in told}


def test_steps_of_flows_are_decoded_with_what_earlier_ones_gave_them(shop: Shop) -> None:
    @task(name="row.count", registry=shop.registry)
    def count(upto: int) -> list[int]:
        return list(range(upto))

    @task(name="row.sum", retry=Retry(max_attempts=1), registry=shop.registry)
    def total(rows: list[int]) -> int:
        raise ValueError("no sum today")

    with shop.harbor:
        chain(count.s(3), total).enqueue()
        shop.harbor.run_until_idle()

    told = shop.run("dlq", "requeue", "--all", "--dry-run", "--json")

    assert (0, [("row.sum", True)]) == (told.code, [(line["task"], line["runs"]) for line in told.lines()])


# --- what is read


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return how many bytes of arguments each page brought."""
    sizes: list[int] = []
    find = Jobs.find

    def weighed(jobs: Jobs, **how: Any) -> Sequence[JobRecord]:
        found = find(jobs, **how)
        sizes.append(sum(len(job.payload) for job in found))
        return found

    monkeypatch.setattr(Jobs, "find", weighed)
    return sizes


def test_what_reads_no_arguments_fetches_none(shop: Shop, read: list[int]) -> None:
    with shop.harbor:
        shop.harbor.enqueue_many([shop.send.s("a" * 1_000)] * 3)

    shop.run("jobs", "list")
    shop.run("dlq", "export")
    shop.run("jobs", "cancel", "--all", "--queue", "mail", "--yes")
    shop.run("jobs", "retry", "--all", "--state", "cancelled", "--yes")
    shop.run("jobs", "delete", "--all", "--queue", "mail", "--yes")

    assert {0} == set(read)
    assert {} == states(shop)


@pytest.mark.parametrize(
    "command", [("jobs", "cancel", "--all", "--queue", "mail", "--dry-run"), ("jobs", "list", "--json")]
)
def test_pages_are_the_smaller_the_larger_the_arguments_that_are_read(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, read: list[int], command: Sequence[str]
) -> None:
    monkeypatch.setattr(listing, "PAGE_BYTES", 10_000)
    with shop.harbor:
        shop.harbor.enqueue_many([shop.send.s("a" * 3_000)] * 20)

    ended = shop.run(*command)

    first, *others = read
    assert 0 == ended.code
    assert 60_000 < sum(read)
    assert (8, 9_000) == (first // 3_000, max(others) // 3_000 * 3_000)


def test_a_rehearsal_counts_the_flows_that_end_with_their_steps(shop: Shop) -> None:
    with shop.harbor:
        for row in (1, 2):
            group(shop.load.s(row), shop.load.s(row)).enqueue()
        shop.load.enqueue(3)
        group(shop.load.s(4), shop.load.s(5)).enqueue().cancel()

    told = shop.run("jobs", "cancel", "--all", "--task", "row.load", "--dry-run")
    lines = shop.run("jobs", "delete", "--all", "--task", "row.load", "--dry-run", "--json").lines()
    asked = shop.run("jobs", "cancel", "--all", "--task", "row.load")

    assert "2 flows would end with them, but for such as take a step's failure as a value." in told.out
    assert [("cancelled", 2, 0), ("ready", 5, 2)] == sorted(
        (line["state"], line["count"], line["flows"]) for line in lines
    )
    assert "Where they are steps of flows, the flows end with them; --dry-run counts those." in asked.err


def test_a_rehearsal_knows_that_steps_of_ended_flows_are_not_requeued(shop: Shop) -> None:
    with shop.harbor:
        group(shop.load.s(1), shop.load.s(2)).enqueue().cancel()
        failed = group(shop.load.s(3), shop.skip.s(4)).enqueue()
        shop.harbor.run_until_idle()
        alone = shop.send.enqueue("a")
        alone.cancel()

    wanted = ["--all", "--state", "cancelled,dead"]
    told = shop.run("jobs", "retry", *wanted, "--dry-run", "--json").lines()
    done = shop.run("jobs", "retry", *wanted, "--yes")

    would = {(line["task"], line["state"]): (line["would"], line["count"]) for line in told}
    over = "not requeued: it is a cancelled step, or one of a flow that has ended"
    assert (over, 2) == would.pop(("row.load", "cancelled"))
    assert ("requeued", 1) == would.pop(("mail.send", "cancelled"))
    assert {("requeued", 1)} == {would[task, "dead"] for task in ("row.load", "row.skip")}
    assert done.out.endswith("3 requeued\n")
    assert FlowState.RUNNING is shop.harbor.flows.get(failed.id).state


# --- purge and export


def test_dead_letters_are_purged_by_filter_and_by_id(shop: Shop) -> None:
    dead = shop.bury(1, 2, 3)

    named = shop.run("dlq", "purge", dead[0], "--yes")
    rest = shop.run("dlq", "purge", "--all", "--text", "row 2", "--yes")

    assert (0, f"{dead[0]}  deleted\n") == (named.code, named.out)
    assert (0, "1 deleted\n") == (rest.code, rest.out)
    assert dead[2:] == ids(shop, "dlq", "list")


def test_what_is_no_dead_letter_is_neither_purged_nor_requeued_as_one(shop: Shop) -> None:
    (dead,) = shop.bury(1)
    with shop.harbor:
        scheduled = shop.send.options(run_in=timedelta(hours=1)).enqueue("a").id
        cancelled = shop.send.enqueue("b").id
        shop.harbor.jobs.cancel([cancelled])

    rehearsed = shop.run("dlq", "purge", scheduled, dead, "--dry-run", "--json")
    purged = shop.run("dlq", "purge", scheduled, cancelled, "--yes")
    requeued = shop.run("dlq", "requeue", scheduled, cancelled)

    no_letter = "it is no dead letter"
    assert {f"not deleted: {no_letter}", "deleted"} == {line["would"] for line in rehearsed.lines()}
    assert (1, "", 2) == (purged.code, purged.out, purged.err.count(f"not deleted: {no_letter}"))
    assert (1, "", 2) == (requeued.code, requeued.out, requeued.err.count(f"not requeued: {no_letter}"))
    assert {"dead": 1, "scheduled": 1, "cancelled": 1} == states(shop)


@pytest.mark.parametrize(
    "command", [("dlq", "purge", "--all"), ("jobs", "delete", "--all", "--state", "dead,cancelled")]
)
def test_what_was_requeued_since_it_was_found_is_not_deleted(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, command: Sequence[str]
) -> None:
    dead = shop.bury(1, 2, 3)
    delete = Jobs.delete

    def after_a_requeue(
        jobs: Jobs, ids: Sequence[str], *, states: Iterable[JobState] = (), act: Act | None = None
    ) -> Sequence[DeleteStatus]:
        jobs.requeue([dead[1]])
        return delete(jobs, ids, states=states, act=act)

    monkeypatch.setattr(Jobs, "delete", after_a_requeue)

    ended = shop.run(*command, "--yes")

    assert (0, "2 deleted\n") == (ended.code, ended.out)
    assert f"{dead[1]}  not deleted" in ended.err
    assert {"ready": 1} == states(shop)


def test_an_export_has_no_arguments_unless_they_are_asked_for(shop: Shop, tmp_path: Path) -> None:
    dead = shop.bury(7, 8)
    file = tmp_path / "dead.jsonl.gz"

    bare = shop.run("dlq", "export")
    written = shop.run("dlq", "export", str(file), "--arguments")

    assert dead == [job["id"] for job in bare.lines()]
    assert not {"arguments", "payload"} & set(bare.lines()[0])
    assert "row 7 is bad" == bare.lines()[0]["errors"][-1]["message"]
    assert (0, f"2 dead letters written to {file}\n") == (written.code, written.out)
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        assert [{"row": 7}, {"row": 8}] == [json.loads(line)["arguments"] for line in lines]
    assert {"dead": 2} == states(shop)


def test_an_export_is_its_owners_alone_and_replaces_nothing_unasked(shop: Shop, tmp_path: Path) -> None:
    shop.bury(1)
    file = tmp_path / "dead.jsonl"

    shop.run("dlq", "export", str(file))
    mode = stat.S_IMODE(file.stat().st_mode)
    file.write_text("mine", encoding="utf-8")
    refused = shop.run("dlq", "export", str(file))
    kept = file.read_text(encoding="utf-8")
    replaced = shop.run("dlq", "export", str(file), "--yes")

    assert (0o600, 2, "mine", 0) == (mode, refused.code, kept, replaced.code)
    assert 1 == len(file.read_text(encoding="utf-8").splitlines())
    assert [file] == list(tmp_path.iterdir())


def test_an_export_that_cannot_be_written_leaves_nothing(shop: Shop, tmp_path: Path) -> None:
    shop.bury(1)

    ended = shop.run("dlq", "export", str(tmp_path / "nowhere" / "dead.jsonl"))

    assert 2 == ended.code
    assert "cannot be written (No such file or directory)" in ended.err


def test_dead_letters_are_shown_whole(shop: Shop) -> None:
    (dead,) = shop.bury(1)

    assert shop.run("jobs", "show", dead).out == shop.run("dlq", "show", dead).out
