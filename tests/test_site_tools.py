"""What builds the documentation site: formulas, included source, notebooks, the evidence, and that each can refuse."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="needs what builds the site: pip install '.[docs]'")
TOOLS = Path(__file__).parents[1] / "docs" / "site_tools"
PAGES = TOOLS.parent / "pages"
sys.path.insert(0, str(TOOLS))

import notebooks  # noqa: E402
from blocks import Block, split_blocks  # noqa: E402
from docstrings import to_markdown  # noqa: E402
from equations import equation_homes, link_equations  # noqa: E402
from evidence import check_tests, link_tests  # noqa: E402
from formulas import FormulaError, render_formulas, to_mathml  # noqa: E402
from hooks import FOLDED, _code, _number_lines  # noqa: E402
from mkdocs.exceptions import PluginError  # noqa: E402
from notebooks import Outputs, make_notebook  # noqa: E402
from prose import check_names  # noqa: E402
from settings import Row, SettingsError, has_table, is_settings, settings_markdown, settings_rows  # noqa: E402
from sources import LINE_LENGTH, PUBLIC_MODULES, SourceError, find_source, public_names  # noqa: E402
from wrapping import wrapped  # noqa: E402

# --- pages ------------------------------------------------------------------------------------------------------------


def test_blocks_give_the_page_again() -> None:
    page = '# A\n\n```python alt="b"\nx\n```\ntext\n    ```source\n    a.py: b\n\n    ```\n\n````text\n```\n````\nend'
    blocks = list(split_blocks(page))
    assert "\n".join(block.raw for block in blocks) == page
    assert [block.language for block in blocks] == [None, "python", None, "source", None, "text", None]
    assert (blocks[1].text, blocks[1].options, blocks[1].line) == ("x", 'alt="b"', 3)
    assert (blocks[3].text, blocks[3].indent) == ("a.py: b\n", "    ")
    assert blocks[5].text == "```"


def test_options_of_a_block() -> None:
    block = Block("python", "", "", 1, options='fold alt="A fold, a title=x" title="b"')
    assert [block.option(name) for name in ("fold", "alt", "title", "a", "x")] == [
        "",
        "A fold, a title=x",
        "b",
        None,
        None,
    ]


def test_docstrings_keep_their_lines_and_columns() -> None:
    text = to_markdown(
        "Sum d_x * w.\n\nx: (B, C).\nRaises E if `d_x` * fails.\n\n    output = x * w\n\nname    what\nother   that"
    )
    assert text.split("\n\n") == [
        r"Sum d\_x \* w.",
        "x: (B, C).  \nRaises E if `d_x` \\* fails.",
        "```{ .text .docstring .no-copy }\noutput = x * w\n```",
        "```{ .text .docstring .no-copy }\nname    what\nother   that\n```",
    ]


# --- tables of settings -----------------------------------------------------------------------------------------------


@dataclass
class ShapeConfig:
    """A shape.

    sides: how many, 1. up; color,
    edge: names of colors; all are known. Raises nothing.
    """

    sides: int
    color: str = "red"
    edge: str = "black"


@dataclass
class BoxConfig(ShapeConfig):
    """A box. depth: a | sign stays: in its cell."""

    sides: int = 4
    depth: tuple[float, ...] = (1 / 3, 2 / 3)


def test_settings_are_described_field_by_field() -> None:
    assert settings_rows(BoxConfig) == [
        Row("sides", "4", "how many, 1. up", False),
        Row("depth", "(1 / 3, 2 / 3)", "a | sign stays: in its cell", False),
        Row("color", "'red'", "names of colors; all are known", True),
        Row("edge", "'black'", "names of colors; all are known", True),
    ]
    text = settings_markdown(ShapeConfig, str)
    assert text.startswith("A shape.\n\nRaises nothing.\n\n| field | default | |\n")
    assert "| `sides` | required | how many, 1. up |" in text
    assert "| `color`<br>`edge` | `'red'`<br>`'black'` | names of colors; all are known |" in text
    assert r"a \| sign stays" in settings_markdown(BoxConfig, str)


def test_other_dataclasses_have_a_table_if_all_is_described() -> None:
    @dataclass
    class Answer:
        """What was found.

        shares: of each class; count: how many there were.
        """

        shares: list[float]
        count: int = field(default=0, init=False)

    @dataclass
    class Row3:
        """What was found. shares: of each class."""

        shares: list[float]
        count: int

    assert has_table(Answer)
    assert settings_markdown(Answer, str).endswith("| `shares` | of each class |\n| `count` | how many there were |")
    assert not has_table(Row3)
    assert not has_table(int)


def test_settings_without_a_description_are_refused() -> None:
    @dataclass
    class LidConfig(BoxConfig):
        """A box with a lid. depths: is another word."""

        lid: bool = True

    with pytest.raises(SettingsError, match="LidConfig: no docstring describes the field 'lid'"):
        settings_rows(LidConfig)


def test_all_public_settings_are_described() -> None:
    found = {
        value for module in PUBLIC_MODULES for _, value in vars(import_module(module)).items() if is_settings(value)
    }
    assert {"ModelConfig", "StageSettings", "Recipe", "BoxAugmentation"} <= {cls.__name__ for cls in found}
    for cls in found:
        assert settings_rows(cls)


# --- included source --------------------------------------------------------------------------------------------------


def test_source_is_cut_from_the_file() -> None:
    source = find_source("minidat/ops/linear.py: linear.backward -types")
    lines = (TOOLS.parents[1] / "minidat/ops/linear.py").read_text().splitlines()
    assert source.numbers[0] == source.first_line
    assert source.numbers[-1] == source.last_line
    assert source.code.splitlines()[1:] == [lines[number - 1][4:] for number in source.numbers[1:] if number]
    assert source.public_name == "minidat.ops.linear"
    assert f"lines {source.first_line} to {source.last_line}" in source.title


def test_long_lines_are_wrapped_and_the_numbers_stay() -> None:
    lines = [
        "def f(x):",
        "    y = 1  # why it is one and never two",
        "    # a comment as long as this",
        "    return g(x, y, y)",
    ]
    assert wrapped(list(enumerate(lines, start=5)), 40) == [
        (5, "def f(x):"), (6, lines[1]), (7, lines[2]), (8, lines[3]),
    ]  # fmt: skip
    assert wrapped(list(enumerate(lines, start=5)), 22) == [
        (5, "def f(x):"),
        (None, "    # why it is one"), (None, "    # and never two"), (6, "    y = 1"),
        (7, "    # a comment as"), (None, "    # long as this"),
        (8, "    return g(x, y, y)"),
    ]  # fmt: skip
    assert wrapped([(9, "return g(x, y)")], 10) == [(9, "return g("), (None, "    x, y"), (None, ")")]
    assert wrapped([(9, '"""Long text."""')], 10) == [(9, '"""Long text."""')]  # the author's to mend


def test_no_listing_of_the_pages_is_too_wide() -> None:
    for page in PAGES.rglob("*.md"):
        for block in split_blocks(page.read_text(encoding="utf-8")):
            if block.language == "source":
                width = LINE_LENGTH - len(block.indent)
                source = find_source(block.text, width)
                assert all(len(line) <= width for line in source.code.splitlines()), (page, source.title)
                assert set(filter(None, source.numbers)) <= set(range(source.first_line, source.last_line + 1))


def test_citations_stand_on_their_line() -> None:
    source = find_source("minidat/ops/linear.py: linear.backward -types\nd_bias = : (2f)\nd_rows = d_out: (2d), (2e)")
    lines = source.code.splitlines()
    assert lines[3].endswith(".sum(axis=0)  # (2f)")
    assert lines[2].endswith("  # (N, D), (2d), (2e)")
    for citation in ("nothing: (2f)", "d_rows: (2f)", "d_bias = : 2f"):
        with pytest.raises(SourceError, match="citation"):
            find_source(f"minidat/ops/linear.py: linear.backward -types\n{citation}")


def test_mentioned_equations_are_links() -> None:
    page = '<p>By (7b) and (x), <code>(7b)</code>.</p><pre>f(7) <span class="c1"># (7b)</span></pre>'
    page += '<span class="equation-number">(7b)</span>'
    link = '<a class="equation-link" href="07.html#eq-7b">(7b)</a>'
    expected = page.replace("By (7b)", f"By {link}").replace("# (7b)", f"# {link}")
    assert link_equations(page, {"7b": "07.html"}) == expected
    assert 'id="eq-7b"' in render_formulas('<div class="arithmatex">\\[x \\tag{7b}\\]</div>')


def test_equations_have_one_home(tmp_path) -> None:
    (tmp_path / "a.md").write_text(r"$$x \tag{7b}$$ and $$y \tag{a}$$")
    assert equation_homes(tmp_path) == {"7b": "a.md"}
    (tmp_path / "b.md").write_text(r"$$x \tag{7b}$$")
    with pytest.raises(PluginError, match=r"b\.md: .*\(7b\) is in a\.md already"):
        equation_homes(tmp_path)


def test_lines_get_the_numbers_of_their_block() -> None:
    spans = "".join(f'<span id="__span-3-{i}">x\n</span>' for i in (1, 2))
    page = f'<div class="highlight" data-lines="12 -"><pre>{spans}</pre></div><div><pre>{spans}</pre></div>'
    numbered = _number_lines(page)
    assert numbered.count("data-line=") == 2
    assert '<span id="__span-3-1" data-line="12">x' in numbered
    assert '<span id="__span-3-2" data-line="">x' in numbered


def test_text_beside_a_listing_names_what_is_in_it() -> None:
    listing = "```source\nminidat/ops/linear.py: linear -backward\n```\n"
    for text in ("`d_output`, `np.float32`, `Module.forward`, `x @ weight.T`, `linear(x, 1)`", "`dat_*`, `a/path.py`"):
        check_names(list(split_blocks(f"{listing}\nThis is {text}.\n")), "page.md")
    for page in (f"{listing}A line.\nAnd `d_inputs += 1`.\n", f"A line.\n\n\n\nThe `d_inputs` of\n{listing}"):
        with pytest.raises(PluginError, match=r"page\.md, line 5: `d_inputs.*has d_inputs"):
            check_names(list(split_blocks(page)), "page.md")
    check_names(list(split_blocks("`d_inputs`, with no listing.")), "page.md")


def test_source_leaves_out_what_it_is_told_to() -> None:
    whole = find_source("minidat/ops/linear.py: linear").code
    backward = find_source("minidat/ops/linear.py: linear.backward")
    forward = find_source("minidat/ops/linear.py: linear -docstring -backward").code
    assert '"""' in whole
    assert '"""' not in forward
    assert backward.code.startswith("def backward(")
    assert backward.public_name == "minidat.ops.linear"
    last_line = backward.code.splitlines()[-1].strip()
    assert last_line in whole
    assert last_line not in forward
    assert "        ...\n" in forward


