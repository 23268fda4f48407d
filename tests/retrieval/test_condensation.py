"""Condensed galleries against plain loops and exhaustive search; accuracy against size against `evaluate_few_shot`."""

from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.retrieval.condensation import METHODS, Method, accuracy_against_size, condense
from workbench.retrieval.few_shot import FewShotProtocol, evaluate_few_shot


def _unit(rng: np.random.Generator, num_rows: int, dim: int) -> np.ndarray:
    rows_ND = rng.standard_normal((num_rows, dim))
    return rows_ND / np.linalg.norm(rows_ND, axis=1, keepdims=True)


def _on_circle(degrees: list[float]) -> np.ndarray:
    angle = np.deg2rad(degrees)
    return np.column_stack([np.cos(angle), np.sin(angle)])


def _served(rows_ND: np.ndarray, kept: list[int]) -> tuple[float, float]:
    """Sum of cosine distances to the nearest kept row, and the largest chord to it: one pair after the other."""
    total, worst = 0.0, 0.0
    for row_D in rows_ND:
        total += min(1 - float(row_D @ rows_ND[k]) for k in kept)
        worst = max(worst, min(float(np.linalg.norm(row_D - rows_ND[k])) for k in kept))
    return total, worst


def test_hand_worked() -> None:
    rows_ND = _on_circle([0, 10, 20, 90, 100, 110, 111])
    labels = ["a"] * 7
    # Two groups: the middle of each serves it best (of 90, 100, 110, 111 that is 100 or 110: 110 is nearer to 111).
    assert condense(rows_ND, labels, "medoids", 2).row_M.tolist() == [1, 4]  # type: ignore[union-attr]
    # The mean lies near 64 degrees: 90 is nearest to it, and 0 the farthest from there; then 111 (21 from 90), not 20.
    assert condense(rows_ND, labels, "k_centre", 1).row_M.tolist() == [3]  # type: ignore[union-attr]
    assert condense(rows_ND, labels, "k_centre", 2).row_M.tolist() == [0, 3]  # type: ignore[union-attr]
    assert condense(rows_ND, labels, "k_centre", 3).row_M.tolist() == [0, 3, 6]  # type: ignore[union-attr]
    centres = condense(rows_ND[:6], ["a"] * 6, "kmeans", 2)
    assert centres.row_M is None
    order = np.argsort(centres.embedding_MD[:, 1])
    np.testing.assert_allclose(centres.embedding_MD[order], _on_circle([10, 100]), atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 9), st.integers(1, 4))
def test_medoids_and_centres_against_exhaustive_search(seed: int, num_rows: int, m: int) -> None:
    rows_ND = _unit(np.random.default_rng(seed), num_rows, 3)
    m = min(m, num_rows - 1)
    subsets = [list(chosen) for chosen in combinations(range(num_rows), m)]
    best_total = min(_served(rows_ND, kept)[0] for kept in subsets)
    best_worst = min(_served(rows_ND, kept)[1] for kept in subsets)
    medoids = condense(rows_ND, ["a"] * num_rows, "medoids", m).row_M
    centres = condense(rows_ND, ["a"] * num_rows, "k_centre", m).row_M
    assert medoids is not None
    assert centres is not None
    assert len(set(medoids.tolist())) == len(set(centres.tolist())) == m
    # No single swap helps, and one medoid is the best one.
    total = _served(rows_ND, medoids.tolist())[0]
    for out in range(m):
        for into in set(range(num_rows)) - set(medoids.tolist()):
            swapped = [into if place == out else kept for place, kept in enumerate(medoids.tolist())]
            assert _served(rows_ND, swapped)[0] >= total - 1e-6
    assert best_total - 1e-6 <= total
    assert m > 1 or total <= best_total + 1e-6
    assert _served(rows_ND, centres.tolist())[1] <= 2 * best_worst + 1e-6


