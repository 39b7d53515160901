"""The composition root: a harbor joins a store, tasks and a wire format, and is what tasks send through."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack, ExitStack
from contextvars import ContextVar, Token
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar, cast

from typing_extensions import TypedDict, Unpack

from taskharbor.bridge import Bridge, BridgedProducer
from taskharbor.call import (
    Call,
    Dispatcher,
    JobHandle,
    Sent,
    Signature,
    WaitLimit,
    enter,
    install,
    leave,
    refuse_on_loop,
    sheltered,
    uninstall,
)
from taskharbor.call.options import check_duration
from taskharbor.codec import Codec, CodecBook, JsonCodec, checked_codec
from taskharbor.control import Jobs, Queues, not_found
from taskharbor.driver import (
    BlockingDriver,
    CancelStatus,
    Capability,
    Driver,
    Enqueued,
    EnqueueStatus,
    JobCancel,
    JobEnqueue,
    JobGet,
    ProducerStore,
    Store,
)
from taskharbor.drivers import open_driver
from taskharbor.errors import (
    DuplicateJob,
    KeyConflict,
    OptionError,
    PayloadError,
    StoreError,
    nearest,
)
from taskharbor.job import TERMINAL, JobRecord, NewJob, OnConflict
from taskharbor.task import Registry, TaskDefinition, default_registry

logger = logging.getLogger("taskharbor")

if TYPE_CHECKING:
    import asyncio

    from taskharbor.worker import Application, Lifespan, Worker, WorkerCounts, WorkerSettings, WorkerThread

T = TypeVar("T")
R = TypeVar("R")


class WorkerOptions(TypedDict, total=False, closed=True):
    """The settings of a worker, as keywords; `WorkerSettings` says what each means."""

    queues: Sequence[str] | None
    concurrency: int
    handler_processes: int
    lease: timedelta
    grace: timedelta
    halt: timedelta
    prefetch: int | None
    stall: timedelta
    owns_process: bool


class Harbor:
    """Where an application's jobs go, and where its workers take them from.

    `with Harbor(...) as harbor:` (or `async with`) makes it the current harbor of the block and closes it at the end;
    `harbor.install()` makes it the process-wide default. Safe to share between threads and event loops.
    """

    def __init__(
        self,
        url: str | Driver | None = None,
        *,
        registry: Registry | None = None,
        codec: Codec | None = None,
        codecs: Iterable[Codec] = (),
        deps: Lifespan | None = None,
        check: bool = True,
    ) -> None:
        """Join a store and tasks. Connects to nothing yet.

        Args:
            url: a driver's URL, such as `memory://`, or a driver. By default `TASKHARBOR_URL`, else
                `sqlite:///taskharbor.db`.
            registry: the tasks its workers know, by default `default_registry`.
            codec: the wire format of payloads and results, by default JSON. A task's own comes first.
            codecs: further formats that stored payloads may be in; JSON and MessagePack are always among them.
            deps: builds what handlers get as `ctx.deps`: a function to a context manager, sync or async, entered once
                by each worker.
            check: decode each payload once at enqueue, so that what no handler could read is refused there.

        Raises:
            DriverURLError: no driver understands the URL.
            MissingExtraError: the driver needs a package that is not installed.
        """
        _check_parts(registry, deps)
        self._driver = open_driver(url)
        self._registry = default_registry if registry is None else registry
        self._codec: Codec = JsonCodec() if codec is None else checked_codec(codec)
        self._codecs = CodecBook([*codecs, self._codec])
        self._lifespan = deps
        self._check = check
        # How often it was entered in this context, and what was current before: a thread or task leaves its own blocks.
        self._entered: ContextVar[tuple[Token[Dispatcher | None], ...]] = ContextVar(
            "taskharbor_entered", default=()
        )
        self._pid = 0
        self._lock = threading.Lock()
        self._stores: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[Store, AsyncExitStack]]
        self._blocking: tuple[ProducerStore, ExitStack] | None
        self._bridge: Bridge
        self._forget_connections()

    def __repr__(self) -> str:
        return f"<Harbor on {self._driver.name}>"

    @property
    def driver(self) -> Driver:
        """Return the driver of its store."""
        return self._driver

    @property
    def registry(self) -> Registry:
        """Return the tasks its workers know."""
        return self._registry

    @property
    def codecs(self) -> CodecBook:
        """Return the wire formats it can read."""
        return self._codecs

    @property
    def jobs(self) -> Jobs:
        """Return what can be done with stored jobs by hand."""
        return Jobs(self)

    @property
    def queues(self) -> Queues:
        """Return what can be done with queues by hand."""
        return Queues(self)

    # --- being the current harbor

    def install(self) -> Self:
        """Make this the process-wide default: current wherever no `with` says otherwise, in every thread."""
        install(self)
        return self

    def __enter__(self) -> Self:
        """Make this the current harbor until the end of the block."""
        self._entered.set((*self._entered.get(), enter(self)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the harbor that was current before, and close this one."""
        self._leave()
        self.close()

    async def __aenter__(self) -> Self:
        """Make this the current harbor until the end of the block."""
        self._entered.set((*self._entered.get(), enter(self)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the harbor that was current before, and close this one."""
        self._leave()
        await self.aclose()

    def _leave(self) -> None:
        tokens = self._entered.get()
        if tokens:  # else the block ends in another context than it began in, and nothing was changed here
            self._entered.set(tokens[:-1])
            with contextlib.suppress(ValueError):
                leave(tokens[-1])

    def close(self) -> None:
        """Close its connections, but for those that belong to event loops still running. Idempotent."""
        uninstall(self)
        if self._notice_fork():
            return
        self._bridge.close()
        with self._lock:
            blocking, self._blocking = self._blocking, None
        if blocking is not None:
            blocking[1].close()
        self._driver.close()

    async def aclose(self) -> None:
        """Close its connections, this event loop's among them. Idempotent."""
        from taskharbor.worker import in_own_thread

        self._notice_fork()
        await self._close_store()
        await in_own_thread(self.close)

    # --- sending

    def enqueue_many(
        self, signatures: Iterable[Signature[R]], *, check: bool | None = None
    ) -> list[JobHandle[R]]:
        """Store many calls in one transaction, all or none, and return their handles in order.

        Args:
            signatures: calls made by `task.s(...)`, of any tasks.
            check: False skips the decoding of each payload, for arguments known to be right; None does as the harbor.

        Raises:
            PayloadError: arguments do not fit a signature; nothing was stored.
            DuplicateJob: a key is taken and `on_conflict="raise"` was asked; nothing was stored.
            KeyConflict: a key is taken by a job with other arguments; nothing was stored.
            BlockingCallError: on a running event loop; use `aenqueue_many`.
        """
        refuse_on_loop("harbor.enqueue_many()", "harbor.aenqueue_many(...)")
        calls = _calls(signatures)
        return self._handles(calls, self._send(self._jobs(calls, check=check)))

    async def aenqueue_many(
        self, signatures: Iterable[Signature[R]], *, check: bool | None = None
    ) -> list[JobHandle[R]]:
        """Store many calls in one transaction; the async form of `enqueue_many`."""
        calls = _calls(signatures)
        return self._handles(calls, await self._asend(self._jobs(calls, check=check)))

    def send(self, calls: Sequence[Call]) -> Sequence[Sent]:
        """Store calls as jobs; see `Dispatcher`."""
        return self._send(self._jobs(calls))

    async def asend(self, calls: Sequence[Call]) -> Sequence[Sent]:
        """Store calls as jobs; see `Dispatcher`."""
        return await self._asend(self._jobs(calls))

    def _jobs(self, calls: Sequence[Call], *, check: bool | None = None) -> list[NewJob]:
        check = self._check if check is None else check
        return [call.callee.new_job(call.arguments, call.options, self._codec, check=check) for call in calls]

    def _send(self, jobs: list[NewJob]) -> list[Sent]:
        if not jobs:
            return []
        with sheltered():
            return _sent(jobs, self._producer().job_enqueue(JobEnqueue(jobs=jobs, all_or_none=True)))

    async def _asend(self, jobs: list[NewJob]) -> list[Sent]:
        if not jobs:
            return []
        store = await self._store()
        return _sent(jobs, await store.job_enqueue(JobEnqueue(jobs=jobs, all_or_none=True)))

    def _handles(self, calls: list[Call], answers: list[Sent]) -> list[JobHandle[R]]:
        return [
            JobHandle(self, call.callee, sent.job_id, created=sent.created)
            for call, sent in zip(calls, answers, strict=True)
        ]

    def task(self, name: str) -> TaskDefinition:
        """Return the task of that name or alias.

        Raises:
            UnknownTaskError: there is none; says which come close.
        """
        return self._registry.get(name)

    def arguments_of(self, record: JobRecord) -> dict[str, object]:
        """Return the arguments of a stored job by parameter name, decoded as its task declares them.

        Raises:
            UnknownTaskError: its task is not registered here.
            PayloadError: the payload does not fit today's signature, or its codec is not known here.
        """
        definition = self._registry.get(record.task)
        own = definition.codec
        codec = own if own is not None and own.name == record.codec else self._codecs.find(record.codec)
        if codec is None:
            raise PayloadError(
                f"the payload of job {record.id} is written with the codec {record.codec!r}, which this harbor does "
                "not know; pass it as Harbor(codecs=[...])",
                task=record.task,
            )
        return definition.read_arguments(record.payload, codec)

    # --- looking after

    def look(self, job_id: str) -> JobRecord:
        """Return what the store knows of a job; raises `JobNotFound`."""
        with sheltered():
            return _found(self._producer().job_get(JobGet(ids=[job_id])), job_id)

    async def alook(self, job_id: str) -> JobRecord:
        """Return what the store knows of a job; raises `JobNotFound`."""
        return _found(await (await self._store()).job_get(JobGet(ids=[job_id])), job_id)

    def cancel(self, job_id: str, reason: str) -> bool:
        """Ask for a cancel; return False if the job had ended already. Raises `JobNotFound`."""
        with sheltered():
            return _cancelled(self._producer().job_cancel(JobCancel(ids=[job_id], reason=reason)), job_id)

    async def acancel(self, job_id: str, reason: str) -> bool:
        """Ask for a cancel; return False if the job had ended already. Raises `JobNotFound`."""
        return _cancelled(
            await (await self._store()).job_cancel(JobCancel(ids=[job_id], reason=reason)), job_id
        )

    def await_end(self, job_id: str, timeout: timedelta | None) -> JobRecord:
        """Block until the job is terminal; raises `ResultTimeout`, `JobNotFound`."""
        ended = threading.Event()
        limit = WaitLimit(job_id, timeout, self._driver.poll_interval)
        subscription = self._driver.watch_jobs([job_id], ended.set)
        try:
            while True:
                ended.clear()
                record = self.look(job_id)
                if record.state in TERMINAL:
                    return record
                ended.wait(limit.next_wait(record.state, record.reason))
        finally:
            subscription.close()

    async def aawait_end(self, job_id: str, timeout: timedelta | None) -> JobRecord:
        """Wait until the job is terminal; raises `ResultTimeout`, `JobNotFound`."""
        import asyncio

        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has closed
                loop.call_soon_threadsafe(ended.set)

        limit = WaitLimit(job_id, timeout, self._driver.poll_interval)
        subscription = self._driver.watch_jobs([job_id], wake)
        try:
            while True:
                ended.clear()
                record = await self.alook(job_id)
                if record.state in TERMINAL:
                    return record
                wait = limit.next_wait(record.state, record.reason)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), wait)
        finally:
            subscription.close()

    # --- working

    def worker(self, **settings: Unpack[WorkerOptions]) -> Worker:
        """Return a worker for the running event loop: `async with harbor.worker(queues=["mail"]): ...`.

        Raises:
            OptionError: a setting with a value that cannot be.
        """
        from taskharbor.worker import Worker

        return Worker(self._application(), _settings(settings))

    def worker_thread(self, **settings: Unpack[WorkerOptions]) -> WorkerThread:
        """Return a worker in a thread of its own, for blocking programs: `with harbor.worker_thread(): ...`.

        Raises:
            OptionError: a setting with a value that cannot be.
            BlockingCallError: on a running event loop, which its end would block; use `worker`.
        """
        refuse_on_loop("harbor.worker_thread()", "async with harbor.worker(...):")
        from taskharbor.worker import WorkerThread

        return WorkerThread(self._application(), _settings(settings))

    def run_until_idle(
        self, *, within: timedelta = timedelta(0), **settings: Unpack[WorkerOptions]
    ) -> WorkerCounts:
        """Work in this thread until nothing is running and nothing is due within so long, and return what was done.

        With the default, jobs scheduled or retried later stay where they are; `within=timedelta(minutes=1)` waits for
        those due within a minute, and so on until none is. Ctrl-C stops it: once drains, twice cancels.

        Raises:
            OptionError: a setting with a value that cannot be.
            BlockingCallError: on a running event loop; use `arun_until_idle`.
        """
        refuse_on_loop("harbor.run_until_idle()", "harbor.arun_until_idle(...)")
        from taskharbor.worker import run_in_own_loop

        check_duration(within, "within")
        worker = self.worker(**settings)

        def on_interrupt() -> None:
            if worker.draining:
                worker.halt()
            worker.drain()

        try:
            return run_in_own_loop(lambda: self._until_idle(worker, within), on_interrupt)
        finally:
            worker.loop_closed()

    async def arun_until_idle(
        self, *, within: timedelta = timedelta(0), **settings: Unpack[WorkerOptions]
    ) -> WorkerCounts:
        """Work on the running event loop until idle; the async form of `run_until_idle`."""
        check_duration(within, "within")
        return await _until_idle(self.worker(**settings), within)

    async def _until_idle(self, worker: Worker, within: timedelta) -> WorkerCounts:
        try:
            return await _until_idle(worker, within)
        finally:
            await self._close_store()

    def _application(self) -> Application:
        from taskharbor.worker import Application

        return Application(
            self, self._driver, self._registry, self._codecs, self._codec, self._lifespan, self._close_store
        )

    # --- reaching the store

    def ask(self, work: Callable[[Store], Awaitable[T]]) -> T:
        """Return what `work` returns, run with a store, blocking."""
        self._notice_fork()
        with sheltered():
            return self._bridge.call(work)

    async def aask(self, work: Callable[[Store], Awaitable[T]]) -> T:
        """Return what `work` returns, run with this event loop's store."""
        return await work(await self._store())

    async def _close_store(self) -> None:
        """Close the store of the running event loop, if one was opened."""
        import asyncio

        with self._lock:
            opened = self._stores.pop(asyncio.get_running_loop(), None)
        if opened is not None:
            await opened[1].aclose()

    async def _store(self) -> Store:
        """Return the store of the running event loop, opened when first asked for."""
        import asyncio

        self._notice_fork()
        loop = asyncio.get_running_loop()
        opened = self._stores.get(loop)
        if opened is None:
            stack = AsyncExitStack()
            store = await stack.enter_async_context(self._driver.connect())
            opened = self._stores.setdefault(loop, (store, stack))
            if opened[1] is not stack:  # another task of this loop was quicker
                await stack.aclose()
        return opened[0]

    def _producer(self) -> ProducerStore:
        """Return the blocking store: the driver's own face, or a bridge to the async one."""
        self._notice_fork()
        opened = self._blocking
        if opened is not None:
            return opened[0]
        with self._lock:
            if self._blocking is None:
                stack = ExitStack()
                if Capability.BLOCKING in self._driver.capabilities and isinstance(
                    self._driver, BlockingDriver
                ):
                    store = stack.enter_context(self._driver.connect_blocking())
                else:
                    store = BridgedProducer(self._bridge)
                self._blocking = (store, stack)
            return self._blocking[0]

    def _notice_fork(self) -> bool:
        """Return whether this is a child forked since the harbor was last used."""
        if self._pid == os.getpid():
            return False
        # The parent's connections are abandoned, never closed: they are still in use over there.
        self._forget_connections()
        return True

    def _forget_connections(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._stores = weakref.WeakKeyDictionary()
        self._blocking = None
        self._bridge = Bridge(self._driver)


async def _until_idle(worker: Worker, within: timedelta) -> WorkerCounts:
    async with worker:
        await worker.idle(within)
    return worker.counts


def _calls(signatures: object) -> list[Call]:
    # Checked by hand: a task called instead of `task.s(...)` is a slip that everybody makes once.
    if not isinstance(signatures, Iterable):
        raise OptionError(f"expected a list of signatures, such as [{signatures!r}]")
    calls: list[Call] = []
    for signature in cast("Iterable[object]", signatures):
        if not isinstance(signature, Signature):
            raise OptionError(
                f"expected signatures, which task.s(...) makes without calling the task; got {signature!r}"
            )
        calls.append(signature.call)
    return calls


def _check_parts(registry: object, lifespan: object) -> None:
    if registry is not None and not isinstance(registry, Registry):
        raise OptionError(f"registry={registry!r}: expected a Registry")
    if isinstance(lifespan, (AbstractContextManager, AbstractAsyncContextManager)):
        raise OptionError(
            "deps=...: expected the function itself, not its call: each worker calls it; drop the ()"
        )
    if lifespan is not None and not callable(lifespan):
        raise OptionError(
            f"deps={lifespan!r}: expected a function to a context manager, as @contextlib.asynccontextmanager makes one"
        )


def _settings(given: WorkerOptions) -> WorkerSettings:
    from taskharbor.worker import WorkerSettings

    known = WorkerSettings.__struct_fields__
    for name in given:
        if name not in known:
            raise OptionError(
                f"a worker has no setting {name!r}{nearest(name, known)}; it has {', '.join(known)}"
            )
    return WorkerSettings(**given)


def _found(records: Sequence[JobRecord | None], job_id: str) -> JobRecord:
    (record,) = records
    if record is None:
        raise not_found(job_id)
    return record


def _cancelled(answers: Sequence[CancelStatus], job_id: str) -> bool:
    (status,) = answers
    if status is CancelStatus.MISSING:
        raise not_found(job_id)
    return status is not CancelStatus.FINISHED


def _sent(jobs: list[NewJob], answers: Sequence[Enqueued]) -> list[Sent]:
    left_out = False
    for job, answer in zip(jobs, answers, strict=True):
        if answer.status is EnqueueStatus.CONFLICT:
            raise KeyConflict(
                f"the key {job.key!r} of task {job.task!r} is taken by job {answer.job_id} with other arguments; "
                "the same key has to mean the same request",
                job_id=answer.job_id,
                task=job.task,
                key=job.key or "",
            )
        mine = answer.job_id == job.id  # asked again after a cut connection
        if answer.status is EnqueueStatus.EXISTING and job.on_conflict is OnConflict.RAISE and not mine:
            raise DuplicateJob(
                f"the key {job.key!r} of task {job.task!r} is taken by job {answer.job_id}",
                job_id=answer.job_id,
            )
        if answer.status is EnqueueStatus.LEFT_OUT:
            left_out = True
    if left_out:
        raise StoreError("the store kept none of the jobs and did not say why; this is a bug in its driver")
    return [
        Sent(answer.job_id, answer.status is EnqueueStatus.CREATED or answer.job_id == job.id)
        for job, answer in zip(jobs, answers, strict=True)
    ]
