"""Workflows that every type checker must refuse: one a line, each marked `# E`. Nothing else here is wrong. Never run.

`tests/test_typing.py` runs mypy, basedpyright, pyrefly and ty over it; `accepted_workflows.py` is its counterpart.
"""

from __future__ import annotations

from taskharbor import (
    Failure,
    Flow,
    FlowHandle,
    JobHandle,
    JobState,
    Link,
    Pipeline,
    Signature,
    Success,
    Task,
    chain,
    chord,
    each,
    gather,
    group,
)
from taskharbor.workflow import Gather2
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
    keyword_only,
    label,
    links_of,
    merge,
    negate,
    parse,
    report,
    resize,
    send_email,
    show,
    sum_up,
    tally,
    urls,
)


def parse_strictly(body: bytes) -> Signature[Page]:
    return parse.s(body, strict=True)


def not_sent(body: bytes) -> Page:
    return Page(str(body))


def stack(page: Page, thumb: Thumb) -> Signature[Receipt]:
    return merge.s(page, thumb, loud=True)


def of_three(a: int, b: str, c: Page) -> Signature[int]:
    return sum_up.s([a, len(b)], start=len(c.title))


# --- chain: each link must take what comes before --------------------------------------------------------


def chains() -> None:
    chain(fetch.s("u"), count)  # E
    chain(fetch.s("u"), show)  # E
    chain(fetch.s("u"), parse, parse)  # E
    chain(fetch.s("u"), parse, show)  # E
    chain(fetch.s("u"), parse, count, parse)  # E
    chain(fetch.s("u"), parse, count, show, count)  # E
    chain(fetch.s("u"), count.options(queue="low"))  # E
    chain(fetch.s(1), parse)  # E
    chain(fetch.s("u"), heartbeat)  # E
    # Other parameters must have defaults, and the value is passed by position.
    chain(add.s(1, 2), add)  # E
    chain(add.s(1, 2), crop)  # E
    chain(label.s(1), keyword_only)  # E
    chain(parse.s(b""), merge)  # E
    # A link is a task or a function to a signature: no signature, no bare function, no result.
    chain(fetch.s("u"), parse.s(b""))  # E
    chain(fetch.s("u"), parse.fn)  # E
    chain(fetch.s("u"), not_sent)  # E
    chain(fetch.s("u"), Page("title"))  # E
    chain(fetch.s("u"))  # E
    chain(fetch("u"), parse)  # E
    chain(fetch.enqueue("u"), parse)  # E
    chain()  # E


# --- functions as links ----------------------------------------------------------------------------------
# Not here: a chain of three whose last link is a lambda that returns its own placeholder, as in
# `chain(fetch.s("u"), parse, lambda page: page)`, which ty accepts. It is refused when the chain is built.


def functions() -> None:
    chain(add.s(1, 2), parse_strictly)  # E
    chain(fetch.s("u"), parse_strictly, show)  # E
    chain(fetch.s("u"), lambda body: count.s(body))  # E
    chain(fetch.s("u"), lambda body: parse.s(body, strict="yes"))  # E
    chain(fetch.s("u"), lambda body: parse.s(body, stict=True))  # E
    chain(fetch.s("u"), lambda body: len(body))  # E
    chain(fetch.s("u"), lambda body: body)  # E
    chain(fetch, lambda body: body)  # E
    chain(fetch.s("u"), lambda: parse.s(b""))  # E
    chain(fetch.s("u"), lambda body, more: parse.s(body))  # E
    chain(fetch.s("u"), lambda body: parse.s(body), show)  # E
    chain(fetch.s("u"), stack)  # E


# --- pipelines have the parameters of their head ---------------------------------------------------------


async def pipelines() -> None:
    chain(fetch, count)  # E
    chain(fetch, parse, show)  # E
    chain(fetch, parse, count, parse)  # E
    chain(fetch, lambda body: count.s(body))  # E
    chain(fetch, parse).enqueue(1)  # E
    chain(fetch, parse).enqueue()  # E
    chain(fetch, parse).enqueue(uri="u")  # E
    chain(fetch, parse).enqueue("u", True)  # E
    await chain(fetch, parse).aenqueue(1)  # E
    chain(fetch, parse).s(b"")  # E
    chain(fetch, parse)("u")  # E
    chain(chain(fetch, parse), show)  # E
    chain(fetch.s("u"), chain(fetch, parse))  # E
    handle: FlowHandle[str] = chain(fetch, parse).enqueue("u")  # E
    pipeline: Pipeline[[int], int] = chain(label, lambda text: fetch.s(text))  # E


# --- then ------------------------------------------------------------------------------------------------


