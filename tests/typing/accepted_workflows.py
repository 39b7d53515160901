"""Workflows that every type checker must accept, with the types they must reveal. Never run.

`tests/test_typing.py` runs mypy, basedpyright, pyrefly and ty over it; `refused_workflows.py` is its counterpart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_type

from tests.typing.tasks import (
    Page,
    Receipt,
    Thumb,
    add,
    count,
    crop,
    fetch,
    heartbeat,
    label,
    merge,
    parse,
    parse_all,
    report,
    resize,
    show,
    sum_up,
    total,
    urls,
)

from taskharbor import (
    Bound,
    Flow,
    FlowHandle,
    JobHandle,
    Link,
    Pipeline,
    Signature,
    chain,
    chord,
    each,
    gather,
    group,
)
from taskharbor.workflow import Gather2, Gather5

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
