"""The list of runs as a reader uses it: opened from a file, with the network cut, in a real browser."""

import json
import re
import shutil
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pages
import pytest
from pages import watch
from playwright.sync_api import Browser, Page

from workbench.headless.index import write_index

pytestmark = pytest.mark.browser

HOSTILE = "</script><img src=x onerror=window.hacked=1>&\"'"
BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Opened(pages.Opened):
    """The list in a page; what it asks for beyond the folder of the runs is noted."""

    def runs(self) -> list[str]:
        """Data sets of the rows in sight, in their order; each run of these tests has its own."""
        found = self.page.evaluate(
            "[...document.querySelectorAll('tbody tr')].filter(r => !r.hidden).map(r => r.dataset.data)"
        )
        return [str(name) for name in found]

    def count(self) -> str:
        return self.page.get_by_role("status").inner_text()

    def sorted_by(self) -> list[tuple[str, str]]:
        found = self.page.locator("th[aria-sort]").evaluate_all("all => all.map(h => [h.textContent, h.ariaSort])")
        return [(name, order) for name, order in found]


def _open(browser: Browser, index: Path, fragment: str = "", **options: Any) -> Opened:
    context = browser.new_context(**({"viewport": {"width": 1300, "height": 900}} | options))
    opened = Opened(context.new_page(), context)
    watch(opened, lambda url: url.startswith(index.parent.as_uri()))
    opened.page.goto(index.as_uri() + fragment)
    if options.get("java_script_enabled", True):
        opened.page.wait_for_function("document.documentElement.dataset.rows === 'shown'")
    return opened


def _close(opened: Opened) -> None:
    """Closes what nothing went wrong in."""
    assert opened.errors == []
    assert opened.requests == []
    opened.context.close()


def _add_run(outputs: Path, day: int, value: float | None = None, **changes: Any) -> Path:
    """Writes a run's folder as the supervisor leaves it; parameters, status and notebook are changed by name."""
    notebook = changes.pop("notebook", "03_evaluate")
    began = BEGAN + timedelta(days=day)
    folder = outputs / f"{began:%Y%m%dT%H%M%SZ}-{re.sub(r'[^a-z0-9_]', '-', notebook)}-{day:08x}"
    folder.mkdir(parents=True)
    record: dict[str, Any] = {
        "status": changes.pop("status", "ok"),
        "notebook": notebook,
        "started": began.isoformat(),
        "seconds": 10.5 * day,
        "pid": 1,
        "process_started": 1.0,
        "error": changes.pop("error", None),
        "facts": {"catalog": "same"},
    }
    (folder / "run.json").write_text(json.dumps(record | {"parameters": changes}))
    if value is not None:
        name = changes.get("metric", "accuracy@1")
        metric = {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 9, "protocol": "1 shot"}
        (folder / "metrics.json").write_text(json.dumps({"metrics": {name: metric}}))
    (folder / "report.html").write_text(f"<!DOCTYPE html><title>report {day}</title>")
    return folder


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("outputs")
    _add_run(outputs, 1, 0.5, data="a10", embedder="timm:one", recipe="lora")
    _add_run(outputs, 2, 0.75, data="b", embedder="timm:one", recipe="probe")
    _add_run(outputs, 3, data="c", embedder="timm:two", status="failed", error={"type": "E", "message": "no such file"})
    _add_run(outputs, 4, 0.625, data="a9", embedder="timm:two", recipe="lora", notebook="02_train")
    _add_run(outputs, 5, 0.25, data="d", embedder="timm:two", recipe="lora", seed=7)
    # The same images twice over: one trend.
    for folder, day in zip(sorted(outputs.iterdir())[:2], (6, 7), strict=True):
        shutil.copytree(folder, outputs / f"20260201T00000{day}Z-09_trend-0000000{day}")
        record = json.loads((folder / "run.json").read_text())
        moved = {"notebook": "09_trend", "started": (BEGAN + timedelta(days=day)).isoformat()}
        record["parameters"] |= {"data": "t"}
        (outputs / f"20260201T00000{day}Z-09_trend-0000000{day}" / "run.json").write_text(json.dumps(record | moved))
    return write_index(outputs)


