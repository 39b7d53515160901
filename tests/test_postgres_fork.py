"""Processes that fork while connections to PostgreSQL are open, as servers do that load the application first."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("psycopg", reason="needs the extra `postgres`")

from taskharbor import Harbor, Registry, task
from taskharbor.driver import JobEnqueue
from taskharbor_conformance.bench import new_job
from tests.fixtures.support import fork, run_python, untyped
from tests.support.postgres import server
from tests.support.postgres_ground import Ground, in_thread, join, put
from tests.support.work import ENOUGH, eventually

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

registry = Registry()


@task(registry=registry)
def note(number: int) -> int:
    return number


@pytest.fixture(scope="module")
def shared_ground() -> Generator[Ground]:
    made = Ground(server().conninfo)
    yield made
    made.remove()


@pytest.fixture
def ground(shared_ground: Ground) -> Ground:
    shared_ground.empty()
    return shared_ground


@pytest.fixture
def harbor(ground: Ground) -> Generator[Harbor]:
    with Harbor(ground.driver(), registry=registry) as current:
        yield current


def begun_child(work: Callable[[], object]) -> int:
    """Fork a child that does some work and ends at once; return its process id."""
    child = fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return child


def in_a_child(work: Callable[[], object]) -> int:
    """Run something in a forked child and return its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(begun_child(work), 0)[1])


def pooled(ground: Ground) -> set[int]:
    """Return the backends of the pools: those whose last statement was none of the bell's."""
    rows = ground.do(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'taskharbor' AND query LIKE %s",
        f'%"{ground.schema}"%',
    )
    return {pid for (pid,) in rows}


def test_child_and_parent_go_on_and_the_parent_keeps_its_connection(ground: Ground, harbor: Harbor) -> None:
    note.enqueue(0)
    before = pooled(ground)

    code = in_a_child(lambda: note.enqueue(1))
    note.enqueue(2)

    assert (0, 1, 3) == (code, len(before), ground.count("job"))
    assert before <= pooled(ground)


def test_a_child_that_drops_everything_closes_none_of_its_parents_connections(
    ground: Ground, harbor: Harbor
) -> None:
    note.enqueue(0)
    before = pooled(ground)

    def child() -> None:
        harbor.close()
        untyped(harbor)._connections._forget()
        gc.collect()

    code = in_a_child(child)
    note.enqueue(1)

    assert (0, 2) == (code, ground.count("job"))
    assert before == pooled(ground)


def test_a_fork_in_the_middle_of_a_statement_disturbs_nobody(ground: Ground) -> None:
    """The child opens its own way in, and the parent's statement is answered to the parent."""
    with ground.producing() as store:

        def child() -> None:
            with ground.producing() as own:
                own.job_enqueue(JobEnqueue(jobs=[new_job()]))

        with ThreadPoolExecutor(1) as threads:
            with ground.holding("LOCK TABLE job IN ACCESS EXCLUSIVE MODE"):
                asked = threads.submit(put, store)
                ground.await_waiting(1)
                pid = begun_child(child)
                ground.await_waiting(2)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            asked.result(ENOUGH.total_seconds())
        put(store)

    assert (0, 3) == (code, ground.count("job"))


def test_a_child_enqueues_though_another_thread_of_its_parent_was_at_the_pool(
    ground: Ground, harbor: Harbor
) -> None:
    """Whatever was locked there at that moment stays locked in the child."""
    note.enqueue(0)
    lock = untyped(harbor)._connections.producer()._desk._pool._lock
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            release.wait(ENOUGH.total_seconds())

    holder = in_thread(hold)
    held.wait(ENOUGH.total_seconds())
    pid = begun_child(lambda: note.enqueue(1))
    release.set()
    join(holder)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert (0, 2) == (code, ground.count("job"))


def test_children_of_children_enqueue_too(ground: Ground, harbor: Harbor) -> None:
    note.enqueue(0)

    def child() -> None:
        note.enqueue(1)
        assert 0 == in_a_child(lambda: note.enqueue(2))
        note.enqueue(3)

    assert 0 == in_a_child(child)
    assert 4 == ground.count("job")


def test_many_children_write_at_once(ground: Ground, harbor: Harbor) -> None:
    note.enqueue(0)

    def child() -> None:
        for number in range(20):
            note.enqueue(number)

    children = [begun_child(child) for _ in range(4)]
    for number in range(20):
        note.enqueue(number)
    codes = [os.waitstatus_to_exitcode(os.waitpid(each, 0)[1]) for each in children]

    assert ([0] * 4, 101) == (codes, ground.count("job"))


def test_a_fork_from_within_an_event_loop_leaves_its_store_as_it_was(ground: Ground, harbor: Harbor) -> None:
    async def main() -> int:
        await note.aenqueue(0)
        before = pooled(ground)

        def child() -> None:
            note.enqueue(1)
            gc.collect()

        # In a thread, where a blocking call may be made.
        code = await asyncio.to_thread(in_a_child, child)
        await note.aenqueue(2)
        assert before <= pooled(ground)
        return code

    assert 0 == asyncio.run(main())
    assert 3 == ground.count("job")


def test_a_worker_goes_on_after_its_process_forked(ground: Ground, harbor: Harbor) -> None:
    with harbor.worker_thread():
        for number in range(5):
            assert 0 == in_a_child(lambda: None)
            assert number == note.enqueue(number).result(timeout=ENOUGH)


def test_the_server_notices_the_parents_end_though_a_child_lives_on(ground: Ground) -> None:
    """A child has a copy of each socket; what a dead parent's transaction holds must not wait for the child."""
    read, write = os.pipe()

    def parent() -> None:
        with ground.producing() as store:
            put(store)
            begun_child(lambda: os.read(read, 1))
            os.kill(os.getpid(), signal.SIGKILL)

    with ground.producing() as store:
        put(store)
    eventually(lambda: not ground.backends(), "all others are gone")
    pid = begun_child(parent)
    os.waitpid(pid, 0)

    eventually(lambda: not pooled(ground), "the server's side ends")
    os.write(write, b".")
    os.close(write)
    os.close(read)
    assert 2 == ground.count("job")


SCRIPT = """
import os, sys
from taskharbor import Harbor, task
@task
def note(number: int) -> int:
    return number
with Harbor(sys.argv[1]) as harbor:
    note.enqueue(1)
    child = os.fork()
    if not child:
        note.enqueue(2)
        sys.exit(0)  # with the interpreter's end, and all
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    note.enqueue(3)
Harbor(sys.argv[1]).install()
note.enqueue(4)
"""


def test_ends_of_processes_are_silent(ground: Ground) -> None:
    """A child's, and that of one who never closes his harbor."""
    # Python warns of forks beside threads, which are not what is looked at here.
    flags = ["-Werror", "-Wignore::DeprecationWarning"]

    assert "" == run_python(*flags, "-c", SCRIPT, ground.url)
    assert 4 == ground.count("job")
