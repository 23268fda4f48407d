"""A few-shot sweep on drawn embeddings: ours, a search for every point of the curve (numpy, two libraries), the bare product.

Axes: N reference rows, Q queries, D width. A point is a number of shots in a draw of the references.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from workbench.benchmarks.measure import Answer, Contender, unit_rows
from workbench.retrieval.draws import draw_ranks
from workbench.retrieval.few_shot import FewShotProtocol, evaluate_few_shot
from workbench.retrieval.oracles import Pairs, pml_accuracy, sklearn_nearest

PUBLISHED_SHOTS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20, 25, 30, 40, 50, 60, 80, 100)
BASE = "matrix product"
_QUERIES_A_BLOCK = 2048


@dataclass(frozen=True)
class FewShotSize:
    """What is drawn and swept. The default is NVIDIA's published scale (315 classes, 100 references, 58,699 queries).

    Attributes:
        num_classes: all with num_references references.
        num_references: of each class, at least the largest of shots.
        num_queries: of random classes.
        dim: width.
        shots: of the curve, ascending.
        draws: that ours makes.
        peer_draws: that the others make: one takes them long enough. Draws do not depend on their number, so that the points they make
            are ours too.
        noise: see `measure.unit_rows`.
        seed: of the drawing.
    """

    num_classes: int = 315
    num_references: int = 100
    num_queries: int = 58_699
    dim: int = 1024
    shots: tuple[int, ...] = PUBLISHED_SHOTS
    draws: int = 10
    peer_draws: int = 1
    noise: float = 4.0
    seed: int = 0

    def describe(self) -> str:
        """Returns the size in words."""
        return (
            f"{self.num_classes} classes x {self.num_references} references, {self.num_queries:,} queries, width {self.dim}, "
            f"{len(self.shots)} numbers of shots, {self.draws} draws"
        )


TINY = FewShotSize(num_classes=4, num_references=3, num_queries=12, dim=16, shots=(1, 3), draws=2)


def few_shot_contenders(size: FewShotSize) -> list[Contender]:
    """Returns the ways to accuracy@1, nearest reference, at every point."""
    pairs = _draw(size)
    labels_N, labels_Q = (
        np.array([f"{code:05d}" for code in codes], dtype=object) for codes in (pairs.label_G, pairs.label_Q)
    )
    names = np.unique(labels_N)
    rank_DN = draw_ranks(pairs.label_G, names, size.peer_draws, size.seed)  # rows are in the order of their labels

    def ours(draws: int) -> Answer:
        protocol = FewShotProtocol(size.shots, draws, size.seed, top=(1,))
        hits = evaluate_few_shot(pairs.gallery_GD, labels_N, pairs.query_QD, labels_Q, protocol).hits
        points = ((k, draw) for k in size.shots for draw in range(draws))
        return {f"k={k}, draw {draw}": float(hits[f"accuracy@1/shots={k}"][draw].mean()) for k, draw in points}

    def each_point(search: Callable[[Pairs], float]) -> Answer:
        found = {}
        for draw in range(size.peer_draws):
            for k in size.shots:
                used_N = rank_DN[draw] < k
                part = Pairs(pairs.query_QD, pairs.gallery_GD[used_N], pairs.label_Q, pairs.label_G[used_N])
                found[f"k={k}, draw {draw}"] = search(part)
        return found

    few = "" if size.peer_draws == size.draws else f", {size.peer_draws} of {size.draws} draws"
    does = f"{size.peer_draws * len(size.shots)} points, a search for each"
    near_tie = 3 / size.num_queries  # libraries round differently: a few nearest references may change
    peers = {"search per point": _search, "scikit-learn": _sklearn, "pytorch-metric-learning": _pml}
    return [
        Contender(BASE, lambda: _multiply(pairs), does="no evaluation: all similarities once"),
        Contender("workbench", lambda: ours(size.draws), True, does=f"{size.draws * len(size.shots)} points, one pass"),
        *([Contender(f"workbench{few}", lambda: ours(size.peer_draws), True, does="one pass")] if few else []),
        *(Contender(f"{name}{few}", partial(each_point, search), False, near_tie, does) for name, search in peers.items()),
    ]  # fmt: skip


def _draw(size: FewShotSize) -> Pairs:
    rng = np.random.default_rng(size.seed)
    centre_CD = rng.standard_normal((size.num_classes, size.dim), dtype=np.float32)
    label_N = np.repeat(np.arange(size.num_classes), size.num_references)
    label_Q = rng.integers(0, size.num_classes, size.num_queries)
    reference_ND, query_QD = (unit_rows(rng, centre_CD, codes, size.noise) for codes in (label_N, label_Q))
    return Pairs(query_QD, reference_ND, label_Q, label_N)


def _blocks(pairs: Pairs) -> Iterator[tuple[slice, np.ndarray]]:
    for start in range(0, len(pairs.query_QD), _QUERIES_A_BLOCK):
        rows = slice(start, start + _QUERIES_A_BLOCK)
        yield rows, pairs.query_QD[rows] @ pairs.gallery_GD.T


def _multiply(pairs: Pairs) -> Answer:
    for _ in _blocks(pairs):
        pass
    return {}


def _search(pairs: Pairs) -> float:
    right = [pairs.label_G[similarity.argmax(axis=1)] == pairs.label_Q[rows] for rows, similarity in _blocks(pairs)]
    return float(np.concatenate(right).mean())


def _sklearn(pairs: Pairs) -> float:
    return sklearn_nearest(pairs, "euclidean")  # of the two that order alike, the one that it has a fast path for


def _pml(pairs: Pairs) -> float:
    return pml_accuracy(pairs, ("precision_at_1",), 1)["precision_at_1"]
