"""The long tail, worked by hand and against a plain loop."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.data.card import read_card
from workbench.data.catalog import Catalog
from workbench.data.long_tail import countable, describe_tail, gini


def catalog_of(counts: dict[tuple[str, str], int], task: str = "") -> Catalog:
    """A catalog with so many images of each (split, label)."""
    rows = [(f"{split}/{label}/{k}.png", label, split) for (split, label), num in counts.items() for k in range(num)]
    frame = pd.DataFrame(rows, columns=["path", "label", "split"], dtype="str").assign(source="here", domain="real")
    cards = {"here": read_card("market1501" if task == "reid" else "grocery_store")} if task else {}
    return Catalog(frame, {"here": Path()}, cards, {})


def test_gini_by_hand() -> None:
    assert gini([5, 5, 5, 5]) == pytest.approx(0)
    assert gini([0, 0, 0, 8]) == pytest.approx(3 / 4)
    assert gini([1, 3]) == pytest.approx(1 / 4)  # mean difference 1 (of four ordered pairs: 0, 2, 2, 0), mean 2: 1 / 4
    assert gini([7]) == pytest.approx(0)
    assert np.isnan(gini([]))
    assert np.isnan(gini([0, 0]))
    with pytest.raises(ValueError, match="found -1"):
        gini([-1, 2])


@given(st.lists(st.integers(0, 50), min_size=1, max_size=20).filter(any))
def test_gini_is_the_mean_difference(counts: list[int]) -> None:
    total = sum(abs(one - other) for one in counts for other in counts)
    assert gini(counts) == pytest.approx(total / (2 * len(counts) * sum(counts)))
    assert gini([3 * count for count in counts]) == pytest.approx(gini(counts))


def test_the_tail_by_hand() -> None:
    counts = {("train", f"c{number}"): 1 for number in range(10)} | {("train", "big"): 20, ("val", "c1"): 2}
    table = describe_tail(catalog_of(counts)).set_index("split")
    assert table.index.tolist() == ["train", "val"]
    row = table.loc["train"]
    assert [row[name] for name in ("num_images", "num_labels", "min_images", "median_images", "max_images")] == [
        30,
        11,
        1,
        1,
        20,
    ]
    assert row["imbalance"] == 20
    assert row["num_top_labels"] == 2  # a tenth of 11, rounded up: big and one more
    assert row["top_share"] == pytest.approx(21 / 30)
    assert row["num_single"] == 10
    # 10 ones and a 20, ranks 1 to 10 and 11: 2 (55 + 220) / (11 * 30) - 12 / 11
    assert row["gini"] == pytest.approx(550 / 330 - 12 / 11)
    assert [table.loc["val", name] for name in ("imbalance", "gini", "top_share", "num_single")] == [1, 0, 1, 0]


def test_junk_and_distractors_are_no_classes_of_reid_alone() -> None:
    counts = {("gallery", "-1"): 5, ("gallery", "0"): 50, ("gallery", "7"): 2}
    assert countable(catalog_of(counts, "reid"))["label"].unique().tolist() == ["7"]
    assert describe_tail(catalog_of(counts, "reid"))["max_images"].tolist() == [2]
    assert describe_tail(catalog_of(counts, "recognition"))["num_labels"].tolist() == [3], "a product may be called 0"
    assert describe_tail(catalog_of({})).empty
