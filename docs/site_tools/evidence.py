"""The tests that pages mention, such as `tests/test_linear.py::test_linear`: they exist, and the site shows them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from posixpath import dirname, relpath

from mkdocs.exceptions import PluginError
from sources import ROOT

MENTION = re.compile(r"(?P<path>tests/[\w/]+\.py)(?:::(?P<name>\w+(?:::\w+)?))?")
LINKED = re.compile(rf"(?<!\[)`{MENTION.pattern}`(?!\])")
TESTS_PAGE = "reference/tests.md"


def check_tests(markdown: str, page: str) -> None:
    """Raises PluginError for the first test or test file in the page that does not exist."""
    for mention in MENTION.finditer(markdown):
        path, name = mention["path"], mention["name"]
        if not (ROOT / path).is_file():
            raise PluginError(f"{page}: there is no file {path}")
        if name and name not in _test_names(path):
            raise PluginError(f"{page}: {path} has no test {name}")


def link_tests(prose: str, page: str) -> str:
    """Every test that is named in backticks becomes a link to its source."""
    target = relpath(TESTS_PAGE, dirname(page))

    def link(mention: re.Match[str]) -> str:
        return f"[{mention[0]}]({target}#{_anchor(mention)})" if mention["name"] else mention[0]

    return LINKED.sub(link, prose)


def mentioned_tests(pages: Path) -> Iterator[str]:
    """Markdown with the source of each test that a page names in backticks, and the pages that do, file by file."""
    mentions: dict[tuple[str, str], list[Path]] = {}
    anchors = {}
    for page in sorted(pages.rglob("*.md")):
        for mention in LINKED.finditer(page.read_text(encoding="utf-8")):
            if mention["name"]:
                mentions.setdefault((mention["path"], mention["name"]), []).append(page)
                anchors[mention["path"], mention["name"]] = _anchor(mention)
    file = ""
    for path, name in sorted(mentions):
        if path != file:
            file = path
            yield f"## {path}"
        yield f"### {name} {{ #{anchors[path, name]} }}"
        places = (_link_to(page, pages) for page in dict.fromkeys(mentions[path, name]))
        yield f"Proves something in: {', '.join(places)}."
        yield f"```source\n{path}: {name.replace('::', '.')}\n```"


def _anchor(mention: re.Match[str]) -> str:
    return re.sub(r"\W+", "-", mention[0].strip("`"))


def _link_to(page: Path, pages: Path) -> str:
    title = page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
    return f"[{title}]({relpath(page.relative_to(pages).as_posix(), dirname(TESTS_PAGE))})"


def _test_names(path: str) -> set[str]:
    """The functions, classes and Class::method of a test file."""
    names = set()
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}::{child.name}" for child in node.body if isinstance(child, ast.FunctionDef)}
    return names
