import numpy as np
import pandas as pd
import pytest

from workbench.report.audit_figures import lorenz_curves, measure_panels


def test_lorenz_curve_by_hand() -> None:
    counts = pd.DataFrame(
        {"label": list("abcde") * 2, "split": ["train"] * 5 + ["val"] * 5, "images": [6, 1, 1, 1, 1] + [2] * 5}
    )
    figure = lorenz_curves(counts, "my set", top=0.2)
    train, val, even = figure.data
    assert train.y == pytest.approx([0, 0.6, 0.7, 0.8, 0.9, 1])
    assert val.y == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert val.x == pytest.approx(val.y)
    assert train.name == "train: the largest 20% have 60%"
    assert list(even.x) == list(even.y) == [0, 1]
    assert train.line.dash != val.line.dash
    assert "my set. n = 20 images of 5 classes." in figure.layout.title.subtitle.text
    with pytest.raises(ValueError, match="at least one class"):
        lorenz_curves(counts.iloc[:0])
    with pytest.raises(ValueError, match="split"):
        lorenz_curves(counts.drop(columns="split"))
    hostile = counts.assign(split="<b>x</b>")
    assert "<b>x" not in lorenz_curves(hostile.drop_duplicates(["label"])).data[0].name


def test_panels_hold_every_measured_image_and_the_thresholds() -> None:
    measures = pd.DataFrame({"blur": [0.1, 0.2, 0.9, np.nan], "side_px": [1.0, 2.0, 3.0, 4.0], "empty": [np.nan] * 4})
    figure = measure_panels(
        measures, {"blur": ("blur", [0.5]), "side_px": ("px", [2, 3]), "empty": ("none", [])}, "here"
    )
    assert [int(np.sum(bars.y)) for bars in figure.data] == [3, 4, 0]
    assert sorted(shape.x0 for shape in figure.layout.shapes) == [0.5, 2, 3]
    text = figure.layout.title.subtitle.text
    assert "n = 4 images" in text
    assert "blur 1, empty 4" in text.replace("<br>", " ")
    with pytest.raises(ValueError, match="at least one measure"):
        measure_panels(measures, {})
