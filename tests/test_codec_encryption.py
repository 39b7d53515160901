"""Encryption as a layer around another codec: what is hidden, keys that change, and what cannot be read."""

from __future__ import annotations

import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import Literal

import pytest

from taskharbor import (
    Codec,
    CodecError,
    Failure,
    Harbor,
    JobState,
    JsonCodec,
    MissingExtraError,
    MsgpackCodec,
    OptionError,
    Registry,
    Retry,
    Success,
    chain,
    each,
    group,
    task,
)
from taskharbor.codec import CodecBook
from taskharbor.codec.compression import ZstdCodec
from taskharbor.codec.encryption import EncryptedCodec, key_text, new_key, read_key
from taskharbor.drivers.memory import MemoryDriver
from tests.fixtures.support import untyped

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
SECRET = "4111 1111 1111 1111"


def locked(codec: Codec, value: object = SECRET) -> bytes:
    return codec.encoder()(value)


def test_what_is_written_does_not_show_and_comes_back() -> None:
    codec = EncryptedCodec(keys={"2026-11": OLD})

    data = locked(codec)

    assert b"4111" not in data
    assert b"2026-11" in data
    assert SECRET == codec.decoder(str)(data)


def test_the_same_value_never_looks_the_same() -> None:
    codec = EncryptedCodec(keys={"1": OLD})

    assert 50 == len({locked(codec) for _ in range(50)})


def test_all_keys_read_and_the_active_one_writes() -> None:
    before = EncryptedCodec(keys={"old": OLD})
    during = EncryptedCodec(keys={"old": OLD, "new": NEW}, active="new")
    after = EncryptedCodec(keys={"new": NEW})

    assert SECRET == during.decoder(str)(locked(before))
    assert SECRET == after.decoder(str)(locked(during))


@pytest.mark.parametrize(
    ("keys", "told"), [({"new": NEW}, "with the key 'old', which is not here"), ({"old": NEW}, "another key")]
)
def test_a_missing_key_is_foreign(keys: dict[str, bytes], told: str) -> None:
    data = locked(EncryptedCodec(keys={"old": OLD}))

    with pytest.raises(CodecError, match=told) as refused:
        EncryptedCodec(keys=keys).decoder(str)(data)

    assert refused.value.foreign


def test_a_changed_value_is_not() -> None:
    codec = EncryptedCodec(keys={"1": OLD})
    data = locked(codec)

    with pytest.raises(CodecError, match="its seal does not fit") as refused:
        codec.decoder(str)(data[:-1] + bytes([data[-1] ^ 1]))

    assert not refused.value.foreign


def test_a_value_does_not_pass_for_one_of_another_codec() -> None:
    data = locked(EncryptedCodec(keys={"1": OLD}))

    with pytest.raises(CodecError, match="not written by msgpack"):
        EncryptedCodec(MsgpackCodec(), keys={"1": OLD}).decoder(str)(data)


def test_nothing_that_can_be_printed_has_a_key_in_it() -> None:
    codec = EncryptedCodec(keys={"1": OLD})

    assert "<EncryptedCodec json+aes, keys '1', active '1'>" == repr(codec)
    assert repr(OLD)[2:-1] not in f"{codec!r} {codec.mark} {vars(codec)}"
    assert OLD.hex() not in f"{codec!r} {codec.mark} {vars(codec)}"


@pytest.mark.parametrize(
    ("keys", "active", "told"),
    [
        ({}, None, "at least one key"),
        ({"1": OLD[:16]}, None, "the key '1' is 16 bytes; expected 32"),
        ({"1": key_text(OLD)}, None, "the key '1' is a str"),
        ({"": OLD}, None, "the id ''"),
        ({"a b": OLD}, None, "the id 'a b'"),
        ({"1": OLD}, "2", "active='2'"),
        ({"1": OLD, "2": NEW}, None, "which of the keys '1', '2'"),
    ],
)
def test_keys_that_cannot_be_are_refused_and_not_told(
    keys: dict[str, bytes], active: str | None, told: str
) -> None:
    with pytest.raises(OptionError, match=told) as refused:
        EncryptedCodec(keys=untyped(keys), active=active)

    assert key_text(OLD) not in str(refused.value)


