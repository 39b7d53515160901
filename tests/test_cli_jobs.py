"""`taskharbor jobs` and `taskharbor dlq`: looking at jobs, retrying, cancelling, requeueing them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from taskharbor import DeleteStatus, JobState, MsgpackCodec, default_registry, task
from taskharbor.cli import acting, listing
from tests.fixtures.cli import Shop, shops


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shop]:
    yield from shops(monkeypatch, capsys)


def states(shop: Shop) -> list[str]:
    return [record.state.value for record in shop.harbor.jobs.find()]


# --- looking


def test_jobs_are_listed_the_newest_first_or_in_the_order_of_their_enqueue(shop: Shop) -> None:
    with shop.harbor:
        ids = [shop.send.enqueue("a").id, shop.send.enqueue("b").id]

    ended = shop.run("jobs", "list")
    oldest_first = shop.run("jobs", "list", "--oldest-first")

    assert 0 == ended.code
    assert ids[::-1] == [line.split()[0] for line in ended.out.splitlines()[1:]]
    assert ids == [line.split()[0] for line in oldest_first.out.splitlines()[1:]]
    assert ["ready", "mail.send", "mail", "0/5"] == ended.out.splitlines()[1].split()[1:5]


def test_filters_choose_and_a_page_says_how_to_go_on(shop: Shop) -> None:
    dead = shop.bury(1, 2, 3)[::-1]
    with shop.harbor:
        mail = shop.send.options(key="k").enqueue("a").id

    def ids(*arguments: str) -> list[str]:
        return [job["id"] for job in shop.run("jobs", "list", "--json", *arguments).lines()]

    assert [mail, *dead] == ids()
    assert dead == ids("--state", "dead,cancelled", "--state", "parked")
    assert [mail] == ids("--queue", "mail,other")
    assert [mail, *dead] == ids("--task", "mail.send", "--task", "row.load")
    assert [mail] == ids("--key", "k")
    assert dead[1:] == ids("--state", "dead", "--after", dead[0])
    assert [mail, dead[0]] == ids("--limit", "2")
    assert f"There may be more: --after {dead[0]}\n" == shop.run("jobs", "list", "-n", "2").err
    for half in ("nope", dead[0][:8]):
        refused = shop.run("jobs", "list", "--after", half)
        assert (2, "", True) == (refused.code, refused.out, "is no id" in refused.err)
    assert "" == shop.run("jobs", "list").err


def test_more_than_a_page_is_found_page_by_page(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PAGE", 2)
    dead = shop.bury(1, 2, 3, 4, 5)[::-1]

    assert dead == [job["id"] for job in shop.run("jobs", "list", "--json", "--limit", "100").lines()]
    assert dead[:3] == [job["id"] for job in shop.run("jobs", "list", "--json", "--limit", "3").lines()]


def test_an_empty_list_is_told_on_standard_error(shop: Shop) -> None:
    assert ("", "No such jobs.\n") == (shop.run("jobs", "list").out, shop.run("jobs", "list").err)
    assert ("", "") == (shop.run("jobs", "list", "--json").out, shop.run("jobs", "list", "--json").err)


def test_an_unknown_state_is_told_its_neighbour(shop: Shop) -> None:
    ended = shop.run("jobs", "list", "--state", "ded")

    assert 2 == ended.code
    assert (
        "no job has this state (did you mean 'dead'?); there are waiting, scheduled, ready, parked, "
        in ended.err
    )
    assert "or unfinished, which is all that have not ended" in ended.err


def test_unfinished_is_every_state_that_is_not_terminal(shop: Shop) -> None:
    dead = shop.bury(1)
    with shop.harbor:
        ready = shop.send.enqueue("a").id
        later = shop.send.options(run_in=timedelta(hours=1)).enqueue("a").id

    def ids(states: str) -> list[str]:
        return [job["id"] for job in shop.run("jobs", "list", "--state", states, "--json").lines()]

    assert [later, ready] == ids("unfinished")
    assert [later, ready, *dead] == ids("dead,unfinished")


def test_why_a_job_is_parked_does_not_repeat_its_row(shop: Shop) -> None:
    with shop.harbor:
        job = shop.send.enqueue("a").id
    shop.registry._by_name.clear()  # pyright: ignore[reportPrivateUsage]
    shop.harbor.run_until_idle(queues=["mail"])

    (told,) = shop.run("jobs", "list", "--state", "parked").out.splitlines()[1:]

    assert told.startswith(job)
    assert told.endswith("  task unknown to the worker that met it")
    assert "import the module that declares it" in shop.run("jobs", "show", job).out


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("send", " (did you mean 'mail.send'?)"),
        ("row.laod", " (did you mean 'row.load'?)"),
        ("quite.another", ""),
    ],
)
@pytest.mark.parametrize("command", [["jobs", "list"], ["dlq", "list"], ["dlq", "requeue", "--all"]])
def test_a_task_that_the_application_does_not_know_is_told_where_none_is_found(
    shop: Shop, command: list[str], name: str, hint: str
) -> None:
    ended = shop.run(*command, "--task", name)

    assert (0, f"No task here is named {name!r}{hint}") == (ended.code, ended.err.splitlines()[-1])
    assert ended.err.startswith("No such ")


def test_without_an_application_nothing_is_said_of_its_tasks(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(default_registry, "_by_name", {})  # what tests of this process declared there

    ended = shop.run_alone("--url", "memory://", "jobs", "list", "--task", "mail.sned")

    assert (0, "No such jobs.\n") == (ended.code, ended.err)


def test_a_job_for_programs_has_its_arguments_and_result_as_json(shop: Shop) -> None:
    with shop.harbor:
        job = shop.send.enqueue("a", count=2)
        shop.harbor.run_until_idle()

    (told,) = shop.run("jobs", "show", job.id, "--json").lines()

    assert ({"to": "a", "count": 2}, "a 2", "succeeded") == (told["arguments"], told["result"], told["state"])
    assert told["enqueued_at"].endswith("Z")
    assert 16 == len(told["fingerprint"])
    assert "payload" not in told


def test_what_only_the_application_can_read_stands_in_base64_without_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    @task(name="packed", codec=MsgpackCodec(), registry=shop.registry)
    def packed(data: list[int]) -> int:
        return sum(data)

    with shop.harbor:
        job = packed.enqueue([1, 2])
        shop.harbor.run_until_idle()
    known = shop.run("jobs", "show", job.id, "--json").lines()[0]
    shop.registry._by_name.clear()  # pyright: ignore[reportPrivateUsage]
    unknown = shop.run("jobs", "show", job.id, "--json").lines()[0]
    told = shop.run("jobs", "show", job.id)

    assert ({"data": [1, 2]}, 3) == (known["arguments"], known["result"])
    assert ("gaRkYXRhkgEC", "Aw==") == (unknown["payload"], unknown["result_payload"])
    assert not {"arguments", "result"} & set(unknown)
    assert "9 bytes of msgpack, which only the application can read (--app)" in told.out


def test_a_job_for_people_tells_everything(shop: Shop) -> None:
    (dead,) = shop.bury(7)
    shop.run("jobs", "retry", dead, "--reason", "mended")
    shop.harbor.run_until_idle()

    told = shop.run("jobs", "show", dead).out

    for line in (
        f"job         {dead}",
        "state       dead (not to be retried)",
        "argument    row = 7",
        "queue       default",
    ):
        assert line in told.splitlines()
    assert "    ValueError: row 7 is bad" in told.splitlines()
    assert " requeue by cli" in told
    assert told.rstrip().endswith(": mended")


def test_a_missing_job_is_told_and_the_others_shown(shop: Shop) -> None:
    (dead,) = shop.bury(1)

    ended = shop.run("jobs", "show", "nowhere", dead, "--json")

    assert (1, [dead]) == (ended.code, [job["id"] for job in ended.lines()])
    assert "no job has the id 'nowhere'" in ended.err


def test_no_terminal_obeys_what_comes_out_of_a_store(shop: Shop) -> None:
    with shop.harbor:
        job = shop.skip.options(meta={"a": "\x1b]0;owned\x07"}).enqueue(1)
        shop.harbor.run_until_idle()

    shown = "".join(
        shop.run(*words).out for words in (("jobs", "show", job.id), ("jobs", "list"), ("dlq", "list"))
    )

    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "not \\x1b[31mthis" in shown
    assert "a = \\x1b]0;owned\\x07" in shown


# --- acting


def test_dead_jobs_are_retried_and_it_is_recorded(shop: Shop) -> None:
    dead = shop.bury(1, 2)

    ended = shop.run("jobs", "retry", *dead, "--reason", "mended")

    assert (0, [f"{job}  requeued" for job in dead]) == (ended.code, ended.out.splitlines())
    (operation,) = shop.harbor.jobs.get(dead[0]).operations
    assert ("requeue", "mended", True) == (operation.verb, operation.reason, operation.by.startswith("cli"))


def test_what_cannot_be_retried_is_told_and_the_rest_done(shop: Shop) -> None:
    (dead,) = shop.bury(1)
    with shop.harbor:
        ready = shop.send.enqueue("a").id

    ended = shop.run("jobs", "retry", "nowhere", ready, dead, "--json")

    assert 1 == ended.code
    assert [
        {"id": "nowhere", "status": "missing"},
        {"id": ready, "status": "not_dead"},
        {"id": dead, "status": "requeued"},
    ] == ended.lines()


def test_jobs_are_cancelled(shop: Shop) -> None:
    with shop.harbor:
        job = shop.send.enqueue("a").id

    first = shop.run("jobs", "cancel", job, "--reason", "not wanted")
    second = shop.run("jobs", "cancel", job)

    assert (0, f"{job}  cancelled\n") == (first.code, first.out)
    assert (1, f"{job}  not cancelled: it had ended already\n") == (second.code, second.err)
    record = shop.harbor.jobs.get(job)
    assert (JobState.CANCELLED, "not wanted") == (record.state, record.reason)


def test_ids_come_from_standard_input_alone_or_as_a_listing(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acting, "BATCH", 2)
    dead = shop.bury(1, 2, 3)
    listing_ = shop.run("dlq", "list", "--json").out

    as_listing = shop.run("jobs", "retry", "-", stdin=listing_)
    shop.run("jobs", "cancel", "-", stdin="\n".join([f" {dead[0]} ", "", *dead[1:]]))

    assert (0, 3) == (as_listing.code, len(as_listing.out.splitlines()))
    assert ["cancelled"] * 3 == states(shop)


def test_a_line_of_json_without_an_id_is_refused(shop: Shop) -> None:
    ended = shop.run("jobs", "retry", "-", stdin='{"x": 1}\n')

    assert 2 == ended.code
    assert "standard input, line 1: expected an id, or JSON with one" in ended.err


def test_jobs_are_deleted_in_any_state_but_running(shop: Shop) -> None:
    (dead,) = shop.bury(1)
    with shop.harbor:
        keyed = shop.send.options(key="k").enqueue("a").id

    ended = shop.run("jobs", "delete", dead, keyed, "nowhere", "--yes", "--json")

    assert [
        {"id": dead, "status": "deleted"},
        {"id": keyed, "status": "deleted"},
        {"id": "nowhere", "status": "missing"},
    ] == ended.lines()
    assert (1, []) == (ended.code, states(shop))
    with shop.harbor:
        assert shop.send.options(key="k").enqueue("b").created


def test_a_running_job_is_not_deleted_and_it_is_said_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert not acting.tell("x", DeleteStatus.RUNNING, as_json=False)

    assert ("", "x  not deleted: it is running; cancel it first\n") == tuple(capsys.readouterr())


@pytest.mark.parametrize(
    ("ids", "asked"),
    [
        (["a"], "Delete 1 job for good?"),
        (["a", "b"], "Delete 2 jobs for good?"),
        (["-"], "Delete all jobs that standard input names for good?"),
    ],
)
def test_nothing_is_deleted_where_nobody_can_be_asked(shop: Shop, ids: list[str], asked: str) -> None:
    (dead,) = shop.bury(1)

    ended = shop.run("jobs", "delete", *ids, stdin=dead)

    assert (2, ["dead"]) == (ended.code, states(shop))
    assert f"{asked} Nobody is there to answer (no terminal); give --yes" in ended.err


def test_ids_to_delete_come_from_a_listing(shop: Shop) -> None:
    shop.bury(1, 2)

    ended = shop.run("jobs", "delete", "-", "--yes", stdin=shop.run("dlq", "list", "--json").out)

    assert (0, []) == (ended.code, states(shop))


# --- dead letters


def test_dead_letters_are_listed_with_their_last_error(shop: Shop) -> None:
    dead = shop.bury(1)
    with shop.harbor:
        shop.send.enqueue("a")

    ended = shop.run("dlq", "list")

    header, row = ended.out.splitlines()
    assert ["id", "task", "queue", "attempts", "died", "why", "last", "error"] == header.split()
    assert row.startswith(dead[0])
    assert row.rstrip().endswith("ValueError: row 1 is bad")


def test_named_dead_letters_are_requeued_without_a_question(shop: Shop) -> None:
    dead = shop.bury(1, 2)

    assert 0 == shop.run("dlq", "requeue", dead[0]).code
    assert ["ready", "dead"] == states(shop)


def test_all_that_match_are_requeued_page_by_page(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PAGE", 2)
    shop.bury(1, 2, 3)
    with shop.harbor:
        shop.skip.enqueue(9)
        shop.harbor.run_until_idle()

    ended = shop.run("dlq", "requeue", "--all", "--task", "row.load", "--queue", "default", "--yes")

    assert (0, "3 requeued\n") == (ended.code, ended.out)
    assert ["ready", "ready", "ready", "dead"] == states(shop)


def test_all_are_told_one_by_one_to_programs(shop: Shop) -> None:
    dead = shop.bury(1, 2)

    ended = shop.run("dlq", "requeue", "--all", "--yes", "--json")

    assert [{"id": job, "status": "requeued"} for job in dead] == ended.lines()


def test_all_are_not_requeued_where_nobody_can_be_asked(shop: Shop) -> None:
    shop.bury(1, 2)

    ended = shop.run("dlq", "requeue", "--all")

    assert (2, "") == (ended.code, ended.out)
    assert "Requeue 2 dead letters? Nobody is there to answer (no terminal); give --yes" in ended.err
    assert ["dead", "dead"] == states(shop)


def test_nothing_to_requeue_is_no_failure(shop: Shop) -> None:
    ended = shop.run("dlq", "requeue", "--all")

    assert (0, "No dead letters.\n") == (ended.code, ended.err)


def test_no_dead_letters_and_none_that_match_are_told_apart(shop: Shop) -> None:
    shop.bury(1)

    assert "No such dead letters.\n" == shop.run("dlq", "list", "--queue", "mail").err
    shop.run("dlq", "requeue", "--all", "--yes")
    assert "No dead letters.\n" == shop.run("dlq", "list").err


def test_a_taken_key_is_told_and_the_rest_done(shop: Shop) -> None:
    keyed = shop.load.options(key="k", key_ttl=timedelta(0))
    with shop.harbor:
        first, other = keyed.enqueue(1).id, shop.load.enqueue(2).id
        shop.harbor.run_until_idle()
        keyed.options(run_in=timedelta(days=1)).enqueue(3)

    ended = shop.run("dlq", "requeue", "--all", "--yes")

    assert (1, "1 requeued\n") == (ended.code, ended.out)
    assert f"{first}  not requeued: another job has taken its idempotency key\n" == ended.err
    assert JobState.READY is shop.harbor.jobs.get(other).state


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "give the ids of dead letters, or --all"),
        (["x", "--all"], "give the ids of dead letters, or --all"),
        (["x", "--queue", "q"], "filters go with --all; ids say which dead letters already"),
    ],
)
def test_ids_and_all_exclude_each_other(shop: Shop, arguments: list[str], why: str) -> None:
    ended = shop.run("dlq", "requeue", *arguments)

    assert 2 == ended.code
    assert why in ended.err
