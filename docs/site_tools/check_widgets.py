"""Whether the figures inside the chapters answer mouse, keys and fingers, and compute what minidat's operators do.

    python docs/site_tools/check_widgets.py [SITE]

opens the pages of a built site (docs/site) that have one; `check_site.py` calls `check_widgets` on pages it has opened.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import Locator, Page
from widgets import small_horse

from minidat import ops

TWO_FRAMES = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
PLACES = ((0.3, 0.4), (0.55, 0.7), (0.45, 0.45), (0.15, 0.6), (0.8, 0.85))  # shares of a drawing's height and width
TOLERANCE = 1e-9  # relative, of what a page computes: it calculates in double precision too
ROUNDING = 1e-6  # what 16 bits a color do to the loss and its gradient, at most


def check_widgets(page: Page) -> list[str]:
    """What is wrong with the widgets on this page, which should have one at least."""
    problems = []
    roots = page.locator(".widget")
    if not roots.count():
        return ["there is no widget"]
    for i in range(roots.count()):
        root = roots.nth(i)
        name = root.get_attribute("data-widget") or ""
        try:
            page.wait_for_function("root => root.dataset.state", arg=root.element_handle())
            problems += [f"widget {name}: {problem}" for problem in CHECKS[name](page, root)]
        except PlaywrightError as error:  # something does not appear; what follows would make no sense
            problems.append(f"widget {name}: " + " ".join(error.message.split()))
    return problems


def _check_bilinear(page: Page, root: Locator) -> Iterator[str]:
    """The point at several places, among them kinks, where (7e) and (7f) are one-sided, and outside."""
    grip = root.locator(".wi-handle")
    for choice in range(root.locator("option").count()):
        root.locator("select").select_option(index=choice)
        for place in PLACES if choice == 0 else (PLACES[choice],):
            before = _state(page, root)
            _drag(page, grip, root.locator(".wi-stage"), place)
            yield from _changed("the mouse", before, _state(page, root), "point")
            yield from _as_grid_sample(_state(page, root))
    yield from _keys_move(page, root, grip, "point")
    yield from _finger_drags(page, root, grip, root.locator(".wi-stage"), "point")
    _drag(page, grip, root.locator(".wi-stage"), (0.5, 0.47))
    for step in range(24):  # in steps of a twentieth: to pixel 0 and beyond it, along both axes
        grip.press("ArrowUp" if step < 12 else "ArrowLeft")
        yield from _as_grid_sample(_state(page, root))


def _as_grid_sample(state: dict[str, Any]) -> Iterator[str]:
    """Compare with the operator: on a map of 2 x 2, corners aligned, pixel p is at 2 p - 1."""
    values, point = np.array(state["map"]), np.array(state["point"])
    value, backward = ops.grid_sample(values[None, :, :, None], (2 * point - 1)[None, None, None, None])
    _, d_position = backward(np.ones_like(value))
    what = f"at {state['point']}"
    yield from _equal(f"{what}: value", state["value"], value.item())
    yield from _equal(f"{what}: slopes", state["slopes"], 2 * d_position.ravel())  # per pixel
    yield from _equal(f"{what}: sum of the weights", sum(state["weights"]), 1)


def _check_leash(page: Page, root: Locator) -> Iterator[str]:
    slider = root.locator("input[type=range]")
    for choice in range(root.locator("option").count()):
        root.locator("select").select_option(index=choice)
        for key in ("Home", "ArrowRight", "PageUp", "PageUp", "ArrowLeft", "PageUp", "End"):
            before = _state(page, root)
            slider.press(key)
            if choice == 0:
                yield from _changed(key, before, _state(page, root), "o")
            yield from _as_sampling_points(_state(page, root))
    for plot in root.locator(".wi-plot svg").all():
        for place in ((0.5, 0.4), (0.5, 0.75)):
            before = _state(page, root)
            plot.scroll_into_view_if_needed()
            page.mouse.move(*_on(plot, place))
            page.mouse.down()
            page.mouse.up()
            yield from _changed("the mouse", before, _state(page, root), "o")
            yield from _as_sampling_points(_state(page, root))


def _as_sampling_points(state: dict[str, Any]) -> Iterator[str]:
    n, i = state["points"], state["index"]
    offsets = np.zeros((1, 1, n, n, 2))
    offsets[0, 0, i, 0, 0] = state["o"]
    for found in state["found"]:
        factor = 2.0 if found["rule"] == "dat" else None
        positions, backward = ops.sampling_points(offsets, rule=found["rule"], range_factor=factor)
        (slopes,) = backward(np.ones_like(positions))
        what = f"{found['rule']}, point {i}, o = {state['o']}"
        yield from _equal(f"{what}: position", found["position"], positions[0, 0, i, 0, 0])
        yield from _equal(f"{what}: slope", found["slope"], slopes[0, 0, i, 0, 0])


def _check_descent(page: Page, root: Locator) -> Iterator[str]:
    """Points that are dragged; and the chapter's descent, which must end where the chapter's code does."""
    stage, grips = root.locator(".wi-stage").first, root.locator(".wi-handle")
    yield from _as_rebuilt(_state(page, root))
    for which, place in ((5, (0.4, 0.35)), (10, (0.55, 0.7))):
        before = _state(page, root)
        _drag(page, grips.nth(which), stage, place)
        yield from _changed("the mouse", before, _state(page, root), "points")
        yield from _as_rebuilt(_state(page, root))
    yield from _keys_move(page, root, grips.nth(6), "points")
    yield from _finger_drags(page, root, grips.nth(0), stage, "points")
    root.get_by_text("Back to the grid").click()
    page.emulate_media(reduced_motion="reduce")  # all steps at once
    root.get_by_text("100 steps").click()
    page.evaluate(TWO_FRAMES)
    state, (points, loss) = _state(page, root), _descend()
    yield from _equal("after 100 steps: points", state["points"], points, 0.03)  # kinks magnify what is rounded
    yield from _equal("after 100 steps: loss", state["loss"], loss, 1e-4)
    page.emulate_media(reduced_motion=None)
    root.get_by_text("Back to the grid").click()
    before = _state(page, root)
    root.get_by_text("One step downhill").click()
    if _state(page, root)["loss"] >= before["loss"]:
        yield "a step downhill does not make the loss smaller"


def _as_rebuilt(state: dict[str, Any]) -> Iterator[str]:
    loss, gradients = _rebuild(np.array(state["points"]).reshape(1, 1, 4, 4, 2))
    yield from _equal("loss", state["loss"], loss, ROUNDING)
    yield from _equal("gradient", state["gradients"], gradients.reshape(16, 2), ROUNDING)


def _colors() -> np.ndarray:
    """(1, 57, 57, 4), as in chapter 9, of the 16 bits a color that the page is given."""
    small = np.round(small_horse() * 65535)[None] / 65535
    mean = small.mean(axis=(0, 1, 2))
    radius = 1.01 * np.linalg.norm(small - mean, axis=-1).max()
    colors = (small - mean) / radius
    fourth = np.sqrt(1 - (colors**2).sum(axis=-1, keepdims=True))
    return np.concatenate([colors, fourth], axis=-1)


def _rebuild(positions: np.ndarray) -> tuple[float, np.ndarray]:
    """Chapter 9's loss for positions (1, 1, 4, 4, 2), and its gradient."""
    colors = _colors()
    queries = colors.reshape(1, 1, -1, 4)
    samples, sample_backward = ops.grid_sample(colors, positions)
    keys = samples.reshape(1, 1, -1, 4)
    mixed, attention_backward = ops.attention(queries, keys, keys, None, scale=30)
    error = mixed - queries
    _, d_keys, d_values, _ = attention_backward(2 * error / error.shape[2])
    _, d_positions = sample_backward((d_keys + d_values).reshape(samples.shape))
    return float((error**2).sum(axis=-1).mean()), d_positions