def thens() -> None:
    fetch.s("u").then(count)  # E
    fetch.s("u").then(parse).then(show)  # E
    fetch.s("u").then(parse.s(b""))  # E
    fetch.s("u").then(not_sent)  # E
    add.s(1, 2).then(add)  # E
    add.s(1, 2).then(parse_strictly)  # E
    add.s(1, 2).then(lambda n: fetch.s(n))  # E
    add.s(1, 2).then(lambda n: n)  # E
    add.s(1, 2).then(lambda n: n + 1)  # E
    parse.s(b"").then(lambda page: page.title)  # E
    parse.s(b"").then(lambda page: page.body)  # E
    add.s(1, 2).then(lambda n: 1)  # E
    add.s(1, 2).then(show, show)  # E
    chain(fetch.s("u"), parse).then(parse)  # E


# --- group and chord -------------------------------------------------------------------------------------


def groups() -> None:
    group(add)  # E
    group(add(1, 2))  # E
    group([add.s(1, 2)])  # E
    group(add.enqueue(1, 2))  # E
    group(add.s(1, 2)).then(show)  # E
    group(fetch.s("u")).then(sum_up)  # E
    chain(group(fetch.s("u"), fetch.s("v")), parse)  # E
    strings: Flow[list[str]] = group(add.s(1, 2), add.s(3, 4))  # E
    chord(group(fetch.s("u")), sum_up)  # E
    chord([fetch.s("u")], sum_up)  # E
    chord((fetch.s(site) for site in "uv"), report)  # E
    chord([add.s(1, 2)], show)  # E
    chord([add.s(1, 2)], negate)  # E
    chord([add.s(1, 2)], sum_up.s([1]))  # E
    chord([add.s(1, 2)], lambda numbers: show.s(numbers))  # E
    chord(add.s(1, 2), sum_up)  # E
    chord([add], sum_up)  # E
    chord([add.s(1, 2)])  # E
    chord([add.s(1, 2)], sum_up).then(parse)  # E
    text: Flow[str] = chord([add.s(1, 2)], sum_up)  # E


# --- each ------------------------------------------------------------------------------------------------


def fans() -> None:
    chain(urls.s("u"), each(parse))  # E
    chain(urls.s("u"), each(fetch), parse)  # E
    chain(urls.s("u"), each(fetch), each(count))  # E
    chain(fetch.s("u"), each(parse))  # E
    chain(label.s(1), each(fetch))  # E
    chain(urls.s("u"), each(chain(fetch, parse)), sum_up)  # E
    chain(urls.s("u"), each(parse_strictly))  # E
    each(add)  # E
    each(crop)  # E
    each(not_sent)  # E
    each(fetch.s("u"))  # E
    each(1)  # E
    link: Link[list[str], list[Page]] = each(fetch)  # E


# --- gather ----------------------------------------------------------------------------------------------


def gathers() -> None:
    page, thumb = parse.s(b""), resize.s(1)
    gather(page)  # E
    gather(page, merge)  # E
    gather(page, thumb, page, thumb, page, thumb)  # E
    gather(thumb, page).then(merge)  # E
    gather(thumb, page).then(stack)  # E
    gather(page, page).then(merge)  # E
    gather(page, thumb).then(count)  # E
    gather(page, thumb).then(parse_strictly)  # E
    gather(page, thumb).then(of_three)  # E
    gather(page, thumb).then(lambda p: count.s(p))  # E
    gather(page, thumb).then(lambda p, t: merge.s(t, p))  # E
    gather(page, thumb).then(lambda p, t: p)  # E
    gather(page, thumb).then(merge.s(Page(""), Thumb(1)))  # E
    gather(page, thumb).then(merge).then(show)  # E
    gather(page, thumb, page).then(merge)  # E
    gather(add.s(1, 2), label.s(1), thumb).then(of_three)  # E
    gather(page, thumb).enqueue()  # E
    swapped: Gather2[Thumb, Page] = gather(page, thumb)  # E


# --- the results of flows --------------------------------------------------------------------------------


async def results() -> None:
    text: str = chain(fetch.s("u"), parse, count).enqueue().result()  # E
    whole: JobHandle[bytes] = chain(fetch.s("u"), parse).enqueue()  # E
    later: FlowHandle[bytes] = await chain(fetch.s("u"), parse).aenqueue()  # E
    numbers: list[str] = group(add.s(1, 2)).enqueue().result()  # E
    flow: Flow[int] = add.s(1, 2)  # E
    handle: FlowHandle[int] = add.enqueue(1, 2)  # E
    send_email.enqueue(chain(fetch.s("u"), parse))  # E


# --- a group that allows failures ------------------------------------------------------------------------


def tolerant(flag: bool) -> None:
    some = group(add.s(1, 2), allow_failures=True)
    some.then(sum_up)  # E
    chord(some, sum_up)  # E
    chain(some, each(show))  # E
    group(fetch.s("u"), allow_failures=True).then(tally)  # E
    group(add.s(1, 2)).then(tally)  # E
    group(add.s(1, 2), allow_failures="yes")  # E
    group(add.s(1, 2), alow_failures=True)  # E
    plain: Flow[list[int]] = group(add.s(1, 2), allow_failures=True)  # E
    strict: Flow[list[Success[int] | Failure]] = group(add.s(1, 2))  # E
    numbers: list[int] = some.enqueue().result()  # E
    some.enqueue().result()[0].value  # E


