"""Seeds of one variant put together: their mean, how much the seed moves it, and how sure the mean is.

Axes: S seeds, D draws of the references, Q queries.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from workbench.retrieval.stats import Metric, cluster_interval
from workbench.runs.hits import Hits

_SEED_COLUMNS = [
    *(
        "variant",
        "num_seeds",
        "value",
        "low",
        "high",
        "seeds_low",
        "seeds_high",
        "smallest",
        "largest",
        "n",
        "protocol",
        "doubt",
    ),
]


def seed_interval(value_S: ArrayLike, level: float = 0.95) -> tuple[float, float, float]:
    """Returns (mean, low, high) over seeds, with Student's quantile; low and high are NaN for a single seed.

    It covers what the seed moves (weights, batches, augmentation), not the choice of queries and classes.

    Raises:
        ValueError: no seed.

    Source: Student 1908: mean plus or minus t of S - 1 degrees of freedom times s / sqrt(S).
    """
    values = np.asarray(value_S, np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"the values of at least one seed are wanted, shape {values.shape} was given")
    if len(values) == 1:
        return float(values[0]), float("nan"), float("nan")
    half = float(stdtrit(len(values) - 1, 0.5 + level / 2) * values.std(ddof=1) / np.sqrt(len(values)))
    return float(values.mean()), float(values.mean()) - half, float(values.mean()) + half


def group_seeds(metrics: pd.DataFrame, hits: Mapping[str, Mapping[int | None, Hits]]) -> pd.DataFrame:
    """Returns a row a variant of one metric under one protocol: its mean over seeds, with two intervals.

    Columns: variant, num_seeds, value, low and high (over classes, queries and seeds, where each run kept its hits on the same
    queries; of a single seed the run's own interval; NaN else), seeds_low and seeds_high (over seeds alone, NaN for one),
    smallest and largest seed's value, n (queries), protocol, doubt (why low and high are not to be relied on, or "").

    Args:
        metrics: rows of `runs.comparison.metrics_table` of one metric and protocol.
        hits: of the metric, by variant and seed.
    """
    rows = []
    for variant, runs in metrics.groupby("variant", sort=False):
        value, seeds_low, seeds_high = seed_interval(runs["value"])
        protocol = str(runs["protocol"].iloc[0])
        low, high = (float(runs[end].iloc[0]) if len(runs) == 1 else float("nan") for end in ("low", "high"))
        doubt = str(runs["doubt"].iloc[0]) if len(runs) == 1 else ""
        of_seeds = hits.get(str(variant), {})
        if (
            len(runs) > 1
            and len(of_seeds) == len(runs)
            and len({frozenset(one.query_Q) for one in of_seeds.values()}) == 1
        ):
            hit_SQ, labels = stack_seeds(of_seeds, list(of_seeds), next(iter(of_seeds.values())).query_Q)
            whole = cluster_interval(hit_SQ, labels)
            low, high, doubt = min(whole.low, value), max(whole.high, value), whole.doubt
        spread = (float(runs["value"].min()), float(runs["value"].max()), int(runs["n"].max()), protocol)
        rows.append((str(variant), len(runs), value, low, high, seeds_low, seeds_high, *spread, doubt))
    return pd.DataFrame(rows, columns=_SEED_COLUMNS)


def stack_seeds(
    side: Mapping[int | None, Hits], seeds: list[int | None], query_Q: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns a row a seed, float64 [S, Q]: the mean over its draws; and the labels."""
    taken = [take_queries(side[seed], query_Q) for seed in seeds]
    for _, labels in taken:
        check_labels(query_Q, taken[0][1], labels)
    return np.stack([hit_DQ.mean(axis=0) for hit_DQ, _ in taken]), taken[0][1]


def take_queries(one: Hits, query_Q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the hits of these queries, float64 [D, Q], and their labels."""
    place = {name: column for column, name in enumerate(one.query_Q)}
    columns = [place[name] for name in query_Q]
    return one.hit_DQ[:, columns].astype(np.float64), one.label_Q[columns]


def check_labels(query_Q: np.ndarray, first_Q: np.ndarray, second_Q: np.ndarray) -> None:
    """Refuses queries that have another label in another run.

    Raises:
        ValueError: names the first of them.
    """
    wrong = np.flatnonzero(first_Q.astype(str) != second_Q.astype(str))
    if len(wrong):
        one = wrong[0]
        raise ValueError(
            f"query {query_Q[one]} is of class {first_Q[one]} in one run and {second_Q[one]} in another: the data were "
            "labelled anew in between; compare runs of one catalog"
        )


def group_metrics(grouped: pd.DataFrame, metric: str) -> dict[str, Metric]:
    """Returns the means of `group_seeds` by name (`METRIC/variant`); those without an interval are left out."""
    return {
        f"{metric}/{row['variant']}": Metric(
            *(row["value"], row["low"], row["high"], int(row["n"])),
            f"mean of {row['num_seeds']} seeds; {row['protocol']}",
            row["doubt"],
        )
        for row in grouped.dropna(subset=["low", "high"]).to_dict("records")
    }
