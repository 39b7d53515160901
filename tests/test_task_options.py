"""Options: what a task declares, what a call says over it, and the values that cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskharbor import (
    Bound,
    Context,
    Harbor,
    JobRecord,
    OptionError,
    Registry,
    Retry,
    Task,
    TaskDefinitionError,
    task,
)
from taskharbor.call import Options
from taskharbor.clock import ManualClock
from taskharbor.drivers.memory import MemoryDriver
from tests.fixtures.support import steady, untyped

registry = Registry()
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@task(
    registry=registry,
    queue="mail",
    priority=2,
    retry=Retry(max_attempts=3, on={OSError: Retry.never}),
    timeout=timedelta(seconds=30),
)
def send(to: str) -> None: ...


@task(registry=registry)
def bare(to: str) -> None: ...


@task(registry=registry, run="process")
def heavy(to: str) -> None: ...


@pytest.fixture
def harbor() -> Iterator[Harbor]:
    with Harbor(MemoryDriver(ManualClock(NOW)), registry=registry) as opened:
        yield opened


def stored(harbor: Harbor, bound: Bound[[str], None]) -> JobRecord:
    return harbor.jobs.get(bound.enqueue("a").id)


def test_without_options_a_job_has_what_the_task_declares(harbor: Harbor) -> None:
    job = stored(harbor, send)

    assert ("mail", 2, 3, {}, None) == (job.queue, job.priority, job.max_attempts, job.meta, job.key)


def test_a_task_that_declares_nothing_has_the_defaults(harbor: Harbor) -> None:
    job = stored(harbor, bare)

    assert ("default", 5, 5, True) == (job.queue, job.priority, job.max_attempts, job.keep_result)
    assert NOW == job.run_at == job.enqueued_at


def test_options_of_a_call_come_over_those_of_the_task(harbor: Harbor) -> None:
    job = stored(
        harbor,
        send.options(
            queue="fast", priority=0, retry=Retry(max_attempts=9), key="k", meta={"a": "b"}, run_at=NOW
        ),
    )

    assert ("fast", 0, 9, "k", {"a": "b"}) == (job.queue, job.priority, job.max_attempts, job.key, job.meta)


def test_options_leave_the_task_as_it_was(harbor: Harbor) -> None:
    send.options(queue="fast")

    assert "mail" == stored(harbor, send).queue


def test_options_over_options_keep_what_is_not_named_again(harbor: Harbor) -> None:
    job = stored(harbor, send.options(queue="fast", priority=1).options(priority=3).options())

    assert ("fast", 3) == (job.queue, job.priority)


def test_metadata_is_joined_and_the_later_word_counts(harbor: Harbor) -> None:
    job = stored(harbor, send.options(meta={"a": "1", "b": "1"}).options(meta={"b": "2", "c": "2"}))

    assert {"a": "1", "b": "2", "c": "2"} == job.meta


def test_run_at_and_run_in_replace_each_other(harbor: Harbor) -> None:
    later = NOW + timedelta(days=1)

    one = stored(harbor, send.options(run_in=timedelta(hours=1)).options(run_at=later))
    other = stored(harbor, send.options(run_at=later).options(run_in=timedelta(hours=1)))

    assert (later, NOW + timedelta(hours=1)) == (one.run_at, other.run_at)


def test_run_in_is_counted_by_the_stores_clock(harbor: Harbor) -> None:
    assert NOW + timedelta(minutes=5) == stored(harbor, send.options(run_in=timedelta(minutes=5))).run_at


def test_run_at_is_kept_as_an_instant_whatever_its_zone(harbor: Harbor) -> None:
    from datetime import timezone

    moment = datetime(2026, 6, 1, 12, tzinfo=timezone(timedelta(hours=2)))

    assert datetime(2026, 6, 1, 10, tzinfo=UTC) == stored(harbor, send.options(run_at=moment)).run_at


def test_a_mapping_given_as_metadata_may_be_changed_afterwards(harbor: Harbor) -> None:
    meta = {"a": "1"}
    bound = send.options(meta=meta)
    meta["a"] = "2"
    job = bound.enqueue("x")
    meta["a"] = "3"

    assert {"a": "1"} == harbor.jobs.get(job.id).meta


def test_a_bound_task_has_the_tasks_name_and_calls() -> None:
    bound = send.options(queue="fast")

    assert type(bound) is Bound
    assert (send.name, f"<Bound {send.name}>") == (bound.name, repr(bound))
    assert f"<Signature of {send.name}>" == repr(bound.s("a"))


meta = st.dictionaries(st.text("abc", max_size=2), st.text("xyz", max_size=2), max_size=2)
given_options: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "queue": st.sampled_from(["a", "b"]),
        "priority": st.integers(0, 9),
        "key": st.sampled_from(["k", "l"]),
        "key_ttl": st.timedeltas(timedelta(0), timedelta(9)),
        "on_conflict": st.sampled_from(["existing", "raise"]),
        "retry": st.sampled_from([Retry(), Retry(max_attempts=2)]),
        "timeout": st.sampled_from([None, timedelta(seconds=1)]),
        "meta": meta,
    },
)
times: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just(dict[str, Any]()),
    st.fixed_dictionaries({"run_at": st.just(NOW)}),
    st.fixed_dictionaries({"run_in": st.just(timedelta(1))}),
)


def make_options(given: dict[str, Any], time: dict[str, Any]) -> Options:
    return Options(**given, **time)


options = st.builds(make_options, given_options, times)


@steady
@given(options)
def test_no_options_change_nothing_over_or_under_others(some: Options) -> None:
    assert some == Options().over(some) == some.over(Options())


@steady
@given(options)
def test_the_same_options_twice_are_those_options(some: Options) -> None:
    assert some == some.over(some)


@steady
@given(options, options, options)
def test_it_does_not_matter_how_options_over_options_are_grouped(
    first: Options, second: Options, third: Options
) -> None:
    assert third.over(second).over(first) == third.over(second.over(first))


# --- values that cannot be

WRONG_IN_BOTH: list[dict[str, object]] = [
    {"queue": ""},
    {"queue": " mail"},
    {"queue": "mail\n"},
    {"queue": "a\x00b"},
    {"queue": "a\ud800"},
    {"queue": "x" * 121},
    {"queue": None},
    {"queue": 5},
    {"queue": b"mail"},
    {"priority": -1},
    {"priority": 10},
    {"priority": 2.0},
    {"priority": True},
    {"priority": "5"},
    {"priority": None},
    {"timeout": timedelta(0)},
    {"timeout": timedelta(seconds=-1)},
    {"timeout": timedelta(days=3651)},
    {"timeout": 30},
    {"timeout": "30s"},
    {"key_ttl": timedelta(-1)},
    {"key_ttl": timedelta(days=3651)},
    {"key_ttl": 60},
    {"key_ttl": None},
    {"retry": 3},
    {"retry": None},
]
WRONG_IN_OPTIONS: list[dict[str, object]] = [
    {"run_at": datetime(2026, 1, 1)},  # noqa: DTZ001 - that is the mistake
    {"run_at": "tomorrow"},
    {"run_at": date(2026, 1, 1)},
    {"run_at": 5.0},
    {"run_at": None},
    {"run_in": timedelta(seconds=-1)},
    {"run_in": timedelta(days=3651)},
    {"run_in": 5},
    {"run_in": None},
    {"key": ""},
    {"key": "x" * 251},
    {"key": "a\x00"},
    {"key": "a\udfff"},
    {"key": 5},
    {"key": None},
    {"on_conflict": "ignore"},
    {"on_conflict": None},
    {"on_conflict": []},
    {"retry": Retry(on={OSError: Retry.never})},
    {"meta": None},
    {"meta": ["a"]},
    {"meta": {"a": 1}},
    {"meta": {1: "a"}},
    {"meta": {"a": "b\x00"}},
    {"meta": {"\ud800": "b"}},
]
WRONG_IN_TASK: list[dict[str, object]] = [
    {"run": "thread"},
    {"run": "Process"},
    {"run": True},
    {"retain": timedelta(-1)},
    {"retain": timedelta(days=3651)},
    {"retain": None},
    {"retain": 7},
    {"keep_result": "no"},
    {"keep_result": None},
    {"codec": "json"},
    {"registry": "mine"},
    {"aliases": "old"},
    {"name": 5},
]


@pytest.mark.parametrize("wrong", [*WRONG_IN_BOTH, *WRONG_IN_OPTIONS], ids=str)
def test_a_call_refuses_an_option_that_cannot_be_by_name(wrong: dict[str, Any]) -> None:
    (name,) = wrong

    with pytest.raises(OptionError, match=name):
        send.options(**wrong)


@pytest.mark.parametrize("wrong", [*WRONG_IN_BOTH, *WRONG_IN_TASK], ids=str)
def test_a_task_refuses_an_option_that_cannot_be_by_name(wrong: dict[str, Any]) -> None:
    (name,) = wrong

    with pytest.raises(OptionError, match=name):
        untyped(task)(**{"registry": Registry(), **wrong})


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"priority": 11}, r"priority=11: expected 0 \(first\) to 9 \(last\)"),
        ({"queue": ""}, "queue='': expected text of 1 to 120 characters"),
        ({"timeout": timedelta(0)}, "or None"),
        ({"timeout": timedelta(days=9999)}, "3650 days"),
        ({"on_conflict": "no"}, "on_conflict='no': expected 'existing', 'raise' or 'replace'"),
        ({"retry": Retry(on={OSError: Retry.never})}, r"declare them in @task\(retry=Retry\(on=...\)\)"),
        ({"run_at": datetime(2026, 1, 1)}, "has no time zone"),  # noqa: DTZ001
        ({"run_at": NOW, "run_in": timedelta(1)}, "run_at and run_in were both given"),
    ],
    ids=str,
)
def test_the_message_says_what_was_expected(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(OptionError, match=told):
        send.options(**wrong)


@pytest.mark.parametrize(
    "right",
    [
        {"queue": "x" * 120},
        {"queue": "post für ännchen"},
        {"priority": 0},
        {"priority": 9},
        {"run_in": timedelta(0)},
        {"run_in": timedelta(days=3650)},
        {"key": "x" * 250},
        {"key": " \n"},
        {"key_ttl": timedelta(0)},
        {"timeout": timedelta(microseconds=1)},
        {"timeout": None},
        {"meta": {}},
        {"meta": {"": ""}},
        {"on_conflict": "raise"},
    ],
    ids=str,
)
def test_a_value_at_the_edge_is_accepted_and_stored(harbor: Harbor, right: dict[str, Any]) -> None:
    assert send.options(**right).enqueue("a").created


def test_a_timeout_of_none_lifts_the_tasks(harbor: Harbor) -> None:
    arguments = send.definition.bind(("a",), {})
    from taskharbor import JsonCodec

    def timeout_with(some: Options) -> timedelta | None:
        return send.definition.new_job(arguments, some, JsonCodec(), check=True).timeout

    assert timedelta(seconds=30) == timeout_with(Options())
    assert timeout_with(Options(timeout=None)) is None
    assert timedelta(5) == timeout_with(Options(timeout=timedelta(5)))


def test_a_processes_task_is_a_plain_function_that_can_be_imported() -> None:
    def local(to: str) -> None: ...

    async def coroutine(to: str) -> None: ...

    def with_deps(ctx: Context[int], to: str) -> None: ...

    with_deps.__qualname__ = "with_deps"

    for wrong, told in (
        (local, "another process can import; move it out"),
        (coroutine, "run='process' is for `def`"),
        (with_deps, "cannot be given the harbor's dependencies"),
    ):
        with pytest.raises(TaskDefinitionError, match=told):
            task(run="process", registry=Registry())(untyped(wrong))
    assert "process" == heavy.definition.options.run


def test_a_task_knows_its_declared_options() -> None:
    declared: Task[[str], None] = send

    known = declared.definition.options

    assert ("mail", 2, 3) == (known.queue, known.priority, known.retry.max_attempts)
    assert timedelta(seconds=30) == known.timeout
