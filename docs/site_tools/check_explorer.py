"""Whether the explorer page answers: mouse, keys and fingers move the query, and the drawings change with it.

    python docs/site_tools/check_explorer.py [SITE]

opens the page of a built site (docs/site) by itself; `check_site.py` calls `check_explorer` on a page it has opened.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import Page

PANELS = ("deformable", "window")
CHOICES = ("picture", "block", "head", "window", "windowHead", "offsets", "query")
LOW_SCREEN = 900  # pixels of height that the panels fit on
SOON = 2000  # milliseconds

# What the strengths are drawn with: the sizes of the discs, the colors of the cells.
DRAWING = """panel => [...panel.querySelectorAll(".ex-stage .ex-disc, .ex-stage .ex-cell")].map(
  shape => shape.getAttribute(shape.matches(".ex-disc") ? "r" : "fill")).join(" ")"""
ALL_PICTURES = """() => [...document.querySelectorAll(".ex-stage img")].every(
  image => image.complete && image.naturalWidth)"""
LENGTHS = """panel => [...panel.querySelectorAll(".ex-arm .ex-line")].map(line =>
  Math.hypot(line.x1.baseVal.value - line.x2.baseVal.value, line.y1.baseVal.value - line.y2.baseVal.value))"""
TWO_FRAMES = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


def check_explorer(page: Page) -> list[str]:
    """What is wrong with the explorer on this page, explorer.html: in both panels, with every block and picture."""
    problems = []
    try:
        page.wait_for_selector(".explorer[data-ready=true]")
        for panel in PANELS:
            for check in (_check_mouse, _check_keyboard, _check_touch, _check_heads):
                problems += [f"{panel} panel: {problem}" for problem in check(page, panel)]
        for check_all in (_check_blocks, _check_pictures, _check_offsets, _check_height, _check_guide, _check_address):
            problems += check_all(page)
    except PlaywrightError as error:  # something does not appear; what follows would make no sense
        problems.append("the explorer: " + " ".join(error.message.split()))
    return problems


def _check_mouse(page: Page, panel: str) -> Iterator[str]:
    before = _hover(page, panel, 0.15, 0.2)
    after = _hover(page, panel, 0.79, 0.71)
    yield from _moved("the mouse", before, after, _cell(page, panel, 0.79, 0.71))
    _press(page, panel, 0.79, 0.71)
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
    """A finger that goes sideways first, or rests before it moves, has the query; one that swipes scrolls the page."""
    session = page.context.new_cdp_session(page)

    def touch(path: Sequence[tuple[float, float]], rest: float = 0.01) -> None:
        """A finger along a path, which says itself when it does what: it rests for so many seconds, then is quick."""
        places = [_place(page, panel, *shares) for shares in path]
        seconds = time.time()
        for i, (x, y) in enumerate(places):
            kind = "touchMove" if i else "touchStart"
            event = {"type": kind, "touchPoints": [{"x": x, "y": y}], "timestamp": seconds}
            session.send("Input.dispatchTouchEvent", event)
            seconds += 0.01 if i else rest
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": [], "timestamp": seconds})

    def follow(what: str, *path: tuple[float, float], rest: float = 0.01) -> Iterator[str]:
        """The query goes with a finger along the path, and the page stays where it is."""
        scroll, before = page.evaluate("window.scrollY"), _look(page, panel)
        touch(path, rest)
        yield from _moved(what, before, _look(page, panel), _cell(page, panel, *path[-1]))
        if page.evaluate("window.scrollY") != scroll:
            yield f"{what} on the picture scrolls the page"

    page.locator(_stage(panel)).scroll_into_view_if_needed()
    yield from follow("a tap", (0.85, 0.85))
    yield from follow("a finger", (0.2, 0.2), (0.2, 0.4), (0.5, 0.6), (0.85, 0.85), (0.6, 0.3))
    yield from follow("a finger that rested", (0.2, 0.2), (0.4, 0.2), (0.8, 0.25), rest=0.4)

    if page.evaluate("document.documentElement.scrollHeight <= innerHeight"):
        yield "the page cannot be scrolled, so the check of a swipe says nothing"
    page.evaluate("window.scrollTo(0, 0)")
    page.locator(_stage(panel)).scroll_into_view_if_needed()
    scroll, before = page.evaluate("window.scrollY"), _look(page, panel)
    away = -1 if scroll > 0 else 1  # where there is something to scroll to
    start, end = (0.2, 0.9) if away < 0 else (0.9, 0.2)
    touch([(start + (end - start) * step / 8, 0.5) for step in range(9)])
    try:
        page.wait_for_function("scroll => window.scrollY !== scroll", arg=scroll, timeout=SOON)
    except PlaywrightError:
        yield "a finger that swipes up or down over the picture does not scroll the page"
    if _look(page, panel)[0] != before[0]:
        yield "a finger that swipes up or down moves the query"
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


def _check_pictures(page: Page) -> Iterator[str]:
    seen = set()
    names = page.locator(".ex-thumbnail input").evaluate_all("inputs => inputs.map(input => input.value)")
    for name in names:
        _choose_picture(page, name)
        large = page.locator(".explorer.ex-large").count() == 1
        seen.add((_look(page, "deformable")[1], page.inner_text(".ex-answers")))
        boxes = [page.locator(f"#ex-{field}") for field in ("pixels", "answer")]
        for box in (box for box in boxes if box.is_visible()):
            for wanted in (True, False):
                box.set_checked(wanted)
                page.wait_for_function(ALL_PICTURES)
                page.evaluate(TWO_FRAMES)
                if (page.locator(".ex-answer > *").count() > 0) != (wanted and large):
                    yield f"{name}: the answer is on the picture when it should not be, or the other way around"
        if large:
            yield from (f"{name}: {problem}" for problem in _check_large(page))
    if len(seen) != len(names) or len(names) < 2:
        yield f"{len(names)} pictures give {len(seen)} different views"
    _choose_picture(page, names[0])


def _check_large(page: Page) -> Iterator[str]:
    """A detector's or segmentor's picture: one panel, every block of which answers."""
    if page.locator(".ex-panel.ex-is-window").is_visible():
        yield "there is a panel for windows"
    blocks = page.locator(".ex-network .ex-is-deformable")
    for i in range(blocks.count()):
        blocks.nth(i).click()
        path = blocks.nth(i).locator("input").get_attribute("value")
        yield from (f"{path}: {problem}" for problem in _check_mouse(page, "deformable"))
    yield from _check_heads(page, "deformable")
    objects = page.locator(".ex-answers button")
    for i in range(min(objects.count(), 2)):
        before = _state(page)["query"]
        objects.nth(i).click()
        page.evaluate(TWO_FRAMES)
        if _state(page)["query"] == before:
            yield "a found object does not move the query"
    page.keyboard.press("Escape")


def _check_offsets(page: Page) -> Iterator[str]:
    """Without offsets all points are on their crosses, for every picture; with them they come back."""
    names = page.locator(".ex-thumbnail input").evaluate_all("inputs => inputs.map(input => input.value)")
    for name in names:
        _choose_picture(page, name)
        with_offsets = _look(page, "deformable")[1], _longest(page), page.inner_text(".ex-answers")
        _switch_offsets(page, "off")
        without = _look(page, "deformable")[1], _longest(page), page.inner_text(".ex-answers")
        if with_offsets[1] < 1 or without[1] > 0.1:
            yield f"{name}: the longest offset is {with_offsets[1]:.1f}, and {without[1]:.1f} without offsets"
        if with_offsets[0] == without[0] or with_offsets[2] == without[2]:
            yield f"{name}: without offsets the attention or the answers are the same"
        _switch_offsets(page, "on")
        if _look(page, "deformable")[1] != with_offsets[0]:
            yield f"{name}: with offsets again the attention is another"
    _choose_picture(page, names[0])


def _check_height(page: Page) -> Iterator[str]:
    """On a desktop all that moves with the query is on the screen at once."""
    size = page.viewport_size
    assert size is not None
    if size["width"] < LOW_SCREEN:
        return
    page.set_viewport_size({"width": size["width"], "height": LOW_SCREEN})
    for name in page.locator(".ex-thumbnail input").evaluate_all("inputs => inputs.map(input => input.value)"):
        _choose_picture(page, name)
        page.evaluate("window.scrollTo(0, 0)")
        page.evaluate(TWO_FRAMES)
        for part in page.locator(".ex-top, .ex-panel:not([hidden]) .ex-stage, .ex-panel:not([hidden]) .ex-says").all():
            box = part.bounding_box()
            assert box is not None
            if (bottom := box["y"] + box["height"]) > LOW_SCREEN:
                yield f"{name}: {part.get_attribute('class')} ends {bottom:.0f} pixels below the top"
    page.set_viewport_size(size)


def _check_guide(page: Page) -> Iterator[str]:
    buttons = page.locator(".ex-try button")
    seen = set()
    for i in range(buttons.count()):
        _hover(page, "deformable", 0.9, 0.1)
        page.mouse.move(2, 2)
        buttons.nth(i).click()
        name = (buttons.nth(i).get_attribute("data-view") or "").split("picture=")[1].split("&")[0]
        page.wait_for_selector(f".explorer[data-picture={name}]")
        page.evaluate(TWO_FRAMES)
        seen.add(tuple(_state(page).values()))
        if not page.evaluate("document.activeElement.closest('.ex-panel') !== null"):
            yield "a guided view does not put the keyboard into a panel"
    if len(seen) != buttons.count() or len(seen) < 3:
        yield f"{buttons.count()} guided views give {len(seen)} different ones, expected at least 3"


def _check_address(page: Page) -> Iterator[str]:
    """A view comes back from its address."""
    state = _state(page)
    page.wait_for_function("query => location.hash.includes(`query=${query}`)", arg=state["query"])
    page.reload()
    page.wait_for_selector(".explorer[data-ready=true]")
    if (found := _state(page)) != state:
        yield f"the address of {state} gives {found}"
    page.evaluate("location.hash = 'photo=dog&at=0.25,0.75'")  # the names of older addresses
    page.wait_for_selector(".explorer[data-picture=dog][data-query='0.25,0.75']")


def _moved(what: str, before: tuple[str, str], after: tuple[str, str], cell: str) -> Iterator[str]:
    if after[0] != cell:
        yield f"{what} leaves the query at {after[0]}, expected {cell}"
    if after[1] == before[1]:
        yield f"{what} does not change the drawing"


def _choose_picture(page: Page, name: str) -> None:
    page.locator(f".ex-thumbnail:has(input[value={name}])").click()
    page.wait_for_selector(f".explorer[data-picture={name}]")
    page.evaluate(TWO_FRAMES)


def _switch_offsets(page: Page, wanted: str) -> None:
    page.locator("#ex-offsets").set_checked(wanted == "on")
    page.wait_for_selector(f".explorer[data-offsets={wanted}]")
    page.evaluate(TWO_FRAMES)


def _longest(page: Page) -> float:
    """The length of the longest offset that is drawn."""
    return max(page.locator(".ex-panel.ex-is-deformable").evaluate(LENGTHS))


def _stage(panel: str) -> str:
    return f".ex-panel.ex-is-{panel} .ex-stage"


def _place(page: Page, panel: str, y: float, x: float) -> tuple[float, float]:
    """Where these shares of the picture's height and width are on the screen: (x, y) in pixels."""
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
    """The "row,column" at these shares of the picture, beyond which a padded map may reach."""
    rows, columns = _map_size(page, panel)
    sides = (page.get_attribute(f".ex-panel.ex-is-{panel}", "data-sides") or "").split(",")
    step = int(page.get_attribute(f".ex-panel.ex-is-{panel}", "data-step") or 0)  # every which query is stored

    def index(share: float, side: float, tokens: int) -> int:
        place, last = share / side * tokens, (round(tokens / side) - 1) // step
        return step * min(int(place) if step == 1 else round((place - 0.5) / step), last)

    return f"{index(y, float(sides[0]), rows)},{index(x, float(sides[1]), columns)}"


def _state(page: Page) -> dict[str, str]:
    data = page.locator(".explorer").evaluate("element => ({...element.dataset})")
    return {name: data[name] for name in CHOICES}


def main() -> int:
    """The command. Returns its exit status."""
    from check_site import SCREENS, SITE, open_pages  # here, since check_site imports this module

    site = Path(sys.argv[1]) if len(sys.argv) > 1 else SITE
    problems = open_pages(site, ["explorer.html"], check_explorer)
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"the explorer on {len(SCREENS)} screens: {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
