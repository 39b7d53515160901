"""Who is woken when a flow is enqueued, advances, fails and ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from taskharbor.driver import Subscription
from taskharbor.flow import NewFlow, Sequel
from taskharbor_conformance.bench import Bench, Doorbell, burial, new_job, success
from taskharbor_conformance.case import case
from taskharbor_conformance.graphs import chain, chord, failure_template, ids_of


@asynccontextmanager
async def _woken(subscription: Subscription, bell: Doorbell) -> AsyncGenerator[None]:
    try:
        yield
        await bell.wait()
    finally:
        subscription.close()


def _queue_woken(bench: Bench, queue: str) -> AbstractAsyncContextManager[None]:
    bell = Doorbell()
    return _woken(bench.driver.watch_queues([queue], bell), bell)


def _flow_woken(bench: Bench, flow: NewFlow) -> AbstractAsyncContextManager[None]:
    bell = Doorbell()
    return _woken(bench.driver.watch_jobs([flow.id], bell), bell)


@case("4.14", "4.10")
async def a_step_that_comes_to_be_ready_wakes_its_queue(bench: Bench) -> None:
    await bench.enqueue_flow(chain(new_job(), new_job(queue="mail")))
    delivery = await bench.take_one()

    async with _queue_woken(bench, "mail"):
        await bench.settle(success(delivery))


@case("4.14", "4.10")
async def a_failure_that_lets_a_step_go_wakes_its_queue(bench: Bench) -> None:
    await bench.enqueue_flow(chord(1, new_job(queue="mail"), tolerant=True))
    delivery = await bench.take_one()

    async with _queue_woken(bench, "mail"):
        await bench.settle(burial(delivery))


@case("4.14", "4.10")
async def an_on_failure_job_wakes_its_queue(bench: Bench) -> None:
    await bench.enqueue_flow(chain(on_failure=failure_template("failures")))
    delivery = await bench.take_one()

    async with _queue_woken(bench, "failures"):
        await bench.settle(burial(delivery))


@case("4.13", "4.10")
async def what_a_success_brings_wakes_its_queue(bench: Bench) -> None:
    await bench.enqueue()
    delivery = await bench.take_one()

    async with _queue_woken(bench, "mail"), _queue_woken(bench, "video"):
        sequel = Sequel(jobs=(new_job(queue="mail"),), flows=(chain(new_job(queue="video")),))
        await bench.settle(success(delivery, sequel=sequel))


@case("4.14", "4.10")
async def a_flow_that_is_enqueued_wakes_the_queues_of_what_may_run(bench: Bench) -> None:
    async with _queue_woken(bench, "mail"):
        await bench.enqueue_flow(chain(new_job(queue="mail"), new_job()))


@case("4.14", "4.8")
async def the_end_of_a_flow_wakes_who_waits_for_it(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain())
    await bench.finish(ids_of(flow)[0])
    delivery = await bench.take_one()

    async with _flow_woken(bench, flow):
        await bench.settle(success(delivery))


@case("4.14", "4.8")
async def a_failure_wakes_who_waits_for_the_flow(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain())
    delivery = await bench.take_one()

    async with _flow_woken(bench, flow):
        await bench.settle(burial(delivery))


@case("4.14", "4.8", "4.11")
async def a_cancel_wakes_who_waits_for_the_flow(bench: Bench) -> None:
    whole, by_step = await bench.enqueue_flow(chain()), await bench.enqueue_flow(chain())

    async with _flow_woken(bench, whole):
        await bench.cancel_flows(whole.id)
    async with _flow_woken(bench, by_step):
        await bench.cancel(ids_of(by_step)[0])


@case("4.14", "4.8", "4.11")
async def a_flow_that_is_cancelled_while_its_last_step_runs_wakes_who_waits_for_it(bench: Bench) -> None:
    flow = await bench.enqueue_flow(chain(new_job()))
    await bench.take_one()

    async with _flow_woken(bench, flow):
        await bench.cancel_flows(flow.id)
