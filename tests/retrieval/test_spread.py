from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from workbench.retrieval.spread import compare_spread, least_uniformity, measure_spread


def _loops(embedding_ND: np.ndarray, labels: list[str]) -> tuple[float, float]:
    """Both measures pair by pair."""
    unit = [row / np.sqrt((row**2).sum()) for row in embedding_ND.astype(np.float64)]
    near, kernel = [], []
    for one, label in enumerate(labels):
        others = [place for place in range(len(labels)) if place != one and labels[place] == label]
        if others:
            near.append(np.mean([((unit[one] - unit[place]) ** 2).sum() for place in others]))
    for one, other in combinations(range(len(labels)), 2):
        kernel.append(np.exp(-2 * ((unit[one] - unit[other]) ** 2).sum()))
    return float(np.mean(near)), float(np.log(np.mean(kernel)))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_against_plain_loops(seed: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    labels = ["a", "a", *rng.choice(list("abcde"), 12)]
    embedding = rng.normal(size=(14, width)).astype(np.float32)
    spread = measure_spread(embedding, labels)
    alignment, uniformity = _loops(embedding, labels)
    assert spread.alignment.value == pytest.approx(alignment, abs=1e-5)
    assert spread.uniformity.value == pytest.approx(uniformity, abs=1e-5)
    for metric in (spread.alignment, spread.uniformity):
        assert metric.low <= metric.value <= metric.high


def test_closed_forms() -> None:
    same = measure_spread(np.ones((6, 3)), list("aabbcc"))
    assert (same.alignment.value, same.uniformity.value) == pytest.approx((0, 0), abs=1e-9)
    # Three orthogonal pairs of equal vectors: 3 of 15 pairs at distance 0, 12 at squared distance 2.
    corners = measure_spread(np.repeat(np.eye(3), 2, axis=0), list("aabbcc"))
    assert corners.alignment.value == pytest.approx(0, abs=1e-9)
    assert corners.uniformity.value == pytest.approx(np.log((3 + 12 * np.exp(-4)) / 15))
    opposite = measure_spread(np.array([[1, 0], [-2, 0]]), ["a", "a"])
    assert (opposite.alignment.value, opposite.uniformity.value) == pytest.approx((4, -8))
    # On the circle the mean of exp(4 cos) is the Bessel function I0(4) = 11.3019220; in width 3 it is sinh(4) / 4.
    assert least_uniformity(2) == pytest.approx(-4 + np.log(11.3019220))
    assert least_uniformity(3) == pytest.approx(-4 + np.log(np.sinh(4) / 4))
    assert least_uniformity(100_000) == pytest.approx(-4, abs=1e-3)


def test_even_points_reach_the_least_uniformity_within_the_interval() -> None:
    points = np.random.default_rng(0).normal(size=(1500, 8))
    spread = measure_spread(points, np.arange(1500) % 300)
    assert spread.least_uniformity == least_uniformity(8)
    assert spread.uniformity.low < spread.least_uniformity < spread.uniformity.high
    assert spread.uniformity.high - spread.uniformity.low < 0.1
    assert spread.alignment.low < 2 < spread.alignment.high


def test_interval_is_the_jackknife_over_classes() -> None:
    rng = np.random.default_rng(1)
    labels = list("aaabbccccd")
    embedding = rng.normal(size=(10, 3))
    spread = measure_spread(embedding, labels)
    without = [
        _loops(embedding[[label != left for label in labels]], [label for label in labels if label != left])
        for left in "abcd"
    ]
    for metric, values, num in (
        (spread.alignment, np.array([one[0] for one in without[:3]]), 3),  # class d has no pair
        (spread.uniformity, np.array([one[1] for one in without]), 4),
    ):
        half = student.ppf(0.975, num - 1) * np.sqrt((num - 1) / num * ((values - values.mean()) ** 2).sum())
        limits = (0, 4) if num == 3 else (-8, 0)
        assert (metric.low, metric.high) == pytest.approx(
            (max(metric.value - half, limits[0]), min(metric.value + half, limits[1])), abs=1e-5
        )
    assert (spread.alignment.n, spread.uniformity.n) == (9, 10)


def test_before_and_after_are_paired_by_class() -> None:
    rng = np.random.default_rng(2)
    labels = np.repeat(np.arange(20), 5)
    centres = rng.normal(size=(20, 16))
    before = rng.normal(size=(100, 16))
    after = centres[labels] + 0.2 * rng.normal(size=(100, 16))
    change = compare_spread(before, after, labels)
    assert change.alignment.value == pytest.approx(change.after.alignment.value - change.before.alignment.value)
    assert change.alignment.high < 0
    assert change.uniformity.value == pytest.approx(change.after.uniformity.value - change.before.uniformity.value)
    nothing = compare_spread(before, 3 * before, labels)
    assert (nothing.alignment.low, nothing.alignment.high) == pytest.approx((0, 0), abs=1e-6)
    # A shift that all classes share cancels: the interval of the difference is narrower than that of either.
    assert change.uniformity.high - change.uniformity.low < 1
    with pytest.raises(ValueError, match="100 and 99 rows"):
        compare_spread(before, after[:99], labels)


def test_order_and_scale_change_nothing_and_a_draw_is_said() -> None:
    rng = np.random.default_rng(3)
    embedding, labels = rng.normal(size=(60, 4)), np.arange(60) % 6
    order = rng.permutation(60)
    first, second = measure_spread(embedding, labels), measure_spread(7 * embedding[order], labels[order])
    assert first.alignment.value == pytest.approx(second.alignment.value, abs=1e-6)
    assert first.uniformity.high == pytest.approx(second.uniformity.high, abs=1e-6)
    few = measure_spread(embedding, labels, max_images=30, seed=4)
    assert few.uniformity.n == 30
    assert "30 of 60 images drawn (seed 4)" in few.uniformity.protocol
    assert few == measure_spread(embedding, labels, max_images=30, seed=4)


def test_a_single_class_says_nothing_of_others_and_lone_images_are_refused() -> None:
    one = measure_spread(np.eye(3), ["a", "a", "a"])
    assert (one.alignment.value, one.alignment.low, one.alignment.high) == pytest.approx((2, 0, 4))
    assert (one.uniformity.low, one.uniformity.high) == (-8, 0)
    with pytest.raises(ValueError, match="at least one class with two images"):
        measure_spread(np.eye(3), ["a", "b", "c"])
    with pytest.raises(ValueError, match="not finite"):
        measure_spread(np.array([[1, np.nan], [1, 1]]), ["a", "a"])
    with pytest.raises(ValueError, match="one label for each"):
        measure_spread(np.eye(3), ["a", "a"])
