"""A report on a schedule: two workers, one report a tick; one for each region, at eight in Paris; one from a file."""

import sys
import tempfile
import threading
from datetime import datetime, timedelta
from itertools import islice, pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

from taskharbor import Context, Harbor, cron, every, task
from taskharbor.scheduling import ticks

SALES = {"north": (120, 80, 95), "south": (40, 310)}
REPORTS = 3
PATIENCE = timedelta(minutes=1)

# What would stand in a file beside the program, for whoever runs it to change: see docs/scheduling.md.
FILE = """
[[schedules]]
task = "sales.report"
name = "report-all"
description = "for the head office"
cron = "0 9 * * mon"
tz = "Europe/Paris"
"""

made: list[datetime] = []
enough = threading.Event()


@task(schedule=every(timedelta(seconds=1), overlap="skip"))
def total(ctx: Context) -> int:
    """Add up all sales, each second: `ctx.tick` is the second that it stands for, late or not."""
    if ctx.tick is not None:  # None where somebody triggered it by hand
        made.append(ctx.tick)
    if len(made) >= REPORTS:
        enough.set()
    return sum(map(sum, SALES.values()))


@task(name="sales.report")
def report(region: str = "all") -> str:
    """Tell the sales of a region, or of all."""
    return f"{region}: {sum(sum(sales) for name, sales in SALES.items() if region in (name, 'all'))}"


def main() -> None:
    """Declare the schedules, let two workers serve them for a few seconds, and make two reports by hand."""
    with tempfile.TemporaryDirectory() as folder:
        harbor = Harbor(f"sqlite:///{Path(folder) / 'reports.db'}", application="sales")
        for region in SALES:
            harbor.schedule(
                report.s(region), cron("0 8 * * mon-fri", tz="Europe/Paris"), name=f"report-{region}"
            )
        file = Path(folder) / "schedules.toml"
        file.write_text(FILE, encoding="utf-8")
        harbor.schedule_file(file)

        with harbor, harbor.worker_thread(), harbor.worker_thread():
            if not enough.wait(PATIENCE.total_seconds()):
                sys.exit(f"{len(made)} of {REPORTS} reports came within {PATIENCE}: is the machine busy?")
            for name in ("sales/report-north", "sales/report-all"):
                job = report.handle(harbor.schedules.trigger(name).job_id)
                print(job.result(timeout=PATIENCE))

            for record in harbor.schedules.list(application="sales"):
                print(record.name, "calls", record.job.task)

        first = made[:REPORTS]
        print("a second apart:", all(b - a == timedelta(seconds=1) for a, b in pairwise(first)))

        # Across the night on which Paris sets its clocks forward, it is 8 o'clock there all the same.
        paris = ZoneInfo("Europe/Paris")
        for tick in islice(
            ticks(cron("0 8 * * *", tz="Europe/Paris"), datetime(2026, 3, 28, 12, tzinfo=paris)), 2
        ):
            print(f"{tick:%d %b %H:%M} UTC is {tick.astimezone(paris):%H:%M} in Paris")


if __name__ == "__main__":
    main()
