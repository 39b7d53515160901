"""Filling a table with jobs quickly: copies of one real row under other ids. What counts is how large the table is."""

from __future__ import annotations

from datetime import timedelta

from benchmarks.postgres.server import Bench
from taskharbor.drivers.postgres.routine import plain_array
from taskharbor.job import new_job_ids

_CHUNK = 20_000
_COLUMNS = "SELECT column_name FROM information_schema.columns WHERE table_schema = %s AND table_name = 'job'"


def fill(
    bench: Bench, schema: str, jobs: int, *, ahead: timedelta = timedelta(0), priority: int | None = None
) -> None:
    """Put so many copies of the job that is there beside it, due a microsecond after one another.

    Args:
        bench: the server.
        schema: where; its table has one job.
        jobs: how many.
        ahead: how much later than that job they are due.
        priority: theirs, if it is not that job's.
    """
    names = [str(name) for (name,) in bench.rows(_COLUMNS, [schema])]
    micros = ahead // timedelta(microseconds=1)
    moved = "m.{name} + (%(micros)s + c.number) * interval '1 microsecond'"
    changed = {"id": "c.id", "due": moved.format(name="due"), "run_at": moved.format(name="run_at")}
    if priority is not None:
        changed["priority"] = str(priority)
    bench.rows(f"CREATE TEMP TABLE model AS SELECT * FROM {schema}.job LIMIT 1")  # noqa: S608 - our own names
    for start in range(0, jobs, _CHUNK):
        ids = new_job_ids(min(_CHUNK, jobs - start))
        bench.rows(
            f"INSERT INTO {schema}.job ({', '.join(names)}) "  # noqa: S608
            f"SELECT {', '.join(changed.get(name, f'm.{name}') for name in names)} "
            "FROM model m, unnest(%(ids)s::text::uuid[]) WITH ORDINALITY c(id, number)",
            {"ids": plain_array(ids), "micros": micros + start},
        )
    bench.rows("DROP TABLE model")
