from pathlib import Path

import numpy as np
import pytest
from small_sets import draw_catalog

from workbench.models.embedder import build_embedder
from workbench.retrieval.spread import compare_spread
from workbench.retrieval.spread_tables import measure_changes, spread_metrics, spread_table


def test_every_number_is_named_and_differences_are_after_less_before() -> None:
    """Before: classes lie on top of each other (alignment 0); after: the two images of a class are at right angles (2)."""
    before = np.array([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    after = np.array([[1.0, 0], [0, 1], [0, 1], [1, 0]])
    changes = {"unseen": compare_spread(before, after, ["a", "a", "b", "b"])}
    metrics = spread_metrics(changes)
    assert metrics["untuned/spread/unseen/alignment"].value == pytest.approx(0)
    assert metrics["spread/unseen/alignment"].value == pytest.approx(2)
    assert metrics["difference/spread/unseen/alignment"].value == pytest.approx(2)
    assert metrics["difference/spread/unseen/uniformity"].value == pytest.approx(0)  # the same points, paired otherwise
    assert len(metrics) == 6
    table = spread_table(changes).set_index("stage")
    assert table["series"].tolist() == ["unseen"] * 2
    assert table["n"].tolist() == [4, 4]
    assert table["alignment"].tolist() == [pytest.approx(0), pytest.approx(2)]
    assert (table["uniformity_low"] <= table["uniformity"]).all()


def test_a_part_with_one_image_a_class_is_left_out_and_the_others_are_measured(tmp_path: Path) -> None:
    catalog = draw_catalog(tmp_path / "set", num_classes=3, num_train=2, num_val=1)
    before, after = (build_embedder("timm:test_resnet", "random", image_size=(32, 32), seed=seed) for seed in (0, 1))
    parts = {"pairs": catalog.select(split="train"), "singles": catalog.select(split="val")}
    found = measure_changes(parts, before, after, cache=tmp_path / "cache", device="cpu", num_workers=1, progress=None)
    assert list(found) == ["pairs"]
    assert found["pairs"].after.alignment.n == 6
