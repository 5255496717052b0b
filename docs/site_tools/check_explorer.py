"""Whether the explorer page answers: mouse, keys and fingers move the query, and the drawings change with it.

    python docs/site_tools/check_explorer.py [SITE]

opens the page of a built site (docs/site) by itself; `check_site.py` calls `check_explorer` on a page it has opened.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import Page, sync_playwright

PANELS = ("deformable", "window")
CHOICES = ("photo", "block", "head", "window", "windowHead", "query")

# What the strengths are drawn with: the sizes of the discs, the colors of the cells.
DRAWING = """panel => [...panel.querySelectorAll(".ex-stage .ex-disc, .ex-stage .ex-cell")].map(
  shape => shape.getAttribute(shape.matches(".ex-disc") ? "r" : "fill")).join(" ")"""
ALL_PICTURES = """() => [...document.querySelectorAll(".ex-stage img")].every(
  image => image.complete && image.naturalWidth)"""
TWO_FRAMES = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


def check_explorer(page: Page) -> list[str]:
    """What is wrong with the explorer on this page, explorer.html: in both panels, with every block and photograph."""
    problems = []
    try:
        page.wait_for_selector(".explorer[data-ready=true]")
        for panel in PANELS:
            for check in (_check_mouse, _check_keyboard, _check_touch, _check_heads):
                problems += [f"{panel} panel: {problem}" for problem in check(page, panel)]
        for check_all in (_check_blocks, _check_photographs, _check_guide, _check_address):
            problems += check_all(page)
    except PlaywrightError as error:  # something does not appear; what follows would make no sense
        problems.append("the explorer: " + " ".join(error.message.split()))
    return problems


def _check_mouse(page: Page, panel: str) -> Iterator[str]:
    before = _hover(page, panel, 0.15, 0.2)
    after = _hover(page, panel, 0.8, 0.7)
    yield from _moved("the mouse", before, after, _cell(page, panel, 0.8, 0.7))
    _press(page, panel, 0.8, 0.7)
    if _hover(page, panel, 0.3, 0.3) != after:
        yield "a click does not hold the query"
    page.keyboard.press("Escape")
    if _hover(page, panel, 0.3, 0.3) == after:
        yield "Escape does not let the query go"


def _check_keyboard(page: Page, panel: str) -> Iterator[str]:
    rows, columns = _map_size(page, panel)
    _hover(page, panel, 0.01, 0.01)
    page.mouse.move(2, 2)
    page.locator(_stage(panel)).focus()
    row = column = 0
    for key, step_y, step_x in (("ArrowRight", 0, 1), ("ArrowDown", 1, 0), ("ArrowLeft", 0, -1), ("ArrowUp", -1, 0)):
        before, spoken = _look(page, panel), page.inner_text(f".ex-is-{panel} .ex-says")
        page.keyboard.press(key)
        row, column = min(max(row + step_y, 0), rows - 1), min(max(column + step_x, 0), columns - 1)
        yield from _moved(key, before, _look(page, panel), f"{row},{column}")
        if page.inner_text(f".ex-is-{panel} .ex-says") == spoken:
            yield f"{key} does not change the text"
    page.wait_for_function(  # what screen readers say
        "text => document.querySelector('.ex-status').textContent.includes(text)",
        arg=page.text_content(f".ex-is-{panel} .ex-says"),
    )


def _check_touch(page: Page, panel: str) -> Iterator[str]:
    """A finger that goes down and moves, and does not scroll the page."""
    session = page.context.new_cdp_session(page)

    def touch(kind: str, *shares: float) -> None:
        points: list[dict[str, Any]] = []
        if shares:
            x, y = _place(page, panel, *shares)
            points = [{"x": x, "y": y}]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    page.locator(_stage(panel)).scroll_into_view_if_needed()
    scroll = page.evaluate("window.scrollY")
    touch("touchStart", 0.2, 0.2)
    before = _look(page, panel)
    if before[0] != _cell(page, panel, 0.2, 0.2):
        yield f"a finger at row and column {_cell(page, panel, 0.2, 0.2)} leaves the query at {before[0]}"
    for share in (0.4, 0.6, 0.85):
        touch("touchMove", share, share)
    after = _look(page, panel)
    touch("touchEnd")
    yield from _moved("a finger", before, after, _cell(page, panel, 0.85, 0.85))
    if page.evaluate("window.scrollY") != scroll:
        yield "a finger on the photograph scrolls the page"
    session.detach()


def _check_heads(page: Page, panel: str) -> Iterator[str]:
    chips = page.locator(f".ex-is-{panel} .ex-heads label")
    seen = set()
    for i in range(chips.count()):
        chips.nth(i).click()
        page.evaluate(TWO_FRAMES)
        wanted = chips.nth(i).inner_text().strip()
        if (found := page.get_attribute(f".ex-panel.ex-is-{panel}", "data-head")) != wanted:
            yield f"head {wanted} is chosen, {found} is shown"
        seen.add(_look(page, panel)[1])
    if len(seen) != chips.count():
        yield f"{chips.count()} heads, the mean among them, give {len(seen)} different drawings"
    chips.first.click()


def _check_blocks(page: Page) -> Iterator[str]:
    for panel, field in (("deformable", "block"), ("window", "window")):
        blocks = page.locator(f".ex-network .ex-is-{panel}")
        if not blocks.count():
            yield f"{panel} panel: there is no block to choose"
        seen = set()
        for i in range(blocks.count()):
            blocks.nth(i).click()
            page.evaluate(TWO_FRAMES)
            path = blocks.nth(i).locator("input").get_attribute("value")
            if _state(page)[field] != path:
                yield f"{path} is chosen, {_state(page)[field]} is shown"
            seen.add((_map_size(page, panel), _look(page, panel)[1]))
        if len(seen) != blocks.count():
            yield f"{panel} panel: {blocks.count()} blocks give {len(seen)} different drawings"


def _check_photographs(page: Page) -> Iterator[str]:
    seen = set()
    names = page.locator(".ex-thumbnail input").evaluate_all("inputs => inputs.map(input => input.value)")
    for name in names:
        page.locator(f".ex-thumbnail:has(input[value={name}])").click()
        page.wait_for_selector(f".explorer[data-photo={name}]")
        seen.add((_look(page, "deformable")[1], _look(page, "window")[1], page.inner_text(".ex-answers")))
        for pixels in (True, False):
            page.locator("#ex-pixels").set_checked(pixels)
            page.wait_for_function(ALL_PICTURES)
    if len(seen) != len(names) or len(names) < 2:
        yield f"{len(names)} photographs give {len(seen)} different views"


def _check_guide(page: Page) -> Iterator[str]:
    buttons = page.locator(".ex-try button")
    seen = set()
    for i in range(buttons.count()):
        _hover(page, "deformable", 0.9, 0.1)
        page.mouse.move(2, 2)
        buttons.nth(i).click()
        photo = (buttons.nth(i).get_attribute("data-view") or "").split("photo=")[1].split("&")[0]
        page.wait_for_selector(f".explorer[data-photo={photo}]")
        page.evaluate(TWO_FRAMES)
        seen.add(tuple(_state(page).values()))
        if not page.evaluate("document.activeElement.closest('.ex-panel') !== null"):
            yield "a guided view does not put the keyboard into a panel"
    if len(seen) != buttons.count() or len(seen) < 3:
        yield f"{buttons.count()} guided views give {len(seen)} different ones, expected at least 3"


def _check_address(page: Page) -> Iterator[str]:
    """A view comes back from its address."""
    state = _state(page)
    page.wait_for_function("query => location.hash.includes(`at=${query}`)", arg=state["query"])
    page.reload()
    page.wait_for_selector(".explorer[data-ready=true]")
    if (found := _state(page)) != state:
        yield f"the address of {state} gives {found}"


def _moved(what: str, before: tuple[str, str], after: tuple[str, str], cell: str) -> Iterator[str]:
    if after[0] != cell:
        yield f"{what} leaves the query at {after[0]}, expected {cell}"
    if after[1] == before[1]:
        yield f"{what} does not change the drawing"


def _stage(panel: str) -> str:
    return f".ex-panel.ex-is-{panel} .ex-stage"


def _place(page: Page, panel: str, y: float, x: float) -> tuple[float, float]:
    """Where these shares of the photograph's height and width are on the screen: (x, y) in pixels."""
    box = page.locator(_stage(panel)).bounding_box()
    assert box is not None
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def _hover(page: Page, panel: str, y: float, x: float) -> tuple[str, str]:
    page.locator(_stage(panel)).scroll_into_view_if_needed()
    page.mouse.move(*_place(page, panel, y, x))
    return _look(page, panel)