def test_medoids_are_mostly_the_best_ones() -> None:
    same = 0
    for seed in range(60):
        rows_ND = _unit(np.random.default_rng(seed), 9, 4)
        kept = condense(rows_ND, ["a"] * 9, "medoids", 3).row_M
        assert kept is not None
        best = min(_served(rows_ND, list(chosen))[0] for chosen in combinations(range(9), 3))
        same += _served(rows_ND, kept.tolist())[0] <= best + 1e-6
    assert same >= 50  # the greedy start alone is the best one 21 times


def test_k_centre_keeps_what_it_has_when_it_takes_more() -> None:
    rows_ND = _unit(np.random.default_rng(3), 30, 5)
    kept = [set(condense(rows_ND, ["a"] * 30, "k_centre", m).row_M.tolist()) for m in range(1, 12)]  # type: ignore[union-attr]
    assert all(few < more for few, more in pairwise(kept))


@pytest.mark.parametrize("method", METHODS)
def test_edges(method: Method) -> None:
    rng = np.random.default_rng(1)
    rows_ND = np.concatenate([_unit(rng, 1, 4), _unit(rng, 3, 4), np.tile(_unit(rng, 1, 4), (6, 1)), _unit(rng, 8, 4)])
    labels = np.array(["0001234"] + ["1234"] * 3 + ["é"] * 6 + ["NA"] * 8)
    order = rng.permutation(len(labels))
    kept = condense(5 * rows_ND[order], labels[order], method, 3)
    counts = pd.Series(kept.labels).value_counts().to_dict()
    # Six equal references stay three where references are kept; their centre is one.
    assert counts == {"0001234": 1, "1234": 3, "é": 1 if method == "kmeans" else 3, "NA": 3}
    assert list(kept.labels) == sorted(kept.labels)
    np.testing.assert_allclose(np.linalg.norm(kept.embedding_MD, axis=1), 1, atol=1e-6)
    if kept.row_M is not None:
        assert len(set(kept.row_M.tolist())) == len(kept.row_M)
        np.testing.assert_allclose(kept.embedding_MD, rows_ND[order][kept.row_M], atol=1e-6)
        assert kept.labels.tolist() == labels[order][kept.row_M].tolist()
    more = condense(rows_ND, labels, method, 100)
    assert len(more.labels) == (13 if method == "kmeans" else 18)
    # 2**24 and 2**24 + 1 are two labels.
    assert condense(np.eye(2), [16777216, 16777217], method, 1).labels.tolist() == ["16777216", "16777217"]
    # Opposite references have no mean direction; one of them stands for them.
    opposite = condense(np.array([[1.0, 0.0], [-1.0, 0.0]]), ["a", "a"], method, 1)
    assert np.abs(opposite.embedding_MD).tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize(
    ("rows_ND", "labels", "method", "m", "message"),
    [
        (np.empty((0, 2)), [], "medoids", 1, "embedding_ND is empty"),
        (np.eye(2), ["a"], "medoids", 1, "one label for each of 2 rows"),
        (np.eye(2), ["a", None], "medoids", 1, "row 1 of labels has no label"),
        (np.zeros((1, 2)), ["a"], "kmeans", 1, "row 0 of embedding_ND has length zero"),
        (np.eye(2), ["a", "b"], "median", 1, "method must be one of medoids, kmeans, k_centre, found 'median'"),
        (np.eye(2), ["a", "b"], "medoids", 0, "m must be a whole number of at least 1, found 0"),
        (np.eye(2), ["a", "b"], "medoids", 1.5, "found 1.5"),
    ],
)
def test_bad_input_is_refused(rows_ND: np.ndarray, labels: list[str], method: Method, m: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        condense(rows_ND, labels, method, m)


def _shop(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """12 labels, each seen from three sides, most often from the first."""
    rng = np.random.default_rng(seed)
    side_CSD = np.random.default_rng(0).standard_normal((12, 3, 8))
    label_N = np.repeat(np.arange(12), 10)
    side_N = np.tile([0, 0, 0, 0, 0, 0, 1, 1, 2, 2], 12)
    return side_CSD[label_N, side_N] + 0.35 * rng.standard_normal((120, 8)), np.array([f"{n:03d}" for n in label_N])


def test_accuracy_against_size_is_that_of_the_condensed_gallery() -> None:
    (reference_ND, labels_N), (query_ND, labels_Q) = _shop(1), _shop(2)
    protocol = FewShotProtocol(draws=4, num_replicates=200)
    table = accuracy_against_size(reference_ND, labels_N, query_ND, labels_Q, [3, 1, 50], protocol=protocol)
    assert list(zip(table["method"], table["size"].fillna(0), strict=True)) == [
        *((method, size) for method in ("random", *METHODS) for size in (1, 3, 50)),
        ("all", 0),
    ]
    rows: list[dict[str, Any]] = table.assign(size=table["size"].fillna(0)).to_dict("records")  # type: ignore[assignment]
    found = {(row["method"], row["size"]): row for row in rows}
    everything = found["all", 0]["accuracy"]
    kept = condense(reference_ND, labels_N, "k_centre", 3)
    by_hand = evaluate_few_shot(
        kept.embedding_MD, kept.labels, query_ND, labels_Q, FewShotProtocol(shots=("all",), num_replicates=200)
    ).metrics["accuracy@1/shots=all/micro"]
    row = found["k_centre", 3]
    assert row["accuracy"] == by_hand.value
    assert [row["low"], row["high"]] == pytest.approx([by_hand.low, by_hand.high], abs=1e-12)
    assert (row["num_references"], row["n"]) == (36, 120)
    assert row["protocol"].startswith("references condensed by k_centre to 3 per label; few-shot gallery")
    random = evaluate_few_shot(
        reference_ND, labels_N, query_ND, labels_Q, FewShotProtocol(shots=(1, 3), draws=4, num_replicates=200)
    )
    for size in (1, 3):
        wanted = random.metrics[f"accuracy@1/shots={size}/micro"].value
        assert found["random", size]["accuracy"] == pytest.approx(wanted, abs=1e-12)
        for method in METHODS:
            row = found[method, size]
            assert row["gain"] == pytest.approx(row["accuracy"] - wanted, abs=1e-6)
            assert row["gain_low"] < row["gain"] < row["gain_high"]
            assert row["loss"] == pytest.approx(everything - row["accuracy"], abs=1e-6)
    # Three sides: three well-chosen references serve all of them, three by chance often see one side only.
    assert found["medoids", 3]["gain_low"] > 0
    # More than there is is all there is.
    for kind in ("random", "medoids", "k_centre"):
        assert found[kind, 50]["accuracy"] == everything
        assert found[kind, 50]["num_references"] == 120
    assert (found["medoids", 50]["gain"], found["medoids", 50]["loss"]) == (0.0, 0.0)


def test_sizes_and_methods_are_checked_before_anything_is_computed() -> None:
    reference_ND, labels = np.eye(3), ["a", "b", "c"]
    with pytest.raises(ValueError, match="at least one size"):
        accuracy_against_size(reference_ND, labels, reference_ND, labels, [])
    with pytest.raises(ValueError, match="methods among medoids, kmeans, k_centre"):
        accuracy_against_size(reference_ND, labels, reference_ND, labels, [1], methods=["best"])  # type: ignore[list-item]
    protocol = FewShotProtocol(reference_augmentations=2)
    with pytest.raises(ValueError, match="reference_augmentations must be 0"):
        accuracy_against_size(reference_ND, labels, reference_ND, labels, [1], protocol=protocol)
    with pytest.raises(ValueError, match="whole numbers of at least 1"):
        accuracy_against_size(reference_ND, labels, reference_ND, labels, [0, 1])
