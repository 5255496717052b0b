"""A page is a notebook: its ```python blocks are run in order when the site is built.

What they print, and the picture that the last expression of a block is, stand below the block on the page; the executed
notebook can be downloaded. Options of a block: alt="..." says what its picture shows; `fold`, or fold="...", folds the
code away on the page under that caption, for code that only draws. Running is skipped while neither the blocks nor
anything they could use have changed.

    python docs/site_tools/notebooks.py docs/pages/tutorial/02-linear.md      run one chapter, print what it prints
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import mimetypes
import os
import platform
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat
from blocks import Block, split_blocks
from mkdocs.exceptions import PluginError
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from sources import ROOT, find_source

CACHE = ROOT / "docs" / ".cache"
SECONDS_A_CELL = 120
PACKAGES = ("numpy", "scipy", "pillow", "matplotlib")
PICTURE = "image/png"
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")  # colors of a terminal, in tracebacks
ADMONITION = re.compile(r'(?:!!!|\?\?\?\+?|===) *(?P<kind>[\w-]*)[^"]*(?:"(?P<title>[^"]*)")?')
REFERENCE = re.compile(r"\[([^\]]+)\]\[[\w.]*\]")  # [text][minidat.name]
PAGE_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:)[^)]*\)")
EXPLORER_LINK = re.compile(r'<a href="[^"]*explorer\.html[^"]*">([^<]+)</a>')
PICTURE_LINK = re.compile(r"!\[(?P<alt>[^\]]*)\]\((?P<path>(?!https?:)[^)]*)\)")
EMPTY_QUOTATION = re.compile(r"\A(>\n)+|(\n>)+\Z")
ATTRIBUTES = re.compile(r"\{:? *[.#][a-z][^}]*\}")


@dataclass
class Outputs:
    """What one block gave: the text it printed or its last expression is, and pictures as PNG files."""

    text: str = ""
    pictures: list[bytes] = field(default_factory=list)


def run_chapter(blocks: Sequence[Block], name: str) -> list[Outputs]:
    """Run the python blocks of a page one after the other in an empty folder, or recall what they gave.

    One Outputs for each. name: the page's, for errors. Raises PluginError naming page, line and what went wrong.
    """
    cells = [block for block in blocks if block.language == "python"]
    key = hashlib.sha256(json.dumps([[cell.text for cell in cells], _surroundings()]).encode()).hexdigest()
    file = CACHE / f"{key}.json"
    if file.is_file():
        recorded = json.loads(file.read_text(encoding="utf-8"))
        return [_outputs(cell) for cell in recorded]
    recorded = _execute(cells, name)
    CACHE.mkdir(exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=CACHE, suffix=".tmp", delete=False, encoding="utf-8") as temporary:
        json.dump(recorded, temporary)
    Path(temporary.name).replace(file)
    return [_outputs(cell) for cell in recorded]


def make_notebook(blocks: Sequence[Block], outputs: Sequence[Outputs], title: str, folder: Path) -> str:
    """The page as an executed notebook (the text of an .ipynb file). folder: where the page is, for its pictures."""
    introduction = (
        f"*This notebook is the page “{title}” of minidat's documentation. It runs in any folder, after* "
        "`pip install . matplotlib notebook` *in a copy of minidat's repository.*"
    )
    cells = [nbformat.v4.new_markdown_cell(introduction)]
    prose = _Prose()
    remaining = iter(outputs)
    for block in blocks:
        if block.language == "python":
            cells.append(nbformat.v4.new_code_cell(block.text, outputs=_notebook_outputs(next(remaining))))
        elif text := prose.translate(block):
            cells.append(nbformat.v4.new_markdown_cell(_with_pictures(text, folder)))
    for i, cell in enumerate(cells):
        cell.id = f"cell-{i}"
    for i, cell in enumerate((cell for cell in cells if cell.cell_type == "code"), start=1):
        cell.execution_count = i
    metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=metadata)
    nbformat.validate(notebook)
    return nbformat.writes(notebook)


def alternative_text(block: Block, title: str) -> str:
    """What is said in the place of a block's picture: the fence's `alt="..."`, or what the block shows."""
    if given := block.option("alt"):
        return given
    expression = block.text.strip().splitlines()[-1]
    return f"Picture made by the code above, {expression} (chapter: {title})".replace("[", "(").replace("]", ")")


class _Prose:
    """Translates a page's Markdown, block by block, into what notebooks know: admonitions become quotations."""

    def __init__(self) -> None:
        self.in_admonition = False

    def translate(self, block: Block) -> str:
        if block.language == "widget":
            return "*Here the page has a figure that you can move.*"
        if block.language == "source":
            source = find_source(block.text)
            text = f"`{source.title}`:\n\n```python\n{source.code}\n```"
            return "\n".join("> " + line for line in text.splitlines()) if block.indent else text
        if block.language is not None and not block.indent:
            self.in_admonition = False
            return block.raw
        lines = []
        for line in block.raw.splitlines():
            opening = ADMONITION.match(line)
            if opening:
                self.in_admonition = True
                lines += ["", f"> **{opening['title'] or opening['kind'].capitalize()}**", ">"]
            elif self.in_admonition and (line.startswith("    ") or not line.strip()):
                lines.append(("> " + line.removeprefix("    ")).rstrip() if line.strip() else ">")
            else:
                if self.in_admonition:
                    lines.append("")
                self.in_admonition = False
                lines.append(line)
        text = "\n".join(lines)
        if block.language is None:
            for link in (REFERENCE, PAGE_LINK, EXPLORER_LINK):
                text = link.sub(r"\1", text)
            text = ATTRIBUTES.sub("", text)
        return EMPTY_QUOTATION.sub("", text.strip())


