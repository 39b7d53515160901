"""What a type checker tells of an expression, in the words of its hover text. Never run.

Each comment is what every checker reveals, once their spelling is evened out: without modules, defaults and the names
of positional-only parameters. `assert_type`, in the accepted files, cannot say how parameters are named.
"""

from __future__ import annotations

from typing import reveal_type

from tests.typing.tasks import (
    add,
    attempts,
    count,
    crop,
    delayed,
    fetch,
    keyword_only,
    mixed,
    parse,
    resize,
    send_email,
    send_telegram,
    sum_up,
    tagged,
    urls,
)

from taskharbor import chain, chord, each, gather

reveal_type(send_email)  # AsyncTask[[to: str, subject: str = ...], Receipt]
reveal_type(send_telegram)  # AsyncTask[[to: str, *, words: int = ...], Receipt]
reveal_type(add)  # SyncTask[[x: int, y: int], int]
reveal_type(resize)  # SyncTask[[image_id: int, width: int = ...], Thumb]
reveal_type(crop)  # AsyncTask[[int, *, width: int], Thumb]
reveal_type(attempts)  # AsyncTask[[], int]
reveal_type(delayed)  # AsyncTask[[int], str]
reveal_type(mixed)  # SyncTask[[int, b: str, *, c: float = ...], str]
reveal_type(keyword_only)  # AsyncTask[[*, name: str, loud: bool = ...], str]
reveal_type(tagged)  # AsyncTask[[name: str, *tags: str, **scores: float], dict[str, float]]
reveal_type(resize.options(queue="low"))  # Bound[[image_id: int, width: int = ...], Thumb]
reveal_type(send_email.enqueue("a@b.c"))  # JobHandle[Receipt]
reveal_type(resize.s(1))  # Signature[Thumb]
reveal_type(resize.enqueue(1).result())  # Thumb
reveal_type(chain(fetch.s("u"), parse, count))  # Flow[int]
reveal_type(chain(fetch, parse, count))  # Pipeline[[url: str], int]
reveal_type(chain(urls.s("u"), each(fetch)).enqueue())  # FlowHandle[list[bytes]]
reveal_type(each(parse))  # Link[list[bytes], list[Page]]
reveal_type(gather(parse.s(b""), resize.s(1)))  # Gather2[Page, Thumb]
reveal_type(chord([add.s(1, 2)], sum_up).enqueue().result())  # int
