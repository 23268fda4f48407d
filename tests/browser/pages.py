"""A browser for the tests of this folder, pages with the network cut, and axe-core's verdict on them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, Request, Route, sync_playwright

from workbench.headless.tour import find_chromium

_GRAVE = ("serious", "critical")


@dataclass
class Opened:
    """A page, with what it said and what it asked for."""

    page: Page
    context: BrowserContext
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


OpenFile = Callable[..., Opened]


def watch(opened: Opened, may_ask: Callable[[str], bool]) -> None:
    """Cuts the page off from all but the addresses that it may ask for, and notes its errors and what else it asked for."""

    def cut(route: Route, request: Request) -> None:
        if may_ask(request.url):
            route.continue_()
        else:
            opened.requests.append(request.url)
            route.abort()

    opened.page.route("**/*", cut)
    opened.page.on("console", lambda said: opened.errors.append(said.text) if said.type == "error" else None)
    opened.page.on("pageerror", lambda error: opened.errors.append(str(error)))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = find_chromium()
    if chromium is None:
        pytest.skip("NO BROWSER: pages were not looked at. Install a Chromium (Debian: apt install chromium).")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--enable-unsafe-swiftshader", "--disable-dev-shm-usage"]
        )
        yield started
        started.close()


@pytest.fixture
def open_file(browser: Browser) -> Iterator[OpenFile]:
    """Opens a file with the network cut; options are those of a playwright context. It waits until all plots are drawn."""
    contexts: list[BrowserContext] = []

    def open_one(path: Path, **options: Any) -> Opened:
        context = browser.new_context(**({"viewport": {"width": 1200, "height": 900}} | options))
        contexts.append(context)
        opened = Opened(context.new_page(), context)
        watch(opened, lambda url: url == path.as_uri())
        opened.page.goto(path.as_uri())
        if options.get("java_script_enabled", True) and opened.page.locator("figure.plot").count():
            opened.page.wait_for_function("document.documentElement.dataset.plots === 'drawn'", timeout=60_000)
        return opened

    yield open_one
    for context in contexts:
        context.close()


def grave_violations(page: Page) -> list[str]:
    """What axe-core finds wrong with the page and calls serious or critical: rule, where, and what it says of it."""
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {node['target']} {node['failureSummary']}"
        for one in found
        if one["impact"] in _GRAVE
        for node in one["nodes"]
    ]


@pytest.fixture
def violations() -> Callable[[Page], list[str]]:
    """`grave_violations`, as a fixture because test folders are no packages."""
    return grave_violations