def _with_pictures(text: str, folder: Path) -> str:
    """The text with the picture files that it shows written into it.

    As data URIs in <img>: JupyterLab refuses SVG as an attachment of the cell, VS Code refuses it in ![...](...).
    """

    def embed(picture: re.Match[str]) -> str:
        file = folder / picture["path"]
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        data = base64.b64encode(file.read_bytes()).decode("ascii")
        return f'<img alt="{html.escape(picture["alt"])}" src="data:{kind};base64,{data}">'

    return PICTURE_LINK.sub(embed, text)


@cache
def _surroundings() -> list[str]:
    """All that decides what a block gives, besides its own text: the versions of things, the package, the examples."""
    versions = [platform.python_version(), *(f"{package} {version(package)}" for package in PACKAGES)]
    tools = [Path(__file__).read_bytes()]
    folders = ("minidat", "weights", "examples")
    files = sorted(f for folder in folders for f in (ROOT / folder).rglob("*") if f.is_file())
    content = [f.read_bytes() for f in files if "__pycache__" not in f.parts]
    return [*versions, *(hashlib.sha256(data).hexdigest() for data in [*tools, *content])]


def _execute(cells: Sequence[Block], name: str) -> list[list[dict[str, Any]]]:
    """The outputs of each cell in nbformat's terms, run where a reader might: in a folder with nothing in it."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.text) for cell in cells])
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=SECONDS_A_CELL,
        extra_arguments=["--log-level=40"],  # errors only: it would warn that a port of this machine is not encrypted
    )
    python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with (
        tempfile.TemporaryDirectory() as empty,
        client.setup_kernel(cwd=empty, env={**os.environ, "PYTHONPATH": python_path}),
    ):
        for i, (cell, block) in enumerate(zip(notebook.cells, cells, strict=True)):
            where = f"{name}, line {block.line}"
            try:
                client.execute_cell(cell, i)
            except CellExecutionError as error:
                raise PluginError(f"{where}: {ESCAPE.sub('', str(error))}") from None
            except CellTimeoutError:
                raise PluginError(f"{where}: the block was not done after {SECONDS_A_CELL} s") from None
            except DeadKernelError:
                raise PluginError(f"{where}: the block killed Python") from None
    return [json.loads(json.dumps(cell.outputs)) for cell in notebook.cells]


def _outputs(recorded: list[dict[str, Any]]) -> Outputs:
    """What a cell gave. A figure that is the last expression as well as matplotlib's open one is there once."""
    result = Outputs()
    for output in recorded:
        data = output.get("data", {})
        if output["output_type"] == "stream":
            result.text += output["text"]
        elif PICTURE in data:
            picture = base64.b64decode(data[PICTURE])
            if picture not in result.pictures:
                result.pictures.append(picture)
        elif "text/plain" in data:
            result.text += data["text/plain"] + "\n"
    result.text = re.sub(r"[^\n]*\r(?!\n)", "", result.text)  # a progress bar's last state
    return result


def _notebook_outputs(outputs: Outputs) -> list[Any]:
    cells = [nbformat.v4.new_output("stream", name="stdout", text=outputs.text)] if outputs.text else []
    for picture in outputs.pictures:
        data = {PICTURE: base64.b64encode(picture).decode("ascii")}
        cells.append(nbformat.v4.new_output("display_data", data=data))
    return cells


def main() -> None:
    """Run the chapter named on the command line."""
    for path in map(Path, sys.argv[1:]):
        blocks = list(split_blocks(path.read_text(encoding="utf-8")))
        for outputs in run_chapter(blocks, path.name):
            print(outputs.text, end="")
            print("".join(f"[picture, {len(picture)} bytes]\n" for picture in outputs.pictures), end="")


if __name__ == "__main__":
    main()
