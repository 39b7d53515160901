"""Payloads written in the past are kept in `fixtures/payloads` and must be decoded for ever.

Never write these files anew to make a test pass: jobs like them are waiting in somebody's store. A new signature or
format gets a file of its own: `python -m tests.test_codec_payloads` writes those that are not there yet.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from taskharbor import Codec, JsonCodec, MsgpackCodec, Task
from tests.fixtures.payload_tasks import ARGUMENTS, grown, registry

FOLDER = Path(__file__).parent / "fixtures" / "payloads"
CODECS: list[Codec] = [JsonCodec(), MsgpackCodec()]


def file_of(declared: Task[..., None], codec: Codec) -> Path:
    return FOLDER / f"{declared.name.removeprefix('payloads.')}.{codec.name}"


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
@pytest.mark.parametrize(
    ("declared", "arguments"), [pytest.param(*row, id=row[0].name) for row in ARGUMENTS.items()]
)
def test_an_old_payload_is_still_decoded(
    declared: Task[..., None], arguments: dict[str, Any], codec: Codec
) -> None:
    decoded = declared.definition.coder(codec).decode_arguments(file_of(declared, codec).read_bytes())

    assert arguments == msgspec.structs.asdict(decoded)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
@pytest.mark.parametrize("declared", [declared for declared in ARGUMENTS if declared is not grown], ids=str)
def test_a_payload_is_still_written_as_it_was(declared: Task[..., None], codec: Codec) -> None:
    """Older workers read what newer producers write, during a rolling deploy."""
    old = file_of(declared, codec).read_bytes()
    coder = declared.definition.coder(codec)

    assert old == coder.encode(coder.decode_arguments(old))


def test_every_payload_kept_belongs_to_a_signature_and_every_signature_has_some() -> None:
    assert {file_of(declared, codec) for declared in ARGUMENTS for codec in CODECS} == set(FOLDER.iterdir())
    assert {declared.name for declared in ARGUMENTS} == registry.names()


def main() -> None:
    """Write the payloads that are not there yet."""
    for declared, arguments in ARGUMENTS.items():
        for codec in CODECS:
            path = file_of(declared, codec)
            if not path.exists():
                written = arguments if declared is not grown else {"to": arguments["to"]}
                path.write_bytes(codec.encoder()(written))


if __name__ == "__main__":
    main()
