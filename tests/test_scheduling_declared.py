"""Schedules that an application declares: in code, with tasks, in files; and what workers have stored of them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from taskharbor import (
    Context,
    DeploymentError,
    Harbor,
    MissingExtraError,
    OptionError,
    Registry,
    SyncTask,
    cron,
    every,
    group,
    task,
)
from taskharbor.clock import ManualClock
from taskharbor.codec.encryption import EncryptedCodec
from taskharbor.driver import Declared, DeclareStatus
from taskharbor.drivers.memory import MemoryDriver
from taskharbor.event import JobEnqueued
from tests.fixtures.support import untyped
from tests.support.work import ENOUGH, HOUR

HOURLY = every(HOUR)


class Shop:
    """An application with one task, on a store of its own."""

    def __init__(self, **options: object) -> None:
        self.registry = Registry()
        self.clock = ManualClock()
        self.driver = MemoryDriver(clock=self.clock)
        self.ran: list[tuple[str, int]] = []
        self.contexts: list[Context[None]] = []

        @task(registry=self.registry, name="report", queue="reports")
        def report(ctx: Context, region: str, pages: int = 1) -> None:
            self.contexts.append(ctx)
            self.ran.append((region, pages))

        self.report = report
        self.harbor = self.version(**options)

    def version(self, **options: object) -> Harbor:
        """Return a harbor on the same store with declarations of its own."""
        return Harbor(self.driver, registry=self.registry, **options)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    def names(self) -> list[str]:
        with self.version() as harbor:
            return [record.name for record in harbor.schedules.list()]


def test_a_declared_call_comes_with_each_tick_and_the_handler_knows_which() -> None:
    shop = Shop()
    shop.harbor.schedule(shop.report.options(priority=2).s("eu", pages=3), HOURLY, name="hourly")

    with shop.harbor as harbor:
        harbor.run_until_idle()
        shop.clock.advance(HOUR)
        harbor.run_until_idle()
        (job,) = harbor.jobs.find()

    assert [("eu", 3)] == shop.ran
    assert ("reports", 2) == (job.queue, job.priority)
    assert job.run_at == shop.contexts[0].tick
    assert shop.contexts[0].run_at == shop.contexts[0].tick


def test_a_schedules_own_queue_is_served_by_workers_of_its_application(tmp_path: Path) -> None:
    shop = Shop()
    file = tmp_path / "schedules.toml"
    file.write_text(
        "[[schedules]]\ntask = 'report'\nname = 'file'\nqueue = 'rare'\nevery = '1h'\narguments = {region = 'us'}"
    )
    shop.harbor.schedule(shop.report.options(queue="slow").s("eu"), HOURLY)
    shop.harbor.schedule_file(file)

    with shop.harbor as harbor:
        harbor.run_until_idle()
        shop.clock.advance(HOUR)
        harbor.run_until_idle()
        with harbor.worker_thread():
            (worker,) = harbor.workers.list()

    assert [("eu", 1), ("us", 1)] == sorted(shop.ran)
    assert ["default", "rare", "reports", "slow"] == list(worker.queues)


def test_who_listens_hears_of_the_jobs_of_ticks() -> None:
    shop = Shop()
    shop.harbor.schedule(shop.report.s("eu"), HOURLY)

    with shop.harbor as harbor, harbor.events(kinds=JobEnqueued) as heard:
        harbor.run_until_idle()
        shop.clock.advance(HOUR)
        harbor.run_until_idle()
        event = heard.get(ENOUGH)
        (job,) = harbor.jobs.find()

    assert isinstance(event, JobEnqueued)
    assert (job.id, "report", "reports") == (event.job_id, event.task, event.queue)


def test_a_job_of_no_schedule_has_no_tick() -> None:
    shop = Shop()

    with shop.harbor as harbor:
        shop.report.enqueue("eu")
        harbor.run_until_idle()

    assert shop.contexts[0].tick is None


def test_what_is_declared_no_more_is_removed_by_the_next_version_and_not_brought_back_by_the_old(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shop = Shop(application="shop")
    old, new = shop.version(application="shop"), shop.version(application="shop")
    old.schedule(shop.report.s("eu"), HOURLY, name="eu")
    old.schedule(shop.report.s("us"), HOURLY, name="us")
    new.schedule(shop.report.s("eu"), HOURLY, name="eu")

    with caplog.at_level(logging.INFO, "taskharbor.upkeep"), old, new:
        old.run_until_idle()
        assert ["shop/eu", "shop/us"] == shop.names()
        new.run_until_idle()
        assert ["shop/eu"] == shop.names()
        old.run_until_idle()
        assert ["shop/eu"] == shop.names()
        forced = old.declare_schedules(force=True)

    assert "schedules declared no more by application 'shop' were removed: shop/us" in caplog.text
    assert "generation 2 is there, and this worker's set was declared before it" in caplog.text
    assert "taskharbor schedules declare --force" in caplog.text
    assert "without a name" not in caplog.text
    assert (DeclareStatus.DECLARED, 3) == _told(forced)
    assert (["shop/us"], [], []) == (list(forced.added), list(forced.changed), list(forced.removed))


def test_applications_leave_one_another_alone() -> None:
    shop = Shop()
    one, other = shop.version(application="one"), shop.version(application="other")
    one.schedule(shop.report.s("eu"), HOURLY)
    other.schedule(shop.report.s("eu"), HOURLY)

    with one, other:
        one.run_until_idle()
        other.run_until_idle()

    assert ["one/report", "other/report"] == shop.names()


def test_two_applications_without_a_name_are_warned_of_each_other(caplog: pytest.LogCaptureFixture) -> None:
    shop = Shop()
    one, other = shop.version(), shop.version()
    one.schedule(shop.report.s("eu"), HOURLY, name="one")
    other.schedule(shop.report.s("eu"), HOURLY, name="other")

    with caplog.at_level(logging.WARNING, "taskharbor.upkeep"), one, other:
        for version in (one, other, one):
            version.run_until_idle()

    removed, stay = caplog.messages
    assert "were removed: default/one" in removed
    assert "generation 2 is there" in stay
    assert all("name them, by Harbor(application=...)" in said for said in (removed, stay))


def test_a_name_with_a_slash_is_found_without_its_applications() -> None:
    shop = Shop(application="shop")
    shop.harbor.schedule(shop.report.s("eu"), HOURLY, name="reports/daily")

    with shop.harbor as harbor:
        harbor.declare_schedules()
        found = harbor.schedules.get("reports/daily")

    assert "shop/reports/daily" == found.name


def test_a_named_application_with_no_schedule_left_removes_them_and_an_unnamed_asks_nothing() -> None:
    shop = Shop()
    first = shop.version()
    first.schedule(shop.report.s("eu"), HOURLY)

    with first, shop.version() as unnamed, shop.version(application="default") as named:
        first.run_until_idle()
        unnamed.run_until_idle()
        assert ["default/report"] == shop.names()
        named.run_until_idle()

    assert [] == shop.names()


def test_a_script_that_works_until_idle_declares_nothing_in_a_store_that_others_share(tmp_path: Path) -> None:
    registry = Registry()

    @task(registry=registry, name="report")
    def report() -> None: ...

    with (
        Harbor(f"sqlite:///{tmp_path}/jobs.db", registry=registry, application="shop") as shop,
        Harbor(f"sqlite:///{tmp_path}/jobs.db", registry=Registry(), application="shop") as script,
    ):
        shop.schedule(report.s(), HOURLY)
        shop.run_until_idle()
        assert [] == shop.schedules.list()
        with shop.worker_thread():
            declared = [record.name for record in shop.schedules.list()]
        script.run_until_idle()
        left = [record.name for record in shop.schedules.list()]

    assert ["shop/report"] == declared == left


def test_the_same_declarations_have_the_same_digest_whatever_encrypts_them() -> None:
    def version() -> Harbor:
        shop = Shop()
        harbor = shop.version(codec=EncryptedCodec(keys={"k": bytes(32)}))
        harbor.schedule(shop.report.s("eu"), cron("@daily"))
        return harbor

    with version() as one, version() as other:
        first, second = one.declared_schedules[0], other.declared_schedules[0]
        assert first.job.payload != second.job.payload
        digests = {one._declarations.request().digest, other._declarations.request().digest}  # pyright: ignore[reportPrivateUsage]

    assert 1 == len(digests)


def test_tasks_bring_schedules_of_their_own() -> None:
    registry = Registry()

    @task(registry=registry, name="sweep", schedule=[HOURLY, cron("0 3 * * *")])
    def sweep() -> None: ...

    with Harbor("memory://", registry=registry) as harbor:
        found = harbor.declared_schedules

    assert ["default/sweep", "default/sweep-2"] == [one.name for one in found]
    assert [HOURLY, cron("0 3 * * *")] == [one.schedule for one in found]
    assert isinstance(sweep, SyncTask)


def test_a_generation_that_is_given_decides() -> None:
    shop = Shop()
    newer, older = shop.version(generation=7), shop.version(generation=6)
    newer.schedule(shop.report.s("eu"), HOURLY)

    with newer, older:
        assert (DeclareStatus.DECLARED, 7) == _told(newer.declare_schedules())
        assert (DeclareStatus.OUTDATED, 7) == _told(older.declare_schedules())


def test_a_worker_tells_that_its_number_is_too_small_or_borne_by_another_set(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shop = Shop()

    with caplog.at_level(logging.WARNING, "taskharbor.upkeep"):
        for number, name in ((5, "one"), (4, "one"), (5, "one"), (5, "two")):
            with shop.version(application="shop", generation=number) as version:
                version.schedule(shop.report.s("eu"), HOURLY, name=name)
                version.run_until_idle()

    outdated, contested = caplog.messages
    assert "generation 5 is there, and this worker's is 4" in outdated
    assert "raise its generation" in outdated
    assert "two different sets of schedules of application 'shop' bear generation 5" in contested


def _told(declared: Declared) -> tuple[DeclareStatus, int]:
    return declared.status, declared.generation


TOML = """
[[schedules]]
name = "nightly"
task = "report"
cron = "30 2 * * *"
tz = "Europe/Paris"
misfire = "skip"
queue = "night"
priority = 1
description = "For accounting."
arguments = {region = "eu", pages = 2}

