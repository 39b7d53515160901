"""A case: one sentence of the semantics, and how it is tried on a driver."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, ExitStack
from typing import TypeAlias
from unittest import SkipTest

import msgspec

from taskharbor.driver import Capability, Driver
from taskharbor_conformance.bench import Bench, OpenDriver
from taskharbor_conformance.caller import OpenCaller, PlaceWithCallers

CASE_SECONDS = 60.0
"""No case takes longer, so that a driver that hangs fails."""

DriverFactory: TypeAlias = Callable[[], Driver | AbstractContextManager[OpenDriver]]
"""Makes a fresh, empty place for jobs, and says how a driver on it is opened.

It returns a context manager around a function that opens a driver on that place, each call another one (around a
`PlaceWithCallers`, if the driver joins transactions); leaving the block removes the place. Or, where a driver object
*is* the place and no second one can find it, simply the driver.
The suite closes every driver it was given.
"""

Body: TypeAlias = Callable[[Bench], Awaitable[None]]


class Case(msgspec.Struct, frozen=True):
    """One case. Its name is the rule it tries, as a sentence."""

    name: str
    family: str
    rules: tuple[str, ...]
    """Numbers of the semantics (`docs/semantics.md`) such as `4.3`."""
    body: Body
    needs: Capability | None = None

    @property
    def id(self) -> str:
        """Return family and sentence, such as `settle/a_success_keeps_its_result`."""
        return f"{self.family}/{self.name}"

    def run(self, factory: DriverFactory) -> None:
        """Try the case on a fresh place of the factory's. Blocking: it runs an event loop of its own.

        Raises:
            AssertionError: the driver breaks the rule, or did not answer in time.
            SkipTest: the driver does not have the capability that the case needs.
        """
        with ExitStack() as stack:
            open_driver, open_caller = _openers(factory, stack)
            driver = open_driver()
            if self.needs is not None and self.needs not in driver.capabilities:
                raise SkipTest(f"the driver {driver.name!r} does not offer {self.needs.value!r}")
            asyncio.run(self._run(Bench(driver, open_driver, open_caller=open_caller)))

    async def _run(self, closed: Bench) -> None:
        limit = asyncio.timeout(CASE_SECONDS)
        try:
            async with limit, closed as bench:
                await self.body(bench)
        except TimeoutError as error:
            if limit.expired():
                raise AssertionError(f"{self.id} had not ended after {CASE_SECONDS:.0f} s") from error
            raise


def opener(factory: DriverFactory, stack: ExitStack) -> OpenDriver:
    """Return what opens drivers on one fresh place; they are closed, and the place is removed, with the stack."""
    return _openers(factory, stack)[0]


def _openers(factory: DriverFactory, stack: ExitStack) -> tuple[OpenDriver, OpenCaller | None]:
    made = factory()
    if not isinstance(made, AbstractContextManager):
        return _once(made, stack), None
    open_driver: OpenDriver = stack.enter_context(made)

    def open_and_close() -> Driver:
        driver = open_driver()
        stack.callback(driver.close)
        return driver

    open_caller = open_driver.open_caller if isinstance(open_driver, PlaceWithCallers) else None
    return open_and_close, open_caller


def _once(driver: Driver, stack: ExitStack) -> OpenDriver:
    drivers = [driver]
    stack.callback(driver.close)

    def open_it() -> Driver:
        assert drivers, (
            f"the driver {driver.name!r} says that its store can be opened again, but its factory made one driver "
            "only; let it return a context manager around a function that opens a driver on the same place"
        )
        return drivers.pop()

    return open_it


_cases: list[Case] = []


def case(*rules: str, needs: Capability | None = None) -> Callable[[Body], Body]:
    """Make an async function a case of the suite: its module is the family, its name the sentence."""

    def add(body: Body) -> Body:
        name = getattr(body, "__name__", "")
        family = body.__module__.rpartition(".")[2]
        _cases.append(Case(name, family, rules, body, needs))
        return body

    return add


def collected() -> tuple[Case, ...]:
    """Return every case declared so far, in order."""
    return tuple(_cases)
