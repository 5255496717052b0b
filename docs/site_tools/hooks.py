"""What mkdocs calls while it builds the site (https://www.mkdocs.org/dev-guide/plugins/#events)."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from importlib import import_module
from inspect import getdoc
from pathlib import Path
from typing import Any

from blocks import Block, indented, split_blocks
from docstrings import to_markdown
from equations import equation_homes, link_equations, page_equations
from evidence import TESTS_PAGE, check_tests, link_tests, mentioned_tests
from formulas import FormulaError, render_formulas
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from notebooks import Outputs, alternative_text, make_notebook, run_chapter
from PIL import Image
from prose import check_names
from sources import LINE_LENGTH, ROOT, SourceError, find_source, home_of, public_names
from widgets import widget

CHAPTER = re.compile(r"(?P<number>\d+)-.*\.md")
ALL_NAMES = re.compile(r"^::: all (?P<module>[\w.]+)$", re.MULTILINE)
EQUATIONS: dict[str, str] = {}  # the number of each -> the page where it is
LISTING = re.compile(r'(<div [^>]*?data-lines="([^"]*)"[^>]*>)(.*?</pre>)', re.DOTALL)
LINE = re.compile(r'(<span id="__span-\d+-\d+")>')
FOLDED = "Code of this figure"
TITLE = re.compile(r"^# +(.+)$", re.MULTILINE)


def on_config(config: MkDocsConfig) -> None:
    """A folder in the navigation stands for its pages; the tutorial's are numbered as their files are."""
    pages = Path(config.docs_dir)
    nav = []
    for item in config.nav or []:
        ((title, target),) = item.items()
        if str(target).endswith("/"):
            target = [_nav_item(file, pages) for file in _pages_in(pages / target)]
        if target:
            nav.append({title: target})
    config.nav = nav


def on_files(files: Files, config: MkDocsConfig) -> None:
    """The pictures in docs/images, which the README shows too, are part of the site. Note where each equation is."""
    for picture in sorted((ROOT / "docs" / "images").iterdir()):
        files.append(File.generated(config, f"images/{picture.name}", abs_src_path=str(picture)))
    EQUATIONS.clear()
    EQUATIONS.update(equation_homes(Path(config.docs_dir)))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Run the page's blocks, include source, list a module's names, look for the tests that are mentioned."""
    name = page.file.src_uri
    check_tests(markdown, name)
    if name == TESTS_PAGE:
        markdown += "\n\n".join(["", *mentioned_tests(Path(config.docs_dir))])
    markdown = ALL_NAMES.sub(lambda match: "\n\n".join(_api_entries(match["module"])), markdown)
    blocks = list(split_blocks(markdown))
    check_names(blocks, name)
    is_notebook = any(block.language == "python" for block in blocks)
    title = match[1] if (match := TITLE.search(markdown)) else name
    outputs = run_chapter(blocks, name) if is_notebook else []
    remaining = iter(outputs)
    parts = []
    for block in blocks:
        if block.language == "source":
            parts.append(_source(block, name))
        elif block.language == "widget":
            parts.append(widget(block.text, name))
        elif is_notebook and block.language == "python":
            parts.append(_executed(block, next(remaining), title, page, config, files))
        else:
            parts.append(block.raw if block.language is not None else link_tests(block.raw, name))
    text = "\n".join(parts)
    if is_notebook:
        notebook = Path(name).with_suffix(".ipynb")
        content = make_notebook(blocks, outputs, title, (Path(config.docs_dir) / name).parent)
        files.append(File.generated(config, notebook.as_posix(), content=content))
        button = f"[Download this page as a notebook]({notebook.name}){{ .notebook download data-search-exclude }}"
        text = TITLE.sub(lambda heading: f"{heading[0]}\n\n{button}\n", text, count=1)
    return text


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Formulas become MathML, mentioned equations links, and lines of included source get their numbers."""
    name = page.file.src_uri
    try:
        html = render_formulas(html)
    except FormulaError as error:
        raise PluginError(f"{name}: formula {error}") from None
    addresses = {number: files.src_uris[uri].url_relative_to(page.file) for number, uri in EQUATIONS.items()}
    addresses |= dict.fromkeys(page_equations(page.markdown or ""), "")
    return _number_lines(link_equations(html, addresses))