def test_rows_are_sorted_by_headline_and_by_date(browser: Browser, index: Path) -> None:
    opened = _open(browser, index)
    assert opened.runs() == ["t", "t", "d", "a9", "c", "b", "a10"]
    assert opened.sorted_by() == [("Started (UTC)", "descending")]
    opened.page.get_by_role("button", name="Headline").click()
    # Equal numbers stay as they stood, newest first; the run without a number is last in both orders.
    assert opened.runs() == ["t", "b", "a9", "t", "a10", "d", "c"]
    assert opened.sorted_by() == [("Headline", "descending")]
    opened.page.get_by_role("button", name="Headline").press("Enter")
    assert opened.runs() == ["d", "t", "a10", "a9", "t", "b", "c"]
    assert opened.sorted_by() == [("Headline", "ascending")]
    opened.page.get_by_role("button", name="Started").click()
    opened.page.get_by_role("button", name="Started").click()
    assert opened.runs() == ["a10", "b", "c", "a9", "d", "t", "t"]
    opened.page.get_by_role("button", name="Data").click()
    assert opened.runs() == ["a9", "a10", "b", "c", "d", "t", "t"]
    assert opened.sorted_by() == [("Data", "ascending")]
    opened.page.get_by_role("button", name="Took").click()
    assert opened.runs() == ["d", "a9", "c", "t", "b", "t", "a10"]
    _close(opened)


def test_numbers_of_different_metrics_are_not_put_in_one_order(browser: Browser, tmp_path: Path) -> None:
    for day, (metric, value) in enumerate(
        (("mAP", 0.5), ("accuracy@1", 0.25), ("mAP", 0.125), ("accuracy@1", 0.75)), 1
    ):
        _add_run(tmp_path, day, value, data=f"{metric} {value}", metric=metric)
    opened = _open(browser, write_index(tmp_path))
    opened.page.get_by_role("button", name="Headline").click()
    assert opened.runs() == ["accuracy@1 0.75", "accuracy@1 0.25", "mAP 0.5", "mAP 0.125"]
    opened.page.get_by_role("button", name="Headline").click()
    assert opened.runs() == ["accuracy@1 0.25", "accuracy@1 0.75", "mAP 0.125", "mAP 0.5"]
    _close(opened)


def test_filters_join_and_the_count_is_announced(browser: Browser, index: Path) -> None:
    opened = _open(browser, index)
    assert opened.count() == "7 runs"
    assert opened.page.get_by_role("status").get_attribute("id") == "count"
    opened.page.get_by_label("Recipe").select_option("lora")
    assert opened.runs() == ["t", "d", "a9", "a10"]
    assert opened.count() == "4 of 7 runs"
    opened.page.get_by_label("Trunk").select_option("timm:two")
    assert opened.runs() == ["d", "a9"]
    opened.page.get_by_label("Notebook").select_option("02_train")
    assert opened.runs() == ["a9"]
    assert opened.count() == "1 of 7 runs"
    opened.page.get_by_label("Data set").select_option("b")
    assert opened.runs() == []
    assert opened.count() == "0 of 7 runs"
    opened.page.get_by_role("button", name="Clear").click()
    assert opened.count() == "7 runs"
    opened.page.get_by_label("Status").select_option("failed")
    assert opened.runs() == ["c"]
    opened.page.get_by_role("button", name="Clear").click()
    # Every word must stand somewhere in the row: in a message, or folded away among the parameters.
    opened.page.get_by_label("Search").fill("SUCH file")
    assert opened.runs() == ["c"]
    opened.page.get_by_label("Search").fill("seed: 7")
    assert opened.runs() == ["d"]
    _close(opened)


def test_a_view_is_shared_and_back_and_forward_restore_it(browser: Browser, index: Path) -> None:
    opened = _open(browser, index)
    opened.page.get_by_label("Recipe").select_option("lora")
    opened.page.get_by_label("Search").press_sequentially("timm:two")
    opened.page.get_by_role("button", name="Headline").click()
    view = ["a9", "d"]
    assert opened.runs() == view
    shared = opened.page.evaluate("location.hash")
    opened.page.go_back()
    opened.page.wait_for_function("document.querySelector('th[aria-sort]').textContent.startsWith('Started')")
    assert opened.runs() == ["d", "a9"]
    assert opened.page.get_by_label("Search").input_value() == "timm:two"
    # What was typed is one step, not one for each letter.
    opened.page.go_back()
    opened.page.wait_for_function("document.getElementById('count').textContent === '4 of 7 runs'")
    assert opened.page.get_by_label("Search").input_value() == ""
    assert opened.page.get_by_label("Recipe").input_value() == "lora"
    opened.page.go_back()
    opened.page.wait_for_function("document.getElementById('count').textContent === '7 runs'")
    assert opened.page.get_by_label("Recipe").input_value() == ""
    for _ in range(3):
        opened.page.go_forward()
    opened.page.wait_for_function("document.querySelector('th[aria-sort]').textContent === 'Headline'")
    assert opened.runs() == view
    assert opened.page.get_by_label("Recipe").input_value() == "lora"
    _close(opened)

    again = _open(browser, index, shared)
    assert again.runs() == view
    assert again.sorted_by() == [("Headline", "descending")]
    assert again.page.get_by_label("Search").input_value() == "timm:two"
    _close(again)


