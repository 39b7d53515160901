"""A process that exists for one worker: its signals, its lifeline, its recycling, its end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from taskharbor import (
    Context,
    Harbor,
    JobState,
    LifespanError,
    Registry,
    Retry,
    StoreUnavailable,
    UnusableStoreError,
    task,
)
from taskharbor.cli import serving
from taskharbor.cli.serving import serve
from taskharbor.driver import Store
from taskharbor.drivers.memory import MemoryDriver
from taskharbor.supervisor import LIFELINE_VARIABLE, Exit
from taskharbor.supervisor.memory import resident_bytes
from taskharbor.worker import Worker, WorkerSettings, patience
from tests.fixtures.support import SOURCES, untyped
from tests.support.led import Event, Led, lives
from tests.support.work import (
    ENOUGH,
    LEASE,
    MS,
    SECOND,
    TroubledDriver,
    aeventually,
    eventually,
    fails,
    states,
    threads_named,
)

IDLE = timedelta(0)


def serve_here(
    harbor: Harbor,
    *,
    until_idle: timedelta | None = None,
    max_jobs: int | None = None,
    max_memory: int | None = None,
    concurrency: int = 2,
    grace: timedelta = ENOUGH,
    halt: timedelta = ENOUGH,
) -> int:
    """Serve in this process, with room for what a test does to it."""
    settings = WorkerSettings(concurrency=concurrency, lease=LEASE, grace=grace, halt=halt)
    return serve(harbor, settings, until_idle=until_idle, max_jobs=max_jobs, max_memory=max_memory)


def signal_here(*numbers: signal.Signals) -> None:
    """Send this very process signals, as an operator would."""
    for number in numbers:
        os.kill(os.getpid(), number)


@contextmanager
def supervised() -> Generator[socket.socket]:
    """Stand in for a supervisor; yields its end of the lifeline."""
    ours, theirs = socket.socketpair()
    # The worker owns its end, and closes it.
    os.environ[LIFELINE_VARIABLE] = str(theirs.detach())
    try:
        with ours:
            ours.settimeout(ENOUGH.total_seconds())
            yield ours
    finally:
        os.environ.pop(LIFELINE_VARIABLE, None)


@pytest.fixture(autouse=True)
def signals_stay() -> Generator[None]:
    """Fail if a signal's handler is left behind."""
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    yield
    assert before == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[str, int], bool]:
    """Return a question: whether the worker has logged so many lines that contain this."""
    caplog.set_level(logging.INFO, "taskharbor")
    return lambda text, times: sum(text in line for line in caplog.messages) == times


Said = Callable[[str, int], bool]


# --- ending


def test_until_idle_it_works_and_ends() -> None:
    """Then it is done, with code 0."""
    registry, done = Registry(), list[int]()

    @task(registry=registry)
    async def work(number: int) -> None:
        done.append(number)

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        harbor.enqueue_many([work.s(number) for number in range(20)])

        assert Exit.OK == serve_here(harbor, until_idle=IDLE)

    assert list(range(20)) == sorted(done)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_first_signal_drains(number: signal.Signals, said: Said) -> None:
    """What runs ends well, what has not started stays for others."""
    registry = Registry()

    @task(registry=registry)
    async def work() -> None:
        signal_here(number)
        await aeventually(lambda: said(f"{number.name}: worker", 1))

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        harbor.enqueue_many([work.s() for _ in range(5)])

        assert Exit.OK == serve_here(harbor, concurrency=1)

        assert {"succeeded": 1, "ready": 4} == states(harbor)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_the_second_signal_halts_and_the_third_does_nothing_more(second: signal.Signals, said: Said) -> None:
    """What runs is cancelled and handed back with its attempt."""
    registry = Registry()

    @task(registry=registry)
    async def work() -> None:
        signal_here(signal.SIGTERM)
        await aeventually(lambda: said("drains", 1))
        signal_here(second)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            signal_here(second)
            await aeventually(lambda: said(f"{second.name}: worker", 3 if second == signal.SIGTERM else 2))
            raise

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        job = work.enqueue()

        assert Exit.OK == serve_here(harbor)

        assert (JobState.READY, 0) == (job.status().state, job.status().attempt)


