"""Re-identification on drawn embeddings: ours, the libraries', one that sorts every row, and the bare matrix product.

Axes: Q queries, G gallery rows, D width.
"""

from dataclasses import dataclass, replace

import numpy as np

from workbench.benchmarks.measure import Answer, Contender, unit_rows
from workbench.retrieval.oracles import (
    Pairs,
    pml_accuracy,
    sklearn_average_precision,
    torchmetrics_average_precision,
)
from workbench.retrieval.reid import evaluate_reid
from workbench.retrieval.reid_protocol import ReidProtocol

WELL, POORLY = 2.0, 3.0
"""Noise for cosines within an individual of 0.2 and of 0.1; at a width of 512 those of others are 0.00 +- 0.04."""
BASE = "matrix product"


@dataclass(frozen=True)
class ReidSize:
    """What is drawn. The default is Market-1501's size; noise is `WELL` or `POORLY`; a tenth of the gallery are distractors."""

    num_queries: int = 3368
    num_gallery: int = 19732
    dim: int = 512
    num_identities: int = 751
    num_cameras: int = 6
    noise: float = POORLY
    seed: int = 0

    @property
    def inputs_mib(self) -> float:
        """Returns the size of the embeddings."""
        return 4 * (self.num_queries + self.num_gallery) * self.dim / 2**20

    def describe(self) -> str:
        """Returns the size in words."""
        return (
            f"{self.num_queries:,} queries x {self.num_gallery:,} rows x {self.dim}, "
            f"{self.num_identities:,} individuals, {self.num_cameras} cameras"
        )


TINY = ReidSize(num_queries=20, num_gallery=60, dim=16, num_identities=5)


