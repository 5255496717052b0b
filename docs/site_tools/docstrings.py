"""Docstrings as Markdown for the API reference: a griffe extension.

The docstrings are plain text with formulas in ASCII. What is indented, or laid out in columns, stays as it is; the rest
flows as text, with a new line where a sentence ends at the end of a line, as the author meant it. The fields of
dataclasses become tables (see `settings`).
"""

from __future__ import annotations

import dataclasses
import re
import textwrap
from collections.abc import Iterable
from importlib import import_module
from itertools import groupby
from typing import Any

from griffe import Alias, Class, Docstring, Extension, Module, Object
from settings import has_table, settings_markdown

AS_IT_IS = re.compile(r"(`[^`]*`|\*[\w-]+\*)")  # code and emphasis
SPECIAL = re.compile(r"([\\*_\[\]#${}])")
COLUMNS = re.compile(r"\S {3,}\S")


class PlainDocstrings(Extension):
    """Replaces every docstring of a package by Markdown that looks like it."""

    def on_package(self, *, pkg: Module, **_: Any) -> None:
        _translate(pkg)
        _prefer_functions_to_files(pkg)


def to_markdown(docstring: str) -> str:
    """The Markdown for one docstring."""
    paragraphs = re.split(r"\n\s*\n", docstring.strip("\n"))
    return "\n\n".join(map(_paragraph, paragraphs))


def _translate(item: Object) -> None:
    if isinstance(item, Class):
        _translate_class(item)
    elif item.docstring is not None:
        item.docstring.value = to_markdown(item.docstring.value)
    for member in item.members.values():
        if not member.is_alias:
            _translate(member)  # type: ignore[arg-type]


def _translate_class(item: Class) -> None:
    cls = getattr(import_module(item.module.path), item.name, None)
    left_out: Iterable[str] = ()
    if has_table(cls):
        item.docstring = Docstring(settings_markdown(cls, to_markdown))
        item.decorators, item.labels = [], item.labels | {"dataclass"}  # or else griffe would show an __init__ as well
        left_out = [*(field.name for field in dataclasses.fields(cls)), "__post_init__"]
    else:
        if item.docstring is not None:
            item.docstring.value = to_markdown(item.docstring.value)
        if not dataclasses.is_dataclass(cls):  # what a constructor keeps says nothing to readers
            left_out = [name for name, member in item.members.items() if member.is_attribute and not member.docstring]
    for name in left_out:
        item.members.pop(name, None)


def _prefer_functions_to_files(package: Module) -> None:
    """minidat.ops.linear is the function for those who import it; the file linear.py must not take its place."""
    modules = [package, *(module for module in package.modules.values() if isinstance(module, Module))]
    exported = [(module, str(name)) for module in modules for name in module.exports or ()]
    for module, name in exported:
        member = module.members[name]
        if isinstance(member, Alias):
            member.resolve_target()  # while what is in the files is still found
    for module, name in exported:
        member = module.members[name]
        if isinstance(member, Module) and name in member.members:
            module.members[name] = Alias(name, member.members[name], parent=module)


def _paragraph(paragraph: str) -> str:
    if COLUMNS.search(paragraph):
        return _preformatted(paragraph)
    runs = groupby(paragraph.split("\n"), key=lambda line: line.startswith("    "))
    return "\n\n".join(_preformatted("\n".join(lines)) if shifted else _prose(list(lines)) for shifted, lines in runs)


def _preformatted(text: str) -> str:
    return f"```{{ .text .docstring .no-copy }}\n{textwrap.dedent(text)}\n```"


def _prose(lines: list[str]) -> str:
    text = re.sub(r"(?<=\.)\n", "  \n", "\n".join(lines))  # two blanks at the end of a line: what follows is a new one
    parts = AS_IT_IS.split(text)
    parts[::2] = [SPECIAL.sub(r"\\\1", part).replace("<", "&lt;") for part in parts[::2]]
    return "".join(parts)