def test_a_worker_told_to_end_while_it_starts_runs_nothing(said: Said) -> None:
    """It finishes its start, and drains."""
    registry = Registry()

    @task(registry=registry)
    async def work() -> None:
        raise AssertionError

    @asynccontextmanager
    async def deps() -> AsyncGenerator[int]:
        signal_here(signal.SIGTERM)
        await aeventually(lambda: said("drains", 1))
        yield 1

    with Harbor(MemoryDriver(), registry=registry, deps=deps) as harbor:
        work.enqueue()

        assert Exit.OK == serve_here(harbor)

        assert {"ready": 1} == states(harbor)


def test_a_start_that_hangs_is_given_up_by_the_second_signal(said: Said) -> None:
    """What it has built is closed."""
    closed = list[bool]()

    @asynccontextmanager
    async def deps() -> AsyncGenerator[int]:
        try:
            signal_here(signal.SIGTERM)
            await aeventually(lambda: said("drains", 1))
            signal_here(signal.SIGTERM)
            await asyncio.Event().wait()
            yield 1
        finally:
            closed.append(True)

    with Harbor(MemoryDriver(), registry=Registry(), deps=deps) as harbor:
        assert Exit.OK == serve_here(harbor)

    assert [True] == closed
    assert said("halted before the worker had started", 1)


def test_a_handler_that_would_not_end_is_told_by_the_code(said: Said) -> None:
    """Its job stays leased."""
    registry, release = Registry(), threading.Event()

    @task(registry=registry)
    def work() -> None:
        signal_here(signal.SIGTERM)
        release.wait()  # a C call: no interrupt is seen before it returns

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        job = work.enqueue()
        try:
            assert Exit.UNFINISHED == serve_here(harbor, grace=IDLE, halt=MS)

            assert job.status().state is JobState.RUNNING
        finally:
            release.set()
        eventually(lambda: job.status().state is not JobState.RUNNING)


def test_why_it_cannot_start_is_raised() -> None:
    """The command line makes exit codes of it."""
    registry = Registry()

    @task(registry=registry)
    async def work(ctx: Context[str]) -> None:
        """Needs dependencies that nobody builds."""

    with Harbor(MemoryDriver(), registry=registry) as harbor, pytest.raises(LifespanError):
        serve_here(harbor)
    driver = TroubledDriver()
    driver.before = fails(1000, "worker_announce")
    with Harbor(driver, registry=Registry()) as harbor, pytest.raises(StoreUnavailable):
        serve_here(harbor, until_idle=IDLE)


class Absent(TroubledDriver):
    """A store that comes up later than its worker."""

    def __init__(self, refusals: int) -> None:
        super().__init__()
        self.refusals = refusals

    def connect(self) -> AbstractAsyncContextManager[Store]:
        if self.refusals > 0:
            self.refusals -= 1
            raise StoreUnavailable("nobody listens there")
        return super().connect()


