"""Reports as a reader sees them: opened from a file, with the network cut, in a real browser."""

import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from IPython.display import HTML
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, Request, Route, sync_playwright

from workbench.report import figures, pictures
from workbench.report.cells import PLOTLY_MIMETYPE
from workbench.report.html import write_report
from workbench.report.published import published_curves

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=window.hacked=1>"
# The text width of A4 within the margins that the report's style sheet sets: 210 mm less twice 14 mm, at 96 px an inch.
PAPER_WIDTH_PX = (210 - 2 * 14) / 25.4 * 96


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("NO BROWSER: reports were not looked at. Install a Chromium (Debian: apt install chromium).")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--enable-unsafe-swiftshader", "--disable-dev-shm-usage"]
        )
        yield started
        started.close()


@dataclass
class Opened:
    """A page, with what it said and what it asked for."""

    page: Page
    context: BrowserContext
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def _open(browser: Browser, report: Path, **options: Any) -> Opened:
    context = browser.new_context(**({"viewport": {"width": 1200, "height": 900}} | options))
    opened = Opened(context.new_page(), context)

    def cut(route: Route, request: Request) -> None:
        if request.url == report.as_uri():
            route.continue_()
        else:
            opened.requests.append(request.url)
            route.abort()

    opened.page.route("**/*", cut)
    opened.page.on("console", lambda said: opened.errors.append(said.text) if said.type == "error" else None)
    opened.page.on("pageerror", lambda error: opened.errors.append(str(error)))
    opened.page.goto(report.as_uri())
    if options.get("java_script_enabled", True):
        opened.page.wait_for_function("document.documentElement.dataset.plots === 'drawn'", timeout=60_000)
    return opened


def _shown(figure: go.Figure) -> nbformat.NotebookNode:
    bundle = {PLOTLY_MIMETYPE: json.loads(figure.to_json())}
    return new_code_cell("draw()", outputs=[new_output("display_data", bundle)], execution_count=1)


def _html(output: HTML | str) -> nbformat.NotebookNode:
    text = output if isinstance(output, str) else output.data
    return new_code_cell("show()", outputs=[new_output("display_data", {"text/html": text})], execution_count=1)


def _written(cells: list[nbformat.NotebookNode], folder: Path) -> Path:
    nbformat.write(new_notebook(cells=cells), folder / "notebook.ipynb")
    write_report(folder / "notebook.ipynb", folder / "report.html", {"status": "ok", "notebook": "03", "seconds": 3})
    return folder / "report.html"


def _all_figures(name: str) -> list[go.Figure]:
    rows = pd.DataFrame({"label": [name, "b"], "value": [0.5, 0.6], "low": [0.4, 0.5], "high": [0.6, 0.7], "n": 9})
    ours = pd.DataFrame({"shots": [1, 5, "all"], "series": name, "value": [0.3, 0.5, 0.6]})
    ours = ours.assign(low=ours["value"] - 0.05, high=ours["value"] + 0.05, n=99)
    counts = pd.DataFrame({"label": [name, "b"], "split": "train", "images": [25, 9]})
    cloud = go.Figure(go.Scattergl(x=np.arange(400), y=np.arange(400) % 37, mode="markers"))
    return [
        figures.accuracy_against_shots(ours, published_curves(), 0.01, name),
        figures.class_balance(counts, name, guideline=(20, 30)),
        figures.measure_histogram([1, 2, 2, 3], name, "px", 2),
        figures.interval_dots(rows, name, name),
        figures.per_class_accuracy(rows, name),
        cloud.update_layout(title="WebGL", xaxis_title="x", yaxis_title="y"),
    ]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    picture = Image.new("RGB", (40, 40), (200, 30, 30))
    pair = pictures.ConfusedPair(picture, picture, picture, "q", "oat", "soy", "3 of 7")
    wide = pd.DataFrame({f"a long column {number}": [number] for number in range(20)})
    cells = [
        new_markdown_cell("# How good is it?\n\nA question."),
        *(new_markdown_cell(f"## Section {number}") for number in (1, 2, 3)),
        *map(_shown, _all_figures("milk")),
        _html(pictures.picture_sheet([picture] * 12)),
        _html(pictures.pair_sheet([pair] * 3)),
        _html(pictures.table(wide, caption="Wide, n = 1")),
        _html(pictures.summary_box("How good?", "62 %", "1 shot", {"chance": "1 %"})),
    ]
    return _written(cells, tmp_path_factory.mktemp("report"))


def _pixels(page: Page, index: int) -> np.ndarray:
    shot = page.locator(".plot-area").nth(index).screenshot()
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"))


def _num_coloured(pixels: np.ndarray) -> int:
    """How many pixels have a hue: marks are coloured, text, axes and ground are not."""
    return int((pixels.max(axis=2).astype(int) - pixels.min(axis=2) > 60).sum())


def test_every_figure_is_drawn_without_a_request_or_an_error(browser: Browser, report: Path) -> None:
    opened = _open(browser, report)
    assert opened.page.locator(".plot-area[data-drawn]").count() == 6
    for index in range(6):
        assert _num_coloured(_pixels(opened.page, index)) > 100, f"figure {index} is blank"
    assert opened.page.locator(".plot-area canvas").count() > 0
    assert opened.requests == []
    assert opened.errors == []
    opened.context.close()