# --- deeper ----------------------------------------------------------------------------------------------


def long_chains() -> None:
    chain(fetch.s("u"), parse, links_of, each(fetch), each(parse), count)  # E
    chain(fetch, parse, links_of, each(fetch), each(parse), each(show), sum_up)  # E
    chain(fetch.s("u"), parse, links_of, each(fetch), each(count), each(count), sum_up, show)  # E
    chain(fetch, parse, links_of, each(fetch), each(parse), each(count), sum_up, parse)  # E
    chain(fetch, parse, links_of, each(fetch), each(parse), each(count), sum_up, show, fetch)  # E


def deeper() -> None:
    page = chain(fetch, parse)
    rows = group(group(add.s(1, 2)), group(add.s(3, 4)))
    chord(rows, sum_up)  # E
    chord(rows, each(flatten))  # E
    rows.then(each(show))  # E
    rows.then(each(each(sum_up)))  # E
    group(group(add.s(1, 2)), add.s(3, 4)).then(flatten)  # E
    chord(urls.s("u"), each(count))  # E
    chord(page.s("u"), report)  # E
    chord([urls.s("u").then(each(page))], report)  # E
    chord([page], report)  # E
    chord([page.s("u")], index)  # E
    chord((page.s(number) for number in (1, 2)), report)  # E
    chain(urls, each(each(page)))  # E
    chain(urls, each(page), each(each(count)))  # E
    each(each(add))  # E
    each(merge)  # E
    each(each(fetch)).s(["u"])  # E
    each(fetch).s("u")  # E
    each(fetch).s([1])  # E
    each(fetch)(["u"])  # E
    urls.s("u").then(each(page)).then(lambda pages: report.s(pages, title=1))  # E
    urls.s("u").then(each(page)).then(count)  # E
    texts: Flow[list[str]] = urls.s("u").then(each(fetch))  # E


def gathered() -> None:
    page, thumb = chain(fetch, parse), chain(add.s(1, 2), resize)
    gather(page, thumb)  # E
    gather(page.s(1), thumb)  # E
    gather(thumb, page.s("u")).then(merge)  # E
    gather(page.s("u"), thumb).then(chain(fetch, parse))  # E
    gather(page.s("u"), thumb).then(merge).then(count)  # E
    gather(group(page.s("u")), thumb).then(merge)  # E
    gather(page.s("u"), thumb).then(lambda p, t: merge.s(p, t, loud=1))  # E
    gather(add.s(1, 2), label.s(1)).then(add)  # E
    gather(page.s("u"), thumb).configure(name="n")  # E
    group(gather(page.s("u"), thumb))  # E


# --- pipelines and what is said of the whole -------------------------------------------------------------


async def reused() -> None:
    page = chain(fetch, parse)
    page.options(queue=1)  # E
    page.options(queue="low").enqueue(1)  # E
    await page.options(queue="low").aenqueue(b"")  # E
    page.options(queue="low", name="n")  # E
    page.then(count)  # E
    page.handle(1)  # E
    chain(page.options(queue="low"), show)  # E
    chain(add.s(1, 2), page)  # E
    chain(label, page, page)  # E
    link: Link[bytes, Page] = page  # E
    number: FlowHandle[int] = page.handle("0192")  # E
    task: Task[[str], Page] = page  # E


def configured() -> None:
    flow, page = chain(fetch.s("u"), parse), chain(fetch, parse)
    flow.configure(on_failure=parse)  # E
    flow.configure(on_failure=alarm.fn)  # E
    flow.configure(on_failure=merge)  # E
    flow.configure(on_failure=lambda failure: parse.s(failure))  # E
    flow.configure(on_failure=lambda failure: alarm.s(failure.flow))  # E
    flow.configure(on_failure=lambda failure: failure.flow_id)  # E
    flow.configure(name=1)  # E
    flow.configure(meta={"a": 1})  # E
    flow.configure(on_conflict="ignore")  # E
    flow.configure(queue="low")  # E
    flow.configure("name")  # E
    page.configure(on_failure=count)  # E
    page.configure(name="n").s(1)  # E
    page.configure(name="n").then(count)  # E
    add.s(1, 2).configure(name="n")  # E
    text: Flow[str] = flow.configure(name="n")  # E


async def told() -> None:
    handle = chain(fetch.s("u"), parse).enqueue()
    page: int = handle.result()  # E
    later: str = await handle.aresult()  # E
    state: JobState = handle.status().flow  # E
    handle.steps().status()  # E
    add.enqueue(1, 2).steps()  # E
    (await add.aenqueue(1, 2)).graph()  # E
    handle.result(timeout=5)  # E

