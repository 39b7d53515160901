"""Codecs, layers and upgrades, as they are refused: each line marked `# E`, by every checker."""

from __future__ import annotations

from collections.abc import Mapping

from taskharbor import Codec, Harbor, JsonCodec, task
from taskharbor.codec.compression import ZstdCodec
from taskharbor.codec.encryption import EncryptedCodec, key_text, new_key, read_key


class Half:
    """No codec: it cannot read."""

    name = "half"

    def encoder(self) -> str:
        return ""


# --- layers --------------------------------------------------------------------------------------------------

codec: Codec = Half()  # E
ZstdCodec("json")  # E
ZstdCodec(JsonCodec)  # E
ZstdCodec(JsonCodec(), 100)  # E
ZstdCodec(level="high")  # E
ZstdCodec(limit=None)  # E
EncryptedCodec()  # E
EncryptedCodec(JsonCodec(), {"1": new_key()})  # E
EncryptedCodec(keys={"1": "secret"})  # E
EncryptedCodec(keys=[new_key()])  # E
EncryptedCodec(keys={1: new_key()})  # E
EncryptedCodec(keys={"1": new_key()}, active=1)  # E
Harbor("memory://", codec="json+zstd")  # E
read_key(new_key())  # E
key_text("secret")  # E


# --- upgrades ------------------------------------------------------------------------------------------------


def returns_nothing(arguments: dict[str, object]) -> None: ...


def takes_text(arguments: dict[str, str]) -> dict[str, object]:
    return {**arguments}


def takes_two(arguments: dict[str, object], version: int) -> dict[str, object]:
    return arguments


async def waits(arguments: dict[str, object]) -> dict[str, object]:
    return arguments


def numbered(arguments: dict[str, object]) -> Mapping[int, object]:
    return {}


task(upgrade=returns_nothing)  # E
task(upgrade=takes_text)  # E
task(upgrade=takes_two)  # E
task(upgrade=waits)  # E
task(upgrade=numbered)  # E
task(upgrade="upgrade")  # E
