"""Code that has longer lines than a page shows, wrapped as its author would have, with the file's line numbers kept."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import textwrap
import tokenize
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

LEFT_OUT = re.compile(r"^( +)\.\.\.$", re.MULTILINE)
STAND_IN = "left_out"  # ruff would put `...` behind its `def`

Line = tuple[int | None, str]  # its number in the file, None for a line that the file does not have, and the text


def wrapped(lines: Sequence[Line], width: int) -> list[Line]:
    """The lines with none longer than `width`, as far as comments and the formatter can help.

    A comment too far to the right moves above its line; then ruff formats the code for the narrower page. What ruff
    leaves, such as a docstring, stays too long: that is for the author to mend.
    """
    if all(len(text) <= width for _, text in lines):
        return list(lines)
    lines = list(_with_comments_above(lines, width))
    if all(len(text) <= width for _, text in lines):
        return lines
    old = [text for _, text in lines]
    new = _formatted("\n".join(old) + "\n", width)
    numbers: list[int | None] = [None] * len(new)
    for kind, start, stop, new_start, new_stop in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal" or (kind == "replace" and new_stop > new_start):
            kept = stop - start if stop - start == new_stop - new_start else 1
            numbers[new_start : new_start + kept] = [number for number, _ in lines[start : start + kept]]
    return list(zip(numbers, new, strict=True))


def _with_comments_above(lines: Sequence[Line], width: int) -> Iterator[Line]:
    columns = _comment_columns("\n".join(text for _, text in lines))
    for i, (number, text) in enumerate(lines):
        column = columns.get(i)
        if len(text) <= width or column is None:
            yield number, text
            continue
        code, comment = text[:column].rstrip(), text[column:].lstrip("# ")
        indent = " " * (len(text) - len(text.lstrip())) + "# "
        above = textwrap.wrap(comment, width, initial_indent=indent, subsequent_indent=indent)
        if code:
            yield from ((None, line) for line in above)
            yield number, code
        else:
            yield from ((number if n == 0 else None, line) for n, line in enumerate(above))


def _comment_columns(code: str) -> dict[int, int]:
    """Line, counted from 0 -> column of its comment."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(code).readline))
    except (tokenize.TokenError, IndentationError):
        return {}
    return {token.start[0] - 1: token.start[1] for token in tokens if token.type == tokenize.COMMENT}


def _formatted(code: str, width: int) -> list[str]:
    try:
        ast.parse(code)
    except SyntaxError:  # a part of a statement
        return code.splitlines()
    code = LEFT_OUT.sub(r"\1" + STAND_IN, code)
    command = [sys.executable, "-m", "ruff", "format", "--isolated", "--quiet", f"--line-length={width}", "-"]
    formatted = subprocess.run(command, input=code, capture_output=True, text=True, check=True).stdout
    return formatted.replace(STAND_IN, "...").splitlines()
