import base64
import gzip
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import plotly.offline
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from workbench.report import figures
from workbench.report.cells import PLOTLY_MIMETYPE
from workbench.report.html import write_report

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
    assert [script["nonce"] for script in running] == [nonce.group(1)]
    assert soup.select("script[src], link, iframe") == []
    other = _report(tmp_path, [_plot_cell()], RECORD).select("script[nonce]")[0]["nonce"]
    assert other != nonce.group(1)


def test_plotly_is_packed_once_and_only_for_plots(tmp_path: Path) -> None:
    soup = _report(tmp_path, [_plot_cell(), _plot_cell()])
    (packed,) = soup.select("#plotly-packed")
    assert gzip.decompress(base64.b64decode(packed.text)).decode() == plotly.offline.get_plotlyjs()
    assert len(soup.select("figure.plot script[type='application/json']")) == 2
    plain = _report(tmp_path, [new_markdown_cell("# No plot")])
    assert plain.select("script") == []
    assert (tmp_path / "new" / "report.html").stat().st_size < 60_000


def test_failed_run_names_its_error_and_its_cell(tmp_path: Path) -> None:
    failing = new_code_cell("1 / 0", execution_count=1, id="failing")
    failing.outputs = [new_output("error", ename="ZeroDivisionError", evalue="<i>by zero</i>", traceback=["Trace"])]
    cells = [failing, new_code_cell("never()")]
    error = {"type": "ZeroDivisionError", "message": "<i>by zero</i>", "cell": 0}
    soup = _report(tmp_path, cells, {**RECORD, "status": "failed", "error": error})
    assert _text(soup, ".error-box b") == "This run failed in code cell 1. Its numbers are not complete."
    assert _text(soup, ".error-box pre") == "ZeroDivisionError: <i>by zero</i>"
    assert _text(soup, ".error-box a") == "Go to the cell that failed"
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
    assert _text(soup, ".error-box b") == f"This run {headline}. Its numbers are not complete."
    assert _text(soup, ".error-box pre") == "no word"
    assert len(soup.select(".never-ran")) == 1


def test_notebook_that_was_never_executed_says_so(tmp_path: Path) -> None:
    soup = _report(tmp_path, [new_markdown_cell("text"), new_code_cell("a")])
    assert _text(soup, ".status") == "not executed"
    assert "was not executed" in _text(soup, "header .report-note")
    assert _text(soup, "title") == "03 evaluate few shot"


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
