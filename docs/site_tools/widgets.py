"""The figures inside chapters that a reader moves: the block in the page's Markdown, and the data of one of them.

    ```widget
    bilinear
    ```

becomes an element that `assets/widgets.js` fills. Notebooks only mention it.
"""

from __future__ import annotations

import base64
import json
from html import escape

import numpy as np
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from sources import ROOT

from minidat import load_image, ops

WIDGETS = {
    "bilinear": "A point between four pixels that can be dragged: its weights, its value and both slopes.",
    "leash": "An offset that can be dragged: where the point goes in DAT and in DAT++, and the slope.",
    "descent": "Sixteen points on the horse that can be dragged: the loss, its gradient, and the rebuilt picture.",
}
PHOTOGRAPH = ROOT / "examples" / "images" / "horse.jpg"


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the picture that the points of `descent` rebuild."""
    numbers = np.round(small_horse() * 65535).astype("<u2")
    data = {"side": len(numbers), "pixels": base64.b64encode(numbers.tobytes()).decode("ascii")}
    script = f"(window.minidatWidgets ??= {{}}).horse = {json.dumps(data)};\n"
    files.append(File.generated(config, "widgets/horse.js", content=script))


def small_horse() -> np.ndarray:
    """(57, 57, 3) in [0, 1]: the picture of chapter 9, made as it is there."""
    photo = load_image(PHOTOGRAPH)
    small, _ = ops.resize(photo[np.newaxis] / 255, size=(230, 230))
    return ops.average_pool(small, kernel=4)[0][0]


def widget(text: str, page: str) -> str:
    """The element for the block's text, the widget's name. Raises PluginError if there is no such widget."""
    name = text.strip()
    if name not in WIDGETS:
        raise PluginError(f"{page}: widget: found '{name}', expected one of {', '.join(WIDGETS)}")
    label = escape(WIDGETS[name])
    return (
        f'<div class="widget" data-widget="{name}" role="group" aria-label="{label}" data-search-exclude>'
        f'<p class="wi-wait">A figure to move, which needs JavaScript. {label}</p></div>\n'
    )
