"""`@task(upgrade=...)`: arguments that were stored under a former signature."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from datetime import date, timedelta
from functools import partial

import pytest
from typing_extensions import TypedDict, Unpack

from taskharbor import (
    Codec,
    Harbor,
    JobState,
    JsonCodec,
    MsgpackCodec,
    OptionError,
    PayloadError,
    Registry,
    Retry,
    chain,
    each,
    register_type,
    task,
)
from taskharbor.call import Call, Options, Signature
from taskharbor.codec.compression import ZstdCodec
from taskharbor.codec.encryption import EncryptedCodec
from taskharbor.task.upgrading import Upgrade, mark_of_upgrade
from tests.fixtures.support import untyped

PATIENCE = timedelta(seconds=30)


class Address:
    """Crosses the wire as text."""

    def __init__(self, text: str) -> None:
        if "@" not in text:
            raise ValueError(f"{text!r} is no address")
        self.text = text


register_type(Address, wire=str, encode=lambda address: address.text, decode=Address)


old = Registry()


@task(name="mail", registry=old)
def old_mail(to: str, copies: int = 1, due: date | None = None) -> str:
    raise AssertionError("the old version does not run here")


@task(name="addresses", registry=old)
def old_addresses() -> list[str]:
    raise AssertionError("the old version does not run here")


@task(name="address", registry=old)
def old_address() -> str:
    raise AssertionError("the old version does not run here")


def new_version(upgrade: Upgrade | None) -> Registry:
    registry = Registry()

    @task(name="mail", registry=registry, upgrade=upgrade, retry=Retry(max_attempts=1))
    def mail(to: list[Address], subject: str, due: date | None = None) -> str:
        return f"{subject} to {', '.join(one.text for one in to)} by {due}"

    @task(name="addresses", registry=registry)
    def addresses() -> list[str]:
        return ["a@b.c", "d@e.f"]

    @task(name="address", registry=registry)
    def address() -> str:
        return "a@b.c"

    return registry


def upgrade(arguments: dict[str, object]) -> dict[str, object]:
    if isinstance(arguments["to"], str):
        arguments["to"] = [arguments["to"]] * int(str(arguments.pop("copies")))
        arguments["subject"] = "hello"
    return arguments


CODECS: dict[str, Codec] = {
    "json": JsonCodec(),
    "msgpack": MsgpackCodec(),
    "layers": EncryptedCodec(ZstdCodec(MsgpackCodec(), threshold=0), keys={"1": bytes(32)}),
}


def version(upgrade: Upgrade | None, place: Harbor | None = None, codec: Codec | None = None) -> Harbor:
    """Return a harbor of the new version, on the same store as another."""
    return Harbor("memory://" if place is None else place.driver, registry=new_version(upgrade), codec=codec)


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_what_the_old_version_stored_runs_by_the_new_signature(codec: Codec) -> None:
    with Harbor("memory://", registry=old, codec=codec) as before:
        job = old_mail.enqueue("a@b.c", copies=2, due=date(2026, 1, 2))
        new = version(upgrade, before, codec)
        read = new.arguments_of(before.jobs.get(job.id))
        new.run_until_idle()

        assert "hello to a@b.c, a@b.c by 2026-01-02" == job.result(timeout=PATIENCE)
        assert ["to", "subject", "due"] == list(read)
        assert date(2026, 1, 2) == read["due"]


def test_what_the_new_version_stores_is_not_upgraded() -> None:
    def never(arguments: dict[str, object]) -> dict[str, object]:
        raise AssertionError(arguments)

    with version(never) as harbor:
        mail = harbor.task("mail")
        call: Signature[str] = Signature(Call(mail, mail.bind(([Address("x@y.z")], "hi"), {}), Options()))
        handle = call.enqueue()
        harbor.run_until_idle()

        assert "hi to x@y.z by None" == handle.result(timeout=PATIENCE)


def test_what_fits_as_it_is_needs_no_upgrade() -> None:
    """An upgrade knows the signatures that it was written for; those that came after may go on to change freely."""

    def from_first(arguments: dict[str, object]) -> dict[str, object]:
        return {"size": int(str(arguments["text"]))}

    second, third = Registry(), Registry()

    @task(name="x", registry=second, upgrade=from_first)
    def x_second(size: int) -> str:
        raise AssertionError("the third version runs it")

    @task(name="x", registry=third, upgrade=from_first)
    def x_third(size: int, note: str = "-") -> str:
        return f"{size} {note}"

    @task(name="size", registry=second)
    def size_second() -> int:
        raise AssertionError("the third version runs it")

    @task(name="size", registry=third)
    def size_third() -> int:
        return 4

    with Harbor("memory://", registry=second) as before:
        job = x_second.enqueue(3)
        flow = chain(size_second.s(), x_second).enqueue()
        after = Harbor(before.driver, registry=third)
        read = after.arguments_of(before.jobs.get(job.id))
        after.run_until_idle()

        assert {"size": 3, "note": "-"} == read
        assert ["3 -", "4 -"] == [one.result(timeout=PATIENCE) for one in (job, flow)]


def raising(arguments: dict[str, object]) -> dict[str, object]:
    raise KeyError("from")


def no_mapping(arguments: dict[str, object]) -> dict[str, object]:
    return untyped([arguments])  # type: ignore[no-any-return]


def unfit(arguments: dict[str, object]) -> dict[str, object]:
    return {"to": ["nobody"], "subject": "x"}


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (raising, "upgrade=raising raised KeyError: 'from'"),
        (no_mapping, "upgrade=no_mapping returned a list"),
        (unfit, "what upgrade=unfit returned does not fit: 'nobody' is no address at $.to[0]"),
    ],
)
def test_an_upgrade_that_fails_parks_the_job_until_a_corrected_one_comes(wrong: Upgrade, told: str) -> None:
    with Harbor("memory://", registry=old) as before:
        job = old_mail.enqueue("a@b.c")
        version(wrong, before).run_until_idle()
        parked = before.jobs.get(job.id)
        with pytest.raises(PayloadError) as unread:
            version(wrong, before).arguments_of(parked)
        version(upgrade, before).run_until_idle()

        assert JobState.PARKED is parked.state
        assert told in parked.reason
        assert told.removesuffix(" at $.to[0]") in str(unread.value)
        assert "hello to a@b.c by None" == job.result(timeout=PATIENCE)


def test_without_an_upgrade_the_job_waits_for_a_version_that_understands_it() -> None:
    with Harbor("memory://", registry=old) as before:
        job = old_mail.enqueue("a@b.c")
        version(None, before).run_until_idle()
        parked = before.jobs.get(job.id)
        version(upgrade, before).run_until_idle()

        assert JobState.PARKED is parked.state
        assert "hello to a@b.c by None" == job.result(timeout=PATIENCE)


def test_what_an_earlier_step_gave_is_upgraded_with_the_rest() -> None:
    with Harbor("memory://", registry=old) as before:
        flow = chain(old_address, old_mail).enqueue()
        fanned = chain(old_addresses, each(old_mail)).enqueue()
        version(upgrade, before).run_until_idle()

        assert "hello to a@b.c by None" == flow.result(timeout=PATIENCE)
        assert ["hello to a@b.c by None", "hello to d@e.f by None"] == fanned.result(timeout=PATIENCE)


def test_arguments_that_are_not_all_there_are_not_upgraded() -> None:
    with Harbor("memory://", registry=old) as before:
        flow = chain(old_address, old_mail).enqueue()

        with (
            closing(version(upgrade, before)) as new,
            pytest.raises(PayloadError, match="some of which come from steps of its flow"),
        ):
            new.arguments_of(new.jobs.get(flow.id))


def test_a_dead_letter_of_the_old_version_is_upgraded_when_it_is_requeued() -> None:
    broken = Registry()

    @task(name="mail", registry=broken, retry=Retry(max_attempts=1))
    def mail(to: str, copies: int = 1, due: date | None = None) -> str:
        raise ValueError("no")

    with Harbor("memory://", registry=broken) as before:
        job = mail.enqueue("a@b.c")
        before.run_until_idle()
        dead = before.jobs.get(job.id)
        with closing(version(upgrade, before)) as new:
            new.jobs.requeue([job.id])
            new.run_until_idle()

        assert JobState.DEAD is dead.state
        assert "hello to a@b.c by None" == job.result(timeout=PATIENCE)


async def coroutine(arguments: dict[str, object]) -> dict[str, object]:
    return arguments


@pytest.mark.parametrize("wrong", ["fn", 3, coroutine, divmod, str.join])
def test_what_cannot_be_called_with_arguments_is_refused(wrong: object) -> None:
    with pytest.raises(OptionError, match="expected a function from the stored arguments"):
        task(name="mail", registry=Registry(), upgrade=untyped(wrong))


def helper(arguments: dict[str, object]) -> dict[str, object]:
    return by_helper(arguments) if "again" in arguments else {}


def by_helper(arguments: dict[str, object]) -> dict[str, object]:
    return helper(arguments)


def test_an_upgrade_is_told_from_another_by_what_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def one(arguments: dict[str, object]) -> dict[str, object]:
        return {"a": 1, "b": "x" in {"x", "y"}}

    def same(arguments: dict[str, object]) -> dict[str, object]:
        return {"a": 1, "b": "x" in {"x", "y"}}

    def other(arguments: dict[str, object]) -> dict[str, object]:
        return {"a": 2, "b": "x" in {"x", "y"}}

    class Bound:
        def upgrade(self, arguments: dict[str, object]) -> dict[str, object]:
            return {"a": 3}

    def calling(helper: Upgrade) -> Upgrade:
        def upgrade(arguments: dict[str, object]) -> dict[str, object]:
            return {**helper(arguments)}

        return upgrade

    made: list[Upgrade] = [one, other, Bound().upgrade, dict, calling(one), calling(other), by_helper]

    before = mark_of_upgrade(by_helper)
    monkeypatch.setitem(by_helper.__globals__, "helper", other)

    assert before != mark_of_upgrade(by_helper)
    assert mark_of_upgrade(one) == mark_of_upgrade(same) == mark_of_upgrade(partial(one))
    assert mark_of_upgrade(calling(one)) == mark_of_upgrade(calling(same))
    assert len(made) == len({mark_of_upgrade(each) for each in made})
    assert "" == mark_of_upgrade(None)


class Size(TypedDict, total=False):
    width: int


class Box(TypedDict, total=False):
    width: int
    height: int


def among_keywords(**extra: int) -> None:
    raise AssertionError("the other version meets it")


def of_its_own(size: int = 0, **extra: int) -> None:
    raise AssertionError("it would be given twice")


def all_alike(*sizes: int) -> None:
    raise AssertionError("the other version meets it")


def with_a_first(first: int = 0, *sizes: int) -> None:
    raise AssertionError("the first of them would be the second")


def boxed(**box: Unpack[Box]) -> None:
    raise AssertionError("the other version meets it")


def sized(**box: Unpack[Size]) -> None:
    raise AssertionError("the height would be lost")


@pytest.mark.parametrize(
    ("stored", "given", "named", "meets", "told"),
    [
        (
            among_keywords,
            (),
            {"size": 5},
            of_its_own,
            "'size' is among **extra, and is a parameter of its own",
        ),
        (all_alike, (5, 6), {}, with_a_first, "there is none for 'first', which stands before them"),
        (boxed, (), {"width": 1, "height": 2}, sized, "'height' is none of **box"),
    ],
    ids=["keyword", "position", "typed keyword"],
)
def test_arguments_that_another_signature_would_take_for_others_are_left_to_it(
    stored: Callable[..., None],
    given: tuple[int, ...],
    named: dict[str, int],
    meets: Callable[..., None],
    told: str,
) -> None:
    first, second = Registry(), Registry()
    sent = task(name="x", registry=first)(stored)
    task(name="x", registry=second)(meets)
    with Harbor("memory://", registry=first) as place:
        job = sent.enqueue(*given, **named)
        Harbor(place.driver, registry=second).run_until_idle()
        parked = place.jobs.get(job.id)

        assert JobState.PARKED is parked.state
        assert told in parked.reason


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_keywords_and_positions_of_the_same_signature_arrive(codec: Codec) -> None:
    registry = Registry()

    @task(registry=registry)
    def pack(size: int, /, first: int = 0, *sizes: int, **extra: int) -> str:
        return f"{size} {first} {sizes} {extra}"

    @task(registry=registry)
    def three() -> int:
        return 3

    with Harbor("memory://", registry=registry, codec=codec) as harbor:
        plain = pack.enqueue(1, 2, 3, size=4)
        step = chain(three, lambda value: pack.s(value, 2, 3, size=4)).enqueue()
        harbor.run_until_idle()

        assert "1 2 (3,) {'size': 4}" == plain.result(timeout=PATIENCE)
        assert "3 2 (3,) {'size': 4}" == step.result(timeout=PATIENCE)