def _descend(steps: int = 100) -> tuple[np.ndarray, float]:
    """The descent of chapter 9: points (16, 2) after it, and their loss."""
    offsets, smooth = np.zeros((1, 1, 4, 4, 2)), np.zeros((1, 1, 4, 4, 2))
    for step in range(steps):
        positions, points_backward = ops.sampling_points(offsets, rule="dat", range_factor=1.0)
        _, d_positions = _rebuild(positions)
        (d_offsets,) = points_backward(d_positions)
        smooth = 0.8 * smooth + 0.2 * d_offsets
        direction = smooth / (np.abs(smooth) + np.abs(smooth).mean())
        offsets = offsets - 0.1 * (1 - step / steps) * direction
    positions, _ = ops.sampling_points(offsets, rule="dat", range_factor=1.0)
    return positions.reshape(16, 2), _rebuild(positions)[0]


CHECKS: dict[str, Callable[[Page, Locator], Iterator[str]]] = {
    "bilinear": _check_bilinear,
    "leash": _check_leash,
    "descent": _check_descent,
}


def _keys_move(page: Page, root: Locator, grip: Locator, field: str) -> Iterator[str]:
    """The arrow keys change the state and what a screen reader says."""
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"):
        before, said = _state(page, root), grip.get_attribute("aria-valuetext")
        grip.press(key)
        yield from _changed(key, before, _state(page, root), field)
        if grip.get_attribute("aria-valuetext") == said:
            yield f"{key} does not change what is said"


