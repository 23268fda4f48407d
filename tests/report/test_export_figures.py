import numpy as np
import pandas as pd
import pytest

from workbench.report.export_figures import change_intervals, cosine_shares


def test_a_curve_a_series_of_the_images_that_are_as_far_with_limits() -> None:
    figure = cosine_shares(
        {"fp16 <b>": np.array([1.0, 0.9999, 0.999, np.nan]), "int8": np.array([0.9, 0.5])},
        {"fp16": 0.9999},
        "ViT against ONNX",
    )
    first, second = figure.data
    assert first.name == "fp16 &lt;b&gt;"
    assert list(first.x) == pytest.approx([1e-3, 1e-4, 1e-9])
    assert list(first.y) == pytest.approx([1 / 3, 2 / 3, 1])
    assert list(second.x) == pytest.approx([0.5, 0.1])
    assert list(second.y) == [0.5, 1]
    assert (first.line.color, first.line.dash) != (second.line.color, second.line.dash)
    assert [shape.x0 for shape in figure.layout.shapes] == pytest.approx([1e-4])
    (note,) = figure.layout.annotations
    assert note.text == "fp16: 0.9999"
    assert note.x == pytest.approx(-4)  # on a log axis a note stands at the exponent
    assert figure.layout.xaxis.range[0] < -9
    assert figure.layout.xaxis.range[1] > np.log10(0.5)
    subtitle = figure.layout.title.subtitle.text.replace("<br>", " ")
    assert "ViT against ONNX. fp16 &lt;b&gt;: n = 3, 1 more without a direction, min 0.999000000" in subtitle


def test_a_long_series_is_thinned_and_keeps_its_worst_image() -> None:
    cosines = np.linspace(0.99, 0.9999, 50_000)
    (curve,) = cosine_shares({"fp16": cosines}).data
    assert len(curve.x) <= 400
    assert (curve.x[0], curve.y[0]) == (pytest.approx(0.01), pytest.approx(1 / 50_000))
    assert (curve.x[-1], curve.y[-1]) == (pytest.approx(1e-4), 1.0)
    assert curve.mode == "lines"


@pytest.mark.parametrize(
    ("cosines", "limits", "message"),
    [
        ({}, {}, "found none"),
        ({"a": np.array([np.nan])}, {}, "at least one that is a number"),
        ({"a": np.array([1.5])}, {}, "from -1 to 1 for 'a'"),
        ({"a": np.array([0.5])}, {"a": 1.0}, "below 1 for 'a', found 1.0"),
    ],
)
def test_bad_cosines_are_named(cosines: dict[str, np.ndarray], limits: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cosine_shares(cosines, limits)


def _changes() -> pd.DataFrame:
    rows = [("accuracy@1", -0.002, -0.006, 0.002, 3000), ("mAP", 0.001, -0.012, 0.014, 2900)]
    return pd.DataFrame(rows, columns=["quantity", "value", "low", "high", "n"])


def test_changes_are_drawn_in_points_with_their_intervals_and_the_limit() -> None:
    figure = change_intervals(_changes(), 0.01, "paired")
    (dots,) = figure.data
    assert list(dots.x) == pytest.approx([-0.2, 0.1])
    assert list(dots.y) == [1, 2]
    assert list(dots.error_x.array) == pytest.approx([0.4, 1.3])
    assert list(dots.error_x.arrayminus) == pytest.approx([0.4, 1.3])
    assert [shape.x0 for shape in figure.layout.shapes] == pytest.approx([0, -1])
    assert list(figure.layout.yaxis.ticktext) == ["accuracy@1", "mAP"]
    low, high = figure.layout.xaxis.range
    assert low < -1.2
    assert high > 1.4
    assert not dots.showlegend
    subtitle = figure.layout.title.subtitle.text.replace("<br>", " ")
    assert "n = 2,900 to 3,000 queries" in subtitle
    assert "bound for 0" not in subtitle


def test_exports_stand_beside_each_other_and_a_bound_is_said_to_be_one() -> None:
    none = _changes().assign(value=0.0, low=-0.06, high=0.06)
    figure = change_intervals(pd.concat([_changes().assign(export="int8"), none.assign(export="<i>")]))
    int8, other = figure.data
    assert (int8.name, other.name) == ("int8", "&lt;i&gt;")
    assert list(int8.y) == [0.875, 1.875]
    assert list(other.y) == [1.125, 2.125]
    assert int8.marker.symbol != other.marker.symbol
    assert "the bar is the bound for 0" in figure.layout.title.subtitle.text.replace("<br>", " ")
    assert len(figure.layout.shapes) == 1


def test_changes_need_their_columns_and_a_row() -> None:
    with pytest.raises(ValueError, match="low is missing"):
        change_intervals(_changes().drop(columns="low"))
    with pytest.raises(ValueError, match="at least one change"):
        change_intervals(_changes().iloc[:0])
