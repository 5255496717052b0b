"""A page's Markdown, cut at its fenced blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

OPTION = re.compile(r'(?P<name>[\w-]+)(?:="(?P<value>[^"]*)")?')
OPENING = re.compile(r"(?P<indent> *)(?P<ticks>`{3,}|~{3,})(?P<language>[\w+-]*)(?P<options>[^`]*)")


@dataclass(frozen=True)
class Block:
    """Some lines of a page: prose (`language` None), or a fenced block.

    text: a fenced block's content, without its indentation; raw: the lines as they are, fences included; line: the
    number of the first one; options: what follows the language, such as `fold title="..."`.
    """

    language: str | None
    text: str
    raw: str
    line: int
    indent: str = ""
    options: str = ""

    def option(self, name: str) -> str | None:
        """What `name="..."` in the options says, "" for a name alone, None where it is not there."""
        return next((o["value"] or "" for o in OPTION.finditer(self.options) if o["name"] == name), None)


def split_blocks(markdown: str) -> Iterator[Block]:
    """The blocks of a page in order. A fence that is never closed reaches to the end of the page."""
    lines = markdown.splitlines()
    prose: list[str] = []
    i = 0
    while i < len(lines):
        opening = OPENING.fullmatch(lines[i])
        if opening is None:
            prose.append(lines[i])
            i += 1
            continue
        if prose:
            yield Block(None, "\n".join(prose), "\n".join(prose), i - len(prose) + 1)
            prose = []
        start, indent = i, opening["indent"]
        i += 1
        while i < len(lines) and not _closes(lines[i], opening["ticks"]):
            i += 1
        content = "\n".join(line.removeprefix(indent) for line in lines[start + 1 : i])
        raw = "\n".join(lines[start : i + 1])
        yield Block(opening["language"], content, raw, start + 1, indent, opening["options"].strip())
        i += 1
    if prose:
        yield Block(None, "\n".join(prose), "\n".join(prose), len(lines) - len(prose) + 1)


def indented(text: str, indent: str) -> str:
    """Every line of `text` but the empty ones, moved to the right."""
    return "\n".join(indent + line if line else line for line in text.splitlines())


def _closes(line: str, ticks: str) -> bool:
    line = line.strip()
    return line.startswith(ticks) and set(line) == {ticks[0]}