def test_nothing_offers_to_share_the_data(browser: Browser, report: Path) -> None:
    opened = _open(browser, report)
    opened.page.locator(".plot-area").first.hover()
    titles = opened.page.locator(".modebar-btn").evaluate_all(
        "buttons => buttons.map(button => button.dataset.title || button.getAttribute('aria-label') || '')"
    )
    assert titles
    assert not [
        title for title in titles if any(word in title.lower() for word in ("share", "cloud", "studio", "edit"))
    ]
    opened.context.close()


def test_code_is_folded_until_asked_for_even_without_script(browser: Browser, report: Path) -> None:
    opened = _open(browser, report, java_script_enabled=False)
    code = opened.page.locator(".jp-InputArea-editor").first
    assert not code.is_visible()
    opened.page.get_by_label("Show code").check()
    assert code.is_visible()
    opened.page.get_by_label("Show code").uncheck()
    assert not code.is_visible()
    opened.context.close()


def test_hostile_names_do_nothing(browser: Browser, tmp_path: Path) -> None:
    picture = Image.new("RGB", (40, 40))
    pair = pictures.ConfusedPair(picture, picture, picture, HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    raw = f"{HOSTILE}<details open ontoggle='window.hacked=2'><summary>a</summary></details><script>window.hacked=3</script>"
    pandas_html = pd.DataFrame({"class": [HOSTILE]}).style.to_html()
    cells = [
        new_markdown_cell(f"# {HOSTILE}\n\n{raw}\n\n<meta http-equiv='refresh' content='0;url=https://example.com'>"),
        *map(_shown, _all_figures(HOSTILE)),
        _html(pictures.table(pd.DataFrame({HOSTILE: [HOSTILE]}), caption=HOSTILE)),
        _html(pictures.picture_sheet([picture], [HOSTILE], title=HOSTILE)),
        _html(pictures.pair_sheet([pair], title=HOSTILE)),
        _html(pandas_html),
        _html(f"{raw}<svg onload='window.hacked=4'></svg><link rel=prefetch href=https://example.com>"),
        new_code_cell("1", outputs=[new_output("display_data", {"text/markdown": raw})], execution_count=1),
        new_code_cell("2", outputs=[new_output("stream", name="stdout", text=raw)], execution_count=1),
    ]
    opened = _open(browser, _written(cells, tmp_path))
    assert opened.page.locator(".plot-area[data-drawn]").count() == 6
    opened.page.evaluate(
        "Plotly.Fx.hover(document.querySelectorAll('.plot-area')[1], [{curveNumber: 0, pointNumber: 0}])"
    )
    opened.page.wait_for_selector(".hovertext")
    assert HOSTILE in (opened.page.locator(".hovertext").first.text_content() or "")
    opened.page.wait_for_timeout(300)
    assert opened.page.evaluate("window.hacked") is None
    assert opened.requests == []
    # The policy itself stopped the handlers that were left in place.
    assert any("inline event handler" in error for error in opened.errors)
    opened.context.close()


def test_plots_fit_the_paper_and_come_back(browser: Browser, report: Path) -> None:
    opened = _open(browser, report, color_scheme="dark")
    opened.page.evaluate(
        """() => {
          window.printed = [];
          matchMedia("print").addEventListener("change", (event) => {
            if (!event.matches) return;
            for (const drawing of document.querySelectorAll(".plot-area .main-svg:first-child"))
              window.printed.push([drawing.getBoundingClientRect().width, drawing.closest(".plot-area")._fullLayout.font.color]);
          });
        }"""
    )
    screen = "[...document.querySelectorAll('.plot-area .main-svg:first-child')].map((one) => one.clientWidth)"
    before = opened.page.evaluate(screen)
    assert opened.page.pdf(prefer_css_page_size=True, format="A4").startswith(b"%PDF")
    printed = opened.page.evaluate("window.printed")
    assert len(printed) == 6
    for width, colour in printed:
        assert 600 < width <= PAPER_WIDTH_PX
        assert colour == "#1f2328"
    opened.page.wait_for_function(f"JSON.stringify({screen}) === '{before}'.replaceAll(' ', '')")
    opened.context.close()


def test_dark_and_light_follow_the_reader(browser: Browser, report: Path) -> None:
    opened = _open(browser, report, color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    text = "document.querySelector('.plot-area')._fullLayout.font.color"
    assert opened.page.evaluate(ground) == "rgb(22, 25, 30)"
    assert opened.page.evaluate(text) == "#d7dde4"
    assert np.median(_pixels(opened.page, 1)) < 60
    opened.page.emulate_media(color_scheme="light")
    opened.page.wait_for_function(f"{text} === '#1f2328'")
    assert opened.page.evaluate(ground) == "rgb(255, 255, 255)"
    assert np.median(_pixels(opened.page, 1)) > 230
    opened.context.close()


def test_phone_scrolls_down_and_never_sideways(browser: Browser, report: Path) -> None:
    opened = _open(browser, report, viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    assert opened.page.evaluate("document.documentElement.scrollWidth") == 390
    for index in range(6):
        assert _num_coloured(_pixels(opened.page, index)) > 100, f"figure {index} is blank"
    clipped = opened.page.evaluate(
        """[...document.querySelectorAll('.plot-area')].flatMap((area) => {
          const right = area.getBoundingClientRect().right;
          return [...area.querySelectorAll('.xtitle, .legendtext, .xtick text')]
            .filter((text) => text.getBoundingClientRect().right > right + 1).map((text) => text.textContent);
        })"""
    )
    assert clipped == []
    opened.context.close()
