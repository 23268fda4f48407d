import json
import math

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io as pio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.report import figures
from workbench.report.published import published_curves

HOSTILE = "<img src=x onerror=window.hacked=1>"


def _ours(series: str = "ours") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "shots": [10, 1, "all"],
            "series": series,
            "value": [0.5, 0.3, 0.75],
            "low": [0.375, 0.25, 0.5],
            "high": [0.75, 0.375, 0.875],
            "n": 1234,
        }
    )


def _rows(label: str = "milk", count: int = 3) -> pd.DataFrame:
    labels = [label, *(f"class {number}" for number in range(1, count))]
    values = [0.5, 0.25, *[0.75] * (count - 2)]
    frame = pd.DataFrame({"label": labels, "value": values})
    return frame.assign(low=frame["value"] - 0.125, high=frame["value"] + 0.25, n=40)


def _counts(label: str = "007") -> pd.DataFrame:
    return pd.DataFrame({"label": [label, "b", "b"], "split": ["train", "train", "val"], "images": [3, 20, 5]})


def every_figure(name: str) -> dict[str, go.Figure]:
    published = pd.DataFrame({"system": [name], "shots": [1], "value": [0.5], "condition": [name]})
    many = pd.DataFrame({"label": [f"{name} {n}" for n in range(150)], "split": name, "images": range(150)})
    return {
        "accuracy_against_shots": figures.accuracy_against_shots(_ours(name), published, 0.1, name, metric=name),
        "class_balance": figures.class_balance(_counts(name), name, guideline=(20, 30)),
        "class_balance_many": figures.class_balance(many, name, guideline=(20, 30)),
        "measure_histogram": figures.measure_histogram([1.0, 2.0, 3.0], name, name, 2, subtitle=name),
        "interval_dots": figures.interval_dots(_rows(name), name, name, chance=0.1),
        "per_class_accuracy": figures.per_class_accuracy(_rows(name), name),
        "per_class_accuracy_many": figures.per_class_accuracy(_rows(name, 150), name),
    }


@pytest.mark.parametrize(("name", "figure"), every_figure("plain").items())
def test_every_figure_says_what_it_shows(name: str, figure: go.Figure) -> None:
    assert figure.layout.title.text.startswith("<b>")
    assert "n = " in figure.layout.title.subtitle.text
    assert "plain" in figure.layout.title.subtitle.text
    titles = figure.layout.xaxis.title.text, figure.layout.yaxis.title.text
    assert any("(" in title for title in titles if title)
    assert titles[0]
    assert name == "interval_dots" or titles[1]


@pytest.mark.parametrize("figure", every_figure(HOSTILE).values())
def test_names_from_data_are_escaped(figure: go.Figure) -> None:
    text = json.dumps(figure.to_plotly_json(), default=lambda array: np.asarray(array, dtype=object).tolist())
    assert "<img" not in text
    assert "&lt;img" in text


def test_error_bars_are_the_ends_of_the_interval() -> None:
    figure = figures.accuracy_against_shots(_ours())
    (trace,) = figure.data
    values = [0.3, 0.5, None, 0.75]
    for drawn, wanted in (
        (trace.y, values),
        (trace.error_y.array, [0.075, 0.25, None, 0.125]),
        (trace.error_y.arrayminus, [0.05, 0.125, None, 0.25]),
    ):
        assert [None if math.isnan(value) else round(value, 9) for value in drawn] == wanted
    assert list(trace.x) == [1.0, 10.0, None, 18.0]
    assert figure.layout.xaxis.ticktext == ("1", "2", "3", "5", "10", "all")
    assert "n = 1,234 queries" in figure.layout.title.subtitle.text


def test_only_all_shots_can_be_drawn() -> None:
    ours = _ours().tail(1)
    figure = figures.accuracy_against_shots(ours)
    assert figure.layout.xaxis.ticktext == ("all",)
    assert [value for value in figure.data[0].y if not math.isnan(value)] == [0.75]


def test_published_curves_are_dashed_and_state_their_conditions_once() -> None:
    figure = figures.accuracy_against_shots(_ours(), published_curves())
    ours, dino, fan, klip = figure.data
    assert ours.line.dash is None
    assert dino.line.dash == fan.line.dash == "dash"
    assert dino.y[0] == 0.8490
    assert fan.y[0] == 0.7718
    assert klip.mode == "markers"
    said = " ".join(figure.layout.title.subtitle.text.replace("<br>", " ").split())
    assert said.count("180 queries per class") == 1
    assert "CAPG-GP / Grozi-120 / RP2K (all categories), references: one training image" in said


