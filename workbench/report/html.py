"""A notebook as one HTML file that needs no network: plots drawn in the page, code folded away, nothing foreign run."""

import base64
import functools
import gzip
import secrets
from collections.abc import Mapping
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import nbformat
import plotly.offline
from nbconvert import HTMLExporter
from nbconvert.exporters.templateexporter import TemplateExporter
from nbconvert.filters.highlight import Highlight2HTML

from workbench.report.cells import Page, prepare_cells
from workbench.report.failure import explain_failure
from workbench.report.summary import complete_summary
from workbench.runs.files import write_text
from workbench.runs.metrics import read_metrics

_PLAIN_STATUS = {
    "ok": "finished",
    "running": "still running when this was written",
    "failed": "failed",
    "timeout": "stopped at its deadline",
    "killed": "killed",
    "cancelled": "cancelled",
    "lost": "lost: the process ended without a word",
    "unexecuted": "not executed",
}
_PROVENANCE = ("device", "seed", "git", "versions")


class _ReportExporter(HTMLExporter):
    """HTMLExporter without its last pass, which parses the whole page again and makes every cell a tab stop."""

    def from_notebook_node(  # type: ignore[override]  # nbconvert's own exporters return text here too
        self, nb: nbformat.NotebookNode, resources: dict[str, Any] | None = None, **kw: Any
    ) -> tuple[str, dict[str, Any]]:
        self.register_filter("highlight_code", Highlight2HTML(pygments_lexer="ipython3", parent=self))
        return TemplateExporter.from_notebook_node(self, nb, resources, **kw)


def write_report(notebook: Path, report: Path, record: dict[str, Any] | None = None) -> None:
    """Writes `notebook` to `report` as one HTML file, whole or not at all.

    Its top is a summary: the notebook's answer box, what the record adds to it (data, model, cost), and the headline held
    against chance and baselines, as far as a metrics.json beside the notebook has them. A notebook that failed, stopped
    half-way or was never executed gives a report too: its top says how far it came, what went wrong, and shows the end
    of the stdout.log beside it.

    Args:
        notebook: an nbformat 4 notebook with its outputs.
        report: the HTML file to write; its folder is created.
        record: the run's record, all of it optional: status, notebook, parameters, facts, started, seconds, error
            (its type and message), device, seed, git, versions.
            Without a record the status is read from the cells.

    Raises:
        FileNotFoundError: there is no such notebook.
        ValueError: the file is not a notebook.
    """
    try:
        node = nbformat.read(notebook, as_version=4)
    except nbformat.reader.NotJSONError as error:
        raise ValueError(f"{notebook} is not a notebook (its text is not JSON); give an .ipynb file.") from error
    record = dict(record or {})
    stated = record.get("error")
    stood_at = stated.get("cell") if isinstance(stated, Mapping) else None
    page = prepare_cells(
        node,
        finished=record.get("status", "ok") == "ok",
        stood_at=stood_at if isinstance(stood_at, Mapping) else None,
    )
    nonce = secrets.token_urlsafe(16)
    context = {
        "nonce": nonce,
        "css": _package_text("report.css"),
        "print_script": _package_text("print.js"),
        "script": _package_text("report.js") if page.num_plots else "",
        "plotly": _packed_plotly() if page.num_plots else "",
        "title": page.title or _words(str(record.get("notebook") or notebook.stem)),
        "sections": page.sections,
        **_top(page, record, notebook),
    }
    exporter = _ReportExporter(template_file=str(files("workbench.report").joinpath("report.html.j2")))
    exporter.exclude_input_prompt = True
    exporter.exclude_output_prompt = True
    text, _ = exporter.from_notebook_node(node, resources={"report": context})
    write_text(report, text)


def _top(page: Page, record: Mapping[str, Any], notebook: Path) -> dict[str, Any]:
    status = str(record.get("status") or ("failed" if page.failing_cell else "ok" if page.executed else "unexecuted"))
    failure = explain_failure(page, record, status, notebook.with_name("stdout.log"))
    took = _duration(float(record["seconds"])) if record.get("seconds") is not None else ""
    facts = [str(record.get("notebook") or notebook.stem)]
    facts += [_moment(str(record["started"]))] if record.get("started") else []
    facts += [f"took {took}"] if took else []
    if status == "ok" and not page.executed:
        status = "unexecuted"
    try:
        metrics, unread = read_metrics(notebook.parent), ""
    except ValueError as error:
        metrics, unread = {}, str(error)
    tables = {
        "Parameters": record.get("parameters") or {},
        "Facts of the run": {**{key: record.get(key) for key in _PROVENANCE}, **(record.get("facts") or {})},
    }
    return {
        "status": status,
        "status_text": _PLAIN_STATUS.get(status, status),
        "facts_line": facts,
        "failure": failure,
        "summary": complete_summary(page.summary, record, metrics, took),
        "unread": unread,
        "unexecuted": not page.executed,
        "tables": [
            (name, rows)
            for name, facts in tables.items()
            if (rows := [(key, _fact(value)) for key, value in facts.items() if value not in (None, {}, [])])
        ],
    }


@functools.cache
def _packed_plotly() -> str:
    """plotly.js, gzip, as base64 text: a third of its plain size."""
    packed = gzip.compress(plotly.offline.get_plotlyjs().encode("utf-8"), compresslevel=9, mtime=0)
    return base64.b64encode(packed).decode("ascii")


def _package_text(name: str) -> str:
    return files("workbench.report").joinpath(name).read_text(encoding="utf-8")


def _words(stem: str) -> str:
    return stem.replace("_", " ").strip() or "Report"


def _moment(started: str) -> str:
    try:
        return datetime.fromisoformat(started).strftime("%d %B %Y, %H:%M %Z").strip()
    except ValueError:
        return started


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _fact(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_fact(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_fact(inner) for inner in value)
    return str(value)
