"""Whether open-set intervals keep their word, whose thresholds are found on the queries that they are about; and all coverages printed.

`python -m workbench.benchmarks.coverage_table` prints the tables of shares, of paired differences and of thresholds (two minutes).
Axes: T trials, C classes, Q queries, V values, G thresholds, R replicates, S splits, M measures.
"""

import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from itertools import product

import numpy as np
import pandas as pd
from scipy.stats import norm

from workbench.benchmarks.coverage import judge, pair_worlds, simulate_coverage, simulate_differences, worlds
from workbench.retrieval.open_set_measures import (
    TPR_LEVEL,
    accepted_above,
    bootstrap_weights,
    candidate_thresholds,
    doubt_of_threshold,
    interval_over_splits,
    measure,
    measure_names,
    thin_thresholds,
)


@dataclass(frozen=True)
class ThresholdWorld:
    """What known and unknown queries are like: similarities are normal, those of a class share a shift.

    Attributes:
        num_classes: of which a quarter is held out in each of 5 splits.
        queries: of a class.
        separation: mean similarity of the known less the unknown, in standard deviations of a query.
        class_spread: standard deviation of the classes.
    """

    num_classes: int = 20
    queries: int = 5
    separation: float = 2.5
    class_spread: float = 1.0


def simulate_thresholds(world: Iterable[ThresholdWorld], num_trials: int = 150, seed: int = 0) -> pd.DataFrame:
    """Returns how often open-set intervals held the truth, a row a world and measure; then as `simulate_coverage`.

    The measures: AUROC, FPR at 95 % TPR, DIR at 5 % FAR. Answers of known queries are all right, the gallery moves nothing.
    """
    names, chosen = measure_names((0.05,)), [0, 1, 4]
    rows = []
    for one in world:
        rng = np.random.default_rng(seed)
        deviation = np.hypot(1, one.class_spread)
        at_tpr, at_far = one.separation + norm.ppf(1 - TPR_LEVEL) * deviation, norm.isf(0.05) * deviation
        truth_M = [
            float(norm.cdf(one.separation / np.sqrt(2) / deviation)),
            float(norm.sf(at_tpr / deviation)),
            float(norm.sf((at_far - one.separation) / deviation)),
        ]
        found = [_threshold_trial(one, rng) for _ in range(num_trials)]
        low_TM, high_TM = (np.stack([trial[end] for trial in found])[:, chosen] for end in (1, 2))
        for place, (column, truth) in enumerate(zip(chosen, truth_M, strict=True)):
            doubt_T = np.array([doubt_of_threshold(names[column], trial[3]) for trial in found])
            rows.append(
                asdict(one) | {"measure": names[column]} | judge(low_TM[:, place], high_TM[:, place], doubt_T, truth)
            )
    return pd.DataFrame(rows)


def _threshold_trial(world: ThresholdWorld, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    class_Q = np.repeat(np.arange(world.num_classes), world.queries)
    shift_2C = rng.normal(0, world.class_spread, (2, world.num_classes))
    known_Q, unknown_Q = shift_2C[:, class_Q] + rng.normal(size=(2, len(class_Q))) + [[world.separation], [0.0]]
    weight_RC = bootstrap_weights(world.num_classes, 200, 0)
    num_held = round(world.num_classes / 4)
    values: list[np.ndarray] = []
    replicates: list[np.ndarray] = []
    unknown = set[int]()
    for _ in range(5):
        held = rng.permutation(world.num_classes)[:num_held]
        unknown |= set(held.tolist())
        is_held_Q = np.isin(class_Q, held)
        known_V, unknown_V = known_Q[~is_held_Q], unknown_Q[is_held_Q]
        every_G = candidate_thresholds([known_V, unknown_V])
        for into, threshold_G, codes_Q, weight in (
            (values, every_G, np.zeros_like(class_Q), np.ones((1, 1))),
            (replicates, thin_thresholds(every_G, unknown_V, known_V), class_Q, weight_RC),
        ):
            known_RG, unknown_RG = (
                weight @ accepted_above(value_V, None, codes_Q[rows_Q], weight.shape[1], threshold_G)
                for value_V, rows_Q in ((known_V, ~is_held_Q), (unknown_V, is_held_Q))
            )
            into.append(measure(known_RG, known_RG, unknown_RG, (0.05,), 0.5))
    ends = interval_over_splits(
        np.concatenate(values),
        np.stack(replicates),
        least_unknown=num_held,
        num_unknown=len(unknown),
        num_queries=len(class_Q),
    )
    return *ends, len(unknown)


def main() -> None:
    """Prints the table of each simulation, and how many worlds lie outside 93 to 97 %."""
    shares = [
        replace(one, spread=spread) for spread in (0.1, 0.3) for one in worlds(draws=(1, 10), num_classes=(20, 81, 315))
    ]
    thresholds = [
        ThresholdWorld(classes, 5, separation, spread)
        for classes, separation, spread in product((20, 60), (1.5, 2.5, 4.0), (0.5, 1.5))
    ]
    for title, table in (
        ("shares", simulate_coverage(shares, 500, num_replicates=300)),
        ("paired differences", simulate_differences(pair_worlds(), 1000, num_replicates=300)),
        ("thresholds", simulate_thresholds(thresholds, 100)),
    ):
        under, over = int((table["covered"] < 0.93).sum()), int((table["covered"] > 0.97).sum())
        sys.stdout.write(table.round(4).to_string(index=False) + "\n")
        sys.stdout.write(f"{title}: of {len(table)}, {under} hold in fewer than 93 %, {over} in more than 97 %\n\n")


if __name__ == "__main__":
    main()
