"""Errors form the tree that their module draws, carry their facts, and cross processes."""

from __future__ import annotations

import ast
import copy
import pickle
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from taskharbor import errors
from taskharbor.codec import CodecError
from taskharbor.errors import (
    BlockingCallError,
    DriverURLError,
    DuplicateJob,
    JobCancelled,
    JobError,
    JobFailed,
    JobInterrupt,
    JobNotFound,
    JobTimeout,
    KeyConflict,
    LeaseLost,
    MissingExtraError,
    OptionError,
    PayloadError,
    PayloadTooLarge,
    ResultTimeout,
    ScheduleError,
    ScheduleNotFound,
    StoreUnavailable,
    TaskDefinitionError,
    TaskHarborError,
    UnknownTaskError,
    UnsupportedError,
    nearest,
)
from taskharbor.outcome import Reject, RetryLater, Snooze

WITH_FACTS: list[TaskHarborError] = [
    PayloadError("no", task="mail.send", path="$.to", reason="Expected `str`"),
    PayloadTooLarge("no", task="mail.send", size=17, limit=16),
    MissingExtraError("no", extra="redis"),
    JobError("no", job_id="1"),
    JobFailed(
        "no",
        job_id="1",
        task="mail.send",
        error_type="ValueError",
        error_message="bad",
        remote_traceback="Traceback",
        attempts=3,
        reason="attempts used up",
    ),
    JobCancelled("no", job_id="1"),
    JobNotFound("no", job_id="1"),
    JobTimeout("no", job_id="1"),
    ResultTimeout("no", job_id="1"),
    DuplicateJob("no", job_id="1"),
    KeyConflict("no", job_id="1", task="mail.send", key="k"),
    ScheduleError("no", name="nightly"),
    ScheduleNotFound("no", name="nightly"),
    RetryLater(timedelta(seconds=3), "busy"),
    Snooze(timedelta(seconds=3)),
    Reject("never"),
]
FACTLESS: list[TaskHarborError] = [
    kind("no")
    for kind in vars(errors).values()
    if isinstance(kind, type)
    and issubclass(kind, TaskHarborError)
    and not issubclass(kind, (PayloadError, JobError, ScheduleError))
]
ALL = [*WITH_FACTS, *FACTLESS]


def declared() -> dict[str, type[BaseException]]:
    return {
        name: kind
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, BaseException) and kind.__module__ == errors.__name__
    }


def drawn() -> Iterator[tuple[str, str]]:
    """Yield each class of the docstring's tree with the one it hangs from."""
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r" {4}((?:[|` ] {3})*)(?:(?:\|--|`--) )?([A-Z]\w+)(?: {2,}|$)", line)
        if found is None:
            continue
        depth = len(found[1]) // 4 + (1 if "--" in line[:16] and "-- " in line else 0)
        del above[depth:]
        if above:
            yield found[2], above[-1]
        above.append(found[2])


def test_the_tree_in_the_docstring_is_the_tree_of_classes() -> None:
    parents = {
        name: next(base.__name__ for base in kind.__bases__ if base in declared().values())
        for name, kind in declared().items()
        if kind not in (TaskHarborError, JobInterrupt)
    }

    assert dict(drawn()) == parents


def test_every_error_has_a_docstring_that_is_a_sentence() -> None:
    assert [
        name
        for name, kind in declared().items()
        if not (kind.__doc__ or "").strip().splitlines()[0].endswith(".")
    ] == []


