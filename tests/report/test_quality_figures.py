import json

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from scipy.stats import binom

from workbench.report import quality_figures as figures

HOSTILE = "<img src=x onerror=window.hacked=1>"


def _hubs(name: str = "mug") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "label": [name, "cup", "jar", "tin"],
            "occurrences": [6.0, 1.5, 0.5, 0.0],
            "wrong_wins": [0.0, 1.0, 2.5, 0.5],
        }
    )


def _gains(name: str = "mug") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "label": ["cup", name, "jar"],
            "gain": [-0.1, 0.25, 0.125],
            "low": [-0.2, 0.0, 0.0],
            "high": [0.0, 0.5, 0.25],
            "n": [10, 20, 30],
            "has_another": pd.array([False, True, None], dtype="boolean"),
        }
    )


def _conventions(name: str = "vote knn:5", note: str = "no number: no cameras") -> pd.DataFrame:
    rows = [
        ("headline", "mAP", 0.5, 0.4, 0.6, 100, 0.0, True, ""),
        (name, "mAP", 0.475, 0.375, 0.575, 90, -2.5, False, ""),
        ("no junk rule", "mAP", np.nan, np.nan, np.nan, 0, np.nan, False, note),
        ("headline", "rank-1", 0.75, 0.7, 0.8, 100, 0.0, True, ""),
        (name, "rank-1", 0.7504, 0.7, 0.8, 90, 0.04, False, ""),
        ("no junk rule", "rank-1", np.nan, np.nan, np.nan, 0, np.nan, False, note),
    ]
    columns = ["convention", "metric", "value", "low", "high", "n", "difference_points", "is_headline", "note"]
    return pd.DataFrame(rows, columns=columns)


def _every_figure(name: str) -> list[go.Figure]:
    return [
        figures.occurrence_histogram(_hubs(name), 2, 4, name),
        figures.wrong_win_share(_hubs().assign(label=name), name),
        figures.gain_per_class(_gains(name), name),
        figures.compare_conventions(_conventions(name, name), name, name),
    ]


@pytest.mark.parametrize("figure", _every_figure("plain"))
def test_every_figure_says_what_it_shows(figure: go.Figure) -> None:
    assert figure.layout.title.text.startswith("<b>")
    assert "plain" in figure.layout.title.subtitle.text
    assert "n = " in figure.layout.title.subtitle.text
    assert any(unit in figure.layout.xaxis.title.text for unit in ("%", "points", "queries"))
    assert figure.layout.yaxis.title.text


@pytest.mark.parametrize("figure", _every_figure(HOSTILE))
def test_names_from_data_are_escaped(figure: go.Figure) -> None:
    text = json.dumps(figure.to_plotly_json(), default=lambda array: np.asarray(array, dtype=object).tolist())
    assert "<img" not in text
    assert "&lt;img" in text


def test_histogram_counts_references_beside_chance() -> None:
    bars, chance = figures.occurrence_histogram(_hubs(), 2, 4).data
    assert list(bars.x) == [0, 1, 2, 3, 4, 5, 6]
    # A count with a half belongs to the bar on its right, and each reference to one bar.
    assert list(bars.y) == [1, 1, 1, 0, 0, 0, 1]
    assert list(chance.y) == pytest.approx([4 * binom.pmf(count, 4, 0.5) for count in range(7)])
    assert chance.line.dash == "dot"
    assert "the greatest hub (mug) by 6; 1 references by none" in _said(figures.occurrence_histogram(_hubs(), 2, 4))


def test_wide_histogram_has_few_bars_that_hold_all() -> None:
    table = pd.DataFrame({"occurrences": np.arange(1000.0), "label": "x"})
    bars, chance = figures.occurrence_histogram(table, 10, 5000).data
    assert len(bars.x) <= 60
    assert sum(bars.y) == 1000
    assert bars.customdata[1] == "17 to 33"
    assert bars.y[1] == 17
    assert sum(chance.y) == pytest.approx(1000)


