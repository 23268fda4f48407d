import base64
import gzip
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import plotly.offline
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from workbench.report import figures
from workbench.report.cells import PLOTLY_MIMETYPE
from workbench.report.html import write_report
from workbench.report.pictures import picture_sheet, summary_box
from workbench.runs.metrics import add_metrics

RECORD: dict[str, Any] = {
    "status": "ok",
    "notebook": "03_evaluate_few_shot",
    "parameters": {"data": "<b>grocery</b>", "shots": [1, 5]},
    "facts": {"versions": {"torch": "2.15"}},
    "started": "2025-11-20T10:11:12+00:00",
    "seconds": 84.2,
    "error": None,
}


def _report(folder: Path, cells: list[nbformat.NotebookNode], record: dict[str, Any] | None = None) -> BeautifulSoup:
    nbformat.write(new_notebook(cells=cells), folder / "03_evaluate_few_shot.ipynb")
    write_report(folder / "03_evaluate_few_shot.ipynb", folder / "new" / "report.html", record)
    return BeautifulSoup((folder / "new" / "report.html").read_text(encoding="utf-8"), "html.parser")


def _plot_cell() -> nbformat.NotebookNode:
    figure = figures.measure_histogram([1, 2, 3], "sharpness", "px").to_plotly_json()
    figure["data"] = [{"y": [1, 2]}]
    return new_code_cell("draw()", outputs=[new_output("display_data", {PLOTLY_MIMETYPE: figure})], execution_count=1)


def _text(soup: BeautifulSoup, selector: str) -> str:
    (element,) = soup.select(selector)
    return " ".join(element.get_text(" ").split())


def test_head_of_a_finished_run(tmp_path: Path) -> None:
    soup = _report(tmp_path, [new_markdown_cell("# How good?"), _plot_cell()], RECORD)
    assert _text(soup, "title") == _text(soup, "header h1") == "How good?"
    assert _text(soup, ".status-line") == "finished 03_evaluate_few_shot 20 November 2025, 10:11 UTC took 1 min 24 s"
    facts = [" ".join(row.get_text(" ").split()) for row in soup.select("table.facts tr")]
    assert facts == ["data <b>grocery</b>", "shots 1, 5", "versions torch: 2.15"]
    assert soup.select(".error-box") == []
    assert soup.html is not None
    assert soup.html["lang"] == "en"
    assert _text(soup, ".skip-link") == "Skip to the content"
    assert len(soup.select("#content")) == 1


def test_policy_lets_only_the_reports_own_script_run(tmp_path: Path) -> None:
    soup = _report(tmp_path, [_plot_cell()], RECORD)
    (policy,) = soup.select('meta[http-equiv="Content-Security-Policy"]')
    nonce = re.search(r"script-src 'nonce-([\w-]{16,})' 'unsafe-eval';", str(policy["content"]))
    assert nonce is not None
    assert str(policy["content"]).startswith("default-src 'none';")
    assert "base-uri 'none'; form-action 'none'" in str(policy["content"])
    running = [script for script in soup.select("script") if not str(script.get("type", "")).startswith("application/")]
    assert [script["nonce"] for script in running] == [nonce.group(1)] * 2  # of paper, of plots
    assert soup.select("script[src], link, iframe") == []
    other = _report(tmp_path, [_plot_cell()], RECORD).select("script[nonce]")[0]["nonce"]
    assert other != nonce.group(1)


def test_plotly_is_packed_once_and_only_for_plots(tmp_path: Path) -> None:
    soup = _report(tmp_path, [_plot_cell(), _plot_cell()])
    (packed,) = soup.select("#plotly-packed")
    assert gzip.decompress(base64.b64decode(packed.text)).decode() == plotly.offline.get_plotlyjs()
    assert len(soup.select("figure.plot script[type='application/json']")) == 2
    plain = _report(tmp_path, [new_markdown_cell("# No plot")])
    assert plain.select("#plotly-packed") == []
    (script,) = plain.select("script")
    assert "beforeprint" in script.text
    assert (tmp_path / "new" / "report.html").stat().st_size < 60_000


