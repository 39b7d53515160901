"""The spool: what was put in comes out, in order, as often as it is asked, however large."""

from __future__ import annotations

import os
from collections.abc import Iterator
from unittest import mock

import pytest

from taskharbor.job import NewJob
from taskharbor.workflow import spool
from taskharbor.workflow.spool import Spool
from taskharbor_conformance.bench import new_job


@pytest.fixture(autouse=True)
def small() -> Iterator[None]:
    """Let it put down what it holds, and read, in small parts."""
    with mock.patch.object(spool, "_HELD", 4), mock.patch.object(spool, "_READ", 1000):
        yield


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 8, 50])
def test_jobs_come_out_as_they_were_put_in(count: int) -> None:
    jobs = [new_job(payload=os.urandom(number * 37)) for number in range(count)]

    filled = _filled(jobs)

    assert jobs == list(filled)
    assert jobs == list(filled), "a second time"
    assert count == len(filled)


def test_two_readers_do_not_disturb_each_other() -> None:
    jobs = [new_job() for _ in range(10)]
    filled = _filled(jobs)

    pairs = list(zip(filled, filled, strict=True))

    assert [(job, job) for job in jobs] == pairs


def test_a_job_larger_than_what_is_read_at_once_comes_out() -> None:
    jobs = [new_job(payload=b"x" * 5000) for _ in range(9)]

    assert jobs == list(_filled(jobs))


def _filled(jobs: list[NewJob]) -> Spool:
    filled = Spool()
    for job in jobs:
        filled.add(job)
    return filled