[[schedules]]
task = "report"
every = "1h30m"
arguments = {region = "us"}
"""
YAML = """
schedules:
  - name: nightly
    task: report
    cron: "30 2 * * *"
    tz: Europe/Paris
    misfire: skip
    queue: night
    priority: 1
    description: For accounting.
    arguments: {region: eu, pages: 2}
  - task: report
    every: 1h30m
    arguments:
      region: us
"""


@pytest.mark.parametrize(("name", "text"), [("jobs.toml", TOML), ("jobs.yaml", YAML)])
def test_a_file_declares_what_code_would(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    shop = Shop()
    by_file, by_hand = shop.version(), shop.version()
    by_file.schedule_file(tmp_path / name)
    by_hand.schedule(
        shop.report.options(queue="night", priority=1).s("eu", 2),
        cron("30 2 * * *", tz="Europe/Paris", misfire="skip"),
        name="nightly",
        description="For accounting.",
    )
    by_hand.schedule(shop.report.s("us"), every(timedelta(minutes=90)))

    with by_file, by_hand:
        assert by_hand.declared_schedules == by_file.declared_schedules
        assert (DeclareStatus.DECLARED, 1) == _told(by_hand.declare_schedules())
        assert (DeclareStatus.CURRENT, 1) == _told(by_file.declare_schedules())


def test_the_settings_name_a_file_and_an_application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jobs.toml").write_text(TOML)
    (tmp_path / "taskharbor.toml").write_text('application = "shop"\nschedules = "jobs.toml"\n')
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    with Shop().harbor as harbor:
        assert ["shop/nightly", "shop/report"] == [one.name for one in harbor.declared_schedules]


ENTRY = 'task = "report"\nevery = "1h"\narguments = {region = "eu"}\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (ENTRY + 'tzz = "UTC"', "schedules[0]: there is no key 'tzz' (did you mean 'tz'?)"),
        (
            'name = "a"\n' + ENTRY.replace("report", "reprot"),
            "schedules[0] 'a', task 'reprot': no task is named",
        ),
        (ENTRY.replace('"eu"', "3"), "arguments.region: Expected `str`, got `int`"),
        (ENTRY.replace('{region = "eu"}', "{}"), "missing required field `region`"),
        (ENTRY.replace("region", "regio"), "the task has no parameter 'regio' (did you mean 'region'?)"),
        (ENTRY.replace("1h", "60"), "every: '60' has no unit"),
        (ENTRY + "cron = '@daily'", "say when, by either `cron` or `every`"),
        (ENTRY.replace('every = "1h"', 'cron = "61 * * * *"'), "bad minute"),
        (ENTRY + "tz = 'Europe/Paris'", "tz: goes with `cron`"),
        (ENTRY + "priority = 'high'", "priority: expected `int | null`, got `str`"),
        (ENTRY + "priority = 10", "priority=10: expected 0 (first) to 9 (last)"),
        (ENTRY + "misfire = 'never'", "misfire: expected one of skip, once, catch_up, got 'never'"),
        (ENTRY.replace('"1h"', "5"), "every: expected a duration such as '5m', got 5"),
        (ENTRY + "start = 2030-01-01T06:00:00", "start: 2030-01-01T06:00:00 has no offset from UTC"),
        (
            ENTRY.replace('every = "1h"', 'cron = "0 0 30 2 *"'),
            "bad day-of-month; expected a day from 1 to 31",
        ),
        ("every = '1h'", "missing required field `task`"),
    ],
)
def test_a_wrong_entry_is_refused_with_file_entry_and_path(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "jobs.toml"
    path.write_text(f"[[schedules]]\n{text}\n")
    shop = Shop()
    shop.harbor.schedule_file(path)

    with shop.harbor as harbor, pytest.raises(OptionError) as caught:
        harbor.run_until_idle()

    assert str(caught.value).startswith(f"{path}: schedules[0]")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "kind", "told"),
    [
        ("jobs.toml", "x = ", DeploymentError, "is no TOML"),
        ("jobs.yml", "schedules: [", DeploymentError, "is no YAML"),
        ("jobs.yaml", "- report", OptionError, "expected a list named `schedules`, got list"),
        ("jobs.yaml", "!!python/object/apply:os.getcwd []", DeploymentError, "is no YAML"),
        ("jobs.toml", "schedule = []", OptionError, "no key 'schedule' (did you mean 'schedules'?)"),
        ("jobs.toml", "schedules = 3", OptionError, "expected a list of entries ([[schedules]] before each)"),
        ("jobs.ini", "", OptionError, "named *.toml, *.yaml or *.yml"),
        ("jobs.yaml", "schedules: [secret]", OptionError, "schedules[0]: expected a table with `task` and"),
        ("jobs.yaml", f"schedules: {'[' * 3000}{']' * 3000}", DeploymentError, "it is nested too deeply"),
        ("jobs.toml", f"schedules = {'[' * 3000}{']' * 3000}", DeploymentError, "it is nested too deeply"),
        ("jobs.yaml", f"schedules: {'9' * 5000}", DeploymentError, "is no YAML"),
        ("jobs.toml", f"schedules = {'9' * 5000}", DeploymentError, "is no TOML"),
        (
            "jobs.yaml",
            "schedules: [{task: a, arguments: &a {x: *a}}]",
            OptionError,
            "or stands within itself",
        ),
        (
            "jobs.yaml",
            "schedules: [{task: a, arguments: {x: [.nan]}}]",
            OptionError,
            "nan: expected a finite",
        ),
        (
            "jobs.toml",
            "schedules = [{task = 'a', meta = {x = -inf}}]",
            OptionError,
            "-inf: expected a finite",
        ),
    ],
)
def test_a_wrong_file_is_refused(
    tmp_path: Path, name: str, text: str, kind: type[Exception], told: str
) -> None:
    (tmp_path / name).write_text(text)
    harbor = Shop().harbor
    harbor.schedule_file(tmp_path / name)

    with harbor, pytest.raises(kind) as caught:
        _ = harbor.declared_schedules

    assert str(tmp_path / name) in str(caught.value)
    assert told in str(caught.value)
    assert "secret" not in str(caught.value).removeprefix(str(tmp_path))


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    harbor = Shop().harbor
    harbor.schedule_file(tmp_path / "none.toml")

    with harbor, pytest.raises(DeploymentError, match=r"none\.toml cannot be read: No such file"):
        _ = harbor.declared_schedules


def test_yaml_without_pyyaml_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jobs.yaml").write_text(YAML)
    monkeypatch.setitem(sys.modules, "yaml", None)
    harbor = Shop().harbor
    harbor.schedule_file(tmp_path / "jobs.yaml")

    with harbor, pytest.raises(MissingExtraError, match=r"pip install 'taskharbor\[yaml\]'"):
        _ = harbor.declared_schedules


def test_what_cannot_be_scheduled_is_refused_where_it_is_said() -> None:
    shop = Shop()
    report, harbor = shop.report, shop.harbor
    harbor.schedule(report.s("eu"), HOURLY, name="taken")

    with harbor:
        calls: list[tuple[Callable[[], object], str]] = [
            (lambda: untyped(harbor).schedule(report, HOURLY), "expected a signature"),
            (
                lambda: untyped(harbor).schedule(report.s("eu"), "@daily"),
                "expected what cron(...) or every(...)",
            ),
            (lambda: harbor.schedule(report.options(run_in=HOUR).s("eu"), HOURLY), "run_in was given"),
            (lambda: harbor.schedule(group(report.s("eu"), report.s("us")), HOURLY), "this is a flow"),
            (lambda: harbor.schedule(report.s("eu"), HOURLY, name="/x"), "no slash at its ends"),
            (lambda: harbor.schedule(report.s("eu"), HOURLY, name="taken"), "declared already"),
            (lambda: shop.version(application="a/b"), "expected no slash"),
            (
                lambda: shop.version(generation=0),
                "generation=0: expected a whole number from 1 to 9,007,199,254,740,991",
            ),
            (lambda: shop.version(generation=2**63), "expected a whole number from 1"),
        ]
        for call, told in calls:
            with pytest.raises(OptionError) as caught:
                call()
            assert told in str(caught.value)


def test_two_of_one_name_from_different_places_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "jobs.toml").write_text(f"[[schedules]]\n{ENTRY}")
    shop = Shop()
    shop.harbor.schedule(shop.report.s("eu"), HOURLY)
    shop.harbor.schedule_file(tmp_path / "jobs.toml")

    with shop.harbor as harbor, pytest.raises(OptionError) as caught:
        _ = harbor.declared_schedules

    assert "two schedules are named 'report': harbor.schedule(...), and" in str(caught.value)
