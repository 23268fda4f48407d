import numpy as np
import pandas as pd
import pytest

from workbench.report.stress_figures import lead_curves, stress_curves


def _table() -> pd.DataFrame:
    rows = []
    for embedder, top in (("tuned <b>", 0.8), ("untuned", 0.2)):
        for kind, severities in (("blur", (0, 1, 2)), ("size", (np.inf, 48, 10)), ("jpeg", (np.inf, 50, 5))):
            for step, (severity, verdict) in enumerate(zip(severities, ("clean", "kept", "lost"), strict=True)):
                value = top - 0.1 * step
                rows.append((embedder, kind, severity, value, value - 0.05, value + 0.1, 120, 0.02, 0.9 * top, verdict))
    columns = ["embedder", "kind", "severity", "value", "low", "high", "n", "chance", "threshold", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def test_a_panel_a_kind_and_a_curve_an_embedder_with_intervals_and_verdicts() -> None:
    figure = stress_curves(_table(), "the rule", quantity="mAP")
    assert [note.text for note in figure.layout.annotations] == [
        "<b>Out of focus</b>",
        "<b>Object size</b>",
        "<b>JPEG</b>",
    ]
    assert len(figure.data) == 6
    tuned, untuned = figure.data[:2]
    assert tuned.name == "tuned &lt;b&gt;"
    assert list(tuned.x) == [0, 1, 2]
    assert list(tuned.y) == pytest.approx([0.8, 0.7, 0.6])
    assert list(tuned.error_y.array) == pytest.approx([0.1] * 3)
    assert list(tuned.error_y.arrayminus) == pytest.approx([0.05] * 3)
    assert list(tuned.marker.symbol) == ["circle", "circle", "x-thin"]
    assert list(untuned.marker.symbol) == ["square", "square", "x-thin"]
    assert tuned.line.dash != untuned.line.dash
    assert [trace.showlegend for trace in figure.data] == [True, True, False, False, False, False]
    assert tuned.customdata[1][0] == "1 %"
    assert tuned.customdata[0][0] == "clean"
    lines = sorted({float(shape.y0) for shape in figure.layout.shapes})
    assert lines == pytest.approx([0.02, 0.72])
    subtitle = figure.layout.title.subtitle.text.replace("<br>", " ")
    assert "the rule. n = 120 queries at each point" in subtitle
    assert figure.layout.yaxis.title.text == "mAP (%)"


def test_worse_is_to_the_right_and_clean_without_a_number_stands_on_the_left() -> None:
    figure = stress_curves(_table())
    blur, size, jpeg = figure.layout.xaxis, figure.layout.xaxis2, figure.layout.xaxis3
    assert blur.range[0] < 0 < 2 < blur.range[1]
    assert size.type == "log"
    assert size.range[0] > np.log10(48) > np.log10(10) > size.range[1]
    assert jpeg.range[0] > 50 > 5 > jpeg.range[1]
    assert list(size.ticktext) == ["10", "48", "clean"]
    assert figure.data[2].x[0] == size.tickvals[2] > 48
    assert figure.data[4].x[0] == jpeg.tickvals[2] > 50
    assert size.title.text == "longer side (px)"


def test_every_panel_keeps_its_place_with_one_kind_or_ten() -> None:
    one = stress_curves(_table().query("kind == 'blur'"))
    assert len(one.data) == 2
    many = pd.concat(
        [
            _table().query("kind == 'blur'").assign(kind=kind)
            for kind in ("blur", "motion", "fisheye", "rotation", "low_light")
        ]
    )
    figure = stress_curves(many)
    assert len(figure.data) == 10
    assert len({trace.xaxis for trace in figure.data}) == 5
    assert figure.layout.height > one.layout.height


def test_the_lead_is_drawn_around_zero_with_the_limit() -> None:
    rows = [
        ("blur", 0, 0.3, 0.2, 0.4, 90),
        ("blur", 1, -0.05, -0.1, 0.01, 90),
        ("size", np.inf, 0.3, 0.2, 0.4, 90),
        ("size", 24, 0.1, 0, 0.2, 90),
    ]
    table = pd.DataFrame(rows, columns=["kind", "severity", "value", "low", "high", "n"])
    figure = lead_curves(table, {"blur": 1.0, "size": np.nan}, "tuned less untuned", quantity="mAP")
    blur, size = figure.data
    assert list(blur.x) == [0, 1]
    assert list(blur.y) == [0.3, -0.05]
    assert list(blur.error_y.array) == pytest.approx([0.1, 0.06])
    assert list(blur.error_y.arrayminus) == pytest.approx([0.1, 0.05])
    assert size.x[0] > 24
    lines = [(shape.x0, shape.y0) for shape in figure.layout.shapes]
    assert [place for place in lines if place[1] == 0 and place[0] == 0] == [(0, 0), (0, 0)]
    assert [shape.x0 for shape in figure.layout.shapes if shape.x0 == shape.x1] == [1.0]
    assert figure.layout.yaxis.range[0] < -0.1 < 0.4 < figure.layout.yaxis.range[1]
    assert "tuned less untuned" in figure.layout.title.subtitle.text
    assert "Lead in mAP" in figure.layout.title.text


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one corruption"):
        stress_curves(_table().iloc[:0])
    with pytest.raises(ValueError, match="threshold is missing"):
        stress_curves(_table().drop(columns="threshold"))
    with pytest.raises(ValueError, match="at least one corruption"):
        lead_curves(pd.DataFrame(columns=["kind", "severity", "value", "low", "high", "n"]), {})
