"""Codecs, layers and upgrades, as they are accepted.

`tests/test_typing.py` runs mypy, basedpyright, pyrefly and ty over it; `refused_payloads.py` is its counterpart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_type

from typing_extensions import override

from taskharbor import Codec, Harbor, JobHandle, JsonCodec, MsgpackCodec, task
from taskharbor.codec import Marked, WrappingCodec
from taskharbor.codec.compression import ZstdCodec
from taskharbor.codec.encryption import EncryptedCodec, key_text, new_key, read_key


class Shifting(WrappingCodec):
    """A layer needs three things."""

    @property
    @override
    def suffix(self) -> str:
        return "shift"

    @override
    def wrap(self, data: bytes) -> bytes:
        return data[1:] + data[:1]

    @override
    def unwrap(self, data: bytes) -> bytes:
        return data[-1:] + data[:-1]


# --- layers are codecs, and go around codecs -----------------------------------------------------------------

plain: list[Codec] = [JsonCodec(), MsgpackCodec(), ZstdCodec(), Shifting(), Shifting(MsgpackCodec())]
sealed: Codec = EncryptedCodec(ZstdCodec(Shifting()), keys={"1": new_key(), "2": read_key("")}, active="2")
marked: Marked = EncryptedCodec(keys={"1": new_key()}, suffix="aes-pay")
harbor = Harbor("memory://", codec=sealed, codecs=[ZstdCodec(level=9), *plain])
assert_type(ZstdCodec().over(MsgpackCodec()), ZstdCodec)
assert_type(ZstdCodec().inner, Codec)
assert_type(ZstdCodec(threshold=0, limit=1024).decoder(int)(b""), int)
assert_type(sealed.encoder()(1), bytes)
assert_type(key_text(new_key()), str)


# --- upgrades ------------------------------------------------------------------------------------------------


def in_place(arguments: dict[str, object]) -> dict[str, object]:
    arguments["to"] = [arguments["to"]]
    return arguments


def another(arguments: Mapping[str, object]) -> Mapping[str, list[str]]:
    return {"to": [str(arguments["to"])]}


@task(upgrade=in_place)
def first(to: list[str]) -> int:
    return len(to)


@task(upgrade=another, codec=sealed)
async def second(to: list[str], copies: int = 1) -> int:
    return len(to) * copies


@task(upgrade=lambda arguments: {**arguments, "copies": 1})
def third(to: list[str], copies: int) -> int:
    return len(to) * copies


@task(upgrade=None)
def fourth() -> None: ...


assert_type(first.enqueue(["a"]), JobHandle[int])
assert_type(third.enqueue(["a"], copies=2), JobHandle[int])
