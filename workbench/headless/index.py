"""outputs/index.html: every run on one static page that needs no network."""

import fcntl
import html
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from workbench.runs.files import write_text
from workbench.runs.metrics import read_metrics
from workbench.runs.record import list_runs

_LINKS = {"report": "report.html", "log": "stdout.log", "metrics": "metrics.json", "record": "run.json"}
_COLUMNS = ("Status", "Notebook", "Data", "Headline", "Started (UTC)", "Took", "Files")
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'">
<title>Runs</title>
<style>
:root {{ color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --line: #d1d9e0; --page: #fff;
  --ok: #1a7f37; --running: #0969da; --bad: #cf222e; --odd: #9a6700; }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink: #e6edf3; --soft: #9198a1; --line: #3d444d; --page: #0d1117;
  --ok: #3fb950; --running: #4493f8; --bad: #f85149; --odd: #d29922; }} }}
body {{ margin: 2rem auto; max-width: 84rem; padding: 0 1rem; font: 15px/1.45 system-ui, sans-serif;
  color: var(--ink); background: var(--page); }}
h1 {{ font-size: 1.5rem; margin: 0; }}
p {{ color: var(--soft); }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ text-align: left; vertical-align: top; padding: .5rem .75rem .5rem 0; border-bottom: 1px solid var(--line); }}
th {{ color: var(--soft); font-weight: 600; white-space: nowrap; }}
td {{ overflow-wrap: anywhere; }}
td.short {{ white-space: nowrap; font-variant-numeric: tabular-nums; }}
small {{ display: block; color: var(--soft); max-width: 40rem; white-space: pre-line; }}
a {{ color: var(--running); }}
.status {{ font-weight: 600; }}
.ok {{ color: var(--ok); }} .running {{ color: var(--running); }}
.failed, .timeout, .killed {{ color: var(--bad); }} .cancelled, .lost {{ color: var(--odd); }}
</style>
</head>
<body>
<h1>Runs</h1>
<p>{summary}</p>
<div class="wide">
<table>
<thead><tr>{columns}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
</div>
</body>
</html>
"""


def write_index(outputs: Path) -> Path:
    """The path of `outputs/index.html`, written anew from the run folders: newest first, each with its true status.

    Atomic; of several writers at once the last one has seen every run, because they take turns.

    Raises:
        OSError: the disk is full; the old page stays.
    """
    outputs.mkdir(parents=True, exist_ok=True)
    with (outputs / ".index.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        runs = list_runs(outputs)
        counts: dict[str, int] = {}
        for _, record in runs:
            counts[record["status"]] = counts.get(record["status"], 0) + 1
        parts = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
        columns = "".join(f'<th scope="col">{column}</th>' for column in _COLUMNS)
        page = _PAGE.format(
            summary=html.escape(f"{parts or 'No run yet'}. As of {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC."),
            columns=columns,
            rows="\n".join(_row(folder, record) for folder, record in runs),
        )
        write_text(outputs / "index.html", page)
    return outputs / "index.html"


def headline(folder: Path) -> str:
    """The run's first metric as text with its interval and sample size; empty when it logged none."""
    try:
        metrics = read_metrics(folder)
    except ValueError as error:
        return str(error)
    if not metrics:
        return ""
    name, metric = next(iter(metrics.items()))
    low, high = _number(metric["low"]), _number(metric["high"])
    return f"{name} = {_number(metric['value'])} [{low}, {high}], n = {metric['n']}"


def duration(seconds: float | None) -> str:
    """A duration for people: `8.2 s`, `3 min 05 s`, `2 h 07 min`; empty for None."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    return f"{minutes} min {rest_s:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _row(folder: Path, record: dict[str, Any]) -> str:
    status = str(record["status"])
    error = record.get("error") or {}
    message = f"{error.get('type')}: {error.get('message')}"[:400] if error else ""
    known = status if status.isalpha() else ""
    cells = [
        f'<td class="short"><span class="status {html.escape(known)}">{html.escape(status)}</span></td>',
        f"<td>{html.escape(str(record['notebook']))}{_small(_parameters(record))}</td>",
        f"<td>{html.escape(str(record['parameters'].get('data') or ''))}</td>",
        f"<td>{html.escape(headline(folder))}{_small(message)}</td>",
        f'<td class="short">{html.escape(str(record.get("started") or "")[:19].replace("T", " "))}</td>',
        f'<td class="short">{html.escape(duration(record.get("seconds")))}</td>',
        f'<td class="short">{" · ".join(_links(folder))}</td>',
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _parameters(record: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in record["parameters"].items() if name != "data")[:300]


def _links(folder: Path) -> list[str]:
    there = [(word, name) for word, name in _LINKS.items() if (folder / name).exists()]
    return [f'<a href="{quote(f"{folder.name}/{name}")}">{word}</a>' for word, name in there]


def _small(text: str) -> str:
    return f"<small>{html.escape(text)}</small>" if text else ""


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "undefined"
