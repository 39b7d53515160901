"""Graphs drawn as lines of text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskharbor.cli.lanes import Row, in_plain, rows


def drawn(*before: list[int]) -> list[Row]:
    return list(rows(before, lambda _: "●"))


CASES: dict[str, tuple[list[list[int]], list[str]]] = {
    "none": ([], []),
    "one": ([[]], ["●"]),
    "row": ([[], [0], [1]], ["●", "●", "●"]),
    "split": ([[], [0], [0], [0], [1, 2, 3]], ["●", "├─┬─╮", "● │ │", "│ ● │", "│ │ ●", "├─┴─╯", "●"]),
    "join": ([[], [], [], [0, 1, 2]], ["●", "│ ●", "│ │ ●", "├─┴─╯", "●"]),
    "apart": ([[], [], [1]], ["●", "", "●", "●"]),
    "crossing": (
        [[], [0], [1], [1], [2], [0, 4, 3]],
        ["●", "├─╮", "● │", "├─┼─╮", "● │ │", "│ │ ●", "● │ │", "├─┴─╯", "●"],
    ),
}


@pytest.mark.parametrize(("before", "lines"), CASES.values(), ids=list(CASES))
def test_lines_lead_from_each_to_those_after_it(before: list[list[int]], lines: list[str]) -> None:
    assert lines == [row.lines for row in drawn(*before)]


def test_beneath_a_node_its_own_line_goes_on_and_so_do_the_others() -> None:
    found = [row.beneath for row in drawn([], [0], [0], [1, 2]) if row.node is not None]

    assert ["│", "│ │", "│ │", ""] == found


def test_old_terminals_get_signs_that_they_have() -> None:
    text = "".join(in_plain(row.lines) for row in drawn([], [0], [0], [0], [1, 2, 3]))

    assert text.isascii()


@st.composite
def graphs(draw: st.DrawFn) -> list[list[int]]:
    count = draw(st.integers(0, 20))
    return [
        sorted(draw(st.lists(st.integers(0, node - 1), max_size=3, unique=True))) if node else []
        for node in range(count)
    ]


@given(graphs())
def test_each_node_has_one_row_in_order(before: list[list[int]]) -> None:
    found = drawn(*before)

    assert list(range(len(before))) == [row.node for row in found if row.node is not None]
    assert all((row.node is not None) == ("●" in row.lines) for row in found)
    assert all(row.lines == row.lines.rstrip() for row in found)


@given(graphs())
def test_whoever_follows_the_lines_finds_what_comes_after_what(before: list[list[int]]) -> None:
    assert before == followed(drawn(*before), len(before))


def followed(found: list[Row], count: int) -> list[list[int]]:
    """Read a drawing: return for each node those from which a line leads to it."""
    before: list[list[int]] = [[] for _ in range(count)]
    lanes: dict[int, set[int]] = {}
    """From which nodes the line in each lane comes."""
    for row in found:
        signs = {place // 2: sign for place, sign in enumerate(row.lines) if place % 2 == 0}
        lanes = {lane: lanes[lane] for lane, sign in signs.items() if sign in "│┼├┴╯●" and lane in lanes}
        if row.node is not None:
            place = row.lines.index("●") // 2
            before[row.node] = sorted(lanes.get(place, ()))
            lanes[place] = {row.node}
            continue
        met = [lane for lane, sign in signs.items() if sign in "├┬┴╮╯"]
        if "╯" in row.lines:
            lanes[met[0]] = set().union(*(lanes.pop(lane) for lane in met))
        elif "╮" in row.lines:
            lanes.update({lane: set(lanes[met[0]]) for lane in met})
    return before
