"""Whether a probability keeps its word: the share that is right where it says so, Brier and ECE.

Axes: N answers, B bins.
"""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from workbench.retrieval.calibration import check_answers
from workbench.retrieval.stats import Metric, cluster_interval


def reliability(
    probability_N: ArrayLike, correct_N: ArrayLike, groups: ArrayLike, *, num_bins: int = 10
) -> pd.DataFrame:
    """Returns a row a bin of equally many answers: bin, from, to, predicted (mean), observed, low, high, n, num_classes.

    Probabilities equal to three digits are never parted, so that bins may be fewer and unequal. The interval covers
    classes (`cluster_interval`).

    Args:
        probability_N: 0 to 1; by `cross_fit`, or the table shows the fit and not what it is worth.
        correct_N: 0 to 1.
        groups: the class of each answer.
        num_bins: at least 1.

    Raises:
        ValueError: no answer, lengths that differ, NaN, values out of 0 to 1, num_bins below 1.
    """
    probability_N, correct_N, class_N, bin_N = _bins(probability_N, correct_N, groups, num_bins)
    rows = []
    for number in range(int(bin_N.max()) + 1):
        own = bin_N == number
        observed = cluster_interval(correct_N[own], class_N[own])
        values = probability_N[own]
        ends = (observed.value, observed.low, observed.high, observed.n, len(np.unique(class_N[own])))
        rows.append((number + 1, values.min(), values.max(), values.mean(), *ends))
    columns = ["bin", "from", "to", "predicted", "observed", "low", "high", "n", "num_classes"]
    return pd.DataFrame(rows, columns=columns)


def calibration_metrics(
    probability_N: ArrayLike, correct_N: ArrayLike, groups: ArrayLike, *, num_bins: int = 10, protocol: str = ""
) -> dict[str, Metric]:
    """Returns `calibration/Brier`, `calibration/Brier of the base rate` and `calibration/ECE`; smaller is better.

    Brier: mean squared difference of probability and truth, expected where answers tie. Its base rate: that of one probability, the
    share of right answers, for all. ECE: mean absolute difference of mean probability and observed share over bins of equally
    many answers, weighed by them; chance alone makes it larger than 0, the more so the fewer answers a bin has. Intervals cover
    classes; that of the ECE is the spread between classes of the signed differences that make it up.

    Args:
        probability_N: as in `reliability`.
        correct_N: as there.
        groups: as there.
        num_bins: as there.
        protocol: how the answers came about, for the protocol line.

    Raises:
        ValueError: as `reliability`.

    Source: Brier 1950; Naeini, Cooper and Hauskrecht 2015 (ECE), with bins of equal count.
    """
    probability_N, correct_N, class_N, bin_N = _bins(probability_N, correct_N, groups, num_bins)
    base = float(correct_N.mean())
    line = f"{protocol}; " if protocol else ""
    counts = f"{len(correct_N):,} answers of {len(np.unique(class_N)):,} classes, 95 % interval over classes"
    metrics = {}
    for name, guess_N in (("Brier", probability_N), ("Brier of the base rate", np.full(len(correct_N), base))):
        squared_N = correct_N * (1 - guess_N) ** 2 + (1 - correct_N) * guess_N**2
        metrics[f"calibration/{name}"] = cluster_interval(squared_N, class_N, protocol=f"{line}{name}; {counts}")
    gap_N = probability_N - correct_N
    sign_B = np.sign(np.bincount(bin_N, gap_N))
    ece = float(np.abs(np.bincount(bin_N, gap_N)).sum() / len(gap_N))
    spread = cluster_interval((1 + sign_B[bin_N] * gap_N) / 2, class_N)  # from -1..1 to 0..1: a share for the interval
    low, high = max(2 * spread.low - 1, 0.0), min(2 * spread.high - 1, 1.0)
    name = f"ECE, {int(bin_N.max()) + 1} bins of equal count; above 0 by chance alone"
    metrics["calibration/ECE"] = Metric(ece, min(low, ece), max(high, ece), len(gap_N), f"{line}{name}; {counts}")
    return metrics


def _bins(
    probability_N: ArrayLike, correct_N: ArrayLike, groups: ArrayLike, num_bins: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    features_NF, correct_N, class_N = check_answers(probability_N, correct_N, groups, None)
    probability_N = features_NF[:, 0]
    if not ((probability_N >= 0) & (probability_N <= 1)).all() or num_bins < 1:
        raise ValueError(f"probabilities from 0 to 1 and at least one bin are wanted, found {num_bins} bins")
    # the place of the first of equal probabilities decides on their bin
    near_N = np.round(probability_N, 3)
    _, first, of = np.unique(np.sort(near_N), return_index=True, return_inverse=True)
    wanted_N = np.empty(len(of), np.int64)
    wanted_N[np.argsort(near_N, kind="stable")] = first[of] * num_bins // len(of)
    return probability_N, correct_N, class_N, np.unique(wanted_N, return_inverse=True)[1]