@pytest.mark.parametrize("key", [OLD, OLD.hex(), key_text(OLD)], ids=["bytes", "hex", "base64"])
@pytest.mark.parametrize("place", ["keys", "ids", "active", "suffix"])
def test_a_key_in_a_wrong_place_is_not_told(key: str | bytes, place: str) -> None:
    keys: object = {"keys": key, "ids": {key: "1"}}.get(place, {"1": NEW})
    others = {place: key} if place in {"active", "suffix"} else {}

    with pytest.raises(OptionError) as refused:
        EncryptedCodec(keys=untyped(keys), **untyped(others))

    told = str(refused.value)
    assert not any(str(written) in told for written in (OLD, OLD.hex(), key_text(OLD), "30, 31"))


def test_keys_travel_as_text() -> None:
    key = new_key()

    assert 32 == len(key)
    assert key == read_key(key_text(key) + "\n")
    assert key != new_key()


@pytest.mark.parametrize("text", ["", "hunter2", "AAAA", "é" * 44])
def test_text_that_is_no_key_is_refused_and_not_told(text: str) -> None:
    with pytest.raises(OptionError, match="expected the base64 of 32 bytes") as refused:
        read_key(text)

    assert not text or text not in str(refused.value)


def test_a_missing_package_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)

    with pytest.raises(MissingExtraError, match=r"pip install 'taskharbor\[crypto\]'"):
        EncryptedCodec(keys={"1": OLD})


