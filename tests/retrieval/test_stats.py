import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import xlogy
from scipy.stats import binomtest

from workbench.retrieval.intervals import (
    Average,
    class_means,
    difference_interval,
    interval_of_class_means,
    share_interval,
    variance_of_mean,
)
from workbench.retrieval.stats import (
    binomial_half_width,
    cluster_interval,
    mcnemar,
    paired_difference,
    paired_p_value,
)


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


def _unit_of_none(num_classes: int, queries: int) -> float:
    """One query of a class after another is right: p a / (a + i) as long as all before were, a = 0.85 / 0.15, summed up."""
    alike = 0.85 / 0.15
    return 1 / (num_classes * sum(alike / (alike + place) for place in range(queries)))


def test_half_width_for_orientation() -> None:
    assert round(100 * binomial_half_width(0.9, 2485), 2) == 1.18
    with pytest.raises(ValueError, match="from 0 to 1"):
        binomial_half_width(90, 2485)


def test_share_interval_is_wilsons_where_trials_are_independent() -> None:
    low, high = share_interval(np.array([0.8]), np.array([1 / 10]), np.array([np.inf]))
    assert low == pytest.approx([0.490162], abs=1e-6)  # 8 of 10, as printed in textbooks
    assert high == pytest.approx([0.943318], abs=1e-6)


def test_all_right_and_all_wrong_have_a_width() -> None:
    labels = np.repeat(np.arange(20), 5)
    right = cluster_interval(np.ones((3, 100)), labels)
    assert (right.value, right.high, right.n) == (1.0, 1.0, 100)
    assert right.low == pytest.approx(1 / (1 + 2.306004**2 * _unit_of_none(20, 5)), abs=1e-6)  # t of 8 degrees
    assert right.low == pytest.approx(0.9351, abs=1e-4)
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
    value, low, high, _ = interval_of_class_means(mean_C[None, None], np.full(400, 50), "macro", num_replicates=20000)
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
    value, low, high, _ = interval_of_class_means(mean_TDC, count_C, average)
    assert abs(value.mean() - mean) < 0.01
    held = ((low <= mean) & (mean <= high)).mean()
    assert (
        0.925 < held < 0.995
    )  # 1000 trials: one standard error is 0.007; careful with 20 classes at 0.97, of 12 mistakes
    if classes > 20 and mean < 0.97:
        assert held < 0.975


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
    correct = np.ones((2, 640))
    metric = paired_difference(correct, correct, np.repeat(np.arange(80), 8))
    factor = 2.306004**2 * _unit_of_none(80, 8)
    assert metric.value == 0
    assert metric.high == -metric.low == pytest.approx(factor / (1 + factor), abs=1e-6)
    assert metric.high == pytest.approx(0.0124, abs=1e-4)


@pytest.mark.parametrize("average", ["micro", "macro"])
def test_one_query_more_that_differs_moves_the_interval_a_little(average: Average) -> None:
    labels, both = np.repeat(np.arange(80), 8), np.ones(640)
    lows, highs, singles = [], [], []
    for count in range(6):
        one = both.copy()
        one[3 : 3 + 8 * count : 8] = 0  # of as many labels
        metric = paired_difference(one, both, labels, average)
        assert metric.value == pytest.approx(-count / 640)
        lows.append(metric.low)
        highs.append(metric.high)
        singles.append(cluster_interval(one, labels, average).low)
    for ends, step in ((lows, 0.005), (highs, 0.005), (singles, 0.005)):  # a query is 0.0016
        assert (np.diff(ends) <= 0).all()
        assert -np.diff(ends).min() < step
    assert highs[0] < 0.013  # as long as equal models fell back to their labels, 0.047


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from([-1.0, 0.0, 0.25, 1.0])), min_size=6, max_size=30),
    st.integers(0, 5),
    st.sampled_from(["micro", "macro"]),
)
def test_differences_that_are_near_have_intervals_that_are_near(
    rows: list[tuple[int, float]], place: int, average: Average
) -> None:
    labels, change = [label for label, _ in rows], np.array([value for _, value in rows])
    moved = change.copy()
    moved[place] -= np.copysign(1e-7, moved[place])
    found, near = (
        paired_difference(np.maximum(x, 0), np.maximum(-x, 0), labels, average, num_replicates=200)
        for x in (change, moved)
    )
    assert (near.low, near.high) == pytest.approx((found.low, found.high), abs=1e-3)
    assert found.low <= found.value <= found.high
    p = paired_p_value(np.maximum(change, 0), np.maximum(-change, 0), labels, average)
    whole = paired_difference(np.maximum(change, 0), np.maximum(-change, 0), labels, average)
    assert (p < 0.05) == (whole.low > 0 or whole.high < 0)


@pytest.mark.parametrize(("gains", "losses", "both"), [(12, 2, 36), (1, 0, 639), (0, 0, 100), (5, 5, 90), (30, 0, 0)])
def test_independent_queries_have_tangos_interval(gains: int, losses: int, both: int) -> None:
    n = gains + losses + both

    def statistic(difference: float) -> float:
        """The score at a difference, the share of losses fitted by the likelihood of the table alone."""

        def misfit(share: float) -> float:
            counts, shares = (gains, losses, both), (share + difference, share, 1 - 2 * share - difference)
            return -sum(float(xlogy(count, max(part, 1e-300))) for count, part in zip(counts, shares, strict=True))

        least, most = max(0.0, -difference), (1 - difference) / 2
        share = minimize_scalar(misfit, bounds=(least, most), options={"xatol": 1e-12}).x
        variance = (2 * share + difference - difference**2) / n
        return float(((gains - losses) / n - difference) / np.sqrt(max(variance, 1e-300)))

    value, absolute = np.array([(gains - losses) / n]), np.array([(gains + losses) / n])
    low, high = difference_interval(value, absolute, absolute, np.array([1 / n]), np.array([np.inf]))
    assert -1 < low[0] < high[0] <= 1
    assert statistic(low[0]) == pytest.approx(1.959964, abs=0.002)
    if high[0] < 1:
        assert statistic(high[0]) == pytest.approx(-1.959964, abs=0.002)


def test_graded_differences_have_a_width_in_their_size() -> None:
    value = np.array([0.1])  # every query by 0.1
    low, high = difference_interval(value, value, value**2, np.array([0.01]), np.array([np.inf]))
    assert low[0] == pytest.approx(0.1 / (1 + 0.01 * 1.959964**2))  # Wilson's for all of n, of 0 or 0.1
    factor = 0.01 * 1.959964**2
    assert high[0] == pytest.approx(0.1 + 0.9 * factor / (1 + factor))  # and for none of n, of 0.1 or 1


def test_few_labels_that_differ_much_are_marked() -> None:
    labels = np.repeat(np.arange(12), 20)
    split = np.repeat(np.arange(12) < 10, 20).astype(float)  # ten labels all right, two all wrong
    marked = cluster_interval(split, labels)
    assert marked.doubt == "few labels make it up and they differ much"
    assert str(marked).endswith(f"(not to be relied on: {marked.doubt}), n = 240")
    assert paired_difference(np.ones(240), split, labels).doubt == marked.doubt
    rng = np.random.default_rng(0)
    assert cluster_interval((rng.random(240) < 0.8).astype(float), labels).doubt == ""
    assert cluster_interval(np.ones(240), labels).doubt == ""


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
