"""One stateful Hypothesis model of the driver contract: any order of verbs, on any driver, against a simple book.

`contract_machine(factory)` gives a state machine class. Each of its runs opens a fresh store, carries out verbs
that Hypothesis picks, and compares every answer with `Book`, a second and deliberately naive reading of the rules: a
dict of jobs, a dict of leases, and sorting. After each step the whole store is read back and compared too. So the book
says what is right, the driver how it is done, and a failure comes shrunk to the fewest steps that show it.

    from hypothesis.stateful import run_state_machine_as_test

    def test_any_order_of_verbs_follows_the_contract():
        run_state_machine_as_test(contract_machine(MyDriver))

Time is passed in every request and only ever goes forward: the contract does not define what a clock that steps back
does. Backoff is without jitter, since no answer could be predicted otherwise.
"""

from __future__ import annotations

from taskharbor.driver import Driver
from taskharbor_conformance.case import DriverFactory, opener
from taskharbor_conformance.model.handling import Handling
from taskharbor_conformance.model.looking import Looking
from taskharbor_conformance.model.producing import Producing
from taskharbor_conformance.model.scheduling import Scheduling

__all__ = ["ContractMachine", "contract_machine"]


class ContractMachine(Producing, Handling, Scheduling, Looking):
    """Carries out verbs on a store and in the book, and compares. Get one for a driver from `contract_machine`."""


def contract_machine(factory: DriverFactory) -> type[ContractMachine]:
    """Return a state machine of the contract for the drivers of a factory, as `conformance_test` takes it.

    The factory is called once a run and has to give an empty place. Run the machine with
    `hypothesis.stateful.run_state_machine_as_test`, or collect its `TestCase`.
    """

    class DriverMachine(ContractMachine):
        def make_driver(self) -> Driver:
            return opener(factory, self.place)()

    return DriverMachine
