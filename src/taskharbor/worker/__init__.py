"""Running jobs: see `worker.py` for the rooms and how a worker starts and stops."""

from taskharbor.worker.application import Application
from taskharbor.worker.counts import WorkerCounts
from taskharbor.worker.embedded import WorkerThread
from taskharbor.worker.lifespan import Lifespan
from taskharbor.worker.own_loop import in_own_thread, run_in_own_loop
from taskharbor.worker.settings import WorkerSettings
from taskharbor.worker.worker import Worker

__all__ = [
    "Application",
    "Lifespan",
    "Worker",
    "WorkerCounts",
    "WorkerSettings",
    "WorkerThread",
    "in_own_thread",
    "run_in_own_loop",
]
