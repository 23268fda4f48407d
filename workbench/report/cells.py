"""Cells of a notebook made ready for a page: plots as data, foreign HTML contained, the failing cell marked.

The page's Content-Security-Policy is what keeps scripts and remote pictures in outputs from doing anything. Here goes
what a policy cannot stop (a `meta` refresh, a `link` that only looks up a name, a tag that is never closed and swallows
the rest of the page) and what would only leave a broken picture behind.
"""

import html
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bs4 import BeautifulSoup
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_output
from plotly.utils import PlotlyJSONEncoder

from workbench.report.summary import Summary, lift_answer
from workbench.report.terminal import plain_terminal

PLOTLY_MIMETYPE = "application/vnd.plotly.v1+json"
_WIDGET_MIMETYPE = "application/vnd.jupyter.widget-view+json"
_LIFTED_TITLE_MARGIN_PX = 28
_TABLE_FRAME = {"class": "table-frame", "role": "group", "tabindex": "0", "aria-label": "Table"}
_TEXT_TAG = re.compile(r"</?(?:b|i|u|s|em|strong|sub|sup|span|a)(?:\s[^>]*)?/?>|<br\s*/?>", re.IGNORECASE)


@dataclass
class Page:
    """What the frame of the page needs to know about its cells."""

    title: str | None = None
    sections: list[tuple[str, str]] = field(default_factory=list)
    summary: Summary | None = None
    num_plots: int = 0
    num_code_cells: int = 0
    num_begun: int = 0
    failing_cell: int | None = None
    stopped_cell: int | None = None
    error_name: str = ""
    error_message: str = ""

    @property
    def executed(self) -> bool:
        """Whether any cell was, or was begun."""
        return self.num_begun > 0 or self.stopped_cell is not None


def prepare_cells(notebook: NotebookNode, *, finished: bool = True, stood_at: Mapping[str, Any] | None = None) -> Page:
    """What the page's frame shows of `notebook`, whose cells are changed in place into what the template prints.

    Markdown becomes contained HTML, the first top heading is lifted out as the title, headings of the second level
    get the names that the contents list links to. Plotly figures become a `figure` element with their data beside it.
    The last answer box (`pictures.summary_box`) is lifted out for the top of the page. papermill's banners go; the cell
    that failed is tagged `failing-cell`, or `stopped-cell` where the run was ended from outside while it ran, and a line
    tells where nothing ran any more.

    Args:
        notebook: nbformat 4, executed, partly executed or not executed at all.
        finished: whether the run is known to have come to its end; if not, cells that never ran are pointed out.
        stood_at: the cell that the record's error names: `number` among the code cells from 1, and `first_line`.
    """
    page = Page()
    notebook.cells = [
        cell for cell in notebook.cells if "papermill-error-cell-tag" not in cell.metadata.get("tags", [])
    ]
    code_cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    page.num_code_cells = len(code_cells)
    page.num_begun = sum(_begun(cell) for cell in code_cells)
    for number, cell in enumerate(code_cells, start=1):
        _find_failure(page, number, cell)
    if page.failing_cell is None and stood_at:
        _find_stop(page, code_cells, stood_at)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = _prepare_markdown(page, cell)
        elif cell.cell_type == "code":
            cell.outputs = [_prepare_output(page, output) for output in _merged_streams(cell.outputs)]
    _lift_summary(page, code_cells)
    if page.executed and (page.failing_cell is not None or not finished):
        _mark_where_it_stopped(notebook)
    return page


def contain(text: str) -> str:
    """`text`, foreign HTML, closed in itself: every tag is ended, and elements that act on the whole page are gone.

    Scripts are left out with a line that says so, pictures that are not data become their alternative text, pictures
    without an alternative text get one. A table that does not scroll by itself gets a frame that does, by the keyboard too.
    """
    soup = BeautifulSoup(text, "html.parser")
    num_scripts = 0
    for element in soup.find_all(["script", "meta", "link", "base", "iframe", "frame", "object", "embed", "title"]):
        num_scripts += element.name == "script"
        element.decompose()
    for image in soup.find_all("img"):
        alternative = str(image.get("alt") or "no description")
        if str(image.get("src", "")).startswith("data:"):
            image["alt"] = alternative
        else:
            image.replace_with(f"[picture that is not part of this file: {alternative}]")
    for table in soup.find_all("table"):
        if table.find_parent("table") is None and table.find_parent(class_="wb-scroll") is None:
            table.wrap(soup.new_tag("div", attrs=_TABLE_FRAME))
    if num_scripts:
        note = soup.new_tag("p", attrs={"class": "report-note"})
        note.string = "A script in this output was left out: reports run none but their own."
        soup.append(note)
    return str(soup)


def escape_json(value: Any) -> str:
    """`value` as JSON that can stand inside a script element: no `<`, `>`, `&`, nor line breaks that end a line.

    Numpy arrays and dates are written as plotly writes them; NaN and infinity become null.
    """
    text = json.dumps(value, cls=PlotlyJSONEncoder, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _find_failure(page: Page, number: int, cell: NotebookNode) -> None:
    tags = cell.metadata.get("tags", [])
    errors = [output for output in cell.outputs if output.output_type == "error"]
    if errors and page.failing_cell is None and "raises-exception" not in tags:
        page.failing_cell = number
        page.error_name = errors[0].ename
        page.error_message = errors[0].evalue
        cell.metadata["tags"] = [*tags, "failing-cell"]


def _find_stop(page: Page, code_cells: list[NotebookNode], stood_at: Mapping[str, Any]) -> None:
    """Tags the cell that the record names, where the cell of that number begins with the line that the record has."""
    number, line = stood_at.get("number"), str(stood_at.get("first_line") or "")
    if isinstance(number, int) and 1 <= number <= len(code_cells) and line:
        cell = code_cells[number - 1]
        if cell.source.strip().startswith(line):
            page.stopped_cell = number
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "stopped-cell"]