def test_a_view_of_what_is_gone_says_so(browser: Browser, index: Path) -> None:
    opened = _open(browser, index, "#recipe=gone%3Cb%3E&sort=constructor&order=up&other=1")
    assert opened.count() == "0 of 7 runs"
    assert opened.page.get_by_label("Recipe").locator("option:checked").inner_text() == "gone<b> (0)"
    assert opened.sorted_by() == [("Started (UTC)", "descending")]
    _close(opened)


def test_the_report_is_one_click_away_in_a_window_that_cuts_the_last_column_off(browser: Browser, index: Path) -> None:
    opened = _open(browser, index, viewport={"width": 1200, "height": 900})
    row = opened.page.get_by_role("row").filter(has_text="timm:two").filter(has_text="02_train")
    right = "link => link.getBoundingClientRect().right"
    assert row.get_by_role("link", name="record").evaluate(right) > 1200
    assert row.get_by_role("link", name="02_train").evaluate(right) < 1200
    row.get_by_role("link", name="02_train").click()
    assert opened.page.title() == "report 4"
    _close(opened)


def test_links_lead_to_the_run_from_row_and_from_point(browser: Browser, index: Path) -> None:
    opened = _open(browser, index)
    row = opened.page.get_by_role("row").filter(has_text="timm:two").filter(has_text="02_train")
    assert row.get_by_role("link").all_inner_texts() == ["02_train", "report", "metrics", "record"]
    row.get_by_role("link", name="report").click()
    assert opened.page.title() == "report 4"
    opened.page.go_back()
    opened.page.wait_for_function("document.documentElement.dataset.rows === 'shown'")
    points = opened.page.locator(".trend a")
    assert points.count() == 2
    # One stop of the Tab key, the newest point; arrows reach the others.
    assert points.evaluate_all("all => all.map(point => point.tabIndex)") == [-1, 0]
    points.nth(1).focus()
    opened.page.keyboard.press("ArrowLeft")
    assert opened.page.evaluate("document.activeElement.getAttribute('aria-label')").startswith(
        "2026-01-08 03:04 UTC: 0.5 [0.4, 0.6], n = 9"
    )
    opened.page.keyboard.press("Enter")
    opened.page.wait_for_function("document.title === 'report 1'")
    _close(opened)


def test_trends_follow_the_filters(browser: Browser, index: Path) -> None:
    opened = _open(browser, index)
    trend = opened.page.locator(".trend")
    assert trend.is_visible()
    opened.page.get_by_label("Recipe").select_option("probe")
    out = "all => all.map(point => point.classList.contains('out'))"
    assert trend.locator("a").evaluate_all(out) == [True, False]
    opened.page.get_by_label("Data set").select_option("b")
    assert not trend.is_visible()
    assert not opened.page.locator("#trends").is_visible()
    opened.page.get_by_role("button", name="Clear").click()
    assert trend.locator("a").evaluate_all(out) == [False, False]
    _close(opened)


def test_hostile_names_do_nothing(browser: Browser, tmp_path: Path) -> None:
    for day in (1, 2):
        names = {"data": HOSTILE, "embedder": HOSTILE, "recipe": HOSTILE, "metric": HOSTILE, HOSTILE: HOSTILE}
        _add_run(tmp_path, day, 0.5, notebook=HOSTILE, error={"type": HOSTILE, "message": HOSTILE}, **names)
    opened = _open(browser, write_index(tmp_path))
    assert opened.page.locator(".trend a").count() == 2
    opened.page.get_by_label("Data set").select_option(HOSTILE)
    opened.page.get_by_label("Search").fill(HOSTILE)
    assert opened.count() == "2 runs"
    assert opened.page.get_by_role("row").nth(1).get_by_role("cell").nth(2).inner_text() == HOSTILE
    opened.page.reload()
    opened.page.wait_for_function("document.documentElement.dataset.rows === 'shown'")
    assert opened.page.get_by_label("Search").input_value() == HOSTILE
    assert opened.count() == "2 runs"
    opened.page.wait_for_timeout(200)
    assert opened.page.evaluate("window.hacked") is None
    assert opened.page.locator("img").count() == 0
    _close(opened)