def test_wrong_wins_are_shared_out_worst_first() -> None:
    figure = figures.wrong_win_share(_hubs())
    curve, equal = figure.data
    assert list(curve.x) == [0, 0.25, 0.5, 0.75]
    assert list(curve.y) == pytest.approx([0, 2.5 / 4, 3.5 / 4, 1])
    assert [row[1] for row in curve.customdata] == ["", "jar", "cup", "tin"]
    assert equal.line.dash == "dot"
    assert [note.text for note in figure.layout.annotations] == ["half: 1 of 4 references"]
    assert "n = 4 wrong answers by 3 of 4 references" in _said(figure)


def test_gains_stand_greatest_first_with_intervals_in_points() -> None:
    figure = figures.gain_per_class(_gains())
    has, without = figure.data
    assert (list(has.x), list(has.y)) == ([25, 12.5], [1, 2])
    assert (list(has.error_x.array), list(has.error_x.arrayminus)) == ([25, 12.5], [25, 12.5])
    assert (list(without.x), list(without.y)) == ([-10], [3])
    assert without.marker.symbol != has.marker.symbol
    assert list(figure.layout.yaxis.ticktext) == ["mug", "jar", "cup"]
    assert figure.layout.showlegend
    two = figures.gain_per_class(_gains(), top=2)
    assert list(two.layout.yaxis.ticktext) == ["mug", "jar"]
    assert "The 2 greatest of 3 classes, n = 20 to 30 queries a class" in _said(two)
    assert not two.layout.showlegend


def test_conventions_stand_in_a_panel_a_metric() -> None:
    figure = figures.compare_conventions(_conventions(), "title")
    head, changed, head_of_rank, changed_of_rank = figure.data
    assert (list(head.x), list(head.y), list(head.text)) == ([0.5], [1], ["50.0%"])
    assert (list(changed.x), list(changed.y), list(changed.text)) == ([0.475], [2], ["-2.5"])
    assert list(changed.error_x.array) == pytest.approx([0.1])
    assert (list(head_of_rank.x), list(changed_of_rank.text)) == ([0.75], ["0.0"])
    assert head.marker.symbol != changed.marker.symbol
    assert (head.xaxis or "x", head_of_rank.xaxis) == ("x", "x2")
    assert [note.text for note in figure.layout.annotations] == ["mAP", "rank-1", "no number", "no number"]
    assert [note.y for note in figure.layout.annotations][2:] == [3, 3]
    assert "no junk rule: no number: no cameras." in _said(figure)
    assert _said(figure).count("no cameras") == 1
    assert figure.layout.xaxis.range[0] < 0.375
    assert figure.layout.xaxis.range[1] > 0.6
    # The dotted lines stand at the headline's values.
    assert [(line.x0, line.xref) for line in figure.layout.shapes] == [(0.5, "x"), (0.75, "x2")]


def test_a_headline_without_a_number_leaves_the_others() -> None:
    table = _conventions()
    table.loc[table["is_headline"], ["value", "low", "high", "difference_points"]] = np.nan
    table.loc[~table["is_headline"], "difference_points"] = np.nan
    figure = figures.compare_conventions(table, "title")
    assert [list(trace.text) for trace in figure.data] == [[], ["47.5%"], [], ["75.0%"]]
    assert len(figure.layout.shapes) == 0


def test_errors_say_what_is_wanted() -> None:
    with pytest.raises(ValueError, match="occurrences is missing"):
        figures.occurrence_histogram(_hubs().drop(columns="occurrences"), 2, 4)
    with pytest.raises(ValueError, match="at least one reference"):
        figures.occurrence_histogram(_hubs().head(0), 2, 4)
    with pytest.raises(ValueError, match="at least one wrong answer"):
        figures.wrong_win_share(_hubs().assign(wrong_wins=0.0))
    with pytest.raises(ValueError, match="at least one class"):
        figures.gain_per_class(_gains().head(0))
    with pytest.raises(ValueError, match="at least one convention with a number"):
        figures.compare_conventions(_conventions().assign(value=np.nan), "title")


def _said(figure: go.Figure) -> str:
    return " ".join(figure.layout.title.subtitle.text.replace("<br>", " ").split())