@pytest.mark.parametrize("verb", ["connect", "worker_announce", "the keeper's connect"])
def test_a_store_that_is_away_at_the_start_is_waited_for(
    verb: str, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As later on. It is told once, and once more when the store is there."""
    monkeypatch.setattr(patience, "_FIRST_SECONDS", 0.001)
    registry, driver, built = Registry(), Absent(3 if verb == "connect" else 0), list[bool]()
    driver.before = fails(3, verb)

    @asynccontextmanager
    async def deps() -> AsyncGenerator[None]:
        built.append(True)
        yield

    @task(registry=registry)
    async def work() -> None:
        signal_here(signal.SIGTERM)
        await aeventually(lambda: said("SIGTERM: worker", 1))

    def then_refuse_the_keeper(asked: str, request: object) -> None:
        if verb == "the keeper's connect" and asked == "worker_announce":
            driver.refusals = 3

    driver.after = then_refuse_the_keeper
    with Harbor(driver, registry=registry, deps=deps) as harbor:
        refusals, driver.refusals = driver.refusals, 0
        work.enqueue()
        driver.refusals = refusals

        assert Exit.OK == serve_here(harbor)

        assert {"succeeded": 1} == states(harbor)
    assert [True] == built
    assert said("the store cannot be reached; the worker starts when it can: ", 1)
    assert said("the store can be reached now", 1)
    assert not threads_named("taskharbor-leases")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_ends_the_wait_for_a_store(number: signal.Signals, said: Said) -> None:
    driver = Absent(1_000_000)

    def tell() -> None:
        eventually(lambda: said("cannot be reached", 1))
        signal_here(number)

    signaller = threading.Thread(target=tell)
    with Harbor(driver, registry=Registry()) as harbor:
        signaller.start()

        assert Exit.OK == serve_here(harbor)

    signaller.join()
    assert said("told to end before the store could be reached", 1)


def test_a_store_that_cannot_be_used_as_it_is_is_not_waited_for() -> None:
    driver = TroubledDriver()

    def unusable(asked: str, request: object) -> None:
        if asked == "worker_announce":
            raise UnusableStoreError("permission denied")

    driver.before = unusable
    with Harbor(driver, registry=Registry()) as harbor, pytest.raises(UnusableStoreError):
        serve_here(harbor)


def test_deps_that_cannot_be_closed_are_the_applications_error(caplog: pytest.LogCaptureFixture) -> None:
    """Told with its own traceback and by code 1; outcomes are written and the store is closed all the same."""
    registry, driver = Registry(), TroubledDriver()

    @task(registry=registry)
    async def work() -> None:
        """Succeed."""

    @asynccontextmanager
    async def deps() -> AsyncGenerator[int]:
        yield 1
        raise RuntimeError("the pool would not close")

    with Harbor(driver, registry=registry, deps=deps) as harbor:
        job = work.enqueue()

        assert Exit.FAILED == serve_here(harbor, until_idle=IDLE)

        assert job.status().state is JobState.SUCCEEDED
        assert not threads_named("taskharbor-leases")
    (told,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "the harbor's deps could not be closed: RuntimeError: the pool would not close" in told.message
    assert told.exc_info is not None
    assert isinstance(told.exc_info[1], RuntimeError)
    assert __file__ in caplog.text


def test_every_setting_reaches_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the watchdog may end the process."""
    settings = WorkerSettings(
        queues=["a", "b"], concurrency=3, handler_processes=4, lease=5 * SECOND, grace=6 * SECOND, halt=7 * SECOND,
        prefetch=8, stall=9 * SECOND, weights={"a": 3}, reserved={"b": 1}, aging=10 * SECOND, aging_share=0.3,
    )  # fmt: skip
    told = list[dict[str, object]]()

    with Harbor(MemoryDriver(), registry=Registry()) as harbor:
        make = harbor.worker

        def listen(**options: object) -> Worker:
            told.append(options)
            return make(**untyped(options))

        monkeypatch.setattr(harbor, "worker", listen)
        serve(harbor, settings, until_idle=IDLE, max_jobs=None, max_memory=None)

    assert [msgspec.structs.asdict(settings) | {"owns_process": True}] == told


# --- under a supervisor


def test_under_a_supervisor_two_sigterms_mean_what_one_means(said: Said) -> None:
    """A service manager sends one to every process of a service, next to the supervisor's."""
    registry = Registry()

    @task(registry=registry)
    async def work() -> None:
        signal_here(signal.SIGTERM)
        await aeventually(lambda: said("drains", 1))
        signal_here(signal.SIGTERM)
        # Heard in their order.
        os.kill(os.getpid(), signal.SIGUSR2)
        await heard.wait()

    heard = asyncio.Event()

    async def hear() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, heard.set)

    @asynccontextmanager
    async def deps() -> AsyncGenerator[int]:
        await hear()
        yield 1
        asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR2)

    with supervised(), Harbor(MemoryDriver(), registry=registry, deps=deps) as harbor:
        job = work.enqueue()

        assert Exit.OK == serve_here(harbor)

        assert job.status().state is JobState.SUCCEEDED
    assert said("SIGTERM: worker", 1)


