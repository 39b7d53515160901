"""Jobs as the parameters of a statement: in parts that one can take, and what many have in common sent once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from operator import attrgetter

from taskharbor.clock import duration_micros
from taskharbor.drivers.postgres.routine import Cell, nullable_array, plain_array, text_array
from taskharbor.drivers.postgres.rows import BATCH_BYTES, OptionsBook
from taskharbor.job import NewJob

ROWS = 2000
"""Jobs in one statement, at most."""
BATCH = """batch AS MATERIALIZED (SELECT $2::text::text[] AS task, $3::text::text[] AS queue,
    $4::text::text[] AS options, $5::text::smallint[] AS priority, $6::text::bigint[] AS retain,
    $7::text::bigint[] AS timeout, $8::text::boolean[] AS guarded)"""
"""What `Batches.cells` are read as."""
WORDS = """b.task[s.batch], b.queue[s.batch], b.options[s.batch], b.priority[s.batch], b.retain[s.batch],
        b.timeout[s.batch], b.guarded[s.batch]"""
"""A job's, where `s.batch` is its number."""


def bulky(jobs: Sequence[NewJob]) -> bool:
    """Return whether it takes more than one statement to store them."""
    return len(jobs) > ROWS or sum([len(job.payload) for job in jobs]) > BATCH_BYTES


def parts(jobs: Sequence[NewJob]) -> Iterator[Sequence[NewJob]]:
    """Yield jobs in parts that one statement can take."""
    if not bulky(jobs):
        if jobs:
            yield jobs
        return
    part: list[NewJob] = []
    size = 0
    for job in jobs:
        if part and (len(part) >= ROWS or size + len(job.payload) > BATCH_BYTES):
            yield part
            part, size = [], 0
        part.append(job)
        size += len(job.payload)
    yield part


def payload_cells(jobs: Sequence[NewJob]) -> tuple[str, str, bytes]:
    """Return where each payload begins, from 1, how long it is, and all of them."""
    payloads = [job.payload for job in jobs]
    sizes = [len(payload) for payload in payloads]
    return plain_array(accumulate(sizes[:-1], initial=1)), plain_array(sizes), b"".join(payloads)


def digest_text(job: NewJob) -> str:
    """Return the digest of a job with a key, as it stands in an array."""
    return job.digest.hex() or '""'


_words: Callable[[NewJob], tuple[object, ...]] = attrgetter(
    "task",
    "queue",
    "codec",
    "fingerprint",
    "retry",
    "key_ttl",
    "keep_result",
    "priority",
    "retain",
    "timeout",
)
"""Return what jobs of one batch have in common."""


class Batches:
    """The words that jobs of one statement have in common, each kind of them once."""

    def __init__(self, book: OptionsBook) -> None:
        self._book = book
        self._numbers: dict[tuple[object, ...], int] = {}
        self._jobs: list[NewJob] = []
        self._last: tuple[tuple[object, ...] | None, int] = None, 0

    def number(self, job: NewJob) -> int:
        """Return the number of the batch that a job is of, from 1."""
        words = _words(job)
        last, number = self._last
        if words == last:  # comparing is quicker than hashing
            return number
        number = self._numbers.setdefault(words, len(self._jobs) + 1)
        if number > len(self._jobs):
            self._jobs.append(job)
        self._last = words, number
        return number

    def cells(self) -> list[Cell]:
        """Return the parameters `$2` to `$8`."""
        jobs = self._jobs
        return [
            text_array([job.task for job in jobs]),
            text_array([job.queue for job in jobs]),
            text_array([self._book.text(job) for job in jobs]),
            plain_array([job.priority for job in jobs]),
            plain_array([duration_micros(job.retain) for job in jobs]),
            nullable_array([None if job.timeout is None else duration_micros(job.timeout) for job in jobs]),
            # Its one attempt must not be spent unseen (rule 4).
            plain_array([job.retry.max_attempts == 1 for job in jobs]),
        ]

    def key_ttls(self) -> str:
        """Return how long each batch's keys stay taken after the job has ended."""
        return plain_array([duration_micros(job.key_ttl) for job in self._jobs])
