"""Look at the built site as a reader would: in a browser, on a desktop and on a phone.

    python docs/site_tools/check_site.py [SITE] [--screenshots FOLDER] [--only TEXT]

Every page of SITE (docs/site) is opened in headless Chromium, from a web server on this machine. Reported are: an error
in the console; a request to any other machine; a link that leads nowhere, an anchor that is missing; a formula that the
browser gives no room; a page wider than the screen; a search that finds nothing, with the web server or without. The
status is 1 if there is anything to report.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from check_explorer import check_explorer
from check_widgets import check_widgets
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, Request, sync_playwright

SITE = Path(__file__).parents[1] / "site"
SCREENS = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
CHROMIUM_FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
EXTERNAL_LINKS = ("http:", "https:", "mailto:")

# Everything that is folded away or behind a tab is laid out too.
UNFOLD = """() => {
  for (const details of document.querySelectorAll("details")) details.open = true;
  for (const tab of document.querySelectorAll(".tabbed-block")) tab.style.display = "block";
}"""
FLAT_FORMULAS = """() => [...document.querySelectorAll("math")].filter(formula => {
  const box = formula.getBoundingClientRect();
  return box.width < 1 || box.height < 1;
}).map(formula => formula.getAttribute("alttext"))"""
TOO_WIDE = """() => {
  const screen = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= screen) return [];
  const clipped = (element) => {
    for (let box = element.parentElement; box && box !== document.body; box = box.parentElement) {
      if (getComputedStyle(box).overflowX !== "visible") return true;
    }
    return false;
  };
  const wide = [...document.querySelectorAll("main *")].filter(
    (element) => element.getBoundingClientRect().right > screen + 1 && !clipped(element));
  return wide.length ? wide.slice(0, 3).map((element) => element.outerHTML.slice(0, 100)) : ["(unknown element)"];
}"""


@dataclass
class Document:
    """What a page refers to, and what can be referred to in it."""

    links: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)


def _is_given(anchor: str) -> bool:
    """Whether scripts give an anchor its meaning: the theme's, and the views of the explorer."""
    return anchor == "__skip" or "=" in anchor


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.document = Document()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value is None:
                continue
            if name == "id" or (tag == "a" and name == "name"):
                self.document.anchors.add(value)
            if name in ("href", "src") and tag != "base":
                self.document.links.append(value)


def broken_links(site: Path) -> Iterator[str]:
    """Every link, picture, script and style sheet of the site that is not there, and every anchor."""
    documents = {}
    for file in sorted(site.rglob("*.html")):
        reader = _Reader()
        reader.feed(file.read_text(encoding="utf-8"))
        documents[file.relative_to(site).as_posix()] = reader.document
    for page, document in documents.items():
        for link in dict.fromkeys(document.links):
            if link.startswith(("data:", "javascript:", *EXTERNAL_LINKS)):
                continue
            target = urlsplit(urljoin(f"/{page}", link))
            path = unquote(target.path).lstrip("/")
            if path.endswith("/") or not path:
                path += "index.html"
            anchor = unquote(target.fragment)
            if not (site / path).is_file():
                yield f"{page}: the link {link} leads nowhere"
            elif anchor and path in documents and anchor not in documents[path].anchors and not _is_given(anchor):
                yield f"{page}: the link {link} names an anchor that {path} does not have"


