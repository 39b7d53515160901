"""Assertions on what was enqueued: what matches, what does not, and what is said then."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from taskharbor import (
    Harbor,
    JobState,
    MsgpackCodec,
    NoHarborError,
    OptionError,
    PayloadError,
    Registry,
    Retry,
    chain,
    task,
)
from taskharbor.testing import EnqueuedCall, InlineHarbor, assert_enqueued, assert_not_enqueued, enqueued

HOUR = timedelta(hours=1)
registry = Registry()


class Address(msgspec.Struct):
    street: str
    number: int = 1


@task(name="mail.send", registry=registry, queue="mail", aliases=["mail.post"])
def send(to: str, subject: str = "hello", *, cc: tuple[str, ...] = ()) -> str:
    return to + subject


@task(name="mail.letter", registry=registry)
async def letter(to: Address, due: datetime | None = None) -> int:
    return to.number


@task(name="mail.packed", registry=registry, codec=MsgpackCodec())
def packed(data: bytes) -> None: ...


class Pair(msgspec.Struct):
    left: bool | int


@task(name="mail.loose", registry=registry)
def loose(value: bool | int, more: list[Pair]) -> None: ...


@pytest.fixture(autouse=True)
def harbor() -> Iterator[InlineHarbor]:
    with InlineHarbor(registry=registry) as harbor:
        yield harbor


def missing(error: pytest.ExceptionInfo[AssertionError]) -> list[str]:
    return str(error.value).splitlines()


# --- what matches


def test_arguments_are_compared_decoded_with_defaults_filled_in() -> None:
    send.enqueue("a")
    letter.enqueue(Address("Quay"), due=datetime(2026, 1, 1, tzinfo=UTC))
    packed.enqueue(b"\x00\xff")

    assert_enqueued(send.s(to="a", subject="hello", cc=()))
    assert_enqueued(letter.s(Address("Quay", 1), datetime(2026, 1, 1, 1, tzinfo=UTC) - HOUR))
    assert_enqueued(packed.s(b"\x00\xff"))


def test_any_call_of_a_task_matches_the_task() -> None:
    send.enqueue("a")
    send.enqueue("b")

    call = assert_enqueued(send)

    assert ("mail.send", {"to": "a", "subject": "hello", "cc": ()}) == (call.task, call.arguments)
    assert call.handle.status().state is call.state is JobState.READY


def test_a_condition_chooses_among_the_calls() -> None:
    send.enqueue("a")
    send.enqueue("b")

    def to_b(call: EnqueuedCall[str]) -> bool:
        return call.arguments["to"] == "b"

    assert "b" == assert_enqueued(send, where=to_b).arguments["to"]
    assert_enqueued(send.s("b"), where=to_b, count=1)
    with pytest.raises(AssertionError, match="`where` returned False"):
        assert_enqueued(send.s("a"), where=to_b)


def test_options_are_compared_where_they_are_given(harbor: InlineHarbor) -> None:
    send.options(queue="bulk", priority=2, run_in=HOUR, key="k", meta={"by": "me", "x": "y"}).enqueue("a")

    assert_enqueued(send, queue="bulk", priority=2, run_in=HOUR, key="k", meta={"by": "me"})
    assert_enqueued(send.options(queue="bulk", run_in=HOUR, key="k").s("a"), run_at=harbor.clock.now() + HOUR)
    for wanted in (
        send.options(queue="mail"),
        send.options(priority=3),
        send.options(run_in=HOUR * 2),
        send.options(run_at=harbor.clock.now()),
        send.options(key="other"),
        send.options(meta={"by": "you"}),
    ):
        assert_not_enqueued(wanted.s("a"))


def test_so_are_those_that_no_record_tells() -> None:
    given = send.options(
        timeout=HOUR, retry=Retry(max_attempts=2), key="k", key_ttl=HOUR, on_conflict="raise"
    )
    given.enqueue("a")

    assert_enqueued(given.s("a"))
    for wanted, told in (
        (send.options(timeout=HOUR * 2), "timeout is 1:00:00, not 2:00:00"),
        (send.options(timeout=None), "timeout is 1:00:00, not None"),
        (send.options(retry=Retry(max_attempts=9)), "max_attempts of retry is 2, not 9"),
        (send.options(key="k", key_ttl=HOUR * 2), "key_ttl is 1:00:00, not 2:00:00"),
        (send.options(key="k", on_conflict="existing"), "on_conflict is 'raise', not 'existing'"),
    ):
        with pytest.raises(AssertionError, match=told):
            assert_enqueued(wanted.s("a"))


def test_true_is_not_one() -> None:
    loose.enqueue(True, [Pair(left=1)])

    assert_enqueued(loose.s(True, [Pair(left=1)]), count=1)
    assert_not_enqueued(loose.s(1, [Pair(left=1)]))
    assert_not_enqueued(loose.s(True, [Pair(left=True)]))


def test_a_call_still_counts_once_it_has_run_later(harbor: InlineHarbor) -> None:
    send.options(run_in=HOUR).enqueue("a")
    harbor.drain(within=HOUR)

    call = assert_enqueued(send.s("a"), run_in=HOUR)

    assert (JobState.SUCCEEDED, "ahello") == (call.state, call.handle.result())


def test_steps_of_flows_are_calls(harbor: InlineHarbor) -> None:
    chain(send.s("a"), lambda sent: send.s("b", sent)).enqueue()

    assert_enqueued(send.s("a"), count=1)
    second = assert_enqueued(send, where=lambda call: call.state is JobState.WAITING)
    assert {"to": "b", "cc": ()} == second.arguments
    with pytest.raises(AssertionError, match="subject is not there yet"):
        assert_enqueued(send.s("b"))


def test_an_idempotent_second_enqueue_is_no_second_call() -> None:
    for _ in range(2):
        send.options(key="k").enqueue("a")

    assert_enqueued(send.s("a"), key="k", count=1)


def test_jobs_stored_under_an_alias_are_calls_of_the_task(harbor: InlineHarbor) -> None:
    old = Registry()

    @task(name="mail.post", registry=old)
    def post(to: str, subject: str = "hello", *, cc: tuple[str, ...] = ()) -> str:
        return to

    post.enqueue("a")

    assert "mail.post" == assert_enqueued(send.s("a")).task


def test_a_task_of_another_registry_can_be_looked_for() -> None:
    @task(name="foreign", registry=Registry())
    def foreign(number: int) -> None: ...

    foreign.enqueue(1)

    assert_enqueued(foreign.s(1))
    assert_not_enqueued(foreign.s(2))


def test_they_work_on_an_event_loop_and_on_a_harbor_that_is_not_current(harbor: InlineHarbor) -> None:
    async def main() -> None:
        await send.aenqueue("a")
        assert_enqueued(send.s("a"))
        async with InlineHarbor(registry=registry):
            assert_not_enqueued(send)
            assert_enqueued(send.s("a"), harbor=harbor)
            assert ["a"] == [call.arguments["to"] for call in enqueued(send, harbor=harbor)]

    asyncio.run(main())


# --- what is said


def test_what_was_enqueued_instead_is_listed_the_nearest_first() -> None:
    letter.enqueue(Address("Quay"))
    send.enqueue("b", "other")
    send.options(queue="bulk").enqueue("a")

    with pytest.raises(AssertionError) as caught:
        assert_enqueued(send.s("a", "hi"), queue="mail")

    head, *others = missing(caught)
    assert head == (
        "nothing was enqueued as mail.send(to='a', subject='hi', cc=()) with queue='mail'. "
        "What else was, nearest first:"
    )
    assert [
        "  mail.send(to='b', subject='other', cc=()): to is 'b', not 'a'; subject is 'other', not 'hi'",
        "  mail.send(to='a', subject='hello', cc=()): subject is 'hello', not 'hi'; queue is 'bulk', not 'mail'",
        "  mail.letter(to=Address(street='Quay', number=1), due=None): it is another task than 'mail.send'",
    ] == others


def test_an_empty_store_is_told() -> None:
    with pytest.raises(
        AssertionError, match=r"nothing was enqueued as mail\.send\(\.\.\.\); nothing at all was"
    ):
        assert_enqueued(send)


def test_another_number_is_told() -> None:
    send.enqueue("a")
    send.enqueue("a")

    with pytest.raises(AssertionError, match=r"2 enqueued as mail.send\(to='a'.*; expected 1"):
        assert_enqueued(send.s("a"), count=1)
    assert_enqueued(send.s("a"), count=2)


def test_long_lists_and_long_values_are_cut() -> None:
    for number in range(12):
        send.enqueue("x" * 500 + str(number))

    with pytest.raises(AssertionError) as caught:
        assert_enqueued(send.s("a"))

    lines = missing(caught)
    assert (12, "  and 2 others") == (len(lines), lines[-1])
    assert 500 > max(map(len, lines))


def test_an_unexpected_call_is_shown() -> None:
    send.enqueue("a")

    with pytest.raises(AssertionError) as caught:
        assert_not_enqueued(send)

    assert [
        "1 enqueued as mail.send(...), and none was expected:",
        "  mail.send(to='a', subject='hello', cc=()) [ready]",
    ] == missing(caught)


def test_a_passing_assertion_on_nothing_returns_nothing() -> None:
    assert_not_enqueued(send)
    assert_not_enqueued(send.s("a"))
    assert [] == enqueued(send)


# --- what is refused


def test_arguments_that_no_job_can_have_are_refused() -> None:
    with pytest.raises(PayloadError):
        assert_not_enqueued(send.s(to=5))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("count", [0, -1, True])
def test_a_wrong_count_is_refused(count: int) -> None:
    with pytest.raises(OptionError, match="assert_not_enqueued"):
        assert_enqueued(send, count=count)


def test_a_flow_is_not_one_call() -> None:
    with pytest.raises(OptionError, match="flow of several calls"):
        assert_enqueued(chain(send.s("a"), letter_of))


def test_what_is_no_call_is_refused() -> None:
    with pytest.raises(OptionError, match=r"expected a call, such as send_email\.s"):
        assert_enqueued("mail.send")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(OptionError, match="expected a task"):
        enqueued(print)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_another_harbor_is_refused_and_none_too() -> None:
    with Harbor("memory://", registry=registry), pytest.raises(OptionError, match="expected an InlineHarbor"):
        assert_enqueued(send)


def test_without_a_harbor_there_is_nothing_to_look_into() -> None:
    import contextvars

    with pytest.raises(NoHarborError):
        contextvars.Context().run(enqueued, send)


@task(name="mail.of", registry=registry)
def letter_of(text: str) -> None: ...
