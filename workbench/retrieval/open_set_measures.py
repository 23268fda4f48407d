"""What is accepted at each threshold, and every open-set number that follows from it, with its interval.

An answer is accepted when its statistic is **above** the threshold: equal statistics are accepted or refused together.
Axes: V values, C classes, G thresholds (descending), R rows of class weights (the first use: one row of ones, the value itself;
else replicates of the bootstrap), S splits, M measures, F rates, K coverages.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

from workbench.retrieval.false_accepts import far_name
from workbench.retrieval.intervals import moderate, share_interval

TPR_LEVEL = 0.95
COVERAGES = tuple(np.round(np.arange(0.05, 1.001, 0.05), 2).tolist())
FAR_GRID = tuple(np.geomspace(1e-3, 1, 31).tolist())
MOST_THRESHOLDS = 600
FEWEST_UNKNOWN = 100
_ROUNDING = 1e-9


def candidate_thresholds(values: Sequence[np.ndarray]) -> np.ndarray:
    """Returns threshold_G, float64, descending: every distinct value and -inf, at which all is accepted."""
    return np.append(np.unique(np.concatenate(values).astype(np.float64))[::-1], -np.inf)


def thin_thresholds(threshold_G: np.ndarray, tail_V: np.ndarray, all_V: np.ndarray) -> np.ndarray:
    """Returns at most about 600 of the thresholds: ranks of both arrays evenly, the largest of tail_V one by one, and -inf.

    All of them where there are no more. For replicates of the bootstrap only: a value is computed with all thresholds.
    """
    if len(threshold_G) <= MOST_THRESHOLDS:
        return threshold_G
    third = MOST_THRESHOLDS // 3
    chosen = [np.sort(tail_V)[::-1][:third]]
    for values in (tail_V, all_V):
        chosen.append(np.sort(values)[np.linspace(0, len(values) - 1, third).astype(int)])
    return candidate_thresholds([*chosen, threshold_G[:1]])


def accepted_above(
    value_V: np.ndarray, amount_V: np.ndarray | None, class_V: np.ndarray, num_classes: int, threshold_G: np.ndarray
) -> np.ndarray:
    """Returns accepted_CG, float64: for each class the sum of the amounts (None: 1 each) whose value is above a threshold."""
    place_V = np.searchsorted(-threshold_G, -value_V.astype(np.float64), side="right")
    width = len(threshold_G) + 1
    sums = np.bincount(class_V * width + place_V, weights=amount_V, minlength=num_classes * width)
    return np.cumsum(sums.reshape(num_classes, width).astype(np.float64), axis=1)[:, :-1]


def bootstrap_weights(num_classes: int, num_replicates: int, seed: int) -> np.ndarray:
    """Returns weight_RC, float64, above 0, mean 1: classes resampled so that none ever vanishes.

    With few unknown classes the plain bootstrap often draws none of them.

    Source: Rubin 1981, "The Bayesian bootstrap" (exponential weights).
    """
    return np.random.default_rng([seed, 1]).standard_exponential((num_replicates, num_classes))


def measure(
    known_RG: np.ndarray,
    right_RG: np.ndarray,
    unknown_RG: np.ndarray,
    fars: Sequence[float],
    unknown_share: float,
) -> np.ndarray:
    """Returns measure_RM, float64, 0 to 1; the columns are `measure_names(fars)`.

    AUROC: a known query above an unknown one, ties half. FPR at 95 % TPR: share of unknown queries accepted at the
    largest threshold at which 95 % of the known ones are. OSCR: area under the share of known queries accepted with the right
    answer against the share of unknown ones accepted, joined by straight lines (ties half). DIR at FAR: share of known
    queries accepted with the right answer at the smallest threshold that accepts at most FAR of the unknown ones. AURC: mean
    over coverage of the share of accepted answers that are wrong, an unknown query always, at unknown_share
    unknown queries; answers that tie are accepted together.

    Args:
        known_RG: weight of the known queries above each threshold, the last one accepting all.
        right_RG: the part of it that is answered right.
        unknown_RG: the same of the unknown queries.
        fars: rates of false accepts.
        unknown_share: weight of the unknown queries in risk and coverage.

    Source: Dhamija, Guenther and Boult 2018 (OSCR); Phillips, Grother and Micheals 2011, "Evaluation methods in face
    recognition" (DIR at FAR, open-set identification at rank 1); Geifman and El-Yaniv 2017 (risk, coverage; AURC).
    """
    total_R, unknown_total_R = known_RG[:, -1:], unknown_RG[:, -1:]
    known_RG, right_RG, unknown_RG = known_RG / total_R, right_RG / total_R, unknown_RG / unknown_total_R
    rows = np.arange(len(known_RG))
    at_tpr = (known_RG >= TPR_LEVEL - _ROUNDING).argmax(axis=1)
    coverage_RG = (1 - unknown_share) * known_RG + unknown_share * unknown_RG
    wrong_RG = coverage_RG - (1 - unknown_share) * right_RG
    risk_RG = np.divide(wrong_RG, coverage_RG, out=np.zeros_like(wrong_RG), where=coverage_RG > 0)
    columns = [
        _area(unknown_RG, known_RG),
        unknown_RG[rows, at_tpr],
        _area(unknown_RG, right_RG),
        (np.diff(coverage_RG, axis=1, prepend=0.0) * risk_RG).sum(axis=1),
    ]
    columns += [right_RG[rows, last_within(unknown_RG, far)] for far in (*fars, *FAR_GRID)]
    columns += [risk_RG[rows, (coverage_RG >= level - _ROUNDING).argmax(axis=1)] for level in COVERAGES]
    return np.clip(np.stack(columns, axis=1), 0.0, 1.0)


def measure_names(fars: Sequence[float]) -> list[str]:
    """Returns the names of the columns of `measure`."""
    names = ["AUROC", f"FPR@TPR={TPR_LEVEL * 100:.6g}%", "OSCR", "AURC", *(far_name(far, "DIR") for far in fars)]
    return names + [f"curve DIR {far:.6g}" for far in FAR_GRID] + [f"curve risk {level:.6g}" for level in COVERAGES]


def doubt_of_threshold(name: str, num_unknown: int) -> str:
    """Returns why the interval of this measure is not to be relied on, or "".

    FPR at a TPR and DIR at a FAR depend on a threshold that is found on the same queries. With fewer than `FEWEST_UNKNOWN` unknown
    classes in all splits it moves by steps and to one side, which resampling does not show: in simulation such 95 % intervals
    hold in 85 to 97 % (`benchmarks.coverage_table`).
    """
    if num_unknown >= FEWEST_UNKNOWN or "@" not in name:
        return ""
    return f"its threshold rests on {num_unknown} unknown labels, fewer than {FEWEST_UNKNOWN}"


def last_within(share_RG: np.ndarray, far: float) -> np.ndarray:
    """Returns place_R, int64: the smallest threshold at which the share, that does not fall along G, is at most far; else 0."""
    return np.maximum((share_RG <= far + _ROUNDING).sum(axis=1) - 1, 0)


def interval_over_splits(
    value_SM: np.ndarray,
    replicate_SRM: np.ndarray,
    *,
    least_unknown: int,
    num_unknown: int,
    num_queries: int,
    is_share: bool = True,
    level: float = 0.95,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (value_M, low_M, high_M): means over splits, with intervals over classes and splits.

    The variance between replicates, in which a class has one weight in all splits, is that of the classes; the variance between the
    splits' values is added as far as the classes do not explain it already (two-way clustering). Few unknown classes
    make both too small, corrected by (U + 1) / (U - 1) for U unknown classes in a split. Shares get Wilson's interval at the
    effective number of trials, other numbers a symmetric one, both with Student's quantile at U' - 1 degrees of freedom,
    U' the unknown classes of all splits. The gallery is not resampled: what other known products would do to the similarities
    shows in so far as splits differ.

    Args:
        value_SM: of each split.
        replicate_SRM: replicates of each, the same class weights for all splits.
        least_unknown: the smallest number of unknown classes in a split.
        num_unknown: different unknown classes in all splits.
        num_queries: different queries in all splits, the most independent trials there can be.
        is_share: values are from 0 to 1.
        level: coverage wanted.

    Source: as `stats.cluster_interval`.
    """
    num_splits = len(value_SM)
    value_M = value_SM.mean(axis=0)
    small = (least_unknown + 1) / (least_unknown - 1) if least_unknown > 1 else 1.0
    by_class_M = small * replicate_SRM.mean(axis=0).var(axis=0)
    total_M, df_M = by_class_M.copy(), np.full(value_M.shape, max(num_unknown - 1.0, 1.0))
    if num_splits > 1:
        pairs = num_splits * (num_splits - 1)
        explained_M = (small * replicate_SRM.var(axis=1).sum(axis=0) - num_splits * by_class_M) / pairs
        extra_M = np.maximum(((value_SM - value_M) ** 2).sum(axis=0) / pairs - np.maximum(explained_M, 0), 0)
        total_M += extra_M
        spread_M = by_class_M**2 / df_M + extra_M**2 / (num_splits - 1)
        df_M = np.maximum(np.divide(total_M**2, spread_M, out=df_M.copy(), where=spread_M > 0), 1.0)
    if is_share:
        value_M = np.round(value_M, 12)
        unit_M, df_M, _ = moderate(total_M, value_M * (1 - value_M), num_queries, num_unknown, df_M)
        low_M, high_M = share_interval(value_M, unit_M, df_M, level)
        return value_M, low_M, high_M
    half_M = stdtrit(df_M, 0.5 + level / 2) * np.sqrt(total_M)
    return value_M, value_M - half_M, value_M + half_M


def _area(x_RG: np.ndarray, y_RG: np.ndarray) -> np.ndarray:
    zero = np.zeros((len(x_RG), 1))
    x_RG, y_RG = np.hstack([zero, x_RG]), np.hstack([zero, y_RG])
    return (np.diff(x_RG, axis=1) * (y_RG[:, 1:] + y_RG[:, :-1]) / 2).sum(axis=1)