def test_chance_is_a_line_with_its_value() -> None:
    figure = figures.accuracy_against_shots(_ours(), chance=1 / 81)
    assert figure.layout.shapes[0].y0 == 1 / 81
    assert figure.layout.annotations[0].text == "chance 1.2%"


def test_classes_are_sorted_and_numbers_stay_names() -> None:
    figure = figures.class_balance(_counts(), guideline=(20, 30))
    assert figure.layout.yaxis.ticktext == ("b", "007")
    train, val = figure.data
    assert list(train.x) == [20, 3]
    assert list(val.x) == [5, 0]
    assert "2 classes, n = 28 images, 3 to 25 per class" in figure.layout.title.subtitle.text
    assert (figure.layout.shapes[0].x0, figure.layout.shapes[0].x1) == (20, 30)


def test_two_thousand_classes_become_a_ranked_curve() -> None:
    counts = pd.DataFrame({"label": [f"sku {n}" for n in range(2000)], "split": "train", "images": np.arange(2000)})
    figure = figures.class_balance(counts)
    assert list(figure.data[0].x[:2]) == [1, 2]
    assert list(figure.data[0].y[:2]) == [1999, 1998]
    assert figure.data[0].customdata[0][0] == "sku 1999"
    assert figure.layout.height < 600


def test_histogram_counts_every_value_once_and_says_what_lies_below() -> None:
    figure = figures.measure_histogram([1, 2, 3, 4, math.nan], "sharpness", "px", 2.5, n=6)
    assert sum(figure.data[0].y) == 4
    said = figure.layout.title.subtitle.text
    assert "n = 6 images, median 2.5 px. 2 could not be measured. 2 (50.0%) lie below the threshold of 2.5 px." in said
    assert figure.layout.xaxis.title.text == "sharpness (px)"
    assert figure.layout.shapes[0].x0 == 2.5


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200))
def test_histogram_loses_no_value(values: list[float]) -> None:
    assert sum(figures.measure_histogram(values, "measure", "").data[0].y) == len(values)


def test_interval_dots_keep_the_order_and_mark_baselines() -> None:
    table = _rows().assign(baseline=[False, False, True])
    table.loc[2, ["low", "high"]] = math.nan
    figure = figures.interval_dots(table, "Galleries")
    result, baseline = figure.data
    assert list(result.x) == [0.5, 0.25]
    assert list(result.y) == [1, 2]
    assert list(result.error_x.array) == [0.25, 0.25]
    assert list(result.error_x.arrayminus) == [0.125, 0.125]
    assert baseline.marker.symbol == "diamond-open"
    assert baseline.customdata[0][1] == "no interval"
    assert figure.layout.yaxis.ticktext[0] == "milk"


def test_worst_class_comes_first_and_the_mean_is_macro() -> None:
    figure = figures.per_class_accuracy(_rows())
    assert list(figure.data[0].x) == [0.25, 0.5, 0.75]
    assert figure.layout.yaxis.ticktext == ("class 1", "milk", "class 2")
    assert figure.layout.shapes[0].x0 == 0.5
    assert "3 classes, n = 120 queries (40 per class)" in figure.layout.title.subtitle.text


def test_a_histogram_of_nothing_measured_says_so() -> None:
    figure = figures.measure_histogram([math.nan, math.nan], "blur", "px", math.nan)
    assert figure.data == ()
    assert "None of the 2 images could be measured" in figure.layout.title.subtitle.text


def test_wrong_tables_are_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match="low is missing"):
        figures.accuracy_against_shots(_ours().drop(columns="low"))
    with pytest.raises(ValueError, match="at least one measured point"):
        figures.accuracy_against_shots(_ours().iloc[:0])
    with pytest.raises(ValueError, match="'b' twice"):
        figures.class_balance(pd.DataFrame({"label": ["b", "b"], "split": "train", "images": [1, 2]}))
    for draw in (figures.per_class_accuracy, lambda table: figures.interval_dots(table, "title")):
        with pytest.raises(ValueError, match="found none"):
            draw(_rows().iloc[:0])


def test_notebooks_keep_the_mimetype_alone_and_nothing_is_shared() -> None:
    assert pio.renderers.default == "plotly_mimetype"
    assert pio.templates.default == "workbench"
    bundle = pio.renderers._build_mime_bundle(figures.class_balance(_counts()).to_dict())
    assert list(bundle) == ["application/vnd.plotly.v1+json"]
    assert bundle["application/vnd.plotly.v1+json"]["config"]["showSendToCloud"] is False
