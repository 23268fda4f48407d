import json

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from workbench.report import figures
from workbench.report.published import published_identification

HOSTILE = "<img src=x onerror=window.hacked=1>"


def _curves(name: str = "ours") -> pd.DataFrame:
    ours = {"series": name, "baseline": False, "rank": [1, 2, 3], "value": [0.25, 0.5, 0.75]}
    intervals = {"low": [0.125, np.nan, 0.5], "high": [0.5, np.nan, 0.875]}
    chance = {"series": "chance", "baseline": True, "rank": [1, 3], "value": [0.1, 0.2], "low": np.nan, "high": np.nan}
    return pd.concat([pd.DataFrame(ours | intervals), pd.DataFrame(chance)], ignore_index=True).assign(n=1234)


def _pairs(cameras: tuple[str, ...] = ("1", "2")) -> pd.DataFrame:
    rows = [
        (asked, searched, 0 if asked == searched else 7, np.nan if asked == searched else 0.25 + 0.5 * (asked == "1"))
        for searched in cameras
        for asked in cameras
    ]
    return pd.DataFrame(rows, columns=["query_camera", "gallery_camera", "num_queries", "rank-1"])


def _crossed(name: str = "tuned") -> pd.DataFrame:
    rows = [
        (name, "drawn", 0.5, 100),
        (name, "real", 0.25, 83),
        ("untuned", "drawn", 0.125, 100),
        ("untuned", "real", 0.1, 83),
    ]
    frame = pd.DataFrame(rows, columns=["embedder", "data", "value", "n"])
    return frame.assign(low=frame["value"] - 0.05, high=frame["value"] + 0.05)


def _every_figure(name: str) -> list[go.Figure]:
    return [
        figures.cmc_curves(_curves(name), name),
        figures.camera_pairs(_pairs((name, "2")), name),
        figures.cross_matrix(_crossed(name), name),
    ]


@pytest.mark.parametrize("figure", _every_figure("plain"))
def test_every_figure_says_what_it_shows(figure: go.Figure) -> None:
    assert figure.layout.title.text.startswith("<b>")
    assert "plain" in figure.layout.title.subtitle.text
    assert "n = " in figure.layout.title.subtitle.text
    assert figure.layout.xaxis.title.text
    assert figure.layout.yaxis.title.text


@pytest.mark.parametrize("figure", _every_figure(HOSTILE))
def test_names_from_data_are_escaped(figure: go.Figure) -> None:
    text = json.dumps(figure.to_plotly_json(), default=lambda array: np.asarray(array, dtype=object).tolist())
    assert "<img" not in text
    assert "&lt;img" in text


def test_curve_has_every_rank_and_bars_only_where_there_is_an_interval() -> None:
    curve, marks, chance = figures.cmc_curves(_curves()).data
    assert (list(curve.x), list(curve.y)) == ([1, 2, 3], [0.25, 0.5, 0.75])
    assert (list(marks.x), list(marks.y)) == ([1, 3], [0.25, 0.75])
    assert list(marks.error_y.array) == [0.25, 0.125]
    assert list(marks.error_y.arrayminus) == [0.125, 0.25]
    assert chance.line.dash != "solid"
    assert curve.line.dash == "solid"
    assert chance.line.color != curve.line.color
    assert [trace.showlegend is not False for trace in (curve, marks, chance)] == [True, False, True]


def test_curve_needs_no_intervals_and_no_baselines() -> None:
    bare = _curves()[["series", "rank", "value", "n"]]
    curve, chance = figures.cmc_curves(bare).data
    assert curve.line.dash == chance.line.dash == "solid"
    with pytest.raises(ValueError, match="at least one point"):
        figures.cmc_curves(bare.head(0))
    with pytest.raises(ValueError, match="rank is missing"):
        figures.cmc_curves(bare.drop(columns="rank"))


def test_camera_pairs_stand_in_their_cells_with_n() -> None:
    figure = figures.camera_pairs(_pairs())
    (cells,) = figure.data
    # rows ask, columns are searched
    np.testing.assert_array_equal(cells.z, [[np.nan, 0.75], [0.25, np.nan]])
    written = {(note.x, note.y): note.text for note in figure.layout.annotations}
    assert written == {
        (1, 0): "<b>75.0</b><br>n = 7",
        (0, 1): "<b>25.0</b><br>n = 7",
        (0, 0): "–",
        (1, 1): "–",
    }
    assert list(figure.layout.yaxis.ticktext) == ["1", "2"]
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1], "the first camera on top"
    assert "Best: 1 in 2, 75.0%; worst: 2 in 1, 25.0%" in figure.layout.title.subtitle.text.replace("<br>", " ")


def test_many_cameras_are_told_by_colour_and_hovering() -> None:
    figure = figures.camera_pairs(_pairs(tuple(str(number) for number in range(1, 21))))
    assert not figure.layout.annotations
    assert "n = 7" in figure.data[0].customdata[0][1]


def test_pairs_that_nobody_asked_are_still_drawn() -> None:
    figure = figures.camera_pairs(_pairs(("1",)))
    assert [note.text for note in figure.layout.annotations] == ["–"]
    with pytest.raises(ValueError, match="Wanted each pair once, found '1' with '2' twice"):
        figures.camera_pairs(pd.concat([_pairs(), _pairs().query("query_camera == '1' and gallery_camera == '2'")]))
    with pytest.raises(ValueError, match="at least one cell"):
        figures.camera_pairs(_pairs().head(0))


def test_matrix_keeps_the_order_and_shows_intervals() -> None:
    figure = figures.cross_matrix(_crossed(), "protocol")
    np.testing.assert_array_equal(figure.data[0].z, [[0.5, 0.25], [0.125, 0.1]])
    assert list(figure.layout.yaxis.ticktext) == ["tuned", "untuned"]
    assert list(figure.layout.xaxis.ticktext) == ["drawn", "real"]
    texts = [note.text for note in figure.layout.annotations]
    assert texts[0] == "<b>50.0</b><br>45.0 to 55.0"
    subtitle = figure.layout.title.subtitle.text.replace("<br>", " ")
    assert "drawn: n = 100; real: n = 83 queries" in subtitle
    single = figures.cross_matrix(_crossed().head(1))
    assert len(single.layout.annotations) == 1


def test_text_is_light_on_dark_cells_alone() -> None:
    colours = [note.font.color for note in figures.cross_matrix(_crossed()).layout.annotations]
    assert colours == ["#ffffff", "#1f2328", "#1f2328", "#1f2328"]


def test_published_results_keep_their_conditions() -> None:
    table = published_identification()
    assert len(table) == 6
    row = table.set_index("setting").loc["feature_dim=2048"]
    # NVIDIA's model card of ReIdentificationNet
    assert list(row[["mAP", "rank-1", "rank-5", "rank-10"]]) == [0.939, 0.953, 0.980, 0.984]
    assert table["conditions"].str.contains("re-ranking").all()
    assert table["system"].tolist() == ["NVIDIA ReIdentificationNet, ResNet50"] * 6