def test_failed_run_names_its_error_and_its_cell(tmp_path: Path) -> None:
    failing = new_code_cell("1 / 0", execution_count=1, id="failing")
    failing.outputs = [new_output("error", ename="ZeroDivisionError", evalue="<i>by zero</i>", traceback=["Trace"])]
    cells = [failing, new_code_cell("never()")]
    error = {"type": "ZeroDivisionError", "message": "<i>by zero</i>", "cell": 0}
    soup = _report(tmp_path, cells, {**RECORD, "status": "failed", "error": error})
    assert _text(soup, ".error-box h2") == "This run failed in code cell 1. Its numbers are not complete."
    assert _text(soup, ".error-box pre") == "ZeroDivisionError: <i>by zero</i>"
    assert _text(soup, ".error-box a") == "Go to the cell that failed"
    assert _text(soup, ".error-box .how-far") == "0 of 2 code cells ran to their end."
    assert _text(soup, ".error-box .plain").startswith("Something was divided by nothing")
    assert "1 / 0" in _text(soup, "#failing-cell .jp-InputArea")
    assert _text(soup, ".never-ran").startswith("The run stopped here")
    without_record = _report(tmp_path, cells)
    assert _text(without_record, ".status") == "failed"
    assert _text(without_record, ".error-box pre") == "ZeroDivisionError: <i>by zero</i>"


@pytest.mark.parametrize(
    ("status", "headline"),
    [
        ("timeout", "was stopped at its deadline"),
        ("killed", "was killed"),
        ("lost", "was lost"),
        ("cancelled", "was cancelled"),
    ],
)
def test_runs_that_were_ended_from_outside(tmp_path: Path, status: str, headline: str) -> None:
    cells = [new_code_cell("a", execution_count=1), new_code_cell("b")]
    soup = _report(tmp_path, cells, {**RECORD, "status": status, "error": "no word"})
    assert _text(soup, ".error-box h2") == f"This run {headline}. Its numbers are not complete."
    assert _text(soup, ".error-box pre") == "no word"
    assert len(soup.select(".never-ran")) == 1


@pytest.mark.parametrize("status", ["timeout", "killed"])
def test_the_cell_at_which_a_run_was_ended_is_shown(tmp_path: Path, status: str) -> None:
    cells = [new_code_cell("a", execution_count=1), new_code_cell("slow"), new_code_cell("never")]
    error = {"type": "T", "message": "m", "cell": {"number": 2, "of": 3, "first_line": "slow"}}
    soup = _report(tmp_path, cells, {**RECORD, "status": status, "error": error})
    assert " in code cell 2. " in _text(soup, ".error-box h2")
    (link,) = soup.select(".error-box a")
    assert (link["href"], link.get_text()) == ("#failing-cell", "Go to the cell that ran when it was ended")
    assert _text(soup, "#failing-cell .failing-label") == "This cell ran when the run was ended"
    assert "slow" in _text(soup, "#failing-cell.failing-cell .jp-InputArea"), "the style unfolds code in this class"
    assert "never" not in _text(soup, "#failing-cell")
    first = {**error, "cell": {"number": 1, "of": 3, "first_line": "slow"}}
    soup = _report(tmp_path, [new_code_cell("slow")], {**RECORD, "status": status, "error": first})
    assert "slow" in _text(soup, "#failing-cell .jp-InputArea")
    assert "was not executed" not in soup.get_text()


def test_notebook_that_was_never_executed_says_so(tmp_path: Path) -> None:
    soup = _report(tmp_path, [new_markdown_cell("text"), new_code_cell("a")])
    assert _text(soup, ".status") == "not executed"
    assert "was not executed" in _text(soup, "main .report-note")
    assert _text(soup, "title") == "03 evaluate few shot"


def test_summary_comes_first_with_a_verdict_from_the_metrics_beside_it(tmp_path: Path) -> None:
    box = summary_box("How <good>?", "mAP 50.0 % [40.0, 60.0], n = 9", "p", {"embedder": "timm:a", "chance": "10 %"})
    cells = [
        new_markdown_cell("# T"),
        new_code_cell("b", outputs=[new_output("display_data", {"text/html": box.data})]),
    ]
    metrics = {"mAP": (0.5, 0.4, 0.6), "chance/mAP": (0.1, 0.1, 0.1), "colour_histogram/mAP": (0.45, 0.3, 0.5)}
    fields = ("value", "low", "high")
    add_metrics(tmp_path, {n: dict(zip(fields, one, strict=True), n=9, protocol="p") for n, one in metrics.items()})
    soup = _report(tmp_path, cells, RECORD)
    first = soup.select("main > *")[0]
    assert first["id"] == "summary"
    assert _text(soup, "#summary .question") == "How <good>?"
    assert _text(soup, "#summary .answer") == "mAP 50.0 % [40.0, 60.0], n = 9"
    assert [row.get_text() for row in soup.select("#summary .verdicts li")] == [
        "Above chance: mAP is 50.0 % [40.0, 60.0], chance 10.0 %; its whole interval lies above it.",
        "Not told apart from the colour histogram: mAP is 50.0 % [40.0, 60.0] against 45.0 % [30.0, 50.0]; "
        "the intervals overlap.",
    ]
    terms = [term.get_text() for term in soup.select("#summary dt")]
    assert terms == ["data", "embedder", "cost", "chance", "protocol"]
    assert soup.select(".wb-answer") == []
    assert len(soup.select('main .jp-Cell a[href="#summary"]')) == 1


