"""What is written down of an attempt: every outcome under every policy, and what a crash leaves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskharbor import Retry
from taskharbor.job import AttemptError, Delivery
from taskharbor.outcome import (
    Cancelled,
    Failed,
    Outcome,
    Rejected,
    Released,
    Snoozed,
    Strayed,
    Succeeded,
)
from taskharbor.retry import RetryNumbers
from taskharbor.settlement import (
    ATTEMPTS_USED_UP,
    INTERRUPTED,
    LOST_LIMIT,
    LOST_UNSTARTED,
    SOLO_CRASHES,
    AfterCrash,
    SettleKind,
    Settlement,
    after_crash,
    settlement,
)
from tests.fixtures.support import steady

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ERROR = AttemptError(attempt=1, type="ValueError", message="bad")
NUMBERS = RetryNumbers(max_attempts=3, base_seconds=8.0, factor=2.0, cap_seconds=3600.0)
ONCE = RetryNumbers(max_attempts=1)


def delivery(attempt: int = 1, retry: RetryNumbers = NUMBERS) -> Delivery:
    return Delivery(
        id="job-1",
        token=77,
        task="t",
        queue="default",
        payload=b"{}",
        codec="json",
        fingerprint=0,
        attempt=attempt,
        fence=1,
        retry=retry,
        timeout=None,
        priority=5,
        run_at=NOW,
        enqueued_at=NOW,
        key=None,
        meta={},
        keep_result=True,
        guarded=False,
        solo=False,
        cancel_requested=False,
    )


def written(kind: SettleKind, **more: object) -> Settlement:
    return msgspec.structs.replace(Settlement("job-1", 77, kind), **more)


# One row an outcome and policy: what happened, to which delivery, and all that is written.
TABLE: list[tuple[str, Outcome, Delivery, Settlement]] = [
    (
        "a success is charged and keeps its result",
        Succeeded(b"42", "json"),
        delivery(),
        written(SettleKind.SUCCEED, result=b"42", codec="json", charge=True),
    ),
    (
        "a success that keeps no result",
        Succeeded(None),
        delivery(),
        written(SettleKind.SUCCEED, charge=True),
    ),
    (
        "a success on the last attempt",
        Succeeded(b"1", "msgpack"),
        delivery(3),
        written(SettleKind.SUCCEED, result=b"1", codec="msgpack", charge=True),
    ),
    (
        "the first failure waits by the job's own numbers",
        Failed(ERROR),
        delivery(1),
        written(SettleKind.RETRY, after=timedelta(seconds=4), error=ERROR, charge=True),
    ),
    (
        "the second failure waits longer",
        Failed(ERROR),
        delivery(2),
        written(SettleKind.RETRY, after=timedelta(seconds=8), error=ERROR, charge=True),
    ),
    (
        "the last failure is a dead letter",
        Failed(ERROR),
        delivery(3),
        written(SettleKind.BURY, error=ERROR, reason=ATTEMPTS_USED_UP, charge=True),
    ),
    (
        "a failure beyond the last is a dead letter too",
        Failed(ERROR),
        delivery(9),
        written(SettleKind.BURY, error=ERROR, reason=ATTEMPTS_USED_UP, charge=True),
    ),
    (
        "the only attempt's failure says that no retry was wanted",
        Failed(ERROR),
        delivery(1, ONCE),
        written(SettleKind.BURY, error=ERROR, reason="not to be retried", charge=True),
    ),
    (
        "RetryLater replaces the backoff",
        Failed(ERROR, None, timedelta(minutes=5)),
        delivery(1),
        written(SettleKind.RETRY, after=timedelta(minutes=5), error=ERROR, charge=True),
    ),
    (
        "RetryLater at once",
        Failed(ERROR, None, timedelta(0)),
        delivery(1),
        written(SettleKind.RETRY, after=timedelta(0), error=ERROR, charge=True),
    ),
    (
        "RetryLater on the last attempt is a dead letter",
        Failed(ERROR, None, timedelta(minutes=5)),
        delivery(3),
        written(SettleKind.BURY, error=ERROR, reason=ATTEMPTS_USED_UP, charge=True),
    ),
    (
        "a policy for the exception has the say over the wait",
        Failed(ERROR, Retry(base=timedelta(seconds=100), jitter=False)),
        delivery(1),
        written(SettleKind.RETRY, after=timedelta(seconds=100), error=ERROR, charge=True),
    ),
    (
        "a policy for the exception may allow more attempts than the job",
        Failed(ERROR, Retry(max_attempts=9, base=timedelta(seconds=1), factor=1.0, jitter=False)),
        delivery(3),
        written(SettleKind.RETRY, after=timedelta(seconds=1), error=ERROR, charge=True),
    ),
    (
        "a policy for the exception may allow fewer",
        Failed(ERROR, Retry(max_attempts=2)),
        delivery(2),
        written(SettleKind.BURY, error=ERROR, reason=ATTEMPTS_USED_UP, charge=True),
    ),
    (
        "Retry.never ends it with the first failure",
        Failed(ERROR, Retry.never),
        delivery(1),
        written(SettleKind.BURY, error=ERROR, reason="not to be retried", charge=True),
    ),
    (
        "a rejected job is a dead letter whatever is left",
        Rejected(ERROR, "no such user"),
        delivery(1),
        written(SettleKind.BURY, error=ERROR, reason="no such user", charge=True),
    ),
    (
        "a snooze costs no attempt",
        Snoozed(timedelta(hours=1)),
        delivery(1),
        written(SettleKind.SNOOZE, after=timedelta(hours=1)),
    ),
    (
        "a snooze on the only attempt costs none either",
        Snoozed(timedelta(hours=1)),
        delivery(1, ONCE),
        written(SettleKind.SNOOZE, after=timedelta(hours=1)),
    ),
    (
        "a cancel is charged",
        Cancelled("by hand"),
        delivery(1),
        written(SettleKind.CANCEL, reason="by hand", charge=True),
    ),
    ("handed back unstarted", Released(), delivery(1), written(SettleKind.RELEASE)),
    ("handed back unstarted with one attempt", Released(), delivery(1, ONCE), written(SettleKind.RELEASE)),
    ("handed back started", Released(started=True), delivery(1), written(SettleKind.RELEASE)),
    (
        "handed back started on the last of several attempts",
        Released(started=True),
        delivery(3),
        written(SettleKind.RELEASE),
    ),
    (
        "handed back started with one attempt: interrupted",
        Released(started=True),
        delivery(1, ONCE),
        written(
            SettleKind.BURY,
            error=AttemptError(
                attempt=1,
                type="taskharbor.Interrupted",
                message="the worker shut down while this ran, and max_attempts=1 forbids a second start",
            ),
            reason=INTERRUPTED,
            charge=True,
        ),
    ),
    (
        "an unknown task strays",
        Strayed("unknown task"),
        delivery(1),
        written(SettleKind.STRAY, reason="unknown task"),
    ),
    (
        "a foreign payload strays and names the build that refused it",
        Strayed("foreign payload", "b1"),
        delivery(1),
        written(SettleKind.STRAY, reason="foreign payload", refused_by="b1"),
    ),
]


@pytest.mark.parametrize(("outcome", "job", "expected"), [pytest.param(*row[1:], id=row[0]) for row in TABLE])
def test_what_is_written_of(outcome: Outcome, job: Delivery, expected: Settlement) -> None:
    assert expected == settlement(outcome, job, draw=0.5)


def test_the_table_has_a_row_for_every_outcome_and_every_kind() -> None:
    assert {Succeeded, Failed, Snoozed, Rejected, Cancelled, Released, Strayed} == {
        type(outcome) for _, outcome, _, _ in TABLE
    }
    assert set(SettleKind) == {expected.kind for _, _, _, expected in TABLE}


@steady
@given(attempt=st.integers(1, 40), most=st.integers(1, 40))
def test_a_failure_is_retried_exactly_while_attempts_are_left(attempt: int, most: int) -> None:
    kind = settlement(Failed(ERROR), delivery(attempt, RetryNumbers(max_attempts=most))).kind

    assert (SettleKind.RETRY if attempt < most else SettleKind.BURY) is kind


@steady
@given(attempt=st.integers(1, 2))
def test_without_a_draw_the_jitter_is_random_and_within_the_ceiling(attempt: int) -> None:
    after = settlement(Failed(ERROR), delivery(attempt)).after

    assert after is not None
    assert timedelta(0) <= after <= timedelta(seconds=8 * 2 ** (attempt - 1))


# --- after a crash


def crash(
    *, started: bool, attempt: int = 0, crashes: int = 0, lost: int = 0, numbers: RetryNumbers = NUMBERS
) -> AfterCrash:
    return after_crash(
        started=started,
        attempt=attempt,
        crashes=crashes,
        lost=lost,
        numbers=numbers,
        worker="w1",
        draw=0.5,
    )


def lost_error(attempt: int) -> AttemptError:
    return AttemptError(
        attempt=attempt,
        type="taskharbor.WorkerLost",
        message="the worker's lease expired while this ran: its process died, or lost the store",
        worker="w1",
    )


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(
            crash(started=True),
            AfterCrash(SettleKind.RETRY, 1, 0, after=timedelta(seconds=4), error=lost_error(1)),
            id="a started job is charged and backs off",
        ),
        pytest.param(
            crash(started=True, attempt=1, crashes=1),
            AfterCrash(SettleKind.RETRY, 2, 0, after=timedelta(seconds=8), error=lost_error(2)),
            id="its second crash waits longer",
        ),
        pytest.param(
            crash(started=True, attempt=2, crashes=2),
            AfterCrash(SettleKind.BURY, 3, 0, error=lost_error(3), reason=ATTEMPTS_USED_UP),
            id="its last attempt is a dead letter",
        ),
        pytest.param(
            crash(started=True, numbers=ONCE),
            AfterCrash(SettleKind.BURY, 1, 0, error=lost_error(1), reason=ATTEMPTS_USED_UP),
            id="its only attempt is a dead letter",
        ),
        pytest.param(
            crash(started=True, lost=9),
            AfterCrash(SettleKind.RETRY, 1, 0, after=timedelta(seconds=4), error=lost_error(1)),
            id="a start ends the row of unstarted losses",
        ),
        pytest.param(
            crash(started=False),
            AfterCrash(SettleKind.RELEASE, 0, 1),
            id="an unstarted job goes back uncharged",
        ),
        pytest.param(
            crash(started=False, numbers=ONCE),
            AfterCrash(SettleKind.RELEASE, 0, 1),
            id="an unstarted job of one attempt goes back too",
        ),
        pytest.param(
            crash(started=False, attempt=2, crashes=2, lost=LOST_LIMIT - 2),
            AfterCrash(SettleKind.RELEASE, 2, LOST_LIMIT - 1),
            id="the ninth unstarted loss in a row still goes back",
        ),
        pytest.param(
            crash(started=False, lost=LOST_LIMIT - 1),
            AfterCrash(
                SettleKind.BURY,
                0,
                LOST_LIMIT,
                error=AttemptError(
                    attempt=0, type="taskharbor.WorkerLost", message=LOST_UNSTARTED, worker="w1"
                ),
                reason=LOST_UNSTARTED,
            ),
            id="the tenth ends it",
        ),
    ],
)
def test_what_reclaim_does(found: AfterCrash, expected: AfterCrash) -> None:
    assert expected == found


def test_the_limits_are_those_of_rule_four() -> None:
    assert (2, 10) == (SOLO_CRASHES, LOST_LIMIT)
    assert "lost with its worker 10 times in a row before it was started" == LOST_UNSTARTED


@steady
@given(
    started=st.booleans(),
    attempt=st.integers(0, 10),
    crashes=st.integers(0, 10),
    lost=st.integers(0, LOST_LIMIT - 1),
    most=st.integers(1, 10),
)
def test_a_crash_never_makes_a_job_vanish_and_counts_one_thing(
    *, started: bool, attempt: int, crashes: int, lost: int, most: int
) -> None:
    fate = crash(
        started=started,
        attempt=attempt,
        crashes=crashes,
        lost=lost,
        numbers=RetryNumbers(max_attempts=most),
    )

    assert fate.kind in (SettleKind.RETRY, SettleKind.RELEASE, SettleKind.BURY)
    assert (crashes + 1, 0) == (fate.crashes, fate.lost) if started else (crashes, lost + 1)
    assert (fate.error is not None) is (fate.kind is not SettleKind.RELEASE)
    assert (fate.after is not None) is (fate.kind is SettleKind.RETRY)
