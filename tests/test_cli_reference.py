"""The page on the command line tells what the commands are."""

from __future__ import annotations

from taskharbor.cli.exits import MEANINGS, Exit
from taskharbor.cli.reference import generated, page
from tests.fixtures.support import ROOT

PAGE = ROOT / "docs" / "reference" / "cli.md"


def test_the_page_is_what_the_commands_say() -> None:
    text = PAGE.read_text(encoding="utf-8")

    assert page(text) == text, "run: python -m taskharbor.cli.reference docs/reference/cli.md"


def test_every_option_and_argument_is_explained() -> None:
    rows = [line for line in generated().splitlines() if line.startswith("| `")]

    assert [] == [row for row in rows if row.endswith("|  |")]
    assert 40 < len(rows)


def test_every_exit_code_has_its_meaning() -> None:
    assert set(Exit) == set(MEANINGS)
