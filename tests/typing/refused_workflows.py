"""Workflows that every type checker must refuse: one a line, each marked `# E`. Nothing else here is wrong. Never run.

`tests/test_typing.py` runs mypy, basedpyright, pyrefly and ty over it; `accepted_workflows.py` is its counterpart.
"""

from __future__ import annotations

from taskharbor import (
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
from taskharbor.workflow import Gather2
from tests.typing.tasks import (
    Page,
    Receipt,
    Thumb,
    add,
    count,
    crop,
    fetch,
    heartbeat,
    keyword_only,
    label,
    merge,
    negate,
    parse,
    report,
    resize,
    send_email,
    show,
    sum_up,
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