def test_source_leaves_out_type_hints() -> None:
    norm = find_source("minidat/ops/normalization.py: layer_norm -docstring -types").code
    assert norm.startswith("def layer_norm(x, weight, bias, *, eps=1e-5):\n    check_layer_norm(")
    assert "\n    def backward(d_output):\n" in norm
    assert (
        "def apply(self, op, *arguments, **settings):\n"
        in find_source("minidat/nn/module.py: Context.apply -types").code
    )
    convolution = find_source("minidat/nn/layers.py: Conv2d -types").code
    assert "    def __init__(\n        self,\n" in convolution  # longer than a line
    assert "        *,\n        stride=1,\n        padding=0,\n" in convolution
    assert "Context" not in convolution


def test_source_of_a_single_statement() -> None:
    shift = find_source("minidat/models/window_attention.py: WindowAttention.__init__ | self.shift")
    assert shift.code == "self.shift = -(-window // 2) if shifted else 0"
    assert shift.title.endswith(f"line {shift.first_line}, in WindowAttention.__init__")
    inner = find_source("minidat/ops/sampling.py: reference_points | / size * 2 - 1).astype")
    assert inner.code == "return ((i + 0.5) / size * 2 - 1).astype(dtype)"  # not the `if` around it
    for text in ("pad_backward", "nowhere to be found"):  # in several statements, in none
        with pytest.raises(SourceError, match="expected it in one"):
            find_source(f"minidat/models/window_attention.py: WindowAttention.forward | {text}")