@pytest.mark.parametrize("error", ALL, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickling_with_its_facts(error: TaskHarborError) -> None:
    back = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes

    assert type(error) is type(back)
    assert (str(error), error.args, vars(error)) == (str(back), back.args, vars(back))


@pytest.mark.parametrize("error", ALL, ids=lambda error: type(error).__name__)
def test_an_error_survives_copying(error: TaskHarborError) -> None:
    back = copy.copy(error)

    assert (type(error), str(error), vars(error)) == (type(back), str(back), vars(back))


def test_notes_survive_pickling() -> None:
    error = OptionError("no")
    error.add_note("seen in the morning")

    back = pickle.loads(pickle.dumps(error))  # noqa: S301

    assert ["seen in the morning"] == back.__notes__


def test_an_error_with_a_cause_can_be_pickled_although_the_cause_stays_behind() -> None:
    with pytest.raises(StoreUnavailable) as caught:
        raise StoreUnavailable("the store cannot be reached") from ConnectionRefusedError("no")

    back = pickle.loads(pickle.dumps(caught.value))  # noqa: S301

    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    assert "the store cannot be reached" == str(back)


def test_a_users_own_verdict_survives_pickling() -> None:
    error = _Gone("page")

    back = pickle.loads(pickle.dumps(error))  # noqa: S301

    assert (_Gone, "page", "page is gone") == (type(back), back.page, str(back))


class _Gone(Reject):
    def __init__(self, page: str) -> None:
        super().__init__(f"{page} is gone")
        self.page = page


def test_a_codec_error_survives_pickling_with_its_path() -> None:
    back = pickle.loads(pickle.dumps(CodecError("no", path="$.x", foreign=True)))  # noqa: S301

    assert ("no", "$.x", True) == (str(back), back.path, back.foreign)


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (TaskDefinitionError, TypeError),
        (OptionError, ValueError),
        (PayloadError, ValueError),
        (DriverURLError, ValueError),
        (MissingExtraError, ImportError),
        (UnknownTaskError, LookupError),
        (JobNotFound, LookupError),
        (JobTimeout, TimeoutError),
        (ResultTimeout, TimeoutError),
        (StoreUnavailable, ConnectionError),
    ],
)
def test_an_error_can_be_caught_as_the_builtin_it_resembles(
    kind: type[Exception], builtin: type[Exception]
) -> None:
    assert issubclass(kind, builtin)


def test_an_interrupt_passes_through_except_exception() -> None:
    assert not issubclass(JobInterrupt, Exception)


def test_a_lost_lease_and_a_missing_job_are_told_apart() -> None:
    assert not issubclass(LeaseLost, JobError)
    assert not issubclass(JobNotFound, errors.StoreError)


def test_facts_can_be_read_as_attributes() -> None:
    error = KeyConflict("taken", job_id="7", task="mail.send", key="k")

    assert ("7", "mail.send", "k") == (error.job_id, error.task, error.key)


def test_a_payload_error_without_a_reason_gives_its_message_as_one() -> None:
    error = PayloadError("does not fit", task="t")

    assert ("$", "does not fit") == (error.path, error.reason)


def test_a_near_name_is_suggested_and_a_far_one_is_not() -> None:
    assert " (did you mean 'mail.send'?)" == nearest("mail.sned", ["mail.send", "shop.label"])
    assert "" == nearest("xyz", ["mail.send"])
    assert "" == nearest("xyz", [])


def test_no_error_is_raised_without_a_message() -> None:
    """Every `raise SomeError(...)` of the library gives text; a bare class tells nobody what to do."""
    names = set(declared())
    bare = [
        f"{path.name}:{node.lineno}"
        for path in Path(errors.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Raise) and _called(node) in names and not _arguments(node)
    ]

    assert bare == []


def _called(node: ast.Raise) -> str:
    raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
    return raised.id if isinstance(raised, ast.Name) else ""


def _arguments(node: ast.Raise) -> bool:
    return isinstance(node.exc, ast.Call) and bool(node.exc.args)


def test_an_unknown_capability_error_names_the_driver_and_what_it_can() -> None:
    from taskharbor.driver import Capability, require
    from taskharbor.drivers.memory import MemoryDriver

    with pytest.raises(
        UnsupportedError, match=r"'memory' does not offer 'shared', which a second process needs .*blocking"
    ):
        require(MemoryDriver(), Capability.SHARED, "a second process")


def test_a_blocking_call_error_is_a_usage_error() -> None:
    assert issubclass(BlockingCallError, errors.UsageError)
