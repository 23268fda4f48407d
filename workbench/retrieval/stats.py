"""Intervals and tests for accuracies: how sure a number is, and whether two models differ.

Axes: D draws of the references, C classes, Q queries. The queries of a class share its references and its
difficulty, so that they are no independent trials: classes are resampled, not queries.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr, ndtri, stdtrit

from workbench.retrieval.intervals import (
    NUM_REPLICATES,
    Average,
    class_means,
    class_weights,
    interval_of_class_means,
    num_clusters,
    variance_of_mean,
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
    """

    value: float
    low: float
    high: float
    n: int
    protocol: str

    def __str__(self) -> str:
        """Returns the share in percent with its interval and n, such as "16.9 % [12.2, 23.0], n = 296"."""
        interval = f" [{100 * self.low:.1f}, {100 * self.high:.1f}]" if self.low < self.high else ""
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
    (two-way clustering). The interval is Wilson's at the effective number of trials, with Student's quantile at the
    effective number of classes less one: a percentile bootstrap over 20 classes covers too little. Queries of one
    class say nothing about other classes: a single class gives an interval of nearly 0 to 1.

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
    number of clusters); `share_interval` for the form of the interval.
    """
    correct_DQ, class_Q = _check(correct_DQ, labels)
    mean_DC, count_C = class_means(correct_DQ, class_Q)
    value, low, high = interval_of_class_means(
        mean_DC[None], count_C, average, level=level, num_replicates=num_replicates, seed=seed
    )
    return Metric(float(value[0]), float(low[0]), float(high[0]), correct_DQ.shape[1], protocol)


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

    What both find hard cancels: the difference of each query and draw is formed before classes are resampled. If every
    class shows the same difference (two equal models), the half-width is Wilson's bound for 0 of C classes.

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

    Source: paired cluster bootstrap; the quantile and the variance are those of `cluster_interval`.
    """
    first, class_Q = _check(correct_a_DQ, labels)
    second, _ = _check(correct_b_DQ, labels)
    if first.shape != second.shape:
        raise ValueError(f"both models need the same draws and queries, {first.shape} and {second.shape} were given")
    mean_DC, count_C = class_means(first - second, class_Q)
    weight_C = class_weights(count_C, average)
    variance, df = variance_of_mean(mean_DC[None], weight_C, num_replicates, seed)
    value = float(mean_DC.mean(axis=0) @ weight_C)
    clusters = num_clusters(weight_C)
    half = float(stdtrit(df[0], 0.5 + level / 2) * np.sqrt(variance[0]))
    if np.ptp(mean_DC) <= 1e-12:
        bound = stdtrit(max(clusters - 1, 1.0), 0.5 + level / 2) ** 2
        half = float(bound / (clusters + bound))
    return Metric(value, max(value - half, -1.0), min(value + half, 1.0), first.shape[1], protocol)


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
