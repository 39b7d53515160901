"""What a harbor gives its workers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from taskharbor.call import Dispatcher
from taskharbor.codec import Codec, CodecBook
from taskharbor.driver import Driver, ScheduleDeclare
from taskharbor.task import Middleware, Registry
from taskharbor.telemetry import Hub
from taskharbor.worker.lifespan import Lifespan


class Application(msgspec.Struct, frozen=True):
    """What a harbor gives its workers."""

    dispatcher: Dispatcher
    """The harbor itself: current inside handlers."""
    driver: Driver
    registry: Registry
    codecs: CodecBook
    codec: Codec
    lifespan: Lifespan | None
    on_loop_end: Callable[[], Awaitable[None]]
    """Closes what the harbor has opened on a worker's own loop."""
    hub: Hub
    """Where those in this process listen to what happens."""
    middleware: tuple[Middleware, ...] = ()
    """Layers around every task, the first outermost."""
    declares: Callable[[], ScheduleDeclare | None] | None = None
    """Returns the schedules that are declared when a worker starts; None if there is nothing to be asked."""
