"""Graphs folded for drawing: what is alike is one, and what came before what stays so."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from taskharbor.call.folding import FEW, Fold, fold, in_order, unfolded

Graph = tuple[list[str], list[list[int]]]


def fan(count: int, *, begin: int = 0) -> Graph:
    """A chord: a first node, so many in the middle, and a last one."""
    titles = ["first", *["middle"] * count, "last"]
    return titles, [[], *[[begin]] * count, [begin + 1 + number for number in range(count)]]


def sizes(folds: Sequence[Fold]) -> list[int]:
    return [len(one.members) for one in folds]


def test_many_that_are_alike_are_one() -> None:
    folds = fold(*fan(1000))

    assert [1, 1000, 1] == sizes(folds)
    assert [(), (0,), (1,)] == [one.before for one in folds]
    assert [False] * 3 == [one.row for one in folds]


def test_a_few_that_are_alike_stay_apart() -> None:
    folds = fold(*fan(FEW))

    assert [1] * (FEW + 2) == sizes(folds)
    assert tuple(range(1, FEW + 1)) == folds[-1].before


def test_members_of_several_steps_are_folded_step_by_step() -> None:
    titles, before = ["first"], [list[int]()]
    for _ in range(50):
        before += [[0], [len(titles)]]
        titles += ["fetch", "parse"]
    before.append([number for number, title in enumerate(titles) if title == "parse"])
    titles.append("last")

    folds = fold(titles, before)

    assert ["first", "fetch", "parse", "last"] == [titles[one.members[0]] for one in folds]
    assert [1, 50, 50, 1] == sizes(folds)


def test_other_titles_and_other_places_are_not_alike() -> None:
    titles = ["a"] * 10 + ["b"] * 10 + ["a"] * 10
    before: list[list[int]] = [*[list[int]()] * 20, *([number] for number in range(10))]

    assert [10, 10, 10] == sizes(fold(titles, before))


def test_what_goes_to_nodes_that_are_drawn_apart_is_drawn_apart() -> None:
    titles = ["work"] * 20 + ["left", "left"]
    before: list[list[int]] = [*[list[int]()] * 20, list(range(10)), list(range(10, 20))]

    folds = fold(titles, before)

    assert [10, 1, 10, 1] == sizes(folds)
    assert [(), (0,), (), (2,)] == [one.before for one in folds]


def test_a_long_row_is_one() -> None:
    count = 1000
    titles = ["begin", *["next"] * count, "end"]

    folds = fold(titles, [[], *([number] for number in range(count + 1))])

    assert [1, count, 1] == sizes(folds)
    assert [False, True, False] == [one.row for one in folds]
    assert tuple(range(1, count + 1)) == folds[1].members


def test_a_row_ends_where_others_join_it() -> None:
    titles = ["next"] * 10 + ["other"]
    before = [[], *([number] for number in range(9)), list[int]()]
    before[5] = [4, 10]

    folds = fold(titles, before, few=3)

    assert [5, 1, 5] == sizes(folds)
    assert [(), (), (0, 1)] == [one.before for one in folds]


def test_what_follows_comes_next() -> None:
    assert [0, 2, 1, 3, 4] == in_order([[], [], [0], [1], [2, 3]])


def test_nothing_is_nothing() -> None:
    assert [] == [*fold([], []), *unfolded([])]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    count = draw(st.integers(0, 30))
    titles = draw(st.lists(st.sampled_from("ab"), min_size=count, max_size=count))
    before = [
        draw(st.lists(st.integers(0, node - 1), max_size=4, unique=True)) if node else list[int]()
        for node in range(count)
    ]
    return titles, before


@given(graphs(), st.integers(1, 3))
def test_every_node_is_drawn_once_after_all_that_it_comes_after(graph: Graph, few: int) -> None:
    titles, before = graph
    for folds in (fold(titles, before, few), unfolded(before)):
        place = {member: number for number, one in enumerate(folds) for member in one.members}

        assert sorted(place) == list(range(len(titles))) == sorted(m for one in folds for m in one.members)
        assert all(earlier < number for number, one in enumerate(folds) for earlier in one.before)
        for number, one in enumerate(folds):
            assert 1 == len({titles[member] for member in one.members})
            linked = {place[earlier] for member in one.members for earlier in before[member]}
            assert linked - ({number} if one.row else set()) == set(one.before)
