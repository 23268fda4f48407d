import json
import math
from typing import Any

import numpy as np
from bs4 import BeautifulSoup
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from workbench.report.cells import PLOTLY_MIMETYPE, contain, escape_json, prepare_cells
from workbench.report.pictures import summary_box
from workbench.report.summary import Summary


def _ran(source: str, *outputs: NotebookNode, count: int = 1, **metadata: Any) -> NotebookNode:
    return new_code_cell(source, outputs=list(outputs), execution_count=count, metadata=metadata)


def _error() -> NotebookNode:
    return new_output("error", ename="KeyError", evalue="'sku'", traceback=["KeyError: 'sku'"])


def test_first_heading_becomes_the_title_and_sections_are_listed() -> None:
    notebook = new_notebook(
        cells=[new_markdown_cell("# Why `x` < 3?\n\ntext"), new_markdown_cell("## A & B"), new_markdown_cell("# Later")]
    )
    page = prepare_cells(notebook)
    assert page.title == "Why x < 3?"
    assert page.sections == [("section-1", "A & B")]
    assert "<h1" not in notebook.cells[0].source
    assert '<h2 id="section-1">' in notebook.cells[1].source
    assert "<h1>Later</h1>" in notebook.cells[2].source
    assert not page.executed


def test_json_in_a_script_cannot_end_it() -> None:
    value = {"name": "</script><!--\u2028\u2029&", "array": np.array([1.0, math.nan])}
    text = escape_json(value)
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text)["name"] == value["name"]
    assert json.loads(text)["array"] == [1.0, None]


def test_foreign_html_is_closed_and_cannot_act_on_the_page() -> None:
    contained = contain(
        '<meta http-equiv="refresh" content="0;url=https://example.com"><link rel="dns-prefetch" href="//example.com">'
        '<div><b>open<iframe src="x"></iframe></div></div></main><img src="https://example.com/a.png" alt="shelf">'
        '<img src="data:image/png;base64,AAAA"><script>1</script>'
    )
    for gone in ("<meta", "<link", "<iframe", "<script", "https://example.com", "</main>"):
        assert gone not in contained
    assert contained.startswith("<div><b>open</b></div>")
    assert "[picture that is not part of this file: shelf]" in contained
    assert 'alt="no description"' in contained
    assert "A script in this output was left out" in contained


def test_plot_becomes_caption_and_data() -> None:
    title = {"text": "<b>A &lt;b&gt; B</b>", "subtitle": {"text": "n = 3,<br>micro"}}
    traces = [{"y": [1], "name": "a&amp;b"}, {"y": [2], "name": "a&amp;b"}, {"name": "c"}, {"y": [3]}]
    layout = {"title": title, "margin": {"t": 128}, "height": 500, "xaxis": {"title": {"text": "&lt;shots&gt; (log)"}}}
    figure = {"data": traces, "layout": layout}
    notebook = new_notebook(cells=[_ran("f", new_output("display_data", {PLOTLY_MIMETYPE: figure, "text/html": "no"}))])
    page = prepare_cells(notebook)
    (output,) = notebook.cells[0].outputs
    text = output.data["text/html"]
    assert page.num_plots == 1
    assert list(output.data) == ["text/html"]
    assert '<b id="figure-1">A &lt;b&gt; B</b>' in text
    notes = '<span>n = 3, micro</span><span class="unseen">x axis: &lt;shots&gt; (log); series: a&amp;b, c.</span>'
    assert f'<div id="figure-1-notes">{notes}</div>' in text
    assert '<figure class="plot" aria-labelledby="figure-1" aria-describedby="figure-1-notes">' in text
    assert '<div class="plot-area" style="min-height:400px"></div>' in text
    data = json.loads(text.split('<script type="application/json">')[1].split("</script>")[0])
    assert data["data"] == traces
    assert data["layout"] == {"margin": {"t": 28}, "height": 400, "xaxis": layout["xaxis"]}


def test_streams_are_joined_and_progress_lines_keep_their_last_state() -> None:
    streams = [new_output("stream", name="stdout", text=text) for text in ("a\n1 %\r50 %\r100 %\n", "b\r\n")]
    notebook = new_notebook(cells=[_ran("x", *streams, new_output("stream", name="stderr", text="w"))])
    prepare_cells(notebook)
    assert [output.text for output in notebook.cells[0].outputs] == ["a\n100 %\nb", "w"]


