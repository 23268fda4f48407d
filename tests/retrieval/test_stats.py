import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from workbench.retrieval.intervals import (
    Average,
    class_means,
    interval_of_class_means,
    share_interval,
    variance_of_mean,
)
from workbench.retrieval.stats import binomial_half_width, cluster_interval, mcnemar, paired_difference


def _simulate(
    rng: np.random.Generator, trials: int, draws: int, classes: int, mean: float, spread: float, draw_sd: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Class accuracies from a Beta distribution, noise of draws in each class, unequal numbers of queries."""
    total = 1 / spread - 1
    count_C = np.maximum(2, rng.lognormal(3, 0.5, classes).astype(int))
    class_TC = rng.beta(mean * total, (1 - mean) * total, size=(trials, 1, classes))
    share_TDC = rng.beta(np.maximum(class_TC * 9, 1e-6), np.maximum((1 - class_TC) * 9, 1e-6), (trials, draws, classes))
    share_TDC = np.clip(share_TDC + rng.normal(0, draw_sd, (trials, draws, 1)), 0, 1)
    mean_TDC = np.empty_like(share_TDC)
    for index, count in enumerate(count_C):  # the same queries in every draw
        mean_TDC[..., index] = (rng.random((trials, 1, count)) < share_TDC[..., index, None]).mean(axis=-1)
    return mean_TDC, count_C


def test_half_width_for_orientation() -> None:
    assert round(100 * binomial_half_width(0.9, 2485), 2) == 1.18
    with pytest.raises(ValueError, match="from 0 to 1"):
        binomial_half_width(90, 2485)


def test_share_interval_is_wilsons_where_trials_are_independent() -> None:
    low, high = share_interval(np.array([0.8]), np.array([0.8 * 0.2 / 10]), 10, 10, np.array([np.inf]))
    assert low == pytest.approx([0.490162], abs=1e-6)  # 8 of 10, as printed in textbooks
    assert high == pytest.approx([0.943318], abs=1e-6)


def test_all_right_and_all_wrong_have_a_width() -> None:
    labels = np.repeat(np.arange(20), 5)
    right = cluster_interval(np.ones((3, 100)), labels)
    assert (right.value, right.high, right.n) == (1.0, 1.0, 100)
    assert right.low == pytest.approx(20 / (20 + 2.093024**2), abs=1e-6)  # t of 19 degrees: 0.8203
    wrong = cluster_interval(np.zeros((3, 100)), labels)
    assert (wrong.value, wrong.low) == (0.0, 0.0)
    assert wrong.high == pytest.approx(1 - right.low)


def test_classes_that_agree_by_chance_still_have_the_width_of_their_queries() -> None:
    metric = cluster_interval(np.tile([1.0, 1.0, 0.0, 1.0], 25), np.repeat(np.arange(25), 4))
    assert metric.value == 0.75
    assert 0.15 < metric.high - metric.low < 0.2  # Wilson for 75 of 100: 0.657 to 0.825


def test_one_class_says_nothing_of_others() -> None:
    metric = cluster_interval(np.array([1.0] * 90 + [0.0] * 10), ["007"] * 100)
    assert metric.value == 0.9
    assert metric.low < 0.05
    assert metric.high > 0.95


def test_micro_is_over_queries_and_macro_over_classes() -> None:
    correct, labels = [1, 0, 1, 1, 1, 1], ["a", "a", "b", "b", "b", "b"]
    assert cluster_interval(np.array(correct), labels, "micro").value == pytest.approx(5 / 6)
    assert cluster_interval(np.array(correct), labels, "macro").value == pytest.approx(3 / 4)


def test_class_means_by_hand() -> None:
    mean_DC, count_C = class_means(np.array([[1, 0, 1, 0.5], [0, 0, 0, 1]]), np.array([4, 1, 4, 1]))
    assert mean_DC.tolist() == [[0.25, 1.0], [0.5, 0.0]]
    assert count_C.tolist() == [2, 2]


def test_standard_error_of_balanced_classes_is_the_textbook_one() -> None:
    rng = np.random.default_rng(3)
    mean_C = rng.uniform(0.3, 0.7, 400)
    value, low, high = interval_of_class_means(mean_C[None, None], np.full(400, 50), "macro", num_replicates=20000)
    assert value[0] == pytest.approx(mean_C.mean())
    assert (high - low)[0] / 2 == pytest.approx(1.966 * mean_C.std(ddof=1) / 20, rel=0.03)


def test_draws_that_repeat_add_nothing_and_draws_that_differ_do() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(30), 10)
    first = (rng.random(300) < 0.7).astype(float)
    once = cluster_interval(first, labels)
    same = cluster_interval(np.tile(first, (5, 1)), labels)
    assert (same.low, same.high) == pytest.approx((once.low, once.high))
    level_D = np.array([0.2, 0.4, 0.6, 0.8, 1.0])[:, None]
    other = cluster_interval((rng.random((5, 300)) < level_D).astype(float), labels)
    assert other.high - other.low > 2 * (once.high - once.low)


@pytest.mark.parametrize(
    ("classes", "mean", "draws", "draw_sd", "average"),
    [
        (20, 0.8, 1, 0.0, "micro"),
        (20, 0.8, 10, 0.0, "macro"),
        (20, 0.9, 10, 0.0, "macro"),
        (20, 0.97, 10, 0.0, "micro"),
        (81, 0.97, 10, 0.0, "micro"),
        (81, 0.6, 5, 0.05, "macro"),
        (315, 0.9, 10, 0.0, "micro"),
    ],
)
def test_interval_holds_the_truth_as_often_as_it_says(
    classes: int, mean: float, draws: int, draw_sd: float, average: Average
) -> None:
    trials = 1000
    mean_TDC, count_C = _simulate(np.random.default_rng(7), trials, draws, classes, mean, 0.1, draw_sd)
    value, low, high = interval_of_class_means(mean_TDC, count_C, average)
    assert abs(value.mean() - mean) < 0.01
    assert 0.925 < ((low <= mean) & (mean <= high)).mean() < 0.975  # 1000 trials: one standard error is 0.007


def test_paired_difference_by_hand_and_its_mirror() -> None:
    labels = ["a", "a", "b", "c"]
    a, b = np.array([[1.0, 1, 0, 1]]), np.array([[0.0, 1, 0, 0]])
    found, mirrored = paired_difference(a, b, labels), paired_difference(b, a, labels)
    assert found.value == 0.5
    assert paired_difference(a, b, labels, "macro").value == pytest.approx((0.5 + 0 + 1) / 3)
    assert (mirrored.value, mirrored.low, mirrored.high) == pytest.approx((-found.value, -found.high, -found.low))


def test_pairing_cancels_what_both_models_find_hard() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(60), 20)
    hard = np.repeat(rng.beta(1, 1, 60), 20)
    luck = rng.random(1200)
    a, b = (luck < hard).astype(float), (luck < hard - 0.05).astype(float)
    difference = paired_difference(a, b, labels)
    alone = cluster_interval(a, labels)
    assert 0.02 < difference.low < difference.value < difference.high
    assert difference.high - difference.low < (alone.high - alone.low) / 3


def test_equal_models_differ_by_nothing_but_not_for_sure() -> None:
    correct = np.ones((2, 40))
    metric = paired_difference(correct, correct, np.repeat(np.arange(20), 2))
    assert metric.value == 0
    assert metric.high == -metric.low == pytest.approx(2.093024**2 / (20 + 2.093024**2), abs=1e-6)


def test_paired_difference_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(11)
    held = 0
    labels = np.repeat(np.arange(20), 8)
    for _ in range(300):
        shift = np.clip(rng.normal(0.1, 0.1, 20), -0.3, 0.4)
        base = rng.uniform(0.4, 0.6, 20)
        luck = rng.random((3, 160))
        a, b = luck < np.repeat(base + shift / 2, 8), luck < np.repeat(base - shift / 2, 8)
        metric = paired_difference(a.astype(float), b.astype(float), labels, num_replicates=500)
        held += metric.low <= 0.1 <= metric.high
    assert 0.91 < held / 300 < 0.985


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=30))
def test_mcnemar_is_the_exact_binomial_test(pairs: list[tuple[bool, bool]]) -> None:
    a, b = [first for first, _ in pairs], [second for _, second in pairs]
    only_a = sum(x and not y for x, y in pairs)
    only_b = sum(y and not x for x, y in pairs)
    expected = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert mcnemar(a, b) == pytest.approx(expected)


def test_mcnemar_by_hand_and_refusals() -> None:
    assert mcnemar([1] * 5 + [0] + [1] * 9, [0] * 5 + [1] + [1] * 9) == pytest.approx(2 * 7 / 64)
    with pytest.raises(ValueError, match="tied answers"):
        mcnemar([0.5, 1], [0, 1])
    with pytest.raises(ValueError, match="equal length"):
        mcnemar([1], [0, 1])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=25),
    st.sampled_from(["micro", "macro"]),
)
def test_interval_lies_in_its_range_around_the_value_whatever_the_order(
    rows: list[tuple[int, float]], average: Average
) -> None:
    labels, correct = [label for label, _ in rows], np.array([value for _, value in rows])
    metric = cluster_interval(correct, labels, average, num_replicates=200)
    assert 0 <= metric.low <= metric.value + 1e-12
    assert metric.value - 1e-12 <= metric.high <= 1
    assert metric.low < metric.high
    turned = cluster_interval(correct[::-1], labels[::-1], average, num_replicates=200)
    assert (turned.value, turned.low, turned.high) == pytest.approx((metric.value, metric.low, metric.high))


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="a label for each"):
        cluster_interval(np.ones(3), ["a", "b"])
    with pytest.raises(ValueError, match="at least one query"):
        cluster_interval(np.ones((2, 0)), [])
    with pytest.raises(ValueError, match="NaN"):
        cluster_interval(np.array([1.0, np.nan]), ["a", "b"])
    with pytest.raises(ValueError, match="average must be one of"):
        cluster_interval(np.ones(2), ["a", "b"], "mean")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="same draws and queries"):
        paired_difference(np.ones((2, 2)), np.ones((1, 2)), ["a", "b"])


def test_luck_that_classes_have_shown_is_not_counted_twice() -> None:
    # Class means 1/2 and 0, draw means 1/2 and 0: the draws' variance, 1/16, is all of it luck within the classes.
    variance, _ = variance_of_mean(np.array([[[1.0, 0.0], [0.0, 0.0]]]), np.array([0.5, 0.5]), 40000, 0)
    assert variance == pytest.approx([1 / 16], rel=0.03)
    variance, df = variance_of_mean(np.array([[[1.0, 1.0], [0.0, 0.0]]]), np.array([0.5, 0.5]), 2000, 0)
    assert variance == pytest.approx([1 / 4])  # classes agree: all of it is the draws'
    assert df == pytest.approx([1])


def test_one_bad_class_makes_the_variance_itself_unsure() -> None:
    # Nine classes at 0, one at 1: second moment 0.09, fourth 0.0657, so an excess kurtosis of 5.111.
    variance, df = variance_of_mean(np.eye(10)[None, :1], np.full(10, 0.1), 40000, 0)
    assert variance == pytest.approx([0.01], rel=0.03)
    assert df == pytest.approx([2 / (2 / 9 + 0.51111)], rel=1e-4)
