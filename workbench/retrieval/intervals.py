"""How far a mean over classes may be off: classes by bootstrap, draws in closed form, Wilson's interval on top.

Axes: M metrics, D draws of the references, C classes, Q queries, R replicates of the bootstrap.
"""

from typing import Literal, get_args

import numpy as np
from scipy.special import stdtrit

Average = Literal["micro", "macro"]
NUM_REPLICATES = 2000
_BLOCK_CELLS = 4_000_000


def class_means(correct_DQ: np.ndarray, class_Q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (mean_DC, count_C): the mean of each class in each draw, float64, and its number of queries, int64.

    Args:
        correct_DQ: numbers, any range; more leading axes are kept.
        class_Q: int64 codes 0..C-1; codes without a query are left out, the others stay in order.
    """
    order = np.argsort(class_Q, kind="stable")
    _, start_C, count_C = np.unique(class_Q[order], return_index=True, return_counts=True)
    sums = np.add.reduceat(correct_DQ[..., order], start_C, axis=-1, dtype=np.float64)
    return sums / count_C, count_C.astype(np.int64)


def share_interval(
    p: np.ndarray, variance: np.ndarray, num_trials: float, num_clusters: float, df: np.ndarray, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (low, high) of a share p with a known variance: Wilson's interval at the effective number of trials.

    The effective number is p (1 - p) / variance, at most num_trials (the shares of the classes may agree by chance); the
    quantile is Student's. Where all or nothing is right the variance says nothing: each cluster then counts as one
    trial, the most careful reading, so that the interval has a width there too (all right in 20 classes: from 0.82).

    Source: Korn and Graubard 1998 (effective sample size with a t quantile for proportions from clusters); Franco et
    al. 2019, "Comparative study of confidence intervals for proportions in complex sample surveys" (its Wilson form).
    """
    p = np.clip(p, 0.0, 1.0)
    inner = (p > 0) & (p < 1)
    trials = np.full_like(p, num_clusters)
    with np.errstate(divide="ignore"):
        trials[inner] = np.clip((p * (1 - p))[inner] / variance[inner], 1.0, num_trials)
    quantile = stdtrit(np.where(inner, df, max(num_clusters - 1, 1.0)), 0.5 + level / 2)
    ratio = quantile**2 / trials
    centre = (p + ratio / 2) / (1 + ratio)
    half = np.sqrt(ratio * p * (1 - p) + ratio**2 / 4) / (1 + ratio)
    low, high = np.clip(centre - half, 0, p), np.clip(centre + half, p, 1)
    return np.where(p <= 0, 0.0, low), np.where(p >= 1, 1.0, high)


def interval_of_class_means(
    mean_MDC: np.ndarray,
    count_C: np.ndarray,
    average: Average,
    *,
    level: float = 0.95,
    num_replicates: int = NUM_REPLICATES,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (value_M, low_M, high_M), float64, of M shares measured on the same classes and queries.

    Args:
        mean_MDC: share of right answers of each class in each draw, 0 to 1.
        count_C: weight of each class under "micro": its number of queries, above 0.
        average: "micro" (over queries) or "macro" (mean over classes).
        level: coverage wanted.
        num_replicates: bootstrap replicates of the classes.
        seed: of the bootstrap.
    """
    weight_C = class_weights(count_C, average)
    value_M = np.round(mean_MDC.mean(axis=1) @ weight_C, 12)  # all right is 1 in spite of rounding
    variance_M, df_M = variance_of_mean(mean_MDC, weight_C, num_replicates, seed)
    num_trials = 1 / float((weight_C**2 / count_C).sum())
    low_M, high_M = share_interval(value_M, variance_M, num_trials, num_clusters(weight_C), df_M, level)
    return value_M, low_M, high_M


def class_weights(count_C: np.ndarray, average: Average) -> np.ndarray:
    """Returns the weight of each class, sum 1: its share of the queries under "micro", the same for all under "macro".

    Raises:
        ValueError: another average.
    """
    if average not in get_args(Average):
        raise ValueError(f"average must be one of {get_args(Average)}, {average!r} was given")
    weight_C = count_C.astype(np.float64) if average == "micro" else np.ones(len(count_C))
    return weight_C / weight_C.sum()


def num_clusters(weight_C: np.ndarray) -> float:
    """Returns the effective number of classes: their number where weights are equal, fewer where some weigh more.

    Source: Kish 1965, 1 / sum of the squared weights.
    """
    return 1 / float((weight_C**2).sum())


def variance_of_mean(
    mean_MDC: np.ndarray, weight_C: np.ndarray, num_replicates: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (variance_M, df_M) of the weighted mean: classes by bootstrap, draws in closed form."""
    num_draws, num_classes = mean_MDC.shape[1:]
    if num_classes == 1:
        return np.full(len(mean_MDC), np.inf), np.ones(len(mean_MDC))
    df_classes = _df_of_classes(mean_MDC.mean(axis=1), weight_C)
    unbiased = num_classes / (num_classes - 1)
    by_class_M = unbiased * _bootstrap_variance(mean_MDC.mean(axis=1), weight_C, num_replicates, seed)
    if num_draws == 1:
        return by_class_M, df_classes
    draw_MD = mean_MDC @ weight_C
    pairs = num_draws * (num_draws - 1)
    by_draw_M = ((draw_MD - draw_MD.mean(axis=1, keepdims=True)) ** 2).sum(axis=1) / pairs
    left_MDC = (
        mean_MDC - mean_MDC.mean(axis=1, keepdims=True) - (draw_MD - draw_MD.mean(axis=1, keepdims=True))[..., None]
    )
    both_M = unbiased * ((left_MDC * weight_C) ** 2).sum(axis=(1, 2)) / pairs
    extra_M = np.maximum(by_draw_M - both_M, 0.0)
    total_M = by_class_M + extra_M
    spread_M = by_class_M**2 / df_classes + extra_M**2 / (num_draws - 1)  # Satterthwaite's degrees of freedom
    df_M = np.divide(total_M**2, spread_M, out=df_classes.copy(), where=spread_M > 0)
    return total_M, df_M


def _df_of_classes(mean_MC: np.ndarray, weight_C: np.ndarray) -> np.ndarray:
    """Returns df_M: a variance is less well known where a few bad or big classes make it up (excess kurtosis).

    From Var(s^2) = sigma^4 (2 / (C - 1) + kurtosis / C), matched to a chi-square of df degrees.
    """
    part_MC = weight_C * (mean_MC - (mean_MC @ weight_C)[:, None])
    fourth_M, second_M = (part_MC**4).mean(axis=1), (part_MC**2).mean(axis=1)
    kurtosis_M = np.divide(fourth_M, second_M**2, out=np.full(len(part_MC), 3.0), where=second_M > 1e-30) - 3
    df_M = 2 / (2 / max(num_clusters(weight_C) - 1, 1.0) + np.maximum(kurtosis_M, 0.0) / mean_MC.shape[1])
    return np.maximum(df_M, 1.0)


def _bootstrap_variance(mean_MC: np.ndarray, weight_C: np.ndarray, num_replicates: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    num_classes = len(weight_C)
    weighted_CM = (mean_MC * weight_C).T
    rows = max(1, _BLOCK_CELLS // num_classes)
    blocks = []
    for start in range(0, num_replicates, rows):
        size = min(rows, num_replicates - start)
        times_RC = rng.multinomial(num_classes, np.full(num_classes, 1 / num_classes), size=size).astype(np.float64)
        blocks.append((times_RC @ weighted_CM) / (times_RC @ weight_C)[:, None])
    return np.concatenate(blocks).var(axis=0)
