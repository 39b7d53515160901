"""For the tests of applications: a harbor in memory with a clock to turn, and assertions on what was enqueued.

inline.py      `InlineHarbor`: drain, failures on purpose
joining.py     its store: `harbor.using`, and no waiting where nothing works
passes.py      one pass of a worker after the other, the clock turned in between
faults.py      the failures: of attempts, and of enqueues
calls.py       what was enqueued, read back with its arguments decoded
expected.py    what a test expects of a call, and how far one is from it
asserting.py   `enqueued`, `assert_enqueued`, `assert_not_enqueued`

The fixtures for pytest stand in a package of their own, `taskharbor_pytest`, so that they cost nothing unused.
"""

from taskharbor.clock import ManualClock
from taskharbor.testing.asserting import assert_enqueued, assert_not_enqueued, enqueued
from taskharbor.testing.calls import EnqueuedCall
from taskharbor.testing.inline import InlineHarbor

__all__ = [
    "EnqueuedCall",
    "InlineHarbor",
    "ManualClock",
    "assert_enqueued",
    "assert_not_enqueued",
    "enqueued",
]
