"""Text beside a listing speaks of what is in the listing: code that was renamed must not live on in its description."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator, Sequence
from functools import cache

from blocks import Block
from mkdocs.exceptions import PluginError
from sources import ROOT, find_source

CODE = re.compile(r"`([^`\n]+)`")
EXPRESSION = re.compile(r"[\w.()\[\], =+*@\"'<>-]+")  # no path, no option, no command
NAME = re.compile(r"(?<![\w\"'])[A-Za-z_]\w*")
NO_NAME = re.compile(r"\w+\*|[0-9a-f]{7,40}")  # dat_*, a commit
OMISSION = re.compile(r" +-\w+")


def check_names(blocks: Sequence[Block], page: str) -> None:
    """Look for every name that stands in `code` next to a listing.

    It must occur in the listings and code blocks of the page, or be one that is known everywhere: a function, class,
    parameter, attribute or constant of minidat, or one of Python's own. Raises PluginError for another.
    """
    known = {name for block in blocks if block.language is not None for name in NAME.findall(_code(block))}
    for i, block in enumerate(blocks):
        neighbors = (blocks[j] for j in (i - 1, i + 1) if 0 <= j < len(blocks))
        if block.language is not None or all(neighbor.language != "source" for neighbor in neighbors):
            continue
        for match in CODE.finditer(block.raw):
            if not EXPRESSION.fullmatch(match[1]) or NO_NAME.fullmatch(match[1]):
                continue
            for name in NAME.findall(match[1]):
                if name not in known and name not in _global_names():
                    line = block.line + block.raw[: match.start()].count("\n")
                    raise PluginError(f"{page}, line {line}: {match[0]}: no listing of the page has {name}")


def _code(block: Block) -> str:
    """A block's text; included source whole, so that the text may speak of what is left out."""
    if block.language != "source":
        return block.text
    return find_source(OMISSION.sub("", block.text.strip().split("\n")[0].partition("|")[0])).code


@cache
def _global_names() -> frozenset[str]:
    names = set(dir(builtins)) | {"np", "numpy", "torch"}
    for file in (ROOT / "minidat").rglob("*.py"):
        names.add(file.stem)
        names.update(_names(ast.parse(file.read_text(encoding="utf-8"))))
    return frozenset(names)


def _names(tree: ast.Module) -> Iterator[str]:
    """What a file defines that is more than a local variable."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.ClassDef():
                yield node.name
            case ast.arg():
                yield node.arg
            case ast.Attribute():
                yield node.attr
            case ast.AnnAssign(target=ast.Name(name)):
                yield name
            case ast.Constant(value=str(text)) if text.isidentifier():
                yield text
    for statement in tree.body:
        if isinstance(statement, ast.Assign):
            yield from (target.id for target in statement.targets if isinstance(target, ast.Name))
