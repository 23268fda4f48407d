import numpy as np
import pandas as pd
import pytest

from workbench.report.benchmark_figures import coverage_dots, growth_lines, memory_bars, ratio_bars


def _ratios() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "contender": ["product", "workbench", "<b>fast", "slow"],
            "ours": [False, True, False, False],
            "ratio": [1.0, 2.0, 0.5, 1234.0],
            "low": [1.0, 1.5, 0.4, 1000.0],
            "high": [1.0, 3.0, 0.6, 2000.0],
            "repetitions": [5, 5, 5, 2],
            "agrees": [None, True, False, True],
            "difference": [np.nan, 0.0, 0.25, 1e-9],
        }
    )


def test_ratios_with_their_range_ours_marked_and_a_wrong_answer_hatched() -> None:
    figure = ratio_bars(_ratios(), "Re-ID", "product", "10 queries", limits={"workbench": 2.5})
    ours, others, limit, texts = figure.data
    assert list(ours.y) == ["workbench"]
    assert list(ours.x) == [2.0]
    assert (list(ours.error_x.arrayminus), list(ours.error_x.array)) == ([0.5], [1.0])
    assert list(others.y) == ["product", "&lt;b&gt;fast", "slow"]
    assert list(others.marker.pattern.shape) == ["", "/", ""]
    assert others.customdata[0][3] == "nothing to compare"
    assert others.customdata[1][3] == "DIFFERS from ours: by at most 2.5e-01"
    assert others.customdata[2][3] == "agrees with ours: by at most 1.0e-09"
    assert ours.marker.color != others.marker.color
    assert (list(limit.x), list(limit.y)) == ([2.5], ["workbench"])
    assert list(texts.text) == ["1", "2", "0.5", "1,234"]
    assert figure.layout.xaxis.type == "log"
    assert 10 ** figure.layout.xaxis.range[0] < 0.4 < 2000 < 10 ** figure.layout.xaxis.range[1]
    assert list(figure.layout.yaxis.categoryarray) == ["slow", "&lt;b&gt;fast", "workbench", "product"]
    subtitle = figure.layout.title.subtitle.text.replace("<br>", " ")
    assert "10 queries" in subtitle
    assert "2 to 5 rounds" in subtitle
    assert "Hatched: its answer differs from ours (&lt;b&gt;fast)" in subtitle
    right = ratio_bars(_ratios().drop(index=2), "Re-ID", "product")
    assert "All answers that can be compared agree" in right.layout.title.subtitle.text.replace("<br>", " ")


def test_memory_that_did_not_fit_is_said() -> None:
    table = pd.DataFrame(
        {
            "contender": ["product", "workbench", "dense"],
            "ours": [False, True, False],
            "above_mib": [0.0, 120.4, np.nan],
        }
    )
    figure = memory_bars(table, "Memory", "tiny", limit_mib=300)
    assert list(figure.data[0].x) == [120.4]
    assert list(figure.data[-1].text) == ["0", "120", "did not fit"]
    (annotation,) = figure.layout.annotations
    assert annotation.text == "wanted: below 300"
    assert annotation.x == pytest.approx(np.log10(300))
    assert "1 run" in figure.layout.title.subtitle.text.replace("<br>", " ")


def test_lines_end_where_a_contender_was_left_out() -> None:
    table = pd.DataFrame(
        {
            "contender": ["product", "workbench", "slow", "workbench", "product"],
            "ours": [False, True, False, True, False],
            "num_rows": [1000, 1000, 1000, 2000, 2000],
            "seconds": [0.1, 0.2, 9.0, 0.4, 0.2],
            "ratio": [1.0, 2.0, 90.0, 2.0, 1.0],
        }
    )
    figure = growth_lines(table, "Growth", "100 queries")
    lines = {trace.name: trace for trace in figure.data}
    assert list(lines["slow"].x) == [1000]
    assert list(lines["workbench"].y) == [0.2, 0.4]
    assert lines["workbench"].line.width > lines["slow"].line.width
    assert len({(trace.line.dash, trace.marker.symbol) for trace in figure.data}) == 3
    assert list(figure.layout.xaxis.ticktext) == ["1,000", "2,000"]
    assert (figure.layout.xaxis.type, figure.layout.yaxis.type) == ("log", "log")
    assert "n = 2 sizes" in figure.layout.title.subtitle.text
    as_ratio = growth_lines(table, "Growth", quantity="ratio", rows="images (count)")
    assert as_ratio.layout.yaxis.title.text == "time as a ratio to the base (log scale)"
    assert as_ratio.layout.xaxis.title.text == "images (count), log scale"


def test_dots_of_coverage_lie_by_classes_and_the_band_is_counted() -> None:
    table = pd.DataFrame(
        {
            "num_classes": [20, 20, 315],
            "accuracy": [0.9, 0.97, 0.9],
            "class_sizes": ["equal", "long tail", "equal"],
            "draws": 10,
            "average": "micro",
            "covered": [0.95, 0.92, 0.965],
            "low": [0.93, 0.90, 0.95],
            "high": [0.96, 0.94, 0.98],
            "n": 1000,
        }
    )
    figure = coverage_dots(table, "Coverage", "drawn worlds")
    equal, tail = figure.data
    assert list(equal.y) == [0.95, 0.965]
    assert list(tail.error_y.arrayminus) == pytest.approx([0.02])
    assert [round(x) for x in equal.x] == [0, 1]
    assert -0.5 < equal.x[0] < tail.x[0] < 0.5
    assert list(figure.layout.xaxis.ticktext) == ["20", "315"]
    subtitle = figure.layout.title.subtitle.text.replace("<br>", " ")
    assert "2 of 3 dots lie in the band of 93% to 97%" in subtitle
    assert "n = 1,000 trials" in subtitle
    assert (figure.layout.shapes[0].y0, figure.layout.shapes[0].y1) == (0.93, 0.97)


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one contender"):
        ratio_bars(_ratios()[:0], "t", "b")
    with pytest.raises(ValueError, match="above 0"):
        ratio_bars(_ratios().assign(low=0.0), "t", "b")
    with pytest.raises(ValueError, match="missing"):
        memory_bars(_ratios(), "t")
    with pytest.raises(ValueError, match="at least one measured point"):
        growth_lines(pd.DataFrame(columns=["contender", "ours", "num_rows", "seconds"]), "t")
    with pytest.raises(ValueError, match="missing"):
        coverage_dots(_ratios(), "t")
