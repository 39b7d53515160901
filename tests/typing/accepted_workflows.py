"""Workflows that every type checker must accept, with the types they must reveal. Never run.

`tests/test_typing.py` runs mypy, basedpyright, pyrefly and ty over it; `refused_workflows.py` is its counterpart.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import assert_type

from tests.typing.tasks import (
    Page,
    Receipt,
    Thumb,
    add,
    alarm,
    count,
    crop,
    fetch,
    flatten,
    heartbeat,
    index,
    label,
    links_of,
    merge,
    parse,
    parse_all,
    report,
    resize,
    show,
    sum_up,
    tally,
    total,
    urls,
)

from taskharbor import (
    Bound,
    Failure,
    Flow,
    FlowFailure,
    FlowGraph,
    FlowHandle,
    FlowState,
    FlowStatus,
    FlowStep,
    Harbor,
    JobHandle,
    JobState,
    Link,
    Pipeline,
    Signature,
    Success,
    chain,
    chord,
    each,
    gather,
    group,
)
from taskharbor.workflow import Gather2, Gather3, Gather4, Gather5

# Functions as links, beside lambdas: named, with their types written out.


def parse_strictly(body: bytes) -> Signature[Page]:
    return parse.s(body, strict=True)


def fetch_and_parse(url: str) -> Signature[Page]:
    return chain(fetch.s(url), parse)


def stack(page: Page, thumb: Thumb) -> Signature[Receipt]:
    return merge.s(page, thumb, loud=True)


def of_three(a: int, b: str, c: Page) -> Signature[int]:
    return sum_up.s([a, len(b)], start=len(c.title))


def of_four(a: int, b: str, c: Page, d: Thumb) -> Signature[int]:
    return of_three(a + d.width, b, c)


def of_five(a: int, b: str, c: Page, d: Thumb, e: bytes) -> Signature[int]:
    return of_four(a + len(e), b, c, d)


# --- chain over a signature: a flow ----------------------------------------------------------------------


async def chains() -> None:
    assert_type(chain(fetch.s("u"), parse), Flow[Page])
    assert_type(chain(fetch.s("u"), parse, count), Flow[int])
    assert_type(chain(fetch.s("u"), parse, count, show), Flow[str])
    assert_type(chain(urls.s("u"), each(fetch), each(parse), each(count), sum_up), Flow[int])
    assert_type(chain(fetch.s("u"), parse.options(queue="low"), count.options(priority=1)), Flow[int])
    assert_type(chain(fetch.options(queue="low").s("u"), parse), Flow[Page])
    # The context is no parameter: it is not the value's place.
    assert_type(chain(add.s(1, 2), resize), Flow[Thumb])
    # A flow is sent like a signature, and its handle is a job handle.
    assert_type(chain(fetch.s("u"), parse).enqueue(), FlowHandle[Page])
    assert_type(await chain(fetch.s("u"), parse).aenqueue(), FlowHandle[Page])
    assert_type(chain(fetch.s("u"), parse, count).enqueue().result(), int)


# --- functions as links place the value where they like --------------------------------------------------


def functions() -> None:
    assert_type(chain(fetch.s("u"), parse_strictly), Flow[Page])
    assert_type(chain(fetch.s("u"), parse_strictly, count), Flow[int])
    assert_type(chain(fetch.s("u"), lambda body: parse.s(body, strict=True)), Flow[Page])
    assert_type(chain(fetch.s("u"), lambda body: parse.s(body, strict=True), count), Flow[int])
    assert_type(chain(fetch.s("u"), lambda body: parse_all.s(True, body=body), count), Flow[int])
    assert_type(chain(fetch.s("u"), parse, lambda page: merge.s(page, thumb=Thumb(1))), Flow[Receipt])
    assert_type(chain(add.s(1, 2), lambda n: crop.s(n, width=1)), Flow[Thumb])
    assert_type(chain(add.s(1, 2), lambda n: resize.s(1, width=n)), Flow[Thumb])


# --- chain over bare tasks: a pipeline, with the parameters of its head ----------------------------------


async def pipelines() -> None:
    assert_type(chain(label, lambda text: fetch.s(url=text)), Pipeline[[int], bytes])
    assert_type(chain(fetch, parse, count).enqueue("u"), FlowHandle[int])
    assert_type(chain(fetch, parse, count).enqueue(url="u"), FlowHandle[int])
    assert_type(await chain(fetch, parse, count, show).aenqueue(url="u"), FlowHandle[str])
    assert_type(chain(fetch, parse).s("u"), Flow[Page])
    assert_type(chain(fetch, parse).s(url="u").then(count), Flow[int])
    assert_type(chain(fetch.options(queue="low"), parse).enqueue(url="u"), FlowHandle[Page])
    assert_type(chain(fetch, lambda body: parse.s(body, strict=True), count).s("u"), Flow[int])
    assert_type(chain(resize, one_of).enqueue(1, width=2), FlowHandle[str])
    assert_type(chain(crop, one_of).enqueue(1, width=2), FlowHandle[str])
    # A pipeline goes wherever a bound task goes.
    bound(chain(label, lambda text: fetch.s(url=text)))


def one_of(thumb: Thumb) -> Signature[str]:
    return show.s(thumb.width, unit="px")


def bound(task: Bound[[int], bytes]) -> JobHandle[bytes]:
    return task.enqueue(1)


# --- then: the same without limit of length --------------------------------------------------------------


def thens() -> None:
    assert_type(fetch.s("u").then(parse), Flow[Page])
    assert_type(fetch.s("u").then(parse).then(count).then(show), Flow[str])
    assert_type(fetch.s("u").then(lambda body: parse.s(body, strict=True)).then(count), Flow[int])
    assert_type(fetch.s("u").then(parse_strictly).enqueue(), FlowHandle[Page])
    assert_type(chain(fetch.s("u"), parse).then(count).then(lambda n: show.s(n, unit="m")), Flow[str])
    assert_type(urls.s("u").then(each(fetch)).then(each(parse)).then(report), Flow[Receipt])
    assert_type(fetch.s("u").then(chain(parse, count)), Flow[int])


# --- group -----------------------------------------------------------------------------------------------


def groups(sites: Sequence[str]) -> None:
    assert_type(group(fetch.s("u"), fetch.s("v")), Flow[list[bytes]])
    assert_type(group(*[fetch.s(site) for site in sites]), Flow[list[bytes]])
    assert_type(group(fetch.s("u"), fetch.s("v")).enqueue().result(), list[bytes])
    assert_type(group(add.s(1, 2), add.s(3, 4)).then(sum_up), Flow[int])
    assert_type(group(add.s(1, 2), add.s(3, 4)).then(lambda ns: sum_up.s(ns, start=1)), Flow[int])
    assert_type(chain(group(add.s(1, 2), add.s(3, 4)), sum_up, show), Flow[str])


# --- chord: over a group, and over any iterable ----------------------------------------------------------


def chords(sites: Sequence[str]) -> None:
    assert_type(chord(group(add.s(1, 2), add.s(3, 4)), sum_up), Flow[int])
    assert_type(chord([add.s(1, 2), add.s(3, 4)], sum_up), Flow[int])
    assert_type(chord((add.s(n, n) for n in range(3)), sum_up), Flow[int])
    assert_type(chord({add.s(1, 2)}, sum_up.options(priority=1)), Flow[int])
    assert_type(chord([add.s(1, 2)], lambda ns: sum_up.s(ns, start=1)), Flow[int])
    assert_type(chord([chain(fetch.s(site), parse) for site in sites], report), Flow[Receipt])
    assert_type(chord(group(*[chain(fetch.s(site), parse) for site in sites]), report), Flow[Receipt])
    assert_type(chord([add.s(1, 2)], chain(sum_up, show)), Flow[str])
    assert_type(chord([add.s(1, 2)], sum_up).then(show).enqueue(), FlowHandle[str])


# --- each: over tasks, chains and named functions --------------------------------------------------------


def fans() -> None:
    assert_type(each(fetch), Link[list[str], list[bytes]])
    assert_type(each(parse.options(queue="low")), Link[list[bytes], list[Page]])
    assert_type(each(chain(fetch, parse)), Link[list[str], list[Page]])
    assert_type(each(parse_strictly), Link[list[bytes], list[Page]])
    assert_type(each(fetch_and_parse), Link[list[str], list[Page]])
    assert_type(each(each(add_one)), Link[list[list[int]], list[list[int]]])
    assert_type(chain(urls.s("u"), each(fetch)), Flow[list[bytes]])
    assert_type(chain(urls.s("u"), each(chain(fetch, parse)), report), Flow[Receipt])
    assert_type(chain(urls.s("u"), each(fetch), each(parse_strictly), report), Flow[Receipt])
    assert_type(chain(urls, each(fetch_and_parse), report).enqueue(site="u"), FlowHandle[Receipt])
    assert_type(chord([add.s(1, 2)], each(show)), Flow[list[str]])


def add_one(n: int) -> Signature[int]:
    return add.s(n, 1)


# --- gather: results of different types ------------------------------------------------------------------


def gathers() -> None:
    page, thumb = parse.s(b""), resize.s(1)
    assert_type(gather(page, thumb), Gather2[Page, Thumb])
    assert_type(gather(page, thumb).then(merge), Flow[Receipt])
    assert_type(gather(page, thumb).then(merge.options(queue="low")), Flow[Receipt])
    assert_type(gather(page, thumb).then(stack), Flow[Receipt])
    assert_type(gather(page, thumb).then(lambda p, t: merge.s(p, t, loud=True)), Flow[Receipt])
    assert_type(gather(page, thumb).then(lambda p, t: merge.s(thumb=t, page=p)), Flow[Receipt])
    assert_type(gather(chain(fetch.s("u"), parse), thumb).then(merge).enqueue(), FlowHandle[Receipt])
    assert_type(gather(add.s(1, 2), add.s(3, 4)).then(add).then(show), Flow[str])
    assert_type(gather(add.s(1, 2), label.s(1), page).then(of_three), Flow[int])
    assert_type(gather(add.s(1, 2), add.s(1, 2), add.s(1, 2)).then(total), Flow[int])
    assert_type(gather(add.s(1, 2), label.s(1), page, thumb).then(of_four), Flow[int])
    five = gather(add.s(1, 2), label.s(1), page, thumb, fetch.s("u"))
    assert_type(five, Gather5[int, str, Page, Thumb, bytes])
    assert_type(five.then(of_five), Flow[int])
    assert_type(five.then(lambda a, b, c, d, e: fetch.s(b)), Flow[bytes])


# --- they nest -------------------------------------------------------------------------------------------


def nesting(sites: Sequence[str]) -> None:
    pipeline = chain(fetch, parse)
    assert_type(chain(fetch.s("u"), chain(parse, count), show), Flow[str])
    assert_type(chain(pipeline, count).enqueue("u"), FlowHandle[int])
    assert_type(chain(chain(fetch.s("u"), parse), count), Flow[int])
    assert_type(group(pipeline.s("u"), pipeline.s("v")).then(report), Flow[Receipt])
    assert_type(group(group(add.s(1, 2)), group(add.s(3, 4))), Flow[list[list[int]]])
    assert_type(chord([group(add.s(1, 2)).then(sum_up), add.s(1, 2)], sum_up), Flow[int])
    assert_type(chain(chord([add.s(1, 2)], sum_up), show), Flow[str])
    assert_type(gather(group(pipeline.s("u")).then(report), pipeline.s("v")).then(last), Flow[int])
    assert_type(chain(urls.s("u"), lambda found: group(*[fetch.s(str(found))])), Flow[list[bytes]])
    assert_type(each(chain(pipeline, count)), Link[list[str], list[int]])
    assert_type(chord([pipeline.s(site) for site in sites], each(count)).then(sum_up), Flow[int])


def last(receipt: Receipt, page: Page) -> Signature[int]:
    return count.s(page) if receipt.id else add.s(1, 2)


# --- a flow is a signature, of any wider type too --------------------------------------------------------


def wider(flow: Flow[object], signature: Signature[int | str], link: Link[bytes, object]) -> None:
    handle: FlowHandle[object] = chain(fetch.s("u"), parse).enqueue()
    job: JobHandle[object] = handle
    wider(chain(fetch.s("u"), parse), chain(fetch.s("u"), parse, count), chain(parse, count))
    wider(group(heartbeat.s()), chord([add.s(1, 2)], sum_up), parse)
    wider(chain(job_of(handle), lambda _: heartbeat.s()), signature, link)
    wider(chain(job_of(job), lambda _: heartbeat.s()), signature, link)


def job_of(job: JobHandle[object]) -> Signature[str]:
    return fetch_title.s(job.id)


fetch_title = chain(fetch, parse, lambda page: show.s(len(page.title)))


# --- long chains: up to eight, of either start -----------------------------------------------------------


def long_chains() -> None:
    assert_type(chain(fetch.s("u"), parse, links_of, each(fetch), each(parse), report), Flow[Receipt])
    assert_type(chain(fetch, parse, links_of, each(fetch), each(parse), report).s("u"), Flow[Receipt])
    assert_type(
        chain(fetch.s("u"), parse, links_of, each(fetch), each(parse), each(count), sum_up), Flow[int]
    )
    assert_type(
        chain(fetch.s("u"), parse, links_of, each(fetch), each(parse), each(count), sum_up, show), Flow[str]
    )
    whole = chain(fetch, parse, links_of, each(fetch), each(parse), each(count), sum_up, show)
    assert_type(whole.enqueue(url="u"), FlowHandle[str])
    assert_type(chain(whole, fetch).s("u"), Flow[bytes])


# --- a group that allows failures ------------------------------------------------------------------------


def tolerant(sites: Sequence[str]) -> None:
    some = group(add.s(1, 2), add.s(3, 4), allow_failures=True)
    assert_type(some, Flow[list[Success[int] | Failure]])
    assert_type(some.enqueue().result(), list[Success[int] | Failure])
    assert_type(some.then(tally), Flow[int])
    assert_type(chord(some, tally.options(priority=1)), Flow[int])
    assert_type(chord(some, lambda told: tally.s(told, least=1)), Flow[int])
    assert_type(chain(some, tally, show), Flow[str])
    assert_type(chain(some, each(told)), Flow[list[int]])
    assert_type(group(add.s(1, 2), allow_failures=False), Flow[list[int]])
    assert_type(
        group(*[chain(fetch, parse, count).s(site) for site in sites], allow_failures=True).then(tally),
        Flow[int],
    )
    assert_type(
        group(group(add.s(1, 2)), allow_failures=True).enqueue().result(), list[Success[list[int]] | Failure]
    )
    assert_type(group(group(add.s(1, 2), allow_failures=True)), Flow[list[list[Success[int] | Failure]]])
    assert_type(gather(some, parse.s(b"")).then(lambda told, page: tally.s(told)), Flow[int])
    for outcome in some.enqueue().result():
        if isinstance(outcome, Failure):
            assert_type(outcome.error_type, str)
        else:
            assert_type(outcome.value, int)


def told(outcome: Success[int] | Failure) -> Signature[int]:
    return add.s(1, 2) if isinstance(outcome, Failure) else add.s(outcome.value, 0)


# --- deeper: groups of groups, chords over flows, each of each, gathers of chains ------------------------


def deeper(sites: Sequence[str]) -> None:
    page = chain(fetch, parse)
    rows = group(group(add.s(1, 2), add.s(3, 4)), group(add.s(5, 6)))
    assert_type(chord(rows, flatten), Flow[list[int]])
    assert_type(chord(rows, flatten).then(sum_up), Flow[int])
    assert_type(rows.then(each(sum_up)), Flow[list[int]])
    assert_type(rows.then(each(each(show))), Flow[list[list[str]]])
    assert_type(chain(rows, each(each(show)), each(joined)), Flow[list[str]])
    # Any signature of a list will do for a chord, and a list in a list for a chord of chords.
    assert_type(chord(urls.s("u"), each(page)), Flow[list[Page]])
    assert_type(chord(chain(urls.s("u"), each(page)), report), Flow[Receipt])
    assert_type(chord(chord([add.s(1, 2)], each(show)), each(fetch)), Flow[list[bytes]])
    assert_type(chord([chord([add.s(1, 2)], sum_up), add.s(3, 4)], sum_up), Flow[int])
    assert_type(chord([urls.s(site).then(each(page)) for site in sites], index), Flow[dict[str, int]])
    assert_type(chord((page.s(site) for site in sites), report.options(queue="low")), Flow[Receipt])
    # each of each, over tasks, pipelines and functions.
    assert_type(each(each(page)), Link[list[list[str]], list[list[Page]]])
    assert_type(each(chain(links_of, each(page))), Link[list[Page], list[list[Page]]])
    assert_type(
        chain(urls, each(page), each(chain(links_of, each(page))), index).s("u"), Flow[dict[str, int]]
    )
    assert_type(each(all_of), Link[list[list[int]], list[int]])
    assert_type(each(fetch).s(["u", "v"]), Signature[list[bytes]])
    assert_type(each(fetch).s(["u"]).then(each(parse)).then(report), Flow[Receipt])
    assert_type(each(add_one).s([1, 2]).then(sum_up).enqueue(), FlowHandle[int])
    # then after each, with a function that places the list.
    assert_type(urls.s("u").then(each(page)).then(lambda pages: report.s(pages, title="t")), Flow[Receipt])
    assert_type(urls.s("u").then(each(fetch)).then(each(parse_strictly)).then(each(count)), Flow[list[int]])


def joined(texts: list[str]) -> Signature[str]:
    return show.s(len(texts))


def all_of(numbers: list[int]) -> Signature[int]:
    return sum_up.s(numbers, start=1)


def gathered(sites: Sequence[str]) -> None:
    page, thumb = chain(fetch, parse), chain(add.s(1, 2), resize)
    assert_type(gather(page.s("u"), thumb), Gather2[Page, Thumb])
    assert_type(gather(page.s("u"), thumb).then(merge).then(lambda r: fetch.s("u")), Flow[bytes])
    assert_type(gather(group(*map(page.s, sites)), count.s(Page(""))).then(numbered), Flow[Receipt])
    assert_type(gather(urls.s("u").then(each(page)), add.s(1, 2)).then(numbered), Flow[Receipt])
    assert_type(gather(chord([add.s(1, 2)], sum_up), label.s(1), page.s("u")), Gather3[int, str, Page])
    assert_type(gather(thumb, label.s(1), page.s("u"), urls.s("u")), Gather4[Thumb, str, Page, list[str]])
    assert_type(group(gather(page.s("u"), thumb).then(merge)), Flow[list[Receipt]])
    assert_type(gather(add.s(1, 2), add.s(3, 4)).then(add.options(queue="low")).then(show), Flow[str])
    assert_type(each(page_and_thumb), Link[list[str], list[Receipt]])


def numbered(pages: list[Page], number: int) -> Signature[Receipt]:
    return report.s(pages, title=str(number))


def page_and_thumb(site: str) -> Signature[Receipt]:
    return gather(chain(fetch.s(site), parse), resize.s(1)).then(merge)


# --- pipelines: reusable, links themselves, with options -------------------------------------------------


async def reused(wait: timedelta) -> None:
    page = chain(fetch, parse)
    assert_type(page.options(queue="low").enqueue("u"), FlowHandle[Page])
    assert_type(await page.options(priority=1).options(run_in=wait).aenqueue(url="u"), FlowHandle[Page])
    assert_type(page.options(key="k").s("u"), Flow[Page])
    assert_type(page.name, str)
    assert_type(page.handle("0192"), FlowHandle[Page])
    assert_type(chain(page, count).options(timeout=wait).s(url="u").then(show), Flow[str])
    assert_type(chain(page.options(queue="low"), count, show).s("u"), Flow[str])
    assert_type(fetch.s("u").then(chain(parse, count)).then(chain(show, fetch)), Flow[bytes])
    assert_type(chain(urls, each(page), report).options(meta={"a": "b"}).enqueue("u"), FlowHandle[Receipt])
    assert_type(chain(label, page).enqueue(1), FlowHandle[Page])
    assert_type(chain(label, page.s).enqueue(1), FlowHandle[Page])
    assert_type(each(page.options(queue="low")), Link[list[str], list[Page]])
    links: list[Link[str, Page]] = [page]
    assert_type(links[0].s("u"), Signature[Page])
    pipeline(chain(label, lambda text: fetch.s(url=text)).options(queue="low"))


def pipeline(whole: Pipeline[[int], bytes]) -> FlowHandle[bytes]:
    return whole.configure(name="whole").enqueue(1)


# --- what is said of a flow as a whole -------------------------------------------------------------------


async def configured(wait: timedelta, harbor: Harbor) -> None:
    flow = chain(fetch.s("u"), parse, count)
    assert_type(flow.configure(name="import"), Flow[int])
    assert_type(flow.configure(key="k", key_ttl=wait, on_conflict="raise", meta={"a": "b"}), Flow[int])
    assert_type(flow.configure(on_failure=alarm).enqueue(), FlowHandle[int])
    assert_type(flow.configure(on_failure=alarm.options(queue="low")), Flow[int])
    assert_type(flow.configure(on_failure=lambda failure: alarm.s(failure, channel="ops")), Flow[int])
    assert_type(flow.configure(on_failure=raise_alarm), Flow[int])
    assert_type(flow.configure(on_failure=alarm.s), Flow[int])
    assert_type(flow.configure(on_failure=None).handle("0192"), FlowHandle[int])
    assert_type(group(add.s(1, 2)).configure(name="sums"), Flow[list[int]])
    whole = chain(fetch, parse).configure(name="page", on_failure=alarm)
    assert_type(whole.enqueue(url="u"), FlowHandle[Page])
    assert_type(await whole.options(queue="low").aenqueue("u"), FlowHandle[Page])
    assert_type(whole.s("u"), Flow[Page])
    # Many at once, flows and calls alike.
    assert_type(harbor.enqueue_many([flow, chain(fetch.s("v"), parse, count)]), list[JobHandle[int]])
    assert_type(harbor.enqueue_many([chain(fetch, parse).s(site) for site in "uv"]), list[JobHandle[Page]])
    assert_type(await harbor.aenqueue_many([flow, add.s(1, 2)]), list[JobHandle[int]])


def raise_alarm(failure: FlowFailure) -> Signature[None]:
    return alarm.s(failure, channel="ops")


# --- the handle of a flow knows its steps ----------------------------------------------------------------


async def handles(wait: timedelta) -> None:
    handle = chain(fetch.s("u"), parse, count).enqueue()
    assert_type(handle.result(timeout=wait), int)
    assert_type(await handle.aresult(), int)
    assert_type(handle.status(), FlowStatus)
    assert_type((await handle.astatus()).flow, FlowState)
    assert_type(handle.wait(wait), FlowStatus)
    assert_type(await handle.await_(), FlowStatus)
    assert_type(handle.status().state, JobState)
    assert_type(handle.steps(), list[FlowStep])
    assert_type(await handle.asteps(), list[FlowStep])
    assert_type(handle.graph(), FlowGraph)
    assert_type(await handle.agraph(), FlowGraph)
    assert_type(handle.cancel("not wanted"), bool)
    assert_type(handle.id, str)
    assert_type((await chain(fetch, parse).aenqueue("u")).result().title, str)
    assert_type(each(fetch).s(["u"]).then(each(parse)).enqueue().result()[0], Page)
