"""Every command of the command line is run, on every store that processes share."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from taskharbor import Harbor
from taskharbor.cli.entry import app
from tests.support.chaos_stores import STORES, chaos_store
from tests.support.cli_tour import VISITS, Tour


@pytest.fixture(scope="module", params=STORES)
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """A store for all commands, one after the other."""
    with chaos_store(request.param, tmp_path_factory.mktemp("store")) as store:
        with Harbor(store.url) as harbor:
            harbor.queues.list()  # makes the tables
        yield store.url


@pytest.fixture
def tour(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Tour]:
    monkeypatch.setenv("COLUMNS", "200")
    made = Tour.through(monkeypatch, capsys, url, tmp_path)
    yield made
    _empty(made.harbor)
    made.harbor.close()


def _empty(harbor: Harbor) -> None:
    for queue in harbor.queues.list():
        harbor.queues.resume(queue.name)
    for hold in harbor.limits.holds():
        harbor.limits.lift(hold.scope)
    for limit in harbor.limits.list():
        harbor.limits.clear(limit.scope)
    for rule in [record.rule for record in harbor.retention.list()]:
        harbor.retention.remove(rule.state, task=rule.task)
    for record in harbor.schedules.list():
        harbor.schedules.delete(record.name, force=True)
    harbor.jobs.delete([job.id for job in harbor.jobs.find(limit=1000)])


def commands(group: TyperGroup, *before: str) -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, *before, name)
        else:
            yield " ".join([*before, name])


def every_command() -> list[str]:
    root = get_command(app)
    assert isinstance(root, TyperGroup)
    return list(commands(root))


@pytest.mark.parametrize("command", every_command())
def test_a_command_does_on_every_store_what_it_is_for(tour: Tour, command: str) -> None:
    assert command in VISITS, (
        f"`taskharbor {command}` is not tested: add a visit to tests/support/cli_tour.py"
    )

    VISITS[command](tour)


def test_nothing_is_visited_that_is_no_command() -> None:
    assert set(VISITS) <= set(every_command())
