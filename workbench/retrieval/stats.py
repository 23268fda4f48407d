"""Intervals and tests for accuracies: how sure a number is, and whether two models differ.

Axes: D draws of the references, C classes, Q queries. The queries of a class share its references and its
difficulty, so that they are no independent trials: classes are resampled, not queries.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr, ndtri, stdtr

from workbench.retrieval.intervals import (
    NUM_REPLICATES,
    Average,
    class_means,
    class_weights,
    difference_interval,
    interval_of_class_means,
    moderate_differences,
)


@dataclass(frozen=True)
class Metric:
    """A number with its interval and the conditions it was measured under.

    Attributes:
        value: the estimate.
        low: lower end of the 95 % interval.
        high: upper end of it.
        n: number of queries behind the value.
        protocol: one line that says how it was measured.
        doubt: why the interval is not to be relied on; "" where nothing speaks against it.
    """

    value: float
    low: float
    high: float
    n: int
    protocol: str
    doubt: str = ""

    def __str__(self) -> str:
        """Returns the share in percent with its interval, its doubt and n, such as "16.9 % [12.2, 23.0], n = 296"."""
        doubt = f" (not to be relied on: {self.doubt})" if self.doubt else ""
        interval = f" [{100 * self.low:.1f}, {100 * self.high:.1f}]{doubt}" if self.low < self.high else ""
        return f"{100 * self.value:.1f} %{interval}, n = {self.n:,}"


def binomial_half_width(p: float, n: int, level: float = 0.95) -> float:
    """Returns half the width of the plain (Wald) interval of a share p of n independent trials, for orientation only.

    Source: normal approximation, z * sqrt(p (1 - p) / n); p = 0.9 and n = 2485 give 0.0118.
    """
    if not 0 <= p <= 1 or n < 1:
        raise ValueError(f"a share p from 0 to 1 and n >= 1 are wanted, p = {p} and n = {n} were given")
    return float(ndtri(0.5 + level / 2) * np.sqrt(p * (1 - p) / n))


def cluster_interval(
    correct_DQ: np.ndarray,
    labels: ArrayLike,
    average: Average = "micro",
    *,
    protocol: str = "",
    level: float = 0.95,
    num_replicates: int = NUM_REPLICATES,
    seed: int = 0,
) -> Metric:
    """Returns the mean over draws and queries with an interval that covers classes, queries and draws.

    Classes are resampled with their queries; the standard error is multiplied by sqrt(C / (C - 1)), without which it is too
    small for few classes. The variance of the draw means is added, less the part that the classes have shown already
    (two-way clustering). The interval is Wilson's at the effective number of trials, with Student's quantile: a percentile
    bootstrap over 20 classes covers too little. Where hardly anything is wrong (or right), the variance is moderated, so that
    one wrong query more or less moves the interval a little and never makes it jump. Queries of one class say nothing about other
    classes: a single class gives an interval of nearly 0 to 1.

    Args:
        correct_DQ: 0 to 1, a value for each draw and query (an expected value where answers tie); [Q] is one draw.
        labels: [Q], the class of each query.
        average: "micro" (over queries, a ratio over classes of unequal size) or "macro" (mean over classes).
        protocol: kept in the result.
        level: coverage wanted.
        num_replicates: bootstrap replicates of the classes.
        seed: of the bootstrap.

    Raises:
        ValueError: no query, lengths that differ, values out of 0 to 1.

    Source: Cameron, Gelbach and Miller 2011 (two-way clustering); Carter, Schnepel and Steigerwald 2017 (effective
    number of clusters); `intervals.moderate` and `share_interval` for the form of the interval.
    """
    correct_DQ, class_Q = _check(correct_DQ, labels)
    mean_DC, count_C = class_means(correct_DQ, class_Q)
    found = interval_of_class_means(
        mean_DC[None], count_C, average, level=level, num_replicates=num_replicates, seed=seed
    )
    value, low, high, doubt = (array.item() for array in found)
    return Metric(value, low, high, correct_DQ.shape[1], protocol, doubt)


def paired_difference(
    correct_a_DQ: np.ndarray,
    correct_b_DQ: np.ndarray,
    labels: ArrayLike,
    average: Average = "micro",
    *,
    protocol: str = "",
    level: float = 0.95,
    num_replicates: int = NUM_REPLICATES,
    seed: int = 0,
) -> Metric:
    """Returns model A's accuracy less model B's, -1 to 1, on the same queries and the same draws, with its interval.

    What both find hard cancels: the difference of each query and draw is formed before classes are resampled. The interval moves
    without a jump from two equal models to one query that differs, and on.

    Args:
        correct_a_DQ: 0 to 1, draws by queries ([Q] is one draw), model A.
        correct_b_DQ: the same for model B, queries and draws in the same order.
        labels: [Q], the class of each query.
        average: "micro" or "macro".
        protocol: kept in the result.
        level: coverage wanted.
        num_replicates: bootstrap replicates of the classes.
        seed: of the bootstrap.

    Raises:
        ValueError: shapes that differ, no query, values out of 0 to 1.

    Source: `intervals.difference_interval` (Tango 1998); the variance is that of `cluster_interval`.
    """
    value, absolute, square, unit, df, doubt, num_queries = _compare(
        correct_a_DQ, correct_b_DQ, labels, average, num_replicates, seed
    )
    low, high = difference_interval(value, absolute, square, unit, df, level)
    return Metric(value.item(), low.item(), high.item(), num_queries, protocol, doubt.item())


def paired_p_value(
    correct_a_DQ: np.ndarray, correct_b_DQ: np.ndarray, labels: ArrayLike, average: Average = "micro", *, seed: int = 0
) -> float:
    """Returns the two-sided p value, 0 to 1, that two models are equally good: below 0.05 where the interval of
    `paired_difference` leaves 0 out, and the reverse.

    Two models that never differ give 1. A single class gives 0.5 at least: it says nothing about others.

    Args:
        correct_a_DQ, correct_b_DQ, labels, average, seed: as in `paired_difference`.

    Source: the score test that `intervals.difference_interval` inverts, at 0.
    """
    value, _, square, unit, df, _, _ = _compare(correct_a_DQ, correct_b_DQ, labels, average, NUM_REPLICATES, seed)
    if abs(value.item()) <= 1e-12:
        return 1.0
    return (2 * stdtr(df, -np.abs(value) / np.sqrt(unit * square))).item()


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike) -> float:
    """Returns the exact two-sided p value, 0 to 1, for two models that are right equally often on the same queries.

    Only queries count that one model has right and the other wrong; without any the p value is 1. The test takes queries as
    independent: with many queries a class it is too sure, `paired_difference` is the one to trust.

    Args:
        correct_a: [Q], bool or 0/1, one draw of model A (an answer that ties, with a share between, is refused).
        correct_b: [Q], the same for model B.

    Raises:
        ValueError: lengths that differ, or values other than 0 and 1.

    Source: McNemar 1947, exact binomial form: twice the smaller tail, at most 1.
    """
    first, second = np.asarray(correct_a), np.asarray(correct_b)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"two lists of equal length are wanted, shapes {first.shape} and {second.shape} were given")
    for name, values in (("correct_a", first), ("correct_b", second)):
        if not np.isin(values, (0, 1)).all():
            raise ValueError(f"{name} has values other than 0 and 1: decide tied answers first, or leave them out")
    only_a, only_b = int(((first == 1) & (second == 0)).sum()), int(((first == 0) & (second == 1)).sum())
    if only_a + only_b == 0:
        return 1.0
    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def _compare(
    correct_a_DQ: np.ndarray,
    correct_b_DQ: np.ndarray,
    labels: ArrayLike,
    average: Average,
    num_replicates: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """Returns value, mean absolute and mean square difference, unit, df and doubt, each [1], and the number of queries."""
    first, class_Q = _check(correct_a_DQ, labels)
    second, _ = _check(correct_b_DQ, labels)
    if first.shape != second.shape:
        raise ValueError(f"both models need the same draws and queries, {first.shape} and {second.shape} were given")
    mean_DC, count_C = class_means(first - second, class_Q)
    weight_Q = (class_weights(count_C, average) / count_C)[class_Q]
    change_Q = (first - second).mean(axis=0)
    absolute, square = np.array([[np.abs(change_Q) @ weight_Q], [change_Q**2 @ weight_Q]])
    value, unit, df, doubt = moderate_differences(mean_DC[None], square, count_C, average, num_replicates, seed)
    return value, absolute, square, unit, df, doubt, first.shape[1]


def _check(correct_DQ: np.ndarray, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    correct_DQ = np.atleast_2d(np.asarray(correct_DQ, dtype=np.float64))
    class_Q = np.unique(np.asarray(labels).astype(str), return_inverse=True)[1]
    if correct_DQ.ndim != 2 or correct_DQ.shape[1] != len(class_Q) or correct_DQ.size == 0:
        raise ValueError(
            f"draws by queries, with at least one query and a label for each, are wanted; found an array of shape "
            f"{correct_DQ.shape} and {len(class_Q)} labels"
        )
    if not ((correct_DQ >= 0) & (correct_DQ <= 1)).all():
        raise ValueError(
            "values from 0 (wrong) to 1 (right) are wanted: leave out queries without an answer (NaN) first"
        )
    return correct_DQ, class_Q
