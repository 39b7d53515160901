"""A type of your own in a signature: say once how it crosses the wire, and it is checked like any other."""

from datetime import timedelta

from taskharbor import Harbor, PayloadError, register_type, task


class Money:
    """An amount, in cents, of one currency."""

    def __init__(self, cents: int, currency: str) -> None:
        """Make an amount."""
        self.cents = cents
        self.currency = currency

    def __str__(self) -> str:
        return f"{self.cents // 100}.{self.cents % 100:02} {self.currency}"

    @classmethod
    def parse(cls, text: str) -> "Money":
        """Read what `str` wrote. Raises ValueError for anything else."""
        amount, _, currency = text.partition(" ")
        if len(currency) != 3:
            raise ValueError(f"{text!r} is no amount of money; expected for example '12.50 EUR'")
        return cls(round(float(amount) * 100), currency)


# Before the tasks that use it: a task whose types nothing can carry is refused where it is declared.
register_type(Money, wire=str, encode=str, decode=Money.parse)


@task
def add_tax(net: Money, percent: int = 20) -> Money:
    """Return the amount with tax."""
    return Money(net.cents * (100 + percent) // 100, net.currency)


def main() -> None:
    """Send one amount there and back, and one that is refused."""
    with Harbor("memory://") as harbor, harbor.worker_thread():
        job = add_tax.enqueue(Money(1250, "EUR"))
        print(harbor.jobs.get(job.id).payload.decode())
        print(job.result(timeout=timedelta(seconds=5)))
        try:
            add_tax.enqueue(Money(1250, "EURO"))
        except PayloadError as error:
            print(f"refused at {error.path}: {error.reason}")


if __name__ == "__main__":
    main()