def test_phone_shows_cards_and_never_scrolls_sideways(browser: Browser, index: Path) -> None:
    opened = _open(browser, index, viewport={"width": 360, "height": 800}, is_mobile=True, has_touch=True)
    assert opened.page.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [360, 360]
    over = "all => all.filter(one => one.getBoundingClientRect().right > 360).map(one => one.textContent)"
    assert opened.page.locator("tbody td, #filters *").evaluate_all(over) == []
    opened.page.get_by_role("button", name="Headline").tap()
    assert opened.runs()[0] == "t"
    _close(opened)


def test_dark_and_light_follow_the_reader(browser: Browser, index: Path) -> None:
    opened = _open(browser, index, color_scheme="dark")
    colours = "(({ backgroundColor, color }) => [backgroundColor, color])(getComputedStyle(document.body))"
    assert opened.page.evaluate(colours) == ["rgb(22, 25, 30)", "rgb(215, 221, 228)"]
    opened.page.emulate_media(color_scheme="light")
    assert opened.page.evaluate(colours) == ["rgb(255, 255, 255)", "rgb(31, 35, 40)"]
    _close(opened)


@pytest.mark.parametrize("options", [{}, {"viewport": {"width": 360, "height": 800}, "color_scheme": "dark"}])
def test_axe_finds_nothing_serious(
    browser: Browser, index: Path, violations: Callable[[Page], list[str]], options: dict[str, Any]
) -> None:
    opened = _open(browser, index, **options)
    assert violations(opened.page) == []
    _close(opened)


def test_without_a_script_every_run_stands_there(browser: Browser, index: Path) -> None:
    opened = _open(browser, index, java_script_enabled=False)
    assert opened.page.locator("tbody tr").count() == 7
    assert opened.page.get_by_role("link", name="report").count() == 7
    assert not opened.page.get_by_label("Recipe").is_visible()
    assert opened.page.get_by_role("status").inner_text() == "7 runs"
    assert opened.page.get_by_role("button").count() == 0
    _close(opened)


def test_five_hundred_runs_open_sort_and_filter(
    browser: Browser, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parameters = {f"parameter_{number}": number for number in range(20)}
    for day in range(500):
        sets = {"data": f"set{day % 7}", "embedder": f"timm:{day % 5}", "recipe": f"recipe{day % 3}", "seed": day}
        _add_run(tmp_path, day, day % 97 / 100 if day % 9 else None, **parameters, **sets)
    began = time.perf_counter()
    index = write_index(tmp_path)
    written_s = time.perf_counter() - began
    opened = _open(browser, index)
    opened_ms = opened.page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
    acted = """(action) => {
      const began = performance.now();
      action === "sort" ? document.querySelector("th[data-key=headline] button").click()
        : Object.assign(document.querySelector("[name=recipe]"), { value: "recipe1" }).dispatchEvent(new Event("change"));
      document.body.getBoundingClientRect();
      return performance.now() - began;
    }"""
    sorted_ms, filtered_ms = opened.page.evaluate(acted, "sort"), opened.page.evaluate(acted, "filter")
    assert opened.count() == "167 of 500 runs"
    values = opened.page.locator("tbody tr:not([hidden])").evaluate_all("rows => rows.map(row => row.dataset.headline)")
    found = [float(value) for value in values if value]
    assert found == sorted(found, reverse=True)
    assert values[len(found) :] == [""] * (167 - len(found))
    assert opened.page.locator(".trend:not([hidden]) a").count() > 300
    with capsys.disabled():
        sys.stdout.write(
            f"\nindex of 500 runs: written in {written_s:.2f} s, opened in {opened_ms / 1000:.2f} s, "
            f"sorted in {sorted_ms:.0f} ms, filtered in {filtered_ms:.0f} ms ({index.stat().st_size / 1e6:.1f} MB)\n"
        )
    _close(opened)
