"""Reports as a reader sees them: opened from a file, with the network cut, in a real browser."""

import io
import itertools
import json
from collections.abc import Callable
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
from playwright.sync_api import Page

from workbench.report import figures, pictures
from workbench.report.cells import PLOTLY_MIMETYPE
from workbench.report.compare_figures import paired_differences, paired_matrix
from workbench.report.html import write_report
from workbench.report.published import published_curves

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=window.hacked=1>"
# The text width of A4 within the margins that the report's style sheet sets: 210 mm less twice 14 mm, at 96 px an inch.
PAPER_WIDTH_PX = (210 - 2 * 14) / 25.4 * 96


def _shown(figure: go.Figure) -> nbformat.NotebookNode:
    bundle = {PLOTLY_MIMETYPE: json.loads(figure.to_json())}
    return new_code_cell("draw()", outputs=[new_output("display_data", bundle)], execution_count=1)


def _html(output: HTML | str) -> nbformat.NotebookNode:
    text = output if isinstance(output, str) else output.data
    return new_code_cell("show()", outputs=[new_output("display_data", {"text/html": text})], execution_count=1)


def _log() -> nbformat.NotebookNode:
    lines = "\n".join(f"\x1b[31mline {number}\x1b[0m \x1b[38;5;241m{'wide ' * 40}\x1b[39m" for number in range(60))
    code = f"print({'a_name + ' * 40}0)  # a comment"
    return new_code_cell(code, outputs=[new_output("stream", name="stdout", text=lines)], execution_count=1)


def _written(cells: list[nbformat.NotebookNode], folder: Path, name: str = "milk") -> Path:
    nbformat.write(new_notebook(cells=cells), folder / "notebook.ipynb")
    record = {"status": "ok", "notebook": "03", "seconds": 3, "parameters": {"data": name, "embedder": name}}
    write_report(folder / "notebook.ipynb", folder / "report.html", record)
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
        new_markdown_cell(
            f"A [link](#section-2), `code`.\n\n    {'python -m workbench ' * 9}\n\n| {'a | ' * 30}\n|{'-|' * 30}"
        ),
        *map(_shown, _all_figures("milk")),
        _html(pictures.picture_sheet([picture] * 12)),
        _html(pictures.pair_sheet([pair] * 3)),
        _html(pictures.table(wide, caption="Wide, n = 1")),
        _html(wide.to_html()),
        _log(),
        _html(pictures.summary_box("How good?", "62 %", "1 shot", {"chance": "1 %"})),
    ]
    return _written(cells, tmp_path_factory.mktemp("report"))


def _pixels(page: Page, index: int) -> np.ndarray:
    shot = page.locator(".plot-area").nth(index).screenshot()
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"))


def _num_coloured(pixels: np.ndarray) -> int:
    """How many pixels have a hue: marks are coloured, text, axes and ground are not."""
    return int((pixels.max(axis=2).astype(int) - pixels.min(axis=2) > 60).sum())


def test_every_figure_is_drawn_without_a_request_or_an_error(open_file: Callable[..., Any], report: Path) -> None:
    opened = open_file(report)
    assert opened.page.locator(".plot-area[data-drawn]").count() == 6
    for index in range(6):
        assert _num_coloured(_pixels(opened.page, index)) > 100, f"figure {index} is blank"
    assert opened.page.locator(".plot-area canvas").count() > 0
    assert opened.requests == []
    assert opened.errors == []


def test_nothing_offers_to_share_the_data(open_file: Callable[..., Any], report: Path) -> None:
    opened = open_file(report)
    opened.page.locator(".plot-area").first.hover()
    titles = opened.page.locator(".modebar-btn").evaluate_all(
        "buttons => buttons.map(button => button.dataset.title || button.getAttribute('aria-label') || '')"
    )
    assert titles
    assert not [
        title for title in titles if any(word in title.lower() for word in ("share", "cloud", "studio", "edit"))
    ]


def test_code_is_folded_until_asked_for_even_without_script(open_file: Callable[..., Any], report: Path) -> None:
    opened = open_file(report, java_script_enabled=False)
    code = opened.page.locator(".jp-InputArea-editor").first
    assert not code.is_visible()
    opened.page.get_by_label("Show code").check()
    assert code.is_visible()
    opened.page.get_by_label("Show code").uncheck()
    assert not code.is_visible()


def test_hostile_names_do_nothing(open_file: Callable[..., Any], tmp_path: Path) -> None:
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
    opened = open_file(_written(cells, tmp_path, HOSTILE))
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


def test_plots_fit_the_paper_and_come_back(open_file: Callable[..., Any], report: Path) -> None:
    opened = open_file(report, color_scheme="dark")
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


