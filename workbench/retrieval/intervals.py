"""How far a mean over classes may be off: classes by bootstrap, draws in closed form, score intervals on top.

Axes: M metrics, D draws of the references, C classes, Q queries, R replicates of the bootstrap.
"""

from typing import Literal, get_args

import numpy as np
from scipy.special import digamma, stdtrit

Average = Literal["micro", "macro"]
NUM_REPLICATES = 2000
ICC = 0.15  # how alike the queries of a class are, as long as the data do not show it
DOUBTFUL_ICC = 0.3
PRIOR_DF = 8.0  # degrees of freedom that this prior is worth
_ENOUGH = 3.0  # queries that differ wholly
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


def moderate(
    variance_M: np.ndarray, second_M: np.ndarray, num_trials: float, num_clusters: float, df_M: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (unit_M, df_M, doubt_M): variance of a mean per variance of a query, degrees of freedom, and a warning or "".

    The unit is 1 / trials where queries are independent, 1 / clusters where a class answers as one; the classes' own is variance
    / second. Where next to no query differs, the own says nothing, and a prior stands in for it: of classes alike to `ICC`, first
    by the chance that none of their queries differs, from three whole queries on by their design effect. An own above
    the prior counts as soon as one query differs, one below it by its degrees of freedom against `PRIOR_DF`. So the unit moves with
    the data without a jump, and errs on the careful side. In simulation (`benchmarks.coverage_table`) 95 % intervals of differences
    then hold in 94 % or more; those of shares in 93 % or more for classes alike to 0.1, in 90 to 98 % for 0.3. The least
    are those that few classes make up: they are marked where the classes show themselves alike to `DOUBTFUL_ICC`, a third
    of the intervals of such worlds.

    Args:
        variance_M: of the mean, from `variance_of_mean`.
        second_M: variance of a query's value around the mean.
        num_trials: effective number of queries.
        num_clusters: effective number of classes.
        df_M: degrees of freedom of the variance.

    Source: Smyth 2004 (a variance moderated by a prior one, degrees of freedom added); Kish 1965 (design effect
    1 + (m - 1) icc); none of m with probability exp(-p a (psi(a + m) - psi(a))), a = 1 / icc - 1, for small p: the limit of
    the beta-binomial distribution.
    """
    alike = 1 / ICC - 1
    none = 1 / (num_clusters * alike * (digamma(alike + num_trials / num_clusters) - digamma(alike)))
    usual, marked = ((1 - icc) / num_trials + icc / num_clusters for icc in (ICC, DOUBTFUL_ICC))
    own_M = np.divide(variance_M, second_M, out=np.zeros_like(second_M), where=second_M > 1e-12)
    whole_M = num_trials * second_M
    enough_M = np.minimum(whole_M / _ENOUGH, 1.0)
    seen_M = df_M * enough_M
    prior_M = none + (usual - none) * enough_M
    share_M = np.where(own_M > prior_M, np.minimum(whole_M, 1.0), seen_M / (PRIOR_DF + seen_M))
    unit_M = np.clip(prior_M + share_M * (own_M - prior_M), 1 / num_trials, 1.0)
    unit_M = np.where(np.isinf(variance_M), 1.0, unit_M)  # a single class
    is_doubtful_M = (own_M > marked) & (seen_M < PRIOR_DF)
    return (
        unit_M,
        np.minimum(PRIOR_DF + seen_M, max(num_clusters - 1, 1.0)),
        np.where(is_doubtful_M, "few labels make it up and they differ much", ""),
    )


def share_interval(
    p: np.ndarray, unit: np.ndarray, df: np.ndarray, level: float = 0.95, second: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (low, high) of a share p: Wilson's interval at 1 / unit trials, with Student's quantile.

    Args:
        p: 0 to 1.
        unit: of `moderate`; 1 / n for n independent trials.
        df: degrees of freedom of the quantile.
        level: coverage wanted.
        second: variance of a query's value, below p (1 - p) where values lie between 0 and 1; None is p (1 - p). If p were
            another, values of the size seen are added and taken away, or whole ones where next to none were seen.

    Source: Korn and Graubard 1998 (t quantile for proportions from clusters); Franco et al. 2019, "Comparative study of
    confidence intervals for proportions in complex sample surveys" (its Wilson form).
    """
    p = np.clip(p, 0.0, 1.0)
    second = p * (1 - p) if second is None else second
    factor = stdtrit(df, 0.5 + level / 2) ** 2 * unit

    def reach(near: np.ndarray) -> np.ndarray:
        far = 1 - near
        added = _size(second + far**2, far, second / unit)
        taken = np.divide(second, near, out=np.ones_like(near), where=near > 0)
        slope = factor * np.maximum(added - 2 * far, np.minimum(0.0, near - taken))
        return np.asarray((slope + np.sqrt(slope**2 + 4 * (1 + factor) * factor * second)) / (2 * (1 + factor)))

    low, high = np.clip(p - reach(p), 0, p), np.clip(p + reach(1 - p), p, 1)
    return np.where(p <= 0, 0.0, low), np.where(p >= 1, 1.0, high)


def difference_interval(
    value: np.ndarray, absolute: np.ndarray, square: np.ndarray, unit: np.ndarray, df: np.ndarray, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (low, high) of a mean paired difference, -1 to 1: the differences D that a score test does not refuse.

    Tango's interval, with the variance times a design effect and Student's quantile: (D - value)^2 <= t^2 unit (s(D) - D^2).
    s(D) is the share of queries that differ, most likely if D were true; so equal models have an interval too, t^2 unit /
    (1 + t^2 unit) on both sides. Graded differences (of precisions) are added and taken away in the size seen, square / absolute,
    added as whole ones where next to none were seen.

    Args:
        value: mean difference.
        absolute: mean of its absolute value over queries (of the share of queries that differ, for right and wrong).
        square: mean square.
        unit, df: of `moderate`.
        level: coverage wanted.

    Source: Tango 1998, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design"; Eliasziw and Donner 1991 (McNemar's test with a design effect for clusters).
    """
    factor = stdtrit(df, 0.5 + level / 2) ** 2 * unit
    taken = np.divide(square, absolute, out=np.ones_like(square), where=absolute > 0)
    added = _size(square, absolute, np.maximum(square - value**2, 0.0) / unit)

    def holds(shift: np.ndarray) -> np.ndarray:
        other = value + shift
        half = (absolute + value * other) / 2
        differing = half + np.sqrt(np.maximum(half**2 + other * shift - absolute * other**2, 0.0))
        change = differing - absolute
        spread = square + np.where(change > 0, added, taken) * change - other**2
        return np.asarray(shift**2 <= factor * np.maximum(spread, 0.0))

    ends = []
    for side in (-1.0, 1.0):
        inner, outer = np.zeros_like(value), 1 - side * value
        for _ in range(50):
            middle = (inner + outer) / 2
            inside = holds(side * middle)
            inner, outer = np.where(inside, middle, inner), np.where(inside, outer, middle)
        ends.append(value + side * inner)
    return ends[0], ends[1]


def _size(square: np.ndarray, mean: np.ndarray, num_seen: np.ndarray) -> np.ndarray:
    """By how much the mean square grows with the mean of values from 0 to 1: by their size seen, or, where next to no query has
    shown one, as if they rose to 1.
    """
    whole, seen = (
        np.divide(*part, out=np.ones_like(mean), where=part[1] > 0) for part in ((1 - square, 1 - mean), (square, mean))
    )
    return np.asarray(whole + np.minimum(num_seen / _ENOUGH, 1.0) * (seen - whole))


def interval_of_class_means(
    mean_MDC: np.ndarray,
    count_C: np.ndarray,
    average: Average,
    *,
    level: float = 0.95,
    num_replicates: int = NUM_REPLICATES,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns (value_M, low_M, high_M, doubt_M) of M shares measured on the same classes and queries, for doubt see `moderate`.

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
    unit_M, df_M, doubt_M = moderate(
        variance_M, value_M * (1 - value_M), num_trials(weight_C, count_C), num_clusters(weight_C), df_M
    )
    return value_M, *share_interval(value_M, unit_M, df_M, level), doubt_M


def moderate_differences(
    mean_MDC: np.ndarray,
    square_M: np.ndarray,
    count_C: np.ndarray,
    average: Average,
    num_replicates: int = NUM_REPLICATES,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns (value_M, unit_M, df_M, doubt_M) of M mean paired differences, for `difference_interval`.

    Args:
        mean_MDC: mean difference of each class in each draw, -1 to 1.
        square_M: mean square of the queries' differences (of their means over draws), with the weights of the average.
        count_C, average, num_replicates, seed: as in `interval_of_class_means`.
    """
    weight_C = class_weights(count_C, average)
    value_M = mean_MDC.mean(axis=1) @ weight_C
    variance_M, df_M = variance_of_mean(mean_MDC, weight_C, num_replicates, seed)
    second_M = np.maximum(square_M - value_M**2, 0.0)
    moderated = moderate(variance_M, second_M, num_trials(weight_C, count_C), num_clusters(weight_C), df_M)
    return value_M, *moderated


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


def num_trials(weight_C: np.ndarray, count_C: np.ndarray) -> float:
    """Returns the effective number of queries: 1 / sum of their squared weights, those of a class weighing the same."""
    return 1 / float((weight_C**2 / count_C).sum())


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