def test_under_a_supervisor_sigint_halts() -> None:
    """It is the supervisor's word for a second signal."""
    registry = Registry()

    @task(registry=registry)
    async def work() -> None:
        signal_here(signal.SIGINT)
        await asyncio.Event().wait()

    with supervised(), Harbor(MemoryDriver(), registry=registry) as harbor:
        job = work.enqueue()

        assert Exit.OK == serve_here(harbor)

        assert (JobState.READY, 0) == (job.status().state, job.status().attempt)


@pytest.mark.parametrize("read_before", [True, False])
def test_it_says_that_it_works_and_drains_when_its_supervisor_is_gone(read_before: bool, said: Said) -> None:
    """Even if that was gone before it had read the word."""
    registry = Registry()

    @task(registry=registry)
    async def work() -> None:
        if read_before:
            assert b"r" == ours.recv(2)
        ours.close()
        await aeventually(lambda: said("the supervisor is gone", 1))

    with supervised() as ours, Harbor(MemoryDriver(), registry=registry) as harbor:
        job = work.enqueue()

        assert Exit.OK == serve_here(harbor)

        assert job.status().state is JobState.SUCCEEDED


def test_no_process_started_by_a_handler_finds_the_lifeline() -> None:
    """Neither the descriptor nor the variable."""
    registry, found = Registry(), list[object]()

    @task(registry=registry)
    def work(fd: int) -> None:
        found.extend((os.get_inheritable(fd), LIFELINE_VARIABLE in os.environ))

    with supervised(), Harbor(MemoryDriver(), registry=registry) as harbor:
        work.enqueue(int(os.environ[LIFELINE_VARIABLE]))

        assert Exit.OK == serve_here(harbor, until_idle=IDLE)

    assert [False, False] == found


