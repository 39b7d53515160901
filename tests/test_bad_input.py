"""Bad input, one test each: every message says what was refused, where, and what to do next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pytest

from taskharbor import (
    BlockingCallError,
    Context,
    DeadlockError,
    DriverURLError,
    Harbor,
    JobFailed,
    JobState,
    MissingExtraError,
    NoHarborError,
    OptionError,
    PayloadError,
    Registry,
    Retry,
    TaskDefinitionError,
    TaskHarborError,
    UnknownTaskError,
    task,
)
from taskharbor.codec import JsonCodec
from taskharbor.driver import JobEnqueue
from taskharbor.job import NewJob, new_job_id
from tests.fixtures.support import untyped

registry = Registry()


@task(name="mail.send", registry=registry, retry=Retry.never)
def send(to: str, copies: int = 1) -> str:
    return to * copies


@task(name="mail.wait", registry=registry, retry=Retry.never)
def wait_for_another(job_id: str) -> str:
    return send.handle(job_id).result()


def payload_of(
    task_name: str, payload: bytes, *, codec: str = "json", fingerprint: int | None = None
) -> NewJob:
    return NewJob(
        id=new_job_id(),
        task=task_name,
        payload=payload,
        codec=codec,
        fingerprint=send.definition.fingerprint if fingerprint is None else fingerprint,
    )


def store(harbor: Harbor, job: NewJob) -> str:
    """Store a job as another program might have, past every check of ours."""
    (answer,) = harbor.ask(lambda opened: opened.job_enqueue(JobEnqueue(jobs=[job])))
    return answer.job_id


# --- at the caller


UNTYPED: Any = eval("lambda x: x")  # noqa: S307


def declare(fn: Any) -> object:
    return untyped(task(registry=Registry(), name="t"))(fn)


Refused: TypeAlias = tuple[Callable[[Harbor], object], type[TaskHarborError], str]
"""A call, the error it gives, and what that says."""

REFUSED: dict[str, Refused] = {
    "unknown task": (
        lambda harbor: harbor.task("mail.sned"),
        UnknownTaskError,
        r"no task is named 'mail.sned' \(did you mean 'mail.send'\?\); import the module that declares it, or keep",
    ),
    "wrong type": (
        lambda _: send.enqueue(untyped(5)),
        PayloadError,
        r"the arguments of task 'mail.send' do not fit its signature: Expected `str`, got `int` at \$\.to",
    ),
    "missing argument": (
        lambda _: untyped(send).enqueue(),
        PayloadError,
        r"task 'mail.send' cannot be called so: missing a required argument: 'to'; its signature is mail",
    ),
    "unknown argument": (
        lambda _: untyped(send).enqueue("a", copy=2),
        PayloadError,
        r"unexpected keyword argument 'copy'; its signature is mail.send\(to: str, copies: int = 1\) -> str",
    ),
    "no such scheme": (
        lambda _: Harbor("mysql://host"),
        DriverURLError,
        r"no driver answers to mysql:// \(known here: .*memory://.*entry point of the group 'taskharbor.drivers'",
    ),
    "no URL at all": (
        lambda _: Harbor("jobs.db"),
        DriverURLError,
        r"'jobs.db' is not a driver URL; expected SCHEME://..., such as memory://",
    ),
    "option out of range": (
        lambda _: send.options(priority=12),
        OptionError,
        r"priority=12: expected 0 \(first\) to 9 \(last\)",
    ),
    "option of the wrong kind": (
        lambda _: send.options(run_in=untyped(30)),
        OptionError,
        "run_in=30: expected a timedelta from 0 to 3650 days",
    ),
    "a flow's id by itself": (
        lambda harbor: harbor.flows.cancel("01a2"),
        OptionError,
        "ids='01a2': expected a list of ids, such as \\[handle.id\\]",
    ),
    "worker setting that is none": (
        lambda harbor: untyped(harbor).worker(concurency=5),
        OptionError,
        r"a worker has no setting 'concurency' \(did you mean 'concurrency'\?\); it has",
    ),
    "worker setting out of range": (
        lambda harbor: harbor.worker_thread(lease=timedelta(milliseconds=1)),
        OptionError,
        "lease=.*: expected a timedelta of at least 0.1 s",
    ),
    "worker queues as text": (
        lambda harbor: harbor.run_until_idle(queues="mail"),
        OptionError,
        "queues='mail': expected a list of one or more queue names, or None for all",
    ),
    "untyped parameter": (
        lambda _: declare(UNTYPED),
        TaskDefinitionError,
        "'t' is a lambda, whose parameters have no types; @task takes a function",
    ),
}


@pytest.mark.parametrize(("call", "error", "told"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_refused_with_what_to_do(
    call: Callable[[Harbor], object], error: type[TaskHarborError], told: str
) -> None:
    with Harbor("memory://", registry=registry) as harbor:
        with pytest.raises(error, match=told):
            call(harbor)

        assert 0 == len(harbor.jobs.find())


def test_an_enqueue_without_a_harbor() -> None:
    with pytest.raises(
        NoHarborError, match=r"task 'mail.send' .*`with Harbor\(...\) as harbor:`.*install\(\)"
    ):
        send.enqueue("a")


def test_a_blocking_call_on_a_running_loop() -> None:
    async def main() -> None:
        async with Harbor("memory://"):
            send.enqueue("a")

    with pytest.raises(
        BlockingCallError,
        match=r"mail.send.enqueue\(\) would block the running event loop; write `await mail.send.aenqueue\(...\)`",
    ):
        asyncio.run(main())


def test_a_missing_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "acme_taskharbor-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-taskharbor\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[taskharbor.drivers]\nacme = th_acme:open_driver\n")
    (tmp_path / "th_acme.py").write_text("import acme_client_that_is_not_there\n")
    untyped(monkeypatch).syspath_prepend(tmp_path)

    with pytest.raises(
        MissingExtraError,
        match=r"the driver for acme:// comes with acme-taskharbor, which needs the module "
        r"'acme_client_that_is_not_there' that is not installed; .*pip install 'acme-taskharbor\[acme\]'",
    ) as caught:
        Harbor("acme://host")

    assert "acme" == caught.value.extra


# --- in the worker


def test_a_result_asked_for_inside_a_handler() -> None:
    with Harbor("memory://", registry=registry) as harbor:
        other = send.options(run_in=timedelta(hours=1)).enqueue("a")
        handle = wait_for_another.enqueue(other.id)
        harbor.run_until_idle()

        with pytest.raises(JobFailed, match="dead letter after 1 attempt") as caught:
            handle.result()

    assert f"{DeadlockError.__module__}.DeadlockError" == caught.value.error_type
    assert "join them in a flow (chain, .then)" in caught.value.error_message


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        (b'{"to":5}', r"Expected `str`, got `int` at \$\.to"),
        (b"{}", "missing required field `to`"),
        (b'{"to":"a","cc":"b"}', "unknown field `cc`"),
        (b'{"to":', "Input data was truncated"),
        (b"\xff", "malformed|Invalid"),
    ],
)
def test_an_undecodable_payload_of_our_own_build_is_a_dead_letter_at_once(payload: bytes, told: str) -> None:
    with Harbor("memory://", registry=registry) as harbor:
        job_id = store(harbor, payload_of("mail.send", payload))
        harbor.run_until_idle()
        job = harbor.jobs.get(job_id)

        assert JobState.DEAD is job.state
        assert payload == job.payload
        with pytest.raises(JobFailed, match=told) as caught:
            send.handle(job_id).result()
        assert "mail.send" in str(caught.value)


@pytest.mark.parametrize(
    "job",
    [
        payload_of("mail.send", b'{"receiver":"a"}', fingerprint=1),
        payload_of("mail.send", b"...", codec="unheard-of"),
        payload_of("mail.unknown", b"{}"),
    ],
    ids=["another build's payload", "an unknown codec", "an unknown task"],
)
def test_what_another_build_may_understand_is_parked_and_says_why(job: NewJob) -> None:
    with Harbor("memory://", registry=registry) as harbor:
        job_id = store(harbor, job)
        harbor.run_until_idle()
        record = harbor.jobs.get(job_id)

    assert JobState.PARKED is record.state
    assert record.reason
    assert 0 == record.attempt


def test_a_signature_without_a_codec_names_parameter_type_and_remedy() -> None:
    class Socket: ...

    def talk(ctx: Context, socket: Socket) -> None: ...

    with pytest.raises(TaskDefinitionError) as caught:
        task(name="talk", registry=Registry())(talk)

    told = str(caught.value)
    for part in ("task 'talk'", "parameter 'socket'", "type Socket", "msgspec.Struct", "register_type"):
        assert part in told


def test_two_tasks_of_one_name_are_told_with_both_places() -> None:
    mine = Registry()

    def one(x: int) -> None: ...
    def other(x: int) -> None: ...

    task(name="same", registry=mine)(one)
    with pytest.raises(TaskDefinitionError) as caught:
        task(name="same", registry=mine)(other)

    for fn in (one, other):
        assert f"{Path(__file__).name}:{fn.__code__.co_firstlineno}" in str(caught.value)


def test_a_payload_error_carries_its_facts() -> None:
    class Deep(msgspec.Struct):
        rows: list[dict[str, int]]

    @task(name="deep", registry=Registry())
    def deep(value: Deep) -> None: ...

    with Harbor("memory://"), pytest.raises(PayloadError) as caught:
        deep.enqueue(Deep([{"a": 1}, {"b": untyped("2")}]))

    assert ("deep", "$.value.rows[1][...]") == (caught.value.task, caught.value.path)
    assert "Expected `int`, got `str`" == caught.value.reason


def test_a_stored_result_that_does_not_fit_is_told_as_a_payload_error() -> None:
    with pytest.raises(
        PayloadError, match=r"the result of task 'mail\.send' does not fit its signature: Expected"
    ):
        send.definition.read_result(b"5", JsonCodec())