def test_threads_share_one_codec() -> None:
    codec = EncryptedCodec(keys={"1": OLD})
    encode, decode = codec.encoder(), codec.decoder(str)
    wrong: list[str] = []

    def work(letter: str) -> None:
        for length in range(1, 300):
            text = letter * length
            if text != decode(encode(text)):
                wrong.append(text)

    threads = [threading.Thread(target=work, args=(letter,)) for letter in "abcdef"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert [] == wrong


# --- what a harbor reads


def test_a_book_reads_what_its_layers_are_around_and_its_layers_around_all_else() -> None:
    book = CodecBook([EncryptedCodec(ZstdCodec(), keys={"1": OLD})])

    for name in ("json", "json+zstd", "json+aes", "json+zstd+aes", "msgpack+aes", "msgpack+zstd+aes"):
        found = book.find(name)
        assert found is not None
        assert name == found.name
        assert found is book.find(name)
    assert book.find("json+zlib") is None
    assert book.find("+aes") is None


def test_two_sets_of_keys_need_two_names() -> None:
    mine, theirs = EncryptedCodec(keys={"1": OLD}), EncryptedCodec(keys={"1": NEW})

    with pytest.raises(OptionError, match="two codecs are named 'json\\+aes'"):
        CodecBook([mine, theirs])

    assert ["json", "json+aes", "json+aes-pay", "msgpack"] == CodecBook(
        [mine, EncryptedCodec(keys={"1": NEW}, suffix="aes-pay")]
    ).names()


def test_a_task_with_other_keys_under_the_harbors_name_cannot_be_enqueued() -> None:
    @task(registry=Registry(), codec=EncryptedCodec(keys={"1": NEW}))
    def pay(amount: int) -> None: ...

    with (
        Harbor("memory://", registry=registry, codec=EncryptedCodec(keys={"1": OLD})) as harbor,
        pytest.raises(OptionError, match="two codecs are named 'json\\+aes'"),
    ):
        harbor.enqueue_many([pay.s(1)])


def test_a_build_with_other_keys_is_another_build() -> None:
    registry = Registry()

    builds = {
        registry.build(CodecBook([EncryptedCodec(keys=keys, active="1")]).abilities())
        for keys in ({"1": OLD}, {"1": NEW}, {"1": OLD, "2": NEW})
    }

    assert 3 == len(builds)


# --- jobs

registry = Registry()


@task(name="numbers", registry=registry)
def numbers(count: int) -> list[str]:
    return [f"{SECRET}/{n}" for n in range(count)]


@task(name="shout", registry=registry)
async def shout(text: str) -> str:
    return text.upper() + "!"


@task(name="joined", registry=registry)
def joined(parts: list[str]) -> str:
    return " ".join(parts)


@task(name="unfit square", registry=registry, run="process", retry=Retry(max_attempts=1))
def unfit_square() -> Literal["flu"]:
    wrong: Literal["flu"] = untyped(SECRET)
    return wrong


@task(name="squared", registry=registry, run="process")
def squared(n: int) -> int:
    return n * n


@task(name="broken", registry=registry, retry=Retry(max_attempts=1))
def broken(text: str) -> str:
    raise ValueError("no")


@task(name="told", registry=registry)
def told(part: Success[str] | Failure) -> str:
    return part.value if isinstance(part, Success) else "failed"


@task(name="stuck", registry=registry, retry=Retry(max_attempts=1))
def stuck(part: Success[str] | Failure) -> str:
    raise ValueError(type(part).__name__)


LAYERED: dict[str, Codec] = {
    "zstd": ZstdCodec(threshold=0),
    "aes": EncryptedCodec(keys={"1": OLD}),
    "msgpack, zstd, aes": EncryptedCodec(ZstdCodec(MsgpackCodec(), threshold=0), keys={"1": OLD}),
    "aes, zstd": ZstdCodec(EncryptedCodec(keys={"1": OLD}), threshold=0),
}


@pytest.mark.parametrize("codec", LAYERED.values(), ids=LAYERED)
@pytest.mark.parametrize("store", ["memory", "sqlite"])
def test_results_pass_from_step_to_step_in_layers(codec: Codec, store: str, tmp_path: Path) -> None:
    place = "memory://" if store == "memory" else f"sqlite:///{tmp_path}/jobs.db"
    with Harbor(place, registry=registry, codec=codec) as harbor:
        chained = chain(numbers.s(3), each(shout), joined).enqueue()
        listed = each(shout).s([SECRET, SECRET]).enqueue()
        members = shout.s(SECRET), broken.s(SECRET)
        tolerant = chain(group(*members, allow_failures=True), each(told), joined).enqueue()
        harbor.run_until_idle()

        patience = timedelta(seconds=30)
        assert " ".join(f"{SECRET}/{n}!" for n in range(3)) == chained.result(timeout=patience)
        assert [f"{SECRET}!"] * 2 == listed.result(timeout=patience)
        assert f"{SECRET}! failed" == tolerant.result(timeout=patience)
    if "aes" in codec.name:
        assert [] == [file.name for file in tmp_path.iterdir() if SECRET.encode() in file.read_bytes()]


def test_results_that_are_handed_out_one_by_one_stay_encrypted() -> None:
    with Harbor("memory://", registry=registry, codec=LAYERED["msgpack, zstd, aes"]) as harbor:
        chain(group(shout.s(SECRET), shout.s("b"), allow_failures=True), each(stuck)).enqueue()
        harbor.run_until_idle()

        dead = [harbor.jobs.get(job.id) for job in harbor.jobs.find(states=[JobState.DEAD])]
        inputs = [part for job in dead if job.step is not None for part in job.step.inputs]
        assert {"msgpack+zstd+aes"} == {part.codec for part in inputs}
        assert not any(SECRET.encode() in (part.value or b"") for part in inputs)
        assert Success(f"{SECRET}!") in [harbor.arguments_of(job)["part"] for job in dead]


def test_a_task_in_a_process_of_its_own_is_given_what_was_encrypted() -> None:
    with Harbor("memory://", registry=registry, codec=LAYERED["msgpack, zstd, aes"]) as harbor:
        job, wrong = squared.enqueue(12), unfit_square.enqueue()
        harbor.run_until_idle()

        assert "does not fit" in wrong.status().errors[-1].message
        assert SECRET not in str(wrong.status().errors)
        assert 144 == job.result(timeout=timedelta(seconds=30))


sender, receiver = Registry(), Registry()


@task(name="illness", registry=sender)
def illness_sent(illness: str) -> None: ...


@task(name="illness", registry=receiver)
def illness_received(illness: Literal["flu"]) -> None: ...


@task(name="kind", registry=sender)
def kind_sent(illness: str) -> None: ...


@task(name="kind", registry=receiver, upgrade=lambda stored: {"kind": int(str(stored["illness"]))})
def kind_received(kind: int) -> None: ...


@task(name="unfit", registry=receiver)
def unfit() -> Literal["flu"]:
    wrong: Literal["flu"] = untyped(SECRET)
    return wrong


@task(name="parts", registry=receiver)
def parts() -> list[str]:
    return [SECRET]


@task(name="same", registry=receiver)
def same(text: str) -> str:
    return text


@task(name="joined", registry=sender)
def joined_sent(parts: list[str]) -> None: ...


@task(name="joined", registry=receiver)
def joined_received(parts: list[Literal["flu"]]) -> None: ...


@pytest.mark.parametrize(
    "codec", [LAYERED["msgpack, zstd, aes"], LAYERED["aes, zstd"]], ids=["inside", "outside"]
)
def test_what_does_not_fit_is_told_without_quoting_what_is_encrypted(codec: Codec) -> None:
    with Harbor("memory://", registry=sender, codec=codec) as old:
        illness_sent.enqueue(SECRET)
        kind_sent.enqueue(SECRET)
        with Harbor(old.driver, registry=receiver, codec=codec) as harbor:
            unfit.enqueue()
            group(same.s(SECRET), same.s(SECRET)).then(untyped(joined_sent)).enqueue()
            harbor.run_until_idle()

            jobs = [harbor.jobs.get(job.id) for job in harbor.jobs.find()]

    told = [f"{job.reason} {job.errors}" for job in jobs if job.state in {JobState.PARKED, JobState.DEAD}]
    assert 4 == len(told)
    assert not any(SECRET in one for one in told)
    assert any("raised ValueError" in one for one in told)
    assert 2 == sum("at $.illness" in one or "at $.parts[0]" in one for one in told)


def test_what_is_wrong_with_types_is_told_of_encrypted_values_too() -> None:
    with pytest.raises(CodecError, match="Expected `int`, got `str`") as refused:
        LAYERED["aes"].decoder(list[int])(locked(LAYERED["aes"], [SECRET]))

    assert "$[0]" == refused.value.path


def test_the_log_says_which_key_a_job_waits_for_and_quotes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry, driver = Registry(), MemoryDriver()

    @task(registry=registry, name="pay")
    def pay(card: str) -> None:
        """Never run."""

    with Harbor(driver, registry=registry, codec=EncryptedCodec(keys={"old": OLD})):
        pay.enqueue(SECRET)

    with Harbor(driver, registry=registry, codec=EncryptedCodec(keys={"new": NEW})) as harbor:
        harbor.run_until_idle()
        (job,) = harbor.jobs.find()

    assert JobState.PARKED is job.state
    assert (
        "its payload cannot be read here: it is encrypted with the key 'old', which is not here"
        in caplog.text
    )
    assert "signature" not in job.reason
    assert SECRET not in caplog.text


def test_a_job_waits_for_a_worker_that_has_its_key() -> None:
    both = EncryptedCodec(keys={"old": OLD, "new": NEW}, active="new")
    with Harbor("memory://", registry=registry, codec=both) as harbor:
        job = shout.enqueue("hello")
        behind = Harbor(harbor.driver, registry=registry, codec=EncryptedCodec(keys={"old": OLD}))
        behind.run_until_idle()
        waiting = harbor.jobs.get(job.id)
        harbor.run_until_idle()

        assert JobState.PARKED is waiting.state
        assert "the key 'new', which is not here" in waiting.reason
        assert "HELLO!" == job.result(timeout=timedelta(seconds=30))


@pytest.mark.parametrize("after", [*LAYERED.values(), JsonCodec()], ids=[*LAYERED, "json"])
def test_adding_layers_strands_no_stored_job(after: Codec) -> None:
    sealing = EncryptedCodec(keys={"1": OLD})
    # What is taken away has to be named; what is added needs nothing.
    more = [] if "aes" in after.name else [sealing]
    harbor = Harbor("memory://", registry=registry, codec=after, codecs=more)
    with Harbor(harbor.driver, registry=registry, codec=sealing):
        sealed = shout.s("a").enqueue()
    with Harbor(harbor.driver, registry=registry):
        bare = shout.s("b").enqueue()
    with harbor:
        harbor.run_until_idle()

        jobs = [shout.handle(job.id) for job in (sealed, bare)]
        assert ["A!", "B!"] == [job.result(timeout=timedelta(seconds=30)) for job in jobs]


def test_a_key_that_is_not_set_is_told_so() -> None:
    with pytest.raises(OptionError, match="got None: is the variable set"):
        read_key(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