def _press(page: Page, panel: str, y: float, x: float) -> None:
    page.mouse.click(*_place(page, panel, y, x))
    page.evaluate(TWO_FRAMES)


def _look(page: Page, panel: str) -> tuple[str, str]:
    """The query's "row,column", and what is drawn."""
    page.evaluate(TWO_FRAMES)
    section = page.locator(f".ex-panel.ex-is-{panel}")
    return section.get_attribute("data-query") or "", section.evaluate(DRAWING)


def _map_size(page: Page, panel: str) -> tuple[int, int]:
    rows, columns = (page.get_attribute(f".ex-panel.ex-is-{panel}", "data-map") or "").split(",")
    return int(rows), int(columns)


def _cell(page: Page, panel: str, y: float, x: float) -> str:
    rows, columns = _map_size(page, panel)
    return f"{int(y * rows)},{int(x * columns)}"


def _state(page: Page) -> dict[str, str]:
    data = page.locator(".explorer").evaluate("element => ({...element.dataset})")
    return {name: data[name] for name in CHOICES}


def main() -> int:
    """The command. Returns its exit status."""
    from check_site import CHROMIUM_FLAGS, SCREENS, SITE, serve  # here, since check_site imports this module

    site = Path(sys.argv[1]) if len(sys.argv) > 1 else SITE
    problems: list[str] = []

    def note_error(error: PlaywrightError) -> None:
        problems.append(f"error in a script: {error}")

    with serve(site) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=CHROMIUM_FLAGS, chromium_sandbox=False
        )
        for screen, size in SCREENS.items():
            context = browser.new_context(viewport=size, has_touch=screen == "phone", is_mobile=screen == "phone")  # type: ignore[arg-type]
            page = context.new_page()
            page.on("pageerror", note_error)
            page.goto(f"{address}/explorer.html", wait_until="load")
            problems += [f"{screen}: {problem}" for problem in check_explorer(page)]
            context.close()
        browser.close()
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"the explorer on {len(SCREENS)} screens: {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
