"""The README's pictures are parts of real reports, or there is none of them."""

import io
import json
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from workbench.__main__ import main
from workbench.headless import tour
from workbench.headless.tour import Stop, choose_stops, find_chromium, take_tour
from workbench.report import figures
from workbench.report.cells import PLOTLY_MIMETYPE
from workbench.report.html import write_report
from workbench.runs.folder import make_run_folder, write_record
from workbench.runs.record import new_record

pytestmark = pytest.mark.browser


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    rows = pd.DataFrame({"label": ["a", "b"], "value": [0.5, 0.6], "low": [0.4, 0.5], "high": [0.6, 0.7], "n": 9})
    figure = figures.interval_dots(rows, "Before and after", "a protocol")
    output = new_output("display_data", {PLOTLY_MIMETYPE: json.loads(figure.to_json())})
    cells = [new_markdown_cell("# How good?"), new_code_cell("draw()", outputs=[output], execution_count=1)]
    folder = make_run_folder(tmp_path / "outputs", "count")
    record = new_record(Path("notebooks/count.ipynb")) | {"status": "ok", "parameters": {"data": "mine"}}
    write_record(folder, record)
    nbformat.write(new_notebook(cells=cells), folder / "output.ipynb")
    write_report(folder / "output.ipynb", folder / "report.html", record)
    return tmp_path / "outputs"


def test_a_part_of_the_latest_good_run_is_taken(outputs: Path, tmp_path: Path) -> None:
    if find_chromium() is None:
        pytest.skip("NO BROWSER: the tour was not taken. Install a Chromium (Debian: apt install chromium).")
    (path,) = take_tour(outputs, tmp_path / "tour", [Stop("one", "count", "mine", "figure.plot", "Before and after")])
    assert path == tmp_path / "tour" / "one.webp"
    pixels = np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB")).astype(int)
    assert (pixels.max(axis=2) - pixels.min(axis=2) > 60).sum() > 50, "no mark is drawn"
    live = make_run_folder(outputs, "count")
    write_record(live, new_record(Path("notebooks/count.ipynb")) | {"status": "ok", "parameters": {"data": "mine"}})
    good = Stop("two", "count", "mine", "figure.plot", "Before and after")
    with pytest.raises(ValueError, match=r"has no part figure\.plot with 'Nothing'"):
        take_tour(outputs, tmp_path / "tour", [good, Stop("three", "count", "mine", "figure.plot", "Nothing")])
    assert [one.name for one in (tmp_path / "tour").iterdir()] == ["one.webp"]


def test_a_run_that_is_not_there_is_named(outputs: Path, tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match="no report of a good run of count on yours, other on mine; `make demo`"
    ):
        take_tour(outputs, tmp_path, [Stop("a", "other", "mine", "p"), Stop("b", "count", "yours", "p")])


def test_pictures_are_chosen_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert [stop.name for stop in choose_stops(["map", "summary"])] == ["summary", "map"]
    assert choose_stops([]) == tour.STOPS
    assert main(["tour", "map", "everest", "--out", str(tmp_path)]) == 2
    assert "The tour has no everest; it has summary, audit" in capsys.readouterr().err
    assert main(["tour", "map", "--out", str(tmp_path)]) == 2
    assert "no report of a good run of 08_explore_gallery on synthetic_products; " in capsys.readouterr().err


def test_without_a_browser_it_says_what_to_install(
    outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tour.shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match="apt install chromium"):
        take_tour(outputs, tmp_path, [Stop("a", "count", "mine", "p")])
