"""Middleware: in which order layers run, around enqueues and around attempts, and what they may change."""

from collections.abc import Iterator, Sequence
from datetime import timedelta

from taskharbor import Harbor, task
from taskharbor.middleware import Attempt, Middleware, Outgoing


class Told(Middleware):
    """Prints when it is gone into and out of. One class for `def` and `async def` tasks."""

    def __init__(self, name: str) -> None:
        """Call it by a name."""
        self.name = name

    def enqueue(self, jobs: Sequence[Outgoing]) -> Iterator[None]:
        """Surround the enqueue of a batch."""
        print(f"{self.name}: {len(jobs)} to be stored")
        yield
        print(f"{self.name}: stored")

    def run(self, attempt: Attempt) -> Iterator[None]:
        """Surround an attempt."""
        print(f"{self.name}: before attempt {attempt.context.attempt}")
        yield
        print(f"{self.name}: after it, with {attempt.result!r}")


class Remember(Middleware):
    """Gives a result that was worked out before, and does not run the handler then."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        self.results: dict[str, object] = {}

    def run(self, attempt: Attempt) -> Iterator[None]:
        """Look it up, or have it worked out."""
        place = str(attempt.arguments["place"])
        if place in self.results:
            print(f"remember: {place} is known")
            attempt.replace_result(self.results[place])
            return
        yield
        self.results[place] = attempt.result


@task(middleware=[Told("the task's"), Remember()])
async def population(place: str) -> int:
    """Count, slowly, who lives somewhere."""
    print(f"handler: counting {place}")
    return {"Delft": 109_000, "Utrecht": 376_000}[place]


def main() -> None:
    """Ask twice for the same place."""
    with Harbor("memory://", middleware=[Told("first"), Told("second")]) as harbor:
        for _ in range(2):
            job = population.enqueue("Delft")
            harbor.run_until_idle()
            print("=", job.result(timeout=timedelta(seconds=5)))


if __name__ == "__main__":
    main()
