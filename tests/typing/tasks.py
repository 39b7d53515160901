"""The tasks that the typed cases call: every form of `@task`, and every kind of parameter.

Read by type checkers, never run.
"""

from __future__ import annotations

import enum
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, NewType
from uuid import UUID

import msgspec
from typing_extensions import TypedDict, Unpack

from taskharbor import (
    Context,
    Failure,
    FlowFailure,
    JsonCodec,
    Registry,
    Retry,
    Success,
    task,
)

# --- types that travel -----------------------------------------------------------------------------------


class Receipt(msgspec.Struct):
    id: str


class Thumb(msgspec.Struct):
    width: int


class Page(msgspec.Struct):
    title: str


class Deps:
    """What a harbor's lifespan yields."""

    root: str = ""


@dataclass
class Address:
    street: str


class Row(TypedDict):
    id: int


class Point(NamedTuple):
    x: int
    y: int


class Colour(enum.Enum):
    RED = "red"


class Wide(TypedDict, total=False, closed=True):
    width: int
    title: str


UserId = NewType("UserId", int)
Small = Annotated[int, msgspec.Meta(ge=0, le=9)]

registry = Registry()


# --- the forms of @task: bare, with empty parentheses, with arguments; async def and def -----------------


@task
async def send_email(to: str, subject: str = "hello") -> Receipt:
    return Receipt(to + subject)


@task()
async def send_letter(to: str) -> Receipt:
    return Receipt(to)


@task(queue="mail", retry=Retry(max_attempts=5), timeout=timedelta(seconds=30))
async def send_telegram(to: str, *, words: int = 10) -> Receipt:
    return Receipt(to * words)


@task
def add(x: int, y: int) -> int:
    return x + y


@task()
def negate(x: int) -> int:
    return -x


@task(
    name="shop.label",
    aliases=["label"],
    queue="shop",
    priority=3,
    retry=Retry(on={OSError: Retry.never}),
    timeout=None,
    run="process",
    codec=JsonCodec(),
    keep_result=True,
    retain=timedelta(days=1),
    key_ttl=timedelta(hours=1),
    registry=registry,
)
def label(x: int, /) -> str:
    return str(x)


# A function that returns a coroutine is an async task too.
@task
def delayed(x: int, /) -> Coroutine[Any, Any, str]:
    async def later() -> str:
        return str(x)

    return later()


@task
async def heartbeat() -> None:
    return None


# --- a leading context, in all forms; callers never see it -----------------------------------------------


@task
def resize(ctx: Context[Deps], image_id: int, width: int = 640) -> Thumb:
    return Thumb(width if ctx.deps.root else image_id)


@task(queue="images")
async def crop(ctx: Context[Deps], image_id: int, /, *, width: int) -> Thumb:
    return Thumb(width if ctx.deps.root else image_id)


@task
async def attempts(ctx: Context) -> int:
    return ctx.attempt


@task()
def note(ctx: Context, text: str) -> None:
    ctx.raise_if_cancelled()
    print(text)


@task(name="ctx.positional")
def tick(ctx: Context[None], times: int, /) -> int:
    return ctx.attempt + times


# --- kinds of parameters ---------------------------------------------------------------------------------


@task
def positional_only(x: int, y: int = 2, /) -> int:
    return x + y


@task
async def keyword_only(*, name: str, loud: bool = False) -> str:
    return name.upper() if loud else name


@task
def mixed(a: int, /, b: str, *, c: float = 0.5) -> str:
    return f"{a}{b}{c}"


@task
def total(*values: int) -> int:
    return sum(values)


@task
async def tagged(name: str, *tags: str, **scores: float) -> dict[str, float]:
    return {name: float(len(tags)), **scores}


@task
async def styled(text: str, **style: Unpack[Wide]) -> str:
    return text + style.get("title", "")


@task
def rated(stars: Annotated[int, msgspec.Meta(ge=1, le=5)], bonus: Small = 0) -> int:
    return stars + bonus


@task
async def everything(
    struct: Receipt,
    data: Address,
    row: Row,
    point: Point,
    colour: Colour,
    mode: Literal["fast", "safe"],
    at: datetime,
    wait: timedelta,
    uid: UUID,
    price: Decimal,
    blob: bytes,
    either: int | str | None,
    user: UserId,
    later: list[dict[str, Receipt]],
) -> tuple[int, str]:
    return len(blob), mode


# --- tasks to be joined ----------------------------------------------------------------------------------


@task
async def fetch(url: str) -> bytes:
    return url.encode()


@task
def parse(body: bytes, strict: bool = False) -> Page:
    return Page(str(body) if strict else "")


@task
async def parse_all(strict: bool, body: bytes) -> Page:
    return Page(str(body) if strict else "")


@task
def count(page: Page) -> int:
    return len(page.title)


@task
async def show(number: int, *, unit: str = "") -> str:
    return f"{number}{unit}"


@task
def urls(site: str) -> list[str]:
    return [site]


@task
def sum_up(numbers: list[int], start: int = 0) -> int:
    return sum(numbers, start)


@task
async def report(ctx: Context[Deps], pages: list[Page], title: str = "") -> Receipt:
    return Receipt(ctx.deps.root + title + pages[0].title)


@task
async def merge(page: Page, thumb: Thumb, loud: bool = False) -> Receipt:
    return Receipt(f"{page.title}{thumb.width}{loud}")


@task
async def alarm(failure: FlowFailure, channel: str = "") -> None:
    print(failure.flow_id, channel)


@task
def tally(outcomes: list[Success[int] | Failure], least: int = 0) -> int:
    return sum(outcome.value for outcome in outcomes if not isinstance(outcome, Failure)) + least


@task
def flatten(rows: list[list[int]]) -> list[int]:
    return [number for row in rows for number in row]


@task
def index(pages: list[list[Page]]) -> dict[str, int]:
    return {page.title: number for number, row in enumerate(pages) for page in row}


@task
def links_of(page: Page) -> list[str]:
    return [page.title]
