"""What scikit-learn, pytorch-metric-learning and torchmetrics compute from embeddings, called as their documentation says.

Axes: Q queries, G rows that are searched (gallery or references), D width. These packages are heavy and imported where they are
called. They are the peers of the benchmark and the second opinion of `parity`; nothing else depends on them.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from workbench.retrieval.arrays import normalise
from workbench.retrieval.similarities import CosineSimilarity

_ROWS_A_BLOCK = 64


@dataclass(frozen=True)
class Pairs:
    """Queries and the rows that they are compared with.

    Attributes:
        query_QD: float32 or float64, length 1.
        gallery_GD: the same dtype, length 1.
        label_Q: int64 codes of the labels, the same codes on both sides: pytorch-metric-learning casts labels to float32,
            where 16777216 and 16777217 are one.
        label_G: int64 codes.
        camera_Q: int64 codes; None: no camera rule.
        camera_G: int64 codes; None: no camera rule.
    """

    query_QD: np.ndarray
    gallery_GD: np.ndarray
    label_Q: np.ndarray
    label_G: np.ndarray
    camera_Q: np.ndarray | None = None
    camera_G: np.ndarray | None = None

    def under_cameras(self, camera_Q: np.ndarray, camera_G: np.ndarray) -> "Pairs":
        """Returns the same pairs with the rule that rows of the query's label from its own camera do not count."""
        code, _ = pd.factorize(np.concatenate([camera_Q, camera_G]))
        return replace(self, camera_Q=code[: len(camera_Q)], camera_G=code[len(camera_Q) :])

    def rankings(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yields (query, similarity, right) of the rows kept for each query that has a right one: what oracles judge.

        Rows of the query's label from the query's camera are taken away where there are cameras.
        """
        similarity = CosineSimilarity(self.query_QD, self.gallery_GD)
        for start in range(0, len(self.query_QD), _ROWS_A_BLOCK):
            block_BG = similarity.block(start, start + _ROWS_A_BLOCK)
            for query, similarity_G in enumerate(block_BG, start):
                right_G = self.label_G == self.label_Q[query]
                if self.camera_Q is not None:
                    kept_G = ~(right_G & (self.camera_G == self.camera_Q[query]))
                    similarity_G, right_G = similarity_G[kept_G], right_G[kept_G]
                if right_G.any():
                    yield query, similarity_G, right_G


def pair_up(query_ND: ArrayLike, gallery_ND: ArrayLike, label_Q: np.ndarray, label_G: np.ndarray) -> Pairs:
    """Returns embeddings of any length above 0 and labels of any kind as `Pairs`, without cameras."""
    query_QD, gallery_GD = normalise(query_ND, "query_ND"), normalise(gallery_ND, "gallery_ND")
    dtype = np.result_type(query_QD, gallery_GD)
    code = pd.factorize(np.concatenate([label_Q, label_G]))[0].astype(np.int64)
    rows = query_QD.astype(dtype, copy=False), gallery_GD.astype(dtype, copy=False)
    return Pairs(*rows, code[: len(label_Q)], code[len(label_Q) :])


def sklearn_average_precision(pairs: Pairs) -> np.ndarray:
    """Returns float64 [Q], 0 to 1, NaN without a match: the step form, tied rows as one step of the threshold."""
    from sklearn.metrics import average_precision_score

    precision_Q = np.full(len(pairs.label_Q), np.nan)
    for query, similarity, right in pairs.rankings():
        precision_Q[query] = average_precision_score(right, similarity)
    return precision_Q


def torchmetrics_average_precision(pairs: Pairs) -> np.ndarray:
    """Returns float64 [Q], 0 to 1, NaN without a match: the step form in float32, tied rows in any order.

    The library counts a match whose prediction is 0 or less as no match. So each query's similarities are moved to begin just
    above 0; subtracting a row's least value loses no precision where it matters.
    """
    import torch
    from torchmetrics.functional.retrieval import retrieval_average_precision

    precision_Q = np.full(len(pairs.label_Q), np.nan)
    for query, similarity, right in pairs.rankings():
        above_zero = np.maximum(similarity - similarity.min(), np.finfo(np.float32).tiny)
        precision_Q[query] = retrieval_average_precision(torch.from_numpy(above_zero), torch.from_numpy(right))
    return precision_Q


def torchmetrics_r_precision(pairs: Pairs) -> np.ndarray:
    """Returns float64 [Q], 0 to 1, NaN without a match: the share of right rows among the first R, R the number of them."""
    import torch
    from torchmetrics.functional.retrieval import retrieval_r_precision

    precision_Q = np.full(len(pairs.label_Q), np.nan)
    for query, similarity, right in pairs.rankings():
        precision_Q[query] = retrieval_r_precision(torch.from_numpy(similarity), torch.from_numpy(right))
    return precision_Q


def pml_accuracy(
    pairs: Pairs, metrics: Sequence[str], k: Literal["max_bin_count"] | int | None = "max_bin_count"
) -> dict[str, float]:
    """Returns what pytorch-metric-learning's AccuracyCalculator finds on a CPU: by metric, the mean over queries with a match.

    It has no camera rule: cameras are not looked at. Rows are compared by squared Euclidean distance, which orders rows of
    length 1 as the cosine does.

    Args:
        pairs: queries and gallery.
        metrics: of precision_at_1, r_precision, mean_average_precision, mean_average_precision_at_r.
        k: rows ranked for each query. "max_bin_count", as many as the most frequent label has, is enough for all but
            mean_average_precision, which takes hits behind the first k for missed; None is the whole gallery.
    """
    import torch
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    calculator = AccuracyCalculator(include=tuple(metrics), k=k, device=torch.device("cpu"))
    arrays = (pairs.query_QD, pairs.label_Q, pairs.gallery_GD, pairs.label_G)
    found = calculator.get_accuracy(*(torch.from_numpy(np.array(array)) for array in arrays))
    return {name: float(found[name]) for name in metrics}


def sklearn_nearest(pairs: Pairs, metric: Literal["cosine", "euclidean"]) -> float:
    """Returns the accuracy, 0 to 1, of scikit-learn's classifier by the one nearest row, exact search, mean over queries."""
    from sklearn.neighbors import KNeighborsClassifier

    nearest = KNeighborsClassifier(n_neighbors=1, metric=metric, algorithm="brute")
    with warnings.catch_warnings():
        # with a reference or two a class it asks whether the labels are measurements
        warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%")
        nearest.fit(pairs.gallery_GD, pairs.label_G)
    return float(nearest.score(pairs.query_QD, pairs.label_Q))