def test_banners_of_papermill_go_and_the_failing_cell_is_marked() -> None:
    banner = new_markdown_cell("<span>An Exception", metadata={"tags": ["papermill-error-cell-tag"]})
    notebook = new_notebook(cells=[banner, _ran("a"), _ran("b", _error(), count=2), new_code_cell("c")])
    page = prepare_cells(notebook, finished=False)
    assert (page.failing_cell, page.error_name, page.error_message) == (2, "KeyError", "'sku'")
    assert [cell.cell_type for cell in notebook.cells] == ["code", "code", "markdown", "code"]
    assert notebook.cells[1].metadata.tags == ["failing-cell"]
    assert "Nothing below this line was computed" in notebook.cells[2].source


def test_the_cell_that_ran_when_the_run_was_ended_is_marked_where_its_line_is_the_records() -> None:
    def stopped() -> NotebookNode:
        silent = new_code_cell("\n  train(model)\nmore()")  # it printed nothing, so that no output says that it ran
        return new_notebook(cells=[_ran("a"), new_code_cell(" "), silent, new_code_cell("c")])

    notebook = stopped()
    page = prepare_cells(notebook, finished=False, stood_at={"number": 2, "first_line": "train(model)"})
    assert (page.stopped_cell, page.failing_cell, page.num_begun) == (2, None, 1)
    assert [cell.metadata.get("tags") for cell in notebook.cells] == [None, None, ["stopped-cell"], None, None]
    assert "Nothing below this line was computed" in notebook.cells[3].source
    for strange in ({"number": 2, "first_line": "other()"}, {"number": 9, "first_line": "c"}, {"number": 2}, {}):
        notebook = stopped()
        assert prepare_cells(notebook, finished=False, stood_at=strange).stopped_cell is None
        assert not any(cell.metadata.get("tags") for cell in notebook.cells)
    failed = new_notebook(cells=[_ran("a", _error()), new_code_cell("b")])
    assert prepare_cells(failed, finished=False, stood_at={"number": 2, "first_line": "b"}).stopped_cell is None


def test_an_error_that_was_wanted_is_no_failure() -> None:
    notebook = new_notebook(cells=[_ran("a", _error(), tags=["raises-exception"]), new_code_cell("b")])
    assert prepare_cells(notebook).failing_cell is None
    assert len(notebook.cells) == 2


def test_stopped_from_outside_is_marked_too_but_not_at_the_very_end() -> None:
    stopped = new_notebook(cells=[_ran("a"), new_code_cell("b")])
    prepare_cells(stopped, finished=False)
    assert "The run stopped here" in stopped.cells[1].source
    complete = new_notebook(cells=[_ran("a"), new_code_cell(""), new_markdown_cell("end")])
    prepare_cells(complete, finished=False)
    assert len(complete.cells) == 3


def test_widgets_and_scripts_leave_a_line() -> None:
    outputs = [
        new_output(
            "display_data", {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}, "text/plain": "HBox"}
        ),
        new_output("display_data", {"application/javascript": "alert(1)"}),
        new_output("display_data", {"text/markdown": "**bold**<meta http-equiv=refresh>"}),
    ]
    notebook = new_notebook(cells=[_ran("x", *outputs)])
    prepare_cells(notebook)
    widget, script, markdown = [output.data["text/html"] for output in notebook.cells[0].outputs]
    assert "works in JupyterLab only" in widget
    assert "A script in this output was left out" in script
    assert "alert" not in script
    assert markdown.strip() == "<p><strong>bold</strong></p>"


def test_tables_get_a_frame_that_scrolls_unless_they_have_one() -> None:
    framed = '<div class="wb-scroll"><table></table></div>'
    inner = "<table><tr><td><table></table></td></tr></table>"
    soup = BeautifulSoup(contain(f"{framed}{inner}"), "html.parser")
    (frame,) = soup.select(".table-frame")
    assert frame["tabindex"] == "0"
    assert len(frame.select("table")) == 2
    assert soup.select(".wb-scroll .table-frame") == []


def test_cells_are_counted_and_the_last_answer_is_lifted() -> None:
    boxes = [new_output("display_data", {"text/html": summary_box(name, "1", "p").data}) for name in ("a", "b")]
    notebook = new_notebook(cells=[_ran("x", *boxes), new_markdown_cell("m"), new_code_cell(""), new_code_cell("y")])
    page = prepare_cells(notebook)
    assert (page.num_code_cells, page.num_begun, page.executed) == (2, 1, True)
    assert page.summary == Summary("b", "1", "p")
    first, last = (output.data["text/html"] for output in notebook.cells[0].outputs)
    assert 'wb-answer"' in first
    assert 'wb-answer"' not in last
    assert 'href="#summary"' in last
