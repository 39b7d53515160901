"""Lays the site's pages out for the site builder: `python docs/stage.py TARGET`, called by `make docs`.

The pages under `docs/` are written to be read where the repository is. Some things are different on the site:

- What they point to outside of `docs/` has to have a page there: each example gets one, made from its docstring and
  its source; so have the files of `TOP_PAGES`. A link to anything else outside ends the build.
- A block's words for the test suite (`tests/test_docs.py`) become its title, or go.
- What belongs to an item of a list is indented by four, which is what the site builder's Markdown asks for.
- A page that `mkdocs.yml` does not list could not be found, so it ends the build, too. The site builder does not
  look for such pages, nor at links that do not lead to pages.
"""

import ast
import re
import shutil
import sys
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath

ROOT = Path(__file__).resolve().parents[1]
CONFIGURATION = ROOT / "mkdocs.yml"
TOP_PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
"""Files at the top that are pages of the site, by their names there."""
FOLDERS = {"examples": "examples/index.md"}
"""What a link to a folder leads to."""

_FENCE = re.compile(r"^(?P<indent> *)```(?P<info>.*)$")
_LINK = re.compile(r"(?P<before>\[[^\]]*\]\()(?P<target>[^)\s#]+)(?P<rest>[^)\s]*\))")
_ASIDE = re.compile(r"^ *<!-- (?:no-run|until): .* -->$")
_NESTED = re.compile(r"^ {2,3}(?=[-*] |\d+\. )")
_LISTED = re.compile(r"[\w./-]+\.md\b")


class SiteError(Exception):
    """A page that cannot be part of the site as it is."""


def stage(target: Path) -> list[str]:
    """Write all pages and images below a folder, which is emptied first, and return the pages' names there.

    Raises SiteError for a link that leads nowhere, and for pages that `mkdocs.yml` forgets.
    """
    sources = {name_on_site(path): path for path in sources_of_pages()}
    shutil.rmtree(target, ignore_errors=True)
    pages = {name: page_of(path, sources) for name, path in sources.items() if path.suffix in {".md", ".py"}}
    pages["examples/index.md"] = list_of_examples(sources)
    listed = set(_LISTED.findall(CONFIGURATION.read_text(encoding="utf-8")))
    if forgotten := sorted(pages.keys() - listed):
        raise SiteError(f"mkdocs.yml does not list {', '.join(forgotten)}: add them to `nav`")
    for name, source in sources.items():
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if name not in pages:
            shutil.copyfile(source, place)
    for name, text in pages.items():
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    return sorted(pages)


def sources_of_pages() -> list[Path]:
    """Return every file that the site has a page or an image for, in one order on all machines."""
    docs = [path for path in (ROOT / "docs").rglob("*") if path.suffix in {".md", ".svg", ".css"}]
    examples = list((ROOT / "examples").glob("*.py"))
    return sorted([*docs, *examples, *(ROOT / name for name in TOP_PAGES)])


def name_on_site(path: Path) -> str:
    """Return where a file of the repository is on the site."""
    name = path.relative_to(ROOT).as_posix()
    if name in TOP_PAGES:
        return TOP_PAGES[name]
    return name.removeprefix("docs/") if path.suffix != ".py" else str(PurePosixPath(name).with_suffix(".md"))


def page_of(path: Path, sources: dict[str, Path]) -> str:
    """Return a file's page as the site builder takes it."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return page_of_example(path.name, text)
    names = {source.relative_to(ROOT).as_posix(): name for name, source in sources.items()} | FOLDERS
    lines: list[str] = []
    inside = False
    more = ""
    for number, line in enumerate(text.splitlines(), 1):
        fence = _FENCE.match(line)
        if fence is not None:
            more = " " * (4 - len(fence["indent"])) if 0 < len(fence["indent"]) < 4 else ""
            lines.append(f"{more}{fence['indent']}```{'' if inside else language_of(fence['info'])}")
            inside = not inside
        elif inside:
            lines.append(more + line)
        elif not _ASIDE.match(line):
            lines.append(with_links(_NESTED.sub(" " * 4, line), path, number, names))
    return "\n".join(lines) + "\n"


def language_of(info: str) -> str:
    """Return what follows a fence on the site: the language, and the name of the file that a block is."""
    language, _, words = info.strip().partition(" ")
    key, _, name = words.partition("=")
    return f'{language} title="{name}"' if key in {"file", "from"} else language


def with_links(line: str, page: Path, number: int, names: dict[str, str]) -> str:
    """Return a line with its links as they have to be on the site."""
    folder = page.relative_to(ROOT).parent.as_posix()
    here = PurePosixPath(name_on_site(page)).parent.as_posix()

    def lead(link: re.Match[str]) -> str:
        target = link["target"]
        if "://" in target or target.startswith("mailto:"):
            return link[0]
        there = names.get(normpath(f"{folder}/{target}"))
        if there is None:
            where = f"{page.relative_to(ROOT).as_posix()}:{number}"
            raise SiteError(f"{where}: the site has no page for {target}; link a page, or an example")
        return f"{link['before']}{relpath(there, here)}{link['rest']}"

    return _LINK.sub(lead, line)


def page_of_example(name: str, source: str) -> str:
    """Return an example's page: what it shows, and the program."""
    first, _, more = docstring_of(source).partition("\n")
    told = f"{first}\n" + (f"\n```text\n{more.strip(chr(10))}\n```\n" if more.strip() else "")
    return f'# {name}\n\n{told}\n```python title="examples/{name}"\n{source.rstrip()}\n```\n'


def list_of_examples(sources: dict[str, Path]) -> str:
    """Return the page that lists the examples, each with the first line of its docstring."""
    lines = [
        "# Examples",
        "",
        "Complete programs, which the test suite runs.",
        "",
        "| program | shows |",
        "| --- | --- |",
    ]
    for path in sources.values():
        if path.suffix == ".py":
            shows = docstring_of(path.read_text(encoding="utf-8")).partition("\n")[0]
            lines.append(f"| [{path.name}]({path.stem}.md) | {shows} |")
    return "\n".join(lines) + "\n"


def docstring_of(source: str) -> str:
    """Return a program's own description."""
    return ast.get_docstring(ast.parse(source)) or ""


def main(arguments: list[str]) -> None:
    """Lay the pages out in the folder that is named, or end with a reason."""
    if len(arguments) != 1:
        sys.exit("usage: python docs/stage.py TARGET")
    try:
        stage(Path(arguments[0]))
    except SiteError as error:
        sys.exit(f"docs: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
