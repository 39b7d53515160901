"""What all tests rely on, however they were started."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator

import pytest

# A shell without job control has what it starts in the background ignore Ctrl-C, and so all that is started by that.
# Tests send interrupts to programs of their own, and expect them to be heard.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Take down the handlers of commands that ran in this process: they write to a stream of a test that has ended."""
    root = logging.getLogger()
    level = root.level
    yield
    # Exactly these: pytest's own are of classes derived from it.
    ours = [handler for handler in root.handlers if type(handler).__qualname__ == "StreamHandler"]
    for handler in ours:
        root.removeHandler(handler)
    root.setLevel(level)
