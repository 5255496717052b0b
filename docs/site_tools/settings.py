"""Fields as tables: those of a config, a recipe or an augmentation, with what its docstring says about each.

Such a class is a dataclass; other dataclasses get a table too if they describe all of their fields. The docstring
describes the fields one after the other,

    epochs: passes through the training images; batch: images a step; ...: ...;

a description reaching to the name of the next field or to the end of its sentence. Fields that a class inherits are
described by the class that they come from. What else the docstring says stays text.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import TypeGuard

NAMES = re.compile(r"\w*(Config|Settings|Recipe|Augmentation)")
SENTENCE_END = re.compile(r"\.(\s+(?=[A-Z])|\s*$)")
REQUIRED, NO_ARGUMENT = "required", "no argument"


class SettingsError(Exception):
    """A field that no docstring describes."""


@dataclass(frozen=True)
class Row:
    """A field: its name; its default, Python code, REQUIRED or NO_ARGUMENT; what it is for; whether it is inherited."""

    name: str
    default: str
    description: str
    inherited: bool


def is_settings(value: object) -> TypeGuard[type]:
    """Whether a class is one of settings, all of whose fields must be described."""
    return inspect.isclass(value) and dataclasses.is_dataclass(value) and NAMES.fullmatch(value.__name__) is not None


def has_table(value: object) -> TypeGuard[type]:
    """Whether the API reference shows a class as a table: settings, and other dataclasses with all fields described."""
    if not (inspect.isclass(value) and dataclasses.is_dataclass(value)):
        return False
    try:
        return is_settings(value) or bool(settings_rows(value))
    except SettingsError:
        return False


def settings_rows(cls: type) -> list[Row]:
    """The fields of a class of settings, first its own, then those it inherits.

    Raises SettingsError for a field without a description.
    """
    rows = []
    for field in dataclasses.fields(cls):
        described = (_describe(base)[1].get(field.name) for base in _bases(cls))
        description = next((text for text in described if text), None)
        if description is None:
            raise SettingsError(f"{cls.__module__}.{cls.__name__}: no docstring describes the field {field.name!r}")
        rows.append(Row(field.name, _default(cls, field), description, field.name not in _own_values(cls)))
    return sorted(rows, key=lambda row: row.inherited)


def settings_text(cls: type) -> str:
    """What a class's docstring says besides its fields."""
    return _describe(cls)[0]


def settings_markdown(cls: type, to_markdown: Callable[[str], str]) -> str:
    """What the reference says about a class: its docstring's text, and its fields as tables.

    to_markdown: from the plain text of a docstring.
    """
    parts = [to_markdown(settings_text(cls))]
    for inherited, rows in groupby(settings_rows(cls), key=lambda row: row.inherited):
        if inherited:
            parts.append("Inherited:")
        parts.append(_table(rows, to_markdown))
    return "\n\n".join(parts)


def _table(rows: Iterable[Row], to_markdown: Callable[[str], str]) -> str:
    """Neighbors with one description share a line."""
    rows = list(rows)
    has_defaults = any(row.default not in (REQUIRED, NO_ARGUMENT) for row in rows)
    lines = ["| field | default | |", "|---|---|---|"] if has_defaults else ["| field | |", "|---|---|"]
    for description, group in groupby(rows, key=lambda row: row.description):
        fields = list(group)
        names = "<br>".join(f"`{row.name}`" for row in fields)
        defaults = "<br>".join(
            row.default if row.default in (REQUIRED, NO_ARGUMENT) else f"`{row.default}`" for row in fields
        )
        meaning = " ".join(to_markdown(description).split()).replace("|", "\\|")
        lines.append(f"| {names} | {defaults} | {meaning} |" if has_defaults else f"| {names} | {meaning} |")
    return "\n".join(lines)


@cache
def _describe(cls: type) -> tuple[str, dict[str, str]]:
    """A docstring's text without its fields, and these by name: field -> description."""
    names = "|".join(field.name for field in dataclasses.fields(cls))
    entry = re.compile(rf"(?:^|(?<=[.;]\s))(?P<names>(?:{names})(?:,\s(?:{names}))*):\s+", re.MULTILINE)
    text = inspect.cleandoc(cls.__dict__.get("__doc__") or "")
    kept: list[str] = []
    found: dict[str, str] = {}
    position = 0
    matches = list(entry.finditer(text))
    ends = [*(match.start() for match in matches[1:]), len(text)]
    for match, end in zip(matches, ends, strict=False):
        kept.append(text[position : match.start()])
        if sentence_end := SENTENCE_END.search(text, match.end(), end):
            end = sentence_end.end()
        description = " ".join(text[match.end() : end].split()).rstrip(".;")
        found |= dict.fromkeys(re.split(r",\s", match["names"]), description)
        position = end
    kept.append(text[position:])
    return "\n\n".join(part for part in map(str.strip, kept) if part), found


def _bases(cls: type) -> Iterator[type]:
    """The class and those it inherits fields from, nearest first."""
    return (base for base in cls.__mro__ if dataclasses.is_dataclass(base))


@cache
def _own_values(cls: type) -> dict[str, ast.expr | None]:
    """The fields that a class itself defines, with the expressions of their defaults."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(node, ast.ClassDef)
    lines = [line for line in node.body if isinstance(line, ast.AnnAssign)]
    return {line.target.id: line.value for line in lines if isinstance(line.target, ast.Name)}


def _default(cls: type, field: dataclasses.Field) -> str:
    """A field's default, as it is written in the source or as its value prints: whichever is shorter."""
    if not field.init:
        return NO_ARGUMENT
    factory = field.default_factory
    if factory is not dataclasses.MISSING:
        return f"{factory.__name__}()" if inspect.isclass(factory) else "computed"
    if field.default is dataclasses.MISSING:
        return REQUIRED
    value = next(_own_values(base)[field.name] for base in _bases(cls) if field.name in _own_values(base))
    written, printed = ast.unparse(value) if value else "", repr(field.default)
    return written if value and not isinstance(value, ast.Name) and len(written) < len(printed) else printed
