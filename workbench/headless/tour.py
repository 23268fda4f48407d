"""The pictures of the README's tour, taken from real reports in a real browser, so that they cannot show what no run has given."""

import io
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from workbench.runs.files import write_bytes
from workbench.runs.record import list_runs

MAX_BYTES = 120_000
"""Of one picture, so that a checkout stays small."""


@dataclass(frozen=True)
class Stop:
    """One picture of the tour.

    Attributes:
        name: of the file, without an ending.
        notebook: whose latest good run with a report is shown; one in JupyterLab has none.
        data: of that run.
        selector: of the part of the page, as CSS.
        text: that the part contains; the first part that does is taken.
    """

    name: str
    notebook: str
    data: str
    selector: str
    text: str = ""


PRODUCTS, PEOPLE = "synthetic_products", "synthetic_identities"
STOPS = (
    Stop("summary", "03_evaluate_few_shot", PRODUCTS, "#summary"),
    Stop("audit", "01_audit_dataset", PRODUCTS, "figure.plot", "blur effect"),
    Stop("validation", "02_finetune_trunk", PRODUCTS, "figure.plot", "Validation accuracy"),
    Stop("shots", "03_evaluate_few_shot", PRODUCTS, "figure.plot", "references per class"),
    Stop("ranked", "04_evaluate_reid", PEOPLE, ".wb-ranked"),
    Stop("map", "08_explore_gallery", PRODUCTS, "figure.plot", "embeddings as a map"),
)


def find_chromium() -> str | None:
    """The path of a Chromium or Chrome of this machine, None without one."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def choose_stops(names: Sequence[str]) -> tuple[Stop, ...]:
    """The stops of these names, in the tour's order; all without a name.

    Raises:
        ValueError: the tour has no stop of a name.
    """
    unknown = sorted(set(names) - {stop.name for stop in STOPS})
    if unknown:
        raise ValueError(f"The tour has no {', '.join(unknown)}; it has {', '.join(stop.name for stop in STOPS)}.")
    return tuple(stop for stop in STOPS if not names or stop.name in names)


def take_tour(outputs: Path, folder: Path, stops: Sequence[Stop] = STOPS) -> list[Path]:
    """The pictures taken, one a stop, each written whole; nothing is written unless all can be taken.

    Args:
        outputs: the folder of the runs, as `python -m workbench study` leaves it.
        folder: of the pictures; made where it is missing.
        stops: what to show.

    Raises:
        FileNotFoundError: a notebook has no good run of that data with a report in `outputs`.
        ValueError: a report lacks the part, or a picture would be too large.
        RuntimeError: no Chromium is here.
    """
    runs = {
        (record["notebook"], record["parameters"].get("data")): place / "report.html"
        for place, record in reversed(list_runs(outputs))
        if record["status"] == "ok" and (place / "report.html").is_file()
    }
    lacking = sorted({f"{stop.notebook} on {stop.data}" for stop in stops if (stop.notebook, stop.data) not in runs})
    if lacking:
        raise FileNotFoundError(
            f"{outputs} has no report of a good run of {', '.join(lacking)}; `make demo` makes those of 01 to 04, and README.md "
            "says how 08 is run for the tour."
        )
    chromium = find_chromium()
    if chromium is None:
        raise RuntimeError("The pictures are taken in Chromium, which is not here (Debian: apt install chromium).")
    from playwright.sync_api import sync_playwright  # of the tests' packages

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        page = browser.new_page(viewport={"width": 1000, "height": 900}, color_scheme="light")
        pictures = {stop.name: _take(page, runs[stop.notebook, stop.data], stop) for stop in stops}
        browser.close()
    for name, content in pictures.items():
        write_bytes(folder / f"{name}.webp", content)
    return [folder / f"{name}.webp" for name in pictures]


def _take(page: Any, report: Path, stop: Stop) -> bytes:
    if page.url != report.as_uri():
        page.goto(report.as_uri())
        page.wait_for_function("document.documentElement.dataset.plots === 'drawn'", timeout=60_000)
    part = page.locator(stop.selector, has_text=stop.text) if stop.text else page.locator(stop.selector)
    if part.count() == 0:
        raise ValueError(
            f"{report} has no part {stop.selector} with {stop.text!r}, which the tour shows as {stop.name}."
        )
    shot = Image.open(io.BytesIO(part.first.screenshot())).convert("RGB")
    content = io.BytesIO()
    shot.save(content, "WEBP", quality=82, method=6)
    if content.tell() > MAX_BYTES:
        raise ValueError(f"The picture {stop.name} has {content.tell():,} bytes, more than {MAX_BYTES:,}.")
    return content.getvalue()
