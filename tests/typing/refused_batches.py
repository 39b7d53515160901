"""Uses of batch handlers that every type checker refuses, each on a line marked `# E`. Never run."""

from __future__ import annotations

from tests.typing.accepted_batches import Document, count, embed, fetch, index, store

from taskharbor import Batch, BatchContext, Context, Task, chain, each, task

# --- a job carries one payload, not the list ------------------------------------------------------------------


def calls() -> None:
    index.enqueue([Document("")])  # E
    index.enqueue(Document(""), Document(""))  # E
    index.enqueue()  # E
    index.s("text")  # E
    embed.enqueue(1)  # E
    index.options(priority=1).enqueue("text")  # E
    index(Document(""))  # E
    x: str = index.enqueue(Document("")).result()  # E
    y: list[int] = count.enqueue("a").result()  # E
    z: Task[[list[Document]], int] = index  # E
    w: int = store.enqueue(Document("")).result()  # E


def flows() -> None:
    chain(fetch.s(1), count)  # E
    chain(count.s("a"), each(count))  # E


# --- what is no batch handler ---------------------------------------------------------------------------------

batched = task(batch=Batch())


def takes_one(document: Document) -> None: ...


def takes_more(documents: list[Document], number: int) -> None: ...


def returns_one(documents: list[Document]) -> int:
    return 1


async def areturns_one(documents: list[Document]) -> int:
    return 1


def takes_context(ctx: Context, documents: list[Document]) -> None: ...


def takes_context_last(documents: list[Document], ctx: BatchContext) -> None: ...


batched(takes_one)  # E
batched(takes_more)  # E
batched(returns_one)  # E
batched(areturns_one)  # E
batched(takes_context)  # E
batched(takes_context_last)  # E

# --- the declaration ------------------------------------------------------------------------------------------

Batch(size="10")  # E
Batch(wait=1)  # E
task(batch=10)  # E
task(batch=Batch(), run="process")  # E