def test_a_wide_table_is_not_cut_off_on_paper(open_file: Callable[..., Any], tmp_path: Path) -> None:
    wide = pd.DataFrame([{f"a_setting_number_{number}": "a-value-that-does-not-break" for number in range(20)}])
    narrow = pd.DataFrame({"recipe": ["scratch"]})
    cells = [_html(pictures.table(frame, caption=f"n = {len(frame)}")) for frame in (wide, narrow)]
    opened = open_file(_written(cells, tmp_path))
    opened.page.evaluate(
        """() => matchMedia("print").addEventListener("change", (event) => {
          if (event.matches) window.printed = [...document.querySelectorAll(".wb-table")].map((one) =>
            [one.getBoundingClientRect().width, Number(getComputedStyle(one).zoom)]);
        })"""
    )
    assert opened.page.locator(".wb-table").first.evaluate("one => one.offsetWidth") > 2 * PAPER_WIDTH_PX
    opened.page.pdf(prefer_css_page_size=True, format="A4")
    (wide_px, shrunk), (_, kept) = opened.page.evaluate("window.printed")
    assert PAPER_WIDTH_PX * 0.7 < wide_px <= PAPER_WIDTH_PX
    assert shrunk < 0.5
    assert kept == 1
    assert opened.page.locator(".wb-table").first.evaluate("one => getComputedStyle(one).zoom") == "1"


def test_dark_and_light_follow_the_reader(open_file: Callable[..., Any], report: Path) -> None:
    opened = open_file(report, color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    text = "document.querySelector('.plot-area')._fullLayout.font.color"
    assert opened.page.evaluate(ground) == "rgb(22, 25, 30)"
    assert opened.page.evaluate(text) == "#d7dde4"
    assert np.median(_pixels(opened.page, 1)) < 60
    opened.page.emulate_media(color_scheme="light")
    opened.page.wait_for_function(f"{text} === '#1f2328'")
    assert opened.page.evaluate(ground) == "rgb(255, 255, 255)"
    assert np.median(_pixels(opened.page, 1)) > 230


def test_phone_scrolls_down_and_never_sideways(open_file: Callable[..., Any], report: Path) -> None:
    opened = open_file(report, viewport={"width": 360, "height": 740}, is_mobile=True, has_touch=True)
    assert opened.page.evaluate("document.documentElement.scrollWidth") == 360
    opened.page.get_by_label("Show code").check()
    for folded in opened.page.locator("summary").all():
        folded.click()
    assert opened.page.evaluate("document.documentElement.scrollWidth") == 360
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
    assert opened.errors == []


def test_a_figure_that_needs_room_keeps_it_on_a_phone_and_long_titles_are_broken(
    open_file: Callable[..., Any], tmp_path: Path
) -> None:
    names = [f"recipe=long name {number}" for number in range(11)]
    rows = [(a, b, 0.01, -0.11, 0.123, 96, 0.5) for at, a in enumerate(names) for b in names[at + 1 :]]
    pairs = pd.DataFrame(rows, columns=["first", "second", "difference", "low", "high", "n", "p_holm"])
    metric = "accuracy@1/shots=all/micro/references=reference:packshot"
    words = go.Figure(go.Scatter(y=[1, 2]), {"xaxis": {"title": {"text": "threshold, " * 9 + "cosine"}}})
    shown = [paired_matrix(pairs, metric), paired_differences(pairs.iloc[:2], metric), words]
    opened = open_file(
        _written([*map(_shown, shown)], tmp_path), viewport={"width": 390, "height": 844}, is_mobile=True
    )
    assert opened.page.evaluate("document.documentElement.scrollWidth") == 390
    matrix, forest, line = opened.page.locator(".plot-area").all()
    scrolls = "area => [area.scrollWidth > area.clientWidth, area.tabIndex]"
    assert [area.evaluate(scrolls) for area in (matrix, forest, line)] == [[True, 0], [True, 0], [False, -1]]
    assert [area.evaluate("area => area.scrollWidth") for area in (matrix, forest)] == [220 + 10 * 70, 600]
    texts = matrix.locator(".heatmap-label").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect()).map(({left, right}) => [(left + right) / 2, right - left])"
    )
    columns = sorted({round(middle) for middle, _ in texts})
    apart = [after - before for before, after in itertools.pairwise(columns) if after - before > 9]
    assert len(texts) == 55
    assert len(apart) == 9
    assert max(width for _, width in texts) < min(apart), "no text runs into the next"
    for area in (matrix, forest, line):
        inside = area.evaluate(
            """area => [...area.querySelectorAll('.xtitle')].map((title) => {
              const [one, all] = [title.getBoundingClientRect(), area.querySelector('.main-svg').getBoundingClientRect()];
              return all.left <= one.left && one.right <= all.right && one.bottom <= all.bottom;
            })"""
        )
        assert inside == [True]
    assert line.locator(".xtitle tspan").count() > 1
    assert opened.errors == []


