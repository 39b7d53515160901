"""The tutorial is run, step by step, and prints what it says. See `tests/test_docs.py`, which runs other pages."""

import shutil
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.pages import ROOT
from tests.support.programs import assert_programs_print_what_is_told, name_of

STEPS = sorted((ROOT / "docs" / "tutorial").glob("[0-9]-*.md"))


@pytest.mark.skipif(
    shutil.which("bash") is None, reason="the tutorial shows a terminal, and there is no bash here"
)
@pytest.mark.parametrize("page", STEPS, ids=name_of)
def test_a_step_of_the_tutorial_runs_and_prints_what_it_says(page: Path, tmp_path: Path) -> None:
    assert_programs_print_what_is_told(page, tmp_path)


def test_the_tutorial_leads_from_each_step_to_the_next() -> None:
    for step, following in pairwise(STEPS):
        assert "Next: [" in step.read_text(encoding="utf-8")
        assert f"({following.name})." in step.read_text(encoding="utf-8")
