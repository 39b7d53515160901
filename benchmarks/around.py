"""What stands around a job, and what each costs: middleware, wrappers of codecs, events, reports; against plain jobs.

Each run fills an empty store and drains it. A ratio is the speed of the drain beside that of the same jobs without, so
of the same codec for wrappers, of the same task for reports.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import NamedTuple

from benchmarks.fixtures import IN_FLIGHT, fresh_url, noop, registry
from benchmarks.measure import Figures, Measure, Settings, Theme
from benchmarks.postgres.server import Bench, bench_server, schema_of
from taskharbor import Codec, Context, Harbor, JsonCodec, Signature, task
from taskharbor.codec.compression import ZstdCodec
from taskharbor.codec.encryption import EncryptedCodec, new_key
from taskharbor.middleware import Attempt, ContextVariables, JobLogging, Middleware, Outgoing, SlowJobs

_JOBS = 20_000
_TEXT = " ".join(f"customer {n} of the harbour ordered {n * 7} ropes;" for n in range(45))
"""About 2 kB, of which half is gone when it is compressed."""
_request: ContextVar[str] = ContextVar("request")
_silent = logging.Logger("benchmarks.silent", logging.INFO)  # noqa: LOG001 - of no hierarchy: nothing is written
_silent.addHandler(logging.NullHandler())


class _Nothing(Middleware):
    """Surrounds enqueue and run, and does nothing there."""

    def enqueue(self, jobs: Sequence[Outgoing]) -> Iterator[None]:
        yield

    def run(self, attempt: Attempt) -> Iterator[None]:
        yield


@task(registry=registry)
async def keep(text: str, n: int) -> int:
    """Do nothing with two kilobytes."""
    return n


@task(registry=registry)
async def silent(ctx: Context, n: int) -> int:
    """Do nothing, and say nothing, with a context."""
    return n


@task(registry=registry)
async def telling(ctx: Context, n: int) -> int:
    """Do nothing, and tell of it."""
    ctx.progress(1, 1)
    ctx.log("done")
    return n


class Variant(NamedTuple):
    """Jobs with something around them."""

    name: str
    calls: Sequence[Signature[int]]
    beside: str | None = "plain"
    """What it is compared with."""
    middleware: Sequence[Middleware] = ()
    codec: Codec | None = None
    listeners: int = 0
    watched: bool = False


@contextmanager
def theme(settings: Settings) -> Generator[Theme]:
    """Open the theme."""
    jobs = min(settings.jobs, _JOBS)
    plain = [noop.s("user@example.com", n) for n in range(jobs)]
    texts = [keep.s(_TEXT, n) for n in range(jobs)]
    key = {"bench": new_key()}
    variants = [
        Variant("plain", plain, None),
        Variant("a layer that does nothing", plain, middleware=[_Nothing()]),
        Variant("three of them", plain, middleware=[_Nothing(), _Nothing(), _Nothing()]),
        Variant("JobLogging, to nowhere", plain, middleware=[JobLogging(_silent)]),
        Variant("ContextVariables, one", plain, middleware=[ContextVariables(_request)]),
        Variant("SlowJobs", plain, middleware=[SlowJobs(timedelta(seconds=10))]),
        Variant("events, 1 subscriber", plain, listeners=1),
        Variant("events, 10 subscribers", plain, listeners=10),
        Variant("events, feed watched", plain, watched=True),
        Variant("2 kB, json", texts, None),
        Variant("2 kB, zstd", texts, "2 kB, json", codec=ZstdCodec(JsonCodec())),
        Variant(
            "2 kB, aes", texts, "2 kB, json", codec=EncryptedCodec(JsonCodec(), keys=key, active="bench")
        ),
        Variant(
            "2 kB, zstd and aes",
            texts,
            "2 kB, json",
            codec=EncryptedCodec(ZstdCodec(JsonCodec()), keys=key, active="bench"),
        ),
        Variant("a context", [silent.s(n) for n in range(jobs)], None),
        Variant("progress and log, once a job", [telling.s(n) for n in range(jobs)], "a context"),
    ]
    with _stores(settings) as stores:
        yield Theme(
            name="around",
            subjects=[_subject(stores, variant) for variant in variants],
            measures=[
                Measure(
                    name=f"{what}, {variant.name} : {variant.beside}",
                    unit="jobs/s",
                    ours=f"{what} {variant.name}",
                    ceiling=f"{what} {variant.beside}",
                )
                for what in ("drain", "enqueue")
                for variant in variants
                if variant.beside is not None
                and (what == "drain" or variant.middleware or variant.codec is not None)
            ],
        )


@contextmanager
def _stores(settings: Settings) -> Generator[_Stores]:
    if settings.driver != "postgres":
        yield _Stores(settings, None)
        return
    with bench_server(settings) as bench:
        yield _Stores(settings, bench)


class _Stores:
    """Where empty stores come from."""

    def __init__(self, settings: Settings, bench: Bench | None) -> None:
        self._settings = settings
        self._bench = bench

    def fresh(self) -> AbstractContextManager[str]:
        """Give the URL of one."""
        return fresh_url(self._settings) if self._bench is None else self._bench.schema()

    def steady(self, url: str) -> None:
        """Bring one that was filled to where a server at work has it."""
        if self._bench is not None:
            self._bench.steady(f"{schema_of(url)}.job")


def _subject(stores: _Stores, variant: Variant) -> Callable[[], Figures]:
    def run() -> Figures:
        _request.set("req-1")
        with ExitStack() as stack:
            url = stack.enter_context(stores.fresh())
            harbor = stack.enter_context(
                Harbor(url, registry=registry, middleware=variant.middleware, codec=variant.codec)
            )
            began = time.perf_counter()
            harbor.enqueue_many(variant.calls)
            filled = time.perf_counter()
            stores.steady(url)
            for _ in range(variant.listeners):
                stack.enter_context(harbor.events())
            if variant.watched:
                stack.enter_context(contextlib.closing(harbor.feed(reader="bench")))
            begin = time.perf_counter()
            harbor.run_until_idle(concurrency=IN_FLIGHT)
            ended = time.perf_counter()
        jobs = len(variant.calls)
        return {
            f"drain {variant.name}": jobs / (ended - begin),
            f"enqueue {variant.name}": jobs / (filled - began),
        }

    return run
