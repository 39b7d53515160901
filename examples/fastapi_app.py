"""A web application with FastAPI that enqueues from requests, and works its jobs off itself.

    uvicorn --factory fastapi_app:create_app        to serve it
    python fastapi_app.py                           to have it served and visited once, as the test suite does

Orders are written together with their jobs, in one transaction. A report takes its time, so the answer is the job's id,
and where to ask for it. The worker lives as long as the application: told to stop, it finishes what runs, for `grace`,
and leaves the rest to whoever starts next. Needs fastapi and uvicorn.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from demo.shop import Order, Placed, Report, add_up, place_order
from demo.visit import served, visit
from fastapi import FastAPI, HTTPException

from taskharbor import Harbor, JobNotFound, JobState


@dataclass(frozen=True)
class Asked:
    """The job that was enqueued."""

    job: str


@dataclass(frozen=True)
class Standing:
    """Where a report stands."""

    state: JobState
    done: float | None
    """How much of it is done, from 0 to 1."""
    report: Report | None


def create_app(path: Path = Path("shop.db"), grace: timedelta = timedelta(seconds=10)) -> FastAPI:
    """Make the application, with its rows and its jobs in one file."""
    harbor = Harbor(f"sqlite:///{path}", deps=lambda: nullcontext(path))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        harbor.install()  # for all requests: each of them has a context of its own
        async with harbor, harbor.worker(concurrency=10, grace=grace):
            yield

    app = FastAPI(lifespan=lifespan)

    # Not `async def`: sqlite3 blocks, so FastAPI runs this in a thread.
    @app.post("/orders", status_code=202)
    def place(order: Order) -> Placed:
        try:
            return place_order(harbor, path, order)
        except ValueError as error:
            raise HTTPException(422, str(error)) from None

    @app.post("/reports", status_code=202)
    async def ask_for_report() -> Asked:
        job = await add_up.aenqueue()
        return Asked(job.id)

    @app.get("/reports/{job}")
    async def report(job: str) -> Standing:
        handle = add_up.handle(job)
        try:
            state = (await handle.astatus()).state
        except JobNotFound:
            raise HTTPException(404, f"no report {job}") from None
        progress = await handle.aprogress()
        return Standing(
            state,
            done=progress.fraction if progress else None,
            report=await handle.aresult() if state is JobState.SUCCEEDED else None,
        )

    return app


if __name__ == "__main__":
    with TemporaryDirectory() as folder, served(create_app(Path(folder) / "shop.db")) as client:
        visit(client)
