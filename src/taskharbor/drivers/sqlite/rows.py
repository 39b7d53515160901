"""Between the words of the contract and what the tables hold.

Batches go in and out as JSON text beside one blob that holds all their payloads, end to end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from hashlib import blake2b
from operator import attrgetter
from typing import NamedTuple, TypeAlias, TypeVar

import msgspec

from taskharbor.clock import duration_micros
from taskharbor.driver import Rules
from taskharbor.drivers.sqlite.routine import Query, Routine, Row, Wakes
from taskharbor.job import NewJob
from taskharbor.retry import RetryNumbers

T = TypeVar("T")

SOLO, FRONT, NORMAL, WAITING = range(4)
"""Lanes of one priority, in order. In the last one stand steps that wait for others: no reserve looks there."""
LINES = 4
"""What is added to the lane of a job that stands in a line of its own task and partition (`lines`)."""
BATCH_BYTES = 16 << 20
"""Payloads in one statement, at most; a larger one goes alone. (SQLite's own limit is a thousand million bytes.)"""
INLINE_BYTES = 64 << 10
"""Payloads up to this size are read together in one blob; larger ones one by one."""
_CACHED = 1000

_encoder = msgspec.json.Encoder()


class Options(msgspec.Struct, frozen=True):
    """What jobs of one task have in common. Stored once, named by the digest of its own text."""

    codec: str
    fingerprint: int
    retry: RetryNumbers
    key_ttl: timedelta
    retain: timedelta
    keep_result: bool


_Shared: TypeAlias = tuple[str, int, RetryNumbers, timedelta, timedelta, bool]
_shared: Callable[[NewJob], _Shared] = attrgetter(*Options.__struct_fields__)
"""Return those fields of a job that make its `Options`."""


class OptionsBook:
    """Options by the number they are stored under. The number is a digest, so what is known stays true."""

    def __init__(self) -> None:
        self._known: dict[int, Options] = {}
        self._numbers: dict[Options, tuple[int, str, int]] = {}
        self._last: tuple[_Shared | None, tuple[int, str, int]] = None, (0, "", 0)
        self._decode = msgspec.json.Decoder(Options).decode
        self.rules: tuple[int, Rules] = -1, Rules({}, {})
        """What limits and holds were in force when they were last read, and the revision of that."""

    def number(self, job: NewJob) -> tuple[int, str, int]:
        """Return the number, text and retention of a job's options."""
        shared = _shared(job)
        last, found = self._last
        if shared == last:  # as with most jobs of one batch; comparing is quicker than hashing
            return found
        options = Options(*shared)
        known = self._numbers.get(options)
        if known is None:
            text = _encoder.encode(options)
            number = int.from_bytes(blake2b(text, digest_size=8).digest()) >> 1
            known = (number, text.decode(), duration_micros(job.retain))
            if len(self._numbers) >= _CACHED:
                self._numbers.clear()
            self._numbers[options] = known
        self._last = shared, known
        return known

    def fetch(self, numbers: Iterable[int]) -> Routine[dict[int, Options]]:
        """Return the options of these numbers, reading those not known yet."""
        wanted = set(numbers)
        missing = [number for number in wanted if number not in self._known]
        if missing:
            if len(self._known) >= _CACHED:
                self._known.clear()
                missing = list(wanted)
            rows = yield Query(
                "SELECT id, text FROM taskharbor_options WHERE id IN (SELECT value FROM json_each(?))",
                (json_text(missing),),
            )
            self._known.update((number, self._decode(text)) for number, text in rows)
        return {number: self._known[number] for number in wanted}


class Step(NamedTuple):
    """What a verb's routine works with."""

    now: int
    """The present, for this verb."""
    book: OptionsBook
    wakes: Wakes


def json_text(value: object) -> str:
    """Return a value as JSON."""
    return _encoder.encode(value).decode()


def read_json(rows: Sequence[Row], decoder: msgspec.json.Decoder[T]) -> T:
    """Return what the only cell of the only row holds as JSON."""
    return decoder.decode(rows[0][0])


TEXTS = msgspec.json.Decoder(list[str])
NUMBERS = msgspec.json.Decoder(list[int])


class Packed:
    """Byte strings laid end to end, so that one parameter carries those of a whole batch."""

    def __init__(self) -> None:
        self._parts: list[bytes] = [b"\x00"]  # SQLite takes a part of no bytes at all for NULL
        self.size = 1

    def add(self, data: bytes) -> tuple[int, int]:
        """Add bytes, and return where they begin (SQLite counts from 1) and how many they are."""
        place = (self.size + 1, len(data))
        self._parts.append(data)
        self.size += len(data)
        return place

    def blob(self) -> bytes:
        """Return all of them."""
        return b"".join(self._parts)


_meta = msgspec.json.Decoder(dict[str, str])


def read_meta(text: str | None) -> dict[str, str]:
    """Return a job's metadata."""
    return {} if text is None else _meta.decode(text)


def as_duration(value: int) -> timedelta:
    """Return microseconds as a timedelta, never negative."""
    return timedelta(microseconds=max(value, 0))