@contextmanager
def serve(site: Path) -> Iterator[str]:
    """A web server for the folder, on a free port of this machine; its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_QuietHandler, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def check_pages(
    browser: Browser, site: Path, address: str, names: list[str], screenshots: Path | None
) -> Iterator[str]:
    """Open each page on each screen."""
    for screen, size in SCREENS.items():
        context = browser.new_context(viewport=size, has_touch=screen == "phone", is_mobile=screen == "phone")  # type: ignore[arg-type]
        for name in names:
            page = context.new_page()
            found: list[str] = []
            page.on("console", partial(_note_console, found))
            page.on("pageerror", partial(_note_script_error, found))
            page.on("request", partial(_note_request, found, address))
            page.goto(f"{address}/{name}", wait_until="load")
            page.evaluate(UNFOLD)
            found += [f"the formula {latex} has no size" for latex in page.evaluate(FLAT_FORMULAS)]
            found += [f"wider than the screen: {element}" for element in page.evaluate(TOO_WIDE)]
            if name in INTERACTIONS:
                found += INTERACTIONS[name](page)
            if screenshots is not None:
                _take_screenshots(page, screenshots / screen, name)
            page.close()
            yield from (f"{name} ({screen}): {problem}" for problem in dict.fromkeys(found))
        context.close()


def check_search(browser: Browser, site: Path, address: str) -> Iterator[str]:
    """Search for something: on the page from the server, and on the one opened from the folder."""
    for root in (address, site.resolve().as_uri()):
        page = browser.new_page(viewport=SCREENS["desktop"])  # type: ignore[arg-type]
        found: list[str] = []
        page.on("console", partial(_note_console, found))
        page.on("request", partial(_note_request, found, root))
        page.goto(f"{root}/index.html", wait_until="load")
        page.focus(".md-search__input")
        page.keyboard.type("softmax")
        try:
            page.wait_for_selector(".md-search-result__item")
        except Error:
            found.append("finds nothing")
        page.close()
        yield from (f"the search on {root}: {problem}" for problem in found)


# Checks of pages that a reader does something with: name of the page -> a function that does it, with mouse, keyboard
# and touch, and returns what went wrong. It runs on both screens; `page.viewport_size` tells which.
INTERACTIONS: dict[str, Callable[[Page], list[str]]] = {
    "explorer.html": check_explorer,
    "tutorial/07-bilinear-sampling.html": check_widgets,
    "tutorial/08-reference-points.html": check_widgets,
    "tutorial/09-deformable-attention.html": check_widgets,
}


def open_pages(site: Path, names: list[str], check: Callable[[Page], list[str]]) -> list[str]:
    """What a check finds on these pages of a site, on each screen, with the errors of their scripts."""
    problems: list[str] = []
    with serve(site) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=CHROMIUM_FLAGS, chromium_sandbox=False
        )
        for screen, size in SCREENS.items():
            context = browser.new_context(viewport=size, has_touch=screen == "phone", is_mobile=screen == "phone")  # type: ignore[arg-type]
            for name in names:
                page, found = context.new_page(), list[str]()
                page.on("pageerror", partial(_note_script_error, found))
                page.goto(f"{address}/{name}", wait_until="load")
                found += check(page)
                problems += [f"{name} ({screen}): {problem}" for problem in found]
                page.close()
            context.close()
        browser.close()
    return problems


def _note_console(found: list[str], message: ConsoleMessage) -> None:
    if message.type in ("error", "warning"):
        found.append(f"console: {message.text}")


def _note_script_error(found: list[str], error: Error) -> None:
    found.append(f"error in a script: {error}")


def _note_request(found: list[str], address: str, request: Request) -> None:
    if not request.url.startswith((address, "data:", "blob:")):
        found.append(f"a request to another machine: {request.url}")


def _take_screenshots(page: Page, folder: Path, name: str) -> None:
    """The whole page, light and dark."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = name.removesuffix(".html").replace("/", "-")
    for scheme, palette in (("light", "default"), ("dark", "slate")):
        page.evaluate(f"document.body.setAttribute('data-md-color-scheme', '{palette}')")
        page.wait_for_timeout(300)  # colors change gradually
        page.screenshot(path=folder / f"{stem}-{scheme}.png", full_page=True)


def main() -> int:
    """The command. Returns its exit status."""
    parser = argparse.ArgumentParser(description="Look at the built site in headless Chromium.")
    parser.add_argument(
        "site", nargs="?", type=Path, default=SITE, help="folder of the built site (default: docs/site)"
    )
    parser.add_argument("--screenshots", type=Path, metavar="FOLDER", help="write pictures of every page there")
    parser.add_argument("--only", default="", metavar="TEXT", help="open the pages with this in their name")
    arguments = parser.parse_args()
    if not (arguments.site / "index.html").is_file():
        parser.error(f"{arguments.site}: no site is built there; mkdocs build --strict -f docs/mkdocs.yml")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        parser.error("no chromium on this machine; on Debian: apt-get install chromium")
    pages = sorted(file.relative_to(arguments.site).as_posix() for file in arguments.site.rglob("*.html"))
    names = [name for name in pages if arguments.only in name]
    problems = list(broken_links(arguments.site))
    with serve(arguments.site) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS, chromium_sandbox=False)
        problems += check_pages(browser, arguments.site, address, names, arguments.screenshots)
        problems += check_search(browser, arguments.site, address)
        browser.close()
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(names)} pages on {len(SCREENS)} screens, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
