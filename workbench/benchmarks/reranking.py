"""K-reciprocal re-ranking: ours with sparse neighbour sets, the published one with N x N matrices, and the bare product.

Axes: N images (Q queries, then G gallery rows).
"""

from dataclasses import dataclass

import numpy as np

from workbench.benchmarks.measure import Answer, Contender
from workbench.benchmarks.reid import ReidSize, draw_pairs
from workbench.retrieval.oracles import Pairs
from workbench.retrieval.rerank import rerank

_K1, _K2, _WEIGHT = 20, 6, 0.3
_QUERIES_A_BLOCK = 256
_NUM_COMPARED = 500


@dataclass(frozen=True)
class RerankSize:
    """N images, every seventh a query as in Market-1501, about 26 of each individual; N = 23,100 is that set's size."""

    num_images: int = 23_100
    dim: int = 512
    seed: int = 0


TINY = RerankSize(70, 16)


def rerank_contenders(size: RerankSize) -> list[Contender]:
    """Returns the ways to all distances of queries to the gallery; compared are their mean and a draw of pairs."""
    num_queries = max(1, size.num_images // 7)
    individuals = max(2, size.num_images // 30)
    drawn = ReidSize(num_queries, size.num_images - num_queries, size.dim, individuals, noise=2.0, seed=size.seed)
    pairs = draw_pairs(drawn)
    return [
        Contender("matrix product", lambda: _multiply(pairs), does="all images by all images, float32, in blocks"),
        Contender("workbench", lambda: _ours(pairs), True, does="sparse neighbour sets, float64"),
        Contender("dense, as published", lambda: _answer(rerank_densely(pairs), pairs), does="N x N matrices, float64"),
    ]


def rerank_densely(pairs: Pairs, k1: int = _K1, k2: int = _K2, weight: float = _WEIGHT) -> np.ndarray:
    """Returns distance_QG, 0 to 1, by matrices of all images by all images.

    Source: Zhong et al. 2017, "Re-ranking Person Re-identification with k-reciprocal Encoding": reciprocal neighbours (3.2), Jaccard
    distance of their encodings (3.3), query expansion (3.4), final distance (3.5). As in the authors' experiments the distances are
    squared, each image's divided by its largest, and an image is one of its own k + 1 nearest.
    """
    image_ND = np.concatenate([pairs.query_QD, pairs.gallery_GD]).astype(np.float64)
    num_images, num_queries = len(image_ND), len(pairs.query_QD)
    distance_NN = np.maximum(2 - 2 * (image_ND @ image_ND.T), 0.0)
    distance_NN[np.diag_indices(num_images)] = 0.0
    distance_NN /= distance_NN.max(axis=1, keepdims=True)
    near_NN = np.argsort(distance_NN, axis=1, kind="stable")
    encoding_NN = np.zeros((num_images, num_images))

    def reciprocal(image: int, k: int) -> np.ndarray:
        near = near_NN[image, : k + 1]
        return near[(near_NN[near, : k + 1] == image).any(axis=1)]

    for image in range(num_images):
        own = reciprocal(image, k1)
        taken = own
        for candidate in own:
            other = reciprocal(int(candidate), round(k1 / 2))
            if len(np.intersect1d(other, own)) > 2 / 3 * len(other):
                taken = np.union1d(taken, other)
        value = np.exp(-distance_NN[image, taken])
        encoding_NN[image, taken] = value / value.sum()
    encoding_NN = np.stack([encoding_NN[near_NN[image, :k2]].mean(axis=0) for image in range(num_images)])
    final_QG = np.empty((num_queries, num_images - num_queries))
    for query in range(num_queries):
        smaller_G = np.minimum(encoding_NN[query], encoding_NN[num_queries:]).sum(axis=1)
        larger_G = np.maximum(encoding_NN[query], encoding_NN[num_queries:]).sum(axis=1)
        final_QG[query] = (1 - weight) * (1 - smaller_G / larger_G) + weight * distance_NN[query, num_queries:]
    return final_QG


def _ours(pairs: Pairs) -> Answer:
    distances = rerank(pairs.query_QD, pairs.gallery_GD, _K1, _K2, _WEIGHT)
    rows, columns = _compared(pairs)
    total, found = 0.0, np.empty(len(rows))
    for start in range(0, len(pairs.query_QD), _QUERIES_A_BLOCK):
        distance_BG = -distances.block(start, min(start + _QUERIES_A_BLOCK, len(pairs.query_QD)))
        here = (rows >= start) & (rows < start + _QUERIES_A_BLOCK)
        found[here] = distance_BG[rows[here] - start, columns[here]]
        total += float(distance_BG.sum())
    return {"mean": total / (len(pairs.query_QD) * len(pairs.gallery_GD)), **_named(found)}


def _answer(distance_QG: np.ndarray, pairs: Pairs) -> Answer:
    return {"mean": float(distance_QG.mean()), **_named(distance_QG[_compared(pairs)])}


def _compared(pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Returns query and gallery row of a draw of pairs, half of them of one individual where there are such."""
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(pairs.label_Q), _NUM_COMPARED)
    columns = rng.integers(0, len(pairs.label_G), _NUM_COMPARED)
    for index in range(0, _NUM_COMPARED, 2):
        same = np.flatnonzero(pairs.label_G == pairs.label_Q[rows[index]])
        columns[index] = rng.choice(same) if len(same) else columns[index]
    return rows, columns


def _named(values: np.ndarray) -> Answer:
    return {f"pair {number}": value for number, value in enumerate(values.tolist())}


def _multiply(pairs: Pairs) -> Answer:
    image_ND = np.concatenate([pairs.query_QD, pairs.gallery_GD])
    for start in range(0, len(image_ND), 1024):
        image_ND[start : start + 1024] @ image_ND.T
    return {}