@pytest.mark.parametrize("told", ["", "no number", "0x1", "1000000", "1"])
def test_a_lifeline_that_is_none_is_told_and_passed_over(
    told: str, monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    """Somebody's environment has leaked; the worker works all the same."""
    monkeypatch.setenv(LIFELINE_VARIABLE, told)

    with Harbor(MemoryDriver(), registry=Registry()) as harbor:
        assert Exit.OK == serve_here(harbor, until_idle=IDLE)

    assert said("names no lifeline of a supervisor", 1)


# --- recycling


def test_it_recycles_after_so_many_deliveries(said: Said) -> None:
    """Failed ones count as well; what is left stays for its successor, and the log says why."""
    registry = Registry()

    @task(registry=registry, retry=Retry(max_attempts=1))
    async def work(number: int) -> None:
        if number % 2:
            raise ValueError

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        harbor.enqueue_many([work.s(number) for number in range(10)])

        assert Exit.RECYCLE == serve_here(harbor, max_jobs=10)

        assert {"succeeded": 5, "dead": 5} == states(harbor)
    assert said("it has settled 10 deliveries (--max-jobs 10)", 1)


def test_it_recycles_when_it_has_grown_too_large(said: Said) -> None:
    """What it holds is compared after a job."""
    registry = Registry()

    @task(registry=registry)
    async def work() -> None:
        """Do nothing."""

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        work.enqueue()

        assert Exit.RECYCLE == serve_here(harbor, max_memory=1)

    assert said("of memory after 1 deliveries (--max-memory 1B)", 1)


def test_without_a_job_it_never_recycles() -> None:
    """It would do so for ever."""
    looked = list[int]()

    def look() -> int:
        looked.append(1)
        return resident_bytes()

    with pytest.MonkeyPatch.context() as patch, Harbor(MemoryDriver(), registry=Registry()) as harbor:
        patch.setattr(serving, "_LOOK_SECONDS", 0.0)
        patch.setattr(serving, "resident_bytes", look)
        assert Exit.OK == serve_here(harbor, until_idle=IDLE, max_memory=1)

    assert [1] == looked, "only once, to see whether this system can tell"


def test_a_signal_while_it_recycles_ends_it_for_good(said: Said) -> None:
    """And is the first, which drains, not the second."""
    registry = Registry()

    @task(registry=registry)
    async def quick() -> None:
        """Do nothing."""

    @task(registry=registry)
    async def slow() -> None:
        await aeventually(lambda: said("drains to be started afresh", 1))
        signal_here(signal.SIGTERM)
        await aeventually(lambda: said("SIGTERM", 1))

    with Harbor(MemoryDriver(), registry=registry) as harbor:
        job = slow.enqueue()
        quick.enqueue()

        assert Exit.OK == serve_here(harbor, max_jobs=1)

        assert job.status().state is JobState.SUCCEEDED


def test_resident_memory_is_told_in_bytes() -> None:
    """A hundred megabytes more are seen as such, also by the fallback where /proc is missing."""
    before = resident_bytes()

    ballast = bytearray(os.urandom(1)) * 100_000_000

    grown = resident_bytes() - before
    assert 90_000_000 < grown < 200_000_000
    assert len(ballast)


# --- a process of its own

PROGRAM = """
import asyncio, os, signal, sys, threading, time
from datetime import timedelta
from taskharbor import Harbor, Registry, task
from taskharbor.drivers.memory import MemoryDriver
from taskharbor.cli.serving import leave, serve
from taskharbor.worker import WorkerSettings
registry = Registry()
forever = threading.Event()

@task(registry=registry)
{handler}

settings = WorkerSettings(grace=timedelta(0), halt=timedelta(seconds=0.1))
with Harbor(MemoryDriver(), registry=registry) as harbor:
    work.enqueue()
    leave(serve(harbor, settings, until_idle=None, max_jobs=None, max_memory=None))
"""


def run_program(handler: str, *, setup: str = "") -> subprocess.CompletedProcess[str]:
    """Run a worker with one handler in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", setup + PROGRAM.format(handler=handler)],
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_thread_that_never_ends_does_not_keep_the_process() -> None:
    """It ends with the code for it, and what was printed is not lost."""
    ended = run_program(
        """
def work() -> None:
    print("printed")
    os.kill(os.getpid(), signal.SIGTERM)
    forever.wait()
"""
    )

    assert (Exit.UNFINISHED, "printed\n") == (ended.returncode, ended.stdout), ended.stderr


def test_a_thread_of_somebody_elses_does_not_keep_the_process_either() -> None:
    """The interpreter would wait for it; after a while nobody does."""
    ended = run_program(
        """
async def work() -> None:
    threading.Thread(target=forever.wait).start()
    os.kill(os.getpid(), signal.SIGTERM)
""",
        setup="import taskharbor.cli.serving as serving\nserving._LEAVE_SECONDS = 0.2\n",
    )

    assert 0 == ended.returncode, ended.stderr


def test_stacks_are_written_on_request_even_while_the_loop_is_blocked() -> None:
    """SIGUSR1 shows where it hangs, and the process lives on."""
    ended = run_program(
        """
async def work() -> None:
    def blocks_the_loop() -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
    blocks_the_loop()
    os.kill(os.getpid(), signal.SIGTERM)
"""
    )

    assert 0 == ended.returncode, ended.stderr
    assert "in blocks_the_loop" in ended.stderr
    assert "Current thread" in ended.stderr


# --- from the command line to the store, with processes that are killed

APP = """
import asyncio, os, signal
from taskharbor import Harbor, task

harbor = Harbor({url!r})
events = os.open({fifo!r}, os.O_WRONLY)

def say(event, number):
    os.write(events, f"{{event}} {{number}} {{os.getpid()}}\\n".encode())

@task(name="work")
async def work(number: int) -> None:
    say("begins", number)
    while not os.path.exists({gate!r}):
        await asyncio.sleep(0.005)
    say("ends", number)
"""


class Fleet:
    """`taskharbor worker --processes 2` on a file, its jobs held back by a gate."""

    def __init__(self, folder: Path, led: Led) -> None:
        url = f"sqlite:///{folder / 'jobs.db'}"
        self._app, self._gate = folder / "fleet_app.py", folder / "gate"
        self._app.write_text(APP.format(url=url, fifo=str(led.fifo), gate=str(self._gate)))
        self.led = led
        self.harbor = Harbor(url, registry=Registry())
        self.work = task(name="work", registry=self.harbor.registry)(_work)

    def start(self, jobs: int) -> list[Event]:
        """Enqueue so many jobs, start two processes with a slot each, and return the two first starts."""
        self.harbor.enqueue_many([self.work.s(number) for number in range(jobs)])
        options = ["--processes=2", "--concurrency=1", "--prefetch=0", "--lease=500ms", "--grace=30s"]
        self.led.run(
            [sys.executable, "-m", "taskharbor.cli", "worker", f"--app={self._app}:harbor", *options]
        )
        return self.led.expect("begins", "begins")

    def open_gate(self) -> None:
        """Let handlers end."""
        self._gate.touch()


async def _work(number: int) -> None:
    """Stand in for the task, on the producer's side."""


@pytest.fixture
def fleet(tmp_path: Path) -> Generator[Fleet]:
    """Return two worker processes that are yet to be started."""
    led = Led(tmp_path)
    fleet = Fleet(tmp_path, led)
    with fleet.harbor:
        yield fleet
    led.close()


def test_a_stop_ends_what_runs_and_leaves_nothing_leased(fleet: Fleet) -> None:
    """SIGTERM to the parent drains both processes."""
    fleet.start(6)

    fleet.led.send(signal.SIGTERM)
    eventually(lambda: fleet.led.log().count("SIGTERM: worker") == 2)
    fleet.open_gate()

    fleet.led.expect("ends", "ends")
    assert 0 == fleet.led.end()
    assert {"succeeded": 2, "ready": 4} == states(fleet.harbor)


def test_when_the_parent_is_killed_its_workers_drain_and_end(fleet: Fleet) -> None:
    """No orphan serves on, and no job is cut short."""
    pids = [event.pid for event in fleet.start(6)]

    fleet.led.send(signal.SIGKILL)
    eventually(lambda: fleet.led.log().count("the supervisor is gone: worker") == 2)
    fleet.open_gate()

    fleet.led.expect("ends", "ends")
    eventually(lambda: not any(lives(pid) for pid in pids), "the end of both workers")
    assert {"succeeded": 2, "ready": 4} == states(fleet.harbor)


def test_the_job_of_a_killed_worker_runs_again_and_another_worker_comes(fleet: Fleet) -> None:
    """Once its lease is over; nothing is lost."""
    killed, other = fleet.start(2)

    os.kill(killed.pid, signal.SIGKILL)

    again = fleet.led.expect("begins")[0]
    assert killed.number == again.number
    assert again.pid not in (killed.pid, other.pid)
    fleet.open_gate()
    fleet.led.expect("ends", "ends")
    eventually(lambda: states(fleet.harbor) == {"succeeded": 2})
    fleet.led.send(signal.SIGTERM)
    assert 0 == fleet.led.end()


def test_a_hangup_replaces_the_workers_one_by_one(fleet: Fleet) -> None:
    """A deploy without a gap: what runs ends in the old ones, what waits runs in the new ones."""
    old = {event.pid for event in fleet.start(2)}

    fleet.led.send(signal.SIGHUP)
    eventually(lambda: fleet.led.log().count("SIGTERM: worker") == 1)
    fleet.open_gate()
    fleet.led.expect("ends", "ends")
    eventually(lambda: fleet.led.log().count(" slots") == 4, "the fourth worker")

    fleet.harbor.enqueue_many([fleet.work.s(number) for number in range(2, 10)])
    came = [fleet.led.event() for _ in range(16)]
    assert not old & {event.pid for event in came}
    fleet.led.send(signal.SIGTERM)
    assert 0 == fleet.led.end()
    assert {"succeeded": 10} == states(fleet.harbor)