def _finger_drags(page: Page, root: Locator, grip: Locator, stage: Locator, field: str) -> Iterator[str]:
    """A finger on the point drags it, also up and down, and does not scroll the page."""
    stage.scroll_into_view_if_needed()
    session = page.context.new_cdp_session(page)
    before, scroll = _state(page, root), page.evaluate("window.scrollY")
    path = [_on(grip, (0.5, 0.5))]
    path += [(path[0][0], path[0][1] + 8 * step) for step in range(1, 4)]
    for i, (x, y) in enumerate(path):
        kind = "touchMove" if i else "touchStart"
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    yield from _changed("a finger", before, _state(page, root), field)
    if page.evaluate("window.scrollY") != scroll:
        yield "a finger on the point scrolls the page"
    session.detach()


def _drag(page: Page, grip: Locator, stage: Locator, place: tuple[float, float]) -> None:
    """Take the point with the mouse to these shares of the drawing's height and width."""
    stage.scroll_into_view_if_needed()
    page.mouse.move(*_on(grip, (0.5, 0.5)))
    page.mouse.down()
    page.mouse.move(*_on(stage, place), steps=3)
    page.mouse.up()


def _on(element: Locator, place: tuple[float, float]) -> tuple[float, float]:
    """(x, y) on the screen of these shares of an element's height and width."""
    box = element.bounding_box()
    assert box is not None
    return box["x"] + place[1] * box["width"], box["y"] + place[0] * box["height"]


def _state(page: Page, root: Locator) -> dict[str, Any]:
    page.evaluate(TWO_FRAMES)
    state: dict[str, Any] = json.loads(root.get_attribute("data-state") or "")
    return state


def _changed(what: str, before: dict[str, Any], after: dict[str, Any], field: str) -> Iterator[str]:
    if before[field] == after[field]:
        yield f"{what} changes nothing"


def _equal(what: str, found: Any, expected: Any, tolerance: float = TOLERANCE) -> Iterator[str]:
    difference = np.abs(np.asarray(found) - expected).max()
    if not difference <= tolerance * max(1, np.abs(expected).max()):
        yield f"{what}: found {found}, expected {expected}"


def main() -> int:
    """The command. Returns its exit status."""
    from check_site import SITE, open_pages  # here, since check_site imports this module

    site = Path(sys.argv[1]) if len(sys.argv) > 1 else SITE
    names = [
        page.relative_to(site).as_posix()
        for page in sorted(site.rglob("*.html"))
        if 'class="widget"' in page.read_text(encoding="utf-8")
    ]
    problems = open_pages(site, names, check_widgets)
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(names)} pages with widgets: {len(problems)} problems")
    return 1 if problems or not names else 0


if __name__ == "__main__":
    sys.exit(main())
