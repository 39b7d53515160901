"""What happens, told to those who listen in this process, and counted for the statistics.

    hub           joins who tells and who listens; costs one look at a flag while nobody does
    buffer        what one listener has not read yet: bounded, with a policy for when it is full
    subscription  the listener's own end: iterated, blocking or not
    announcing    what producers tell
    endings       how a delivery ended, as an event
    events        `harbor.events(...)`: which events
    results       `harbor.results(...)`: typed results, decoded as their task declares them
    tallies       a worker's counts by minute, queue, task and ending

Who tells (producers and workers) never waits for who listens, unless a listener asked for that with
`when_full="wait"`: then they wait at the places that say so, until there is room.
"""

from taskharbor.telemetry.buffer import Overflow
from taskharbor.telemetry.events import Events
from taskharbor.telemetry.hub import Hub
from taskharbor.telemetry.results import Finished, Results
from taskharbor.telemetry.subscription import Subscription
from taskharbor.telemetry.tallies import Tallies

__all__ = [
    "Events",
    "Finished",
    "Hub",
    "Overflow",
    "Results",
    "Subscription",
    "Tallies",
]
