"""One outcome that a real server refuses for ever: its neighbours are settled, and it becomes a dead letter."""

from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta

import pytest

pytest.importorskip("psycopg", reason="needs the extra `postgres`")

from taskharbor import Harbor, JobFailed, JobState, Registry, task
from taskharbor.job import PAYLOAD_LIMIT
from taskharbor.settlement import REFUSED
from taskharbor.worker import sifting
from tests.support.postgres import server
from tests.support.postgres_ground import Ground
from tests.support.work import ENOUGH, eventually, running

_REFUSE_LARGE_RESULTS = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF length(NEW.result) > 10000 THEN
        RAISE EXCEPTION 'canceling statement due to statement timeout' USING ERRCODE = '57014';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refuse BEFORE INSERT ON history FOR EACH ROW EXECUTE FUNCTION refuse();
"""
"""What a statement_timeout does to a result that takes too long to write."""


@pytest.fixture
def ground() -> Generator[Ground]:
    made = Ground(server().conninfo)
    try:
        yield made
    finally:
        made.remove()


def test_an_outcome_that_the_server_refuses_for_ever_stops_no_other(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sifting, "SHORTEST", timedelta(0))
    monkeypatch.setattr(sifting, "_LONGEST_SECONDS", 0.05)
    ground.do(_REFUSE_LARGE_RESULTS)
    registry = Registry()

    @task(registry=registry)
    async def work(size: int) -> str:
        return "x" * size

    with Harbor(ground.driver(), registry=registry) as harbor:
        jobs = harbor.enqueue_many([work.s(20_000 if number == 23 else number) for number in range(50)])
        bad = jobs[23]

        def others_work_and_it_is_dead() -> bool:
            assert "xx" == work.enqueue(2).result(ENOUGH)
            return bad.status().state is JobState.DEAD

        with harbor.worker_thread() as thread:
            eventually(others_work_and_it_is_dead, "the dead letter")
            counts = thread.worker.counts

        assert {JobState.SUCCEEDED} == {job.status().state for job in jobs if job is not bad}
        assert ([], 1, 0) == (running(harbor), counts.settled["dead"], counts.stale)
        with pytest.raises(JobFailed, match="statement timeout") as failed:
            bad.result(ENOUGH)
        assert (REFUSED, "taskharbor.OutcomeRefused", 1) == (
            failed.value.reason,
            failed.value.error_type,
            failed.value.attempts,
        )


def test_arguments_and_results_at_the_limit_come_back_whole(ground: Ground) -> None:
    registry = Registry()
    text = "x" * (PAYLOAD_LIMIT - len('{"text":""}'))

    @task(registry=registry)
    async def echo(text: str) -> str:
        return text[::-1]

    with Harbor(ground.driver(), registry=registry) as harbor:
        job = echo.enqueue(text)
        harbor.run_until_idle()

        assert text == job.result(ENOUGH)
