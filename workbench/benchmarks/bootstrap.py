"""The interval of an accuracy by resampling classes: ours, and a loop that gathers the queries of each replicate.

Axes: D draws, Q queries, C classes.
"""

from dataclasses import dataclass

import numpy as np

from workbench.benchmarks.measure import Answer, Contender
from workbench.retrieval.intervals import moderate, num_clusters, share_interval
from workbench.retrieval.stats import cluster_interval


@dataclass(frozen=True)
class BootstrapSize:
    """A result of few-shot recognition; the default has NVIDIA's published number of queries and classes."""

    num_queries: int = 58_699
    num_classes: int = 315
    draws: int = 10
    num_replicates: int = 1000
    seed: int = 0

    def describe(self) -> str:
        """Returns the size in words."""
        return f"{self.num_replicates:,} replicates, {self.num_queries:,} queries of {self.num_classes} classes"


TINY = BootstrapSize(num_queries=60, num_classes=6, draws=2, num_replicates=100)


def bootstrap_contenders(size: BootstrapSize) -> list[Contender]:
    """Returns the ways to the 95 % interval of the accuracy of one draw, the base ours; and ours of all draws."""
    rng = np.random.default_rng(size.seed)
    class_Q = np.r_[np.arange(size.num_classes), rng.integers(0, size.num_classes, size.num_queries - size.num_classes)]
    share_C = rng.beta(8, 2, size.num_classes)
    correct_DQ = (rng.random((size.draws, size.num_queries)) < share_C[class_Q]).astype(np.float32)
    noise = 6 * np.sqrt(1 / size.num_replicates) * share_C.std() / np.sqrt(size.num_classes)  # of two bootstraps
    return [
        Contender("workbench", lambda: _ours(correct_DQ[:1], class_Q, size), True, does="one draw"),
        Contender(
            f"workbench, {size.draws} draws",
            lambda: {"": _ours(correct_DQ, class_Q, size)["low"]},
            True,
            does="all draws",
        ),
        Contender(
            "a loop over replicates",
            lambda: loop_over_replicates(correct_DQ[0], class_Q, size),
            tolerance=noise,
            does="one draw; gathers each replicate's queries",
        ),
    ]


def _ours(correct_DQ: np.ndarray, class_Q: np.ndarray, size: BootstrapSize) -> Answer:
    metric = cluster_interval(correct_DQ, class_Q, num_replicates=size.num_replicates, seed=size.seed)
    return {"value": metric.value, "low": metric.low, "high": metric.high}


def loop_over_replicates(correct_Q: np.ndarray, class_Q: np.ndarray, size: BootstrapSize) -> Answer:
    """Returns value, low and high: classes drawn with replacement, their queries gathered, the interval from the variance.

    Source: cluster bootstrap, Cameron, Gelbach and Miller 2008; the form of the interval is that of `share_interval`.
    """
    rng = np.random.default_rng(size.seed + 1)
    rows_C = [np.flatnonzero(class_Q == code) for code in range(size.num_classes)]
    means = []
    for _ in range(size.num_replicates):
        drawn = rng.integers(0, size.num_classes, size.num_classes)
        means.append(correct_Q[np.concatenate([rows_C[code] for code in drawn])].mean())
    value = np.array([correct_Q.mean()], dtype=np.float64)
    variance = np.array([np.var(means) * size.num_classes / (size.num_classes - 1)])
    degrees = np.array([size.num_classes - 1.0])
    weight_C = np.bincount(class_Q) / len(class_Q)
    unit, degrees, _ = moderate(variance, value * (1 - value), len(correct_Q), num_clusters(weight_C), degrees)
    low, high = share_interval(value, unit, degrees)
    return {"value": float(value[0]), "low": float(low[0]), "high": float(high[0])}
