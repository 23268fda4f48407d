import json
from collections.abc import Callable

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from workbench.report import open_set_figures as figures
from workbench.report import threshold_figures

HOSTILE = "<img src=x onerror=window.hacked=1>"


def _answers() -> pd.DataFrame:
    kinds = ["known"] * 40 + ["near"] * 20 + ["far"] * 20 + ["unknown"] * 4
    right = [1.0] * 30 + [0.0] * 10 + [0.0] * 44
    return pd.DataFrame({"kind": kinds, "right": right, "statistic": np.linspace(0.9, 0.1, 84)})


def _curves() -> pd.DataFrame:
    rows = [
        (curve, kind, at, at * 0.9, at * 0.8, at, 1234, at >= 0.05)
        for curve in ("DIR", "risk")
        for kind in ("all", "near", "far")
        for at in (0.01, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
    ]
    return pd.DataFrame(rows, columns=["curve", "kind", "at", "value", "low", "high", "n", "resolved"])


def _growth() -> pd.DataFrame:
    table = pd.DataFrame(
        {"gallery_classes": [10, 10, 50, 50], "far": [0.01, 0.001] * 2, "resolved": [True, False] * 2, "n": 1234}
    ).assign(num_chosen_on=150)
    for shift, name in enumerate(("threshold", "false_accepts", "kept_false_accepts")):
        table[name] = np.array([0.2, 0.3, 0.4, 0.5]) + 0.01 * shift
        table[f"{name}_low"], table[f"{name}_high"] = table[name] - 0.05, table[name] + 0.1
    return table


def _bins() -> pd.DataFrame:
    observed = np.array([0.2, 0.5, 0.9])
    return pd.DataFrame(
        {"predicted": [0.25, 0.5, 0.8], "observed": observed, "low": observed - 0.1, "high": observed + 0.05, "n": 1234}
    )


def _every_figure(name: str) -> list[go.Figure]:
    return [
        figures.similarity_histograms(_answers(), {0.01: 0.6, 0.001: 0.8}, name, statistic=name),
        figures.oscr_curves(_curves(), name),
        figures.dir_against_far(_curves(), name),
        figures.risk_against_coverage(_curves(), name, unknown_share=0.2),
        threshold_figures.threshold_against_gallery(_growth(), name),
        threshold_figures.false_accepts_against_gallery(_growth(), name),
        threshold_figures.reliability_curve(_bins(), _bins(), name),
    ]


def _lines(figure: go.Figure) -> dict[str, go.Scatter]:
    return {trace.name: trace for trace in figure.data if trace.name}


@pytest.mark.parametrize("figure", _every_figure("plain"))
def test_every_figure_says_what_it_shows(figure: go.Figure) -> None:
    assert figure.layout.title.text.startswith("<b>")
    assert "plain" in figure.layout.title.subtitle.text
    assert "n = " in figure.layout.title.subtitle.text
    axes = [*figure.select_xaxes(), *figure.select_yaxes()]
    assert sum(bool(axis.title.text) for axis in axes) >= 2
    assert (
        len({trace.line.dash for trace in figure.data if trace.showlegend is not False and trace.type == "scatter"}) > 1
    )


@pytest.mark.parametrize("figure", _every_figure(HOSTILE))
def test_names_are_escaped(figure: go.Figure) -> None:
    text = json.dumps(figure.to_plotly_json(), default=lambda array: np.asarray(array, dtype=object).tolist())
    assert "<img" not in text
    assert "&lt;img" in text


def test_a_kind_of_answer_sums_to_one() -> None:
    figure = figures.similarity_histograms(_answers(), {0.01: 0.6})
    assert list(_lines(figure)) == [
        "known, answered right (n = 30)",
        "known, answered wrong (n = 10)",
        "unknown, near (n = 20)",
        "unknown, far (n = 20)",
        "unknown (n = 4)",
    ]
    for trace in figure.data:
        x, y = np.asarray(trace.x), np.asarray(trace.y)
        width, height = x[2::2] - x[:-2:2], y[1:-1:2]
        assert (width * height).sum() / 0.01 == pytest.approx(1)
    assert figure.layout.shapes[0].x0 == 0.6
    assert "FAR 1 %: 0.600" in figure.layout.annotations[0].text
    same = _answers().assign(statistic=0.5)
    assert np.isfinite(np.asarray(figures.similarity_histograms(same).data[0].y)).all()


def test_curves_are_those_of_the_table_with_their_intervals() -> None:
    figure = figures.dir_against_far(_curves())
    near = _lines(figure)["near: a sibling is known"]
    assert np.asarray(near.y) == pytest.approx(0.9 * np.asarray(near.x))
    bars = [trace for trace in figure.data if trace.mode == "markers"]
    assert len(bars) == 3
    for trace in bars:
        at = np.asarray(trace.x)
        assert np.asarray(trace.error_y.array) == pytest.approx(0.1 * at)
        assert np.asarray(trace.error_y.arrayminus) == pytest.approx(0.1 * at)
        assert [symbol.endswith("-open") for symbol in trace.marker.symbol] == [x < 0.05 for x in at]
    assert "Hollow" in figure.layout.title.subtitle.text
    clear = _curves().assign(resolved=True)
    assert "Hollow" not in figures.dir_against_far(clear).layout.title.subtitle.text
    risk = figures.risk_against_coverage(_curves(), unknown_share=0.2)
    assert "At 20% unknown queries" in risk.layout.title.subtitle.text.replace("<br>", " ")


def test_growth_shows_each_rate_and_the_kept_threshold() -> None:
    figure = threshold_figures.threshold_against_gallery(_growth())
    assert list(_lines(figure)) == ["FAR 1 %", "FAR 0.1 % (not resolved)"]
    assert list(figure.data[0].y) == [0.2, 0.4]
    assert np.asarray(figure.data[1].error_y.array) == pytest.approx([0.1, 0.1])
    assert set(figure.data[1].marker.symbol) == {"square-open"}
    assert list(figure.layout.xaxis.ticktext) == ["10", "50"]
    kept = threshold_figures.false_accepts_against_gallery(_growth())
    assert list(_lines(kept))[1] == "FAR 1 %, threshold of 10 classes kept"
    assert list(kept.data[1].y) == pytest.approx([0.22, 0.42])


def test_reliability_shows_counts_and_the_diagonal() -> None:
    figure = threshold_figures.reliability_curve(_bins(), _bins().assign(observed=[0.1, 0.6, 0.8]))
    lines = _lines(figure)
    assert (list(lines["as promised"].x), list(lines["as promised"].y)) == ([0, 1], [0, 1])
    honest, saved = (
        lines["cross-fitted: each label by a fit without it"],
        lines["saved calibration, on what it was fitted to"],
    )
    assert list(honest.y) == [0.2, 0.5, 0.9]
    assert np.asarray(honest.error_y.arrayminus) == pytest.approx([0.1, 0.1, 0.1])
    assert list(saved.y) == [0.1, 0.6, 0.8]
    assert saved.error_y.arrayminus is None
    assert list(lines["answers"].y) == [1234, 1234, 1234]


@pytest.mark.parametrize(
    ("draw", "table", "message"),
    [
        (figures.similarity_histograms, _answers().iloc[:0], "at least one answer"),
        (figures.similarity_histograms, _answers().drop(columns="right"), "right is missing"),
        (figures.oscr_curves, _curves().query("curve == 'risk'"), "rows of the curve 'DIR'"),
        (figures.dir_against_far, _curves().drop(columns="resolved"), "resolved is missing"),
        (threshold_figures.threshold_against_gallery, _growth().iloc[:0], "at least one gallery size"),
        (threshold_figures.false_accepts_against_gallery, _growth().drop(columns="n"), "n is missing"),
        (lambda bins: threshold_figures.reliability_curve(bins, _bins()), _bins().iloc[:0], "at least one bin"),
    ],
)
def test_tables_without_content_are_refused(
    draw: Callable[[pd.DataFrame], go.Figure], table: pd.DataFrame, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        draw(table)
