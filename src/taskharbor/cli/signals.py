"""How a worker's process hears signals: on its event loop, given back at the end, and stacks on request."""

from __future__ import annotations

import asyncio
import faulthandler
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager


@contextmanager
def heard_by(
    loop: asyncio.AbstractEventLoop, number: signal.Signals, react: Callable[[], None]
) -> Generator[None]:
    """Call `react` on the loop for each such signal; afterwards ignore it, since the worker has ended already."""
    try:
        loop.add_signal_handler(number, react)
    except NotImplementedError:  # Windows has no signal handlers on loops
        signal.signal(number, lambda _number, _frame: loop.call_soon_threadsafe(react))
        yield
    else:
        try:
            yield
        finally:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def signals_restored() -> Generator[None]:
    """Give the signals back at the end to who heard them before."""
    heard = [signal.SIGTERM, signal.SIGINT]
    if sys.platform != "win32":
        heard.append(signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def stacks_on_request() -> Generator[None]:
    """Write the stacks of all threads to standard error on each SIGUSR1, even while the event loop is blocked."""
    stream = sys.__stderr__
    if sys.platform == "win32" or stream is None:
        yield
        return
    faulthandler.register(signal.SIGUSR1, stream, all_threads=True)
    try:
        yield
    finally:
        faulthandler.unregister(signal.SIGUSR1)
