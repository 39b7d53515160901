"""The book of tasks: one name, one task."""

from __future__ import annotations

import re

import pytest

from taskharbor import Registry, Retry, Task, TaskDefinitionError, UnknownTaskError, task


def declare(registry: Registry, name: str, *aliases: str, place: str = "") -> Task[[int], int]:
    """Declare a task; one of the same name and place is the same function again."""

    def handler(x: int) -> int:
        return x

    handler.__qualname__ = f"handler_{name}{place}"
    return task(name=name, aliases=aliases, registry=registry)(handler)


def test_a_task_is_found_by_its_name_and_its_aliases() -> None:
    registry = Registry()

    declared = declare(registry, "new", "old", "older")

    assert [declared.definition] * 3 == [registry.get(name) for name in ("new", "old", "older")]
    assert frozenset({"new", "old", "older"}) == registry.names()


def test_find_answers_none_for_a_stranger() -> None:
    assert Registry().find("stranger") is None


def test_an_unknown_name_says_what_comes_close_and_what_to_do() -> None:
    registry = Registry()
    declare(registry, "mail.send")

    with pytest.raises(
        UnknownTaskError,
        match=re.escape(
            "no task is named 'mail.sned' (did you mean 'mail.send'?); import the module that declares it, or keep the "
            "old name in aliases=[...]"
        ),
    ):
        registry.get("mail.sned")


def test_a_registry_yields_each_task_once_sorted_by_name() -> None:
    registry = Registry()
    b, a = declare(registry, "b", "z"), declare(registry, "a", "y")

    assert [a.definition, b.definition] == list(registry)
    assert 2 == len(registry)


@pytest.mark.parametrize(
    ("first", "second", "clash"),
    [
        (("a",), ("a",), "a"),
        (("a", "b"), ("b",), "b"),
        (("a",), ("b", "a"), "a"),
        (("a", "x"), ("b", "x"), "x"),
    ],
)
def test_two_tasks_of_one_name_are_refused_and_the_first_stays(
    first: tuple[str, ...], second: tuple[str, ...], clash: str
) -> None:
    registry = Registry()
    one = declare(registry, *first)
    names, version = registry.names(), registry.version

    with pytest.raises(
        TaskDefinitionError,
        match=rf"two tasks are named {clash!r}: one at .*test_registry.py:\d+, one at .*; give one of them another "
        r"name, @task\(name=...\)",
    ):
        declare(registry, *second, place="elsewhere")

    assert (names, version) == (registry.names(), registry.version)
    assert one.definition is registry.get(clash)


def test_a_task_declared_again_gives_up_aliases_that_it_has_no_more() -> None:
    registry = Registry()
    declare(registry, "a", "old")

    declare(registry, "a", "older")

    assert frozenset({"a", "older"}) == registry.names()


def test_an_alias_that_is_the_name_itself_does_no_harm() -> None:
    registry = Registry()

    declare(registry, "a", "a")

    assert 1 == len(registry)


def test_every_change_is_a_new_version() -> None:
    registry = Registry()
    seen = [registry.version]
    for name in ("a", "b", "a"):
        declare(registry, name)
        seen.append(registry.version)

    assert sorted(set(seen)) == seen


def test_registries_do_not_know_each_other() -> None:
    one, other = Registry(), Registry()
    declare(one, "a")

    assert other.find("a") is None
    declare(other, "a")


def test_a_build_changes_with_names_signatures_and_codecs_and_with_nothing_else() -> None:
    def build(*, name: str = "a", kind: type = int, aliases: tuple[str, ...] = (), docs: str = "") -> str:
        registry = Registry()

        def handler(x: int) -> int:
            return x

        handler.__annotations__["x"] = kind
        handler.__doc__ = docs
        task(name=name, aliases=aliases, registry=registry, retry=Retry(max_attempts=3))(handler)
        return registry.build(["json"])

    first = build()

    assert re.fullmatch("[0-9a-f]{16}", first)
    assert first == build() == build(docs="other words")
    assert 4 == len({first, build(name="b"), build(kind=str), build(aliases=("c",))})


def test_a_build_does_not_depend_on_the_order_of_declaration() -> None:
    one, other = Registry(), Registry()
    for name in ("a", "b"):
        declare(one, name)
    for name in ("b", "a"):
        declare(other, name)

    assert one.build(["json"]) == other.build(["json"])
    assert one.build(["json"]) != one.build(["json", "msgpack"])
