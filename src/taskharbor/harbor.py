"""The composition root: a harbor joins a store, tasks and a wire format, and is what tasks send through.

What it does stands in rooms beside it: `dispatching` (on `connections`, `sending`, `following`), `working`, `control`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from contextvars import ContextVar, Token
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self, TypeVar

from typing_extensions import Unpack

from taskharbor.call import (
    Dispatcher,
    enter,
    install,
    leave,
    refuse_on_loop,
    uninstall,
)
from taskharbor.call.options import check_duration
from taskharbor.codec import Codec, CodecBook, JsonCodec, checked_codec, found_codec
from taskharbor.connections import Connections
from taskharbor.control import (
    AuditTrail,
    Feeds,
    Jobs,
    Limits,
    Queues,
    RetentionRules,
    Schedules,
    Statistics,
    Workers,
)
from taskharbor.declaring import Declarations, Declaring
from taskharbor.dispatching import Dispatching
from taskharbor.driver import Driver
from taskharbor.drivers import open_driver
from taskharbor.errors import OptionError, PayloadError
from taskharbor.flows import Flows
from taskharbor.following import Follower
from taskharbor.job import JobRecord
from taskharbor.sending import Sender
from taskharbor.task import Middleware, Registry, TaskDefinition, default_registry
from taskharbor.task.layer import checked_layers
from taskharbor.task.stored import stored_arguments
from taskharbor.telemetry import Events, Hub, Results
from taskharbor.working import WorkerOptions, run_until_idle, settings_of, until_idle

if TYPE_CHECKING:
    from taskharbor.worker import Application, Lifespan, Worker, WorkerCounts, WorkerThread

T = TypeVar("T")
R = TypeVar("R")


class _Parts(NamedTuple):
    driver: Driver
    connections: Connections
    sender: Sender
    follower: Follower
    hub: Hub


class Harbor(Dispatching, Declaring):
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
        middleware: Iterable[Middleware] = (),
        deps: Lifespan | None = None,
        check: bool = True,
        application: str | None = None,
        generation: int | None = None,
    ) -> None:
        """Join a store and tasks. Connects to nothing yet.

        Args:
            url: a driver's URL, such as `memory://`, or a driver. By default `TASKHARBOR_URL`, else what
                `taskharbor.toml` or `[tool.taskharbor]` in pyproject.toml says, else `sqlite:///taskharbor.db`.
            registry: the tasks its workers know, by default `default_registry`.
            codec: the wire format of payloads and results, by default JSON. A task's own comes first.
            codecs: further formats that stored payloads may be in; JSON and MessagePack are always among them.
            middleware: layers around every enqueue and every attempt, the first outermost; see
                `taskharbor.middleware`.
            deps: builds what handlers get as `ctx.deps`: a function to a context manager, sync or async, entered once
                by each worker.
            check: decode each payload once at enqueue, so that what no handler could read is refused there.
            application: whose schedules those are that are declared here; by default what the settings say, else
                `default`. Applications that share a store need names of their own.
            generation: of those declarations, a number that grows with each deploy. None leaves it to the store, which
                remembers what has been declared.

        Raises:
            DriverURLError: no driver understands the URL.
            MissingExtraError: the driver needs a package that is not installed.
            OptionError: a wrong setting in the environment or the file, if it has to look there.
            DeploymentError: that file cannot be read.
            MiddlewareError: a middleware of another shape than it has to have.
        """
        _check_parts(registry, deps)
        self._driver = _configured_driver() if url is None else open_driver(url)
        self._registry = default_registry if registry is None else registry
        self._codec: Codec = JsonCodec() if codec is None else checked_codec(codec)
        self._more_codecs = list(codecs)
        self._codecs = CodecBook([*self._more_codecs, self._codec])
        self._lifespan = deps
        self._middleware = checked_layers(middleware, "Harbor")
        self._check = check
        self._declarations = Declarations(
            self._registry, self._codec, application=application, generation=generation
        )
        self._hub = Hub()
        connections = Connections(self._driver)
        super().__init__(
            connections,
            Sender(
                self._driver,
                connections,
                self._codec,
                check=check,
                hub=self._hub,
                middleware=self._middleware,
            ),
            Follower(self._driver, connections),
        )
        self._replaced = False
        # How often it was entered in this context, and what was current before: a thread or task leaves its own blocks.
        self._entered: ContextVar[tuple[Token[Dispatcher | None], ...]] = ContextVar(
            "taskharbor_entered", default=()
        )

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
    def codec(self) -> Codec:
        """Return the wire format that payloads and results are written in, where a task has none of its own."""
        return self._codec

    @property
    def codecs(self) -> CodecBook:
        """Return the wire formats it can read."""
        return self._codecs

    @property
    def jobs(self) -> Jobs:
        """Return what can be done with stored jobs by hand."""
        return Jobs(self._connections, self._hub)

    @property
    def flows(self) -> Flows:
        """Return what can be done with stored flows by hand."""
        return Flows(self._driver, self._connections)

    @property
    def queues(self) -> Queues:
        """Return what can be done with queues by hand."""
        return Queues(self._connections)

    @property
    def schedules(self) -> Schedules:
        """Return what can be done with schedules by hand."""
        return Schedules(self._connections, self._declarations.template)

    @property
    def workers(self) -> Workers:
        """Return who works on the store, and what tells them to end."""
        return Workers(self._connections)

    @property
    def limits(self) -> Limits:
        """Return what sets limits, and holds back tasks and keys, by hand."""
        return Limits(self._connections, lambda: [task.name for task in self._registry])

    @property
    def retention(self) -> RetentionRules:
        """Return what sets rules on how long ended jobs are kept."""
        return RetentionRules(self._connections)

    @property
    def audit(self) -> AuditTrail:
        """Return who did what to the store by hand, when, and why."""
        return AuditTrail(self._connections)

    @property
    def statistics(self) -> Statistics:
        """Return what workers have counted, by minute, queue, task and ending."""
        return Statistics(self._connections)

    @property
    def events(self) -> Events:
        """Return what subscribes to events of this process: `harbor.events(kinds=JobDead)`."""
        return Events(self._hub)

    @property
    def results(self) -> Results:
        """Return what subscribes to typed results of a task's jobs: `harbor.results(resize)`."""
        return Results(self._hub, self._codecs)

    @property
    def feed(self) -> Feeds:
        """Return what reads events of all workers, in whatever process: `harbor.feed(reader="dashboard")`."""
        return Feeds(self._connections)

    def at(self, url: str | Driver) -> Harbor:
        """Return a harbor on another store, the same in all else: registry, codecs, middleware, deps and check.

        It is a harbor of its own, to be entered or installed and closed apart from this one. The command line's
        `--url` is this.

        Raises:
            DriverURLError: no driver understands the URL.
            MissingExtraError: the driver needs a package that is not installed.
        """
        other = Harbor(
            url,
            registry=self._registry,
            codec=self._codec,
            codecs=self._more_codecs,
            middleware=self._middleware,
            deps=self._lifespan,
            check=self._check,
        )
        other._declarations = self._declarations
        return other

    @contextlib.contextmanager
    def _replaced_by(self, other: Harbor) -> Generator[None]:
        """Have another harbor's store take all that is asked of this one, for tests: its own is left alone."""
        own = _Parts(self._driver, self._connections, self._sender, self._follower, self._hub)
        before = self._replaced
        self._take(_Parts(other._driver, other._connections, other._sender, other._follower, other._hub))
        self._replaced = True
        try:
            yield
        finally:
            self._take(own)
            self._replaced = before

    def _take(self, parts: _Parts) -> None:
        self._driver = parts.driver
        self._connections = parts.connections
        self._sender = parts.sender
        self._follower = parts.follower
        self._hub = parts.hub

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
        if self._replaced:  # what it has now is not its own
            return
        self._hub.close()
        self._connections.close()

    async def aclose(self) -> None:
        """Close its connections, this event loop's among them. Idempotent."""
        uninstall(self)
        if self._replaced:
            return
        self._hub.close()
        await self._connections.aclose()

    # --- reading jobs

    def task(self, name: str) -> TaskDefinition:
        """Return the task of that name or alias.

        Raises:
            UnknownTaskError: there is none; says which come close.
        """
        return self._registry.get(name)

    def arguments_of(self, record: JobRecord) -> dict[str, object]:
        """Return the arguments of a stored job by parameter name, decoded as its task declares them.

        Those that come from earlier steps of a flow are among them as far as they are there: all while the step runs
        and once it is a dead letter, none once it has succeeded or was cancelled. Look it up by id for that
        (`harbor.jobs.get`): what `find` returns does not tell of them.

        Raises:
            UnknownTaskError: its task is not registered here.
            PayloadError: the payload, or what an earlier step gave, does not fit today's signature, or its codec is
                not known here.
        """
        definition = self._registry.get(record.task)
        codec = found_codec(record.codec, definition.codec, self._codecs)
        if codec is None:
            raise PayloadError(
                f"the payload of job {record.id} is written with the codec {record.codec!r}, which this harbor does "
                "not know; pass it as Harbor(codecs=[...])",
                task=record.task,
            )
        return stored_arguments(definition, record, codec, self._every_codec)

    def _every_codec(self) -> CodecBook:
        """Return what results of tasks may be written with, those among them that have a codec of their own."""
        own = (task.codec for task in self._registry if task.codec is not None)
        return CodecBook([*own, *self._more_codecs, self._codec])

    # --- working

    def worker(self, **settings: Unpack[WorkerOptions]) -> Worker:
        """Return a worker for the running event loop: `async with harbor.worker(queues=["mail"]): ...`.

        Raises:
            OptionError: a setting with a value that cannot be.
        """
        from taskharbor.worker import Worker

        return Worker(self._application(), settings_of(settings))

    def worker_thread(self, **settings: Unpack[WorkerOptions]) -> WorkerThread:
        """Return a worker in a thread of its own, for blocking programs: `with harbor.worker_thread(): ...`.

        Raises:
            OptionError: a setting with a value that cannot be.
            BlockingCallError: on a running event loop, which its end would block; use `worker`.
        """
        refuse_on_loop("harbor.worker_thread()", "async with harbor.worker(...):")
        from taskharbor.worker import WorkerThread

        return WorkerThread(self._application(), settings_of(settings))

    def run_until_idle(
        self, *, within: timedelta = timedelta(0), **settings: Unpack[WorkerOptions]
    ) -> WorkerCounts:
        """Work in this thread until nothing is running and nothing is due within so long, and return what was done.

        With the default, jobs scheduled or retried later stay where they are; `within=timedelta(minutes=1)` waits for
        those due within a minute, and so on until none is. Ctrl-C stops it: once drains, twice cancels. It fires
        schedules that the store has, and declares none in a store that others share: `declare_schedules` does.

        Raises:
            OptionError: a setting with a value that cannot be.
            BlockingCallError: on a running event loop; use `arun_until_idle`.
        """
        refuse_on_loop("harbor.run_until_idle()", "harbor.arun_until_idle(...)")
        check_duration(within, "within")
        return run_until_idle(self._application(), self.worker(**settings), within)

    async def arun_until_idle(
        self, *, within: timedelta = timedelta(0), **settings: Unpack[WorkerOptions]
    ) -> WorkerCounts:
        """Work on the running event loop until idle; the async form of `run_until_idle`."""
        check_duration(within, "within")
        return await until_idle(self.worker(**settings), within)

    def _application(self) -> Application:
        from taskharbor.worker import Application

        return Application(
            self,
            self._driver,
            self._registry,
            self._codecs,
            self._codec,
            self._lifespan,
            self._connections.close_store,
            self._hub,
            self._middleware,
            self._declarations.request_at_start,
        )


def _configured_driver() -> Driver:
    from taskharbor.settings.store import configured_driver  # which looks for a file, and reads it

    return configured_driver()


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