def test_summary_stands_first_and_is_linked_from_its_old_place(open_file: Callable[..., Any], report: Path) -> None:
    page = open_file(report).page
    summary, first = page.locator("#summary").bounding_box(), page.locator("main .jp-Cell").first.bounding_box()
    title = page.locator("h1").bounding_box()
    assert title["y"] + title["height"] <= summary["y"]
    assert summary["y"] + summary["height"] < min(900, first["y"])
    assert page.locator(".wb-answer").count() == 0
    page.get_by_role("link", name="The answer stands at the top").click()
    page.wait_for_function("document.querySelector('#summary').getBoundingClientRect().top >= 0")


def test_keyboard_reaches_everything_in_order(open_file: Callable[..., Any], report: Path) -> None:
    page = open_file(report).page
    focused = "document.activeElement.textContent.trim().slice(0, 40) || document.activeElement.id"
    page.keyboard.press("Tab")
    assert page.evaluate(focused) == "Skip to the content"
    assert page.locator(".skip-link").bounding_box()["x"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    seen = []
    for _ in range(3):
        page.keyboard.press("Tab")
        seen.append(page.evaluate(focused))
        width = page.evaluate("parseFloat(getComputedStyle(document.activeElement).outlineWidth)")
        assert width >= 2, f"nothing shows that {seen[-1]} has the focus"
    assert seen == ["Parameters", "Contents", "show-code"]
    code = page.locator(".jp-InputArea-editor").first
    page.locator("#show-code").focus()
    page.keyboard.press("Space")
    assert code.is_visible()
    page.locator("summary", has_text="Parameters").focus()
    page.keyboard.press("Enter")
    assert page.locator("table.facts").first.is_visible()


def test_pictures_and_figures_have_words(open_file: Callable[..., Any], report: Path) -> None:
    page = open_file(report).page
    assert page.locator("img:not([alt]), img[alt='']").count() == 0
    assert page.get_by_role("img", name="WebGL").count() == 1
    figure = page.get_by_role("figure", name="WebGL")
    notes = page.locator(f"#{figure.get_attribute('aria-describedby')}").text_content()
    assert notes == "x axis: x; y axis: y."


def test_axe_finds_nothing_serious_in_a_report(
    open_file: Callable[..., Any], violations: Callable[[Page], list[str]], report: Path
) -> None:
    page = open_file(report, color_scheme="light").page
    page.get_by_label("Show code").check()
    for folded in page.locator("summary").all():
        folded.click()
    assert violations(page) == []
    page.emulate_media(color_scheme="dark")
    assert violations(page) == []


def test_axe_finds_nothing_serious_in_the_report_of_a_failure(
    open_file: Callable[..., Any], violations: Callable[[Page], list[str]], tmp_path: Path
) -> None:
    failing = new_code_cell("1 / 0", execution_count=1)
    trace = ["\x1b[31mZeroDivisionError\x1b[39m: \x1b[38;5;28mby zero\x1b[39m"]
    failing.outputs = [new_output("error", ename="ZeroDivisionError", evalue="by zero", traceback=trace)]
    nbformat.write(new_notebook(cells=[failing, new_code_cell("never()")]), tmp_path / "output.ipynb")
    lines = "".join(f"\x1b[32mstep {number}\x1b[0m <b>{'x' * 300}\n" for number in range(99))
    (tmp_path / "stdout.log").write_text(lines)
    write_report(tmp_path / "output.ipynb", tmp_path / "report.html", {"status": "failed"})
    page = open_file(tmp_path / "report.html", color_scheme="light", viewport={"width": 360, "height": 740}).page
    for folded in page.locator("summary").all():
        folded.click()
    assert "step 98 <b>x" in (page.locator(".log-end pre").text_content() or "")
    assert page.locator(".log-end b").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert violations(page) == []
    page.emulate_media(color_scheme="dark")
    assert violations(page) == []


def test_axe_sees_what_is_wrong(
    open_file: Callable[..., Any], violations: Callable[[Page], list[str]], tmp_path: Path
) -> None:
    (tmp_path / "bad.html").write_text(
        "<html lang=en><title>t</title><main><h1>h</h1><img src=data:,><p style='color:#ccc;background:#fff'>grey</p></main>"
    )
    rules = [line.split(":")[0] for line in violations(open_file(tmp_path / "bad.html").page)]
    assert sorted(rules) == ["color-contrast", "image-alt"]
