"""Figures of a gallery: every number of the table is drawn where it belongs, with its interval and what it means."""

import json

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from workbench.report.gallery_figures import condensation_curves, index_trade_off, what_broke
from workbench.report.style import OKABE_ITO

HOSTILE = "<img src=x onerror=window.hacked=1>"


def _indexes(name: str = "IVF, 4 of 64 lists") -> pd.DataFrame:
    rows = [
        ("exact", "exact", 1.0, 1.0, 1.0, 1.0, 40.0, ""),
        ("IVF, 8 of 64 lists", "ivf", 0.75, 0.7, 0.875, 0.5, 41.0, ""),
        (name, "ivf", 0.5, 0.375, 0.625, 0.25, 41.0, ""),
        ("HNSW", "hnsw", 0.875, 0.75, 0.9375, 0.125, 70.0, ""),
        ("ivf_pq", "ivf_pq", np.nan, np.nan, np.nan, np.nan, np.nan, "needs 9,984 references"),
    ]
    names = ["setting", "kind", "recall@1", "recall@1_low", "recall@1_high", "time_ratio", "memory_mib", "note"]
    return pd.DataFrame(rows, columns=names)


def _sizes(name: str = "medoids") -> pd.DataFrame:
    rows = [
        ("random", 1, 10, 0.25, 0.125, 0.375),
        ("random", 4, 40, 0.5, 0.375, 0.625),
        (name, 4, 40, 0.625, 0.5, 0.75),
        (name, 1, 10, 0.375, 0.25, 0.5),
        ("all", None, 1200, 0.75, 0.625, 0.875),
    ]
    frame = pd.DataFrame(rows, columns=["method", "size", "num_references", "accuracy", "low", "high"])
    return frame.astype({"size": "Int64"}).assign(n=321)


def _broke(name: str = "0001234") -> pd.DataFrame:
    rows = [(name, 10, 4, 1, name), ("007", 8, 1, 0, "b"), ("7", 5, 0, 2, None), ("same", 6, 0, 0, None)]
    return pd.DataFrame(rows, columns=["label", "num_queries", "broke", "mended", "most_taken_by"])


def _every_figure(name: str) -> list[go.Figure]:
    return [
        index_trade_off(_indexes(name), name),
        condensation_curves(_sizes(name), name),
        what_broke(_broke(name), name),
    ]


@pytest.mark.parametrize("figure", _every_figure("plain"))
def test_every_figure_says_what_it_shows(figure: go.Figure) -> None:
    assert figure.layout.title.text.startswith("<b>")
    assert "plain" in figure.layout.title.subtitle.text
    assert figure.layout.xaxis.title.text
    assert figure.layout.yaxis.title.text


@pytest.mark.parametrize("figure", _every_figure(HOSTILE))
def test_names_from_data_are_escaped(figure: go.Figure) -> None:
    text = json.dumps(figure.to_plotly_json(), default=lambda array: np.asarray(array, dtype=object).tolist())
    assert "<img" not in text


def test_a_line_a_kind_of_index_in_the_order_of_time() -> None:
    figure = index_trade_off(_indexes(), "protocol")
    traces = {trace.name: trace for trace in figure.data}
    assert list(traces) == ["exact", "IVF", "HNSW"]
    ivf = traces["IVF"]
    assert list(ivf.x) == [0.25, 0.5]
    assert list(ivf.y) == [0.5, 0.75]
    assert list(ivf.error_y.array) == [0.125, 0.125]
    assert list(ivf.error_y.arrayminus) == pytest.approx([0.125, 0.05])
    assert "IVF, 4 of 64 lists<br>[37.5%, 62.5%], 41.0 MiB" in ivf.customdata[0]
    assert traces["exact"].marker.symbol == "star"
    assert len({(trace.line.color, trace.line.dash) for trace in figure.data}) == 3
    assert figure.layout.xaxis.type == "log"
    subtitle = figure.layout.title.subtitle.text.replace("<br>", " ")
    assert "ivf_pq is left out: needs 9,984 references" in subtitle


def test_condensed_sizes_beside_chance_and_all() -> None:
    figure = condensation_curves(_sizes())
    traces = {trace.name: trace for trace in figure.data}
    assert list(traces) == ["by chance", "medoids", "all 1,200 references: 75.0% [62.5%, 87.5%]"]
    medoids = traces["medoids"]
    assert list(medoids.y) == [0.375, 0.625]
    assert list(medoids.x) == pytest.approx([1, 4], rel=0.03)
    assert list(medoids.x) != list(traces["by chance"].x)  # bars of one size do not cover each other
    assert list(medoids.error_y.array) == [0.125, 0.125]
    assert medoids.customdata[1] == "4 per label, 40 in all: 62.5% [50.0%, 75.0%]"
    assert list(figure.data[2].y) == [0.75, 0.75]
    assert list(figure.layout.xaxis.ticktext) == ["1", "4"]
    assert "n = 321 queries" in figure.layout.title.subtitle.text


def test_what_broke_to_the_left_and_what_was_mended_to_the_right() -> None:
    figure = what_broke(_broke())
    broke, mended = figure.data
    assert list(broke.x) == [-4, -1, 0]
    assert list(mended.x) == [1, 0, 2]
    assert list(broke.text) == ["to 0001234", "to b", ""]
    assert broke.customdata[0] == "0001234: 4 of 10 queries"
    assert list(figure.layout.yaxis.ticktext) == ["0001234", "007", "7"]
    assert (broke.marker.color, mended.marker.color) == (OKABE_ITO[1], OKABE_ITO[0])
    assert set(figure.layout.xaxis.ticktext) == {"0", "1", "2", "3", "4"}
    low, high = figure.layout.xaxis.range
    assert low < -4
    assert high > 4
    subtitle = figure.layout.title.subtitle.text.replace("<br>", " ")
    assert "n = 29 queries of 4 labels, 3 of them with a change" in subtitle
    fewer = what_broke(_broke(), max_labels=1)
    assert list(fewer.layout.yaxis.ticktext) == ["0001234"]
    assert "2 with smaller losses are not shown" in fewer.layout.title.subtitle.text.replace("<br>", " ")


def test_no_change_is_said_and_drawn_as_nothing() -> None:
    figure = what_broke(_broke().iloc[3:])
    assert [len(trace.x) for trace in figure.data] == [0, 0]
    assert "0 of them with a change" in figure.layout.title.subtitle.text.replace("<br>", " ")


def test_bad_tables_are_refused() -> None:
    with pytest.raises(ValueError, match=r"wants the columns .*recall@10"):
        index_trade_off(_indexes(), recall="recall@10")
    with pytest.raises(ValueError, match="at least one setting with a time"):
        index_trade_off(_indexes().iloc[4:])
    with pytest.raises(ValueError, match="at least one number of references per label"):
        condensation_curves(_sizes().iloc[4:])
    with pytest.raises(ValueError, match="num_references is missing"):
        condensation_curves(_sizes().drop(columns="num_references"))
    with pytest.raises(ValueError, match="at least one label"):
        what_broke(_broke().iloc[:0])
    with pytest.raises(ValueError, match="broke is missing"):
        what_broke(_broke().drop(columns="broke"))
