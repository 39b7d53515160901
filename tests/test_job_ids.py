"""Job ids sort by the time they were made, and neither they nor lease tokens repeat."""

from __future__ import annotations

import os
import re
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

from taskharbor.job import new_job_id, new_job_ids, new_token
from tests.fixtures.support import fork


def test_an_id_is_a_uuid_of_version_7() -> None:
    text = new_job_id()

    made = uuid.UUID(text)
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", text)
    assert (7, uuid.RFC_4122, text) == (made.version, made.variant, str(made))


def test_an_id_begins_with_the_millisecond_it_was_made_in() -> None:
    before = time.time_ns() // 1_000_000

    stamp = uuid.UUID(new_job_id()).int >> 80

    assert before <= stamp <= time.time_ns() // 1_000_000 + 1


def test_a_hundred_thousand_ids_in_a_row_only_grow() -> None:
    ids = [new_job_id() for _ in range(100_000)]

    assert all(one < other for one, other in pairwise(ids))


def test_ids_made_together_grow_and_stand_between_those_made_before_and_after() -> None:
    before = new_job_id()

    together = new_job_ids(10_000)
    after = new_job_id()

    ids = [before, *together, after]
    assert 10_002 == len(ids)
    assert all(one < other for one, other in pairwise(ids))
    assert {7} == {uuid.UUID(text).version for text in together}


def test_no_ids_are_an_empty_list_and_hold_up_no_later_one() -> None:
    before = new_job_id()

    assert [] == new_job_ids(0)

    assert before < new_job_id()


def test_ids_made_by_many_threads_are_distinct_and_grow_in_each() -> None:
    def make(_: int) -> list[str]:
        return [new_job_id() for _ in range(5_000)]

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(make, range(8)))

    assert 40_000 == len({text for ids in made for text in ids})
    assert all(ids == sorted(ids) for ids in made)


def test_ids_grow_while_the_machines_clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    first = new_job_id()
    now = time.time_ns()
    monkeypatch.setattr("taskharbor.job.time.time_ns", lambda: now - 3_600_000_000_000)

    later = [new_job_id() for _ in range(5_000)]

    assert [first, *later] == sorted({first, *later})


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_makes_other_ids_than_its_parent() -> None:
    new_job_id()
    reader, writer = os.pipe()
    child = fork()
    if child == 0:  # pragma: no cover - the other process
        os.write(writer, "\n".join(new_job_id() for _ in range(200)).encode())
        os._exit(0)
    os.close(writer)
    mine = [new_job_id() for _ in range(200)]
    with os.fdopen(reader) as pipe:
        theirs = pipe.read().split("\n")
    _, status = os.waitpid(child, 0)

    assert 0 == status
    # The random part alone: the time differs anyhow.
    assert 400 == len({text[19:] for text in (*mine, *theirs)})


def test_a_token_is_a_random_number_of_63_bits() -> None:
    tokens = [new_token() for _ in range(4_000)]

    assert 4_000 == len(set(tokens))
    assert all(0 <= token < 2**63 for token in tokens)
    # Every bit is used: 4000 draws that leave one of 63 alike do not happen.
    union, common = 0, 2**63 - 1
    for token in tokens:
        union, common = union | token, common & token
    assert (2**63 - 1, 0) == (union, common)


def test_a_token_fits_the_signed_integers_of_every_store() -> None:
    assert sys.maxsize == 2**63 - 1
    assert new_token() <= sys.maxsize
