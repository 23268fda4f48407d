"""Re-ranking: what the neighbours of query and gallery say beyond their own similarity; always beside the plain result.

Axes: N images, Q queries, G gallery rows, B queries of a block, K neighbours, D width. Re-ranking looks at embeddings alone, never at
labels or cameras: images labelled "-1" (junk for everybody) and a query's pictures from its own camera are neighbours like any other,
as in the published protocol, for who is junk is known to the evaluation only. They are taken away afterwards, when the ranking is judged.
Leave rows out beforehand to see it without them. The k-reciprocal distance lets queries see each other: a query that comes
alone is answered differently than in a batch.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from workbench.retrieval.arrays import check_embedding, normalise
from workbench.retrieval.intervals import Average
from workbench.retrieval.k_reciprocal import RerankedDistances, encode_neighbours, find_neighbours
from workbench.retrieval.reid import evaluate_reid, evaluate_similarity, read_side
from workbench.retrieval.reid_protocol import ReidProtocol
from workbench.retrieval.reid_result import ReidResult
from workbench.retrieval.similarities import CosineSimilarity
from workbench.retrieval.stats import Metric, paired_difference
from workbench.retrieval.tracklets import pool_tracklets

PLAIN, K_RECIPROCAL, QUERY_EXPANSION = "plain", "k-reciprocal", "alpha query expansion"
_COMPARED = ("mAP", "rank-1")
_NUMBERS_AT_ONCE = 2**22


@dataclass(frozen=True)
class RerankingComparison:
    """The same embeddings plain and re-ranked.

    Attributes:
        results: by way of ranking: "plain", "k-reciprocal", "alpha query expansion".
        differences: by way and metric ("mAP", "rank-1"): the re-ranked value less the plain one, paired by query, individuals
            resampled.
    """

    results: dict[str, ReidResult]
    differences: dict[tuple[str, str], Metric]

    @property
    def table(self) -> pd.DataFrame:
        """Returns a row a way and metric.

        Columns ranking, metric, value, low, high, n, difference, difference_low, difference_high (NaN where there is none), protocol.
        """
        rows = []
        for way, result in self.results.items():
            for name, metric in result.metrics.items():
                change = self.differences.get((way, name))
                ends = (change.value, change.low, change.high) if change else (np.nan, np.nan, np.nan)
                rows.append((way, name, metric.value, metric.low, metric.high, metric.n, *ends, metric.protocol))
        named = ("ranking", "metric", "value", "low", "high", "n", "difference", "difference_low", "difference_high")
        return pd.DataFrame(rows, columns=[*named, "protocol"])


def rerank(
    query_ND: ArrayLike,
    gallery_ND: ArrayLike,
    k1: int = 20,
    k2: int = 6,
    weight: float = 0.3,
    *,
    squared: bool = True,
) -> RerankedDistances:
    """Returns the k-reciprocal distances of the queries to the gallery, to be read in blocks of queries.

    Computed in float64, because a neighbour swapped by rounding changes a whole set. Memory grows with the number of images, not with
    its square. Equally near images are listed in the order of their rows, an image itself first.

    Args:
        query_ND: real, any length above 0.
        gallery_ND: real, the same width.
        k1: neighbours that may be reciprocal, at least 1.
        k2: images whose encodings are averaged, at least 1.
        weight: of the original distance (lambda), 0 to 1.
        squared: what the original distance is. Given are unsquared Euclidean distances of embeddings of length 1; the authors' code
            squares these once (True). False takes them unsquared. Giving it squared distances squares once more, a mistake of
            several libraries. Each image's distances are divided by the largest of them to any of the N images: after
            that division the matrix is no longer symmetric, and dividing along its other axis is the other mistake.

    Raises:
        ValueError: no row, widths that differ, rows that are not finite or zero, or k1, k2 or weight out of range.

    Source: Zhong et al. 2017; k1 = 20, k2 = 6 and lambda = 0.3 are theirs for Market-1501 (section 4.2).
    """
    _check_settings(k1, k2, weight)
    query_QD, gallery_GD = _unit_pair(query_ND, gallery_ND, np.float64)
    return encode_neighbours(query_QD, gallery_GD, k1, k2, weight, squared)


def expand_queries(
    query_ND: ArrayLike, gallery_ND: ArrayLike, num_neighbours: int = 10, alpha: float = 3.0
) -> np.ndarray:
    """Returns the queries moved towards what they find, [Q, D], length 1, float64 if either was, else float32.

    Each becomes the mean of itself, weight 1, and its nearest gallery rows, weight similarity^alpha (0 where the similarity is below 0);
    equally near rows in their order. Queries do not see each other.

    Args:
        query_ND: real, any length above 0.
        gallery_ND: real, the same width.
        num_neighbours: gallery rows averaged (all, if there are fewer); 0 changes nothing.
        alpha: 0 weighs all alike (average query expansion); the larger, the more the nearest count.

    Raises:
        ValueError: no row, widths that differ, rows that are not finite or zero, num_neighbours or alpha below 0.

    Source: Radenovic, Tolias and Chum 2018, "Fine-tuning CNN Image Retrieval with No Human Annotation", section 3.3 (alpha = 3).
    """
    if num_neighbours < 0 or alpha < 0:
        raise ValueError(
            f"num_neighbours and alpha of 0 or more are wanted, {num_neighbours} and {alpha} were given; 0 neighbours change nothing"
        )
    query_QD, gallery_GD = _unit_pair(query_ND, gallery_ND)
    if num_neighbours == 0:
        return query_QD
    found = find_neighbours(CosineSimilarity(query_QD, gallery_GD), num_neighbours)
    weight_QK = np.where(found.similarity_NK > 0, np.maximum(found.similarity_NK, 0).astype(np.float64) ** alpha, 0.0)
    expanded_QD = np.empty(query_QD.shape, np.float64)
    step = max(1, _NUMBERS_AT_ONCE // (weight_QK.shape[1] * query_QD.shape[1]))
    for start in range(0, len(query_QD), step):
        part = slice(start, start + step)
        near_BKD = gallery_GD[found.row_NK[part]].astype(np.float64)
        expanded_QD[part] = query_QD[part] + np.einsum("bk,bkd->bd", weight_QK[part], near_BKD)
    return normalise(expanded_QD, "the expanded queries", dtype=query_QD.dtype)


def evaluate_reranked(
    query_ND: ArrayLike,
    gallery_ND: ArrayLike,
    query_labels: ArrayLike,
    gallery_labels: ArrayLike,
    query_cameras: ArrayLike | None,
    gallery_cameras: ArrayLike | None,
    protocol: ReidProtocol,
    k1: int = 20,
    k2: int = 6,
    weight: float = 0.3,
    *,
    squared: bool = True,
) -> ReidResult:
    """Returns the metrics of the k-reciprocal distances: `evaluate_reid`'s arguments, then `rerank`'s.

    tracklets="mean" pools the queries first, those labelled "-1" left out; else all rows that are given are neighbours.

    Raises:
        ValueError: as `evaluate_reid` and `rerank`.
    """
    _check_settings(k1, k2, weight)
    num_queries, num_gallery = (
        len(check_embedding(query_ND, "query_ND")),
        len(check_embedding(gallery_ND, "gallery_ND")),
    )
    queries = read_side("query", query_labels, query_cameras, num_queries, protocol)
    gallery = read_side("gallery", gallery_labels, gallery_cameras, num_gallery, protocol)
    query_QD, gallery_GD = _unit_pair(query_ND, gallery_ND, np.float64)
    asked = queries.index.to_numpy()
    if protocol.tracklets == "mean":
        pooled = pool_tracklets(query_QD[asked], queries["label"], queries["camera"])
        query_QD, asked = pooled.embedding_TD, np.arange(len(pooled.row_T))
        queries = queries.iloc[pooled.row_T].assign(num_images=pooled.num_images_T)
    similarity = encode_neighbours(query_QD, gallery_GD, k1, k2, weight, squared)
    if len(asked) < len(query_QD):
        similarity = similarity.ask(asked)
    if len(gallery) < num_gallery:
        similarity = similarity.take(gallery.index.to_numpy())
    line = f"re-ranking k-reciprocal k1={k1} k2={k2} lambda={weight:g}" + ("" if squared else " on unsquared distances")
    return evaluate_similarity(similarity, queries, gallery, _recorded(protocol, line), num_queries, num_gallery)


def compare_reranking(
    query_ND: ArrayLike,
    gallery_ND: ArrayLike,
    query_labels: ArrayLike,
    gallery_labels: ArrayLike,
    query_cameras: ArrayLike | None,
    gallery_cameras: ArrayLike | None,
    protocol: ReidProtocol,
) -> RerankingComparison:
    """Returns the plain result and both ways of re-ranking (published settings), with the differences to the plain one.

    Under tracklets="mean" each picture is expanded first, then pooled.

    Raises:
        ValueError: as `evaluate_reid`.

    Source: Zhong et al. 2017; Radenovic et al. 2018; `stats.paired_difference`.
    """
    who = (query_labels, gallery_labels, query_cameras, gallery_cameras)
    results = {PLAIN: evaluate_reid(query_ND, gallery_ND, *who, protocol)}
    results[K_RECIPROCAL] = evaluate_reranked(query_ND, gallery_ND, *who, protocol)
    expanded_QD = expand_queries(query_ND, gallery_ND)
    expansion = _recorded(protocol, "re-ranking alpha query expansion n=10 alpha=3")
    results[QUERY_EXPANSION] = evaluate_reid(expanded_QD, gallery_ND, *who, expansion)
    plain = results.pop(PLAIN)
    counted = np.isfinite(plain.values_by_query("mAP"))
    label_Q = plain.per_query["label"].to_numpy(dtype=object)[counted]
    average: Average = "macro" if protocol.average == "identity" else "micro"
    differences = {}
    for way, result in results.items():
        line = f"{way} less plain, paired by query; {result.metrics['mAP'].protocol}"
        for name in _COMPARED:
            after, before = (one.values_by_query(name)[counted] for one in (result, plain))
            differences[way, name] = paired_difference(after, before, label_Q, average, protocol=line)
    results = {PLAIN: plain, **results}
    return RerankingComparison(results, differences)


def _recorded(protocol: ReidProtocol, line: str) -> ReidProtocol:
    return replace(protocol, distance=f"{protocol.distance}; {line}" if protocol.distance else line)


def _unit_pair(
    query_ND: ArrayLike, gallery_ND: ArrayLike, dtype: type[np.float64] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    query_ND, gallery_ND = check_embedding(query_ND, "query_ND"), check_embedding(gallery_ND, "gallery_ND")
    if query_ND.shape[1] != gallery_ND.shape[1]:
        raise ValueError(
            f"query_ND and gallery_ND must come from one model: widths {query_ND.shape[1]} and {gallery_ND.shape[1]}"
        )
    if not len(query_ND) or not len(gallery_ND):
        raise ValueError(f"queries and gallery rows are wanted, {len(query_ND)} and {len(gallery_ND)} were given")
    is_double = np.float64 in (dtype, query_ND.dtype, gallery_ND.dtype)
    wanted = np.float64 if is_double else np.float32
    return normalise(query_ND, "query_ND", dtype=wanted), normalise(gallery_ND, "gallery_ND", dtype=wanted)


def _check_settings(k1: int, k2: int, weight: float) -> None:
    if k1 < 1 or k2 < 1 or not 0 <= weight <= 1:
        raise ValueError(
            f"k1 and k2 from 1 and a weight from 0 to 1 are wanted, k1={k1}, k2={k2}, weight={weight} were given"
        )
