"""At no instant more jobs leased than a limit allows, and no rate exceeded, whoever is killed or stopped meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from taskharbor.job import JobState
from tests.support import limited
from tests.support.limited import Judged
from tests.support.limited_crowd import rehearse
from tests.support.postgres import server
from tests.support.postgres_ground import Ground


async def judge(url: str, jobs: int, seat: Callable[[], None], verdict: Callable[[], list[Judged]]) -> None:
    some, counted = await rehearse(url, jobs, seat)
    judged = verdict()

    most = limited.most_running(judged)
    assert {scope: count for scope, count in most.items() if count > (limited.bound(scope) or 0)} == {}
    assert any(count == limited.bound(scope) for scope, count in most.items()), "no limit was ever reached"
    assert limited.beyond_the_rate(judged) == []
    # A job that several crashes have met may be a dead letter; none is lost, and none is held for ever.
    assert sum(one.count for one in counted) == jobs
    assert sum(one.count for one in counted if one.state is JobState.SUCCEEDED) >= jobs * 0.9
    assert some.killed >= 3
    assert some.stopped >= 3


@pytest.mark.timeout(180)
@pytest.mark.parametrize("jobs", [400, pytest.param(6000, marks=pytest.mark.slow)])
def test_limits_hold_on_sqlite_whoever_is_killed(tmp_path: Path, jobs: int) -> None:
    path = f"{tmp_path}/jobs.db"
    asyncio.run(
        judge(
            f"sqlite:///{path}",
            jobs,
            lambda: limited.seat_sqlite(path),
            lambda: limited.verdict_sqlite(path),
        )
    )


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_limits_hold_on_postgres_whoever_is_killed() -> None:
    ground = Ground(server().conninfo)
    asyncio.run(
        judge(
            ground.url,
            1200,
            lambda: limited.seat_postgres(ground.conninfo, ground.schema),
            lambda: limited.verdict_postgres(ground.conninfo, ground.schema),
        )
    )
