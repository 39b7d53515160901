"""The documentation's site, up to where the site builder takes over (`make docs`, a part of `make check`)."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from docs import stage

import taskharbor
from tests.support.pages import ROOT

DIRECTIVE = re.compile(r"^::: (?P<name>[\w.]+)$", re.MULTILINE)
LOADED = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)=["']?(?:https?:)?//[^>]*>""")
"""What a browser fetches by itself from elsewhere."""
REFERENCE = ROOT / "docs" / "reference" / "api"


def test_the_site_has_each_page_and_each_example(tmp_path: Path) -> None:
    pages = stage.stage(tmp_path / "pages")

    docs = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    examples = {f"examples/{path.stem}.md" for path in (ROOT / "examples").glob("*.py")}
    assert set() == (docs | examples) - set(pages)
    assert all((tmp_path / "pages" / name).is_file() for name in pages)


def test_laying_the_site_out_twice_gives_the_same(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"

    pages = stage.stage(first)
    stage.stage(second)

    assert [(first / name).read_bytes() for name in pages] == [(second / name).read_bytes() for name in pages]


def test_a_page_outside_the_navigation_ends_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorter = tmp_path / "mkdocs.yml"
    listed = stage.CONFIGURATION.read_text(encoding="utf-8")
    shorter.write_text(listed.replace("semantics.md", ""), encoding="utf-8")
    monkeypatch.setattr(stage, "CONFIGURATION", shorter)

    with pytest.raises(stage.SiteError, match=r"does not list semantics\.md: add them to `nav`"):
        stage.stage(tmp_path / "pages")


def test_a_link_leads_to_the_page_that_stands_for_its_target() -> None:
    names = {"examples/quickstart.py": "examples/quickstart.md", **stage.FOLDERS}
    page = ROOT / "docs" / "how-to" / "idempotency.md"

    line = stage.with_links("[a](../../examples/quickstart.py), [b](../../examples)", page, 1, names)

    assert line == "[a](../examples/quickstart.md), [b](../examples/index.md)"


def test_a_link_to_what_the_site_has_not_ends_the_build() -> None:
    page = ROOT / "docs" / "index.md"

    with pytest.raises(stage.SiteError, match=r"docs/index\.md:7: the site has no page for \.\./Makefile"):
        stage.with_links("[the door](../Makefile)", page, 7, {})


@pytest.mark.parametrize(
    ("info", "shown"),
    [
        ("python file=mail.py", 'python title="mail.py"'),
        ("python from=examples/quickstart.py", 'python title="examples/quickstart.py"'),
        ("python no-run", "python"),
        ("sql run", "sql"),
        ("text", "text"),
    ],
)
def test_the_words_for_the_test_suite_become_a_title_or_go(info: str, shown: str) -> None:
    assert stage.language_of(info) == shown


def test_what_belongs_to_an_item_of_a_list_is_indented_by_four(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    page.write_text("- first\n  - second\n\n  ```sh\n  echo\n  ```\n", encoding="utf-8")
    monkeypatch.setattr(stage, "ROOT", tmp_path)

    shown = stage.page_of(page, {})

    assert shown == "- first\n    - second\n\n    ```sh\n    echo\n    ```\n"


def test_every_public_name_has_its_place_in_the_reference() -> None:
    pages = [path.read_text(encoding="utf-8") for path in REFERENCE.glob("*.md")]
    names = [found["name"] for page in pages for found in DIRECTIVE.finditer(page)]

    assert [] == [name for name in taskharbor.__all__ if f"taskharbor.{name}" not in names]
    assert len(names) == len(set(names)), "told twice"


def built(folder: Path) -> dict[str, bytes]:
    """Build the site in a folder, strictly, and return its files."""
    stage.stage(folder / "build" / "pages")
    configuration = stage.CONFIGURATION.read_text(encoding="utf-8")
    assert "[src, conformance]" in configuration
    paths = f"[{ROOT / 'src'}, {ROOT / 'conformance'}]"
    (folder / "mkdocs.yml").write_text(configuration.replace("[src, conformance]", paths), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict", "--clean"],
        check=False,
        capture_output=True,
        encoding="utf-8",
        cwd=folder,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    site = folder / "build" / "site"
    return {
        path.relative_to(site).as_posix(): path.read_bytes() for path in site.rglob("*") if path.is_file()
    }


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_site_is_the_same_each_time_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()

    first, second = built(tmp_path / "first"), built(tmp_path / "second")

    pages = {name: text.decode() for name, text in first.items() if name.endswith(".html")}
    assert first == second
    assert {"index.html", "how-to/web-apps.html", "reference/api/harbor.html"} <= pages.keys()
    assert LOADED.findall('<script async src="https://cdn.example.org/x.js"></script>')
    assert {} == {name: found for name, text in pages.items() if (found := LOADED.findall(text))}