def _pages_in(folder: Path) -> list[Path]:
    """A folder's pages in the order of their names, the index first."""
    return sorted(folder.glob("*.md"), key=lambda file: (file.name != "index.md", file.name))


def _nav_item(file: Path, pages: Path) -> str | dict[str, str]:
    """An entry of the navigation; a chapter's has its number before its title."""
    uri = file.relative_to(pages).as_posix()
    chapter = CHAPTER.fullmatch(file.name)
    title = TITLE.search(file.read_text(encoding="utf-8"))
    return {f"{int(chapter['number'])}. {title[1]}": uri} if chapter and title else uri


def _api_entries(module_name: str) -> Iterator[str]:
    """Markdown for `::: all minidat.ops`: every public name, in a section for each file that defines some of them.

    A single file, as in `::: all minidat.runtime.threads`, is one section.
    """
    section, level = (module_name, 2) if hasattr(import_module(module_name), "__path__") else ("", 3)
    for (home, _), name in sorted((home_of(module_name, name), name) for name in public_names(module_name)):
        if home != section and f"{home}.".startswith(f"{module_name}."):
            section, level = home, 3
            yield f"## {home.rpartition('.')[2]}\n\n{to_markdown(getdoc(import_module(home)) or '')}"
        yield f"::: {module_name}.{name}\n    options:\n      heading_level: {level}"


def _source(block: Block, page: str) -> str:
    try:
        source = find_source(block.text, LINE_LENGTH - len(block.indent))
    except SourceError as error:
        raise PluginError(f"{page}, line {block.line}: source: {error}") from None
    if (widest := max(map(len, source.code.splitlines())) + len(block.indent)) > LINE_LENGTH:
        raise PluginError(
            f"{page}, line {block.line}: {source.title}: a line of the listing has {widest} characters, the page shows "
            f"{LINE_LENGTH}; break it in the source"
        )
    numbers = " ".join(str(number or "-") for number in source.numbers)
    text = f'````{{ .python title="{source.title}" data-lines="{numbers}" }}\n{source.code}\n````'
    if source.public_name:
        text += f"\n\n[`{source.public_name}`][{source.public_name}]{{ .source-link }}"
    return indented(text, block.indent) + "\n"


def _number_lines(html: str) -> str:
    """Give the lines of included source the numbers that their block has in `data-lines`."""

    def number(listing: re.Match[str]) -> str:
        numbers = iter(listing[2].split())
        return listing[1] + LINE.sub(lambda line: f'{line[1]} data-line="{next(numbers).strip("-")}">', listing[3])

    return LISTING.sub(number, html)


def _code(block: Block) -> str:
    """A block's code, folded if its fence says so."""
    text = f"```{{ .python .executed }}\n{block.text}\n```\n"
    caption = block.option("fold")
    return text if caption is None else f'??? figure-code "{caption or FOLDED}"\n\n{indented(text, "    ")}\n'


def _webp(picture: bytes) -> bytes:
    """A picture as WebP, lossless if that is smaller, as it is for drawings: photographs are a fifth of their PNG."""
    choices: list[dict[str, Any]] = [{"lossless": True}, {"quality": 90}]
    image, files = Image.open(io.BytesIO(picture)), []
    for options in choices:
        file = io.BytesIO()
        image.save(file, "WEBP", **options)
        files.append(file.getvalue())
    return min(files, key=len)


def _executed(block: Block, outputs: Outputs, title: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A block of code and, below it, what it printed and its pictures, which become files of the site."""
    text = _code(block)
    if outputs.text.strip():
        text += f"\n```{{ .text .output .no-copy }}\n{outputs.text.rstrip()}\n```\n"
    folder = Path(page.file.src_uri).with_suffix("")
    for number, picture in enumerate(outputs.pictures, start=1):
        name = f"line-{block.line}-{number}.webp"
        files.append(File.generated(config, f"{folder.as_posix()}/{name}", content=_webp(picture)))
        path = f"{folder.name}/{name}"
        text += f"\n[![{alternative_text(block, title)}]({path})]({path}){{ .output }}\n"  # a click shows it full size
    return indented(text, block.indent)
