"""Neighbours nearer than strangers get: worked by hand, and against a loop over all pairs."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.retrieval import label_errors
from workbench.retrieval.near_neighbours import near_neighbours


def _at(*degrees: float) -> np.ndarray:
    angle = np.deg2rad(np.array(degrees))
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def test_neighbours_by_hand() -> None:
    # a at 0 and 1 (train, query), a at 30 (train), b at 31 (train), b at 90 (query).
    found = near_neighbours(
        _at(0, 1, 30, 31, 90), list("aaabb"), ["train", "query", "train", "train", "query"], alike_share=0.25
    )
    # The nearest of another label is 31, 30, 1, 1 and 60 degrees away; at a quarter, 1 degree stays.
    assert found.stranger_N == pytest.approx(np.cos(np.deg2rad([31, 30, 1, 1, 60])), abs=1e-6)
    assert found.threshold == pytest.approx(np.cos(np.deg2rad(1)), abs=1e-6)
    pairs = found.table[["row", "other_row", "same_label", "across_splits"]].to_numpy().tolist()
    assert [2, 3, False, False] in pairs
    assert [1, 2, True, True] not in pairs, "29 degrees"
    assert "n = 5 pictures" in found.protocol
    assert "only 25% of the pictures" in found.protocol


def test_worst_pairs_come_first() -> None:
    degrees = [0, 0.1, 10, 10.2, 20, 20.3, 40, 40.1, 60, 61]
    labels = ["a", "a", "b", "b", "c", "d", "e", "e", "f", "g"]
    splits = ["query", "reference", "train", "val", "query", "reference", "train", "train", "train", "val"]
    found = near_neighbours(_at(*degrees), labels, splits, alike_share=0.5)
    pairs = found.table[["row", "other_row"]].to_numpy().tolist()
    assert pairs[0] == [4, 5], "between tested splits, two labels"
    assert pairs[1] == [0, 1], "between tested splits, one label"
    assert pairs.index([2, 3]) < pairs.index([6, 7]), "across splits before within one"
    assert not found.table.duplicated(["row", "other_row"]).any()


def by_loops(vectors: np.ndarray, labels: list[str], splits: list[str], threshold: float) -> set[tuple[int, int]]:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = set()
    for row in range(len(unit)):
        for kind in ("same split", "other split", "other label"):
            best, other = -np.inf, -1
            for candidate in range(len(unit)):
                same = labels[row] == labels[candidate]
                here = "same split" if splits[row] == splits[candidate] else "other split"
                if candidate == row or (kind == "other label") == same or (same and kind != here):
                    continue
                if (value := float(unit[row] @ unit[candidate])) > best:
                    best, other = value, candidate
            if other >= 0 and best >= threshold:
                pairs.add((min(row, other), max(row, other)))
    return pairs


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 0.6))
def test_neighbours_are_those_of_loops(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(24, 5))
    labels = [str(number) for number in rng.integers(0, 5, 24)]
    splits = [("train", "query", "gallery")[number] for number in rng.integers(0, 3, 24)]
    found = near_neighbours(vectors, labels, splits, alike_share=share)
    at_threshold = np.abs(found.table["similarity"] - found.threshold) < 1e-6
    pairs = set(map(tuple, found.table[["row", "other_row"]].to_numpy().tolist()))
    sure = set(map(tuple, found.table.loc[~at_threshold, ["row", "other_row"]].to_numpy().tolist()))
    assert by_loops(vectors, labels, splits, found.threshold + 1e-6) <= pairs
    assert sure <= by_loops(vectors, labels, splits, found.threshold - 1e-6)
    reached = np.sort(found.stranger_N)[::-1]
    assert (reached >= found.threshold).mean() <= share + 2 / 24, "hardly more pictures than the share"


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    vectors, labels, splits = rng.normal(size=(90, 4)), rng.integers(0, 9, 90), rng.integers(0, 3, 90)
    whole = near_neighbours(vectors, labels, splits, alike_share=0.2)
    monkeypatch.setattr(label_errors, "_BLOCK_BYTES", 1)
    parts = near_neighbours(vectors, labels, splits, alike_share=0.2)
    columns = ["row", "other_row", "same_label"]
    pd.testing.assert_frame_equal(whole.table[columns], parts.table[columns])
    assert len(whole.table) > 5


def test_one_label_has_no_threshold_and_bad_input_is_refused() -> None:
    found = near_neighbours(_at(0, 1, 2), ["a"] * 3, ["train", "query", "query"])
    assert found.table.empty
    assert np.isnan(found.threshold)
    assert "one label only" in found.protocol
    with pytest.raises(ValueError, match="above 0 and below 1"):
        near_neighbours(_at(0, 1), ["a", "b"], ["x", "y"], alike_share=0)
    with pytest.raises(ValueError, match="one label for each of 2 rows"):
        near_neighbours(_at(0, 1), ["a"], ["x", "y"])
