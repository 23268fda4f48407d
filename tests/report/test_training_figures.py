import numpy as np
import pandas as pd
import pytest

from workbench.report import widgets
from workbench.report.training_figures import (
    images_before_after,
    interpolation_curve,
    learning_rates,
    training_curve,
    validation_curve,
)
from workbench.report.widgets import live_loss_curve


def _history(num_steps: int = 40) -> pd.DataFrame:
    steps = np.arange(1, num_steps + 1)
    rates = {f"learning_rate/{name}": steps * rate for name, rate in (("stem", 1e-5), ("block 0", 1e-5), ("top", 2e-4))}
    return pd.DataFrame({"step": steps, "loss": 100.0 - steps, **rates})


def test_the_strong_line_is_the_mean_of_the_last_steps() -> None:
    figure = training_curve(_history(), "loss", "Loss", "nats", "a recipe")
    every, smooth = figure.data
    assert list(every.y) == list(100.0 - np.arange(1, 41))
    assert smooth.name == "mean of the last 2 steps"
    assert list(smooth.y[:3]) == [99.0, 98.5, 97.5]
    assert "n = 40 steps" in figure.layout.title.subtitle.text
    assert "a recipe" in figure.layout.title.subtitle.text
    assert figure.layout.yaxis.title.text == "loss (nats)"


def test_a_long_history_is_thinned_and_its_mean_is_over_all_steps() -> None:
    figure = training_curve(_history(10_000), "loss", "Loss", "nats")
    assert len(figure.data[0].x) == 2000
    assert figure.data[1].y[-1] == pytest.approx(np.mean(100.0 - np.arange(9996 - 499, 9997)))


def test_blocks_with_one_rate_share_a_line() -> None:
    figure = learning_rates(_history())
    assert [trace.name for trace in figure.data] == ["stem to block 0 (2)", "top"]
    assert figure.data[1].y[9] == pytest.approx(2e-3)
    assert figure.layout.yaxis.type == "log"
    assert "n = 3 groups" in figure.layout.title.subtitle.text


def test_validation_draws_its_intervals_and_the_kept_step() -> None:
    table = pd.DataFrame({"step": [10, 20], "value": [0.5, 0.6], "low": [0.4, 0.5], "high": [0.7, 0.65], "n": [90, 90]})
    figure = validation_curve(table, "held out", chosen_step=20, chance=0.1)
    assert figure.data[0].error_y.array == pytest.approx([0.2, 0.05])
    assert figure.data[0].error_y.arrayminus == pytest.approx([0.1, 0.1])
    assert [line.x0 for line in figure.layout.shapes] == [20, 0]
    assert [note.text for note in figure.layout.annotations] == ["kept", "chance 10.0%"]
    assert "n = 90 images" in figure.layout.title.subtitle.text


def test_balancing_shows_both_counts_by_rank_with_names_escaped() -> None:
    counts = pd.DataFrame({"label": ["<b>", "big"], "before": [2, 50], "after": [20, 20]})
    figure = images_before_after(counts)
    assert [list(trace.y) for trace in figure.data] == [[50, 2], [20, 20]]
    assert [list(name) for name in figure.data[0].customdata] == [["big"], ["&lt;b&gt;"]]
    assert [trace.name for trace in figure.data] == ["before (52 in all)", "after (40 in all)"]


def test_a_line_a_question_over_the_share_of_the_weights() -> None:
    table = pd.DataFrame(
        {
            "share": [0.0, 1.0, 0.0, 1.0],
            "question": ["unseen <b>", "unseen <b>", "seen", "seen"],
            **{"value": [0.5, 0.7, 0.4, 0.9], "low": [0.4, 0.6, 0.3, 0.8], "high": [0.7, 0.75, 0.5, 1.0]},
            "n": [90, 90, 60, 60],
        }
    )
    figure = interpolation_curve(table, "a protocol")
    assert [trace.name for trace in figure.data] == ["unseen &lt;b&gt;", "seen"]
    assert [list(trace.y) for trace in figure.data] == [[0.5, 0.7], [0.4, 0.9]]
    assert figure.data[0].error_y.array == pytest.approx([0.2, 0.05])
    assert figure.data[0].error_y.arrayminus == pytest.approx([0.1, 0.1])
    assert list(figure.data[0].x) == pytest.approx([0, 1], abs=0.01)
    assert figure.data[0].x[0] != figure.data[1].x[0]  # side by side, the share itself is in the hover
    assert [row[0] for row in figure.data[1].customdata] == [0, 1]
    for look in ("marker.symbol", "line.dash", "line.color"):
        first, second = (trace[look] for trace in figure.data)
        assert first != second
    subtitle = figure.layout.title.subtitle.text.replace("<br>", " ")
    assert "a protocol." in subtitle
    assert "n = 60 to 90 queries" in subtitle
    assert "promises more than it keeps" in subtitle
    with pytest.raises(ValueError, match="at least one share"):
        interpolation_curve(table.head(0))
    with pytest.raises(ValueError, match="low is missing"):
        interpolation_curve(table.drop(columns="low"))


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one step"):
        training_curve(_history(0), "loss", "Loss", "nats")
    with pytest.raises(ValueError, match="missing"):
        training_curve(_history(), "gradient", "Gradient", "1")
    with pytest.raises(ValueError, match="learning_rate"):
        learning_rates(_history()[["step", "loss"]])
    with pytest.raises(ValueError, match="at least one validation"):
        validation_curve(pd.DataFrame(columns=["step", "value", "low", "high", "n"]))


class _Handle:
    def __init__(self, shown: list[object]) -> None:
        self.shown = shown

    def update(self, figure: object) -> None:
        self.shown.append(figure)


def test_the_live_curve_redraws_in_place_and_keeps_still_headless(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[object] = []

    def display(figure: object, display_id: bool) -> _Handle:
        assert display_id
        shown.append(figure)
        return _Handle(shown)

    monkeypatch.setattr(widgets, "display", display)
    follow = live_loss_curve("Loss", live=True, every_s=0)
    for step in range(1, 4):
        follow({"step": step, "loss": 10.0 / step, "gradient_norm": 1.0})
    assert [len(figure.data[0].x) for figure in shown] == [1, 2, 3]  # type: ignore[attr-defined]
    still = live_loss_curve("Loss", live=False, every_s=0)
    still({"step": 1, "loss": 1.0})
    rarely = live_loss_curve("Loss", live=True, every_s=3600)
    for step in range(1, 100):
        rarely({"step": step, "loss": 1.0})
    assert len(shown) == 4