def test_every_listing_is_there() -> None:
    for page in sorted(PAGES.rglob("*.md")):
        for block in split_blocks(page.read_text(encoding="utf-8")):
            if block.language == "source":
                assert find_source(block.text).code, f"{page.name}, line {block.line}"


@pytest.mark.parametrize("chapter", ["03", "04", "07", "09", "14"])
def test_listings_of_the_textbook_can_be_taken_in_at_a_glance(chapter: str) -> None:
    (page,) = PAGES.glob(f"tutorial/{chapter}-*.md")
    for block in split_blocks(page.read_text(encoding="utf-8")):
        if block.language == "source" and not block.indent:  # not folded away
            lines = find_source(block.text).code.splitlines()
            assert len(lines) <= 42, f"line {block.line}"
            assert max(map(len, lines)) <= 88, f"line {block.line}"


@pytest.mark.parametrize("page", sorted(PAGES.glob("tutorial/*.md")), ids=lambda page: page.stem)
def test_a_chapter_speaks_of_private_names_that_it_shows(page: Path) -> None:
    blocks = list(split_blocks(page.read_text(encoding="utf-8")))
    prose = "\n".join(block.text for block in blocks if block.language is None)
    shown = "\n".join(find_source(block.text).code for block in blocks if block.language == "source")
    missing = {name for name in re.findall(r"`(_\w+)`", prose) if not re.search(rf"\b{name}\b", shown)}
    assert not missing


