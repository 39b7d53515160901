"""Fixtures for pytest: `inline_harbor`, `harbor_clock`, and `taskharbor_app` to be overridden.

pytest loads this wherever TaskHarbor is installed, so it is no part of `taskharbor`, which would be imported with it:
whoever uses none of these pays nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from taskharbor import Harbor
    from taskharbor.testing import InlineHarbor, ManualClock

__all__ = ["harbor_clock", "inline_harbor", "taskharbor_app"]


@pytest.fixture
def taskharbor_app() -> Harbor | None:
    """Return your application's harbor, whose tasks, codecs, layers and deps `inline_harbor` has; to be overridden.

    By default None: then `inline_harbor` knows the tasks of the default registry, and has no dependencies to give.
    """
    return None


@pytest.fixture
def inline_harbor(taskharbor_app: Harbor | None) -> Iterator[InlineHarbor]:
    """Give a harbor in memory that is current during the test, in all its threads and event loops."""
    from taskharbor.testing import InlineHarbor

    harbor = InlineHarbor() if taskharbor_app is None else InlineHarbor.like(taskharbor_app)
    with harbor.everywhere():
        yield harbor


@pytest.fixture
def harbor_clock(inline_harbor: InlineHarbor) -> ManualClock:
    """Give the clock of `inline_harbor`, to be turned."""
    return inline_harbor.clock