def _prepare_markdown(page: Page, cell: NotebookNode) -> str:
    renderer = IPythonRenderer(escape=False, attachments=cell.get("attachments", {}), exclude_anchor_links=True)
    soup = BeautifulSoup(contain(MarkdownWithMath(renderer=renderer).render(cell.source)), "html.parser")
    first = soup.find("h1")
    if page.title is None and first is not None:
        page.title = first.get_text(" ", strip=True)
        first.decompose()
    for heading in soup.find_all("h2"):
        name = f"section-{len(page.sections) + 1}"
        heading["id"] = name
        page.sections.append((name, heading.get_text(" ", strip=True)))
    return str(soup)


def _merged_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    merged: list[NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream" and merged and merged[-1].get("name") == output.name:
            merged[-1].text += output.text
        else:
            merged.append(output)
    for output in merged:
        if output.output_type == "stream":
            output.text = plain_terminal(output.text).rstrip("\n")
        elif output.output_type == "error":
            output.traceback = [plain_terminal(part) for part in output.traceback]
    return merged


def _prepare_output(page: Page, output: NotebookNode) -> NotebookNode:
    data = output.get("data", {})
    if PLOTLY_MIMETYPE in data:
        page.num_plots += 1
        figure = _plot(page.num_plots, data[PLOTLY_MIMETYPE])
        return new_output("display_data", {"text/html": figure})
    if _WIDGET_MIMETYPE in data:
        note = '<p class="report-note">An interactive control stood here; it works in JupyterLab only.</p>'
        return new_output("display_data", {"text/html": note})
    if "text/html" in data:
        return new_output("display_data", {"text/html": contain(data["text/html"])})
    if "text/markdown" in data:
        text = MarkdownWithMath(renderer=IPythonRenderer(escape=False, exclude_anchor_links=True)).render(
            data["text/markdown"]
        )
        return new_output("display_data", {"text/html": contain(text)})
    if "application/javascript" in data:
        return new_output("display_data", {"text/html": contain("<script></script>")})
    return output


def _plot(number: int, figure: dict[str, Any]) -> str:
    layout = dict(figure.get("layout", {}))
    title = layout.pop("title", None) or {}
    title = {"text": title} if isinstance(title, str) else title
    headline = _plain_text(title.get("text") or "")
    subtitle = _plain_text((title.get("subtitle") or {}).get("text") or "")
    if headline:
        margin = dict(layout.get("margin") or {})
        removed = max(0, margin.get("t", 100) - _LIFTED_TITLE_MARGIN_PX)
        layout["margin"] = {**margin, "t": _LIFTED_TITLE_MARGIN_PX}
        if layout.get("height"):
            layout["height"] -= removed
    height = layout.get("height", 450)
    caption = f'<b id="figure-{number}">{html.escape(headline or f"Figure {number}")}</b>'
    told = {"": subtitle, ' class="unseen"': _axes_and_series(figure.get("data", []), layout)}
    notes = "".join(f"<span{kind}>{html.escape(text)}</span>" for kind, text in told.items() if text)
    return (
        f'<figure class="plot" aria-labelledby="figure-{number}" aria-describedby="figure-{number}-notes">'
        f'<figcaption>{caption}<div id="figure-{number}-notes">{notes}</div></figcaption>'
        f'<div class="plot-area" style="min-height:{int(height)}px"></div>'
        f'<script type="application/json">{escape_json({"data": figure.get("data", []), "layout": layout})}</script>'
        "</figure>"
    )


def _axes_and_series(data: list[dict[str, Any]], layout: dict[str, Any]) -> str:
    """What a figure shows, for those who cannot see it: the titles of its axes, the names of its series."""
    titles = {name[0]: (layout.get(name) or {}).get("title") or {} for name in ("xaxis", "yaxis")}
    texts = {name: title if isinstance(title, str) else title.get("text") or "" for name, title in titles.items()}
    parts = [f"{name} axis: {_plain_text(text)}" for name, text in texts.items() if text]
    series = dict.fromkeys(_plain_text(str(trace["name"])) for trace in data if trace.get("name"))
    parts += [f"series: {', '.join(series)}"] if series else []
    return f"{'; '.join(parts)}." if parts else ""


def _plain_text(text: str) -> str:
    spaced = _TEXT_TAG.sub(lambda tag: " " if tag.group().lower().startswith("<br") else "", text)
    return " ".join(html.unescape(spaced).split())


def _begun(cell: NotebookNode) -> bool:
    return cell.get("execution_count") is not None or bool(cell.outputs)


def _lift_summary(page: Page, code_cells: list[NotebookNode]) -> None:
    outputs = [output for cell in code_cells for output in cell.outputs if "text/html" in output.get("data", {})]
    for output in reversed(outputs):
        if "wb-answer" not in output.data["text/html"]:
            continue
        soup = BeautifulSoup(output.data["text/html"], "html.parser")
        page.summary = lift_answer(soup)
        if page.summary is not None:
            output.data["text/html"] = str(soup)
            return


def _mark_where_it_stopped(notebook: NotebookNode) -> None:
    ran = [
        index
        for index, cell in enumerate(notebook.cells)
        if cell.cell_type == "code" and (_begun(cell) or "stopped-cell" in cell.metadata.get("tags", []))
    ]
    rest = notebook.cells[ran[-1] + 1 :]
    if any(cell.cell_type == "code" and cell.source.strip() for cell in rest):
        note = '<p class="never-ran">The run stopped here. Nothing below this line was computed.</p>'
        notebook.cells.insert(ran[-1] + 1, new_markdown_cell(note))