def test_source_of_methods_and_of_what_is_private() -> None:
    assert find_source("minidat/models/dat.py: DAT.forward").public_name == "minidat.models.DAT.forward"
    assert find_source("minidat/ops/_shapes.py: check").public_name is None


@pytest.mark.parametrize(
    ("specification", "message"),
    [
        ("minidat/ops/linear.py", "expected 'path/to/file.py: name'"),
        ("minidat/ops/none.py: linear", "no such file"),
        ("minidat/ops/linear.py: linaer", "defines no 'linaer'"),
        ("minidat/ops/linear.py: linear -forward", "no function 'forward' to leave out"),
    ],
)
def test_source_refuses_what_is_not_there(specification: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        find_source(specification)


def test_public_names_of_modules_and_packages() -> None:
    assert "layer_norm" in public_names("minidat.ops")
    assert "ShapeError" in public_names("minidat.errors")
    assert "Sequence" not in public_names("minidat.errors")


# --- formulas ---------------------------------------------------------------------------------------------------------


def test_formulas_are_numbered_and_keep_their_latex() -> None:
    page = r'<div class="arithmatex">\[ a &lt; b \tag{7a} \]</div> <p>(<span class="arithmatex">\(x_i\)</span>).</p>'
    rendered = render_formulas(page)
    assert '<span class="equation-number">(7a)</span>' in rendered
    assert 'alttext="a &lt; b"' in rendered
    assert 'display="block"' in rendered
    assert '<span class="formula">(<math' in rendered
    assert "</math>).</span>" in rendered
    assert "arithmatex" not in rendered


def test_formulas_suit_browsers() -> None:
    assert "<mi>softmax</mi>" in to_mathml(r"\mathrm{softmax}(z)", "inline")
    assert '<munder><mo movablelimits="true">∑</mo>' in to_mathml(r"\sum_i x_i", "inline")
    assert "<mi>f</mi><mo lspace" in to_mathml("f'(x)", "inline")
    assert to_mathml(r"\begin{aligned} a &= b \\[4pt] c &= d \end{aligned}", "block").count("<mtr>") == 2
    assert ">aligned<" in to_mathml(r"\text{aligned}", "inline")  # the word, not the environment


@pytest.mark.parametrize("latex", [r"\nonsense{x}", r"a & b", r"\frac{a}{b", r"\left( x"])
def test_a_formula_that_is_not_understood_is_an_error(latex: str) -> None:
    with pytest.raises(FormulaError):
        to_mathml(latex, "inline")


def test_two_numbers_of_one_formula_are_an_error() -> None:
    with pytest.raises(FormulaError, match="several"):
        render_formulas(r'<div class="arithmatex">\[ a \tag{1} b \tag{2} \]</div>')


# --- notebooks and evidence -------------------------------------------------------------------------------------------


def test_notebook_has_the_page(tmp_path: Path) -> None:
    (tmp_path / "a.svg").write_text("<svg/>")
    page = (
        "# Title\n\nSee [linear][minidat.ops.linear] and [next](03-x.md){ .b }.\n\n![5 > 4](a.svg)\n\n"
        '!!! note "In the paper"\n\n    Words.\n\n    ```python\n    1 + 1\n    ```\n\n    More.\n\nAfter.'
    )
    blocks = list(split_blocks(page))
    notebook = json.loads(make_notebook(blocks, [Outputs("2\n", [b"png"])], "Title", tmp_path))
    introduction, first, code, last = notebook["cells"]
    assert "pip install" in "".join(introduction["source"])
    text = "".join(first["source"])
    assert "See linear and next." in text
    assert '<img alt="5 &gt; 4" src="data:image/svg+xml;base64,PHN2Zy8+">' in text
    assert "attachments" not in first  # JupyterLab shows none that is SVG
    assert "> **In the paper**\n>\n>\n> Words." in text
    assert "".join(code["source"]) == "1 + 1"
    assert [output["output_type"] for output in code["outputs"]] == ["stream", "display_data"]
    assert "".join(last["source"]).startswith("> More.")
    assert "".join(last["source"]).endswith("\n\nAfter.")


def test_a_block_that_fails_names_its_page_and_line() -> None:
    pytest.importorskip("ipykernel")
    with pytest.raises(PluginError, match=r"page\.md, line 7:(.|\n)*ZeroDivisionError"):
        notebooks.run_chapter([Block("python", "1 / 0", "", 7)], "page.md")


def test_a_page_runs_in_an_empty_folder(tmp_path, monkeypatch) -> None:
    pytest.importorskip("ipykernel")
    monkeypatch.setattr(notebooks, "CACHE", tmp_path / "cache")
    code = "import os, minidat\nprint(os.listdir('.'), minidat.example_image('horse').ndim)"
    (outputs,) = notebooks.run_chapter([Block("python", code, "", 1)], "page.md")
    assert outputs.text == "[] 3\n"


def test_code_that_only_draws_is_folded() -> None:
    assert _code(Block("python", "x = 1", "", 1)) == "```{ .python .executed }\nx = 1\n```\n"
    folded = _code(Block("python", "x = 1\n\ny = 2", "", 1, options='fold="A caption" alt="b"'))
    assert folded.startswith(
        '??? figure-code "A caption"\n\n    ```{ .python .executed }\n    x = 1\n\n    y = 2\n    ```'
    )
    assert f'"{FOLDED}"' in _code(Block("python", "x = 1", "", 1, options="fold"))


def test_times_in_chapter_15_are_those_of_the_readme() -> None:
    chapter = (PAGES / "tutorial" / "15-speed.md").read_text(encoding="utf-8")
    table = re.findall(r'^    "(.+)": \(([\d.]+), ([\d.]+|None)\),$', chapter, re.MULTILINE)
    lines = (TOOLS.parents[1] / "README.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    start = next(i for i, row in enumerate(cells) if "ratio" in row)
    columns = cells[start].index("ratio"), cells[start].index("ratio of the session")
    rows = [row for row in cells[start + 2 :] if len(row) == len(cells[start])]
    assert table == [(row[0], row[columns[0]], row[columns[1]].replace("\N{EN DASH}", "None")) for row in rows]


def test_evidence_must_exist() -> None:
    check_tests("`tests/test_linear.py::test_linear` and tests/checks.py", "page.md")
    for mention in ("tests/test_nothing.py", "`tests/test_linear.py::test_nothing`"):
        with pytest.raises(PluginError, match=r"page\.md: .*nothing"):
            check_tests(mention, "page.md")


def test_the_evidence_of_all_pages_exists() -> None:
    for page in sorted(PAGES.rglob("*.md")):
        check_tests(page.read_text(encoding="utf-8"), page.name)


def test_evidence_is_linked_once() -> None:
    text = link_tests("`tests/test_linear.py::test_linear` `tests/checks.py`", "tutorial/02-linear.md")
    link = "[`tests/test_linear.py::test_linear`](../reference/tests.md#tests-test_linear-py-test_linear)"
    assert text == f"{link} `tests/checks.py`"
    assert link_tests(text, "tutorial/02-linear.md") == text
