"""How an attempt can end: what a handler may raise, and what is kept of an exception."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskharbor import OptionError, Registry, Reject, Retry, RetryLater, Snooze, TaskHarborError, task
from taskharbor.job import AttemptError
from taskharbor.outcome import MESSAGE_LIMIT, TRACEBACK_LIMIT, describe
from tests.fixtures.support import steady, untyped

# Room for the line that says how much was left out.
SLACK = 60


def caught(raiser: Callable[[], object]) -> BaseException:
    try:
        raiser()
    except BaseException as error:  # noqa: BLE001 - any of them
        return error
    pytest.fail("nothing was raised")


def told(error: BaseException) -> AttemptError:
    return describe(error, attempt=3, worker="w1")


def fail(error: BaseException) -> Callable[[], object]:
    def raiser() -> None:
        raise error

    return raiser


# --- what a handler may raise


def test_retry_later_carries_its_wait_and_reason() -> None:
    verdict = RetryLater(timedelta(minutes=5), "busy")

    assert (timedelta(minutes=5), "busy", "busy") == (verdict.after, verdict.reason, str(verdict))


def test_retry_later_without_a_reason_tells_the_wait() -> None:
    assert "retry asked for after 0:05:00" == str(RetryLater(after=timedelta(minutes=5)))


def test_snooze_carries_its_wait() -> None:
    verdict = Snooze(for_=timedelta(hours=1))

    assert (timedelta(hours=1), "snoozed for 1:00:00") == (verdict.for_, str(verdict))


def test_reject_carries_its_reason() -> None:
    verdict = Reject("no such user")

    assert ("no such user", "no such user") == (verdict.reason, str(verdict))


def test_zero_is_a_wait() -> None:
    assert timedelta(0) == RetryLater(timedelta(0)).after == Snooze(timedelta(0)).for_


@pytest.mark.parametrize("wrong", [timedelta(seconds=-1), 5, 2.5, "5s", None], ids=str)
@pytest.mark.parametrize("verdict", [RetryLater, Snooze])
def test_a_wait_that_cannot_be_is_refused(verdict: type[Any], wrong: object) -> None:
    with pytest.raises(OptionError, match=r"(RetryLater\(after|Snooze\(for_)=...\): expected a timedelta"):
        verdict(wrong)


@pytest.mark.parametrize("verdict", [RetryLater, Snooze, Reject])
def test_verdicts_are_ordinary_exceptions_of_the_library(verdict: type[Exception]) -> None:
    assert issubclass(verdict, TaskHarborError)


# --- what is kept of an exception


def test_type_text_attempt_and_worker_are_kept() -> None:
    kept = told(caught(fail(ValueError("bad input"))))

    assert ("ValueError", "bad input", 3, "w1") == (kept.type, kept.message, kept.attempt, kept.worker)
    assert kept.traceback.startswith("Traceback (most recent call last):")
    assert kept.traceback.endswith("ValueError: bad input\n")


def test_a_type_outside_builtins_is_told_with_its_module() -> None:
    class Own(Exception): ...

    assert f"{__name__}.{Own.__qualname__}" == told(caught(fail(Own()))).type


def test_the_cause_stands_in_the_traceback() -> None:
    def raiser() -> None:
        try:
            raise KeyError("deep")
        except KeyError as error:
            raise ValueError("high") from error

    kept = told(caught(raiser))

    assert "KeyError: 'deep'" in kept.traceback
    assert "direct cause" in kept.traceback
    assert kept.traceback.endswith("ValueError: high\n")


def test_an_exception_that_was_never_raised_can_be_described() -> None:
    kept = told(ValueError("never raised"))

    assert ("never raised", "ValueError: never raised\n") == (kept.message, kept.traceback)


def test_every_exception_of_a_group_is_told() -> None:
    kept = told(caught(fail(ExceptionGroup("both", [ValueError("one"), OSError("two")]))))

    assert "ExceptionGroup" == kept.type
    assert "ValueError: one" in kept.traceback
    assert "OSError: two" in kept.traceback


def test_a_wide_and_deep_group_is_bounded() -> None:
    error: Exception = ValueError("leaf")
    for level in range(30):
        inside: list[Exception] = [error, *(OSError(str(n)) for n in range(200))]
        error = ExceptionGroup(f"level {level}", inside)

    kept = told(caught(fail(error)))

    assert len(kept.traceback) <= TRACEBACK_LIMIT + SLACK


def test_a_system_exit_and_a_keyboard_interrupt_can_be_described() -> None:
    assert ("SystemExit", "3") == (told(SystemExit(3)).type, told(SystemExit(3)).message)
    assert "KeyboardInterrupt" == told(KeyboardInterrupt()).type


def test_a_long_text_keeps_its_beginning_and_says_what_is_left_out() -> None:
    kept = told(ValueError("a" * MESSAGE_LIMIT + "b" * 1000))

    assert "a" * MESSAGE_LIMIT + " [1000 characters left out]" == kept.message


def test_a_text_at_the_limit_is_kept_whole() -> None:
    assert "a" * MESSAGE_LIMIT == told(ValueError("a" * MESSAGE_LIMIT)).message


def test_a_long_traceback_keeps_its_end_where_the_cause_stands() -> None:
    kept = told(caught(fail(ValueError("x" * 100_000 + "the end"))))

    assert kept.traceback.endswith("the end\n")
    assert "characters left out]\n" in kept.traceback[:SLACK]
    assert len(kept.traceback) <= TRACEBACK_LIMIT + SLACK


def test_half_a_surrogate_pair_is_written_out() -> None:
    kept = told(caught(fail(ValueError("a\ud800b"))))

    assert "a\\ud800b" == kept.message
    assert "a\\ud800b" in kept.traceback


def test_a_nul_is_written_out() -> None:
    kept = told(caught(fail(ValueError("a\x00b"))))

    assert "a\\x00b" == kept.message
    assert "\x00" not in kept.traceback


@steady
@given(st.text(st.characters(exclude_categories=()), max_size=300))
def test_whatever_the_text_it_can_be_stored(text: str) -> None:
    kept = told(caught(fail(ValueError(text))))

    assert "\x00" not in kept.message + kept.traceback
    assert kept == msgspec.json.decode(msgspec.json.encode(kept), type=AttemptError)


def test_an_exception_whose_text_raises_is_still_described() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise LookupError("no words")

    kept = told(caught(fail(Mute())))

    assert "<its __str__ raised LookupError>" == kept.message
    assert kept.type.endswith("Mute")


def test_an_exception_whose_text_is_no_text_is_still_described() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            five: str = untyped(5)
            return five

    assert "<its __str__ raised TypeError>" == told(caught(fail(Odd()))).message


def test_an_exception_whose_text_recurses_is_still_described() -> None:
    class Loop(Exception):
        def __str__(self) -> str:
            return str(self)

    assert "<its __str__ raised RecursionError>" == told(caught(fail(Loop()))).message


def test_a_recursion_without_end_is_described_by_its_ends() -> None:
    def again(depth: int) -> int:
        return again(depth + 1) + 1

    kept = told(caught(lambda: again(0)))

    assert "RecursionError" == kept.type
    assert "maximum recursion depth" in kept.message
    assert len(kept.traceback) <= TRACEBACK_LIMIT + SLACK


def test_a_long_chain_of_causes_is_bounded() -> None:
    error: Exception = ValueError("first")
    for number in range(2000):
        later = ValueError(f"later {number}")
        later.__cause__ = error
        error = later

    kept = told(error)

    assert kept.traceback.endswith("ValueError: later 1999\n")
    assert len(kept.traceback) <= TRACEBACK_LIMIT + SLACK


def test_a_chain_of_causes_that_bites_its_tail_ends() -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one

    assert "ValueError: one" in told(one).traceback


def test_the_traceback_begins_with_the_handlers_own_frame() -> None:
    @task(registry=Registry())
    def handler() -> None:
        raise ValueError("bad")

    error = caught(handler)
    whole = told(error).traceback
    trace = error.__traceback__
    assert trace is not None
    assert trace.tb_next is not None
    inner = told(error.with_traceback(trace.tb_next)).traceback

    assert "in caught" in whole
    assert ["Traceback (most recent call last):", "in handler"] == [
        inner.splitlines()[0],
        inner.splitlines()[1][-len("in handler") :],
    ]


def test_an_error_of_our_own_alone_keeps_a_traceback() -> None:
    assert told(caught(lambda: Retry(max_attempts=0))).traceback.endswith("so 1 means no retry\n")


def test_notes_are_part_of_the_traceback() -> None:
    error = ValueError("bad")
    error.add_note("while reading line 7")

    assert "while reading line 7" in told(error).traceback


def test_no_local_variable_reaches_the_traceback() -> None:
    def raiser() -> None:
        secret = "".join(["pass", "word"])
        raise ValueError(len(secret))

    assert "password" not in told(caught(raiser)).traceback
