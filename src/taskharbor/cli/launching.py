"""Starting workers: one in this process, or several under a supervisor, which runs this command again for each.

The supervisor never imports the application. So what is wrong with it, or with a setting, is found by its processes,
and ends them all.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from taskharbor.cli.exits import code_of
from taskharbor.cli.logs import LogFormat, LogLevel, configure_logging
from taskharbor.cli.store import file_of, url_of, where_of
from taskharbor.cli.target import Target, harbor_of
from taskharbor.cli.values import told_duration, told_numbers
from taskharbor.driver import Capability, require
from taskharbor.errors import TaskHarborError
from taskharbor.settings import Settings, load_settings
from taskharbor.supervisor import PROCESS_VARIABLE, Exit, supervise

if TYPE_CHECKING:
    from taskharbor.harbor import Harbor
    from taskharbor.working import WorkerOptions

logger = logging.getLogger("taskharbor.worker")

_BY_ITSELF = Settings()


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker process is told; None leaves it as it is by itself."""

    target: Target
    queues: list[str] | None = None
    concurrency: int | None = None
    handler_processes: int | None = None
    lease: timedelta | None = None
    grace: timedelta | None = None
    halt: timedelta | None = None
    prefetch: int | None = None
    weights: dict[str, int] | None = None
    reserved: dict[str, int] | None = None
    aging: timedelta | None = None
    aging_share: float | None = None
    stall: timedelta | None = None
    max_jobs: int | None = None
    max_memory: int | None = None
    """In bytes."""
    until_idle: bool = False
    within: timedelta = timedelta(0)
    log_level: LogLevel = LogLevel.INFO
    log_format: LogFormat = LogFormat.TEXT

    def settings(self) -> WorkerOptions:
        """Return the worker's own settings."""
        given: WorkerOptions = {}
        if self.queues is not None:
            given["queues"] = self.queues
        if self.concurrency is not None:
            given["concurrency"] = self.concurrency
        if self.handler_processes is not None:
            given["handler_processes"] = self.handler_processes
        if self.lease is not None:
            given["lease"] = self.lease
        if self.grace is not None:
            given["grace"] = self.grace
        if self.halt is not None:
            given["halt"] = self.halt
        if self.prefetch is not None:
            given["prefetch"] = self.prefetch
        if self.weights is not None:
            given["weights"] = self.weights
        if self.reserved is not None:
            given["reserved"] = self.reserved
        if self.aging is not None:
            given["aging"] = self.aging
        if self.aging_share is not None:
            given["aging_share"] = self.aging_share
        if self.stall is not None:
            given["stall"] = self.stall
        return given

    def command(self) -> list[str]:
        """Return the command line of one process with these orders."""
        return [sys.executable, "-m", "taskharbor.cli", "worker", *self._options()]

    def _options(self) -> Iterator[str]:
        if self.target.app:
            yield f"--app={self.target.app}"
        if self.target.url:
            yield f"--url={self.target.url}"
        for name, value in self.settings().items():
            if isinstance(value, timedelta):
                yield f"--{name.replace('_', '-')}={told_duration(value)}"
            elif isinstance(value, list):
                yield f"--{name}={','.join(self.queues or ())}"
            elif name == "weights":
                yield f"--weights={told_numbers(self.weights or {})}"
            elif name == "reserved":
                yield f"--reserve={told_numbers(self.reserved or {})}"
            else:
                yield f"--{name.replace('_', '-')}={value}"
        if self.max_jobs is not None:
            yield f"--max-jobs={self.max_jobs}"
        if self.max_memory is not None:
            yield f"--max-memory={self.max_memory}B"
        if self.until_idle:
            yield "--until-idle"
            yield f"--within={told_duration(self.within)}"
        yield f"--log-level={self.log_level.value}"
        yield f"--log-format={self.log_format.value}"


def launch(orders: Orders, processes: int) -> int:
    """Run workers until they are told to stop, and return an exit code. May end this process itself.

    A process that a supervisor has started runs one worker, whatever `processes` says.
    """
    number = os.environ.get(PROCESS_VARIABLE, "")
    if processes == 1 or number:
        configure_logging(orders.log_level, orders.log_format, number)
        return _logged(lambda: _serve(orders, number))
    configure_logging(orders.log_level, orders.log_format, "supervisor")
    return _logged(
        lambda: supervise(
            orders.command(),
            processes=processes,
            grace=_BY_ITSELF.grace if orders.grace is None else orders.grace,
            halt=_BY_ITSELF.halt if orders.halt is None else orders.halt,
            until_idle=orders.until_idle,
        )
    )


def _serve(orders: Orders, number: str) -> int:
    from taskharbor.cli.serving import leave, serve  # with it come asyncio and the worker
    from taskharbor.worker import WorkerSettings

    settings = WorkerSettings(**orders.settings())
    harbor = harbor_of(orders.target, tasks="worker")
    if number:
        require(harbor.driver, Capability.SHARED, "a worker of several processes")
    tell_settings()
    _tell_store(orders.target, harbor)
    code = serve(
        harbor,
        settings,
        until_idle=orders.within if orders.until_idle else None,
        max_jobs=orders.max_jobs,
        max_memory=orders.max_memory,
    )
    leave(code)


def tell_settings() -> None:
    """Log which file of settings plays a part: it may lie in another folder than one thinks."""
    file = load_settings().file
    if file is not None:
        logger.info("settings are read from %s", file)


def _tell_store(target: Target, harbor: Harbor) -> None:
    """Log which store is served: a worker at the wrong one waits there in peace, for ever."""
    path = file_of(harbor.driver)
    new = "" if path is None or os.path.exists(path) else ", which is not there yet, and is made now"
    told = url_of(target.url, target.application(), harbor.driver)
    if told is None:
        where = where_of(harbor.driver)
        told = f"the application's own ({harbor.driver.name}{f': {where}' if where else ''})"
    logger.info("the store is %s%s", told, new)


def _logged(run: Callable[[], int]) -> int:
    """Return what `run` returns; its errors go to the log, which is all that a service manager keeps."""
    try:
        return run()
    except TaskHarborError as error:
        logger.critical("%s", error)
        return code_of(error)
    except Exception:
        logger.critical("this is a bug; please report it", exc_info=True)
        return Exit.FAILED