def test_metrics_that_cannot_be_read_do_not_cost_the_report(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text("{")
    assert "metrics.json cannot be read" in _text(_report(tmp_path, [_plot_cell()], RECORD), "main > .report-note")


def test_the_end_of_the_log_of_a_run_that_failed(tmp_path: Path) -> None:
    lines = "".join(f"line {number} <b>\x1b[31mred\x1b[0m\n" for number in range(50))
    (tmp_path / "stdout.log").write_text(lines)
    cells = [new_code_cell("a", execution_count=1), new_code_cell("b")]
    cell = {"number": 2, "of": 2, "first_line": "b<i>"}
    error = {"type": "Killed", "message": "m", "cell": cell}
    soup = _report(tmp_path, cells, {**RECORD, "status": "killed", "error": error})
    assert _text(soup, ".log-end summary") == "The last 40 lines of the log"
    shown = soup.select(".log-end pre")[0].get_text().splitlines()
    assert (len(shown), shown[0], shown[-1]) == (40, "line 10 <b>red", "line 49 <b>red")
    assert len(soup.select(".log-end .ansi-red-fg")) == 40
    assert _text(soup, ".how-far") == "1 of 2 code cells ran to their end. It stood at b<i> ."
    assert _report(tmp_path, cells, RECORD).select(".log-end") == []


def test_ten_figures_and_two_hundred_thumbnails_stay_under_six_megabytes(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 24, 24, 3), dtype=np.uint8)
    photographs = [Image.fromarray(one).resize((480, 480), Image.Resampling.BICUBIC) for one in noise]
    values = np.random.default_rng(1).normal(size=5000).tolist()
    figure = figures.measure_histogram(values, "sharpness", "px")
    shown = new_output("display_data", {PLOTLY_MIMETYPE: json.loads(figure.to_json())})
    sheet = new_output("display_data", {"text/html": picture_sheet(photographs).data})
    cells = [new_code_cell("f", outputs=[shown], execution_count=1) for _ in range(10)]
    soup = _report(tmp_path, [*cells, new_code_cell("s", outputs=[sheet], execution_count=1)], RECORD)
    assert len(soup.select("figure.plot")) == 10
    assert len(soup.select('img[src^="data:image/webp;base64,"]')) == 200
    assert (tmp_path / "new" / "report.html").stat().st_size < 6_000_000


def test_parameters_given_to_the_run_are_named(tmp_path: Path) -> None:
    cell = new_code_cell("# Parameters\nshots = 5", execution_count=1, metadata={"tags": ["injected-parameters"]})
    assert _text(_report(tmp_path, [cell]), ".injected-label") == "Parameters given to this run"


def test_pictures_and_long_logs(tmp_path: Path) -> None:
    outputs = [
        new_output("display_data", {"image/png": "AAAA\n"}, metadata={"alt": 'a "shelf"'}),
        new_output("stream", name="stdout", text="short <b>"),
        new_output("stream", name="stderr", text="\n".join(f"line {number}" for number in range(9))),
    ]
    soup = _report(tmp_path, [new_code_cell("a", outputs=outputs, execution_count=1)])
    (picture,) = soup.select("main img")
    assert (picture["src"], picture["alt"]) == ("data:image/png;base64,AAAA", 'a "shelf"')
    assert _text(soup, "pre.log-out") == "short <b>"
    assert _text(soup, "details.log-err summary") == "Log, 9 lines"


def test_what_is_no_notebook_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.ipynb").write_text("not json")
    with pytest.raises(ValueError, match="is not a notebook"):
        write_report(tmp_path / "text.ipynb", tmp_path / "report.html")
    with pytest.raises(FileNotFoundError):
        write_report(tmp_path / "absent.ipynb", tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_reports_need_neither_models_nor_data() -> None:
    code = (
        "import sys, workbench.report.html\n"
        "heavy = ('torch', 'faiss', 'timm', 'workbench.data', 'workbench.models', 'workbench.retrieval')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
