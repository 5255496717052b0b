"""Equations have addresses: where a page mentions (7b), a link leads there, from prose and from comments in code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from formulas import TAG
from mkdocs.exceptions import PluginError

MENTION = re.compile(r"\((\d{1,2}[a-z]?|[a-z])\)")
TOKEN = re.compile(r"(<[^>]*>)")
NAME = re.compile(r"</?([\w-]+)")
NO_LINKS_IN = {"a", "pre", "code", "math", "h1", "h2", "h3", "h4", "h5", "h6", "script", "style", "button"}
NO_LINK = '<span class="equation-number">'
COMMENT = '<span class="c1">'


def equation_homes(pages: Path) -> dict[str, str]:
    """The number of each equation of the site -> its page. Raises PluginError for a number that two pages use.

    Numbers that are mere letters, (a), belong to their page alone and are not among them.
    """
    homes: dict[str, str] = {}
    for file in sorted(pages.rglob("*.md")):
        uri = file.relative_to(pages).as_posix()
        for number in page_equations(file.read_text(encoding="utf-8")):
            if not number[0].isdigit():
                continue
            if number in homes:
                raise PluginError(f"{uri}: the equation ({number}) is in {homes[number]} already; take another number")
            homes[number] = uri
    return homes


def page_equations(markdown: str) -> list[str]:
    """The numbers of a page's equations."""
    return TAG.findall(markdown)


def link_equations(page: str, addresses: Mapping[str, str]) -> str:
    """The page's HTML with a link at each mention of an equation.

    addresses: an equation's number -> where its page is, seen from this one; "" for this page itself.
    """

    def link(mention: re.Match[str]) -> str:
        number = mention[1]
        if number not in addresses:
            return mention[0]
        return f'<a class="equation-link" href="{addresses[number]}#eq-{number}">{mention[0]}</a>'

    parts = TOKEN.split(page)
    closed, last_tag = 0, ""  # inside of how many elements without links
    for i, part in enumerate(parts):
        if i % 2:
            last_tag = part
            if (name := NAME.match(part)) and name[1] in NO_LINKS_IN:
                closed += -1 if part.startswith("</") else 1
        elif last_tag == COMMENT or (not closed and last_tag != NO_LINK):
            parts[i] = MENTION.sub(link, part)
    return "".join(parts)