def draw_pairs(size: ReidSize) -> Pairs:
    """Returns the drawn embeddings with labels and cameras; a query may lack a match, as in life."""
    rng = np.random.default_rng(size.seed)
    centre_CD = rng.standard_normal((size.num_identities + size.num_gallery // 10, size.dim), dtype=np.float32)
    label_Q = rng.integers(0, size.num_identities, size.num_queries)
    label_G = rng.integers(0, size.num_identities, size.num_gallery)
    distractors = rng.choice(size.num_gallery, size.num_gallery // 10, replace=False)
    label_G[distractors] = size.num_identities + np.arange(len(distractors))
    query_QD, gallery_GD = (unit_rows(rng, centre_CD, label_N, size.noise) for label_N in (label_Q, label_G))
    camera_Q, camera_G = (rng.integers(0, size.num_cameras, count) for count in (size.num_queries, size.num_gallery))
    return Pairs(query_QD, gallery_GD, label_Q, label_G, camera_Q, camera_G)


def reid_contenders(size: ReidSize) -> list[Contender]:
    """Returns the ways to mAP and rank-1 (Market-1501's junk rule, but for pytorch-metric-learning, which has none)."""
    pairs = draw_pairs(size)
    free = replace(pairs, camera_Q=None, camera_G=None)
    near_tie = 3 / size.num_queries  # libraries round differently: a few first places may change
    return [
        Contender(BASE, lambda: _multiply(pairs), does="no evaluation: the similarities alone"),
        Contender("workbench", lambda: _ours(pairs, ()), True),
        Contender(
            "workbench, with TAR at FAR", lambda: _ours(pairs, (0.01, 0.001)), True, does="TAR at FAR 1 % and 0.1 % too"
        ),
        Contender("every row sorted", lambda: rank_by_sorting(pairs), does="argsort, then a loop over the queries"),
        Contender(
            "every pair sorted, for TAR at FAR",
            lambda: accept_by_sorting(pairs, (0.01, 0.001)),
            tolerance=1e-5,
            does="TAR at FAR alone",
        ),
        Contender(
            "scikit-learn",
            lambda: {"mAP": float(np.nanmean(sklearn_average_precision(pairs)))},
            does="average_precision_score a query, mAP alone",
        ),
        Contender(
            "torchmetrics",
            lambda: {"mAP": float(np.nanmean(torchmetrics_average_precision(pairs)))},
            tolerance=1e-4,
            does="retrieval_average_precision a query, mAP alone, float32",
        ),
        Contender("workbench, no camera rule", lambda: _ours_free(free), True, does="as pytorch-metric-learning counts"),
        Contender(
            "pytorch-metric-learning",
            lambda: _pml(free),
            tolerance=near_tie,
            does="AccuracyCalculator, k=None: the whole ranking; no camera rule",
        ),
    ]  # fmt: skip


def grown(size: ReidSize, num_gallery: int) -> ReidSize:
    """Returns the size with a gallery of so many rows, the images of an individual as many as before, the queries as they are."""
    individuals = max(2, round(size.num_identities * num_gallery / size.num_gallery))
    return replace(size, num_gallery=num_gallery, num_identities=individuals)


def rank_by_sorting(pairs: Pairs) -> Answer:
    """Returns mAP, rank-1 and mINP as re-identification code usually has them: sort every row, then loop over queries.

    Source: Zheng et al. 2015 (the evaluation of Market-1501); Ye et al. 2021 (mINP).
    """
    order_QG = np.argsort(-(pairs.query_QD @ pairs.gallery_GD.T), axis=1)
    found = []
    for query, order_G in enumerate(order_QG):
        right_G = pairs.label_G[order_G] == pairs.label_Q[query]
        if pairs.camera_Q is not None and pairs.camera_G is not None:
            right_G = right_G[~(right_G & (pairs.camera_G[order_G] == pairs.camera_Q[query]))]
        if right_G.any():
            place_P = np.flatnonzero(right_G) + 1
            precision_P = np.cumsum(right_G)[place_P - 1] / place_P
            found.append((precision_P.mean(), place_P[0] == 1, len(place_P) / place_P[-1]))
    return dict(zip(("mAP", "rank-1", "mINP"), np.mean(found, axis=0).tolist(), strict=True))


def accept_by_sorting(pairs: Pairs, fars: tuple[float, ...]) -> Answer:
    """Returns TAR at FAR from the sorted list of all pairs of different individuals; pairs of one camera and individual are junk."""
    similarity_QG = pairs.query_QD @ pairs.gallery_GD.T
    right_QG = pairs.label_Q[:, None] == pairs.label_G
    wrong = np.sort(similarity_QG[~right_QG])[::-1]
    if pairs.camera_Q is not None:
        right_QG &= pairs.camera_Q[:, None] != pairs.camera_G
    right = similarity_QG[right_QG]
    places = (int(np.floor(far * len(wrong) * (1 + 1e-12))) for far in fars)
    return {
        f"TAR@FAR={far * 100:.6g}%": float((right > wrong[place]).mean())
        for far, place in zip(fars, places, strict=True)
    }


def _multiply(pairs: Pairs) -> Answer:
    pairs.query_QD @ pairs.gallery_GD.T
    return {}


def _ours(pairs: Pairs, far: tuple[float, ...]) -> Answer:
    protocol = ReidProtocol(far=far)
    sides = pairs.query_QD, pairs.gallery_GD, pairs.label_Q, pairs.label_G, pairs.camera_Q, pairs.camera_G
    return {name: metric.value for name, metric in evaluate_reid(*sides, protocol).metrics.items()}


def _ours_free(pairs: Pairs) -> Answer:
    protocol = ReidProtocol(junk="none", far=())
    metrics = evaluate_reid(
        pairs.query_QD, pairs.gallery_GD, pairs.label_Q, pairs.label_G, None, None, protocol
    ).metrics
    return {f"{name} without rule": metrics[name].value for name in ("mAP", "rank-1")}


def _pml(pairs: Pairs) -> Answer:
    found = pml_accuracy(pairs, ("precision_at_1", "mean_average_precision"), None)
    return {"mAP without rule": found["mean_average_precision"], "rank-1 without rule": found["precision_at_1"]}
