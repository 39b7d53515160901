"""`taskharbor flows`: steps that nobody takes, and flows without a name."""

from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta

import pytest

from taskharbor import chain, chord
from taskharbor.cli import stalled
from taskharbor.driver import WorkerAnnounce
from tests.test_cli_flows import Studio, studios


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Generator[Studio]:
    monkeypatch.setattr(stalled, "LONG", timedelta(0))
    yield from studios(monkeypatch, capsys, "memory://")


def announce(studio: Studio, queue: str, *tasks: str) -> None:
    """Put a worker on the register."""
    request = WorkerAnnounce(
        worker=f"on {queue}", queues=[queue], tasks=frozenset(tasks), build="b", ttl=timedelta(hours=1)
    )
    studio.harbor.ask(lambda store: store.worker_announce(request))


def test_a_step_that_nobody_serves_says_so_and_where_it_stands(alone: Studio) -> None:
    flow_id = alone.store(alone.brighten.options(queue="gpu").s(1).then(alone.resize))
    announce(alone, "default", "image.brighten")
    announce(alone, "gpu", "image.resize")

    assert [
        "○  image.brighten  ready  ID",
        "│    in the queue 'gpu'; no live worker serves it",
        "○  image.resize  waiting for 1  ID",
    ] == alone.drawn(flow_id)
    assert (
        "in the queue 'gpu'; no live worker serves it" in alone.run("flows", "show", flow_id, "--steps").out
    )


def test_of_a_served_step_the_queue_is_told_unless_it_is_the_default_one(alone: Studio) -> None:
    elsewhere = alone.store(alone.brighten.options(queue="gpu").s(1).then(alone.resize))
    here = alone.store(alone.brighten.s(1).then(alone.resize))
    announce(alone, "gpu", "image.brighten")
    announce(alone, "default", "image.brighten")

    assert "│    in the queue 'gpu'" == alone.drawn(elsewhere)[1]
    assert ["○  image.brighten  ready  ID", "○  image.resize  waiting for 1  ID"] == alone.drawn(here)


def test_of_many_the_stalled_ones_are_counted_by_queue(alone: Studio) -> None:
    members = [alone.resize.options(queue=queue).s(1) for queue in ("gpu", "default", "gpu") * 2]
    flow_id = alone.store(chord(members, alone.sheet))

    assert [
        "○  image.resize x 6  6 ready",
        "│    4 ready  in the queue 'gpu'; no live worker serves it",
        "│    2 ready  no live worker serves it",
        "○  image.sheet  waiting for 6  ID",
    ] == alone.drawn(flow_id)


def test_what_became_ready_a_moment_ago_is_not_told_of(
    alone: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stalled, "LONG", timedelta(hours=1))
    flow_id = alone.store(alone.brighten.options(queue="gpu").s(1).then(alone.resize))

    assert ["○  image.brighten  ready  ID", "○  image.resize  waiting for 1  ID"] == alone.drawn(flow_id)


def test_a_flow_without_a_name_is_listed_by_its_last_task(alone: Studio) -> None:
    alone.store(chain(alone.brighten.s(1), alone.resize))
    alone.store(chain(alone.brighten.s(1), alone.resize).configure(name="thumbs"))

    rows = [row.split() for row in alone.run("flows", "list").out.splitlines()[1:]]
    told = alone.run("flows", "list", "--json").lines()

    assert ["thumbs", "(image.resize)"] == [row[2] for row in rows]
    assert ["thumbs", ""] == [flow["name"] for flow in told]
