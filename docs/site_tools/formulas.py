"""Mathematics as MathML, made when the site is built: the reader's browser lays it out, no script is needed.

pymdownx.arithmatex has found the formulas in the page and escaped them for HTML; latex2mathml translates.
"""

from __future__ import annotations

import html
import re
import xml.etree.ElementTree as ET

from latex2mathml.converter import convert

INLINE = re.compile(r'(\(?)<span class="arithmatex">\\\((.*?)\\\)</span>([.,;:?!)]*)', re.DOTALL)
DISPLAY = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)
TAG = re.compile(r"\\tag\{([^{}]*)\}")
ROW_SPACE = re.compile(r"\\\\\[[\w.]+\]")  # the [4pt] of \\[4pt]
ENVIRONMENT = re.compile(r"\\(begin|end)\{(align|gather)ed\}")  # latex2mathml knows them as align* and gather*

MATHML = "http://www.w3.org/1998/Math/MathML"
ET.register_namespace("", MATHML)
LIMITS = {"msub": "munder", "msup": "mover", "msubsup": "munderover"}
WITH_LIMITS = {"∑", "∏", "max", "min"}  # operators whose limits stand below and above in a formula on its own lines
PRIME = "\N{PRIME}"
BRACKETS = set("⟨⟩⌈⌉⌊⌋")


class FormulaError(Exception):
    """A formula that latex2mathml does not understand."""


def render_formulas(page: str) -> str:
    """The page with every formula translated. Raises FormulaError with the formula that cannot be."""
    page = DISPLAY.sub(lambda match: _display(html.unescape(match[1]).strip()), page)
    return INLINE.sub(_inline, page)


def to_mathml(latex: str, display: str) -> str:
    """A <math> element; display: "inline" or "block". Its alttext is the LaTeX, which is also what copying gives."""
    if latex.replace(r"\{", "").count("{") != latex.replace(r"\}", "").count("}"):
        raise FormulaError(f"{latex}: its braces do not match")
    known = ENVIRONMENT.sub(r"\\\1{\2*}", ROW_SPACE.sub(r"\\\\", latex))
    try:
        formula = ET.fromstring(convert(known, display=display))
    except Exception as error:  # latex2mathml has many; what it makes of a stray & is no XML
        raise FormulaError(f"{latex}: latex2mathml does not understand it ({type(error).__name__} {error})") from None
    for element in list(formula.iter()):
        if element.text and element.text.startswith("\\"):
            raise FormulaError(f"{latex}: latex2mathml does not know {element.text}")
        _mend(element)
    formula.set("alttext", " ".join(latex.split()))
    return ET.tostring(formula, encoding="unicode")


def _inline(match: re.Match[str]) -> str:
    """A formula in the text, kept on one line with the punctuation around it."""
    before, latex, after = match.groups()
    return f'<span class="formula">{before}{to_mathml(html.unescape(latex).strip(), "inline")}{after}</span>'


def _display(latex: str) -> str:
    """A formula on lines of its own, its number at the right."""
    tags = TAG.findall(latex)
    if len(tags) > 1:
        raise FormulaError(f"{latex}: it has several \\tag; write a formula for each number")
    number = f'<span class="equation-number">({tags[0]})</span>' if tags else ""
    mathml = to_mathml(TAG.sub("", latex).strip(), "block")
    # tabindex: a formula wider than the screen can be scrolled with the keyboard too
    name = f' id="eq-{tags[0]}"' if tags else ""
    return f'<div class="equation"{name}><div class="equation-body" tabindex="0">{mathml}</div>{number}</div>'


def _mend(element: ET.Element) -> None:
    """What browsers need, and latex2mathml does otherwise."""
    tag = element.tag.removeprefix(f"{{{MATHML}}}")
    if tag == "mrow" and len(element) > 1 and all(child.get("mathvariant") == "normal" for child in element):
        # a word in upright letters is one identifier: between single letters there would be space
        word = "".join(child.text or "" for child in element)
        for child in list(element):
            element.remove(child)
        ET.SubElement(element, f"{{{MATHML}}}mi").text = word
    elif tag == "msup" and element[1].text == PRIME:
        # the sign is small and high by itself; as an exponent it would be so twice
        element.tag = f"{{{MATHML}}}mrow"
        element[1].tag = f"{{{MATHML}}}mo"
        element[1].attrib.update(lspace="0", rspace="0")
    elif tag in LIMITS and element[0].text in WITH_LIMITS:
        element.tag = f"{{{MATHML}}}{LIMITS[tag]}"
        element[0].set("movablelimits", "true")  # in a line of text they go to the side all the same
    elif tag == "mi" and element.text in BRACKETS:
        element.tag = f"{{{MATHML}}}mo"
        element.set("stretchy", "false")
